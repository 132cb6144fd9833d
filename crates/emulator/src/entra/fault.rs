//! What Entra ID refuses, in its own words (learn.microsoft.com, "Microsoft Entra authentication and
//! authorization error codes"). Who refuses what is in the modules beside this one.

use hyper::StatusCode;
use serde_json::json;

use crate::azure::Azure;
use crate::http::{Response, json as json_answer};
use crate::scenario::{Outcome, Refusal, Tenant};

/// A refusal.
#[derive(Debug)]
pub(super) enum Fault {
    MissingParameter(&'static str),
    UnknownTenant(String),
    UnknownClient {
        client: String,
        tenant: String,
    },
    UnknownUser {
        upn: String,
        tenant: String,
    },
    WrongSecret(String),
    InvalidScope(String),
    UnknownResource {
        resource: String,
        tenant: String,
    },
    UnsupportedGrant(String),
    /// A parameter of an SSH certificate request that can't be used.
    BadRequest(String),
    BadClaims,
    /// A device code that is still undecided.
    Pending,
    SlowDown,
    CodeExpired,
    CodeUnknown,
    Declined(Refusal),
    /// What came of the user's sign-in.
    Outcome {
        outcome: Outcome,
        client: String,
        challenge: String,
    },
    RefreshInvalid,
    RefreshExpired,
    RefreshRevoked,
    Assertion(AssertionFault),
    Broken,
}

/// What is wrong with a client assertion.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AssertionFault {
    Malformed,
    NoMatchingKey { client: String },
    Signature,
    Expired,
    Audience,
    Subject { client: String },
    Issuer(String),
    FederatedSubject(String),
    FederatedAudience(String),
}

struct Words {
    status: StatusCode,
    error: &'static str,
    code: u32,
    text: String,
}

impl Fault {
    pub(super) fn response(&self, azure: &Azure) -> Response {
        let Words { status, error, code, text } = self.words();
        let (trace, correlation) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
        let form = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
        let timestamp = time::OffsetDateTime::now_utc().format(&form).unwrap_or_default();
        let description = format!(
            "AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"
        );
        let mut body = json!({
            "error": error, "error_description": description, "error_codes": [code], "timestamp": timestamp,
            "trace_id": trace, "correlation_id": correlation, "error_uri": format!("{}/error?code={code}", azure.url),
        });
        if let (Fault::Outcome { outcome, challenge, .. }, Some(body)) = (self, body.as_object_mut()) {
            let suberror = match outcome {
                Outcome::Mfa => "basic_action",
                Outcome::ConditionalAccess => "message_only",
                Outcome::Consent => "consent_required",
                Outcome::Disabled | Outcome::Granted => "",
            };
            if !suberror.is_empty() {
                body.insert("suberror".into(), suberror.into());
            }
            if *outcome == Outcome::Mfa {
                body.insert("claims".into(), challenge.as_str().into());
            }
        }
        json_answer(status, &body)
    }

    /// What a page says: the code and the text, without identifiers for a support desk.
    pub(super) fn sentence(&self) -> String {
        let Words { code, text, .. } = self.words();
        format!("AADSTS{code}: {text}")
    }

