//! Key Vault: keys that sign and never leave, and secrets, each vault below `vault.localhost`. Paths,
//! versions, who may do what. The keys themselves are `material.rs`, refusals are `fault.rs`. Nothing
//! is made, changed or deleted here: the scenario says what there is.

mod fault;
mod material;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::azure::{Azure, unix_now};
use crate::entra::Claims;
use crate::http::{Answer, Request, json as json_answer, set_header};
use crate::principals::Principal;
use crate::scenario::{Access, Firewall, KeyVault, Scenario, Secret, VaultKey, VaultSecret};
use crate::state::State;
use crate::transcript::Kind;

use fault::{Fault, TokenRefusal};
use material::Material;

pub(crate) use material::Error;

/// What tokens for a key vault are for.
pub(crate) const AUDIENCE: &str = "https://vault.azure.net";

/// Below it are the hosts of vaults.
const DOMAIN: &str = ".vault.localhost";

/// Versions of the REST API that are answered, all alike where they are answered at all.
const API_VERSIONS: [&str; 9] = ["2015-06-01", "2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6"];
/// From here on versions are dates again.
const FIRST_DATED_VERSION: &str = "2025-07-01";

/// Items that one page of a list holds at most (REST API, `maxresults`).
const LARGEST_PAGE: usize = 25;

/// When everything was made: what `created` and `updated` say.
const CREATED: u64 = 1_700_000_000;

/// Days for which what was deleted can be recovered, as a new vault has it.
const RECOVERABLE_DAYS: u64 = 90;

/// Whether a host is that of a vault.
pub(crate) fn is_vault(host: &str) -> bool {
    host.ends_with(DOMAIN)
}

/// All key vaults, fixed once the emulator runs.
pub(crate) struct KeyVaults(Vec<Vault>);

/// A key vault.
struct Vault {
    name: String,
    host: String,
    /// `https://NAME.vault.localhost:PORT`
    url: String,
    /// Its id in ARM: the scope of roles.
    id: String,
    location: String,
    tenant: String,
    access: Access,
    firewall: Firewall,
    objects: Vec<Object>,
}

/// A version of a key or secret.
struct Object {
    name: String,
    version: String,
    enabled: bool,
    not_before: Option<u64>,
    expires: Option<u64>,
    deleted: bool,
    content: Content,
}

enum Content {
    Key { material: Material, operations: Vec<String> },
    Secret { value: Secret, content_type: Option<String> },
}

/// What a vault has a collection of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Key,
    Secret,
}

/// Something that a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    List,
    Get,
    Sign,
}

impl KeyVaults {
    /// Makes the keys that the scenario leaves out, and keeps them in the state folder.
    pub(crate) fn new(scenario: &Scenario, port: u16, state: &State) -> Result<KeyVaults, Error> {
        let vaults = scenario.key_vaults.iter().filter_map(|vault| {
            let subscription = scenario.subscription(&vault.place)?;
            let tenant = scenario.tenant(&subscription.tenant)?.id.clone();
            let host = format!("{}{DOMAIN}", vault.name);
            let objects = match objects(vault, state) {
                Ok(objects) => objects,
                Err(error) => return Some(Err(error)),
            };
            Some(Ok(Vault {
                url: format!("https://{host}:{port}"),
                id: format!(
                    "/subscriptions/{}/resourcegroups/{}/providers/microsoft.keyvault/vaults/{}",
                    subscription.id, vault.place.group, vault.name
                ),
                name: vault.name.clone(),
                host,
                location: vault.place.location.clone(),
                tenant,
                access: vault.access.clone(),
                firewall: vault.firewall,
                objects,
            }))
        });
        vaults.collect::<Result<_, _>>().map(KeyVaults)
    }

    /// `https://NAME.vault.localhost:PORT` of the first one.
    pub(crate) fn first_url(&self) -> Option<&str> {
        self.0.first().map(|vault| vault.url.as_str())
    }
}

