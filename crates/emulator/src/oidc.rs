//! Issuers whose tokens a federated credential trusts: GitHub Actions, Azure Pipelines, and the service
//! accounts of a Kubernetes cluster. Programs ask the first two with a token of their job; the third one
//! leaves its token in a file. What Entra ID makes of such a token is `entra::assertion`.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::azure::{Azure, unix_now};
use crate::entra::{Error, Issuer};
use crate::http::{Answer, Request, Response, json as json_answer};
use crate::scenario::FederatedCredential;
use crate::transcript::Kind;

/// Issuer, and the subject of the tokens that it gives here.
const SUBJECTS: [(&str, &str); 3] = [
    ("github", "repo:emulator/demo:ref:refs/heads/main"),
    ("pipelines", "sc://emulator/demo/azure"),
    ("kubernetes", "system:serviceaccount:default:demo"),
];

/// Path where GitHub's job asks, its query included, as in `ACTIONS_ID_TOKEN_REQUEST_URL`.
pub(crate) const GITHUB: &str = "/oidc/github/token?api-version=2.0";
/// Path where a pipeline asks, as in `SYSTEM_OIDCREQUESTURI`.
pub(crate) const PIPELINES: &str = "/oidc/pipelines/token";
/// Id of the service connection that a pipeline has to name.
pub(crate) const SERVICE_CONNECTION: &str = "66666666-6666-4666-8666-666666666666";

/// What an application trusts when the scenario does not say.
pub(crate) fn credentials() -> Vec<FederatedCredential> {
    let credential = |(issuer, subject): (&str, &str)| FederatedCredential {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        audience: FederatedCredential::exchange(),
    };
    SUBJECTS.map(credential).into()
}

/// The `iss` that a scenario's word stands for.
pub(crate) fn issuer_url(url: &str, named: &str) -> String {
    match SUBJECTS.iter().any(|(issuer, _)| *issuer == named) {
        true => format!("{url}/oidc/{named}"),
        false => named.to_owned(),
    }
}

/// The token of a Kubernetes service account, for `AZURE_FEDERATED_TOKEN_FILE`.
pub(crate) fn service_account_token(issuer: &Issuer, url: &str) -> Result<String, Error> {
    token(issuer, url, "kubernetes", &FederatedCredential::exchange(), SERVICE_ACCOUNT_LIFE)
}

/// Seconds; the cluster would replace the file long before, the emulator does at its next start.
const SERVICE_ACCOUNT_LIFE: u64 = 24 * 3600;
/// Seconds; about what both services give.
const JOB_TOKEN_LIFE: u64 = 600;

/// Answers a request that belongs to an issuer; none when it does not.
pub(crate) fn answer(azure: &Azure, request: &Request) -> Option<Answer> {
    let lower = request.lower_segments();
    let path: Vec<&str> = lower.iter().map(String::as_str).collect();
    let ["oidc", issuer, rest @ ..] = path.as_slice() else { return None };
    let (issuer, _) = SUBJECTS.iter().find(|(known, _)| known == issuer)?;
    let base = format!("{}/oidc/{issuer}", azure.url);
    let discovery = |body: Value| Some(Answer::new(Kind::Discovery, json_answer(StatusCode::OK, &body)));
    match (&request.method, *issuer, rest) {
        (&Method::GET, _, [".well-known", "openid-configuration"]) => discovery(json!({
            "issuer": base, "jwks_uri": format!("{base}/keys"), "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
        })),
        (&Method::GET, _, ["keys"]) => discovery(azure.issuer.key_set()),
        (&Method::GET, "github", ["token"]) => Some(Answer::new(Kind::Oidc, github(azure, request))),
        (&Method::POST, "pipelines", ["token"]) => Some(Answer::new(Kind::Oidc, pipelines(azure, request))),
        _ => None,
    }
}

/// docs.github.com, "OpenID Connect reference": the audience is the client's choice.
fn github(azure: &Azure, request: &Request) -> Response {
    if !knows_the_job(azure, request) {
        return json_answer(
            StatusCode::UNAUTHORIZED,
            &json!({"message": "the request token is missing or wrong"}),
        );
    }
    let audience = request.parameter("audience").unwrap_or("https://github.com/emulator");
    match token(&azure.issuer, &azure.url, "github", audience, JOB_TOKEN_LIFE) {
        Ok(token) => {
            azure.recorder.count("github_oidc");
            json_answer(StatusCode::OK, &json!({"count": 1, "value": token}))
        }
        Err(_) => json_answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"message": "signing failed"})),
    }
}

/// learn.microsoft.com, Azure DevOps REST API, "Oidctoken - Create".
fn pipelines(azure: &Azure, request: &Request) -> Response {
    if !knows_the_job(azure, request) {
        return json_answer(
            StatusCode::UNAUTHORIZED,
            &json!({"message": "the access token is missing or wrong"}),
        );
    }
    let bad = |message: &str| json_answer(StatusCode::BAD_REQUEST, &json!({"message": message}));
    if request.parameter("api-version").is_none_or(str::is_empty) {
        return bad("No api-version was supplied for the request.");
    }
    if request.parameter("serviceConnectionId") != Some(SERVICE_CONNECTION) {
        return bad("The service connection does not exist.");
    }
    match token(&azure.issuer, &azure.url, "pipelines", &FederatedCredential::exchange(), JOB_TOKEN_LIFE) {
        Ok(token) => {
            azure.recorder.count("pipelines_oidc");
            json_answer(StatusCode::OK, &json!({"oidcToken": token}))
        }
        Err(_) => json_answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"message": "signing failed"})),
    }
}

fn knows_the_job(azure: &Azure, request: &Request) -> bool {
    let said = request.header("authorization").and_then(|value| value.split_once(' '));
    said.is_some_and(|(scheme, said)| {
        scheme.eq_ignore_ascii_case("bearer")
            && bool::from(azure.job_token.expose().as_bytes().ct_eq(said.as_bytes()))
    })
}

fn token(issuer: &Issuer, url: &str, named: &str, audience: &str, life: u64) -> Result<String, Error> {
    let subject = SUBJECTS.iter().find(|(known, _)| *known == named).map_or("", |(_, subject)| subject);
    let now = unix_now();
    issuer.sign(&json!({
        "iss": issuer_url(url, named), "sub": subject, "aud": audience, "iat": now, "nbf": now, "exp": now + life,
        "jti": uuid::Uuid::new_v4().to_string(),
    }))
}
