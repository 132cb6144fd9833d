//! Entra ID: discovery, keys and the token endpoint. One function for each grant; the tokens
//! themselves are `issuer.rs`.

mod issuer;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::azure::{Azure, unix_now};
use crate::http::{Answer, Request, Response, json as json_answer, lookup, set_header};
use crate::scenario::Tenant;
use crate::transcript::Kind;

pub(crate) use issuer::{Claims, Error, Issuer, TokenFault};

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
        (&Method::GET, ["common", "discovery", "instance"]) => discovery(Ok(instance_discovery(azure))),
        (&Method::GET, [tenant, "v2.0", ".well-known", "openid-configuration"]) => {
            discovery(configuration(azure, tenant, Version::V2))
        }
        (&Method::GET, [tenant, ".well-known", "openid-configuration"]) => {
            discovery(configuration(azure, tenant, Version::V1))
        }
        (&Method::GET, [_, "discovery", "v2.0" | "v1.0", "keys"] | [_, "discovery", "keys"]) => {
            discovery(Ok(azure.issuer.key_set()))
        }
        (&Method::POST, [tenant, "oauth2", "v2.0", "token"]) => {
            Some(token(azure, tenant, request, Version::V2))
        }
        (&Method::POST, [tenant, "oauth2", "token"]) => Some(token(azure, tenant, request, Version::V1)),
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

fn instance_discovery(azure: &Azure) -> Value {
    let authority = azure.url.trim_start_matches("https://");
    json!({
        "tenant_discovery_endpoint": format!("{}/common/v2.0/.well-known/openid-configuration", azure.url),
        "api-version": "1.1",
        "metadata": [{"preferred_network": authority, "preferred_cache": authority, "aliases": [authority]}],
    })
}

fn configuration(azure: &Azure, named: &str, version: Version) -> Result<Value, Fault> {
    let tenant = match ANY_TENANT.contains(&named) {
        true => named,
        false => tenant(azure, named)?.id.as_str(),
    };
    let base = format!("{}/{tenant}", azure.url);
    let (oauth2, issuer) = match version {
        Version::V1 => (format!("{base}/oauth2"), format!("{base}/")),
        Version::V2 => (format!("{base}/oauth2/v2.0"), format!("{base}/v2.0")),
    };
    Ok(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{oauth2}/authorize"),
        "token_endpoint": format!("{oauth2}/token"),
        "device_authorization_endpoint": format!("{oauth2}/devicecode"),
        "end_session_endpoint": format!("{oauth2}/logout"),
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "userinfo_endpoint": format!("{base}/openid/userinfo"),
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "response_types_supported": ["code", "id_token", "code id_token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "tenant_region_scope": "EU",
        "cloud_instance_name": azure.url.trim_start_matches("https://"),
    }))
}

fn token(azure: &Azure, named: &str, request: &Request, version: Version) -> Answer {
    let form = request.form();
    let answered = tenant(azure, named).and_then(|tenant| match needed(&form, "grant_type")? {
        "client_credentials" => client_credentials(azure, tenant, &form, version),
        other => Err(Fault::UnsupportedGrant(other.to_owned())),
    });
    let mut response = match answered {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(fault) => fault.response(azure),
    };
    set_header(&mut response, "cache-control", "no-store");
    set_header(&mut response, "pragma", "no-cache");
    Answer { fields: form.into_iter().map(|(name, _)| name).collect(), ..Answer::new(Kind::Token, response) }
}

/// RFC 6749 section 4.4 with a shared secret.
fn client_credentials(
    azure: &Azure,
    tenant: &Tenant,
    form: &[(String, String)],
    version: Version,
) -> Result<Value, Fault> {
    let client = needed(form, "client_id")?;
    let secret = needed(form, "client_secret")?;
    let principal = azure
        .inventory
        .principal(&tenant.id, client)
        .ok_or_else(|| Fault::UnknownClient { client: client.to_owned(), tenant: tenant.clone() })?;
    if principal.client_secret.expose() != secret {
        return Err(Fault::WrongSecret(client.to_owned()));
    }
    let resource = match version {
        Version::V1 => needed(form, "resource")?.to_owned(),
        Version::V2 => resource_of_scope(needed(form, "scope")?)?,
    };
    if !azure.audiences().contains(&resource.trim_end_matches('/')) {
        return Err(Fault::UnknownResource { resource, tenant: tenant.clone() });
    }
    let now = unix_now();
    let lifetime = u64::from(azure.settings.token_lifetime_seconds);
    let access_token = azure
        .issuer
        .issue(&Claims {
            aud: resource.clone(),
            iss: format!("https://sts.windows.net/{}/", tenant.id),
            iat: now,
            nbf: now,
            exp: now + lifetime,
            appid: principal.client_id.clone(),
            oid: principal.object_id.clone(),
            sub: principal.object_id.clone(),
            tid: tenant.id.clone(),
            idtyp: "app".into(),
            ver: "1.0".into(),
        })
        .map_err(|_| Fault::Broken)?;
    Ok(match version {
        Version::V2 => json!({
            "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": access_token,
        }),
        Version::V1 => json!({
            "token_type": "Bearer", "expires_in": lifetime.to_string(), "ext_expires_in": lifetime.to_string(),
            "expires_on": (now + lifetime).to_string(), "not_before": now.to_string(), "resource": resource,
            "access_token": access_token,
        }),
    })
}

