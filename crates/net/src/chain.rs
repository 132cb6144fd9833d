//! The certificates that a server presented, in words: for the error that shows who is really at the
//! other end. Reads them and judges nothing; judging is `tls`.

use std::fmt;

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate, X509Name};

/// The certificates that a server presented, its own first. As an error's source it shows each one's
/// subject, issuer and validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    certificates: Vec<Certificate>,
}

/// One certificate of a [`Chain`]. Its words come from a stranger: control characters are escaped and
/// lengths bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: the common name, or the whole distinguished name where there is none.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The first day of its validity, UTC, `YYYY-MM-DD`.
    pub not_before: String,
    /// The last day of its validity, UTC, `YYYY-MM-DD`.
    pub not_after: String,
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
}

/// Why a chain is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// Signed by somebody whom this machine does not know: on company networks, the proxy that breaks
    /// TLS open.
    #[error("it is signed by '{authority}', which this machine does not trust")]
    UnknownAuthority {
        /// Who signed the last certificate of the chain.
        authority: String,
    },
    /// Signed by somebody who has the name of an authority that this machine trusts, and another key.
    #[error("it is signed by another '{authority}' than the one that this machine trusts")]
    OtherAuthority {
        /// Who signed the last certificate of the chain.
        authority: String,
    },
    /// It vouches for itself.
    #[error("it is signed by nobody but itself")]
    SelfSigned,
    /// No longer valid.
    #[error("'{subject}' expired on {not_after}")]
    Expired {
        /// Which certificate of the chain.
        subject: String,
        /// `YYYY-MM-DD`.
        not_after: String,
    },
    /// Not valid yet.
    #[error("'{subject}' is not valid before {not_before}")]
    NotYetValid {
        /// Which certificate of the chain.
        subject: String,
        /// `YYYY-MM-DD`.
        not_before: String,
    },
    /// Good, and somebody else's.
    #[error("it is for another name: {}", list(names))]
    WrongName {
        /// The names that it is for.
        names: Vec<String>,
    },
    /// Its issuer took it back.
    #[error("it has been revoked")]
    Revoked,
    /// Anything else, in the verifier's words.
    #[error("{0}")]
    Other(String),
}

