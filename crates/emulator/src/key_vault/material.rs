//! The private halves of a vault's keys: made, kept, shown as JWK (RFC 7517, RFC 7518), used to sign.
//! Who may use them is decided in `mod.rs`.

use std::fmt;

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaSignatureEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value};

use super::fault::Fault;
use crate::scenario::KeyKind;
use crate::state::{self, State};

/// A private key.
pub(super) enum Material {
    Rsa(rsa::KeyPair),
    Curve(&'static Curve, EcdsaKeyPair),
    /// It is there, and nothing can be done with it.
    Symmetric,
}

/// A curve, as JWK names it, and the one algorithm that signs with it (RFC 7518 section 3.4, RFC 8812).
pub(super) struct Curve {
    name: &'static str,
    algorithm: &'static str,
    signing: &'static EcdsaSigningAlgorithm,
    digest: &'static Algorithm,
}

/// What is wrong with a key of the scenario or the state folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state folder.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Not PEM.
    #[error("reading a key of a key vault: it is no PKCS#8 in PEM")]
    Pem,
    /// Another kind of key.
    #[error("reading a key of a key vault: {0}")]
    Key(KeyRejected),
    /// The system has no random numbers.
    #[error("making a key of a key vault")]
    Generate(Unspecified),
}

impl Material {
    /// The key of a file of the state folder, made at the first time.
    pub(super) fn kept(kind: KeyKind, file: &str, state: &State) -> Result<Material, Error> {
        if kind == KeyKind::Symmetric {
            return Ok(Material::Symmetric);
        }
        let made = match state.path(file).exists() {
            true => String::new(),
            false => pem(&generate(kind).map_err(Error::Generate)?),
        };
        Material::read(kind, &state.kept(file, || Ok(made))?)
    }

    /// A key in PEM.
    pub(super) fn read(kind: KeyKind, pem: &str) -> Result<Material, Error> {
        let der = || PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::Pem);
        Ok(match form(kind) {
            Form::Rsa(_) => {
                Material::Rsa(rsa::KeyPair::from_pkcs8(der()?.secret_pkcs8_der()).map_err(Error::Key)?)
            }
            Form::Curve(curve) => {
                let pair = EcdsaKeyPair::from_pkcs8(curve.signing, der()?.secret_pkcs8_der());
                Material::Curve(curve, pair.map_err(Error::Key)?)
            }
            Form::Symmetric => Material::Symmetric,
        })
    }

    /// The public half as a JWK without `kid` and `key_ops`.
    pub(super) fn public(&self) -> Map<String, Value> {
        let text = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        let fields = match self {
            Material::Rsa(pair) => {
                let public = pair.public_key();
                vec![
                    ("kty", "RSA".into()),
                    ("n", text(public.modulus().big_endian_without_leading_zero())),
                    ("e", text(public.exponent().big_endian_without_leading_zero())),
                ]
            }
            Material::Curve(curve, pair) => {
                // SEC 1 section 2.3.3: 4, then both coordinates in full length.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                vec![("kty", "EC".into()), ("crv", curve.name.into()), ("x", text(x)), ("y", text(y))]
            }
            Material::Symmetric => vec![("kty", "oct".into())],
        };
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Signs a digest, by an algorithm in the words of RFC 7518. `id` is for refusals.
    pub(super) fn sign(&self, id: &str, algorithm: &str, digest: &[u8]) -> Result<Vec<u8>, Fault> {
        let wrong = |is: String, needs| Fault::Algorithm {
            id: id.to_owned(),
            is,
            algorithm: algorithm.to_owned(),
            needs,
        };
        let checked = |known: &'static Algorithm| {
            Digest::import_less_safe(digest, known).map_err(|Unspecified| Fault::Digest {
                algorithm: algorithm.to_owned(),
                found: digest.len(),
                needed: known.output_len(),
            })
        };
        let rsa = RSA_ALGORITHMS.iter().find(|(name, _, _)| *name == algorithm);
        let curve = CURVES.iter().find(|curve| curve.algorithm == algorithm);
        match (self, rsa, curve) {
            (Material::Rsa(pair), Some((_, encoding, digest)), _) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let digest = checked(digest)?;
                pair.sign_digest(*encoding, &digest, &mut signature).map_err(|Unspecified| Fault::Unable)?;
                Ok(signature)
            }
            (Material::Curve(own, pair), _, Some(curve)) if own.name == curve.name => {
                let signature = pair.sign_digest(&checked(curve.digest)?);
                signature.map(|signature| signature.as_ref().to_vec()).map_err(|Unspecified| Fault::Unable)
            }
            (Material::Rsa(_), None, Some(_)) => Err(wrong("RSA".into(), "a key of type 'EC' or 'EC-HSM'")),
            (Material::Curve(own, _), _, Some(_)) => Err(wrong(own.name.into(), "a key of another curve")),
            (Material::Curve(..), Some(_), _) => Err(wrong("EC".into(), "a key of type 'RSA' or 'RSA-HSM'")),
            (Material::Symmetric, _, _) => Err(Fault::Unable),
            (_, None, None) => Err(Fault::UnknownAlgorithm(algorithm.to_owned())),
        }
    }
}

