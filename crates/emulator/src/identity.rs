//! Managed identity endpoints, on the port without TLS: IMDS of a virtual machine, App Service, Azure Arc
//! and Cloud Shell. Each has its own way to ask and to be refused (learn.microsoft.com, "How to use
//! managed identities … to acquire an access token", "… for App Service", "… on Azure Arc-enabled servers").
//! How long they are not there, or busy, is up to `faults`.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::azure::{Azure, unix_now};
use crate::entra::{bearer, is_resource};
use crate::http::{Answer, Request, Response, json as json_answer, lookup, set_header};
use crate::principals::{Principal, PrincipalKind};
use crate::scenario::Secret;
use crate::state::{self, State};
use crate::transcript::Kind;

/// What a client has to know or read to be believed.
pub(crate) struct IdentitySecrets {
    /// App Service: what `X-IDENTITY-HEADER` must say.
    pub(crate) header: Secret,
    /// Azure Arc: what the file that the challenge names holds.
    arc: Secret,
    /// Azure Arc: that file.
    arc_file: String,
}

impl IdentitySecrets {
    pub(crate) fn new(state: &State) -> Result<IdentitySecrets, state::Error> {
        state.subfolder(ARC_FOLDER)?;
        Ok(IdentitySecrets {
            header: state.secret("identity-header")?,
            arc: state.secret(ARC_FILE)?,
            arc_file: state.path(ARC_FILE).display().to_string(),
        })
    }
}

/// Azure Arc: the folder of that file, in the state folder.
pub(crate) const ARC_FOLDER: &str = "arc";
/// The agent's own file ends in `.key` as well, and clients look at that.
const ARC_FILE: &str = "arc/challenge.key";

/// Paths of the endpoints behind the port.
pub(crate) const APP_SERVICE: &str = "/app-service/msi/token";
pub(crate) const ARC: &str = "/arc/metadata/identity/oauth2/token";
pub(crate) const CLOUD_SHELL: &str = "/cloud-shell/oauth2/token";

/// Answers a request that belongs to a managed identity endpoint; none when it does not.
pub(crate) fn answer(azure: &Azure, request: &Request) -> Option<Answer> {
    let lower = request.lower_segments();
    let path: Vec<&str> = lower.iter().map(String::as_str).collect();
    let form = request.form();
    let answered = match (&request.method, path.as_slice()) {
        (&Method::GET, ["metadata", "identity", "oauth2", "token"]) => machine(azure, request),
        (&Method::GET, ["app-service", "msi", "token"]) => app_service(azure, request),
        (&Method::GET, ["arc", "metadata", "identity", "oauth2", "token"]) => arc(azure, request),
        (&Method::POST, ["cloud-shell", "oauth2", "token"]) => cloud_shell(azure, request, &form),
        _ => return None,
    };
    let response = match answered {
        Ok(body) => {
            azure.recorder.count("managed_identity");
            json_answer(StatusCode::OK, &body)
        }
        Err(refusal) => *refusal,
    };
    let fields = form.into_iter().map(|(name, _)| name).collect();
    Some(Answer { fields, ..Answer::new(Kind::Identity, response) })
}

/// IMDS: any caller on the machine is believed that says `Metadata: true` and came through no proxy.
fn machine(azure: &Azure, request: &Request) -> Result<Value, Refused> {
    must_be_direct(request)?;
    must_have_version(request, "2018-02-01")?;
    let named = ["client_id", "object_id", "msi_res_id", "mi_res_id"];
    let (principal, resource) = wanted(azure, &request.query, &named)?;
    whole(azure, principal, resource)
}

fn app_service(azure: &Azure, request: &Request) -> Result<Value, Refused> {
    let said = request.header("x-identity-header").unwrap_or_default();
    if !bool::from(azure.identity.header.expose().as_bytes().ct_eq(said.as_bytes())) {
        let body = json!({"statusCode": 403, "message": "The X-IDENTITY-HEADER is missing or wrong."});
        return Err(Box::new(json_answer(StatusCode::FORBIDDEN, &body)));
    }
    must_have_version(request, "2019-08-01")?;
    let (principal, resource) =
        wanted(azure, &request.query, &["client_id", "principal_id", "object_id", "mi_res_id"])?;
    let mut body = whole(azure, principal, resource)?;
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|name, _| !matches!(name.as_str(), "ext_expires_in" | "expires_in" | "not_before"));
    }
    Ok(body)
}

