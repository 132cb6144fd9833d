//! The one way to ask ARM: tokens of the right tenant, retries, pages. It leaves out what is asked for; that is in
//! the files named after it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bastide_core::{Attempt, Cloud, End, Heard, Provider, RetryPolicy, TokenRequest, Verdict, verdict};
use bastide_net::{Network, Origin};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::error::WRONG_TENANT;
use crate::{Answer, Error};

/// Azure Resource Manager of one cloud, asked as one identity.
///
/// All questions are cancel safe: dropping a future leaves nothing behind. Each is repeated on 429, 500,
/// 502, 503, 504 and a broken connection, as [`Arm::with_retry`] says; once with a new token on 401, one with the
/// claims that ARM challenges for where it does; and once with a token of another tenant, when ARM says that the
/// subscription belongs there.
pub struct Arm {
    network: Network,
    cloud: Cloud,
    provider: Arc<dyn Provider>,
    retry: RetryPolicy,
    learnt: Mutex<Learnt>,
}

/// What refusals have said about the tokens that are wanted.
#[derive(Default)]
struct Learnt {
    /// Tenants that ARM named for subscriptions (lower case) whose tokens come from elsewhere by default.
    tenants: HashMap<String, String>,
    /// The claims that were challenged for last.
    claims: Option<String>,
}

impl Arm {
    /// `provider` should be cached: it is asked for a token before every request.
    pub fn new(network: Network, cloud: Cloud, provider: Arc<dyn Provider>) -> Self {
        Self { network, cloud, provider, retry: default_retry(), learnt: Mutex::default() }
    }

