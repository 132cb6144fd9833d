//! Signing in as an application, by `azure_identity`: with a client secret, a certificate or a federated token. It
//! leaves out how a certificate signs ([`crate::certificate`]) and where federated tokens come from
//! ([`crate::federated`]).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::ClientMethodOptions;
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};
use bastide_core::{AccessToken, AuthError, Provider, Secret, TokenRequest};

use crate::certificate::Certificate;
use crate::federated::Source;
use crate::transport::{self, Exchange, Failure};
use crate::{Setup, entra};

/// An application of a tenant, and how it proves itself: the providers `client-secret`, `client-certificate` and
/// `workload-identity`.
pub struct ServicePrincipal {
    exchange: Exchange,
    authority: String,
    tenant: String,
    client_id: String,
    proof: Proof,
}

/// How an application proves that it is itself.
enum Proof {
    Secret(Secret),
    Certificate(Certificate),
    Federated(Source),
}

impl Proof {
    fn provider(&self) -> &'static str {
        match self {
            Proof::Secret(_) => CLIENT_SECRET,
            Proof::Certificate(_) => CLIENT_CERTIFICATE,
            Proof::Federated(_) => WORKLOAD_IDENTITY,
        }
    }
}

pub(crate) const CLIENT_SECRET: &str = "client-secret";
pub(crate) const CLIENT_CERTIFICATE: &str = "client-certificate";
pub(crate) const WORKLOAD_IDENTITY: &str = "workload-identity";

impl ServicePrincipal {
    /// With `AZURE_CLIENT_SECRET`, as the application of `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`; the setup's tenant
    /// and client id win over these two.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] with what is missing.
    pub fn with_secret(setup: &Setup) -> Result<Self, AuthError> {
        let secret = setup.environment.get("AZURE_CLIENT_SECRET");
        Self::new(setup, CLIENT_SECRET, Names::AZURE, "AZURE_CLIENT_SECRET", secret, |secret| {
            Ok(Proof::Secret(Secret::new(secret)))
        })
    }

    /// With the certificate and key of the PEM file `AZURE_CLIENT_CERTIFICATE_PATH`. The file is read here.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] with what is missing; [`AuthError::Refused`] when the file can't be used.
    pub fn with_certificate(setup: &Setup) -> Result<Self, AuthError> {
        let path = setup.environment.get("AZURE_CLIENT_CERTIFICATE_PATH");
        Self::new(setup, CLIENT_CERTIFICATE, Names::AZURE, "AZURE_CLIENT_CERTIFICATE_PATH", path, |path| {
            match Certificate::read(path.as_ref()) {
                Ok(certificate) => Ok(Proof::Certificate(certificate)),
                Err(error) => Err(AuthError::Refused {
                    provider: CLIENT_CERTIFICATE.into(),
                    message: format!("{path}: {error}"),
                    hint: Some(error.hint().into()),
                }),
            }
        })
    }

    /// With a token of another issuer: that of the file `AZURE_FEDERATED_TOKEN_FILE`, or of GitHub Actions or Azure
    /// Pipelines where this is one of their jobs.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] with what is missing.
    pub fn with_federated_token(setup: &Setup) -> Result<Self, AuthError> {
        let source = Source::find(&setup.environment, &setup.authority);
        let names = match &source {
            Some(Source::Pipelines { .. }) => Names::PIPELINES,
            _ => Names::AZURE,
        };
        Self::new(setup, WORKLOAD_IDENTITY, names, "AZURE_FEDERATED_TOKEN_FILE", source, |source| {
            Ok(Proof::Federated(source))
        })
    }

    /// `value` is what the proof is made of, from the variable `variable`.
    fn new<T>(
        setup: &Setup,
        provider: &'static str,
        names: Names,
        variable: &str,
        value: Option<T>,
        proof: impl FnOnce(T) -> Result<Proof, AuthError>,
    ) -> Result<Self, AuthError> {
        let from = |names: &[&str]| names.iter().find_map(|name| setup.environment.get(name));
        let tenant = setup.tenant.as_deref().or_else(|| from(names.tenant));
        let client_id = setup.client_id.as_deref().or_else(|| from(names.client_id));
        match (tenant, client_id, value) {
            (Some(tenant), Some(client_id), Some(value)) => Ok(Self {
                exchange: Exchange::new(setup.network.clone()),
                authority: setup.authority.clone(),
                tenant: tenant.to_owned(),
                client_id: client_id.to_owned(),
                proof: proof(value)?,
            }),
            (tenant, client_id, value) => {
                let missing = [
                    ("AZURE_TENANT_ID", tenant.is_none()),
                    ("AZURE_CLIENT_ID", client_id.is_none()),
                    (variable, value.is_none()),
                ];
                let names: Vec<_> =
                    missing.iter().filter(|(_, absent)| *absent).map(|(name, _)| *name).collect();
                Err(AuthError::Unavailable {
                    provider: provider.into(),
                    reason: format!("without {}", names.join(", ")),
                })
            }
        }
    }

