//! The identity that Azure gives to a machine: virtual machines and scale sets (IMDS), App Service and Functions,
//! servers with Azure Arc, Cloud Shell. It leaves out every proxy: these addresses mean this machine, and lead to
//! another one through a proxy.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Provider, Secret, TokenRequest};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;
use url::Url;

use crate::credential::unsupported;
use crate::transport::{Exchange, Failure, request as plain_request};
use crate::{Environment, Identity, Setup, sys};

/// This machine's identity: the provider `managed-identity`.
pub struct ManagedIdentity {
    exchange: Exchange,
    host: Host,
    who: Who,
    /// The outcome of the probe, where one is made.
    found: Option<OnceCell<bool>>,
    /// Where the Arc agent's keys are. `BASTIDE_ARC_KEY_FOLDER` says so where it is not the agent's own folder, as
    /// `BASTIDE_IMDS_ENDPOINT` does for IMDS.
    arc_tokens: PathBuf,
}

/// Which of the identities of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// The system's own, or the only one.
    System,
    Client(String),
    Object(String),
    Resource(String),
}

impl Who {
    /// A client id, a resource id, or an object id behind `object:`.
    fn parse(text: Option<&str>) -> Self {
        match text {
            None => Who::System,
            Some(id) if id.starts_with('/') => Who::Resource(id.to_owned()),
            Some(id) => match id.strip_prefix("object:") {
                Some(id) => Who::Object(id.to_owned()),
                None => Who::Client(id.to_owned()),
            },
        }
    }
}

/// Who hands out tokens here.
enum Host {
    /// learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
    Imds { endpoint: String },
    /// learn.microsoft.com/azure/app-service/overview-managed-identity
    AppService { endpoint: String, header: Secret },
    /// learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication
    Arc { endpoint: String },
    /// learn.microsoft.com/azure/cloud-shell/msi-authorization
    CloudShell { endpoint: String },
}

impl Host {
    /// As the Azure SDKs tell them apart.
    fn find(environment: &Environment) -> Self {
        let get = |name: &str| environment.get(name).map(str::to_owned);
        match (get("IDENTITY_ENDPOINT"), get("IDENTITY_HEADER"), get("IMDS_ENDPOINT"), get("MSI_ENDPOINT")) {
            (Some(endpoint), Some(header), _, _) => {
                Host::AppService { endpoint, header: Secret::new(header) }
            }
            (Some(endpoint), None, Some(_), _) => Host::Arc { endpoint },
            (_, _, _, Some(endpoint)) => Host::CloudShell { endpoint },
            _ => {
                let endpoint = get("BASTIDE_IMDS_ENDPOINT").unwrap_or_else(|| IMDS.to_owned());
                Host::Imds { endpoint: endpoint.trim_end_matches('/').to_owned() }
            }
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Host::Imds { .. } => "the instance metadata service",
            Host::AppService { .. } => "App Service",
            Host::Arc { .. } => "the Azure Arc agent",
            Host::CloudShell { .. } => "Cloud Shell",
        }
    }
}

pub(crate) const NAME: &str = "managed-identity";

/// A link-local address that Azure answers on every virtual machine (protocol.md §7). `BASTIDE_IMDS_ENDPOINT` takes
/// its place.
const IMDS: &str = "http://169.254.169.254";

/// How long a machine may take to show that it has an instance metadata service, which answers in milliseconds: the
/// limit of the Azure SDKs' probe.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// The largest key file of the Arc agent that the Azure SDKs read.
const KEY_LIMIT: u64 = 4096;

impl ManagedIdentity {
    /// The identity that the environment describes. `AZURE_CLIENT_ID`, or the setup's client id, chooses one of
    /// several.
    pub fn new(setup: &Setup) -> Self {
        let client_id = setup.client_id.as_deref().or(setup.environment.get("AZURE_CLIENT_ID"));
        Self {
            exchange: Exchange::new(setup.network.without_proxy()),
            host: Host::find(&setup.environment),
            who: Who::parse(client_id),
            found: None,
            arc_tokens: match setup.environment.get("BASTIDE_ARC_KEY_FOLDER") {
                Some(folder) => folder.into(),
                None => sys::arc_tokens(&setup.environment),
            },
        }
    }

    /// The same, but whether there is an instance metadata service at all is found out first, once, within a second:
    /// elsewhere than in Azure nobody answers, which would take minutes to notice.
    #[must_use]
    pub fn probed(self) -> Self {
        Self { found: Some(OnceCell::new()), ..self }
    }

