//! The token cache: the only place that knows when a token ends. It leaves out how a token is got, and it keeps
//! nothing on disk.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Freshness, Provider, TokenRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A provider with a memory: tokens are kept per tenant and scope, and renewed before they end.
///
/// * Many callers share one request. It runs in a task of the cache, so a caller that goes away takes it from
///   nobody; it ends with the cache, or at the time limit.
/// * A caller waits only when the token at hand has less than [`CacheOptions::least_left`]; until then the
///   renewal goes on behind its back.
/// * A renewal that fails costs nothing while the old token is valid: it is handed out, and the next caller
///   tries again.
pub struct Cache {
    shared: Arc<Shared>,
    /// The tasks of the requests under way; aborted when the cache is dropped.
    tasks: Mutex<JoinSet<()>>,
}

/// How a [`Cache`] behaves.
#[derive(Clone)]
pub struct CacheOptions {
    /// A token with less than this left is renewed; one that lives shorter than twice this is renewed at half
    /// its life. Default 5 minutes, the bound of `azure_identity` and of the Azure CLI (libraries.md,
    /// az-requests.md).
    pub refresh_ahead: Duration,
    /// A token with less than this left is not handed out while a new one can be had. Default 30 s: as long as a
    /// connection may take to be set up (peers.md F31), and a mint that comes late would be refused.
    pub least_left: Duration,
    /// How long the provider may take for one request. Default 60 s: `az` on a slow machine takes some seconds,
    /// and protocol.md §4 asks for a limit.
    pub time_limit: Duration,
    /// What time it is.
    pub clock: Clock,
}

/// What time it is; tests bring their own.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            refresh_ahead: Duration::from_secs(5 * 60),
            least_left: Duration::from_secs(30),
            time_limit: Duration::from_secs(60),
            clock: Arc::new(SystemTime::now),
        }
    }
}

impl Cache {
    /// Wraps a provider.
    pub fn new(provider: Arc<dyn Provider>, options: CacheOptions) -> Self {
        let shared = Shared { provider, options, ledger: Mutex::default() };
        Self { shared: Arc::new(shared), tasks: Mutex::default() }
    }

    /// Joins the request of this kind that is under way, or starts one.
    fn flight(&self, ledger: &mut Ledger, request: &TokenRequest) -> Flight {
        // A sender that is gone without a word was a task that panicked, or whose runtime was shut down.
        if let Some(flight) = ledger.flights.get(request).filter(|flight| flight.has_changed().is_ok()) {
            return flight.clone();
        }
        let (sender, flight) = watch::channel(None);
        ledger.flights.insert(request.clone(), flight.clone());
        let (shared, request) = (Arc::clone(&self.shared), request.clone());
        let mut tasks = locked(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let outcome = shared.fetch(&request).await;
            shared.land(request, &outcome);
            sender.send_replace(Some(outcome));
        });
        flight
    }
}

#[async_trait]
impl Provider for Cache {
    fn name(&self) -> &str {
        self.shared.provider.name()
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let options = &self.shared.options;
        let now = (options.clock)();
        let (held, mut flight) = {
            let mut ledger = locked(&self.shared.ledger);
            let held = match request.freshness {
                Freshness::Cached => {
                    ledger.held.get(request).filter(|held| held.token.expires_on > now).cloned()
                }
                Freshness::New => None,
            };
            match held {
                Some(held) if held.refresh_at > now => return Ok(held.token),
                held => (held, self.flight(&mut ledger, request)),
            }
        };
        if let Some(held) = &held
            && held.token.expires_on > now + options.least_left
        {
            return Ok(held.token.clone());
        }
        let outcome = match flight.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        match (outcome, held) {
            (Some(Ok(token)), _) => Ok(token),
            (_, Some(held)) if held.token.expires_on > (options.clock)() => Ok(held.token),
            (Some(Err(error)), _) => Err(error),
            (None, _) => Err(AuthError::Refused {
                provider: self.name().to_owned(),
                message: "its sign-in ended without an answer".into(),
                hint: None,
            }),
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Cache").field(&self.name()).finish()
    }
}

/// What callers and tasks both see.
struct Shared {
    provider: Arc<dyn Provider>,
    options: CacheOptions,
    ledger: Mutex<Ledger>,
}

/// One entry per tenant and scope that somebody asked for: a handful.
#[derive(Default)]
struct Ledger {
    /// Keyed by the request for a cached token.
    held: HashMap<TokenRequest, Held>,
    /// Keyed by the request itself: who asks for a new token must not be given one that was asked for before.
    flights: HashMap<TokenRequest, Flight>,
}

#[derive(Clone)]
struct Held {
    token: AccessToken,
    refresh_at: SystemTime,
}

type Flight = watch::Receiver<Option<Outcome>>;
type Outcome = Result<AccessToken, AuthError>;

impl Shared {
    async fn fetch(&self, request: &TokenRequest) -> Outcome {
        let limit = self.options.time_limit;
        match tokio::time::timeout(limit, self.provider.access_token(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AuthError::TimedOut { provider: self.provider.name().to_owned(), after: limit }),
        }
    }