    /// One for each request: azure_identity's own cache would keep tokens where `Freshness::New` cannot reach them.
    async fn credential(
        &self,
        tenant: &str,
        request: &TokenRequest,
    ) -> Result<Arc<dyn TokenCredential>, AuthError> {
        let client_options =
            transport::client_options(&self.exchange, &self.authority, entra::fields(request));
        let assertion = match &self.proof {
            Proof::Secret(secret) => {
                let secret = azure_core::credentials::Secret::new(secret.expose().to_owned());
                let options = Some(ClientSecretCredentialOptions { client_options });
                // It complains of a malformed tenant or authority, in words that hold no secret.
                let made = ClientSecretCredential::new(tenant, self.client_id.clone(), secret, options);
                return Ok(made.map_err(|error| self.refused(error.to_string(), tenant))?);
            }
            Proof::Certificate(certificate) => certificate
                .assertion(&self.authority, tenant, &self.client_id)
                .map_err(|error| self.refused(error.to_string(), tenant))?,
            Proof::Federated(source) => source.token(&self.exchange).await?,
        };
        let options = Some(ClientAssertionCredentialOptions { client_options });
        let made = ClientAssertionCredential::new(
            tenant.to_owned(),
            self.client_id.clone(),
            Assertion(assertion),
            options,
        );
        Ok(made.map_err(|error| self.refused(error.to_string(), tenant))?)
    }

    fn refused(&self, message: String, tenant: &str) -> AuthError {
        let hint = entra::hint(&message, self.name(), Some(tenant));
        AuthError::Refused { provider: self.name().into(), hint, message }
    }
}

/// The variables that name an application, the first that is set.
struct Names {
    tenant: &'static [&'static str],
    client_id: &'static [&'static str],
}

impl Names {
    const AZURE: Names = Names { tenant: &["AZURE_TENANT_ID"], client_id: &["AZURE_CLIENT_ID"] };

    /// What the tasks of Azure Pipelines set from the service connection, as `AzurePipelinesCredential` reads it.
    const PIPELINES: Names = Names {
        tenant: &["AZURESUBSCRIPTION_TENANT_ID", "AZURE_TENANT_ID"],
        client_id: &["AZURESUBSCRIPTION_CLIENT_ID", "AZURE_CLIENT_ID"],
    };
}

/// A token that has been signed already.
struct Assertion(Secret);

impl fmt::Debug for Assertion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Assertion(…)")
    }
}

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose().to_owned())
    }
}

