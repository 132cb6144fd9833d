//! The system's keyring: Secret Service, Keychain or Credential Manager, by the `keyring` crate. It leaves out what is
//! kept there, and how long one waits for it.

use std::path::Path;

use keyring::Entry;
use zeroize::Zeroizing;

use crate::{Environment, sys};

/// One place for one secret. Calls block. Errors are words that hold no secret.
pub(crate) trait Vault: Send + Sync {
    fn get(&self) -> Result<Option<Zeroizing<Vec<u8>>>, String>;
    fn set(&self, secret: &[u8]) -> Result<(), String>;
    fn delete(&self) -> Result<(), String>;
}

/// The entry of one state folder in the keyring.
pub(crate) struct SystemKeyring {
    entry: String,
}

impl SystemKeyring {
    /// None where the environment shows that there can't be one: finding out by asking would cost time.
    pub(crate) fn find(environment: &Environment, folder: &Path) -> Option<Self> {
        sys::may_have_keyring(environment).then(|| Self { entry: format!("sign-in of {}", folder.display()) })
    }

    fn entry(&self) -> Result<Entry, String> {
        Entry::new("bastide", &self.entry).map_err(|error| words(&error))
    }
}

impl Vault for SystemKeyring {
    fn get(&self) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        match self.entry()?.get_secret() {
            Ok(secret) => Ok(Some(Zeroizing::new(secret))),
            Err(keyring::Error::NoEntry) => Ok(None),
            Err(error) => Err(words(&error)),
        }
    }

    fn set(&self, secret: &[u8]) -> Result<(), String> {
        self.entry()?.set_secret(secret).map_err(|error| words(&error))
    }

    fn delete(&self) -> Result<(), String> {
        match self.entry()?.delete_credential() {
            Ok(()) | Err(keyring::Error::NoEntry) => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }
}

/// Some of its errors carry what was read in their debug form; their display form does not.
fn words(error: &keyring::Error) -> String {
    error.to_string()
}