    fn land(&self, request: TokenRequest, outcome: &Outcome) {
        let now = (self.options.clock)();
        let mut ledger = locked(&self.ledger);
        ledger.flights.remove(&request);
        let key = TokenRequest { freshness: Freshness::Cached, ..request };
        match outcome {
            Ok(token) => {
                let life = token.expires_on.duration_since(now).unwrap_or_default();
                let refresh_at = now + life.saturating_sub(self.options.refresh_ahead).max(life / 2);
                ledger.held.insert(key, Held { token: token.clone(), refresh_at });
            }
            Err(error) if ledger.held.get(&key).is_some_and(|held| held.token.expires_on > now) => {
                tracing::warn!(%error, "the access token could not be renewed; the old one is still valid");
            }
            Err(_) => {}
        }
    }
}

/// Nothing under these locks can leave a state half changed, so a panic elsewhere does not matter here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::error::Error as _;

    use bastide_core::Secret;
    use tokio::sync::Semaphore;

    use super::*;

    /// Hands out numbered tokens, or the errors that were put in; each answer takes a permit of `gate`.
    struct Numbered {
        gate: Semaphore,
        asked: Mutex<Vec<TokenRequest>>,
        errors: Mutex<VecDeque<AuthError>>,
        clock: Arc<Mutex<SystemTime>>,
        life: Duration,
    }

    #[async_trait]
    impl Provider for Numbered {
        fn name(&self) -> &str {
            "numbered"
        }

