//! Doors for the fuzz targets, as `crate::fuzzing`: what reads certificates and the messages of OpenSSH and of other
//! agents.

use super::Certificate;
use super::algorithm::Algorithm;
use super::conversation::{Ask, Conversation, list};
use super::offer::Offer;

/// A certificate that Entra ID has answered with, for the public key with this blob.
///
/// # Errors
/// What the user would be told.
pub fn certificate(text: &str, public: &[u8]) -> Result<Certificate, String> {
    Certificate::read(text, public).map_err(|error| error.to_string())
}

/// A conversation with a client, for the identity of `user` with `certificate`.
pub struct Talk<'a> {
    conversation: Conversation,
    user: &'a str,
    certificate: &'a [u8],
}

impl<'a> Talk<'a> {
    /// One that begins.
    pub fn new(user: &'a str, certificate: &'a [u8]) -> Self {
        Self { conversation: Conversation::default(), user, certificate }
    }

    /// Hears a message; the bytes that would be signed with our key because of it.
    pub fn hear<'m>(&mut self, message: &'m [u8]) -> Option<&'m [u8]> {
        let Ask::Sign { identity, data, hash } = self.conversation.hear(message) else {
            return None;
        };
        let algorithm = Algorithm::of(identity, hash)?;
        let ours = identity == self.certificate;
        (ours && self.conversation.may_sign(data, algorithm, Some(self.user), identity)).then_some(data)
    }

    /// Whether the client would be shown our identity.
    pub fn is_at_home(&self) -> bool {
        self.conversation.is_at_home()
    }

    /// The list of identities, after another agent has answered so.
    pub fn list(&self, others: &[u8]) -> Vec<u8> {
        let (blobs, user) = (vec![self.certificate.to_vec()], self.user.to_owned());
        list(Some(&Offer { blobs, comment: user.clone(), user: Some(user) }), Some(others))
    }
}
