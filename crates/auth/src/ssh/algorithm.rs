//! How keys sign in SSH (RFC 8332, 5656, 8709): names of algorithms, and a raw signature as SSH writes it. It leaves
//! out who signs.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};

use super::key::Hash;
use super::wire::{Reader, mpint, put_string};

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rsa(Hash),
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    Ed25519,
}

/// What comes before a certificate's own fields in its type's name (PROTOCOL.certkeys of OpenSSH).
const CERTIFICATE: &str = "-cert-v01@openssh.com";

impl Algorithm {
    /// How the key or certificate with this public part signs, `hash` being what was asked of an RSA key; `None` for
    /// SHA-1, and for kinds of keys that are not known here.
    pub(super) fn of(public: &[u8], hash: Option<Hash>) -> Option<Self> {
        let kind = std::str::from_utf8(Reader::new(public).string()?).ok()?;
        match kind.strip_suffix(CERTIFICATE).unwrap_or(kind) {
            "ssh-rsa" => hash.map(Algorithm::Rsa),
            "ecdsa-sha2-nistp256" => Some(Algorithm::EcdsaP256),
            "ecdsa-sha2-nistp384" => Some(Algorithm::EcdsaP384),
            "ecdsa-sha2-nistp521" => Some(Algorithm::EcdsaP521),
            "ssh-ed25519" => Some(Algorithm::Ed25519),
            _ => None,
        }
    }

    /// Its name in signatures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Rsa(Hash::Sha256) => "rsa-sha2-256",
            Algorithm::Rsa(Hash::Sha512) => "rsa-sha2-512",
            Algorithm::EcdsaP256 => "ecdsa-sha2-nistp256",
            Algorithm::EcdsaP384 => "ecdsa-sha2-nistp384",
            Algorithm::EcdsaP521 => "ecdsa-sha2-nistp521",
            Algorithm::Ed25519 => "ssh-ed25519",
        }
    }

    /// Its name in the request to sign in with the key or certificate with this public part.
    pub(super) fn request_name(self, public: &[u8]) -> String {
        let kind = Reader::new(public).string().unwrap_or_default();
        let suffix = if kind.ends_with(CERTIFICATE.as_bytes()) { CERTIFICATE } else { "" };
        format!("{}{suffix}", self.name())
    }

    /// All names by which the key or certificate with this public part may sign in, the best first.
    pub(super) fn request_names(public: &[u8]) -> Vec<String> {
        let mut names: Vec<String> = [Hash::Sha512, Hash::Sha256]
            .into_iter()
            .filter_map(|hash| Some(Self::of(public, Some(hash))?.request_name(public)))
            .collect();
        names.dedup();
        names
    }

    /// A raw signature (`bastide_plugin.h`, `answer_signature`) as SSH writes it; `None` when it is not a good one for
    /// `data` by the key with this public part.
    pub(super) fn encode(self, public: &[u8], data: &[u8], raw: &[u8]) -> Option<Vec<u8>> {
        let mut reader = Reader::new(public);
        let _kind = reader.string()?;
        let good = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(data, raw).ok()
        };
        let blob = match self {
            Algorithm::Rsa(hash) => {
                let (exponent, modulus) = (reader.string()?, reader.string()?);
                let key = RsaPublicKeyComponents { n: magnitude(modulus), e: magnitude(exponent) };
                let parameters = match hash {
                    Hash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                };
                key.verify(parameters, data, raw).ok()?;
                raw.to_vec()
            }
            Algorithm::EcdsaP256 | Algorithm::EcdsaP384 | Algorithm::EcdsaP521 => {
                let (_curve, point) = (reader.string()?, reader.string()?);
                match self {
                    Algorithm::EcdsaP256 => good(&ECDSA_P256_SHA256_FIXED, point)?,
                    Algorithm::EcdsaP384 => good(&ECDSA_P384_SHA384_FIXED, point)?,
                    _ => good(&ECDSA_P521_SHA512_FIXED, point)?,
                }
                let (r, s) = raw.split_at_checked(raw.len() / 2)?;
                let mut pair = Vec::new();
                put_string(&mut pair, &mpint(magnitude(r)));
                put_string(&mut pair, &mpint(magnitude(s)));
                pair
            }
            Algorithm::Ed25519 => {
                good(&ED25519, reader.string()?)?;
                raw.to_vec()
            }
        };
        let mut signature = Vec::new();
        put_string(&mut signature, self.name().as_bytes());
        put_string(&mut signature, &blob);
        Some(signature)
    }
}

/// Without leading zeros.
fn magnitude(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    };

    use super::*;

    fn public(kind: &str, fields: &[&[u8]]) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, kind.as_bytes());
        for field in fields {
            put_string(&mut blob, field);
        }
        blob
    }

    #[test]
    fn names_come_from_the_key() {
        let check = |kind: &str, names: &[&str]| assert_eq!(Algorithm::request_names(&public(kind, &[])), names);
        check("ssh-rsa", &["rsa-sha2-512", "rsa-sha2-256"]);
        check(
            "ssh-rsa-cert-v01@openssh.com",
            &["rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com"],
        );
        check("ecdsa-sha2-nistp384", &["ecdsa-sha2-nistp384"]);
        check("ssh-ed25519-cert-v01@openssh.com", &["ssh-ed25519-cert-v01@openssh.com"]);
        check("ssh-dss", &[]);
        assert_eq!(Algorithm::of(&public("ssh-rsa", &[]), None), None, "SHA-1");
        assert_eq!(Algorithm::of(b"ssh", None), None);
    }

    #[test]
    fn only_good_signatures_are_passed_on() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = public("ssh-ed25519", &[pair.public_key().as_ref()]);
        let raw = pair.sign(b"data");
        let blob = Algorithm::Ed25519.encode(&key, b"data", raw.as_ref()).unwrap();
        let mut reader = Reader::new(&blob);
        assert_eq!((reader.string(), reader.string()), (Some(&b"ssh-ed25519"[..]), Some(raw.as_ref())));
        assert_eq!(Algorithm::Ed25519.encode(&key, b"date", raw.as_ref()), None);
        assert_eq!(Algorithm::Ed25519.encode(b"", b"data", raw.as_ref()), None);
        assert_eq!(Algorithm::Ed25519.encode(&key, b"data", b""), None);
    }

    #[test]
    fn a_pair_of_numbers_is_written_as_two() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        let key = public("ecdsa-sha2-nistp521", &[b"nistp521", pair.public_key().as_ref()]);
        let raw = pair.sign(&SystemRandom::new(), b"data").unwrap();
        assert_eq!(raw.as_ref().len(), 2 * 66);
        let blob = Algorithm::EcdsaP521.encode(&key, b"data", raw.as_ref()).unwrap();
        let mut reader = Reader::new(&blob);
        assert_eq!(reader.string(), Some(&b"ecdsa-sha2-nistp521"[..]));
        let mut numbers = Reader::new(reader.string().unwrap());
        for half in raw.as_ref().chunks(66) {
            // An integer as short as it goes, and positive (RFC 4251 §5).
            let number = numbers.string().unwrap();
            assert!(number[0] < 0x80 && (number[0] != 0 || number[1] >= 0x80));
            assert_eq!(magnitude(number), magnitude(half));
        }
    }
}
