//! Signing in as an application with a client secret, by `azure_identity`. It leaves out certificates and
//! federated tokens.

use async_trait::async_trait;
use azure_core::credentials::TokenCredential as _;
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use bastide_core::{AccessToken, AuthError, Provider, RetryPolicy, Secret, TokenRequest};
use bastide_net::Network;

use crate::Environment;
use crate::transport::{self, Failure};

/// An application with a secret: the provider `client-secret`.
pub struct ServicePrincipal {
    network: Network,
    authority: String,
    tenant: String,
    client_id: String,
    secret: Secret,
    retry: RetryPolicy,
}

impl ServicePrincipal {
    /// An application `client_id` of `tenant`, known at `authority` ([`bastide_core::Cloud::authority`]).
    pub fn new(network: Network, authority: &str, tenant: &str, client_id: &str, secret: Secret) -> Self {
        Self {
            network,
            authority: authority.to_owned(),
            tenant: tenant.to_owned(),
            client_id: client_id.to_owned(),
            secret,
            retry: transport::default_retry(),
        }
    }

    /// The application of `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET`; `tenant` and `client_id`
    /// win over the first two.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] with what is missing.
    pub fn from_environment(
        network: Network,
        authority: &str,
        environment: &Environment,
        tenant: Option<&str>,
        client_id: Option<&str>,
    ) -> Result<Self, AuthError> {
        let tenant = tenant.or(environment.get("AZURE_TENANT_ID"));
        let client_id = client_id.or(environment.get("AZURE_CLIENT_ID"));
        match (tenant, client_id, environment.get("AZURE_CLIENT_SECRET")) {
            (Some(tenant), Some(client_id), Some(secret)) => {
                Ok(Self::new(network, authority, tenant, client_id, Secret::new(secret)))
            }
            (tenant, client_id, secret) => {
                let missing = [
                    ("AZURE_TENANT_ID", tenant.is_none()),
                    ("AZURE_CLIENT_ID", client_id.is_none()),
                    ("AZURE_CLIENT_SECRET", secret.is_none()),
                ];
                let names: Vec<_> =
                    missing.iter().filter(|(_, absent)| *absent).map(|(name, _)| *name).collect();
                Err(AuthError::Unavailable {
                    provider: NAME.into(),
                    reason: format!("without {}", names.join(", ")),
                })
            }
        }
    }

    fn refused(&self, message: String, tenant: &str) -> AuthError {
        AuthError::Refused {
            provider: NAME.into(),
            hint: crate::entra::hint(&message, Some(tenant)),
            message,
        }
    }
}

const NAME: &str = "client-secret";

#[async_trait]
impl Provider for ServicePrincipal {
    fn name(&self) -> &str {
        NAME
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let tenant = request.tenant.as_deref().unwrap_or(&self.tenant);
        // One for each request: azure_identity's own would keep tokens where `Freshness::New` cannot reach them.
        let credential = ClientSecretCredential::new(
            tenant,
            self.client_id.clone(),
            azure_core::credentials::Secret::new(self.secret.expose().to_owned()),
            Some(ClientSecretCredentialOptions {
                client_options: transport::client_options(&self.network, &self.authority, &self.retry),
            }),
        )
        // It complains of a malformed tenant or authority, in words that hold no secret.
        .map_err(|error| self.refused(error.to_string(), tenant))?;
        match credential.get_token(&[&request.scope], None).await {
            Ok(token) if !token.token.secret().is_empty() => Ok(AccessToken {
                secret: Secret::new(token.token.secret()),
                expires_on: token.expires_on.into(),
            }),
            // A page of a proxy with status 200. What it says stays out: it might be half a token.
            Ok(_) => Err(self.refused(format!("{} answered without a token", self.authority), tenant)),
            Err(error) => Err(match transport::root::<Failure>(error) {
                Some(failure) => failure.into_auth_error(NAME, Some(tenant)),
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
    use std::time::{Duration, SystemTime};

    use bastide_core::{Fault, Freshness};

    use super::*;
    use crate::test_server::{Answer, Server};

    const TOKEN: &str =
        r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"the token"}"#;
    const SCOPE: &str = "https://management.azure.com/.default";

    async fn principal(answers: Vec<Answer>) -> (ServicePrincipal, Server) {
        let server = Server::start(answers).await;
        let environment: Environment = [
            ("AZURE_TENANT_ID", "home-tenant"),
            ("AZURE_CLIENT_ID", "44444444-4444-4444-8444-444444444444"),
            ("AZURE_CLIENT_SECRET", "hunter2&=%"),
        ]
        .into_iter()
        .collect();
        let mut principal =
            ServicePrincipal::from_environment(server.network(), &server.url(), &environment, None, None)
                .unwrap();
        principal.retry.first_pause = Duration::ZERO;
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
    async fn what_is_missing_is_named() {
        let server = Server::start(Vec::new()).await;
        let environment: Environment = [("AZURE_CLIENT_ID", "c")].into_iter().collect();
        let check = |tenant, expected: &str| {
            let made = ServicePrincipal::from_environment(
                server.network(),
                &server.url(),
                &environment,
                tenant,
                None,
            );
            assert_eq!(made.err().unwrap().to_string(), expected);
        };
        check(None, "client-secret is not set up: without AZURE_TENANT_ID, AZURE_CLIENT_SECRET");
        check(Some("t"), "client-secret is not set up: without AZURE_CLIENT_SECRET");
    }
}