/// `https://management.core.windows.net//.default` is a real scope: the resource ends in a slash.
fn resource_of_scope(scope: &str) -> Result<String, Fault> {
    let wanted = scope.split_whitespace().find(|one| !OPENID_SCOPES.contains(one)).unwrap_or_default();
    match wanted.strip_suffix("/.default") {
        Some(resource) if !resource.is_empty() => Ok(resource.to_owned()),
        _ => Err(Fault::InvalidScope(scope.to_owned())),
    }
}

const OPENID_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

fn tenant<'a>(azure: &'a Azure, named: &str) -> Result<&'a Tenant, Fault> {
    azure.inventory.tenant(named).ok_or_else(|| Fault::UnknownTenant(named.to_owned()))
}

fn needed<'a>(form: &'a [(String, String)], name: &'static str) -> Result<&'a str, Fault> {
    lookup(form, name).filter(|value| !value.is_empty()).ok_or(Fault::MissingParameter(name))
}

/// What Entra ID refuses, in its own words.
#[derive(Debug)]
enum Fault {
    MissingParameter(&'static str),
    UnknownTenant(String),
    UnknownClient { client: String, tenant: Tenant },
    WrongSecret(String),
    InvalidScope(String),
    UnknownResource { resource: String, tenant: Tenant },
    UnsupportedGrant(String),
    Broken,
}

impl Fault {
    fn response(&self, azure: &Azure) -> Response {
        let name = |tenant: &Tenant| match tenant.display_name.is_empty() {
            true => tenant.id.clone(),
            false => tenant.display_name.clone(),
        };
        let (status, error, code, text) = match self {
            Fault::MissingParameter(parameter) => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                900_144,
                format!("The request body must contain the following parameter: '{parameter}'."),
            ),
            Fault::UnknownTenant(tenant) => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                90002,
                format!(
                    "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
                ),
            ),
            Fault::UnknownClient { client, tenant } => (
                StatusCode::BAD_REQUEST,
                "unauthorized_client",
                700_016,
                format!(
                    "Application with identifier '{client}' was not found in the directory '{}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.",
                    name(tenant)
                ),
            ),
            Fault::WrongSecret(client) => (
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                7_000_215,
                format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."
                ),
            ),
            Fault::InvalidScope(scope) => (
                StatusCode::BAD_REQUEST,
                "invalid_scope",
                70011,
                format!(
                    "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."
                ),
            ),
            Fault::UnknownResource { resource, tenant } => (
                StatusCode::BAD_REQUEST,
                "invalid_resource",
                500_011,
                format!(
                    "The resource principal named {resource} was not found in the tenant named {}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.",
                    name(tenant)
                ),
            ),
            Fault::UnsupportedGrant(grant) => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                70003,
                format!("The app requested an unsupported grant type '{grant}'."),
            ),
            Fault::Broken => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                90033,
                "A transient error has occurred. Please try again.".to_owned(),
            ),
        };
        let (trace, correlation) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
        let form = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
        let timestamp = time::OffsetDateTime::now_utc().format(&form).unwrap_or_default();
        let description = format!(
            "AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"
        );
        let body = json!({
            "error": error, "error_description": description, "error_codes": [code], "timestamp": timestamp,
            "trace_id": trace, "correlation_id": correlation, "error_uri": format!("{}/error?code={code}", azure.url),
        });
        json_answer(status, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_scopes() {
        #[track_caller]
        fn check(scope: &str, expected: Option<&str>) {
            assert_eq!(resource_of_scope(scope).ok().as_deref(), expected);
        }
        check("https://management.azure.com/.default", Some("https://management.azure.com"));
        check("https://management.core.windows.net//.default", Some("https://management.core.windows.net/"));
        check(
            "openid https://management.azure.com/.default offline_access",
            Some("https://management.azure.com"),
        );
        check("https://management.azure.com/user_impersonation", None);
        check("/.default", None);
        check("", None);
    }
}
