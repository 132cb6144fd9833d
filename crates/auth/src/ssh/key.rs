//! The RSA key of one sign-in: made in memory, and written for those alone who ask for files. It leaves out the
//! certificate.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bastide_core::{CertificateRequest, Secret};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::wire::{mpint, put_string};

/// A fresh RSA key, which `Debug` does not show.
pub(super) struct Key {
    pair: KeyPair,
    /// As SSH's mpint.
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

/// A hash that servers still take: SHA-1, the third, is refused (RFC 8332, protocol.md §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

/// Neither the system's random numbers nor memory are to be had.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoKey;

impl Key {
    /// A key of 2,048 bits: what Entra ID asks for at least (protocol.md §7), and enough for a certificate of one
    /// hour. Takes a tenth of a second of computing.
    pub(super) fn generate() -> Result<Self, NoKey> {
        Ok(Self::of(KeyPair::generate(KeySize::Rsa2048).map_err(|_| NoKey)?))
    }

    /// Reads what [`Key::private_pem`] has written.
    pub(super) fn from_pem(pem: &Secret) -> Result<Self, NoKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| NoKey)?;
        Ok(Self::of(KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| NoKey)?))
    }

    fn of(pair: KeyPair) -> Self {
        let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
        let modulus = mpint(public.modulus().big_endian_without_leading_zero());
        let exponent = mpint(public.exponent().big_endian_without_leading_zero());
        Self { pair, modulus, exponent }
    }

    /// The form fields by which a certificate is asked for, as the reference client sends them: base64url with
    /// padding, the modulus with its leading zero, the fingerprint over both texts (protocol.md §7).
    pub(super) fn certificate_request(&self) -> CertificateRequest {
        let (n, e) = (URL_SAFE.encode(&self.modulus), URL_SAFE.encode(&self.exponent));
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(n.as_bytes());
        context.update(e.as_bytes());
        let key_id: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let key = format!(r#"{{"kty": "RSA", "n": "{n}", "e": "{e}", "kid": "{key_id}"}}"#);
        CertificateRequest { key, key_id }
    }

    /// The public key as SSH writes it (RFC 4253 §6.6).
    pub(super) fn public(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, b"ssh-rsa");
        put_string(&mut blob, &self.exponent);
        put_string(&mut blob, &self.modulus);
        blob
    }

    /// A signature over `data` as SSH writes it (RFC 8332 §3).
    pub(super) fn sign(&self, hash: Hash, data: &[u8]) -> Result<Vec<u8>, NoKey> {
        let (name, encoding) = match hash {
            Hash::Sha256 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
            Hash::Sha512 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
        };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), data, &mut signature).map_err(|_| NoKey)?;
        let mut blob = Vec::new();
        put_string(&mut blob, name.as_bytes());
        put_string(&mut blob, &signature);
        Ok(blob)
    }

    /// The private key as a file that OpenSSH reads (PKCS #8 in PEM, RFC 7468 §10).
    pub(super) fn private_pem(&self) -> Result<Secret, NoKey> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| NoKey)?;
        let body = zeroize::Zeroizing::new(STANDARD.encode(der.as_ref()));
        let mut pem = zeroize::Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 64));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for line in body.as_bytes().chunks(64) {
            // Base64 is ASCII.
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(Secret::new(pem.as_str()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(RSA 2048)")
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    use super::super::wire::Reader;
    use super::*;

    #[test]
    fn the_request_is_the_reference_clients() {
        let key = Key::generate().unwrap();
        let request = key.certificate_request();
        let json: serde_json::Value = serde_json::from_str(&request.key).unwrap();
        assert_eq!((&json["kty"], &json["e"]), (&"RSA".into(), &"AQAB".into()));
        assert_eq!(json["kid"], request.key_id.as_str());
        let n = json["n"].as_str().unwrap();
        // 257 bytes with the leading zero: 344 characters, one of them padding.
        assert!(n.starts_with('A') && n.ends_with('=') && n.len() == 344, "{n}");
        let expected = digest::digest(&digest::SHA256, format!("{n}AQAB").as_bytes());
        let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(request.key_id, expected);
    }

    #[test]
    fn a_signature_is_good_and_names_its_hash() {
        let key = Key::generate().unwrap();
        let blob = key.sign(Hash::Sha256, b"data").unwrap();
        let mut reader = Reader::new(&blob);
        assert_eq!(reader.string().unwrap(), b"rsa-sha2-256");
        let signature = reader.string().unwrap();
        let components = RsaPublicKeyComponents { n: &key.modulus[1..], e: &key.exponent };
        assert!(components.verify(&RSA_PKCS1_2048_8192_SHA256, b"data", signature).is_ok());
        assert!(components.verify(&RSA_PKCS1_2048_8192_SHA256, b"date", signature).is_err());
    }

    #[test]
    fn the_file_is_a_key_and_debug_is_not() {
        let key = Key::generate().unwrap();
        let pem = key.private_pem().unwrap();
        let body: String = pem.expose().lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).unwrap();
        let read = KeyPair::from_pkcs8(&der).unwrap();
        assert_eq!(read.public_modulus_len(), 256);
        assert_eq!(Key::from_pem(&pem).unwrap().public(), key.public());
        assert!(
            Key::from_pem(&Secret::new("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
                .is_err()
        );
        assert_eq!(format!("{key:?}"), "Key(RSA 2048)");
    }
}