fn objects(vault: &KeyVault, state: &State) -> Result<Vec<Object>, Error> {
    let mut objects = Vec::new();
    for key in &vault.keys {
        let VaultKey { name, kind, version, pem, operations, enabled, not_before, expires, deleted } = key;
        let version = version.clone().unwrap_or_else(|| version_of(&vault.name, Sort::Key, name, &objects));
        let material = match pem {
            Some(pem) => Material::read(*kind, pem.expose())?,
            None => Material::kept(*kind, &format!("key-vault.{}.{name}.{version}.pem", vault.name), state)?,
        };
        objects.push(Object {
            name: name.clone(),
            version,
            enabled: *enabled,
            not_before: *not_before,
            expires: *expires,
            deleted: *deleted,
            content: Content::Key { material, operations: operations.clone() },
        });
    }
    for secret in &vault.secrets {
        let VaultSecret { name, value, version, content_type, enabled, not_before, expires, deleted } =
            secret;
        let version =
            version.clone().unwrap_or_else(|| version_of(&vault.name, Sort::Secret, name, &objects));
        objects.push(Object {
            name: name.clone(),
            version,
            enabled: *enabled,
            not_before: *not_before,
            expires: *expires,
            deleted: *deleted,
            content: Content::Secret { value: value.clone(), content_type: content_type.clone() },
        });
    }
    Ok(objects)
}

fn is_later(version: &str) -> bool {
    version.starts_with("20") && version >= FIRST_DATED_VERSION
}

