//! A sign-in plugin of bastide for Azure Key Vault: SSH keys that a vault holds and signs with, and SSH private keys
//! that are kept there as secrets, which are used in memory only. How to set it up is `docs/keyvault.md`. It has no
//! network and no sign-in of its own: the host sends its requests and gives it tokens.

mod local;
mod refusal;
mod remote;
mod settings;
mod vault;

#[cfg(test)]
mod desk;

use bastide_plugin_abi::{
    Call, Code, Failure, HttpAnswer, HttpRequest, Identity, Level, Plugin, SignIn, SignInRequest,
    SignRequest, Token, TokenRequest, export_plugin,
};

use crate::local::LocalKey;
use crate::remote::RemoteKey;
use crate::settings::{Item, Settings, Sort};
use crate::vault::{Host, Vault};

/// The plugin.
struct KeyVault {
    vault: Vault,
    item: Item,
    user: Option<String>,
    held: Option<Held>,
}

/// The identity of the last sign-in.
struct Held {
    public_key: ssh_key::PublicKey,
    signer: Signer,
}

/// Who signs.
enum Signer {
    /// The vault.
    Remote(RemoteKey),
    /// We do, with a key that came out of it.
    Local(LocalKey),
}

impl Plugin for KeyVault {
    const NAME: &'static std::ffi::CStr = c"keyvault";

    fn open(call: &Call<'_>) -> Result<Self, Failure> {
        let Settings { vault, item, user } = Settings::read(&|key| call.setting(key))?;
        Ok(Self { vault, item, user, held: None })
    }

    fn sign_in(&mut self, call: &Call<'_>, request: &SignInRequest<'_>) -> Result<SignIn, Failure> {
        let held = hold(call, &mut self.vault, &self.item)?;
        let public_key = encode(&held.public_key)?;
        if let Ok(line) = held.public_key.to_openssh() {
            call.log(Level::Info, &format!("the VM has to know this key (~/.ssh/authorized_keys): {line}"));
        }
        let identity =
            Identity { public_key, certificate: None, comment: held.public_key.comment().to_owned() };
        self.held = Some(held);
        let user = request.user.map(str::to_owned).or_else(|| self.user.clone());
        Ok(SignIn { user, password: None, identity: Some(identity) })
    }

    fn sign(&mut self, call: &Call<'_>, request: &SignRequest<'_>) -> Result<Vec<u8>, Failure> {
        sign(call, &mut self.vault, &self.item, self.held.as_ref(), request)
    }
}

export_plugin!(KeyVault);

/// Fetches the identity that the settings name.
fn hold(host: &dyn Host, vault: &mut Vault, item: &Item) -> Result<Held, Failure> {
    let (mut public_key, signer) = match item.sort {
        Sort::Key => {
            let key = RemoteKey::fetch(host, vault, item)?;
            (key.public_key()?, Signer::Remote(key))
        }
        Sort::Secret => {
            let key = LocalKey::fetch(host, vault, item)?;
            (key.public_key()?, Signer::Local(key))
        }
    };
    public_key.set_comment(format!("{} in {}", item.name, vault.host()));
    Ok(Held { public_key, signer })
}

fn sign(
    host: &dyn Host,
    vault: &mut Vault,
    item: &Item,
    held: Option<&Held>,
    request: &SignRequest<'_>,
) -> Result<Vec<u8>, Failure> {
    let other = || Failure::new(Code::Refused, format!("{item} is not the key that a signature is asked of"));
    let held = held.ok_or_else(other)?;
    if encode(&held.public_key)? != request.public_key {
        return Err(other());
    }
    match &held.signer {
        Signer::Remote(key) => key.sign(host, vault, item, request.algorithm, request.data),
        Signer::Local(key) => key.sign(request.algorithm, request.data),
    }
}

/// As SSH writes it (RFC 4253 §6.6).
fn encode(key: &ssh_key::PublicKey) -> Result<Vec<u8>, Failure> {
    key.to_bytes()
        .map_err(|error| Failure::new(Code::Internal, format!("the public key cannot be written: {error}")))
}

impl Host for Call<'_> {
    fn token(&self, request: &TokenRequest<'_>) -> Result<Token, Failure> {
        self.azure_token(request)
    }

    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, Failure> {
        self.https(request)
    }

    fn remaining(&self) -> std::time::Duration {
        Call::remaining(self)
    }

    fn pause(&self, time: std::time::Duration) -> Result<(), Failure> {
        let end = std::time::Instant::now() + time;
        loop {
            if self.is_cancelled() {
                return Err(Failure::new(Code::Cancelled, "nobody waits for it any more"));
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(CANCELLED_EVERY));
        }
    }

    fn note(&self, message: &str) {
        self.log(Level::Info, message);
    }
}

/// How often a pause asks whether anybody still waits for it: sooner than a person notices.
const CANCELLED_EVERY: std::time::Duration = std::time::Duration::from_millis(50);
