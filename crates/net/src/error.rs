//! What can go wrong on the way out, whose fault it is, and what to do about it. Messages name hosts
//! and ports and never a path, a header or a credential.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::chain::{Chain, Distrust, Rejected};

/// Why a request did not get out, or its answer not back. Cheap to clone, so that one failure can be
/// told to everybody who waited for the same thing.
///
/// `peer` is `host:port`, followed by the addresses that were tried where a name had to be resolved.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's: no http(s) URL, or one with credentials.
    #[error("'{given}' is not the address of an http or https server")]
    Address {
        /// What was given, without credentials and path.
        given: String,
    },
    /// The user's: a CA bundle that holds no certificate we can use.
    #[error("the CA bundle {} cannot be used", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: BundleFault,
    },
    /// The machine's: no trust store to be found.
    #[error("the system's trusted certificates cannot be loaded")]
    TrustStore(#[source] Cause),
    /// The user's: a proxy address that cannot be used.
    #[error("the proxy address of {place} cannot be used: {reason}")]
    ProxyAddress {
        /// The flag or variable that holds it.
        place: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name does not resolve.
    #[error("the name of {peer} cannot be resolved")]
    Name {
        /// Whose.
        peer: String,
        /// The resolver's words.
        #[source]
        source: Arc<io::Error>,
    },
    /// There is a machine, and nothing listens there.
    #[error("{peer} refused the connection")]
    Refused {
        /// Who.
        peer: String,
    },
    /// No route to it.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// Who.
        peer: String,
        /// Network or host.
        #[source]
        source: Arc<io::Error>,
    },
    /// Nothing came in time.
    #[error("{peer} gave no answer within {limit:?} while {step}")]
    Timeout {
        /// Who.
        peer: String,
        /// What was waited for.
        step: Step,
        /// For how long.
        limit: Duration,
    },
    /// The connection was torn down by the other end, or by something in between.
    #[error("the connection to {peer} was reset while {step}")]
    Reset {
        /// Who.
        peer: String,
        /// How far it had come.
        step: Step,
    },
    /// The other end closed the connection before it had answered.
    #[error("{peer} closed the connection while {step}")]
    Closed {
        /// Who.
        peer: String,
        /// How far it had come.
        step: Step,
    },
    /// The server's certificate is not to be trusted. The source shows the chain that it presented.
    #[error("the certificate of {peer} is not accepted: {distrust}")]
    Certificate {
        /// Whose.
        peer: String,
        /// Why not.
        distrust: Distrust,
        /// What it presented.
        #[source]
        chain: Chain,
    },
    /// TLS failed for another reason than the certificate.
    #[error("TLS with {peer} failed while {step}")]
    Tls {
        /// With whom.
        peer: String,
        /// How far it had come.
        step: Step,
        /// rustls' words.
        #[source]
        source: Cause,
    },
    /// The proxy wants credentials, or others.
    #[error("the proxy {proxy} {}", credentials.words())]
    ProxyCredentials {
        /// `host:port`.
        proxy: String,
        /// Whether it was given any.
        credentials: Credentials,
        /// The authentication schemes that it offers, in its words: `Basic`, `Negotiate`, `NTLM`.
        offered: Vec<String>,
    },
    /// The proxy does not let us through.
    #[error("the proxy {proxy} refused to connect to {target}: status {status}")]
    ProxyRefused {
        /// `host:port`.
        proxy: String,
        /// `host:port`.
        target: String,
        /// Its answer to `CONNECT`.
        status: StatusCode,
    },
    /// The answer's body is larger than we are willing to hold.
    #[error("the answer of {peer} is larger than {limit} bytes")]
    TooLarge {
        /// Whose.
        peer: String,
        /// Bytes.
        limit: usize,
    },
    /// What came back is not HTTP/1.1, or its head is larger than 64 KiB.
    #[error("{peer} gave an answer that cannot be read as HTTP/1.1")]
    Answer {
        /// Who.
        peer: String,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// Anything else that the operating system reports.
    #[error("the connection to {peer} failed while {step}")]
    Io {
        /// With whom.
        peer: String,
        /// How far it had come.
        step: Step,
        /// The operating system's words.
        #[source]
        source: Arc<io::Error>,
    },
}

/// A cause whose type is nobody's business.
pub type Cause = Arc<dyn StdError + Send + Sync>;

/// How far a connection or an exchange had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Step {
    /// Asking the resolver for addresses.
    #[error("resolving its name")]
    Resolve,
    /// Opening a TCP connection.
    #[error("connecting")]
    Connect,
    /// Waiting for a proxy to open the tunnel.
    #[error("opening a tunnel through the proxy")]
    Tunnel,
    /// Agreeing on keys.
    #[error("shaking hands for TLS")]
    Handshake,
    /// Sending the request and waiting for all of the answer.
    #[error("waiting for its answer")]
    Answer,
}