/// Whoever can read the file that the challenge names is an administrator of the machine.
fn arc(azure: &Azure, request: &Request) -> Result<Value, Refused> {
    must_be_direct(request)?;
    must_have_version(request, "2019-11-01")?;
    let secrets = &azure.identity;
    let said = request.header("authorization").and_then(|value| value.strip_prefix("Basic "));
    // The content goes as it is, as the agent's documentation has it; base64 is not for it.
    let known =
        said.is_some_and(|said| bool::from(secrets.arc.expose().as_bytes().ct_eq(said.trim().as_bytes())));
    if !known {
        let mut response = refusal(
            StatusCode::UNAUTHORIZED,
            "unauthorized_client",
            "Missing or wrong Basic Authorization header",
        );
        set_header(&mut response, "www-authenticate", &format!("Basic realm={}", secrets.arc_file));
        return Err(response);
    }
    let (principal, resource) = wanted(azure, &request.query, &[])?;
    whole(azure, principal, resource)
}

fn cloud_shell(azure: &Azure, request: &Request, form: &[(String, String)]) -> Result<Value, Refused> {
    must_be_direct(request)?;
    let (principal, resource) = wanted(azure, form, &[])?;
    whole(azure, principal, resource)
}

/// The identity and the resource that a request names. `names` are the parameters that may choose an
/// identity; at most one of them may be there.
fn wanted<'a, 'b>(
    azure: &'a Azure,
    fields: &'b [(String, String)],
    names: &[&str],
) -> Result<(&'a Principal, &'b str), Refused> {
    let bad = |text: &str| refusal(StatusCode::BAD_REQUEST, "invalid_request", text);
    let resource = lookup(fields, "resource").filter(|text| !text.is_empty());
    let resource = resource.ok_or_else(|| bad("Required query variable 'resource' is missing"))?;
    if !is_resource(azure, resource) {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "invalid_resource",
            &format!("AADSTS500011: The resource principal named {resource} was not found in the tenant."),
        ));
    }
    let all = ["client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id"];
    let chosen: Vec<(&str, &str)> =
        all.iter().filter_map(|name| lookup(fields, name).map(|value| (*name, value))).collect();
    let identities = azure.inventory.principals.iter().filter_map(|one| match &one.kind {
        PrincipalKind::ManagedIdentity { system_assigned, resource_id } => {
            Some((one, *system_assigned, resource_id))
        }
        _ => None,
    });
    let mut fitting = identities.filter(|(one, system_assigned, resource_id)| match chosen.as_slice() {
        [] => *system_assigned,
        [(name, value)] if names.contains(name) => match *name {
            "client_id" => one.name.eq_ignore_ascii_case(value),
            "object_id" | "principal_id" => one.object_id.eq_ignore_ascii_case(value),
            _ => !system_assigned && resource_id.eq_ignore_ascii_case(value),
        },
        _ => false,
    });
    match fitting.next() {
        Some((principal, _, _)) => Ok((principal, resource)),
        None if chosen.len() > 1 => Err(bad("Only one of client_id, object_id and msi_res_id may be given")),
        None => Err(bad("Identity not found")),
    }
}

/// IMDS' own form: every number is a text.
fn whole(azure: &Azure, principal: &Principal, resource: &str) -> Result<Value, Refused> {
    let issued = bearer(azure, principal, &principal.name, resource, Vec::new());
    let (token, lifetime) = issued.map_err(|_| {
        refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unknown",
            "Failed to retrieve token from the Active directory.",
        )
    })?;
    let now = unix_now();
    Ok(json!({
        "access_token": token, "client_id": principal.name, "expires_in": lifetime.to_string(),
        "expires_on": (now + lifetime).to_string(), "ext_expires_in": lifetime.to_string(),
        "not_before": now.to_string(), "resource": resource, "token_type": "Bearer",
    }))
}

/// Two things keep a request forged through somebody's server out: a header, and no proxy on the way.
fn must_be_direct(request: &Request) -> Result<(), Refused> {
    let bad = |text| Err(refusal(StatusCode::BAD_REQUEST, "invalid_request", text));
    if !request.header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return bad("Required metadata header not specified");
    }
    match request.header("x-forwarded-for") {
        Some(_) => bad("Request contains forbidden header X-Forwarded-For"),
        None => Ok(()),
    }
}

/// Versions are dates, and later ones are understood too.
fn must_have_version(request: &Request, oldest: &str) -> Result<(), Refused> {
    let bad = |text: &str| Err(refusal(StatusCode::BAD_REQUEST, "invalid_request", text));
    match request.parameter("api-version") {
        None | Some("") => bad("Required query variable 'api-version' is missing"),
        Some(version) if version < oldest => bad("The api-version is not supported"),
        Some(_) => Ok(()),
    }
}

/// An answer without a token.
type Refused = Box<Response>;

fn refusal(status: StatusCode, error: &str, text: &str) -> Refused {
    Box::new(json_answer(status, &json!({"error": error, "error_description": text})))
}
