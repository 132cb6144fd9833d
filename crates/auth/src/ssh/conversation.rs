//! One client's conversation with the agent, message by message (draft-ietf-sshm-ssh-agent, and OpenSSH's
//! PROTOCOL.agent for `session-bind`): what is asked, and whether our key may sign it. It leaves out sockets and
//! the certificate's renewal.

use super::algorithm::Algorithm;
use super::key::Hash;
use super::offer::Offer;
use super::wire::{Reader, put_string, put_uint32};

/// What one connection has said so far.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// Ids of the sessions that this connection was bound to, at most [`MAX_BINDINGS`].
    sessions: Vec<Vec<u8>>,
    /// Whether the connection was bound for forwarding: the other end is not on this machine.
    forwarded: bool,
}

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    /// Which identities there are.
    List,
    /// A signature by the identity with this public part.
    Sign { identity: &'a [u8], data: &'a [u8], hash: Option<Hash> },
    /// Nothing but that the binding was understood.
    Bound,
    /// Something that this agent does not do itself.
    Other,
}

/// Numbers of messages and flags.
const FAILURE: u8 = 5;
const SUCCESS: u8 = 6;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const EXTENSION: u8 = 27;
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// `SSH_MSG_USERAUTH_REQUEST` (RFC 4252 §6).
const USERAUTH_REQUEST: u8 = 50;

/// Sessions that one connection may be bound to: OpenSSH's own bound (`AGENT_MAX_SESSION_IDS` of ssh-agent.c).
const MAX_BINDINGS: usize = 16;

/// Identities that another agent may list: OpenSSH's own bound (`MAX_AGENT_IDENTITIES` of authfd.c).
const MAX_IDENTITIES: u32 = 2048;

impl Conversation {
    /// Reads one message, and remembers a binding.
    pub(super) fn hear<'a>(&mut self, message: &'a [u8]) -> Ask<'a> {
        self.read(message).unwrap_or(Ask::Other)
    }

    fn read<'a>(&mut self, message: &'a [u8]) -> Option<Ask<'a>> {
        let mut reader = Reader::new(message);
        match reader.byte()? {
            REQUEST_IDENTITIES => Some(Ask::List),
            SIGN_REQUEST => {
                let (identity, data, flags) = (reader.string()?, reader.string()?, reader.uint32()?);
                let hash = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => Some(Hash::Sha512),
                    flags if flags & RSA_SHA2_256 != 0 => Some(Hash::Sha256),
                    _ => None,
                };
                Some(Ask::Sign { identity, data, hash })
            }
            EXTENSION if reader.string()? == b"session-bind@openssh.com" => {
                let (_host_key, session, _signature) = (reader.string()?, reader.string()?, reader.string()?);
                // Once forwarded, always forwarded: what comes later on this connection comes from afar.
                self.forwarded |= reader.byte()? != 0 || self.sessions.len() >= MAX_BINDINGS;
                if !self.forwarded {
                    self.sessions.push(session.to_vec());
                }
                Some(Ask::Bound)
            }
            _ => None,
        }
    }

    /// Whether the connection was bound to a session.
    pub(super) fn is_bound(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// Whether our identity may be for this connection at all.
    pub(super) fn is_at_home(&self) -> bool {
        !self.forwarded
    }

    /// Whether `data` is what our identity is offered for: the sign-in with it, by `algorithm`, of `user` where that is
    /// known, to the session that the connection was bound to (RFC 4252 §7, and OpenSSH's PROTOCOL for the method that
    /// names the host), and nothing more. OpenSSH before 8.9 binds none.
    pub(super) fn may_sign(
        &self,
        data: &[u8],
        algorithm: Algorithm,
        user: Option<&str>,
        identity: &[u8],
    ) -> bool {
        let algorithm = algorithm.request_name(identity);
        let mut reader = Reader::new(data);
        let mut expected = || {
            let session = reader.string()?;
            let known = self.sessions.is_empty() || self.sessions.iter().any(|id| id == session);
            let is_request = reader.byte()? == USERAUTH_REQUEST;
            let named = reader.string()?;
            let for_user = user.is_none_or(|user| named == user.as_bytes());
            let to_connect = reader.string()? == b"ssh-connection";
            let (by_key, names_host) = match reader.string()? {
                b"publickey" => (true, false),
                b"publickey-hostbound-v00@openssh.com" => (true, true),
                _ => (false, false),
            };
            let signed = reader.byte()? == 1;
            let by_algorithm = reader.string()? == algorithm.as_bytes();
            let with_identity = reader.string()? == identity;
            if names_host {
                let _host_key = reader.string()?;
            }
            Some(
                known
                    && is_request
                    && for_user
                    && to_connect
                    && by_key
                    && signed
                    && by_algorithm
                    && with_identity
                    && reader.rest().is_empty(),
            )
        };
        self.is_at_home() && expected().unwrap_or(false)
    }
}