        async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
            locked(&self.asked).push(request.clone());
            let number = locked(&self.asked).len();
            if request.scope == HANGS {
                std::future::pending::<()>().await;
            }
            self.gate.acquire().await.unwrap().forget();
            match locked(&self.errors).pop_front() {
                Some(error) => Err(error),
                None => Ok(AccessToken {
                    secret: Secret::new(format!("token {number}")),
                    expires_on: *locked(&self.clock) + self.life,
                }),
            }
        }
    }

    struct Bench {
        cache: Arc<Cache>,
        provider: Arc<Numbered>,
        clock: Arc<Mutex<SystemTime>>,
    }

    fn bench(permits: usize, life: Duration) -> Bench {
        let clock = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)));
        let provider = Arc::new(Numbered {
            gate: Semaphore::new(permits),
            asked: Mutex::default(),
            errors: Mutex::default(),
            clock: Arc::clone(&clock),
            life,
        });
        let reading = Arc::clone(&clock);
        let options = CacheOptions { clock: Arc::new(move || *locked(&reading)), ..CacheOptions::default() };
        let cache = Arc::new(Cache::new(Arc::clone(&provider) as Arc<dyn Provider>, options));
        Bench { cache, provider, clock }
    }

    impl Bench {
        async fn ask(&self, request: &TokenRequest) -> Result<String, AuthError> {
            self.cache.access_token(request).await.map(|token| token.secret.expose().to_owned())
        }

        async fn text(&self) -> String {
            self.ask(&TokenRequest::new("scope")).await.unwrap()
        }

        fn pass(&self, time: Duration) {
            *locked(&self.clock) += time;
        }

        fn asked(&self) -> usize {
            locked(&self.provider.asked).len()
        }

        fn fail_next(&self) {
            locked(&self.provider.errors).push_back(AuthError::Network {
                provider: "numbered".into(),
                source: Arc::new(std::io::Error::other("cable cut")),
            });
        }

        /// Lets the tasks of the cache run until all of them wait.
        async fn settle(&self) {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// A scope that the provider never gets a token for.
    const HANGS: &str = "hangs";

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_token_is_kept_until_five_minutes_before_its_end() {
        let bench = bench(9, HOUR);
        assert_eq!(bench.text().await, "token 1");
        bench.pass(54 * MINUTE);
        assert_eq!(bench.text().await, "token 1");
        assert_eq!(bench.asked(), 1);
        bench.pass(2 * MINUTE);
        assert_eq!(bench.text().await, "token 1", "the old one, while the new one is fetched");
        bench.settle().await;
        assert_eq!(bench.text().await, "token 2");
        assert_eq!(bench.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_about_to_end_is_waited_for() {
        let bench = bench(9, HOUR);
        assert_eq!(bench.text().await, "token 1");
        bench.pass(59 * MINUTE + Duration::from_secs(31));
        assert_eq!(bench.text().await, "token 2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_life_is_renewed_at_half_time() {
        let bench = bench(9, 4 * MINUTE);
        assert_eq!(bench.text().await, "token 1");
        bench.pass(MINUTE);
        assert_eq!((bench.text().await.as_str(), bench.asked()), ("token 1", 1));
        bench.pass(2 * MINUTE);
        assert_eq!(bench.text().await, "token 1");
        bench.settle().await;
        assert_eq!((bench.text().await.as_str(), bench.asked()), ("token 2", 2));
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_share_one_request_across_an_end() {
        let bench = bench(1, HOUR);
        assert_eq!(bench.text().await, "token 1");
        bench.pass(HOUR);
        let mut callers = JoinSet::new();
        for _ in 0..200 {
            let cache = Arc::clone(&bench.cache);
            callers.spawn(async move { cache.access_token(&TokenRequest::new("scope")).await });
        }
        bench.settle().await;
        assert_eq!((bench.asked(), callers.try_join_next().is_none()), (2, true));
        bench.provider.gate.add_permits(1);
        while let Some(token) = callers.join_next().await {
            assert_eq!(token.unwrap().unwrap().secret.expose(), "token 2");
        }
        assert_eq!(bench.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_delays_only_those_who_wait() {
        let bench = bench(1, HOUR);
        let started = tokio::time::Instant::now();
        let mut waiting = JoinSet::new();
        for _ in 0..200 {
            let cache = Arc::clone(&bench.cache);
            waiting.spawn(async move { cache.access_token(&TokenRequest::new(HANGS)).await });
        }
        bench.settle().await;
        // Who wants something else has it, and who has a token that is good for a while keeps it.
        assert_eq!(bench.text().await, "token 2");
        bench.pass(56 * MINUTE);
        for _ in 0..200 {
            assert_eq!(bench.text().await, "token 2");
        }
        assert_eq!((started.elapsed(), waiting.try_join_next().is_none()), (Duration::ZERO, true));
        // For the others the limit of one request is the limit of them all.
        while let Some(outcome) = waiting.join_next().await {
            assert!(matches!(outcome.unwrap(), Err(AuthError::TimedOut { .. })));
        }
        assert_eq!(started.elapsed(), MINUTE);
        assert_eq!(locked(&bench.provider.asked).iter().filter(|ask| ask.scope == HANGS).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_takes_it_from_nobody() {
        let bench = bench(0, HOUR);
        let cache = Arc::clone(&bench.cache);
        let first =
            tokio::spawn(async move { cache.access_token(&TokenRequest::new("scope")).await.is_ok() });
        bench.settle().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        bench.provider.gate.add_permits(1);
        assert_eq!((bench.text().await.as_str(), bench.asked()), ("token 1", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_and_scopes_are_kept_apart() {
        let bench = bench(9, HOUR);
        let other_tenant = TokenRequest { tenant: Some("t".into()), ..TokenRequest::new("scope") };
        assert_eq!(bench.text().await, "token 1");
        assert_eq!(bench.ask(&other_tenant).await.unwrap(), "token 2");
        assert_eq!(bench.ask(&TokenRequest::new("other")).await.unwrap(), "token 3");
        assert_eq!(bench.text().await, "token 1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_is_new_once_and_then_kept() {
        let bench = bench(9, HOUR);
        let new = TokenRequest { freshness: Freshness::New, ..TokenRequest::new("scope") };
        assert_eq!(bench.text().await, "token 1");
        let (one, two) = tokio::join!(bench.ask(&new), bench.ask(&new));
        assert_eq!((one.unwrap().as_str(), two.unwrap().as_str()), ("token 2", "token 2"));
        assert_eq!(bench.text().await, "token 2");
        assert_eq!(locked(&bench.provider.asked).last().unwrap().freshness, Freshness::New);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_leaves_the_old_token() {
        let bench = bench(9, HOUR);
        assert_eq!(bench.text().await, "token 1");
        bench.pass(59 * MINUTE + Duration::from_secs(45));
        bench.fail_next();
        assert_eq!(bench.text().await, "token 1");
        bench.pass(MINUTE);
        bench.fail_next();
        let error = bench.ask(&TokenRequest::new("scope")).await.unwrap_err();
        assert_eq!(error.to_string(), "numbered cannot reach the sign-in service");
        assert_eq!(error.source().unwrap().to_string(), "cable cut");
        assert_eq!(bench.text().await, "token 4", "the next caller tries again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_never_answers_is_given_up() {
        let bench = bench(0, HOUR);
        let error = bench.ask(&TokenRequest::new("scope")).await.unwrap_err();
        assert!(matches!(error, AuthError::TimedOut { after, .. } if after == MINUTE), "{error}");
        bench.provider.gate.add_permits(1);
        assert_eq!(bench.text().await, "token 2");
    }

    #[tokio::test]
    async fn a_task_that_dies_is_noticed_and_replaced() {
        let bench = bench(0, HOUR);
        let cache = Arc::clone(&bench.cache);
        let caller = tokio::spawn(async move { cache.access_token(&TokenRequest::new("scope")).await });
        bench.settle().await;
        locked(&bench.cache.tasks).abort_all();
        let error = caller.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("ended without an answer"), "{error}");
        bench.provider.gate.add_permits(1);
        assert_eq!(bench.text().await, "token 2");
    }
}