impl Chain {
    /// The certificates in the order in which they were presented, at most eight of them.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    pub(crate) fn read<'a>(presented: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Chain {
        Chain { certificates: presented.into_iter().take(SHOWN).map(|der| Certificate::read(der)).collect() }
    }

    /// The last certificate that is reached when one goes from each certificate to its issuer.
    fn top(&self) -> Option<&Certificate> {
        let mut top = self.certificates.first()?;
        for certificate in &self.certificates {
            if certificate.subject == top.issuer {
                top = certificate;
            }
        }
        Some(top)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("it presented ")?;
        for (index, certificate) in self.certificates.iter().enumerate() {
            let Certificate { subject, issuer, not_before, not_after, .. } = certificate;
            let separator = if index == 0 { "" } else { ", then " };
            write!(
                formatter,
                "{separator}'{subject}' (issued by '{issuer}', valid from {not_before} to {not_after})"
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Chain {}

impl Certificate {
    fn read(der: &[u8]) -> Certificate {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            let unreadable = || "unreadable".to_owned();
            return Certificate {
                subject: unreadable(),
                issuer: unreadable(),
                not_before: unreadable(),
                not_after: unreadable(),
                names: Vec::new(),
            };
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        Certificate {
            subject: name(certificate.subject()),
            issuer: name(certificate.issuer()),
            not_before: day(certificate.validity().not_before),
            not_after: day(certificate.validity().not_after),
            names: names
                .into_iter()
                .flat_map(|names| &names.value.general_names)
                .filter_map(host)
                .take(SHOWN)
                .collect(),
        }
    }
}

impl Distrust {
    pub(crate) fn new(error: &rustls::Error, chain: &Chain, now: UnixTime) -> Distrust {
        let rustls::Error::InvalidCertificate(error) = error else {
            return Distrust::Other(error.to_string());
        };
        let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
        let today = now.map(day).unwrap_or_default();
        match error {
            CertificateError::UnknownIssuer => match chain.top() {
                Some(top) if chain.certificates.len() > 1 || top.subject != top.issuer => {
                    Distrust::UnknownAuthority { authority: top.issuer.clone() }
                }
                _ => Distrust::SelfSigned,
            },
            CertificateError::BadSignature => match chain.top() {
                Some(top) => Distrust::OtherAuthority { authority: top.issuer.clone() },
                None => Distrust::Other(error.to_string()),
            },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                // Days in this form sort as text. The first that is over, or expires today.
                let expired = chain.certificates.iter().find(|certificate| certificate.not_after <= today);
                match expired.or(chain.certificates.first()) {
                    Some(Certificate { subject, not_after, .. }) => {
                        Distrust::Expired { subject: subject.clone(), not_after: not_after.clone() }
                    }
                    None => Distrust::Other(error.to_string()),
                }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                let early = chain.certificates.iter().find(|certificate| certificate.not_before >= today);
                match early.or(chain.certificates.first()) {
                    Some(Certificate { subject, not_before, .. }) => {
                        Distrust::NotYetValid { subject: subject.clone(), not_before: not_before.clone() }
                    }
                    None => Distrust::Other(error.to_string()),
                }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let names = chain.certificates.first().map(|own| own.names.clone()).unwrap_or_default();
                Distrust::WrongName { names }
            }
            CertificateError::Revoked => Distrust::Revoked,
            error => Distrust::Other(error.to_string()),
        }
    }

    pub(crate) fn hint(&self) -> String {
        let hint = match self {
            Distrust::UnknownAuthority { authority } => {
                return format!(
                    "if your company's proxy opens TLS connections, add its root '{authority}' with \
                     --ca-bundle FILE (PEM); otherwise somebody is listening in"
                );
            }
            Distrust::OtherAuthority { authority } => {
                return format!(
                    "if '{authority}' was made anew, add its new certificate with --ca-bundle FILE (PEM); otherwise \
                     somebody is listening in"
                );
            }
            Distrust::SelfSigned => {
                "if you know this server, add its certificate with --ca-bundle FILE (PEM); otherwise \
                 somebody is listening in"
            }
            Distrust::Expired { .. } | Distrust::NotYetValid { .. } => {
                "check this machine's clock; if it is right, whoever runs the server has to renew the \
                 certificate"
            }
            Distrust::WrongName { .. } => {
                "check the host name, and whether DNS or a proxy leads to another server"
            }
            Distrust::Revoked | Distrust::Other(_) => {
                "whoever runs the server, or the proxy that opens TLS connections, has to replace the \
                 certificate"
            }
        };
        hint.to_owned()
    }
}

/// How a rejected chain travels through rustls, which keeps the error of a verifier as it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{distrust}")]
pub(crate) struct Rejected {
    pub(crate) distrust: Distrust,
    pub(crate) chain: Chain,
}

fn name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().last().and_then(|common| common.as_str().ok());
    common.map_or_else(|| printable(&name.to_string()), printable)
}

fn day(time: ASN1Time) -> String {
    let date = time.to_datetime().date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(name)),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "it holds none".to_owned() } else { names.join(", ") }
}

/// A stranger's words, fit for a terminal and a log: what moves the cursor or reverses the line is
/// escaped (`escape_debug` covers the bidirectional marks too).
fn printable(words: &str) -> String {
    let escaped: String = words.chars().flat_map(char::escape_debug).collect();
    escaped.replace("\\'", "'").chars().take(LENGTH).collect()
}

/// Certificates of a chain, and names of a certificate, that are shown. Public chains have two to four.
const SHOWN: usize = 8;

/// Characters of a name: twice the upper bound of a common name (64, RFC 5280 appendix A.1).
const LENGTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_words_cannot_move_the_cursor() {
        assert_eq!(printable("Zscaler's Root CA"), "Zscaler's Root CA");
        assert_eq!(printable("\u{1b}[2J\n\u{202e}x"), "\\u{1b}[2J\\n\\u{202e}x");
        assert_eq!(printable(&"x".repeat(1000)).len(), LENGTH);
    }

    #[test]
    fn garbage_is_shown_as_such() {
        let chain = Chain::read([&CertificateDer::from(vec![0x30, 0x03, 1])]);
        assert_eq!(chain.certificates()[0].subject, "unreadable");
    }

    #[test]
    fn the_top_is_found_in_any_order() {
        let certificate = |subject: &str, issuer: &str| Certificate {
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            not_before: String::new(),
            not_after: String::new(),
            names: Vec::new(),
        };
        let chain =
            Chain { certificates: vec![certificate("leaf", "middle"), certificate("middle", "root")] };
        assert_eq!(chain.top().unwrap().issuer, "root");
        let unrelated = Chain { certificates: vec![certificate("leaf", "middle"), certificate("a", "b")] };
        assert_eq!(unrelated.top().unwrap().issuer, "middle");
    }
}