/// 32 hexadecimal digits that are the same at every start.
fn version_of(vault: &str, sort: Sort, name: &str, before: &[Object]) -> String {
    let text = format!("{vault} {sort:?} {name} {}", before.len());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Answers a request that belongs to a key vault; none when it does not.
pub(crate) fn answer(azure: &Azure, request: &Request) -> Option<Answer> {
    let vault = azure.key_vaults.0.iter().find(|vault| vault.host == request.host)?;
    let mut response = match vault.respond(azure, request) {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(fault) => fault.response(azure, vault),
    };
    set_header(&mut response, "x-ms-request-id", &uuid::Uuid::new_v4().to_string());
    set_header(&mut response, "x-ms-keyvault-region", &vault.location);
    let body = serde_json::from_slice::<Map<String, Value>>(&request.body).unwrap_or_default();
    let fields = body.keys().cloned().collect();
    Some(Answer { fields, ..Answer::new(Kind::KeyVault, response) })
}

impl Vault {
    fn respond(&self, azure: &Azure, request: &Request) -> Result<Value, Fault> {
        let (caller, claims) = self.authenticate(azure, request)?;
        let caller = Caller { principal: caller, claims };
        if self.firewall == Firewall::Closed {
            return Err(Fault::Firewall(caller.shown()));
        }
        match request.parameter("api-version") {
            None | Some("") => return Err(Fault::NoApiVersion),
            Some(known) if API_VERSIONS.contains(&known) || is_later(known) => {}
            Some(other) => return Err(Fault::ApiVersion(other.to_owned())),
        }
        let path: Vec<&str> = request.segments.iter().map(String::as_str).collect();
        match (&request.method, path.as_slice()) {
            (&Method::GET, ["keys"]) => self.list(azure, request, &caller, Sort::Key, None),
            (&Method::GET, ["secrets"]) => self.list(azure, request, &caller, Sort::Secret, None),
            (&Method::GET, ["keys", name, "versions"]) => {
                self.list(azure, request, &caller, Sort::Key, Some(name))
            }
            (&Method::GET, ["secrets", name, "versions"]) => {
                self.list(azure, request, &caller, Sort::Secret, Some(name))
            }
            (&Method::GET, ["keys", name]) => self.get(&caller, Sort::Key, name, ""),
            (&Method::GET, ["keys", name, version]) => self.get(&caller, Sort::Key, name, version),
            (&Method::GET, ["secrets", name]) => self.get(&caller, Sort::Secret, name, ""),
            (&Method::GET, ["secrets", name, version]) => self.get(&caller, Sort::Secret, name, version),
            (&Method::GET, ["deletedkeys", name]) => self.deleted(&caller, Sort::Key, name),
            (&Method::GET, ["deletedsecrets", name]) => self.deleted(&caller, Sort::Secret, name),
            (&Method::POST, ["keys", name, "sign"]) => self.sign(&caller, name, "", &request.body),
            (&Method::POST, ["keys", name, version, "sign"]) => {
                self.sign(&caller, name, version, &request.body)
            }
            _ => Err(Fault::Path),
        }
    }

    /// Whose token it is. A request without one is how clients ask for the challenge.
    fn authenticate<'a>(
        &self,
        azure: &'a Azure,
        request: &Request,
    ) -> Result<(&'a Principal, Claims), TokenRefusal> {
        let token = request.bearer().ok_or(TokenRefusal::Missing)?;
        let claims = azure.issuer.verify(token)?;
        if claims.aud.trim_end_matches('/') != AUDIENCE {
            return Err(TokenRefusal::Audience(claims.aud));
        }
        if !claims.tid.eq_ignore_ascii_case(&self.tenant) {
            return Err(TokenRefusal::Issuer { found: claims.iss });
        }
        match azure.inventory.principal(&claims.tid, &claims.oid, &claims.appid) {
            Some(principal) => Ok((principal, claims)),
            None => Err(TokenRefusal::Invalid),
        }
    }

    fn must_be_allowed(&self, caller: &Caller<'_>, sort: Sort, deed: Deed, name: &str) -> Result<(), Fault> {
        match &self.access {
            Access::Roles => {
                let action = action(sort, deed);
                let resource = match name {
                    "" => self.id.clone(),
                    name => format!("{}/{}/{name}", self.id, sort.collection()),
                };
                match caller.principal.may_use(action, &resource) {
                    true => Ok(()),
                    false => Err(Fault::Role { caller: caller.shown(), action, resource }),
                }
            }
            Access::Policies(policies) => {
                let own = policies
                    .iter()
                    .find(|one| one.object_id.eq_ignore_ascii_case(&caller.principal.object_id));
                let permissions = own.map(|policy| match sort {
                    Sort::Key => &policy.keys,
                    Sort::Secret => &policy.secrets,
                });
                let permission = deed.permission();
                let granted =
                    |list: &Vec<String>| list.iter().any(|one| one.eq_ignore_ascii_case(permission));
                match permissions.is_some_and(granted) {
                    true => Ok(()),
                    false => Err(Fault::Policy {
                        caller: caller.shown(),
                        permission: format!("{} {permission}", sort.collection()),
                    }),
                }
            }
        }
    }

    /// A version of something that is not deleted; the current one when none is named.
    fn object(&self, sort: Sort, name: &str, version: &str) -> Result<&Object, Fault> {
        let found = self.objects.iter().rev().find(|one| {
            one.is(sort, name) && (version.is_empty() || one.version.eq_ignore_ascii_case(version))
        });
        let named = match version {
            "" => name.to_owned(),
            version => format!("{name}/{version}"),
        };
        found.filter(|_| !self.is_deleted(sort, name)).ok_or(Fault::NotFound { sort, name: named })
    }

    fn is_deleted(&self, sort: Sort, name: &str) -> bool {
        self.objects.iter().any(|one| one.is(sort, name) && one.deleted)
    }

    fn get(&self, caller: &Caller<'_>, sort: Sort, name: &str, version: &str) -> Result<Value, Fault> {
        self.must_be_allowed(caller, sort, Deed::Get, name)?;
        let object = self.object(sort, name, version)?;
        match &object.content {
            // The public half can be had of a disabled key too.
            Content::Key { .. } => Ok(self.bundle(object)),
            // `nbf` and `exp` of a secret are for its reader to judge: "About Azure Key Vault secrets".
            Content::Secret { .. } if !object.enabled => Err(Fault::Disabled { sort, deed: Deed::Get }),
            Content::Secret { .. } => Ok(self.bundle(object)),
        }
    }

    /// What was deleted and can still be recovered.
    fn deleted(&self, caller: &Caller<'_>, sort: Sort, name: &str) -> Result<Value, Fault> {
        let deed = if sort == Sort::Secret { Deed::List } else { Deed::Get };
        self.must_be_allowed(caller, sort, deed, name)?;
        let found = self.objects.iter().rev().find(|one| one.is(sort, name));
        let object = found
            .filter(|_| self.is_deleted(sort, name))
            .ok_or(Fault::NotDeleted { sort, name: name.to_owned() })?;
        let mut body = self.bundle(object);
        if let Some(body) = body.as_object_mut() {
            body.remove("value");
            let now = unix_now();
            let id = format!("{}/deleted{}/{name}", self.url, sort.collection());
            body.insert("recoveryId".into(), id.into());
            body.insert("deletedDate".into(), now.into());
            body.insert("scheduledPurgeDate".into(), (now + RECOVERABLE_DAYS * 24 * 3600).into());
        }
        Ok(body)
    }

    fn sign(&self, caller: &Caller<'_>, name: &str, version: &str, body: &[u8]) -> Result<Value, Fault> {
        self.must_be_allowed(caller, Sort::Key, Deed::Sign, name)?;
        let object = self.object(Sort::Key, name, version)?;
        let (sort, deed, now) = (Sort::Key, Deed::Sign, unix_now());
        let Content::Key { material, operations } = &object.content else { return Err(Fault::Path) };
        if !object.enabled {
            return Err(Fault::Disabled { sort, deed });
        }
        if object.not_before.is_some_and(|from| now < from) {
            return Err(Fault::NotYetValid);
        }
        if object.expires.is_some_and(|until| now >= until) {
            return Err(Fault::Expired);
        }
        if !operations.iter().any(|one| one == "sign") {
            return Err(Fault::Operation);
        }
        let body: Value = serde_json::from_slice(body).map_err(|_| Fault::Body)?;
        let field = |name: &'static str| body.get(name).and_then(Value::as_str).ok_or(Fault::Property(name));
        let algorithm = field("alg")?;
        let digest = URL_SAFE_NO_PAD.decode(field("value")?).map_err(|_| Fault::Property("value"))?;
        let id = self.id_of(object);
        let signature = material.sign(&id, algorithm, &digest)?;
        Ok(json!({"kid": id, "value": URL_SAFE_NO_PAD.encode(signature)}))
    }

    fn list(
        &self,
        azure: &Azure,
        request: &Request,
        caller: &Caller<'_>,
        sort: Sort,
        name: Option<&str>,
    ) -> Result<Value, Fault> {
        self.must_be_allowed(caller, sort, Deed::List, name.unwrap_or_default())?;
        let number = |parameter: &str| request.parameter(parameter).and_then(|text| text.parse().ok());
        let size = number("maxresults").unwrap_or(azure.settings.page_size).clamp(1, LARGEST_PAGE);
        let skip = number("$skiptoken").unwrap_or(0);
        let mut seen = std::collections::BTreeSet::new();
        let wanted = self.objects.iter().filter(|one| {
            one.sort() == sort
                && !self.is_deleted(sort, &one.name)
                && match name {
                    Some(name) => one.name.eq_ignore_ascii_case(name),
                    None => seen.insert(one.name.to_ascii_lowercase()),
                }
        });
        let item = |object: &Object| {
            let id = match name {
                Some(_) => self.id_of(object),
                None => format!("{}/{}/{}", self.url, sort.collection(), object.name),
            };
            json!({ sort.id_field(): id, "attributes": object.attributes() })
        };
        let mut value: Vec<Value> = wanted.skip(skip).take(size + 1).map(item).collect();
        let more = value.len() > size;
        value.truncate(size);
        let path = request.target.split('?').next().unwrap_or_default();
        let version = request.parameter("api-version").unwrap_or_default();
        let next =
            format!("{}{path}?api-version={version}&$skiptoken={}&maxresults={size}", self.url, skip + size);
        Ok(json!({"value": value, "nextLink": more.then_some(next)}))
    }

    fn id_of(&self, object: &Object) -> String {
        format!("{}/{}/{}/{}", self.url, object.sort().collection(), object.name, object.version)
    }

    /// A `KeyBundle` or `SecretBundle` of the REST API.
    fn bundle(&self, object: &Object) -> Value {
        match &object.content {
            Content::Key { material, operations } => {
                let mut key = material.public();
                key.insert("kid".into(), self.id_of(object).into());
                key.insert("key_ops".into(), operations.as_slice().into());
                json!({"key": key, "attributes": object.attributes(), "tags": {}})
            }
            Content::Secret { value, content_type } => {
                let mut body = json!({
                    "id": self.id_of(object), "value": value.expose(), "attributes": object.attributes(), "tags": {},
                });
                if let (Some(body), Some(content_type)) = (body.as_object_mut(), content_type) {
                    body.insert("contentType".into(), content_type.as_str().into());
                }
                body
            }
        }
    }
}

