//! Keys that never leave the vault: their public half as SSH has it, and signatures by the operation `sign`. It leaves
//! out keys that are kept as secrets (`local`).

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{self, Algorithm, SHA256, SHA384, SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bastide_plugin_abi::{Code, Failure};
use serde::Deserialize;
use serde_json::json;
use ssh_key::public::{EcdsaPublicKey, KeyData, RsaPublicKey};
use ssh_key::{Mpint, PublicKey};

use crate::refusal::{self, explain};
use crate::settings::Item;
use crate::vault::{Host, Vault};

/// A key of a vault.
pub(crate) struct RemoteKey {
    /// `/keys/NAME/VERSION`: the version whose public half was shown signs, also after the key was rotated.
    path: String,
    form: Form,
}

/// The public half.
enum Form {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The point as SEC 1 section 2.3.3 writes it, uncompressed.
    Curve {
        curve: &'static Curve,
        point: Vec<u8>,
    },
}

/// A curve that SSH and Key Vault both know, and how they call what signs with it.
struct Curve {
    /// RFC 7518 section 6.2.1.1.
    name: &'static str,
    /// Bytes of a coordinate.
    field: usize,
    /// RFC 5656 section 3.1.
    ssh: &'static str,
    signature: Signature,
}

/// A way to sign, in the words of the vault (RFC 7518 section 3.1).
struct Signature {
    name: &'static str,
    digest: &'static Algorithm,
}

static CURVES: [Curve; 3] = [
    Curve {
        name: "P-256",
        field: 32,
        ssh: "ecdsa-sha2-nistp256",
        signature: Signature { name: "ES256", digest: &SHA256 },
    },
    Curve {
        name: "P-384",
        field: 48,
        ssh: "ecdsa-sha2-nistp384",
        signature: Signature { name: "ES384", digest: &SHA384 },
    },
    Curve {
        name: "P-521",
        field: 66,
        ssh: "ecdsa-sha2-nistp521",
        signature: Signature { name: "ES512", digest: &SHA512 },
    },
];

/// RFC 8332 section 3.
static RSA: [(&str, Signature); 2] = [
    ("rsa-sha2-256", Signature { name: "RS256", digest: &SHA256 }),
    ("rsa-sha2-512", Signature { name: "RS512", digest: &SHA512 }),
];

/// `KeyBundle` of the REST API.
#[derive(Deserialize)]
struct Bundle {
    key: WebKey,
    #[serde(default)]
    attributes: Attributes,
}

/// RFC 7517 and RFC 7518, the public part.
#[derive(Deserialize)]
struct WebKey {
    #[serde(default)]
    kid: String,
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
    key_ops: Option<Vec<String>>,
}

/// What keys and secrets have in common; times in seconds since 1970.
#[derive(Default, Deserialize)]
pub(crate) struct Attributes {
    enabled: Option<bool>,
    nbf: Option<i64>,
    exp: Option<i64>,
}

/// `KeyOperationResult` of the REST API.
#[derive(Deserialize)]
struct Signed {
    value: String,
}

impl RemoteKey {
    pub(crate) fn fetch(host: &dyn Host, vault: &mut Vault, item: &Item) -> Result<Self, Failure> {
        let bundle: Bundle =
            vault.get(host, &item.path()).map_err(|trouble| explain(host, vault, item, trouble))?;
        bundle.attributes.check(vault, item)?;
        if bundle.key.key_ops.as_ref().is_some_and(|known| !known.iter().any(|one| one == "sign")) {
            return Err(refusal::not_for_signing(vault, item));
        }
        let version = bundle.key.kid.rsplit('/').next().filter(|version| is_version(version));
        let path = match version {
            Some(version) => format!("{}/{version}", item.current()),
            None => item.path(),
        };
        Ok(Self { path, form: form(vault, item, &bundle.key)? })
    }

    pub(crate) fn public_key(&self) -> Result<PublicKey, Failure> {
        let data = match &self.form {
            Form::Rsa { modulus, exponent } => Mpint::from_positive_bytes(modulus)
                .and_then(|n| Ok(KeyData::Rsa(RsaPublicKey { e: Mpint::from_positive_bytes(exponent)?, n }))),
            Form::Curve { point, .. } => EcdsaPublicKey::from_sec1_bytes(point).map(KeyData::Ecdsa),
        };
        data.map(PublicKey::from)
            .map_err(|error| Failure::new(Code::Service, format!("the vault's key is malformed: {error}")))
    }

    /// Signs by an algorithm in the words of SSH; as `answer_signature` of the ABI wants it.
    pub(crate) fn sign(
        &self,
        host: &dyn Host,
        vault: &mut Vault,
        item: &Item,
        algorithm: &str,
        data: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let (signature, size) = match &self.form {
            Form::Rsa { modulus, .. } => (
                RSA.iter().find(|(name, _)| *name == algorithm).map(|(_, signature)| signature),
                modulus.len(),
            ),
            Form::Curve { curve, .. } => {
                (Some(&curve.signature).filter(|_| curve.ssh == algorithm), 2 * curve.field)
            }
        };
        let signature = signature.ok_or_else(|| {
            Failure::new(
                Code::Unsupported,
                format!("{item} of {} does not sign by {algorithm}", vault.host()),
            )
        })?;
        let digest = digest::digest(signature.digest, data);
        let body = json!({"alg": signature.name, "value": URL_SAFE_NO_PAD.encode(digest.as_ref())});
        let signed: Signed = vault
            .post(host, &format!("{}/sign", self.path), &body)
            .map_err(|trouble| explain(host, vault, item, trouble))?;
        match decode(&signed.value) {
            Some(bytes) if bytes.len() == size => Ok(bytes),
            _ => Err(Failure::new(
                Code::Service,
                format!("{} answered with something else than a signature by {item}", vault.host()),
            )),
        }
    }
}

impl Attributes {
    /// Says at once what would otherwise come out at the first signature, where nobody sees the reason.
    pub(crate) fn check(&self, vault: &Vault, item: &Item) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.check_at(i64::try_from(now).unwrap_or(i64::MAX), vault, item)
    }

    fn check_at(&self, now: i64, vault: &Vault, item: &Item) -> Result<(), Failure> {
        if self.enabled == Some(false) {
            return Err(refusal::disabled(vault, item));
        }
        if self.exp.is_some_and(|until| now >= until) {
            return Err(refusal::expired(vault, item, self.exp));
        }
        if self.nbf.is_some_and(|from| now < from) {
            return Err(refusal::not_yet_valid(vault, item, self.nbf));
        }
        Ok(())
    }
}