/// What is wrong with a CA bundle.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleFault {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(Arc<io::Error>),
    /// It is damaged.
    #[error("it is not well-formed PEM: {0}")]
    Malformed(String),
    /// It is no PEM file, or holds other things only.
    #[error("it holds no certificate in PEM form")]
    Empty,
    /// None of the certificates in it can be read.
    #[error("none of its {0} certificates can be read as X.509")]
    Unusable(usize),
}

/// Whether a proxy that asks for credentials was given any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// None were configured.
    Missing,
    /// Those that were configured do not suit it.
    Rejected,
}

impl Credentials {
    fn words(self) -> &'static str {
        match self {
            Credentials::Missing => "asks for a user name and password",
            Credentials::Rejected => "does not accept the configured user name and password",
        }
    }
}

impl Error {
    /// Whether something took longer than it was given.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }

    /// Whether no byte of the request can have reached the origin, so that sending it again repeats
    /// nothing.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        match self {
            Error::Timeout { step, .. }
            | Error::Reset { step, .. }
            | Error::Closed { step, .. }
            | Error::Tls { step, .. }
            | Error::Io { step, .. } => *step != Step::Answer,
            Error::TooLarge { .. } | Error::Answer { .. } => false,
            _ => true,
        }
    }

    /// Whether the fault is in what the user or the caller configured, so that trying again cannot
    /// help.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Error::Address { .. }
                | Error::Bundle { .. }
                | Error::TrustStore(_)
                | Error::ProxyAddress { .. }
                | Error::ProxyCredentials { .. }
        )
    }

    /// The certificates that the server presented, when they are what is wrong.
    #[must_use]
    pub fn presented(&self) -> Option<&Chain> {
        match self {
            Error::Certificate { chain, .. } => Some(chain),
            _ => None,
        }
    }

    /// What to do next, when there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Address { .. } | Error::TooLarge { .. } | Error::Io { .. } => return None,
            Error::Bundle { .. } => {
                "give a PEM file: one or more blocks from BEGIN CERTIFICATE to END CERTIFICATE \
                 (from DER: openssl x509 -inform der -in FILE)"
            }
            Error::TrustStore(_) => {
                "install the system's certificates (Debian: apt-get install ca-certificates) or name \
                 a PEM file with --ca-bundle FILE"
            }
            Error::ProxyAddress { .. } => {
                "write it as http://host:port or http://user:password@host:port, with anything but \
                 letters and digits in user and password percent-encoded"
            }
            Error::Name { .. } => {
                "check the spelling and this machine's DNS; in a network that is left through a proxy, \
                 set HTTPS_PROXY or --proxy"
            }
            Error::Refused { .. } => "check host and port, and that nothing in between blocks them",
            Error::Unreachable { .. } => {
                "check this machine's network, its VPN, and whether a proxy has to be used \
                 (HTTPS_PROXY or --proxy)"
            }
            Error::Timeout { step: Step::Answer, .. } => "try again: the service may be busy",
            Error::Timeout { .. } => {
                "a firewall may be dropping packets: allow outgoing TCP to this port, or name the proxy \
                 (HTTPS_PROXY or --proxy)"
            }
            Error::Reset { step: Step::Handshake, .. } | Error::Closed { step: Step::Handshake, .. } => {
                "a firewall may be cutting TLS connections to this name: ask for it to be allowed, or \
                 name the proxy (HTTPS_PROXY or --proxy)"
            }
            Error::Reset { .. } | Error::Closed { .. } => "try again",
            Error::Certificate { distrust, .. } => return Some(distrust.hint()),
            Error::Tls { step: Step::Handshake, .. } => {
                "the server may speak no TLS on this port, or only versions older than TLS 1.2"
            }
            Error::Tls { .. } => "try again",
            Error::ProxyCredentials { offered, .. } => return Some(credentials_hint(offered)),
            Error::ProxyRefused { target, .. } => {
                return Some(format!("ask whoever runs the proxy to allow CONNECT to {target}"));
            }
            Error::Answer { .. } => {
                "something else than the service may be answering: a proxy, a sign-in page"
            }
        };
        Some(hint.to_owned())
    }

    /// What a failed system call, or TLS through its guise, means.
    pub(crate) fn from_io(peer: &str, step: Step, error: io::Error) -> Error {
        let peer = peer.to_owned();
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Error::from_tls(peer, step, tls);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused if step == Step::Connect => Error::Refused { peer },
            // Later on, ICMP can report the same of a connection that has carried a request.
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
                if step == Step::Connect =>
            {
                Error::Unreachable { peer, source: Arc::new(error) }
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Error::Reset { peer, step }
            }
            io::ErrorKind::UnexpectedEof => Error::Closed { peer, step },
            _ => Error::Io { peer, step, source: Arc::new(error) },
        }
    }

    fn from_tls(peer: String, step: Step, error: &rustls::Error) -> Error {
        if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error
            && let Some(Rejected { distrust, chain }) = other.0.downcast_ref::<Rejected>()
        {
            return Error::Certificate { peer, distrust: distrust.clone(), chain: chain.clone() };
        }
        Error::Tls { peer, step, source: Arc::new(error.clone()) }
    }

    /// What hyper reports, which wraps what its connection reports.
    pub(crate) fn from_hyper(peer: &str, step: Step, error: &hyper::Error) -> Error {
        if let Some(io) = find::<io::Error>(error) {
            return Error::from_io(peer, step, copy(io));
        }
        let peer = peer.to_owned();
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            Error::Closed { peer, step }
        } else {
            Error::Answer { peer, source: words(error.to_string()) }
        }
    }
}

