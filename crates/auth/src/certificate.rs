//! A certificate with its key, as an application proves itself with one: read from PEM, signing assertions
//! (RFC 7523, learn.microsoft.com/entra/identity-platform/certificate-credentials). It leaves out PKCS#12, which
//! `openssl pkcs12` turns into PEM, and sending.

use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bastide_core::Secret;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rand::RngExt as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use zeroize::Zeroizing;

/// An RSA certificate and its private key.
pub(crate) struct Certificate {
    /// `x5t#S256`: SHA-256 of the certificate, by which Entra ID finds it.
    thumbprint: String,
    key: EncodingKey,
}

/// Why a file or a key can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error("holds no PEM certificate")]
    NoCertificate,
    #[error("holds no RSA private key in PEM")]
    NoKey,
    #[error("its private key is encrypted")]
    Encrypted,
    #[error("the key cannot sign")]
    Unsigned,
}

impl Error {
    /// What to do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Error::Unreadable(_) => "check AZURE_CLIENT_CERTIFICATE_PATH",
            Error::NoCertificate | Error::NoKey | Error::Encrypted => {
                "certificate and unencrypted RSA key have to be in one PEM file; `openssl pkcs12 -in FILE.pfx -nodes \
                 -out FILE.pem` makes one of a PFX file"
            }
            Error::Unsigned => "the RSA key needs 2,048 bits or more",
        }
    }
}

/// How long an assertion is good for: ten minutes, as in the Azure SDKs; it is used at once.
const LIFE: u64 = 10 * 60;

impl Certificate {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = Zeroizing::new(std::fs::read(path).map_err(Error::Unreadable)?);
        Self::parse(&text)
    }

    /// The first certificate and the private key of a PEM text.
    fn parse(text: &[u8]) -> Result<Self, Error> {
        let certificate = CertificateDer::from_pem_slice(text).map_err(|_| Error::NoCertificate)?;
        let lines = String::from_utf8_lossy(text);
        if lines.contains("BEGIN ENCRYPTED PRIVATE KEY") || lines.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(Error::Encrypted);
        }
        let key = private_key(&lines).ok_or(Error::NoKey)?;
        Ok(Self {
            thumbprint: BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &certificate)),
            key: EncodingKey::from_rsa_pem(key.as_bytes()).map_err(|_| Error::NoKey)?,
        })
    }

    /// Says to `tenant` at `authority` that this is `client_id`.
    pub(crate) fn assertion(&self, authority: &str, tenant: &str, client_id: &str) -> Result<Secret, Error> {
        let header = Header { x5t_s256: Some(self.thumbprint.clone()), ..Header::new(Algorithm::PS256) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let audience = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let id: [u8; 16] = rand::rng().random();
        let claims = json!({
            "aud": audience, "iss": client_id, "sub": client_id,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(id), "nbf": now, "iat": now, "exp": now + LIFE,
        });
        Ok(Secret::new(jsonwebtoken::encode(&header, &claims, &self.key).map_err(|_| Error::Unsigned)?))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Certificate").field(&self.thumbprint).finish()
    }
}

/// The section of the first private key, which is all that the reader of keys takes.
fn private_key(text: &str) -> Option<&str> {
    let begins = text.match_indices("-----BEGIN ").map(|(at, _)| at);
    let key = begins.filter_map(|at| text.get(at..)).find(|section| {
        section.lines().next().is_some_and(|line| line.trim_end().ends_with("PRIVATE KEY-----"))
    })?;
    let end = key.find("-----END ")?;
    let line = key.get(end..)?.find('\n').map_or(key.len(), |length| end + length);
    key.get(..line)
}

/// A certificate with its key, made on the spot.
#[cfg(test)]
pub(crate) fn test_pem() -> String {
    use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::new(vec!["bastide".into()]).unwrap().self_signed(&key).unwrap();
    format!("{}{}", key.serialize_pem(), certificate.pem())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn an_assertion_is_what_entra_documents() {
        use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, PublicKeyData as _};
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let pem = format!("Bag Attributes\n{}{}", certificate.pem(), key.serialize_pem());
        let ours = Certificate::parse(pem.as_bytes()).unwrap();
        let assertion = ours.assertion("https://login/", "the-tenant", "the-client").unwrap();
        let parts: Vec<&str> = assertion.expose().split('.').collect();
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&decode(parts[0])).unwrap();
        let digest = digest::digest(&digest::SHA256, certificate.der());
        assert_eq!(
            header,
            json!({"typ": "JWT", "alg": "PS256", "x5t#S256": BASE64_URL_SAFE_NO_PAD.encode(digest)})
        );
        let claims: serde_json::Value = serde_json::from_slice(&decode(parts[1])).unwrap();
        assert_eq!(claims["aud"], "https://login/the-tenant/oauth2/v2.0/token");
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("the-client"), &json!("the-client")));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 600);
        assert!(claims["jti"].as_str().unwrap().len() >= 22);
        let signed = format!("{}.{}", parts[0], parts[1]);
        let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.der_bytes());
        public.verify(signed.as_bytes(), &decode(parts[2])).unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Certificate::parse(text.as_bytes()).err().unwrap().to_string(), expected, "{text}");
        };
        let pem = test_pem();
        let at = pem.find("-----BEGIN CERTIFICATE").unwrap();
        check("", "holds no PEM certificate");
        check(&pem[..at], "holds no PEM certificate");
        check(&pem[at..], "holds no RSA private key in PEM");
        check(&pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "its private key is encrypted");
        check(
            &format!("{}-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", &pem[at..]),
            "holds no RSA private key in PEM",
        );
        assert!(Certificate::read("/no/such/file".as_ref()).is_err());
    }
}
