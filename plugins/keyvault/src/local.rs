//! SSH private keys that are kept as secrets of a vault: read, used in memory, and wiped. OpenSSH's own form, PKCS #1,
//! PKCS #8 and SEC 1 in PEM. It leaves out keys that never leave the vault (`remote`).

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RsaSignatureEncoding,
};
use bastide_plugin_abi::{Code, Failure};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use ssh_key::private::{KeypairData, RsaKeypair};
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey};
use ssh_key::{EcdsaCurve, Mpint, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::refusal::explain;
use crate::remote::Attributes;
use crate::settings::Item;
use crate::vault::{Host, Vault};

/// A private key in memory. AWS-LC wipes it when it is dropped.
pub(crate) enum LocalKey {
    Rsa(rsa::KeyPair),
    /// With the algorithm of RFC 5656 section 3.1.
    Ecdsa(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

/// What is wrong with a secret.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    /// There is no private key in it.
    NoKey,
    /// There is one, and it is broken.
    Broken,
    Passphrase,
    /// A kind of key that is not signed with here.
    Kind(String),
}

/// `SecretBundle` of the REST API.
#[derive(Deserialize)]
struct Bundle {
    value: String,
    #[serde(default)]
    attributes: Attributes,
}

/// RFC 8332 section 3.
const RSA: [(&str, &RsaSignatureEncoding); 2] =
    [("rsa-sha2-256", &RSA_PKCS1_SHA256), ("rsa-sha2-512", &RSA_PKCS1_SHA512)];

/// RFC 5656 section 3.1.
const CURVES: [(&str, &EcdsaSigningAlgorithm); 3] = [
    ("ecdsa-sha2-nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING),
    ("ecdsa-sha2-nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING),
    ("ecdsa-sha2-nistp521", &ECDSA_P521_SHA512_FIXED_SIGNING),
];

/// RFC 8709 section 4.
const ED25519: &str = "ssh-ed25519";

impl LocalKey {
    pub(crate) fn fetch(host: &dyn Host, vault: &mut Vault, item: &Item) -> Result<Self, Failure> {
        let bundle: Bundle =
            vault.get(host, &item.path()).map_err(|trouble| explain(host, vault, item, trouble))?;
        let value = Zeroizing::new(bundle.value);
        bundle.attributes.check(vault, item)?;
        Self::parse(&value).map_err(|flaw| flaw.failure(vault, item))
    }

    fn parse(text: &str) -> Result<Self, Flaw> {
        let text = text.trim();
        if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
            return Self::from_openssh(text);
        }
        // RFC 1421 section 4.6.1.1, and RFC 7468 section 11.
        if text.contains("Proc-Type: 4,ENCRYPTED") || text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Err(Flaw::Passphrase);
        }
        if text.contains("-----BEGIN DSA PRIVATE KEY-----") {
            return Err(Flaw::Kind("DSA".to_owned()));
        }
        let broken = || if text.contains("PRIVATE KEY-----") { Flaw::Broken } else { Flaw::NoKey };
        match PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| broken())? {
            PrivateKeyDer::Pkcs1(der) => {
                rsa::KeyPair::from_der(der.secret_pkcs1_der()).map(Self::Rsa).map_err(|_| Flaw::Broken)
            }
            PrivateKeyDer::Sec1(der) => {
                curve(|signing| EcdsaKeyPair::from_private_key_der(signing, der.secret_sec1_der()).ok())
                    .ok_or(Flaw::Broken)
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let rsa = || rsa::KeyPair::from_pkcs8(der).ok().map(Self::Rsa);
                // OpenSSL leaves the public half out.
                let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Self::Ed25519);
                let ecdsa = || curve(|signing| EcdsaKeyPair::from_pkcs8(signing, der).ok());
                rsa().or_else(ed25519).or_else(ecdsa).ok_or(Flaw::Broken)
            }
            _ => Err(Flaw::Broken),
        }
    }

    /// PROTOCOL.key of OpenSSH.
    fn from_openssh(text: &str) -> Result<Self, Flaw> {
        let key = PrivateKey::from_openssh(text).map_err(|_| Flaw::Broken)?;
        if key.is_encrypted() {
            return Err(Flaw::Passphrase);
        }
        match key.key_data() {
            KeypairData::Ed25519(pair) => {
                let seed = Zeroizing::new(pair.private.to_bytes());
                Ed25519KeyPair::from_seed_and_public_key(&*seed, pair.public.as_ref())
                    .map(Self::Ed25519)
                    .map_err(|_| Flaw::Broken)
            }
            KeypairData::Ecdsa(pair) => {
                let name = match pair.curve() {
                    EcdsaCurve::NistP256 => "ecdsa-sha2-nistp256",
                    EcdsaCurve::NistP384 => "ecdsa-sha2-nistp384",
                    EcdsaCurve::NistP521 => "ecdsa-sha2-nistp521",
                };
                let (private, public) = (pair.private_key_bytes(), pair.public_key_bytes());
                let known = CURVES.iter().find(|(known, _)| *known == name).ok_or(Flaw::Broken)?;
                EcdsaKeyPair::from_private_key_and_public_key(known.1, private, public)
                    .map(|pair| Self::Ecdsa(pair, known.0))
                    .map_err(|_| Flaw::Broken)
            }
            KeypairData::Rsa(pair) => rsa_pair(pair).map(Self::Rsa).ok_or(Flaw::Broken),
            other => {
                let kind = other.algorithm().map(|kind| kind.to_string());
                Err(Flaw::Kind(kind.unwrap_or_else(|_| "an unknown kind".to_owned())))
            }
        }
    }

    pub(crate) fn public_key(&self) -> Result<PublicKey, Failure> {
        let data = match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let number = |bytes: &[u8]| Mpint::from_positive_bytes(bytes);
                number(public.modulus().big_endian_without_leading_zero()).and_then(|n| {
                    let e = number(public.exponent().big_endian_without_leading_zero())?;
                    Ok(KeyData::Rsa(RsaPublicKey { e, n }))
                })
            }
            Self::Ecdsa(pair, _) => {
                EcdsaPublicKey::from_sec1_bytes(pair.public_key().as_ref()).map(KeyData::Ecdsa)
            }
            Self::Ed25519(pair) => {
                Ed25519PublicKey::try_from(pair.public_key().as_ref()).map(KeyData::Ed25519)
            }
        };
        data.map(PublicKey::from).map_err(|error| {
            Failure::new(Code::Internal, format!("the public key cannot be written: {error}"))
        })
    }

    /// Signs by an algorithm in the words of SSH; as `answer_signature` of the ABI wants it.
    pub(crate) fn sign(&self, algorithm: &str, data: &[u8]) -> Result<Vec<u8>, Failure> {
        let broken = |Unspecified| Failure::new(Code::Internal, "the key in memory does not sign");
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                if let Some((_, encoding)) = RSA.iter().find(|(name, _)| *name == algorithm) {
                    let mut signature = vec![0; pair.public_modulus_len()];
                    pair.sign(*encoding, &random, data, &mut signature).map_err(broken)?;
                    return Ok(signature);
                }
            }
            Self::Ecdsa(pair, name) if *name == algorithm => {
                return pair.sign(&random, data).map(|signature| signature.as_ref().to_vec()).map_err(broken);
            }
            Self::Ed25519(pair) if algorithm == ED25519 => {
                return pair.try_sign(data).map(|signature| signature.as_ref().to_vec()).map_err(broken);
            }
            Self::Ecdsa(..) | Self::Ed25519(_) => {}
        }
        Err(Failure::new(Code::Unsupported, format!("the secret's key does not sign by {algorithm}")))
    }
}

