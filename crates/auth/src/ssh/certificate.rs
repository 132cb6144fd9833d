//! An SSH certificate of Entra ID: what it says, and whether it is one for our key (protocol.md §7). It leaves out
//! its signature, which is the VM's business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bastide_core::{Secret, service_message};
use ssh_key::public::KeyData;

use super::key::Key;
use super::wire::mpint;

/// A certificate that binds a key to a user of the VM. Nothing in it is secret, but it is good for nobody without
/// the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// As the wire has it.
    pub(super) blob: Vec<u8>,
    /// The same in base64.
    text: String,
    user: String,
    valid_from: SystemTime,
    valid_until: SystemTime,
}

/// What Entra ID answered is no certificate that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateError {
    /// Something else came.
    #[error("the answer is no SSH certificate: {0}")]
    Malformed(String),
    /// It is for somebody else's key.
    #[error("the certificate is for another key")]
    OtherKey,
    /// It names nobody, or nobody who could have that name.
    #[error("the certificate names no user")]
    NoUser,
}

impl Certificate {
    /// Reads the base64 body that Entra ID sends as `access_token`, for the public key with this blob.
    pub(super) fn read(text: &str, public: &[u8]) -> Result<Self, CertificateError> {
        // What the parser says may quote what it read.
        let malformed = |error: &dyn std::fmt::Display| {
            CertificateError::Malformed(service_message(error.to_string().as_bytes()).unwrap_or_default())
        };
        let text = text.trim();
        let blob = STANDARD.decode(text).map_err(|error| malformed(&error))?;
        let read = ssh_key::Certificate::from_bytes(&blob).map_err(|error| malformed(&error))?;
        if read.cert_type() != ssh_key::certificate::CertType::User {
            return Err(CertificateError::Malformed("it is one for a host".into()));
        }
        let KeyData::Rsa(key) = read.public_key() else {
            return Err(CertificateError::OtherKey);
        };
        let mut ours = Vec::new();
        super::wire::put_string(&mut ours, b"ssh-rsa");
        super::wire::put_string(&mut ours, &mpint(key.e.as_positive_bytes().unwrap_or_default()));
        super::wire::put_string(&mut ours, &mpint(key.n.as_positive_bytes().unwrap_or_default()));
        if ours != public {
            return Err(CertificateError::OtherKey);
        }
        // An empty list would be a certificate for everybody (PROTOCOL.certkeys of OpenSSH).
        let user = read.valid_principals().iter().find(|name| !name.is_empty());
        let user = user.filter(|name| is_name(name)).ok_or(CertificateError::NoUser)?.to_lowercase();
        let instant = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
        let valid_until = UNIX_EPOCH
            .checked_add(Duration::from_secs(read.valid_before()))
            .unwrap_or_else(|| UNIX_EPOCH + Duration::from_secs(u32::MAX.into()));
        Ok(Self { valid_from: instant(read.valid_after()), valid_until, text: text.to_owned(), user, blob })
    }

    /// Reads the line of a file that [`Certificate::line`] went into; none when it is no certificate for the private
    /// key of the other file.
    #[must_use]
    pub fn of_files(line: &str, private_pem: &Secret) -> Option<Self> {
        let public = Key::from_pem(private_pem).ok()?.public();
        Self::read(line.split_whitespace().nth(1)?, &public).ok()
    }

    /// The user on the VM: the first principal, in lower case (protocol.md §7).
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// From when it is good.
    #[must_use]
    pub fn valid_from(&self) -> SystemTime {
        self.valid_from
    }

    /// Until when it is good.
    #[must_use]
    pub fn valid_until(&self) -> SystemTime {
        self.valid_until
    }

    /// The line of a `-cert.pub` file (ssh-keygen(1)), without its end.
    #[must_use]
    pub fn line(&self) -> String {
        format!("ssh-rsa-cert-v01@openssh.com {} {}", self.text, self.user)
    }
}