    /// With another policy of retries than the default: three more tries, with pauses that begin at half a second and
    /// double, and a `Retry-After` of up to 30 s obeyed. ARM's token buckets are refilled every second
    /// (learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling): who is told to wait
    /// for longer has met another limit, and should hear of it.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { retry, ..self }
    }

    /// Reads the description of the cloud whose resource manager is at `url` (protocol.md §8).
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Words`] when `url` is not `https://` or does not describe a cloud; the errors of an exchange.
    pub async fn discover(network: &Network, url: &str) -> Result<Cloud, Error> {
        let what = format!("the cloud at {url}");
        let address = Cloud::metadata_url(url)?;
        let mut tries = Tries::of(default_retry());
        loop {
            let (end, error) = match exchange(network, &what, &address, None, None).await {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    return Ok(Cloud::from_metadata(url, answer.body())?);
                }
                Ok(answer) => refusal(&what, read(&answer)),
                Err(error) => (error_end(&error), error),
            };
            tries.again(end, error).await?;
        }
    }

    /// What to ask a provider for so that ARM, and the data plane of a Bastion host in this subscription, accept the
    /// token: its tenant is the one that ARM has named, if it had to, and it carries the claims that ARM has challenged
    /// for (protocol.md §2).
    pub fn token_request(&self, subscription: &str) -> TokenRequest {
        let learnt = self.learnt();
        TokenRequest {
            tenant: learnt.tenants.get(&subscription.to_ascii_lowercase()).cloned(),
            claims: learnt.claims.clone(),
            ..TokenRequest::new(&self.cloud.arm_scope)
        }
    }

    /// The cloud that is asked.
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// The body of a 200 answer.
    pub(crate) async fn get(&self, question: &Question<'_>) -> Result<Bytes, Error> {
        self.get_at(question, &self.address(question)).await
    }

    /// The body of a 200 answer to a question that has a body itself, in JSON.
    pub(crate) async fn post(&self, question: &Question<'_>, body: &Bytes) -> Result<Bytes, Error> {
        let answer = self.ask(question, &self.address(question), Some(body), &[StatusCode::OK]).await?;
        Ok(answer.into_body())
    }

    /// The result of an action, which may be had at once or later, at an address that the answer names
    /// (learn.microsoft.com/azure/azure-resource-manager/management/async-operations).
    pub(crate) async fn act(&self, question: &Question<'_>, body: &Bytes) -> Result<Bytes, Error> {
        let accepted = [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT];
        let mut answer = self.ask(question, &self.address(question), Some(body), &accepted).await?;
        let began = Instant::now();
        let mut place = None;
        while answer.status() == StatusCode::ACCEPTED {
            let asked = bastide_net::retry_after(answer.headers(), SystemTime::now());
            let pause = asked.unwrap_or(POLL_PAUSE).max(LEAST_PAUSE);
            if began.elapsed() + pause > POLL_LIMIT {
                return Err(Error::Unfinished { what: question.what.to_owned(), limit: POLL_LIMIT });
            }
            // The place stays the same where a later answer names none.
            place = answer
                .headers()
                .get(LOCATION)
                .and_then(|place| place.to_str().ok())
                .map(str::to_owned)
                .or(place);
            let unnamed = || question.malformed("it does not say where the result will be");
            let place = place.as_deref().ok_or_else(unnamed)?;
            self.must_be_own(question, "Location", place)?;
            tokio::time::sleep(pause).await;
            answer = self.ask(question, place, None, &accepted).await?;
        }
        Ok(answer.into_body())
    }

    /// All elements of a paged list.
    pub(crate) async fn list<T: DeserializeOwned>(&self, question: &Question<'_>) -> Result<Vec<T>, Error> {
        let first = self.get(question).await?;
        self.list_from(question, &first).await
    }

    /// The elements of a paged list whose first page is there.
    pub(crate) async fn list_from<T: DeserializeOwned>(
        &self,
        question: &Question<'_>,
        first: &[u8],
    ) -> Result<Vec<T>, Error> {
        let mut page: Page<T> = question.parse(first)?;
        let mut elements = Vec::new();
        for number in 1.. {
            elements.append(&mut page.value);
            let Some(next) = page.next_link.filter(|link| !link.is_empty()) else { break };
            self.must_be_own(question, "nextLink", &next)?;
            if number == PAGE_LIMIT {
                return Err(Error::Endless { what: question.what.to_owned(), limit: PAGE_LIMIT });
            }
            page = question.parse(&self.get_at(question, &next).await?)?;
        }
        Ok(elements)
    }

    /// An address that an answer names gets the token only where it is this resource manager's.
    fn must_be_own(&self, question: &Question<'_>, named: &str, address: &str) -> Result<(), Error> {
        let there = Origin::parse(address)
            .map_err(|_| question.malformed(&format!("its {named} is not an address")))?;
        if Origin::parse(&self.cloud.arm).ok().as_ref() != Some(&there) {
            return Err(Error::ForeignPage { what: question.what.to_owned(), origin: there.to_string() });
        }
        Ok(())
    }

    fn address(&self, question: &Question<'_>) -> String {
        let path = utf8_percent_encode(question.path, PATH);
        let expand = question.expand.map_or_else(String::new, |expand| format!("&$expand={expand}"));
        format!("{}{path}?api-version={}{expand}", self.cloud.arm, question.api_version)
    }

    async fn get_at(&self, question: &Question<'_>, address: &str) -> Result<Bytes, Error> {
        Ok(self.ask(question, address, None, &[StatusCode::OK]).await?.into_body())
    }

    async fn ask(
        &self,
        question: &Question<'_>,
        address: &str,
        body: Option<&Bytes>,
        accepted: &[StatusCode],
    ) -> Result<Response<Bytes>, Error> {
        let what = question.what;
        let mut ask = self.token_request(question.subscription.unwrap_or_default());
        let (mut tries, mut renewed, mut moved) = (Tries::of(self.retry.clone()), false, false);
        let mut refused = None;
        loop {
            let token = match refused.take() {
                Some(refused) => self.provider.another_token(&ask, &refused).await,
                None => self.provider.access_token(&ask).await,
            };
            let token = token.map_err(|source| Error::SignIn { what: what.to_owned(), source })?;
            let exchanged = exchange(&self.network, what, address, Some(token.secret.expose()), body).await;
            let (end, error) = match exchanged {
                Ok(answer) if accepted.contains(&answer.status()) => return Ok(answer),
                Ok(answer) => {
                    let answer = read(&answer);
                    if answer.status == 401
                        && !moved
                        && answer.is(&[WRONG_TENANT])
                        && answer.tenant != ask.tenant
                    {
                        moved = true;
                        if let (Some(tenant), Some(subscription)) = (&answer.tenant, question.subscription) {
                            tracing::debug!(%tenant, %subscription, "the subscription belongs to another tenant");
                            self.learnt().tenants.insert(subscription.to_ascii_lowercase(), tenant.clone());
                            ask.tenant = Some(tenant.clone());
                            continue;
                        }
                    }
                    if answer.status == 401 && !renewed {
                        renewed = true;
                        // A challenge asks for another token, not for a newer one of the same kind.
                        match &answer.claims {
                            Some(claims) if ask.claims.as_ref() != Some(claims) => {
                                self.learnt().claims = Some(claims.clone());
                                ask.claims = Some(claims.clone());
                            }
                            _ => refused = Some(token.secret),
                        }
                        continue;
                    }
                    refusal(what, answer)
                }
                Err(error) => (error_end(&error), error),
            };
            tries.again(end, error).await?;
        }
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Arm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Arm").field("cloud", &self.cloud.name).finish_non_exhaustive()
    }
}