#[async_trait]
impl Provider for ServicePrincipal {
    fn name(&self) -> &str {
        self.proof.provider()
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let tenant = request.tenant.as_deref().unwrap_or(&self.tenant);
        let credential = self.credential(tenant, request).await?;
        match credential.get_token(&[&request.scope], None).await {
            Ok(token) if !token.token.secret().is_empty() => Ok(AccessToken {
                secret: Secret::new(token.token.secret()),
                expires_on: token.expires_on.into(),
            }),
            // A page of a proxy with status 200. What it says stays out: it might be half a token.
            Ok(_) => Err(self.refused(format!("{} answered without a token", self.authority), tenant)),
            Err(error) => Err(match transport::root::<Failure>(error) {
                Some(failure) => failure.into_auth_error(self.name(), Some(tenant)),
                None => {
                    self.refused(format!("{} answered something else than a token", self.authority), tenant)
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use bastide_core::{Fault, Freshness};

    use tokio::task::JoinSet;

    use super::*;
    use crate::test_server::{Answer, Server, setup};
    use crate::{Cache, CacheOptions};

    const TOKEN: &str =
        r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"the token"}"#;
    const SCOPE: &str = "https://management.azure.com/.default";

    async fn principal(answers: Vec<Answer>) -> (ServicePrincipal, Server) {
        let server = Server::start(answers).await;
        let variables = [
            ("AZURE_TENANT_ID", "home-tenant"),
            ("AZURE_CLIENT_ID", "44444444-4444-4444-8444-444444444444"),
            ("AZURE_CLIENT_SECRET", "hunter2&=%"),
        ];
        let mut principal = ServicePrincipal::with_secret(&setup(&server, &variables)).unwrap();
        principal.exchange = Exchange::hasty(server.network());
        (principal, server)
    }

    fn everything(error: &AuthError) -> String {
        let mut text = format!("{error:?} {error} {}", error.hint());
        let mut source = error.source();
        while let Some(cause) = source {
            text += &format!(" {cause}");
            source = cause.source();
        }
        text
    }

    #[tokio::test]
    async fn asks_as_rfc_6749_has_it() {
        let (principal, server) = principal(vec![Answer::json(200, TOKEN), Answer::json(200, TOKEN)]).await;
        let token = principal.access_token(&TokenRequest::new(SCOPE)).await.unwrap();
        assert_eq!(token.secret.expose(), "the token");
        let left = token.expires_on.duration_since(SystemTime::now()).unwrap();
        assert!(left > Duration::from_secs(3000) && left <= Duration::from_secs(3599), "{left:?}");
        let other = TokenRequest {
            tenant: Some("other-tenant".into()),
            freshness: Freshness::New,
            ..TokenRequest::new(SCOPE)
        };
        principal.access_token(&other).await.unwrap();
        let requests = server.requests();
        assert!(
            requests[0].starts_with("POST /home-tenant/oauth2/v2.0/token HTTP/1.1\r\n"),
            "{}",
            requests[0]
        );
        assert!(
            requests[1].starts_with("POST /other-tenant/oauth2/v2.0/token HTTP/1.1\r\n"),
            "{}",
            requests[1]
        );
        assert!(
            requests[0].ends_with(
                "client_id=44444444-4444-4444-8444-444444444444&client_secret=hunter2%26%3D%25&\
                 grant_type=client_credentials&scope=https%3A%2F%2Fmanagement.azure.com%2F.default"
            ),
            "{}",
            requests[0]
        );
    }

    #[tokio::test]
    async fn two_hundred_callers_across_an_end_ask_once() {
        let (principal, server) = principal(vec![Answer::json(200, TOKEN), Answer::json(200, TOKEN)]).await;
        let passed = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&passed);
        let clock = move || SystemTime::now() + Duration::from_secs(clock.load(Ordering::Relaxed));
        let options = CacheOptions { clock: Arc::new(clock), ..CacheOptions::default() };
        let cache = Arc::new(Cache::new(Arc::new(principal), options));
        for asked in 1..=2 {
            let mut callers = JoinSet::new();
            for _ in 0..200 {
                let cache = Arc::clone(&cache);
                callers.spawn(async move { cache.access_token(&TokenRequest::new(SCOPE)).await });
            }
            while let Some(token) = callers.join_next().await {
                assert_eq!(token.unwrap().unwrap().secret.expose(), "the token");
            }
            assert_eq!(server.requests().len(), asked);
            // The token of the answer is good for 3,599 s.
            passed.store(3600, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_code_and_no_secret() {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: x","error_codes":[7000215]}"#;
        let (principal, server) = principal(vec![Answer::json(401, body)]).await;
        let error = principal.access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "client-secret was refused: AADSTS7000215: Invalid client secret provided."
        );
        assert!(error.hint().contains("AZURE_CLIENT_SECRET"), "{}", error.hint());
        assert!(!everything(&error).contains("hunter2"), "{error:?}");
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn a_sick_service_is_asked_three_times() {
        let sick = || Answer::html(503, "<h1>Service Unavailable</h1>").header("Retry-After: 0");
        let (principal, server) =
            principal(vec![sick(), Answer::json(429, "{}"), Answer::json(200, TOKEN)]).await;
        assert!(principal.access_token(&TokenRequest::new(SCOPE)).await.is_ok());
        assert_eq!(server.requests().len(), 3);

        let (principal, server) =
            self::principal(vec![sick(), sick(), sick(), Answer::json(200, TOKEN)]).await;
        let error = principal.access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "client-secret got no token: localhost answered 503: Service Unavailable"
        );
        assert_eq!(error.fault(), Fault::Service);
        assert_eq!(server.requests().len(), 3);
    }

    #[tokio::test]
    async fn a_wait_that_is_too_long_is_not_waited_for() {
        let (principal, server) = principal(vec![Answer::json(429, "{}").header("Retry-After: 3600")]).await;
        let error = principal.access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
        assert!(error.hint().starts_with("try again in an hour"), "{}", error.hint());
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn a_page_instead_of_a_token_is_an_error() {
        for body in [
            "<html>Welcome to Hotel WiFi</html>",
            "{}",
            r#"{"access_token":""}"#,
            "",
            r#"{"access_token":7}"#,
        ] {
            let (principal, _server) = principal(vec![Answer::html(200, body)]).await;
            let error = principal.access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
            assert!(matches!(error, AuthError::Refused { .. }), "{body}: {error}");
            assert!(error.to_string().contains("token"), "{body}: {error}");
        }
    }

    #[tokio::test]
    async fn nobody_at_the_other_end_is_a_network_error() {
        let (principal, server) = principal(Vec::new()).await;
        server.stop().await;
        let error = principal.access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
        assert!(matches!(error, AuthError::Network { .. }), "{error}");
        assert!(!everything(&error).contains("hunter2"), "{error:?}");
    }

    #[tokio::test]
    async fn a_malformed_tenant_is_refused_before_anything_is_sent() {
        let (principal, server) = principal(Vec::new()).await;
        let request = TokenRequest { tenant: Some("a/../b".into()), ..TokenRequest::new(SCOPE) };
        let error = principal.access_token(&request).await.unwrap_err();
        assert!(error.to_string().contains("invalid tenant ID"), "{error}");
        assert!(server.requests().is_empty());
    }

    #[tokio::test]
    async fn a_certificate_and_claims_are_asked_for_in_the_same_form() {
        let (principal, server) = principal(vec![Answer::json(200, TOKEN)]).await;
        let request = TokenRequest {
            claims: Some(r#"{"access_token":{}}"#.into()),
            certificate: Some(bastide_core::CertificateRequest { key: "{}".into(), key_id: "abc".into() }),
            ..TokenRequest::new("https://pas/.default")
        };
        assert!(principal.access_token(&request).await.is_ok());
        let sent = server.requests().remove(0);
        assert!(
            sent.ends_with(
                "&scope=https%3A%2F%2Fpas%2F.default&token_type=ssh-cert&req_cnf=%7B%7D&key_id=abc&\
                 claims=%7B%22access_token%22%3A%7B%7D%7D"
            ),
            "{sent}"
        );
    }

    #[tokio::test]
    async fn a_federated_token_is_read_anew_for_each_request() {
        let server = Server::start(vec![Answer::json(200, TOKEN), Answer::json(200, TOKEN)]).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let variables = [
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_FEDERATED_TOKEN_FILE", path.as_str()),
        ];
        let principal = ServicePrincipal::with_federated_token(&setup(&server, &variables)).unwrap();
        for text in ["first.jwt", "second.jwt\n"] {
            std::fs::write(file.path(), text).unwrap();
            assert!(principal.access_token(&TokenRequest::new(SCOPE)).await.is_ok());
        }
        for (sent, token) in server.requests().iter().zip(["first.jwt", "second.jwt"]) {
            let body = sent.split_once("\r\n\r\n").unwrap().1;
            assert!(body.contains(&format!("client_assertion={token}&")), "{body}");
            assert!(
                body.contains(
                    "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
                ),
                "{body}"
            );
        }
        std::fs::write(file.path(), "").unwrap();
        let error = principal.access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
        assert!(error.to_string().contains("is empty"), "{error}");
    }

    #[tokio::test]
    async fn a_certificate_signs_for_the_tenant_that_is_asked() {
        let server = Server::start(vec![Answer::json(200, TOKEN)]).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), crate::certificate::test_pem()).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let variables = [
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_CLIENT_CERTIFICATE_PATH", path.as_str()),
        ];
        let principal = ServicePrincipal::with_certificate(&setup(&server, &variables)).unwrap();
        let request = TokenRequest { tenant: Some("other".into()), ..TokenRequest::new(SCOPE) };
        assert!(principal.access_token(&request).await.is_ok());
        assert!(server.requests()[0].starts_with("POST /other/oauth2/v2.0/token "));
        std::fs::write(file.path(), "no PEM").unwrap();
        let error = ServicePrincipal::with_certificate(&setup(&server, &variables)).err().unwrap();
        assert!(matches!(error, AuthError::Refused { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let server = Server::start(Vec::new()).await;
        let check = |tenant: Option<&str>, expected: &str| {
            let setup =
                Setup { tenant: tenant.map(str::to_owned), ..setup(&server, &[("AZURE_CLIENT_ID", "c")]) };
            assert_eq!(ServicePrincipal::with_secret(&setup).err().unwrap().to_string(), expected);
        };
        check(None, "client-secret is not set up: without AZURE_TENANT_ID, AZURE_CLIENT_SECRET");
        check(Some("t"), "client-secret is not set up: without AZURE_CLIENT_SECRET");
    }
}