/// Who asks, after the token has been checked.
struct Caller<'a> {
    principal: &'a Principal,
    claims: Claims,
}

impl Caller<'_> {
    /// As refusals name it.
    fn shown(&self) -> String {
        format!("appid={};oid={};iss={}", self.claims.appid, self.claims.oid, self.claims.iss)
    }
}

impl Object {
    fn sort(&self) -> Sort {
        match self.content {
            Content::Key { .. } => Sort::Key,
            Content::Secret { .. } => Sort::Secret,
        }
    }

    fn is(&self, sort: Sort, name: &str) -> bool {
        self.sort() == sort && self.name.eq_ignore_ascii_case(name)
    }

    fn attributes(&self) -> Value {
        let mut attributes = json!({
            "enabled": self.enabled, "created": CREATED, "updated": CREATED,
            "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": RECOVERABLE_DAYS,
        });
        if let Some(attributes) = attributes.as_object_mut() {
            attributes.extend(self.not_before.map(|from| ("nbf".to_owned(), from.into())));
            attributes.extend(self.expires.map(|until| ("exp".to_owned(), until.into())));
        }
        attributes
    }
}

impl Sort {
    fn collection(self) -> &'static str {
        match self {
            Sort::Key => "keys",
            Sort::Secret => "secrets",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Sort::Key => "key",
            Sort::Secret => "secret",
        }
    }

    /// As in codes of refusals.
    fn title(self) -> &'static str {
        match self {
            Sort::Key => "Key",
            Sort::Secret => "Secret",
        }
    }

    /// What items of a list name their id by.
    fn id_field(self) -> &'static str {
        match self {
            Sort::Key => "kid",
            Sort::Secret => "id",
        }
    }
}

impl Deed {
    /// As access policies and messages name it.
    fn permission(self) -> &'static str {
        match self {
            Deed::List => "list",
            Deed::Get => "get",
            Deed::Sign => "sign",
        }
    }
}

/// The data action of the REST API's operations ("Azure permissions for Security": Microsoft.KeyVault).
fn action(sort: Sort, deed: Deed) -> &'static str {
    match (sort, deed) {
        (Sort::Key, Deed::List | Deed::Get) => "Microsoft.KeyVault/vaults/keys/read",
        (Sort::Key, Deed::Sign) => "Microsoft.KeyVault/vaults/keys/sign/action",
        (Sort::Secret, Deed::List) => "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
        (Sort::Secret, Deed::Get | Deed::Sign) => "Microsoft.KeyVault/vaults/secrets/getSecret/action",
    }
}