/// What is asked of ARM.
pub(crate) struct Question<'a> {
    /// Its name in messages.
    pub(crate) what: &'a str,
    /// Not yet encoded.
    pub(crate) path: &'a str,
    pub(crate) api_version: &'static str,
    /// What to include besides (`$expand`).
    pub(crate) expand: Option<&'static str>,
    /// The subscription that it is in: decides the tenant.
    pub(crate) subscription: Option<&'a str>,
}

impl Question<'_> {
    /// Reads an answer.
    pub(crate) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| self.unreadable(&error))
    }

    pub(crate) fn unreadable(&self, error: &serde_json::Error) -> Error {
        self.malformed(&error.to_string())
    }

    fn malformed(&self, reason: &str) -> Error {
        Error::Unreadable { what: self.what.to_owned(), reason: reason.to_owned() }
    }
}

/// Between two looks at a result that is not there yet, where ARM does not say, and where it says less; and how long it
/// is waited for in all: nobody has said how long the service takes for the sessions of a large host.
const POLL_PAUSE: Duration = Duration::from_secs(2);
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const POLL_LIMIT: Duration = Duration::from_secs(120);

/// A subscription has at most 980 resource groups (learn.microsoft.com, "Azure subscription limits"), and seldom more
/// than one Bastion host in each: even with ten hosts a page, more pages than this are a loop.
const PAGE_LIMIT: usize = 100;

/// RFC 3986 "unreserved", and the slashes between segments.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

fn default_retry() -> RetryPolicy {
    RetryPolicy { retries: 3, longest_asked: Duration::from_secs(30), ..RetryPolicy::default() }
}

/// The tries at one question.
struct Tries {
    policy: RetryPolicy,
    /// Of the try under way, from 1.
    number: u32,
}

impl Tries {
    fn of(policy: RetryPolicy) -> Self {
        Self { policy, number: 1 }
    }