    async fn is_there(&self) -> bool {
        let (Some(found), Host::Imds { endpoint }) = (&self.found, &self.host) else { return true };
        let probe = async {
            let address = format!("{endpoint}/metadata/identity/oauth2/token");
            // Without `Metadata: true`, so that it is refused at once.
            let Ok(request) = plain_request(Method::GET, &address, &[]) else { return false };
            matches!(tokio::time::timeout(PROBE_LIMIT, self.exchange.once(request)).await, Ok(Ok(_)))
        };
        *found.get_or_init(|| probe).await
    }

    fn question(&self, resource: &str) -> Result<http::Request<Bytes>, AuthError> {
        let malformed = || refused(format!("the address of {} is none", self.host.words()));
        let who = |client: &'static str, object: &'static str, of_resource: &'static str| match &self.who {
            Who::System => None,
            Who::Client(id) => Some((client, id.clone())),
            Who::Object(id) => Some((object, id.clone())),
            Who::Resource(id) => Some((of_resource, id.clone())),
        };
        let only_one = || match &self.who {
            Who::System => Ok(()),
            _ => {
                Err(refused(format!("{} knows one identity only: leave out --client-id", self.host.words())))
            }
        };
        let get = |endpoint: &str, path: &str, version: &str, who: Option<(&str, String)>| {
            let mut url = Url::parse(&format!("{endpoint}{path}")).map_err(|_| malformed())?;
            url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", resource);
            if let Some((name, id)) = who {
                url.query_pairs_mut().append_pair(name, &id);
            }
            Ok(String::from(url))
        };
        let request = match &self.host {
            Host::Imds { endpoint } => {
                let who = who("client_id", "object_id", "msi_res_id");
                let address = get(endpoint, "/metadata/identity/oauth2/token", "2018-02-01", who)?;
                plain_request(Method::GET, &address, &[("metadata", "true")])
            }
            Host::AppService { endpoint, header } => {
                let address = get(endpoint, "", "2019-08-01", who("client_id", "principal_id", "mi_res_id"))?;
                plain_request(Method::GET, &address, &[("x-identity-header", header.expose())])
            }
            Host::Arc { endpoint } => {
                only_one()?;
                let address = get(endpoint, "", "2020-06-01", None)?;
                plain_request(Method::GET, &address, &[("metadata", "true")])
            }
            Host::CloudShell { endpoint } => {
                // Whoever sits in front of it has no other identity there.
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .append_pair("resource", resource)
                    .finish();
                let headers = [("metadata", "true"), ("content-type", "application/x-www-form-urlencoded")];
                plain_request(Method::POST, endpoint, &headers).map(|request| request.map(|_| form.into()))
            }
        };
        request.map_err(|_| malformed())
    }

    async fn answer(&self, resource: &str) -> Result<Bytes, AuthError> {
        let mut question = self.question(resource)?;
        if let Host::Arc { .. } = self.host {
            let key = self.arc_key(question.clone()).await?;
            let basic = http::HeaderValue::from_str(&format!("Basic {}", key.expose().trim_end()));
            let mut basic = basic.map_err(|_| refused("the Azure Arc agent's key is not text".into()))?;
            basic.set_sensitive(true);
            question.headers_mut().insert(http::header::AUTHORIZATION, basic);
        }
        self.exchange.send(question).await.map(http::Response::into_body).map_err(|failure| match failure {
            // What IMDS says on a machine that was given no identity.
            Failure::Refused { status: 400, message: Some(message), .. }
                if message.to_ascii_lowercase().contains("identity not found") =>
            {
                unavailable(format!("this machine has no such identity: {message}"))
            }
            failure => failure.into_auth_error(NAME, None),
        })
    }

    /// The agent answers the first question with the name of a file that only its group can read: having read it is
    /// the proof.
    async fn arc_key(&self, question: http::Request<Bytes>) -> Result<Secret, AuthError> {
        let answer = self.exchange.once(question).await;
        let answer = answer.map_err(|failure| failure.into_auth_error(NAME, None))?;
        let challenge = answer.headers().get(http::header::WWW_AUTHENTICATE);
        let realm = challenge.and_then(|value| value.to_str().ok()?.strip_prefix("Basic realm="));
        let (StatusCode::UNAUTHORIZED, Some(realm)) = (answer.status(), realm) else {
            return Err(refused("the Azure Arc agent did not ask for its key".into()));
        };
        let path = Path::new(realm.trim_matches('"'));
        // A file elsewhere would be sent to whoever has taken the agent's port.
        if path.parent() != Some(&self.arc_tokens) || path.extension().is_none_or(|end| end != "key") {
            return Err(refused("the Azure Arc agent names a key that is not its own".into()));
        }
        let read = async {
            let mut key = String::new();
            tokio::fs::File::open(path).await?.take(KEY_LIMIT).read_to_string(&mut key).await?;
            Ok::<_, std::io::Error>(Secret::new(key))
        };
        read.await.map_err(|error| AuthError::Refused {
            provider: NAME.into(),
            message: format!("{} cannot be read: {error}", path.display()),
            hint: Some(
                "the group `himds` may read it: `sudo usermod -aG himds USER`, and log in anew".into(),
            ),
        })
    }
}

