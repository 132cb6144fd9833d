//! Key vaults: what is in them and who gets in. How they answer is `key_vault`.

use serde::{Deserialize, Deserializer};

use super::{Place, Secret};

/// A key vault; its host is `NAME.vault.localhost`.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Table")]
pub struct KeyVault {
    /// Resource name, which its host name begins with.
    pub name: String,
    /// Where it lives.
    pub place: Place,
    /// Who gets in.
    pub access: Access,
    /// Whether its firewall lets nobody in.
    pub firewall: Firewall,
    /// Keys. Several of one name are its versions, the oldest first.
    pub keys: Vec<VaultKey>,
    /// Secrets. Several of one name are its versions, the oldest first.
    pub secrets: Vec<VaultSecret>,
}

/// Who gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever has a role with the data action: [`super::Role::data_actions`].
    Roles,
    /// Whoever is in this list, which is the older way.
    Policies(Vec<AccessPolicy>),
}

/// What one principal may do in a vault that asks no roles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessPolicy {
    /// Object id of the principal.
    pub object_id: String,
    /// Permissions on keys: `get`, `list`, `sign`.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Permissions on secrets: `get`, `list`.
    #[serde(default)]
    pub secrets: Vec<String>,
}

/// Whether addresses are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firewall {
    /// All of them.
    #[default]
    Open,
    /// None of them.
    Closed,
}

/// One version of a key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultKey {
    /// Name, which its other versions share.
    pub name: String,
    /// Type and size or curve.
    pub kind: KeyKind,
    /// 32 hexadecimal digits; some of its own when left out.
    pub version: Option<String>,
    /// Private key, PEM (PKCS#8); made at the first start and kept in the state folder when left out.
    pub pem: Option<Secret>,
    /// `key_ops`: what it may be used for.
    #[serde(default = "sign_and_verify")]
    pub operations: Vec<String>,
    /// Whether it can be used.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// `nbf` in seconds since 1970.
    pub not_before: Option<u64>,
    /// `exp` in seconds since 1970.
    pub expires: Option<u64>,
    /// Deleted and not yet purged; then all versions of the name are.
    #[serde(default)]
    pub deleted: bool,
}

/// Type of a key, and its size or curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum KeyKind {
    /// RSA with 2,048 bits.
    #[serde(rename = "RSA-2048")]
    Rsa2048,
    /// RSA with 3,072 bits.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// RSA with 4,096 bits.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
    /// NIST P-256.
    #[serde(rename = "P-256")]
    P256,
    /// NIST P-384.
    #[serde(rename = "P-384")]
    P384,
    /// NIST P-521.
    #[serde(rename = "P-521")]
    P521,
    /// SECG secp256k1, which SSH does not know.
    #[serde(rename = "P-256K")]
    P256K,
    /// Symmetric, as in a managed HSM.
    #[serde(rename = "oct")]
    Symmetric,
}

/// One version of a secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSecret {
    /// Name, which its other versions share.
    pub name: String,
    /// The secret.
    pub value: Secret,
    /// 32 hexadecimal digits; some of its own when left out.
    pub version: Option<String>,
    /// Media type, for people.
    pub content_type: Option<String>,
    /// Whether it can be read.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// `nbf` in seconds since 1970.
    pub not_before: Option<u64>,
    /// `exp` in seconds since 1970.
    pub expires: Option<u64>,
    /// Deleted and not yet purged; then all versions of the name are.
    #[serde(default)]
    pub deleted: bool,
}

fn yes() -> bool {
    true
}

fn sign_and_verify() -> Vec<String> {
    vec!["sign".into(), "verify".into()]
}

/// A vault as it stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    group: Option<String>,
    subscription: Option<String>,
    location: Option<String>,
    #[serde(default)]
    firewall: Firewall,
    #[serde(default, deserialize_with = "policies")]
    access_policies: Option<Vec<AccessPolicy>>,
    #[serde(default)]
    keys: Vec<VaultKey>,
    #[serde(default)]
    secrets: Vec<VaultSecret>,
}

/// A list that is there and empty lets nobody in.
fn policies<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<AccessPolicy>>, D::Error> {
    Vec::deserialize(from).map(Some)
}

impl From<Table> for KeyVault {
    fn from(table: Table) -> KeyVault {
        KeyVault {
            name: table.name.to_ascii_lowercase(),
            place: Place::new(table.group, table.subscription, table.location, None),
            access: table.access_policies.map_or(Access::Roles, Access::Policies),
            firewall: table.firewall,
            keys: table.keys,
            secrets: table.secrets,
        }
    }
}
