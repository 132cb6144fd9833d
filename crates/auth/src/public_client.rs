//! The grants of a person: device code (RFC 8628) and refresh token (RFC 6749 §6), by `oauth2` over our own network.
//! It leaves out where refresh tokens are kept, and who shows the code.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bastide_core::{AccessToken, AuthError, Secret, TokenRequest};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AsyncHttpClient, ClientId, DeviceAuthorizationUrl, DeviceCodeErrorResponseType, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, RefreshToken, RequestTokenError, Scope,
    StandardDeviceAuthorizationResponse, StandardRevocableToken, StandardTokenResponse, TokenResponse as _,
    TokenUrl,
};
use serde::{Deserialize, Serialize};

use crate::entra;
use crate::transport::{Exchange, Failure, is_sick};
use bastide_net::retry_after;

/// What the user has to do somewhere else, with a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCode {
    /// The page to open.
    pub url: String,
    /// What to enter there.
    pub code: String,
    /// How long the code is good for.
    pub expires_in: Duration,
}

/// Shows a code to the user. It is called once for each sign-in, and must not block.
pub trait Prompt: fmt::Debug + Send + Sync {
    /// Shows it; the sign-in goes on by itself when the user is done.
    fn show(&self, code: &DeviceCode);
}

/// An application without a secret, at one sign-in service.
pub(crate) struct PublicClient {
    exchange: Exchange,
    authority: String,
    pause: Pause,
}

/// How one waits between two questions; tests write down for how long instead.
pub(crate) type Pause = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a grant brings.
pub(crate) struct Granted {
    pub(crate) token: AccessToken,
    /// Replaces the one before.
    pub(crate) refresh_token: Option<Secret>,
    /// Who signed in, as JSON Web Token.
    pub(crate) id_token: Option<String>,
}

/// The name that `--credential` knows these grants by.
pub(crate) const NAME: &str = "device-code";

/// The application that needs no registration: the Azure CLI's own (protocol.md §7).
pub(crate) const AZURE_CLI_APPLICATION: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

/// Whoever signs in decides the tenant: their home.
pub(crate) const ANY_TENANT: &str = "organizations";

/// What makes Entra ID give a refresh token and say who signed in (OpenID Connect Core 1.0 §5.4, §11).
const OWN_SCOPES: [&str; 3] = ["offline_access", "openid", "profile"];

/// The shortest pause between two questions, where the service asks for none.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// The longest `Retry-After` that is obeyed between two questions: another question is polite by then.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A page's address that somebody may have to type; Entra's has 36 characters.
const LONGEST_URL: usize = 2048;

/// Bytes of a code that somebody has to type; Entra's has nine.
const LONGEST_CODE: usize = 64;

/// How long a code may be good for: Entra's is for 15 minutes.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

impl PublicClient {
    pub(crate) fn new(exchange: Exchange, authority: &str) -> Self {
        let pause: Pause = Arc::new(|time| Box::pin(tokio::time::sleep(time)));
        Self { exchange, authority: authority.to_owned(), pause }
    }

    #[cfg(test)]
    pub(crate) fn with_pause(self, pause: Pause) -> Self {
        Self { pause, ..self }
    }

    /// Asks for a code, shows it, and waits until the user has entered it.
    ///
    /// Cancel safe: the code is then of no use to anybody.
    pub(crate) async fn by_device_code(
        &self,
        client_id: &str,
        tenant: &str,
        request: &TokenRequest,
        prompt: &dyn Prompt,
    ) -> Result<Granted, AuthError> {
        let client = client(&self.authority, client_id, tenant)?;
        let mut ask = client.exchange_device_code().add_scopes(scopes(request));
        for (name, value) in entra::fields(request) {
            ask = ask.add_extra_param(name, value);
        }
        let details: StandardDeviceAuthorizationResponse =
            ask.request_async(&Patient(self)).await.map_err(|error| refused(error, tenant))?;
        prompt.show(&shown(&details).ok_or_else(strange)?);
        let mut ask = client.exchange_device_access_token(&details);
        for (name, value) in entra::fields(request) {
            ask = ask.add_extra_param(name, value);
        }
        let pause = |time: Duration| (self.pause)(time.max(LEAST_INTERVAL));
        // RFC 8628 §3.2: the first question comes after the first interval too.
        pause(details.interval()).await;
        let answer = ask.request_async(&Polling(self), pause, None).await;
        granted(answer.map_err(|error| not_entered(error, tenant))?)
    }

