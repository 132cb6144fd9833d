//! Entra ID: which path leads where, discovery and keys. Tokens are granted in `grants.rs`, device codes
//! live in `devices.rs`, the page for people is `page.rs`.

mod assertion;
mod devices;
mod fault;
mod grants;
mod issuer;
mod page;
mod refresh;
mod ssh_certificate;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::azure::Azure;
use crate::http::{Answer, Request, json as json_answer};
use crate::scenario::{Outcome, SignInSettings, Tenant, User};
use crate::state::{self, State};
use crate::transcript::Kind;

use devices::Devices;
use fault::Fault;
use refresh::Refreshes;

pub use devices::{DeviceCode, DeviceError};
pub(crate) use grants::{asked_claims, bearer, is_resource};
pub(crate) use issuer::{Claims, Error, Issuer, TokenFault};
pub use refresh::RefreshEnd;
pub(crate) use ssh_certificate::SshAuthority;

/// What changes while people and programs sign in.
pub(crate) struct SignIns {
    pub(crate) settings: SignInSettings,
    pub(crate) authority: SshAuthority,
    devices: Mutex<Devices>,
    refreshes: Mutex<Refreshes>,
    /// Outcomes that differ from the scenario's, by user principal name in lower case.
    outcomes: Mutex<HashMap<String, Outcome>>,
    challenge: Mutex<Option<String>>,
    /// How old certificates are when they are signed, in seconds.
    certificate_age: AtomicU64,
}

impl SignIns {
    /// The certificate authority is kept in the state folder.
    pub(crate) fn new(settings: SignInSettings, state: &State) -> Result<SignIns, state::Error> {
        Ok(SignIns {
            authority: SshAuthority::new(state)?,
            devices: Mutex::default(),
            refreshes: Mutex::default(),
            outcomes: Mutex::default(),
            challenge: Mutex::new(settings.claims_challenge.clone()),
            certificate_age: AtomicU64::default(),
            settings,
        })
    }

    /// What ARM and the data plane demand of every token from now on (JSON as in a `claims` parameter), or nothing.
    pub(crate) fn demand(&self, claims: Option<String>) {
        *lock(&self.challenge) = claims;
    }

    /// The claims that are demanded and that a token does not carry.
    pub(crate) fn challenge(&self, claims: &Claims) -> Option<String> {
        let challenge = lock(&self.challenge).clone()?;
        let demanded = asked_claims(&challenge)?;
        (!demanded.iter().all(|one| claims.asked.contains(one))).then_some(challenge)
    }

    /// From now on certificates are as old when they are signed.
    pub(crate) fn age_certificates(&self, seconds: u64) {
        self.certificate_age.store(seconds, Ordering::Relaxed);
    }

    fn certificate_age(&self) -> u64 {
        self.certificate_age.load(Ordering::Relaxed)
    }

    /// From now on a user's sign-in comes to this.
    pub(crate) fn set_outcome(&self, upn: &str, outcome: Outcome) {
        lock(&self.outcomes).insert(upn.to_ascii_lowercase(), outcome);
    }

    /// What comes of a user's sign-in.
    fn outcome(&self, user: &User) -> Outcome {
        lock(&self.outcomes).get(&user.upn.to_ascii_lowercase()).copied().unwrap_or(user.sign_in)
    }
}

/// The data is plain: a panic elsewhere leaves nothing half done that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers a request that belongs to Entra ID; none when it does not.
pub(crate) fn answer(azure: &Azure, request: &Request) -> Option<Answer> {
    let lower = request.lower_segments();
    let path: Vec<&str> = lower.iter().map(String::as_str).collect();
    let discovery = |body: Result<Value, Fault>| {
        let response =
            body.map_or_else(|fault| fault.response(azure), |body| json_answer(StatusCode::OK, &body));
        Some(Answer::new(Kind::Discovery, response))
    };
    match (&request.method, path.as_slice()) {
        (_, ["device"]) => page::answer(azure, request),
        (&Method::GET, ["common", "discovery", "instance"]) => discovery(Ok(instance_discovery(azure))),
        (&Method::GET, ["common", "userrealm", upn]) => discovery(Ok(user_realm(azure, upn))),
        (&Method::GET, [tenant, "v2.0", ".well-known", "openid-configuration"]) => {
            discovery(configuration(azure, tenant, Version::V2))
        }
        (&Method::GET, [tenant, ".well-known", "openid-configuration"]) => {
            discovery(configuration(azure, tenant, Version::V1))
        }
        (&Method::GET, [_, "discovery", "v2.0" | "v1.0", "keys"] | [_, "discovery", "keys"]) => {
            discovery(Ok(azure.issuer.key_set()))
        }
        (&Method::POST, [tenant, "oauth2", "v2.0", "devicecode"]) => {
            Some(devices::answer(azure, tenant, request))
        }
        (&Method::POST, [tenant, "oauth2", "v2.0", "token"]) => {
            Some(grants::answer(azure, tenant, request, Version::V2))
        }
        (&Method::POST, [tenant, "oauth2", "token"]) => {
            Some(grants::answer(azure, tenant, request, Version::V1))
        }
        _ => None,
    }
}

/// Version of the endpoints: v1 asks for a `resource`, v2 for a `scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Tenants that stand for "whoever signs in".
const ANY_TENANT: [&str; 3] = ["common", "organizations", "consumers"];

/// The tenant that a path names; none when it leaves that to whoever signs in.
fn tenant<'a>(azure: &'a Azure, named: &str) -> Result<Option<&'a Tenant>, Fault> {
    match ANY_TENANT.contains(&named) {
        true => Ok(None),
        false => {
            azure.inventory.tenant(named).map(Some).ok_or_else(|| Fault::UnknownTenant(named.to_owned()))
        }
    }
}

fn instance_discovery(azure: &Azure) -> Value {
    let authority = azure.url.trim_start_matches("https://");
    json!({
        "tenant_discovery_endpoint": format!("{}/common/v2.0/.well-known/openid-configuration", azure.url),
        "api-version": "1.1",
        "metadata": [{"preferred_network": authority, "preferred_cache": authority, "aliases": [authority]}],
    })
}

/// Whose sign-in page a user has: always this one.
fn user_realm(azure: &Azure, upn: &str) -> Value {
    json!({
        "ver": "1.0", "account_type": "Managed", "domain_name": upn.split_once('@').map_or("", |(_, domain)| domain),
        "cloud_instance_name": azure.url.trim_start_matches("https://"), "cloud_audience_urn": "urn:federation:MicrosoftOnline",
    })
}

fn configuration(azure: &Azure, named: &str, version: Version) -> Result<Value, Fault> {
    let tenant = tenant(azure, named)?.map_or(named, |tenant| tenant.id.as_str());
    let base = format!("{}/{tenant}", azure.url);
    let (oauth2, issuer) = match version {
        Version::V1 => (format!("{base}/oauth2"), format!("{base}/")),
        Version::V2 => (format!("{base}/oauth2/v2.0"), format!("{base}/v2.0")),
    };
    Ok(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{oauth2}/authorize"),
        "token_endpoint": format!("{oauth2}/token"),
        "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
        "end_session_endpoint": format!("{oauth2}/logout"),
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "userinfo_endpoint": format!("{base}/openid/userinfo"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "response_types_supported": ["code", "id_token", "code id_token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "tenant_region_scope": "EU",
        "cloud_instance_name": azure.url.trim_start_matches("https://"),
    }))
}
