//! The chain of providers: the first one that is set up signs in. It leaves out which providers there are
//! ([`crate::Credential`]) and keeps no token ([`crate::Cache`]).

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Provider, TokenRequest};

/// Providers in the order in which they are tried. One that is not set up ([`AuthError::Unavailable`]) is passed
/// over; one that is set up and refused ends the search with its own error, because a user who gave a secret does
/// not want to be somebody else by accident. The first that signs in is asked from then on.
#[derive(Default)]
pub struct Chain {
    links: Vec<Link>,
    chosen: OnceLock<usize>,
}

/// A provider, or why there is none.
type Link = Result<Arc<dyn Provider>, AuthError>;

impl Chain {
    /// Appends a provider, or the reason why it could not be made.
    #[must_use]
    pub fn link<P: Provider + 'static>(self, provider: Result<P, AuthError>) -> Self {
        self.link_shared(provider.map(|provider| Arc::new(provider) as Arc<dyn Provider>))
    }

    /// The same with a provider whose type is not known.
    #[must_use]
    pub fn link_shared(mut self, provider: Result<Arc<dyn Provider>, AuthError>) -> Self {
        self.links.push(provider);
        self
    }
}

#[async_trait]
impl Provider for Chain {
    fn name(&self) -> &str {
        match self.chosen.get().and_then(|index| self.links.get(*index)) {
            Some(Ok(provider)) => provider.name(),
            _ => "auto",
        }
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        if let Some(Ok(provider)) = self.chosen.get().and_then(|index| self.links.get(*index)) {
            return provider.access_token(request).await;
        }
        let mut tried = Vec::new();
        for (index, link) in self.links.iter().enumerate() {
            let outcome = match link {
                Ok(provider) => provider.access_token(request).await,
                Err(error) => Err(error.clone()),
            };
            match outcome {
                Err(AuthError::Unavailable { provider, reason }) => {
                    tracing::info!("{provider} is passed over: {reason}");
                    tried.push(format!("{provider}: {reason}"));
                }
                Err(error) => return Err(error),
                Ok(token) => {
                    // Two callers may get here at once; the links are asked in the same order, so they agree.
                    let _ = self.chosen.set(index);
                    tracing::info!("signed in by {}", self.name());
                    return Ok(token);
                }
            }
        }
        Err(AuthError::NotSignedIn { tried })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;

    use bastide_core::Secret;

    use super::*;

    struct Scripted {
        name: &'static str,
        answer: fn(usize) -> Result<(), AuthError>,
        asked: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Provider for Scripted {
        fn name(&self) -> &str {
            self.name
        }

        async fn access_token(&self, _: &TokenRequest) -> Result<AccessToken, AuthError> {
            (self.answer)(self.asked.fetch_add(1, Ordering::Relaxed))
                .map(|()| AccessToken { secret: Secret::new(self.name), expires_on: SystemTime::UNIX_EPOCH })
        }
    }

    fn provider(
        name: &'static str,
        answer: fn(usize) -> Result<(), AuthError>,
    ) -> (Result<Scripted, AuthError>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        (Ok(Scripted { name, answer, asked: Arc::clone(&asked) }), asked)
    }

    fn absent(provider: &str) -> AuthError {
        AuthError::Unavailable { provider: provider.into(), reason: "nothing there".into() }
    }

    async fn ask(chain: &Chain) -> Result<String, AuthError> {
        chain.access_token(&TokenRequest::new("s")).await.map(|token| token.secret.expose().to_owned())
    }

    #[tokio::test]
    async fn the_first_that_is_set_up_is_asked_from_then_on() {
        let (first, first_asked) = provider("first", |_| Err(absent("first")));
        let (second, second_asked) = provider("second", |_| Ok(()));
        let (third, third_asked) = provider("third", |_| Ok(()));
        let chain =
            Chain::default().link::<Scripted>(Err(absent("zeroth"))).link(first).link(second).link(third);
        assert_eq!(chain.name(), "auto");
        for _ in 0..2 {
            assert_eq!(ask(&chain).await.unwrap(), "second");
        }
        assert_eq!(chain.name(), "second");
        let asked = [first_asked, second_asked, third_asked].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(asked, [1, 2, 0]);
    }

    #[tokio::test]
    async fn a_refusal_ends_the_search() {
        let (first, _) = provider("first", |_| {
            Err(AuthError::Refused { provider: "first".into(), message: "wrong secret".into(), hint: None })
        });
        let (second, second_asked) = provider("second", |_| Ok(()));
        let error = ask(&Chain::default().link(first).link(second)).await.unwrap_err();
        assert_eq!(error.to_string(), "first was refused: wrong secret");
        assert_eq!(second_asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn nothing_set_up_says_why_for_each() {
        let (last, _) = provider("last", |_| Err(absent("last")));
        let chain = Chain::default().link::<Scripted>(Err(absent("first"))).link(last);
        for _ in 0..2 {
            assert_eq!(
                ask(&chain).await.unwrap_err().to_string(),
                "not signed in to Azure: first: nothing there; last: nothing there"
            );
        }
    }

    #[tokio::test]
    async fn a_link_that_worked_keeps_its_own_error() {
        let (only, _) = provider("only", |asked| if asked == 0 { Ok(()) } else { Err(absent("only")) });
        let chain = Chain::default().link(only);
        assert!(ask(&chain).await.is_ok());
        assert!(matches!(ask(&chain).await, Err(AuthError::Unavailable { .. })));
    }
}