    /// Trades a refresh token for an access token.
    ///
    /// Not cancel safe: the answer may carry the only refresh token that is still good.
    pub(crate) async fn by_refresh_token(
        &self,
        client_id: &str,
        tenant: &str,
        refresh_token: &Secret,
        request: &TokenRequest,
    ) -> Result<Granted, AuthError> {
        let client = client(&self.authority, client_id, tenant)?;
        let refresh_token = RefreshToken::new(refresh_token.expose().to_owned());
        let mut ask = client.exchange_refresh_token(&refresh_token).add_scopes(scopes(request));
        for (name, value) in entra::fields(request) {
            ask = ask.add_extra_param(name, value);
        }
        let answer = ask.request_async(&Patient(self)).await;
        granted(answer.map_err(|error| refused(error, tenant))?)
    }

    /// One question whether the user is done. `oauth2` takes an error for a reason to ask less often.
    async fn poll(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answer = self.exchange.once(request.map(Bytes::from)).await?;
        let status = answer.status().as_u16();
        if is_sick(status) {
            if let Some(wait) = retry_after(answer.headers(), SystemTime::now()) {
                (self.pause)(wait.min(LONGEST_WAIT)).await;
            }
            let retry_after = retry_after(answer.headers(), SystemTime::now());
            return Err(Failure::Sick { host, status, message: None, retry_after });
        }
        vector(answer)
    }
}

/// Asks a sick service again.
struct Patient<'a>(&'a PublicClient);

impl<'c> AsyncHttpClient<'c> for Patient<'_> {
    type Error = Failure;
    type Future = BoxFuture<'c, Result<HttpResponse, Failure>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async { vector(self.0.exchange.send(request.map(Bytes::from)).await?) })
    }
}

/// Asks once: `oauth2` asks again.
struct Polling<'a>(&'a PublicClient);

impl<'c> AsyncHttpClient<'c> for Polling<'_> {
    type Error = Failure;
    type Future = BoxFuture<'c, Result<HttpResponse, Failure>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.0.poll(request))
    }
}

type Client = oauth2::Client<
    BasicErrorResponse,
    Answer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

type Answer = StandardTokenResponse<IdToken, BasicTokenType>;

#[derive(Serialize, Deserialize)]
struct IdToken {
    id_token: Option<String>,
}

impl oauth2::ExtraTokenFields for IdToken {}

impl fmt::Debug for IdToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IdToken(…)")
    }
}

fn client(authority: &str, client_id: &str, tenant: &str) -> Result<Client, AuthError> {
    let base = format!("{}/{tenant}/oauth2/v2.0", authority.trim_end_matches('/'));
    // A tenant is an id or a domain name: anything else would change the path.
    let well_formed =
        tenant.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.'));
    let malformed = || AuthError::Refused {
        provider: NAME.into(),
        message: format!("'{tenant}' is not a tenant"),
        hint: Some("a tenant is an id such as 11111111-2222-…, or a domain such as example.org".into()),
    };
    if !well_formed || tenant.is_empty() {
        return Err(malformed());
    }
    let device = DeviceAuthorizationUrl::new(format!("{base}/devicecode")).map_err(|_| malformed())?;
    let token = TokenUrl::new(format!("{base}/token")).map_err(|_| malformed())?;
    Ok(oauth2::Client::new(ClientId::new(client_id.to_owned()))
        .set_device_authorization_url(device)
        .set_token_uri(token))
}

fn scopes(request: &TokenRequest) -> impl Iterator<Item = Scope> {
    let own = OWN_SCOPES.map(|scope| Scope::new(scope.to_owned()));
    std::iter::once(Scope::new(request.scope.clone())).chain(own)
}

/// What the user sees of an answer; `None` where it is nothing that a person could act on.
fn shown(details: &StandardDeviceAuthorizationResponse) -> Option<DeviceCode> {
    // Parsed and written again: `as_str` would be what came, with all that a terminal may make of it.
    let url = details.verification_uri().url().to_string();
    let code: String = details.user_code().secret().chars().filter(|letter| !letter.is_control()).collect();
    let expires_in = details.expires_in();
    let fits = url.len() <= LONGEST_URL && (1..=LONGEST_CODE).contains(&code.len());
    let ends = expires_in <= LONGEST_LIFE && details.interval() <= LONGEST_LIFE;
    (fits && ends).then_some(DeviceCode { url, code, expires_in })
}

fn vector(answer: http::Response<Bytes>) -> Result<HttpResponse, Failure> {
    Ok(answer.map(|body| body.to_vec()))
}

