//! The token endpoint: who gets which token for what. One function for each grant; how a client proves
//! itself is `assertion.rs`, certificates are `ssh_certificate.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::fault::{self, Fault};
use super::ssh_certificate::SshKey;
use super::{Version, assertion, devices, refresh, tenant};
use crate::azure::{Azure, unix_now};
use crate::entra::Claims;
use crate::http::{Answer, Request, json as json_answer, lookup, set_header};
use crate::principals::{Principal, PrincipalKind};
use crate::scenario::{Outcome, Tenant, User};
use crate::transcript::Kind;

/// `POST …/token`
pub(super) fn answer(azure: &Azure, named: &str, request: &Request, version: Version) -> Answer {
    let form = request.form();
    let answered = needed(&form, "grant_type").and_then(|grant| match grant {
        "client_credentials" => client_credentials(azure, named, &form, version),
        "refresh_token" => refresh_token(azure, named, &form, version),
        // The short name is that of the v1 endpoint.
        "urn:ietf:params:oauth:grant-type:device_code" | "device_code" => {
            device_code(azure, named, &form, version)
        }
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

/// RFC 6749 section 4.4 with a shared secret, or with an assertion (RFC 7523 section 2.2).
fn client_credentials(
    azure: &Azure,
    named: &str,
    form: &[(String, String)],
    version: Version,
) -> Result<Value, Fault> {
    let tenant = tenant(azure, named)?.ok_or_else(|| Fault::UnknownTenant(named.to_owned()))?;
    let client = needed(form, "client_id")?;
    let (principal, credentials) =
        azure.inventory.application(&tenant.id, client).ok_or_else(|| unknown_client(client, tenant))?;
    let how = match lookup(form, "client_assertion").filter(|text| !text.is_empty()) {
        Some(assertion) => {
            if lookup(form, "client_assertion_type") != Some(JWT_BEARER) {
                return Err(Fault::MissingParameter("client_assertion_type"));
            }
            assertion::check(azure, tenant, principal, credentials, assertion).map_err(Fault::Assertion)?
        }
        None if credentials.client_secret.expose() == needed(form, "client_secret")? => "client_secret",
        None => return Err(Fault::WrongSecret(client.to_owned())),
    };
    let scope = match version {
        Version::V1 => None,
        Version::V2 => Some(needed(form, "scope")?),
    };
    let ask = Ask::new(azure, form, scope, tenant)?;
    let body = issue(azure, principal, client, &ask, version)?;
    azure.recorder.count(how);
    Ok(body)
}

/// RFC 7523 section 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// RFC 8628 section 3.4.
fn device_code(
    azure: &Azure,
    named: &str,
    form: &[(String, String)],
    version: Version,
) -> Result<Value, Fault> {
    let wanted = tenant(azure, named)?;
    let approved = devices::redeem(azure, form)?;
    let (principal, user, tenant) = person(azure, &approved.upn, wanted)?;
    match azure.sign_ins.outcome(user) {
        // The page has asked for everything that is needed.
        Outcome::Granted | Outcome::Mfa => {}
        outcome => return Err(refused(azure, outcome, &approved.client)),
    }
    let ask = Ask::new(azure, form, Some(&approved.scope), tenant)?;
    let body = for_user(azure, principal, &approved.client, tenant, &ask, version)?;
    azure.recorder.count("device_code");
    Ok(body)
}

/// RFC 6749 section 6. The same person may ask in another tenant than before.
fn refresh_token(
    azure: &Azure,
    named: &str,
    form: &[(String, String)],
    version: Version,
) -> Result<Value, Fault> {
    let wanted = tenant(azure, named)?;
    let client = needed(form, "client_id")?;
    let text = needed(form, "refresh_token")?;
    if !azure.inventory.applications.iter().any(|one| one.client_id.eq_ignore_ascii_case(client)) {
        let tenant = wanted.map_or_else(|| named.to_owned(), fault::name);
        return Err(Fault::UnknownClient { client: client.to_owned(), tenant });
    }
    let token = refresh::redeem(azure, text)?;
    if !token.client.eq_ignore_ascii_case(client) {
        return Err(Fault::RefreshInvalid);
    }
    let wanted = wanted.or_else(|| azure.inventory.tenant(&token.tenant));
    let (principal, user, tenant) = person(azure, &token.upn, wanted)?;
    match azure.sign_ins.outcome(user) {
        Outcome::Granted => {}
        outcome => return Err(refused(azure, outcome, client)),
    }
    let ask = Ask::new(azure, form, lookup(form, "scope"), tenant)?;
    let body = for_user(azure, principal, client, tenant, &ask, version)?;
    azure.recorder.count("refresh_token");
    Ok(body)
}

/// A user, in the tenant that was named or the one where the account is at home.
fn person<'a>(
    azure: &'a Azure,
    upn: &str,
    wanted: Option<&'a Tenant>,
) -> Result<(&'a Principal, &'a User, &'a Tenant), Fault> {
    let unknown = || Fault::UnknownUser {
        upn: upn.to_owned(),
        tenant: wanted.map_or_else(|| "organizations".to_owned(), fault::name),
    };
    let (principal, user) =
        azure.inventory.user(wanted.map(|tenant| tenant.id.as_str()), upn).ok_or_else(unknown)?;
    let tenant = azure.inventory.tenant(&principal.tenant).ok_or_else(unknown)?;
    Ok((principal, user, tenant))
}

fn refused(azure: &Azure, outcome: Outcome, client: &str) -> Fault {
    // The form of what Entra ID sends along with AADSTS50076: claims for the next request.
    let challenge = format!(
        "{{\"access_token\":{{\"capolids\":{{\"essential\":true,\"values\":[\"{}\"]}}}}}}",
        azure.inventory.tenants.first().map_or("", |tenant| &tenant.id)
    );
    Fault::Outcome { outcome, client: client.to_owned(), challenge }
}

/// What a request asks for.
struct Ask {
    product: Product,
    /// The scope as it was asked for.
    scope: String,
    /// `name=value`
    claims: Vec<String>,
    client_info: bool,
}

enum Product {
    /// An access token for a resource.
    Bearer(String),
    /// protocol.md §7
    SshCertificate(SshKey),
}

impl Ask {
    /// `scope` is none where a `resource` says what is wanted.
    fn new(
        azure: &Azure,
        form: &[(String, String)],
        scope: Option<&str>,
        tenant: &Tenant,
    ) -> Result<Ask, Fault> {
        let resource = match scope {
            Some(scope) => resource_of_scope(scope)?,
            None => needed(form, "resource")?.to_owned(),
        };
        let is_linux_login = LINUX_LOGIN.contains(&resource.trim_end_matches('/'));
        let product = if lookup(form, "token_type") == Some("ssh-cert") {
            if !is_linux_login {
                return Err(Fault::UnknownResource { resource, tenant: fault::name(tenant) });
            }
            let key = SshKey::parse(needed(form, "req_cnf")?, needed(form, "key_id")?);
            Product::SshCertificate(key.map_err(Fault::BadRequest)?)
        } else {
            known_resource(azure, &resource, tenant)?;
            Product::Bearer(resource)
        };
        let claims = match lookup(form, "claims").filter(|text| !text.is_empty()) {
            Some(text) => asked_claims(text).ok_or(Fault::BadClaims)?,
            None => Vec::new(),
        };
        Ok(Ask {
            product,
            scope: scope.unwrap_or("openid offline_access").to_owned(),
            claims,
            client_info: lookup(form, "client_info") == Some("1"),
        })
    }

    fn has_scope(&self, wanted: &str) -> bool {
        self.scope.split_whitespace().any(|one| one == wanted)
    }
}

/// The tokens of a user: with a refresh token and what tells the program who it is.
fn for_user(
    azure: &Azure,
    principal: &Principal,
    client: &str,
    tenant: &Tenant,
    ask: &Ask,
    version: Version,
) -> Result<Value, Fault> {
    let mut body = issue(azure, principal, client, ask, version)?;
    let Some(fields) = body.as_object_mut() else { return Err(Fault::Broken) };
    fields.insert("scope".into(), granted_scope(ask).into());
    if ask.has_scope("offline_access") {
        let token = refresh::issue(azure, &principal.name, &tenant.id, client)?;
        fields.insert("refresh_token".into(), token.into());
    }
    if ask.has_scope("openid") {
        let PrincipalKind::User(user) = &principal.kind else { return Err(Fault::Broken) };
        let now = unix_now();
        let name = if user.display_name.is_empty() { &user.upn } else { &user.display_name };
        let id_token = json!({
            "aud": client, "iss": format!("{}/{}/v2.0", azure.url, tenant.id), "iat": now, "nbf": now, "exp": now + ID_TOKEN_LIFE,
            "oid": principal.object_id, "sub": principal.object_id, "tid": tenant.id, "ver": "2.0",
            "preferred_username": principal.name, "name": name,
        });
        let id_token = azure.issuer.sign(&id_token).map_err(|_| Fault::Broken)?;
        fields.insert("id_token".into(), id_token.into());
    }
    if ask.client_info {
        let info = json!({"uid": principal.object_id, "utid": tenant.id}).to_string();
        fields.insert("client_info".into(), URL_SAFE_NO_PAD.encode(info).into());
    }
    Ok(body)
}

/// Life of an ID token in seconds, as at Entra ID: one hour.
const ID_TOKEN_LIFE: u64 = 3600;

fn issue(
    azure: &Azure,
    principal: &Principal,
    client: &str,
    ask: &Ask,
    version: Version,
) -> Result<Value, Fault> {
    let resource = match &ask.product {
        Product::Bearer(resource) => resource,
        Product::SshCertificate(key) => {
            let settings = &azure.sign_ins.settings;
            let lifetime = u64::from(settings.ssh_certificate_lifetime_seconds);
            let ahead = u64::from(settings.ssh_certificate_clock_ahead_seconds);
            let now = (unix_now() + ahead).saturating_sub(azure.sign_ins.certificate_age());
            let certificate = azure.sign_ins.authority.sign(key, principal, now, lifetime);
            let certificate = certificate.map_err(|_| Fault::Broken)?;
            azure.recorder.count("ssh_certificate");
            return Ok(json!({
                "token_type": "ssh-cert", "expires_in": lifetime, "ext_expires_in": lifetime,
                "access_token": certificate, "key_id": key.key_id(),
            }));
        }
    };
    let (access_token, lifetime) =
        bearer(azure, principal, client, resource, ask.claims.clone()).map_err(|_| Fault::Broken)?;
    let now = unix_now();
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

/// An access token, and its life in seconds.
pub(crate) fn bearer(
    azure: &Azure,
    principal: &Principal,
    client: &str,
    resource: &str,
    asked: Vec<String>,
) -> Result<(String, u64), super::Error> {
    let now = unix_now();
    let lifetime = u64::from(azure.settings.token_lifetime_seconds);
    let is_user = matches!(principal.kind, PrincipalKind::User(_));
    let token = azure.issuer.issue(&Claims {
        aud: resource.to_owned(),
        iss: format!("https://sts.windows.net/{}/", principal.tenant),
        iat: now,
        nbf: now,
        exp: now + lifetime,
        appid: client.to_owned(),
        oid: principal.object_id.clone(),
        sub: principal.object_id.clone(),
        tid: principal.tenant.clone(),
        idtyp: if is_user { "user" } else { "app" }.into(),
        ver: "1.0".into(),
        upn: is_user.then(|| principal.name.clone()),
        scp: is_user.then(|| "user_impersonation".to_owned()),
        asked,
    })?;
    Ok((token, lifetime))
}

/// The claims that a `claims` parameter asks of an access token, as `name=value`; none when it is not JSON.
/// `{"access_token": {"acrs": {"essential": true, "value": "c1"}, "xms_cc": {"values": ["CP1"]}}}`
pub(crate) fn asked_claims(text: &str) -> Option<Vec<String>> {
    let parameter: Value = serde_json::from_str(text).ok()?;
    let mut asked = Vec::new();
    for (name, wanted) in parameter.get("access_token").and_then(Value::as_object).into_iter().flatten() {
        let values = wanted.get("values").and_then(Value::as_array).into_iter().flatten();
        for value in values.chain(wanted.get("value")) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            asked.push(format!("{name}={value}"));
        }
    }
    Some(asked)
}

/// Refuses a scope that no token can be had for.
pub(super) fn check_scope(azure: &Azure, scope: &str, tenant: Option<&Tenant>) -> Result<(), Fault> {
    let resource = resource_of_scope(scope)?;
    match tenant.or(azure.inventory.tenants.first()) {
        Some(tenant) => known_resource(azure, &resource, tenant),
        None => Ok(()),
    }
}

fn known_resource(azure: &Azure, resource: &str, tenant: &Tenant) -> Result<(), Fault> {
    match is_resource(azure, resource) {
        true => Ok(()),
        false => Err(Fault::UnknownResource { resource: resource.to_owned(), tenant: fault::name(tenant) }),
    }
}

/// Whether tokens are to be had for a resource: ARM, Key Vault, and the sign-in to Linux.
pub(crate) fn is_resource(azure: &Azure, resource: &str) -> bool {
    let plain = resource.trim_end_matches('/');
    azure.audiences().contains(&plain) || plain == crate::key_vault::AUDIENCE || LINUX_LOGIN.contains(&plain)
}

/// protocol.md §7: the public cloud's, that of the US Government's and that of China.
const LINUX_LOGIN: [&str; 3] = [
    "https://pas.windows.net/CheckMyAccess/Linux",
    "https://pasff.usgovcloudapi.net/CheckMyAccess/Linux",
    "https://pas.chinacloudapi.cn/CheckMyAccess/Linux",
];

/// `https://management.core.windows.net//.default` is a real scope: the resource ends in a slash.
fn resource_of_scope(scope: &str) -> Result<String, Fault> {
    let wanted = scope.split_whitespace().find(|one| !OPENID_SCOPES.contains(one)).unwrap_or_default();
    match wanted.strip_suffix("/.default") {
        Some(resource) if !resource.is_empty() => Ok(resource.to_owned()),
        _ => Err(Fault::InvalidScope(scope.to_owned())),
    }
}

const OPENID_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// What Entra ID says that it granted: the resource's scopes, those of OpenID left out.
fn granted_scope(ask: &Ask) -> String {
    let resources = ask.scope.split_whitespace().filter(|one| !OPENID_SCOPES.contains(one));
    let spelled = resources.flat_map(|one| {
        let whole = one.strip_suffix("/.default").map(|resource| format!("{resource}/user_impersonation"));
        whole.into_iter().chain([one.to_owned()])
    });
    spelled.collect::<Vec<_>>().join(" ")
}

fn unknown_client(client: &str, tenant: &Tenant) -> Fault {
    Fault::UnknownClient { client: client.to_owned(), tenant: fault::name(tenant) }
}

pub(super) fn needed<'a>(form: &'a [(String, String)], name: &'static str) -> Result<&'a str, Fault> {
    lookup(form, name).filter(|value| !value.is_empty()).ok_or(Fault::MissingParameter(name))
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

    #[test]
    fn claims_that_are_asked_for() {
        #[track_caller]
        fn check(text: &str, expected: Option<&[&str]>) {
            let expected = expected.map(|list| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
            assert_eq!(asked_claims(text), expected);
        }
        check(r#"{"access_token": {"xms_cc": {"values": ["CP1"]}}}"#, Some(&["xms_cc=CP1"]));
        check(
            r#"{"access_token":{"nbf":{"essential":true,"value":"1795362791"}}}"#,
            Some(&["nbf=1795362791"]),
        );
        check(r#"{"id_token": null}"#, Some(&[]));
        check("c1", None);
    }
}
