//! Who a user is on a VM by Entra ID: a key, and the certificate for it, which is asked for again before it ends.
//! It leaves out serving them to OpenSSH (`agent`).

use std::fmt;
use std::sync::Arc;

use bastide_core::{AuthError, Provider, Secret, TokenRequest};

use super::certificate::Certificate;
use super::key::{Hash, Key, NoKey};

/// A fresh key in memory and a provider that gets certificates for it.
pub struct EntraIdentity {
    key: Key,
    /// With a [`crate::Cache`] around it: that is what keeps a certificate, and renews it ahead of its end.
    provider: Arc<dyn Provider>,
    request: TokenRequest,
}

impl EntraIdentity {
    /// Makes the key. `request` names the scope ([`bastide_core::Cloud::ssh_scope`]) and the tenant.
    ///
    /// Cancel safe: a dropped future leaves a thread that soon ends.
    ///
    /// # Errors
    /// [`AuthError::Refused`] when the system has no random numbers.
    pub async fn new(provider: Arc<dyn Provider>, request: TokenRequest) -> Result<Self, AuthError> {
        let key = match tokio::task::spawn_blocking(Key::generate).await {
            Ok(Ok(key)) => key,
            Ok(Err(NoKey)) | Err(_) => {
                return Err(refused(provider.name(), "no RSA key can be made on this machine".into()));
            }
        };
        Ok(Self::of(key, provider, request))
    }

    /// With the key of a file that [`EntraIdentity::private_pem`] went into.
    ///
    /// # Errors
    /// [`AuthError::Refused`] when it holds no such key.
    pub fn with_key(
        provider: Arc<dyn Provider>,
        request: TokenRequest,
        pem: &Secret,
    ) -> Result<Self, AuthError> {
        match Key::from_pem(pem) {
            Ok(key) => Ok(Self::of(key, provider, request)),
            Err(NoKey) => Err(refused(provider.name(), "the file holds no RSA key of bastide's".into())),
        }
    }

    fn of(key: Key, provider: Arc<dyn Provider>, request: TokenRequest) -> Self {
        let request = TokenRequest { certificate: Some(key.certificate_request()), ..request };
        Self { key, provider, request }
    }

    /// The certificate as it is now.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The provider's, and [`AuthError::Refused`] when what came is no certificate for this key.
    pub async fn certificate(&self) -> Result<Certificate, AuthError> {
        let token = self.provider.access_token(&self.request).await?;
        Certificate::read(token.secret.expose(), &self.key.public())
            .map_err(|error| refused(self.provider.name(), error.to_string()))
    }

    /// The private key as a file that OpenSSH reads, for those who need files.
    ///
    /// # Errors
    /// [`AuthError::Refused`] when there is no memory for it.
    pub fn private_pem(&self) -> Result<Secret, AuthError> {
        self.key
            .private_pem()
            .map_err(|NoKey| refused(self.provider.name(), "the key is not to be had".into()))
    }

    /// The line of its `.pub` file (ssh-keygen(1)), without its end.
    pub fn public_line(&self) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(self.key.public());
        format!("ssh-rsa {body} bastide")
    }

    /// A signature as SSH writes it.
    pub(super) fn sign(&self, hash: Hash, data: &[u8]) -> Result<Vec<u8>, AuthError> {
        self.key.sign(hash, data).map_err(|NoKey| self.refused("there is no memory for a signature"))
    }

    pub(super) fn refused(&self, message: &str) -> AuthError {
        refused(self.provider.name(), message.to_owned())
    }
}

impl fmt::Debug for EntraIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EntraIdentity")
            .field("provider", &self.provider.name())
            .finish_non_exhaustive()
    }
}

fn refused(provider: &str, message: String) -> AuthError {
    AuthError::Refused {
        provider: provider.to_owned(),
        message,
        hint: Some("try again; --auth-type ssh-key or password sign in to the VM without Entra ID".into()),
    }
}
