//! What the agent offers to a VM: an Entra identity, or a key that a plugin signs with. It leaves out serving it to
//! OpenSSH (`agent`).

use bastide_core::AuthError;

use super::EntraIdentity;
use super::algorithm::Algorithm;
use crate::plugin::PluginIdentity;

/// An identity on VMs.
#[derive(Debug)]
pub enum VmSignIn {
    /// A certificate of Entra ID for a key in memory.
    Entra(Box<EntraIdentity>),
    /// A key in somebody else's hands.
    Plugin(PluginIdentity),
}

/// What is listed, as of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// Certificate or public key as SSH writes them, the best first.
    pub(super) blobs: Vec<Vec<u8>>,
    pub(super) comment: String,
    /// The one user that it is for, where that is known.
    pub(super) user: Option<String>,
}

impl VmSignIn {
    /// Cancel safe.
    pub(super) async fn offer(&self) -> Result<Offer, AuthError> {
        match self {
            VmSignIn::Entra(identity) => {
                let certificate = identity.certificate().await?;
                let user = certificate.user().to_owned();
                Ok(Offer { blobs: vec![certificate.blob], comment: user.clone(), user: Some(user) })
            }
            VmSignIn::Plugin(identity) => {
                let certificate = identity.certificate().map(<[u8]>::to_vec);
                let blobs = certificate.into_iter().chain([identity.public_key().to_vec()]).collect();
                let comment = match identity.comment() {
                    "" => identity.plugin().to_owned(),
                    comment => comment.to_owned(),
                };
                Ok(Offer { blobs, comment, user: None })
            }
        }
    }

    /// A signature as SSH writes it.
    ///
    /// Cancel safe.
    pub(super) async fn sign(&self, algorithm: Algorithm, data: &[u8]) -> Result<Vec<u8>, AuthError> {
        match (self, algorithm) {
            (VmSignIn::Entra(identity), Algorithm::Rsa(hash)) => identity.sign(hash, data),
            (VmSignIn::Entra(identity), _) => Err(identity.refused("its key is an RSA key")),
            (VmSignIn::Plugin(identity), algorithm) => {
                let raw = identity.sign_raw(algorithm.name(), data).await?;
                algorithm
                    .encode(identity.public_key(), data, &raw)
                    .ok_or_else(|| identity.fault("its signature is not a good one for its key"))
            }
        }
    }
}

impl PluginIdentity {
    /// By which algorithms it signs in, as `PubkeyAcceptedAlgorithms` of ssh_config(5) wants them; none for a kind of
    /// key that is not known.
    pub fn algorithms(&self) -> Vec<String> {
        let blobs = self.certificate().into_iter().chain([self.public_key()]);
        blobs.flat_map(Algorithm::request_names).collect()
    }
}