impl fmt::Debug for ManagedIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ManagedIdentity").field(&self.host.words()).field(&self.who).finish()
    }
}

#[async_trait]
impl Provider for ManagedIdentity {
    fn name(&self) -> &str {
        NAME
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        unsupported(NAME, request)?;
        if !self.is_there().await {
            return Err(unavailable(format!("{} does not answer", self.host.words())));
        }
        let resource = request.scope.strip_suffix("/.default").unwrap_or(&request.scope);
        let answer = self.answer(resource).await?;
        // What it says stays out: it might be half a token.
        let strange = || refused(format!("{} answered something else than a token", self.host.words()));
        let Issued { access_token, expires_on, expires_in } =
            serde_json::from_slice(&answer).map_err(|_| strange())?;
        let on = expires_on.and_then(Seconds::number);
        let ends = on.and_then(|on| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(on)));
        let life = || SystemTime::now().checked_add(Duration::from_secs(expires_in?.number()?));
        let expires_on = ends.or_else(life).ok_or_else(strange)?;
        if access_token.is_empty() {
            return Err(strange());
        }
        // It belongs to one tenant, and its tokens can't be had from another.
        let home = Identity::of_token(&access_token).tenant;
        match (&request.tenant, home) {
            (Some(wanted), Some(home)) if !wanted.eq_ignore_ascii_case(&home) => {
                Err(AuthError::Unsupported {
                    provider: NAME.into(),
                    what: format!("a token of the tenant {wanted}: its own is {home}"),
                })
            }
            _ => Ok(AccessToken { secret: Secret::new(access_token), expires_on }),
        }
    }
}

#[derive(Deserialize)]
struct Issued {
    access_token: String,
    expires_on: Option<Seconds>,
    expires_in: Option<Seconds>,
}

/// IMDS writes numbers as text, others as numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Seconds {
    fn number(self) -> Option<u64> {
        match self {
            Seconds::Number(number) => Some(number),
            Seconds::Text(text) => text.parse().ok(),
        }
    }
}

fn unavailable(reason: String) -> AuthError {
    AuthError::Unavailable { provider: NAME.into(), reason }
}

