//! Signing in to Azure, as the rest of the program sees it: one trait and what goes in and out of it. It
//! leaves out every way to do it; those are in `bastide-auth`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::{Fault, Secret, Wait};

/// A way to sign in to Azure.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name that `--credential` knows it by, for messages.
    fn name(&self) -> &str;

    /// An access token for what `request` asks.
    ///
    /// Cancel safe: a dropped future leaves nothing behind but, at most, a token that nobody uses.
    ///
    /// # Errors
    /// [`AuthError`], which says whether another provider may be tried.
    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError>;

    /// Another token than `refused`, which a service has answered with 401: one that somebody else has asked for
    /// meanwhile, or else a new one. So a token that is refused to many at once costs one request.
    ///
    /// Cancel safe, as [`Provider::access_token`].
    ///
    /// # Errors
    /// Those of [`Provider::access_token`].
    async fn another_token(
        &self,
        request: &TokenRequest,
        refused: &Secret,
    ) -> Result<AccessToken, AuthError> {
        let cached = TokenRequest { freshness: Freshness::Cached, ..request.clone() };
        match self.access_token(&cached).await? {
            token if token.secret != *refused => Ok(token),
            _ => self.access_token(&TokenRequest { freshness: Freshness::New, ..cached }).await,
        }
    }
}

/// What a token has to be good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    /// The scope, such as `https://management.azure.com/.default` (protocol.md §7).
    pub scope: String,
    /// The tenant that has to issue it; `None` = the provider's own.
    pub tenant: Option<String>,
    /// Whether a token from a cache will do.
    pub freshness: Freshness,
    /// The claims that a service has demanded in its challenge (protocol.md §2), as JSON; they go into the
    /// request unchanged.
    pub claims: Option<String>,
    /// Asks for an SSH certificate in place of a bearer token: the answer's secret is then the base64 body of the
    /// certificate (protocol.md §7).
    pub certificate: Option<CertificateRequest>,
}

impl TokenRequest {
    /// A token for this scope from the provider's own tenant, cached or not.
    pub fn new(scope: impl Into<String>) -> Self {
        Self {
            scope: scope.into(),
            tenant: None,
            freshness: Freshness::Cached,
            claims: None,
            certificate: None,
        }
    }
}

/// The public key that an SSH certificate is asked for, in the words of the request (protocol.md §7).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateRequest {
    /// `req_cnf`: the key as JSON Web Key.
    pub key: String,
    /// `key_id`: the key's fingerprint.
    pub key_id: String,
}

/// Whether a token from a cache will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Any token that is still valid for a while.
    Cached,
    /// A new one: the service has refused the one before (401).
    New,
}