/// The first `T` in a chain of causes.
pub(crate) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut error = Some(error);
    while let Some(link) = error {
        if let Some(found) = link.downcast_ref() {
            return Some(found);
        }
        error = link.source();
    }
    None
}

/// A cause that is nothing but words.
pub(crate) fn words(words: impl Into<String>) -> Cause {
    Arc::from(Box::<dyn StdError + Send + Sync>::from(words.into()))
}

/// An `io::Error` out of a borrowed one: the code, or kind and words, and TLS' error where there is one.
pub(crate) fn copy(error: &io::Error) -> io::Error {
    if let Some(code) = error.raw_os_error() {
        return io::Error::from_raw_os_error(code);
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => io::Error::new(error.kind(), tls.clone()),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// `host:port`, and what its name was resolved to.
pub(crate) fn tried(peer: &str, addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    if addresses == [peer] { peer.to_owned() } else { format!("{peer} (tried {})", addresses.join(", ")) }
}

fn credentials_hint(offered: &[String]) -> String {
    if offered.is_empty() || offered.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        return "put them into the proxy's URL: http://user:password@host:port, percent-encoded".to_owned();
    }
    format!(
        "it offers {} only, which is not spoken here: run cntlm or px on this machine and name that as \
         the proxy",
        offered.join(", ")
    )
}

/// Bytes of an answer's status line and headers: eight times what nginx and Tomcat send by default.
/// hyper checks it after each read, so that a little more may get through.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_system_calls_report() {
        let check = |kind: io::ErrorKind, step: Step, expected: &str| {
            let error = Error::from_io("vm:22", step, io::Error::from(kind));
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.is_connect(), step != Step::Answer, "{error}");
        };
        check(io::ErrorKind::ConnectionRefused, Step::Connect, "vm:22 refused the connection");
        check(io::ErrorKind::NetworkUnreachable, Step::Connect, "vm:22 cannot be reached");
        check(
            io::ErrorKind::HostUnreachable,
            Step::Answer,
            "the connection to vm:22 failed while waiting for its answer",
        );
        check(
            io::ErrorKind::ConnectionReset,
            Step::Handshake,
            "the connection to vm:22 was reset while shaking hands for TLS",
        );
        check(
            io::ErrorKind::UnexpectedEof,
            Step::Tunnel,
            "vm:22 closed the connection while opening a tunnel through the proxy",
        );
        check(
            io::ErrorKind::TimedOut,
            Step::Answer,
            "the connection to vm:22 failed while waiting for its answer",
        );
    }

    #[test]
    fn tried_addresses_are_named_where_they_say_more() {
        let address = "127.0.0.1:22".parse().unwrap();
        assert_eq!(tried("127.0.0.1:22", &[address]), "127.0.0.1:22");
        assert_eq!(tried("vm:22", &[address]), "vm:22 (tried 127.0.0.1:22)");
    }
}