/// Whether OpenSSH and a file of one line can take it for a user: an argument of ssh is no place for an option, and a
/// word has no end in the middle. A user principal name has at most 113 characters
/// (learn.microsoft.com/entra/identity/hybrid/connect/plan-connect-userprincipalname), four bytes each.
fn is_name(text: &str) -> bool {
    let plain = !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    plain && !text.starts_with('-') && text.len() <= 4 * 113
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by `ssh-keygen -s ca -I keyid -n Ada@Example.org,other -V 20260101000000Z:20260101010000Z k.pub`, and
    // with `-h -n web-01`, and without `-n`; the key by `ssh-keygen -t rsa -b 2048`.
    const PUBLIC: &str = "AAAAB3NzaC1yc2EAAAADAQABAAABAQDOe4ghrvSzelvgp3ZQK9TwtL5cfre0pouZmDucaE1daMghAgr7dRnj0N1+aXjmTHZi934E\
         4WOTJnSGI4RqfRk5rMxgNMoZixsO5v8Dg7FoXBhP0zkiPbZc+WZPfgWJ4dHR12KrcVwQZs5lkz7dnn2kRZjCwX9yZv1zzrm6AA8w\
         Gn1YaFaMY+lNkVLR2a5SCC7KBVhzSxq22XYdIWthcm/IIMcc+UHEAvaQXuP+FgO3cYIgkzywavC0X7SZVOHXa7RJmsfCo/+shZdb\
         xvCY2udnmyqsZPObjzwqHpr1sQnuTYhKGW3zMGQHccY7BWfbpzZ4vdGCMeHXcr+zx7NxIFWR";
    const CERTIFICATE: &str = "AAAAHHNzaC1yc2EtY2VydC12MDFAb3BlbnNzaC5jb20AAAAgR8lJKMWiR1U0DxJHYHckhn9dUsigLVTy9eAzFC3EpGMAAAADAQAB\
         AAABAQDOe4ghrvSzelvgp3ZQK9TwtL5cfre0pouZmDucaE1daMghAgr7dRnj0N1+aXjmTHZi934E4WOTJnSGI4RqfRk5rMxgNMoZ\
         ixsO5v8Dg7FoXBhP0zkiPbZc+WZPfgWJ4dHR12KrcVwQZs5lkz7dnn2kRZjCwX9yZv1zzrm6AA8wGn1YaFaMY+lNkVLR2a5SCC7K\
         BVhzSxq22XYdIWthcm/IIMcc+UHEAvaQXuP+FgO3cYIgkzywavC0X7SZVOHXa7RJmsfCo/+shZdbxvCY2udnmyqsZPObjzwqHpr1\
         sQnuTYhKGW3zMGQHccY7BWfbpzZ4vdGCMeHXcr+zx7NxIFWRAAAAAAAAAAAAAAABAAAABWtleWlkAAAAHAAAAA9BZGFARXhhbXBs\
         ZS5vcmcAAAAFb3RoZXIAAAAAaVW5AAAAAABpVccQAAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3YXJkaW5nAAAAAAAAABdwZXJt\
         aXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9yd2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAO\
         cGVybWl0LXVzZXItcmMAAAAAAAAAAAAAADMAAAALc3NoLWVkMjU1MTkAAAAgiT667iLAQZ7LNM3HajpUETsiu2jEisp/KJZ9njwe\
         x2QAAABTAAAAC3NzaC1lZDI1NTE5AAAAQNW+Zn15wgfkXvWh6eZkmYoEFPhmd8h4vUa/R1mibXzIwMaQGpb0cr95vJGfzFW+uGFx\
         uuwFTat+R9LAXgE7Cgg=";
    const FOR_A_HOST: &str = "AAAAHHNzaC1yc2EtY2VydC12MDFAb3BlbnNzaC5jb20AAAAgEWayADBJgF3czqtoMaYeg7edfy5Cdtnkl1kSwlxrfHAAAAADAQAB\
         AAABAQDOe4ghrvSzelvgp3ZQK9TwtL5cfre0pouZmDucaE1daMghAgr7dRnj0N1+aXjmTHZi934E4WOTJnSGI4RqfRk5rMxgNMoZ\
         ixsO5v8Dg7FoXBhP0zkiPbZc+WZPfgWJ4dHR12KrcVwQZs5lkz7dnn2kRZjCwX9yZv1zzrm6AA8wGn1YaFaMY+lNkVLR2a5SCC7K\
         BVhzSxq22XYdIWthcm/IIMcc+UHEAvaQXuP+FgO3cYIgkzywavC0X7SZVOHXa7RJmsfCo/+shZdbxvCY2udnmyqsZPObjzwqHpr1\
         sQnuTYhKGW3zMGQHccY7BWfbpzZ4vdGCMeHXcr+zx7NxIFWRAAAAAAAAAAAAAAACAAAABWtleWlkAAAACgAAAAZ3ZWItMDEAAAAA\
         aVW5AAAAAABpVccQAAAAAAAAAAAAAAAAAAAAMwAAAAtzc2gtZWQyNTUxOQAAACCJPrruIsBBnss0zcdqOlQROyK7aMSKyn8oln2e\
         PB7HZAAAAFMAAAALc3NoLWVkMjU1MTkAAABAzsvUoMPD0KH/7dwAcnxbRPNRO1ngxCUXVVq1ksDVWk15KRfGqCcKywXGmJz0uF11\
         a3Uh5w8btrH+oHEMyFFKDg==";
    const FOR_NOBODY: &str = "AAAAHHNzaC1yc2EtY2VydC12MDFAb3BlbnNzaC5jb20AAAAgZRTaab0o9QJ6TTre/dHhc89H01Hwv7cwbpkKRULwICoAAAADAQAB\
         AAABAQDOe4ghrvSzelvgp3ZQK9TwtL5cfre0pouZmDucaE1daMghAgr7dRnj0N1+aXjmTHZi934E4WOTJnSGI4RqfRk5rMxgNMoZ\
         ixsO5v8Dg7FoXBhP0zkiPbZc+WZPfgWJ4dHR12KrcVwQZs5lkz7dnn2kRZjCwX9yZv1zzrm6AA8wGn1YaFaMY+lNkVLR2a5SCC7K\
         BVhzSxq22XYdIWthcm/IIMcc+UHEAvaQXuP+FgO3cYIgkzywavC0X7SZVOHXa7RJmsfCo/+shZdbxvCY2udnmyqsZPObjzwqHpr1\
         sQnuTYhKGW3zMGQHccY7BWfbpzZ4vdGCMeHXcr+zx7NxIFWRAAAAAAAAAAAAAAABAAAABWtleWlkAAAAAAAAAABpVbkAAAAAAGlV\
         xxAAAAAAAAAAggAAABVwZXJtaXQtWDExLWZvcndhcmRpbmcAAAAAAAAAF3Blcm1pdC1hZ2VudC1mb3J3YXJkaW5nAAAAAAAAABZw\
         ZXJtaXQtcG9ydC1mb3J3YXJkaW5nAAAAAAAAAApwZXJtaXQtcHR5AAAAAAAAAA5wZXJtaXQtdXNlci1yYwAAAAAAAAAAAAAAMwAA\
         AAtzc2gtZWQyNTUxOQAAACCJPrruIsBBnss0zcdqOlQROyK7aMSKyn8oln2ePB7HZAAAAFMAAAALc3NoLWVkMjU1MTkAAABAxjti\
         CG043V600APqBNsFOsfN+1wQ3A9t4Mu/2Z/NuYNxYmYdM4doYob53REwjQNxlKfpQ6Z4G9N3J/iRpC0NCg==";

    fn read(text: &str) -> Result<Certificate, CertificateError> {
        Certificate::read(text, &STANDARD.decode(PUBLIC).unwrap())
    }

    #[test]
    fn says_who_and_how_long() {
        let certificate = read(CERTIFICATE).unwrap();
        assert_eq!(certificate.user(), "ada@example.org");
        let hour = certificate.valid_until().duration_since(certificate.valid_from()).unwrap();
        assert_eq!(hour, Duration::from_secs(3600));
        assert_eq!(certificate.line(), format!("ssh-rsa-cert-v01@openssh.com {CERTIFICATE} ada@example.org"));
    }

    #[test]
    fn what_is_no_certificate_for_this_user_and_key_is_refused() {
        assert_eq!(read(FOR_NOBODY), Err(CertificateError::NoUser));
        assert!(matches!(read(FOR_A_HOST), Err(CertificateError::Malformed(_))));
        let mut other = STANDARD.decode(PUBLIC).unwrap();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(Certificate::read(CERTIFICATE, &other), Err(CertificateError::OtherKey));
        for text in ["", "eyJ0eXAi", PUBLIC, "<html>"] {
            assert!(matches!(read(text), Err(CertificateError::Malformed(_))), "{text}");
        }
        let whole = STANDARD.decode(CERTIFICATE).unwrap();
        for length in 0..whole.len() {
            let cut = STANDARD.encode(&whole[..length]);
            assert!(matches!(read(&cut), Err(CertificateError::Malformed(_))), "{length}");
        }
    }

    #[test]
    fn a_name_is_one_word_and_no_option() {
        for name in
            ["ada@example.org", "dan_partner.example#ext#@emulator.example", "zoë@example.org", "4f-1"]
        {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(453);
        for name in ["-oProxyCommand=x", "ada ssh-rsa", "ada\nssh-rsa", "ada\u{1b}[2J", "\t", &long] {
            assert!(!is_name(name), "{name}");
        }
    }
}