/// "I can't", "I don't", "I won't": the protocol has one word for them.
pub(super) fn failure() -> Vec<u8> {
    vec![FAILURE]
}

pub(super) fn success() -> Vec<u8> {
    vec![SUCCESS]
}

pub(super) fn list_request() -> Vec<u8> {
    vec![REQUEST_IDENTITIES]
}

pub(super) fn signature(blob: &[u8]) -> Vec<u8> {
    let mut answer = vec![SIGN_RESPONSE];
    put_string(&mut answer, blob);
    answer
}

/// Our identity, if there is one for this client, before those that another agent has listed.
pub(super) fn list(ours: Option<&Offer>, others: Option<&[u8]>) -> Vec<u8> {
    let (count, others) = others.and_then(listed).unwrap_or_default();
    let mut answer = vec![IDENTITIES_ANSWER];
    put_uint32(&mut answer, count + ours.map_or(0, |offer| offer.blobs.len()));
    for (offer, blob) in ours.iter().flat_map(|offer| offer.blobs.iter().map(move |blob| (offer, blob))) {
        put_string(&mut answer, blob);
        put_string(&mut answer, offer.comment.as_bytes());
    }
    answer.extend_from_slice(others);
    answer
}

/// How many identities another agent's answer lists, and their bytes.
fn listed(answer: &[u8]) -> Option<(usize, &[u8])> {
    let mut reader = Reader::new(answer);
    if reader.byte()? != IDENTITIES_ANSWER {
        return None;
    }
    let count = reader.uint32().filter(|count| *count <= MAX_IDENTITIES)?;
    let bytes = reader.rest();
    for _ in 0..count {
        let (_blob, _comment) = (reader.string()?, reader.string()?);
    }
    Some((usize::try_from(count).ok()?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = b"\0\0\0\x1cssh-rsa-cert-v01@openssh.com and more";

    fn bind(session: &[u8], forwarding: u8) -> Vec<u8> {
        let mut message = vec![27];
        for field in [&b"session-bind@openssh.com"[..], b"host key", session, b"signature"] {
            put_string(&mut message, field);
        }
        message.push(forwarding);
        message
    }

    struct Request {
        session: &'static [u8],
        message: u8,
        user: &'static [u8],
        service: &'static [u8],
        method: &'static [u8],
        algorithm: &'static [u8],
        key: &'static [u8],
    }

    const GOOD: Request = Request {
        session: b"id 1",
        message: 50,
        user: b"ada@example.org",
        service: b"ssh-connection",
        method: b"publickey",
        algorithm: b"rsa-sha2-512-cert-v01@openssh.com",
        key: CERTIFICATE,
    };

    impl Request {
        fn bytes(&self) -> Vec<u8> {
            let mut data = Vec::new();
            put_string(&mut data, self.session);
            data.push(self.message);
            for field in [self.user, self.service, self.method] {
                put_string(&mut data, field);
            }
            data.push(1);
            put_string(&mut data, self.algorithm);
            put_string(&mut data, self.key);
            data
        }
    }

    fn may_sign(conversation: &Conversation, data: &[u8]) -> bool {
        let algorithm = Algorithm::of(CERTIFICATE, Some(Hash::Sha512)).unwrap();
        conversation.may_sign(data, algorithm, Some("ada@example.org"), CERTIFICATE)
    }

    #[test]
    fn a_key_without_a_certificate_signs_for_the_user_that_openssh_names() {
        const KEY: &[u8] = b"\0\0\0\x0bssh-ed25519 and more";
        let algorithm = Algorithm::of(KEY, None).unwrap();
        let may_sign =
            |request: Request, user| Conversation::default().may_sign(&request.bytes(), algorithm, user, KEY);
        let good = || Request { algorithm: b"ssh-ed25519", key: KEY, ..GOOD };
        assert!(may_sign(good(), None));
        assert!(!may_sign(good(), Some("root")));
        assert!(!may_sign(Request { algorithm: b"ssh-ed25519-cert-v01@openssh.com", ..good() }, None));
        assert!(!may_sign(Request { key: CERTIFICATE, ..good() }, None));
    }

    #[test]
    fn only_the_sign_in_that_the_key_was_made_for_is_signed() {
        let mut bound = Conversation::default();
        assert_eq!(bound.hear(&bind(b"id 1", 0)), Ask::Bound);
        assert!(may_sign(&bound, &GOOD.bytes()));
        let mut host_bound = Request { method: b"publickey-hostbound-v00@openssh.com", ..GOOD }.bytes();
        assert!(!may_sign(&bound, &host_bound), "it names no host");
        put_string(&mut host_bound, b"host key");
        assert!(may_sign(&bound, &host_bound));
        for wrong in [
            Request { session: b"id 2", ..GOOD },
            Request { message: 51, ..GOOD },
            Request { user: b"root", ..GOOD },
            Request { service: b"ssh-userauth", ..GOOD },
            Request { method: b"hostbased", ..GOOD },
            Request { algorithm: b"ssh-rsa-cert-v01@openssh.com", ..GOOD },
            Request { algorithm: b"rsa-sha2-256-cert-v01@openssh.com", ..GOOD },
            Request { key: b"another key", ..GOOD },
        ] {
            assert!(!may_sign(&bound, &wrong.bytes()));
        }
        let whole = GOOD.bytes();
        for length in 0..whole.len() {
            assert!(!may_sign(&bound, &whole[..length]), "{length}");
        }
        assert!(!may_sign(&bound, &[&whole[..], b"\0"].concat()));
        assert!(!may_sign(&bound, &[&host_bound[..], b"\0"].concat()));
        assert!(!may_sign(&bound, b"SSHSIG and what git signs"));
    }

    #[test]
    fn an_old_openssh_binds_nothing() {
        assert!(may_sign(&Conversation::default(), &GOOD.bytes()));
    }

    #[test]
    fn nothing_is_signed_for_a_forwarded_connection() {
        let mut conversation = Conversation::default();
        assert_eq!(conversation.hear(&bind(b"id 1", 1)), Ask::Bound);
        assert!(!conversation.is_at_home());
        // What the far end adds does not bring it home.
        assert_eq!(conversation.hear(&bind(b"id 1", 0)), Ask::Bound);
        assert!(!may_sign(&conversation, &GOOD.bytes()));
    }

    #[test]
    fn messages_are_read_and_cut_ones_are_not() {
        let mut message = vec![13];
        put_string(&mut message, b"key");
        put_string(&mut message, b"data");
        message.extend([0, 0, 0, 4]);
        let ask = |message: &[u8]| format!("{:?}", Conversation::default().hear(message));
        let sign = Ask::Sign { identity: b"key", data: b"data", hash: Some(Hash::Sha512) };
        assert_eq!(Conversation::default().hear(&message), sign);
        for length in 0..message.len() {
            assert_eq!(ask(&message[..length]), "Other", "{length}");
        }
        let last = message.len() - 1;
        message[last] = 2;
        assert!(ask(&message).contains("Sha256"));
        message[last] = 0;
        assert!(ask(&message).contains("None"), "SHA-1");
        assert_eq!(ask(&[11]), "List");
        let binding = bind(b"id", 0);
        for length in 0..binding.len() {
            assert_eq!(ask(&binding[..length]), "Other", "{length}");
        }
    }

    #[test]
    fn lists_are_joined() {
        let mut others = vec![12, 0, 0, 0, 1];
        put_string(&mut others, b"their key");
        put_string(&mut others, b"their comment");
        let offer =
            Offer { blobs: vec![CERTIFICATE.to_vec(), b"key".to_vec()], comment: "ours".into(), user: None };
        let joined = list(Some(&offer), Some(&others));
        let (count, bytes) = listed(&joined).unwrap();
        let mut reader = Reader::new(bytes);
        assert_eq!((count, reader.string()), (3, Some(CERTIFICATE)));
        assert_eq!(reader.string(), Some(&b"ours"[..]));
        assert_eq!((reader.string(), reader.string()), (Some(&b"key"[..]), Some(&b"ours"[..])));
        assert_eq!(reader.string(), Some(&b"their key"[..]));

        assert_eq!(list(None, Some(&others)), others);
        assert_eq!(list(None, None), [12, 0, 0, 0, 0]);
        // What is no list is no reason to lose ours.
        for length in 0..others.len() {
            let joined = list(Some(&offer), Some(&others[..length]));
            assert_eq!(listed(&joined).unwrap().0, 2, "{length}");
        }
    }
}