fn granted(answer: Answer) -> Result<Granted, AuthError> {
    let secret = answer.access_token().secret();
    let (Some(life), false) = (answer.expires_in(), secret.is_empty()) else {
        return Err(strange());
    };
    let expires_on = SystemTime::now().checked_add(life).ok_or_else(strange)?;
    let token = AccessToken { secret: Secret::new(secret.clone()), expires_on };
    Ok(Granted {
        token,
        refresh_token: answer.refresh_token().map(|token| Secret::new(token.secret().clone())),
        id_token: answer.extra_fields().id_token.clone(),
    })
}

/// What the parser says stays out: it may quote half a token.
fn strange() -> AuthError {
    AuthError::Refused {
        provider: NAME.into(),
        message: "the sign-in service answered something else than a token".into(),
        hint: Some("check --cloud; a page of a proxy or of a hotel's network looks like this too".into()),
    }
}

fn refused(error: RequestTokenError<Failure, BasicErrorResponse>, tenant: &str) -> AuthError {
    match error {
        RequestTokenError::Request(failure) => failure.into_auth_error(NAME, named(tenant)),
        _ => strange(),
    }
}

/// The tenant that a hint may repeat.
fn named(tenant: &str) -> Option<&str> {
    Some(tenant).filter(|tenant| *tenant != ANY_TENANT)
}

fn not_entered(
    error: RequestTokenError<Failure, oauth2::DeviceCodeErrorResponse>,
    tenant: &str,
) -> AuthError {
    let refusal = |message: &str, hint: &str| AuthError::Refused {
        provider: NAME.into(),
        message: message.into(),
        hint: Some(hint.into()),
    };
    match error {
        RequestTokenError::Request(failure) => failure.into_auth_error(NAME, named(tenant)),
        RequestTokenError::ServerResponse(answer) => match answer.error() {
            DeviceCodeErrorResponseType::ExpiredToken => {
                refusal("the code was not entered in time", "run `bastide login` again for a new one")
            }
            DeviceCodeErrorResponseType::AccessDenied => declined(),
            // Entra's own name for it.
            error if error.as_ref() == "authorization_declined" => declined(),
            error => {
                let text = serde_json::json!({
                    "error": error.as_ref(), "error_description": answer.error_description()
                });
                let message =
                    entra::message(text.to_string().as_bytes()).unwrap_or_else(|| error.as_ref().to_owned());
                AuthError::Refused {
                    provider: NAME.into(),
                    hint: entra::hint(&message, NAME, named(tenant)),
                    message,
                }
            }
        },
        _ => strange(),
    }
}

fn declined() -> AuthError {
    AuthError::Refused {
        provider: NAME.into(),
        message: "the sign-in was declined on the page".into(),
        hint: Some("run `bastide login` again, and allow it there".into()),
    }
}

/// The answer to a request for a code, read as [`PublicClient::by_device_code`] reads it.
#[cfg(fuzzing)]
pub(crate) fn read_code(status: u16, body: &[u8]) -> Result<DeviceCode, AuthError> {
    let client = fuzzed()?;
    let answer = client.exchange_device_code().request(&|_| replayed(status, body));
    let details: StandardDeviceAuthorizationResponse = answer.map_err(|error| refused(error, "t"))?;
    shown(&details).ok_or_else(strange)
}

/// The answer to a refresh token, read as [`PublicClient::by_refresh_token`] reads it.
#[cfg(fuzzing)]
pub(crate) fn read_token(status: u16, body: &[u8]) -> Result<Granted, AuthError> {
    let client = fuzzed()?;
    let refresh_token = RefreshToken::new("r".into());
    let answer = client.exchange_refresh_token(&refresh_token).request(&|_| replayed(status, body));
    granted(answer.map_err(|error| refused(error, "t"))?)
}

/// A refusal of a device code, as the user is told of it.
#[cfg(fuzzing)]
pub(crate) fn read_refusal(body: &[u8]) -> AuthError {
    match serde_json::from_slice(body) {
        Ok(refusal) => not_entered(RequestTokenError::ServerResponse(refusal), "t"),
        Err(_) => strange(),
    }
}

#[cfg(fuzzing)]
fn fuzzed() -> Result<Client, AuthError> {
    client("https://localhost", "c", "t")
}

/// As [`Exchange`] hands answers on.
#[cfg(fuzzing)]
fn replayed(status: u16, body: &[u8]) -> Result<HttpResponse, Failure> {
    let answer = http::Response::builder().status(status).body(Bytes::copy_from_slice(body));
    match answer.map_err(|_| Failure::Unsendable)? {
        answer if answer.status().is_success() => vector(answer),
        answer => Err(crate::transport::refusal("localhost", &answer).1),
    }
}

#[cfg(test)]
mod tests;