    /// Pauses before another try; or gives the error back, when `end` says that none helps or too many were made.
    async fn again(&mut self, end: Option<End>, error: Error) -> Result<(), Error> {
        let Some(end) = end else { return Err(error) };
        let attempt = Attempt { number: self.number, end: &end, heard: Heard::Nothing };
        match verdict(&self.policy, attempt, rand::random()) {
            Verdict::Stop => Err(error),
            Verdict::Again(pause) => {
                tracing::debug!(%error, ?pause, "Azure Resource Manager is asked again");
                tokio::time::sleep(pause).await;
                self.number += 1;
                Ok(())
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    value: Vec<T>,
    next_link: Option<String>,
}

/// One request and its answer, whatever it is.
async fn exchange(
    network: &Network,
    what: &str,
    address: &str,
    token: Option<&str>,
    body: Option<&Bytes>,
) -> Result<Response<Bytes>, Error> {
    let mut request = match body {
        None => Request::get(address),
        Some(_) => Request::post(address).header(CONTENT_TYPE, "application/json"),
    };
    request = request.header(ACCEPT, "application/json");
    if let Some(token) = token {
        let value = HeaderValue::try_from(format!("Bearer {token}")).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        // The error of `http` says nothing of the token.
        request =
            request.header(AUTHORIZATION, value.map_err(|_| unsendable(what, "the token is malformed"))?);
    }
    let request = request
        .body(body.cloned().unwrap_or_default())
        .map_err(|_| unsendable(what, "its address is malformed"))?;
    network
        .send(request)
        .await
        .map_err(|source| Error::Network { what: what.to_owned(), source: Box::new(source) })
}

fn unsendable(what: &str, reason: &str) -> Error {
    Error::Unreadable { what: what.to_owned(), reason: reason.to_owned() }
}

fn read(answer: &Response<Bytes>) -> Answer {
    Answer::read(answer.status().as_u16(), answer.headers(), answer.body(), SystemTime::now())
}

/// How an attempt with another answer than 200 ended, when another may help, and its error.
fn refusal(what: &str, answer: Answer) -> (Option<End>, Error) {
    let end = matches!(answer.status, 429 | 500 | 502..=504)
        .then_some(End::Refused { status: answer.status, retry_after: answer.retry_after });
    (end, Error::refused(what, answer))
}

/// How an attempt without an answer ended, when another may help: a connection that broke under the request. One
/// that could not be opened was given all the time there is.
fn error_end(error: &Error) -> Option<End> {
    match error {
        Error::Network { source, .. } if !source.is_connect() && !source.is_timeout() => {
            Some(End::Broken(source.to_string()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bastide_core::Freshness;

    use super::*;
    use crate::script::{Asked, Reply, Script};

    const WRONG: &str = r#"{"error":{"code":"InvalidAuthenticationTokenTenant","message":"wrong issuer"}}"#;

    fn question(subscription: &str) -> Question<'_> {
        Question {
            what: "a thing",
            path: "/subscriptions/s/a thing",
            api_version: "2024-01-01",
            expand: None,
            subscription: Some(subscription),
        }
    }

    fn is_ok(asked: &[Asked], expected: &[(&str, Option<&str>, Freshness)]) {
        let asked: Vec<_> = asked
            .iter()
            .map(|ask| (ask.authorization.as_str(), ask.tenant.as_deref(), ask.freshness))
            .collect();
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn asks_with_a_token_and_an_encoded_path() {
        let script = Script::start(vec![Reply::json(200, "{}")]).await;
        assert_eq!(script.arm().get(&question("s")).await.unwrap(), "{}");
        assert_eq!(script.paths(), ["/subscriptions/s/a%20thing?api-version=2024-01-01"]);
        is_ok(&script.asked(), &[("Bearer token 1", None, Freshness::Cached)]);
    }

    #[tokio::test]
    async fn a_refused_token_is_renewed_once() {
        let script = Script::start(vec![Reply::json(401, "{}"), Reply::json(200, "{}")]).await;
        assert!(script.arm().get(&question("s")).await.is_ok());
        is_ok(
            &script.asked(),
            // The second asks what is in the cache by now: another one, so that is that.
            &[("Bearer token 1", None, Freshness::Cached), ("Bearer token 2", None, Freshness::Cached)],
        );
        let script = Script::start(vec![Reply::json(401, "{}"), Reply::json(401, "{}")]).await;
        assert!(matches!(script.arm().get(&question("s")).await, Err(Error::TokenRefused { .. })));
    }

    #[tokio::test]
    async fn a_challenge_is_answered_with_its_claims() {
        let challenge = || {
            // {"access_token":{"nbf":{"essential":true,"value":"1"}}}
            Reply::json(401, "{}").header(
                r#"WWW-Authenticate: Bearer error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxIn19fQ==""#,
            )
        };
        let answers = vec![challenge(), Reply::json(200, "{}"), challenge(), Reply::json(200, "{}")];
        let script = Script::start(answers).await;
        let arm = script.arm();
        assert!(arm.get(&question("s")).await.is_ok());
        let expected = Some(r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#.to_owned());
        // Once challenged for, they are asked for from the start, for ARM and for the data plane.
        assert_eq!(arm.token_request("s").claims, expected);
        // The same challenge again means that the token has been revoked.
        assert!(arm.get(&question("s")).await.is_ok());
        let claims: Vec<_> = script.asked().into_iter().map(|ask| ask.claims).collect();
        assert_eq!(claims, [None, expected.clone(), expected.clone(), expected]);
        let script = Script::start(vec![challenge(), challenge()]).await;
        assert!(matches!(script.arm().get(&question("s")).await, Err(Error::TokenRefused { .. })));
    }

    #[tokio::test]
    async fn the_tenant_of_a_subscription_is_learnt() {
        let elsewhere = Reply::json(401, WRONG)
            .header(r#"WWW-Authenticate: Bearer authorization_uri="https://login.windows.net/tenant-b", error="invalid_token""#);
        let script = Script::start(vec![elsewhere, Reply::json(200, "{}"), Reply::json(200, "{}")]).await;
        let arm = script.arm();
        assert_eq!(arm.token_request("S").tenant, None);
        assert!(arm.get(&question("s")).await.is_ok());
        assert_eq!(arm.token_request("S").tenant.as_deref(), Some("tenant-b"));
        assert!(arm.get(&question("s")).await.is_ok());
        is_ok(
            &script.asked(),
            &[
                ("Bearer token 1", None, Freshness::Cached),
                ("Bearer token 2", Some("tenant-b"), Freshness::Cached),
                ("Bearer token 3", Some("tenant-b"), Freshness::Cached),
            ],
        );
    }

    #[tokio::test]
    async fn a_tenant_that_is_wrong_again_is_an_error() {
        let elsewhere = |tenant: &str| {
            Reply::json(401, WRONG)
                .header(&format!(r#"WWW-Authenticate: Bearer authorization_uri="https://l/{tenant}""#))
        };
        let script = Script::start(vec![elsewhere("b"), elsewhere("c"), elsewhere("c")]).await;
        let error = script.arm().get(&question("s")).await.unwrap_err();
        assert!(matches!(error, Error::TokenRefused { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--tenant c"));
    }

    #[tokio::test]
    async fn a_sick_or_busy_service_is_asked_again() {
        for sick in [429, 500, 502, 503, 504] {
            let reply = || Reply::json(sick, "{}").header("Retry-After: 0");
            let script = Script::start(vec![reply(), reply(), reply(), Reply::json(200, "{}")]).await;
            assert!(script.arm().get(&question("s")).await.is_ok(), "{sick}");
            assert_eq!(script.paths().len(), 4);
        }
        let script = Script::start((0..9).map(|_| Reply::html(503, "<h1>Down</h1>")).collect()).await;
        let error = script.arm().get(&question("s")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "a thing: Azure Resource Manager is not able to answer: Down (status 503)"
        );
        assert_eq!(script.paths().len(), 4);
    }

    #[tokio::test]
    async fn a_long_wait_and_a_clear_no_are_taken_at_once() {
        let check = async |reply: Reply, expected: fn(&Error) -> bool| {
            let script = Script::start(vec![reply, Reply::json(200, "{}")]).await;
            let error = script.arm().get(&question("s")).await.unwrap_err();
            assert!(expected(&error), "{error}");
            assert_eq!(script.paths().len(), 1);
        };
        check(Reply::json(429, "{}").header("Retry-After: 3600"), |error| {
            error.hint().unwrap() == "try again in an hour"
        })
        .await;
        check(Reply::json(403, "{}"), |error| matches!(error, Error::Forbidden { .. })).await;
        check(Reply::json(404, "{}"), |error| matches!(error, Error::NotFound { .. })).await;
        check(Reply::json(409, "{}"), |error| matches!(error, Error::Rejected { .. })).await;
        check(Reply::json(204, ""), |error| matches!(error, Error::Rejected { .. })).await;
    }

    #[tokio::test]
    async fn a_connection_that_breaks_under_the_request_is_replaced() {
        let script = Script::start(vec![Reply::broken(), Reply::json(200, "{}")]).await;
        assert!(script.arm().get(&question("s")).await.is_ok());
        assert_eq!(script.paths().len(), 2);
    }

    #[tokio::test]
    async fn pages_are_followed_at_home_only() {
        let script = Script::start_with(|url| {
            vec![
                Reply::json(200, &format!(r#"{{"value":[1],"nextLink":"{url}/next?$skiptoken=a%3D"}}"#)),
                Reply::json(200, r#"{"value":[2,3],"nextLink":""}"#),
            ]
        })
        .await;
        assert_eq!(script.arm().list::<u8>(&question("s")).await.unwrap(), [1, 2, 3]);
        assert_eq!(script.paths()[1], "/next?$skiptoken=a%3D");

        let check = async |link: &str, expected: &str| {
            let script =
                Script::start(vec![Reply::json(200, &format!(r#"{{"value":[],"nextLink":"{link}"}}"#))])
                    .await;
            let error = script.arm().list::<u8>(&question("s")).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{link}: {error}");
            assert_eq!(script.paths().len(), 1);
        };
        check("https://management.example.com/next", "https://management.example.com").await;
        check("/next", "nextLink is not an address").await;
    }

    #[tokio::test]
    async fn pages_without_end_are_given_up() {
        let script = Script::start_with(|url| {
            (0..=PAGE_LIMIT)
                .map(|_| Reply::json(200, &format!(r#"{{"value":[],"nextLink":"{url}/again"}}"#)))
                .collect()
        })
        .await;
        assert!(matches!(script.arm().list::<u8>(&question("s")).await, Err(Error::Endless { .. })));
        assert_eq!(script.paths().len(), PAGE_LIMIT);
    }

    #[tokio::test]
    async fn what_is_no_list_is_unreadable() {
        for body in ["", "<html>", "{}", r#"{"value":7}"#, r#"{"value":["a"]}"#, r#"{"value":[1"#] {
            let script = Script::start(vec![Reply::json(200, body)]).await;
            let error = script.arm().list::<u8>(&question("s")).await.unwrap_err();
            assert!(matches!(error, Error::Unreadable { .. }), "{body}: {error}");
        }
    }

    #[tokio::test]
    async fn only_https_describes_a_cloud() {
        let script = Script::start(Vec::new()).await;
        let error = Arm::discover(&script.network(), &script.url()).await.unwrap_err();
        assert!(matches!(error, Error::Words(_)), "{error}");
    }
}