    fn words(&self) -> Words {
        let bad = |error, code, text: String| Words { status: StatusCode::BAD_REQUEST, error, code, text };
        let unauthorized = |code, text: &str| Words {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            code,
            text: text.to_owned(),
        };
        match self {
            Fault::MissingParameter(parameter) => bad(
                "invalid_request",
                900_144,
                format!("The request body must contain the following parameter: '{parameter}'."),
            ),
            Fault::UnknownTenant(tenant) => bad(
                "invalid_request",
                90002,
                format!(
                    "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
                ),
            ),
            Fault::UnknownClient { client, tenant } => bad(
                "unauthorized_client",
                700_016,
                format!(
                    "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."
                ),
            ),
            Fault::UnknownUser { upn, tenant } => bad(
                "invalid_grant",
                50020,
                format!(
                    "User account '{upn}' from identity provider 'emulator' does not exist in tenant '{tenant}' and cannot access the application in that tenant. The account needs to be added as an external user in the tenant first. Sign out and sign in again with a different Azure Active Directory user account."
                ),
            ),
            Fault::WrongSecret(client) => unauthorized(
                7_000_215,
                &format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."
                ),
            ),
            Fault::InvalidScope(scope) => bad(
                "invalid_scope",
                70011,
                format!(
                    "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."
                ),
            ),
            Fault::UnknownResource { resource, tenant } => bad(
                "invalid_resource",
                500_011,
                format!(
                    "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."
                ),
            ),
            Fault::UnsupportedGrant(grant) => bad(
                "unsupported_grant_type",
                70003,
                format!("The app requested an unsupported grant type '{grant}'."),
            ),
            Fault::BadRequest(what) => bad("invalid_request", 90023, format!("Invalid STS request: {what}.")),
            Fault::BadClaims => bad(
                "invalid_request",
                50148,
                "The claims parameter is not valid JSON.".into(),
            ),
            Fault::Pending => bad(
                "authorization_pending",
                70016,
                "OAuth 2.0 device flow error. Authorization is pending. Continue polling.".into(),
            ),
            Fault::SlowDown => bad(
                "slow_down",
                70016,
                "OAuth 2.0 device flow error. Authorization is pending. Poll less often.".into(),
            ),
            Fault::CodeExpired => bad(
                "expired_token",
                70020,
                "The provided value for the input parameter 'device_code' is not valid. This device code has expired.".into(),
            ),
            Fault::CodeUnknown => bad(
                "bad_verification_code",
                70018,
                "Bad verification code. User typed in the wrong code, or the device code was used before.".into(),
            ),
            Fault::Declined(refusal) => bad(
                match refusal {
                    Refusal::AuthorizationDeclined => "authorization_declined",
                    Refusal::AccessDenied => "access_denied",
                },
                65004,
                "User declined to consent to access the app.".into(),
            ),
            Fault::Outcome { outcome, client, .. } => match outcome {
                Outcome::Disabled => bad("invalid_grant", 50057, "The user account is disabled.".into()),
                Outcome::Mfa => bad(
                    "interaction_required",
                    50076,
                    format!(
                        "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '{client}'."
                    ),
                ),
                Outcome::ConditionalAccess => bad(
                    "invalid_grant",
                    53003,
                    "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.".into(),
                ),
                Outcome::Consent => bad(
                    "invalid_grant",
                    65001,
                    format!(
                        "The user or administrator has not consented to use the application with ID '{client}'. Send an interactive authorization request for this user and resource."
                    ),
                ),
                Outcome::Granted => Fault::Broken.words(),
            },
            Fault::RefreshInvalid => bad(
                "invalid_grant",
                70000,
                "The provided value for the input parameter 'refresh_token' or 'assertion' is not valid.".into(),
            ),
            Fault::RefreshExpired => bad(
                "invalid_grant",
                700_082,
                "The refresh token has expired due to inactivity. The token was inactive for 90.00:00:00.".into(),
            ),
            Fault::RefreshRevoked => bad(
                "invalid_grant",
                50173,
                "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password.".into(),
            ),
            Fault::Assertion(fault) => match fault {
                AssertionFault::Malformed => {
                    unauthorized(50027, "JWT token is invalid or malformed.")
                }
                AssertionFault::NoMatchingKey { client } => unauthorized(
                    700_027,
                    &format!(
                        "The certificate with identifier used to sign the client assertion is not registered on application '{client}'. [Reason - The key was not found.]"
                    ),
                ),
                AssertionFault::Signature => unauthorized(
                    700_027,
                    "Client assertion failed signature validation. [Reason - The key used is not the one that the assertion names.]",
                ),
                AssertionFault::Expired => {
                    unauthorized(700_024, "Client assertion is not within its valid time range.")
                }
                AssertionFault::Audience => unauthorized(
                    700_023,
                    "Client assertion audience claim does not match Realm issuer.",
                ),
                AssertionFault::Subject { client } => unauthorized(
                    700_021,
                    &format!("Client assertion application identifier doesn't match 'client_id' parameter '{client}'."),
                ),
                AssertionFault::Issuer(issuer) => unauthorized(
                    700_211,
                    &format!("No matching federated identity record found for presented assertion issuer '{issuer}'."),
                ),
                AssertionFault::FederatedSubject(subject) => unauthorized(
                    700_213,
                    &format!("No matching federated identity record found for presented assertion subject '{subject}'."),
                ),
                AssertionFault::FederatedAudience(audience) => unauthorized(
                    700_212,
                    &format!("No matching federated identity record found for presented assertion audience '{audience}'."),
                ),
            },
            Fault::Broken => Words {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                error: "server_error",
                code: 90033,
                text: "A transient error has occurred. Please try again.".into(),
            },
        }
    }
}

/// What a refusal calls a tenant.
pub(super) fn name(tenant: &Tenant) -> String {
    match tenant.display_name.is_empty() {
        true => tenant.id.clone(),
        false => tenant.display_name.clone(),
    }
}
