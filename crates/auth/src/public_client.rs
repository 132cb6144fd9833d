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
        let client = self.client(client_id, tenant)?;
        let mut ask = client.exchange_device_code().add_scopes(scopes(request));
        for (name, value) in entra::fields(request) {
            ask = ask.add_extra_param(name, value);
        }
        let details: StandardDeviceAuthorizationResponse =
            ask.request_async(&Patient(self)).await.map_err(|error| refused(error, tenant))?;
        prompt.show(&DeviceCode {
            url: details.verification_uri().as_str().to_owned(),
            code: details.user_code().secret().chars().filter(|letter| !letter.is_control()).collect(),
            expires_in: details.expires_in(),
        });
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
        let client = self.client(client_id, tenant)?;
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

    fn client(&self, client_id: &str, tenant: &str) -> Result<Client, AuthError> {
        let base = format!("{}/{tenant}/oauth2/v2.0", self.authority.trim_end_matches('/'));
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

fn scopes(request: &TokenRequest) -> impl Iterator<Item = Scope> {
    let own = OWN_SCOPES.map(|scope| Scope::new(scope.to_owned()));
    std::iter::once(Scope::new(request.scope.clone())).chain(own)
}

fn vector(answer: http::Response<Bytes>) -> Result<HttpResponse, Failure> {
    Ok(answer.map(|body| body.to_vec()))
}

fn granted(answer: Answer) -> Result<Granted, AuthError> {
    let secret = answer.access_token().secret();
    let (Some(life), false) = (answer.expires_in(), secret.is_empty()) else {
        return Err(strange());
    };
    let token = AccessToken { secret: Secret::new(secret.clone()), expires_on: SystemTime::now() + life };
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::test_server::{Answer, Server};

    const CODE: &str = r#"{"user_code":"ABC123","device_code":"the device","verification_uri":"https://login.example/device","expires_in":900,"interval":3,"message":"To sign in, …"}"#;
    const TOKEN: &str = r#"{"token_type":"Bearer","scope":"s","expires_in":3599,"ext_expires_in":3599,"access_token":"the token","refresh_token":"the refresh","id_token":"the id"}"#;

    #[derive(Debug, Default)]
    struct Shown(Mutex<Vec<DeviceCode>>);

    impl Prompt for Shown {
        fn show(&self, code: &DeviceCode) {
            self.0.lock().unwrap().push(code.clone());
        }
    }

    struct Bench {
        client: PublicClient,
        server: Server,
        shown: Shown,
        pauses: Arc<Mutex<Vec<u64>>>,
    }

    async fn bench(answers: Vec<Answer>) -> Bench {
        let server = Server::start(answers).await;
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&pauses);
        let pause: Pause = Arc::new(move |time: Duration| {
            log.lock().unwrap().push(time.as_secs());
            Box::pin(std::future::ready(()))
        });
        let client = PublicClient::new(Exchange::hasty(server.network()), &server.url()).with_pause(pause);
        Bench { client, server, shown: Shown::default(), pauses }
    }

    impl Bench {
        async fn sign_in(&self) -> Result<Granted, AuthError> {
            let request = TokenRequest::new("https://arm/.default");
            self.client.by_device_code("the-client", "home.example", &request, &self.shown).await
        }

        fn pauses(&self) -> Vec<u64> {
            self.pauses.lock().unwrap().clone()
        }
    }

    fn error(name: &str) -> Answer {
        Answer::json(400, &format!(r#"{{"error":"{name}","error_description":"AADSTS70016: x"}}"#))
    }

    #[tokio::test]
    async fn the_code_is_shown_and_the_token_waited_for() {
        let bench = bench(vec![
            Answer::json(200, CODE),
            error("authorization_pending"),
            error("slow_down"),
            error("authorization_pending"),
            Answer::json(200, TOKEN),
        ])
        .await;
        let granted = bench.sign_in().await.unwrap();
        assert_eq!(granted.token.secret.expose(), "the token");
        assert_eq!(granted.refresh_token.unwrap().expose(), "the refresh");
        assert_eq!(granted.id_token.as_deref(), Some("the id"));
        let expected = DeviceCode {
            url: "https://login.example/device".into(),
            code: "ABC123".into(),
            expires_in: Duration::from_secs(900),
        };
        assert_eq!(*bench.shown.0.lock().unwrap(), [expected]);
        // RFC 8628 §3.5: `slow_down` adds five seconds for good.
        assert_eq!(bench.pauses(), [3, 3, 8, 8]);
        let requests = bench.server.requests();
        assert!(requests[0].starts_with("POST /home.example/oauth2/v2.0/devicecode HTTP/1.1\r\n"));
        assert!(
            requests[0].ends_with(
                "scope=https%3A%2F%2Farm%2F.default+offline_access+openid+profile&client_id=the-client"
            ),
            "{}",
            requests[0]
        );
        assert!(requests[1].starts_with("POST /home.example/oauth2/v2.0/token HTTP/1.1\r\n"));
        assert!(
            requests[1].ends_with(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&\
                 device_code=the+device&client_id=the-client"
            ),
            "{}",
            requests[1]
        );
    }

    #[tokio::test]
    async fn a_busy_service_is_asked_less_often() {
        let bench = bench(vec![
            Answer::json(200, CODE),
            Answer::html(503, "<h1>busy</h1>"),
            Answer::json(429, "{}").header("Retry-After: 7"),
            Answer::json(200, TOKEN),
        ])
        .await;
        assert!(bench.sign_in().await.is_ok());
        assert_eq!(bench.pauses(), [3, 6, 7, 10]);
    }

    #[tokio::test]
    async fn ends_without_a_token_say_why() {
        let check = async |answer: Answer, message: &str, hint: &str| {
            let bench = bench(vec![Answer::json(200, CODE), answer]).await;
            let error = bench.sign_in().await.err().unwrap();
            assert_eq!(error.to_string(), format!("device-code was refused: {message}"));
            assert!(error.hint().contains(hint), "{}", error.hint());
        };
        check(error("expired_token"), "the code was not entered in time", "bastide login").await;
        check(error("access_denied"), "the sign-in was declined on the page", "allow it").await;
        check(error("authorization_declined"), "the sign-in was declined on the page", "allow it").await;
        check(
            Answer::json(
                400,
                r#"{"error":"invalid_grant","error_description":"AADSTS53003: Access has been blocked. Trace ID: 1"}"#,
            ),
            "AADSTS53003: Access has been blocked.",
            "conditional access",
        )
        .await;
        let strange = "the sign-in service answered something else than a token";
        check(Answer::html(200, "<html>WiFi</html>"), strange, "proxy").await;
        check(Answer::html(400, "<html>WiFi</html>"), strange, "proxy").await;
        check(Answer::json(200, "{}"), strange, "proxy").await;
    }

    #[tokio::test]
    async fn a_refresh_token_brings_a_token_and_its_successor() {
        let bench = bench(vec![Answer::json(200, TOKEN)]).await;
        let request = TokenRequest {
            certificate: Some(bastide_core::CertificateRequest {
                key: r#"{"kty":"RSA"}"#.into(),
                key_id: "abc".into(),
            }),
            ..TokenRequest::new("pas")
        };
        let old = Secret::new("old refresh");
        let granted = bench.client.by_refresh_token("c", "t", &old, &request).await.unwrap();
        assert_eq!(granted.refresh_token.unwrap().expose(), "the refresh");
        let sent = bench.server.requests().remove(0);
        assert!(
            sent.ends_with(
                "grant_type=refresh_token&refresh_token=old+refresh&scope=pas+offline_access+openid+profile&\
                 client_id=c&token_type=ssh-cert&req_cnf=%7B%22kty%22%3A%22RSA%22%7D&key_id=abc&\
                 claims=%7B%22access_token%22%3A%7B%22xms_cc%22%3A%7B%22values%22%3A%5B%22CP1%22%5D%7D%7D%7D"
            ),
            "{sent}"
        );
    }

    #[tokio::test]
    async fn a_certificate_is_a_token_of_another_type() {
        let body = r#"{"token_type":"ssh-cert","expires_in":3599,"access_token":"AAAA"}"#;
        let bench = bench(vec![Answer::json(200, body)]).await;
        let granted =
            bench.client.by_refresh_token("c", "t", &Secret::new("r"), &TokenRequest::new("pas")).await;
        assert_eq!(granted.unwrap().token.secret.expose(), "AAAA");
    }

    #[tokio::test]
    async fn a_refused_refresh_token_says_what_to_do() {
        let body = r#"{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired. Trace ID: 1","suberror":"bad_token"}"#;
        let bench = bench(vec![Answer::json(400, body)]).await;
        let secret = Secret::new("hunter2");
        let error =
            bench.client.by_refresh_token("c", "organizations", &secret, &TokenRequest::new("s")).await;
        let error = error.err().unwrap();
        assert_eq!(
            error.to_string(),
            "device-code was refused: AADSTS700082: The refresh token has expired."
        );
        assert_eq!(error.hint(), "the sign-in has expired: run `bastide login` again");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_malformed_tenant_is_refused_before_anything_is_sent() {
        let bench = bench(Vec::new()).await;
        for tenant in ["", "a/b", "a b", "ü"] {
            let made =
                bench.client.by_refresh_token("c", tenant, &Secret::new("r"), &TokenRequest::new("s")).await;
            assert!(made.err().unwrap().to_string().contains("is not a tenant"), "{tenant}");
        }
        assert!(bench.server.requests().is_empty());
    }
}