impl fmt::Debug for Curve {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

/// How a kind of key is made.
enum Form {
    Rsa(KeySize),
    Curve(&'static Curve),
    Symmetric,
}

static P256: Curve =
    Curve { name: "P-256", algorithm: "ES256", signing: &ECDSA_P256_SHA256_FIXED_SIGNING, digest: &SHA256 };
static P384: Curve =
    Curve { name: "P-384", algorithm: "ES384", signing: &ECDSA_P384_SHA384_FIXED_SIGNING, digest: &SHA384 };
static P521: Curve =
    Curve { name: "P-521", algorithm: "ES512", signing: &ECDSA_P521_SHA512_FIXED_SIGNING, digest: &SHA512 };
static P256K: Curve = Curve {
    name: "P-256K",
    algorithm: "ES256K",
    signing: &ECDSA_P256K1_SHA256_FIXED_SIGNING,
    digest: &SHA256,
};
static CURVES: [&Curve; 4] = [&P256, &P384, &P521, &P256K];

/// RFC 7518 sections 3.3 and 3.5.
static RSA_ALGORITHMS: [(&str, &RsaSignatureEncoding, &Algorithm); 6] = [
    ("RS256", &RSA_PKCS1_SHA256, &SHA256),
    ("RS384", &RSA_PKCS1_SHA384, &SHA384),
    ("RS512", &RSA_PKCS1_SHA512, &SHA512),
    ("PS256", &RSA_PSS_SHA256, &SHA256),
    ("PS384", &RSA_PSS_SHA384, &SHA384),
    ("PS512", &RSA_PSS_SHA512, &SHA512),
];

fn form(kind: KeyKind) -> Form {
    match kind {
        KeyKind::Rsa2048 => Form::Rsa(KeySize::Rsa2048),
        KeyKind::Rsa3072 => Form::Rsa(KeySize::Rsa3072),
        KeyKind::Rsa4096 => Form::Rsa(KeySize::Rsa4096),
        KeyKind::P256 => Form::Curve(&P256),
        KeyKind::P384 => Form::Curve(&P384),
        KeyKind::P521 => Form::Curve(&P521),
        KeyKind::P256K => Form::Curve(&P256K),
        KeyKind::Symmetric => Form::Symmetric,
    }
}

/// A new key in PKCS#8.
fn generate(kind: KeyKind) -> Result<Vec<u8>, Unspecified> {
    Ok(match form(kind) {
        Form::Rsa(size) => {
            let der: Pkcs8V1Der<'_> = rsa::KeyPair::generate(size)?.as_der()?;
            der.as_ref().to_vec()
        }
        Form::Curve(curve) => EcdsaKeyPair::generate(curve.signing)?.to_pkcs8v1()?.as_ref().to_vec(),
        Form::Symmetric => Vec::new(),
    })
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n");
    format!("-----BEGIN PRIVATE KEY-----\n{}-----END PRIVATE KEY-----\n", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
        RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;

    /// A public key in the form that verification takes.
    fn public(material: &Material) -> Vec<u8> {
        match material {
            Material::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Material::Curve(_, pair) => pair.public_key().as_ref().to_vec(),
            Material::Symmetric => Vec::new(),
        }
    }

    #[test]
    fn signs_what_others_verify() {
        #[track_caller]
        fn check(
            kind: KeyKind,
            name: &str,
            digest: &'static Algorithm,
            how: &'static dyn VerificationAlgorithm,
        ) {
            let made = Material::read(kind, &pem(&generate(kind).unwrap())).unwrap();
            let hash = aws_lc_rs::digest::digest(digest, b"what is signed");
            let signature = made.sign("id", name, hash.as_ref()).unwrap();
            UnparsedPublicKey::new(how, public(&made)).verify(b"what is signed", &signature).unwrap();
            assert!(made.sign("id", name, b"short").is_err());
            assert!(made.sign("id", "ES256K", hash.as_ref()).is_err());
        }
        check(KeyKind::Rsa2048, "RS512", &SHA512, &RSA_PKCS1_2048_8192_SHA512);
        check(KeyKind::P256, "ES256", &SHA256, &ECDSA_P256_SHA256_FIXED);
        check(KeyKind::P384, "ES384", &SHA384, &ECDSA_P384_SHA384_FIXED);
        check(KeyKind::P521, "ES512", &SHA512, &ECDSA_P521_SHA512_FIXED);
    }

    #[test]
    fn keys_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let first = Material::kept(KeyKind::P256, "key.pem", &state).unwrap().public();
        assert_eq!(first["kty"], "EC");
        assert_eq!(first["crv"], "P-256");
        // 32 bytes in base64url.
        assert_eq!(first["x"].as_str().unwrap().len(), 43);
        assert_eq!(Material::kept(KeyKind::P256, "key.pem", &state).unwrap().public(), first);
        assert!(Material::read(KeyKind::P256, "no key").is_err());
    }
}