fn refused(message: String) -> AuthError {
    AuthError::Refused {
        provider: NAME.into(),
        message,
        hint: Some("check that this machine has an identity, and which one --client-id names".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Answer, Server, setup};

    const TOKEN: &str = r#"{"access_token":"the token","client_id":"c","expires_in":"86399","expires_on":"4102444800","not_before":"1","resource":"https://management.azure.com","token_type":"Bearer"}"#;
    const SCOPE: &str = "https://management.azure.com/.default";

    async fn server(answers: Vec<Answer>) -> Server {
        Server::start(answers).await
    }

    fn identity(server: &Server, variables: &[(&str, &str)], client_id: Option<&str>) -> ManagedIdentity {
        let url = server.url();
        let mut all = vec![("BASTIDE_IMDS_ENDPOINT", url.as_str())];
        all.extend(
            variables
                .iter()
                .map(|(name, value)| (*name, if *value == "URL" { url.as_str() } else { *value })),
        );
        let setup = Setup { client_id: client_id.map(str::to_owned), ..setup(server, &all) };
        let mut identity = ManagedIdentity::new(&setup);
        identity.exchange = Exchange::hasty(server.network());
        identity
    }

    async fn sent(variables: &[(&str, &str)], client_id: Option<&str>) -> String {
        let server = server(vec![Answer::json(200, TOKEN)]).await;
        let token =
            identity(&server, variables, client_id).access_token(&TokenRequest::new(SCOPE)).await.unwrap();
        assert_eq!(token.secret.expose(), "the token");
        assert_eq!(token.expires_on, SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800));
        server.requests().remove(0)
    }

    #[tokio::test]
    async fn each_host_is_asked_as_it_documents() {
        let check = async |variables: &[(&str, &str)], client_id, line: &str, header: &str| {
            let sent = sent(variables, client_id).await;
            assert!(sent.starts_with(&format!("{line} HTTP/1.1\r\n")), "{sent}");
            assert!(sent.to_ascii_lowercase().contains(header), "{sent}");
            sent
        };
        let imds = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com";
        check(&[], None, imds, "metadata: true\r\n").await;
        check(&[("AZURE_CLIENT_ID", "c")], None, &format!("{imds}&client_id=c"), "metadata: true\r\n").await;
        check(&[("AZURE_CLIENT_ID", "c")], Some("object:o"), &format!("{imds}&object_id=o"), "").await;
        check(&[], Some("/subscriptions/s"), &format!("{imds}&msi_res_id=%2Fsubscriptions%2Fs"), "").await;
        check(
            &[("IDENTITY_ENDPOINT", "URL"), ("IDENTITY_HEADER", "hunter2")],
            Some("c"),
            "GET /?api-version=2019-08-01&resource=https%3A%2F%2Fmanagement.azure.com&client_id=c",
            "x-identity-header: hunter2\r\n",
        )
        .await;
        let sent = check(&[("MSI_ENDPOINT", "URL")], None, "POST /", "metadata: true\r\n").await;
        assert!(sent.ends_with("\r\n\r\nresource=https%3A%2F%2Fmanagement.azure.com"), "{sent}");
    }

    #[tokio::test]
    async fn arc_wants_its_key_read() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("1.key");
        std::fs::write(&key, "hunter2").unwrap();
        let arc = async |realm: &str, then: Vec<Answer>| {
            let mut answers =
                vec![Answer::json(401, "{}").header(&format!("WWW-Authenticate: Basic realm={realm}"))];
            answers.extend(then);
            let server = server(answers).await;
            let variables = [("IDENTITY_ENDPOINT", "URL"), ("IMDS_ENDPOINT", "URL")];
            let mut identity = identity(&server, &variables, None);
            identity.arc_tokens = folder.path().into();
            let outcome = identity.access_token(&TokenRequest::new(SCOPE)).await;
            (outcome, server.requests())
        };
        let (outcome, requests) = arc(&key.display().to_string(), vec![Answer::json(200, TOKEN)]).await;
        assert!(outcome.is_ok());
        assert!(requests[0].starts_with("GET /?api-version=2020-06-01&resource="), "{}", requests[0]);
        assert!(!requests[0].contains("hunter2"));
        assert!(
            requests[1].to_ascii_lowercase().contains("authorization: basic hunter2\r\n"),
            "{}",
            requests[1]
        );
        let elsewhere = tempfile::NamedTempFile::with_suffix(".key").unwrap();
        for realm in
            [elsewhere.path().display().to_string(), folder.path().join("no.txt").display().to_string()]
        {
            let (outcome, requests) = arc(&realm, Vec::new()).await;
            assert!(outcome.unwrap_err().to_string().contains("not its own"), "{realm}");
            assert_eq!(requests.len(), 1);
        }
    }

    #[tokio::test]
    async fn a_machine_without_one_is_passed_over() {
        let missing = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
        let with_imds = server(vec![Answer::json(400, "{}"), Answer::json(400, missing)]).await;
        let error = identity(&with_imds, &[], None)
            .probed()
            .access_token(&TokenRequest::new(SCOPE))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "managed-identity is not set up: this machine has no such identity: Identity not found"
        );
        assert!(!with_imds.requests()[0].to_ascii_lowercase().contains("metadata: true"), "the probe");

        let nowhere = server(Vec::new()).await;
        let laptop = identity(&nowhere, &[], None).probed();
        nowhere.stop().await;
        for _ in 0..2 {
            let error = laptop.access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "managed-identity is not set up: the instance metadata service does not answer"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_network_is_given_up_after_a_second() {
        // It accepts and never answers, as a firewall that drops everything.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = server(Vec::new()).await;
        let silent = identity(&server, &[("BASTIDE_IMDS_ENDPOINT", endpoint.as_str())], None).probed();
        let start = tokio::time::Instant::now();
        assert!(silent.access_token(&TokenRequest::new(SCOPE)).await.is_err());
        assert_eq!(start.elapsed(), PROBE_LIMIT);
    }

    #[tokio::test]
    async fn strange_answers_are_errors() {
        for body in ["{}", "<html>", r#"{"access_token":"","expires_on":"1"}"#, r#"{"access_token":"a"}"#] {
            let server = server(vec![Answer::json(200, body)]).await;
            let error =
                identity(&server, &[], None).access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
            assert!(error.to_string().contains("something else than a token"), "{body}: {error}");
        }
    }

    #[tokio::test]
    async fn what_it_cannot_give_is_said() {
        use base64::Engine as _;
        let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(r#"{"tid":"home"}"#);
        let body = format!(r#"{{"access_token":"e30.{claims}.c2ln","expires_on":4102444800}}"#);
        let server = server(vec![Answer::json(200, &body)]).await;
        let identity = identity(&server, &[], None);
        let request = TokenRequest { tenant: Some("other".into()), ..TokenRequest::new(SCOPE) };
        let error = identity.access_token(&request).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "managed-identity cannot give a token of the tenant other: its own is home"
        );
        let request = TokenRequest { claims: Some("{}".into()), ..TokenRequest::new(SCOPE) };
        let error = identity.access_token(&request).await.unwrap_err();
        assert!(matches!(error, AuthError::Unsupported { .. }), "{error}");
    }
}