/// An access token and its end.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// The token, without `Bearer`.
    pub secret: Secret,
    /// When it stops being accepted.
    pub expires_on: SystemTime,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// This provider has nothing to sign in with: the next one may be tried.
    #[error("{provider} is not set up: {reason}")]
    Unavailable {
        /// The provider's name.
        provider: String,
        /// What is missing.
        reason: String,
    },
    /// None of several providers could sign in; each with its reason.
    #[error("not signed in to Azure: {}", tried.join("; "))]
    NotSignedIn {
        /// What was tried, in order, and why it was passed over.
        tried: Vec<String>,
    },
    /// Entra ID, or the tool that was asked, said no.
    #[error("{provider} was refused: {message}")]
    Refused {
        /// The provider's name.
        provider: String,
        /// What was said, with its `AADSTS` code.
        message: String,
        /// What to do next, where that is known.
        hint: Option<String>,
    },
    /// This provider can't give what is asked for.
    #[error("{provider} cannot give {what}")]
    Unsupported {
        /// The provider's name.
        provider: String,
        /// What was asked for.
        what: String,
    },
    /// What was kept of an earlier sign-in can't be read, written or removed.
    #[error("the sign-in kept in {place} cannot be used")]
    Store {
        /// A file, or the keyring.
        place: String,
        /// Why not.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The way to Entra ID is broken.
    #[error("{provider} cannot reach the sign-in service")]
    Network {
        /// The provider's name.
        provider: String,
        /// What broke.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The sign-in service, or something in between, is not able to answer.
    #[error("{provider} got no token: {message}")]
    Sick {
        /// The provider's name.
        provider: String,
        /// What was said, and by whom.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// A plugin cannot be loaded, breaks its contract, or says that it failed.
    #[error("plugin '{plugin}': {message}")]
    Plugin {
        /// Its name in the configuration.
        plugin: String,
        /// What failed.
        message: String,
        /// What to do next, where that is known.
        hint: Option<String>,
        /// Whose fault it is.
        fault: Fault,
    },
    /// No answer in time.
    #[error("{provider} gave no answer within {} s", after.as_secs())]
    TimedOut {
        /// The provider's name.
        provider: String,
        /// The limit that ran out.
        after: Duration,
    },
}

impl AuthError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            AuthError::Unavailable { .. } | AuthError::NotSignedIn { .. } => {
                "sign in with `bastide login` or `az login`, or set \
                 AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET for a service principal"
                    .into()
            }
            AuthError::Refused { hint: Some(hint), .. } => hint.clone(),
            AuthError::Refused { .. } => {
                "check tenant, client id and secret; `bastide login` signs in anew".into()
            }
            AuthError::Plugin { hint: Some(hint), .. } => hint.clone(),
            AuthError::Plugin { plugin, .. } => {
                format!("check [plugins.{plugin}] of the configuration; -vv shows what the plugin says")
            }
            AuthError::Unsupported { .. } => {
                "sign in with `bastide login`, or as a service principal, and name that with --credential"
                    .into()
            }
            AuthError::Store { .. } => {
                "check who may read and write it, or do without by --no-cache; `bastide login` signs in anew"
                    .into()
            }
            AuthError::Network { .. } => {
                "check the network, --proxy and --ca-bundle; the sign-in service must be reachable over HTTPS"
                    .into()
            }
            AuthError::Sick { retry_after: Some(wait), .. } => {
                format!("try again in {}; https://status.azure.com shows known faults", Wait(*wait))
            }
            AuthError::Sick { .. } => "try again; https://status.azure.com shows known faults".into(),
            AuthError::TimedOut { .. } => {
                "try again; if the Azure CLI hangs, `az account get-access-token` shows \
                 why"
                .into()
            }
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            AuthError::Network { .. } => Fault::Network,
            AuthError::Sick { .. } => Fault::Service,
            AuthError::Plugin { fault, .. } => *fault,
            AuthError::Unavailable { .. }
            | AuthError::NotSignedIn { .. }
            | AuthError::Refused { .. }
            | AuthError::Unsupported { .. }
            | AuthError::Store { .. }
            | AuthError::TimedOut { .. } => Fault::SignIn,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Has one token in its cache and another for who wants a new one.
    struct Two(Mutex<Vec<Freshness>>);

    #[async_trait]
    impl Provider for Two {
        fn name(&self) -> &str {
            "two"
        }

        async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
            self.0.lock().unwrap().push(request.freshness);
            let secret = Secret::new(match request.freshness {
                Freshness::Cached => "cached",
                Freshness::New => "new",
            });
            Ok(AccessToken { secret, expires_on: SystemTime::UNIX_EPOCH })
        }
    }

    #[test]
    fn another_token_is_a_new_one_only_if_need_be() {
        for (refused, expected, asked) in [
            ("old", "cached", vec![Freshness::Cached]),
            ("cached", "new", vec![Freshness::Cached, Freshness::New]),
        ] {
            let two = Two(Mutex::default());
            let (request, refused) = (TokenRequest::new("scope"), Secret::new(refused));
            let mut answer = pin!(two.another_token(&request, &refused));
            let Poll::Ready(token) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("nothing to wait for")
            };
            assert_eq!(token.unwrap().secret.expose(), expected);
            assert_eq!(*two.0.lock().unwrap(), asked);
        }
    }
}