impl Flaw {
    fn failure(&self, vault: &Vault, item: &Item) -> Failure {
        let (name, of) = (vault.name(), &item.name);
        let what = match self {
            Flaw::NoKey => "holds no private key",
            Flaw::Broken => "holds a private key that is broken",
            Flaw::Passphrase => "holds a private key with a passphrase, which nobody can be asked for here",
            Flaw::Kind(kind) => {
                return Failure::new(
                    Code::Unsupported,
                    format!(
                        "{item} of {} holds a private key of a kind that is not supported: {kind}",
                        vault.host()
                    ),
                )
                .hint("RSA, ECDSA (nistp256, nistp384, nistp521) and Ed25519 are");
            }
        };
        let file = match self {
            Flaw::Passphrase => "ssh-keygen -p -N '' -f FILE, then ",
            _ => "",
        };
        Failure::new(Code::NotFound, format!("{item} of {} {what}", vault.host())).hint(format!(
            "{file}az keyvault secret set --vault-name {name} --name {of} --file FILE keeps its lines"
        ))
    }
}

/// The first curve with which `read` takes the key.
fn curve(read: impl Fn(&'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair>) -> Option<LocalKey> {
    CURVES.iter().find_map(|(name, signing)| Some(LocalKey::Ecdsa(read(signing)?, name)))
}

/// OpenSSH leaves out the two exponents of the Chinese remainder theorem (RFC 8017 section 3.2).
fn rsa_pair(pair: &RsaKeypair) -> Option<rsa::KeyPair> {
    let (public, private) = (&pair.public, &pair.private);
    let d = private.d.as_positive_bytes()?;
    let (p, q) = (private.p.as_positive_bytes()?, private.q.as_positive_bytes()?);
    let (less_p, less_q) = (one_less(p)?, one_less(q)?);
    let (d_p, d_q) = (remainder(d, &less_p), remainder(d, &less_q));
    let components = KeyPairComponents {
        public_key: PublicKeyComponents {
            n: public.n.as_positive_bytes()?,
            e: public.e.as_positive_bytes()?,
        },
        d,
        p,
        q,
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: private.iqmp.as_positive_bytes()?,
    };
    rsa::KeyPair::from_components(&components).ok()
}

/// A prime that is not 2, less one.
fn one_less(prime: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut less = Zeroizing::new(prime.to_vec());
    let last = less.last_mut().filter(|last| **last % 2 == 1)?;
    *last -= 1;
    Some(less)
}

/// `number` modulo `modulus`, both big-endian, bit by bit: once per key, and nothing of it stays in memory, which no
/// library for big numbers promises.
fn remainder(number: &[u8], modulus: &[u8]) -> Zeroizing<Vec<u8>> {
    // One byte more than the modulus, for the bit that is shifted out at the top.
    let mut rest = Zeroizing::new(vec![0_u8; modulus.len() + 1]);
    let mut less = Zeroizing::new(vec![0_u8; modulus.len() + 1]);
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let shifted = *byte << 1 | carry;
            carry = *byte >> 7;
            *byte = shifted;
        }
        let mut borrow = false;
        let digits = modulus.iter().rev().chain(std::iter::once(&0));
        for ((into, from), digit) in less.iter_mut().rev().zip(rest.iter().rev()).zip(digits) {
            let (first, under) = from.overflowing_sub(*digit);
            let (second, under_again) = first.overflowing_sub(u8::from(borrow));
            *into = second;
            borrow = under || under_again;
        }
        if !borrow {
            rest.copy_from_slice(&less);
        }
    }
    rest
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