fn form(vault: &Vault, item: &Item, key: &WebKey) -> Result<Form, Failure> {
    let malformed = || {
        Failure::new(
            Code::Service,
            format!("{} answers about {item}, and its numbers cannot be read", vault.host()),
        )
    };
    let number = |text: &str| decode(text).filter(|bytes| !bytes.is_empty()).ok_or_else(malformed);
    let unfit = |what: &str| {
        let name = vault.name();
        Failure::new(
            Code::Unsupported,
            format!("{item} of {} is {what}, which SSH does not know", vault.host()),
        )
        .hint(format!(
            "make another one: az keyvault key create --vault-name {name} --name NAME --kty EC --curve P-256"
        ))
    };
    match key.kty.as_str() {
        "RSA" | "RSA-HSM" => {
            // A signature is as long as the modulus.
            let modulus = number(&key.n)?.into_iter().skip_while(|byte| *byte == 0).collect();
            Ok(Form::Rsa { modulus, exponent: number(&key.e)? })
        }
        "EC" | "EC-HSM" => {
            let Some(curve) = CURVES.iter().find(|curve| curve.name == key.crv) else {
                return Err(unfit(&format!("on the curve {}", shown(&key.crv))));
            };
            // SEC 1 section 2.3.3: 4, then both coordinates in full length.
            let mut point = vec![4];
            for coordinate in [number(&key.x)?, number(&key.y)?] {
                let missing = curve.field.checked_sub(coordinate.len()).ok_or_else(malformed)?;
                point.resize(point.len() + missing, 0);
                point.extend(coordinate);
            }
            Ok(Form::Curve { curve, point })
        }
        "oct" | "oct-HSM" => Err(unfit("symmetric")),
        other => Err(unfit(&format!("of the type {}", shown(other)))),
    }
}

/// base64url of RFC 7515, which has no padding; some write it all the same.
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// A word of the vault for a message.
fn shown(word: &str) -> String {
    word.chars().filter(|one| !one.is_control()).take(20).collect()
}

fn is_version(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
