//! `azure_identity`'s way out: its HTTP client over [`bastide_net::Network`], with retries of our own, whose
//! bounds are known. It leaves out what is asked; that is `azure_identity`'s.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, StatusCode, Transport,
};
use bastide_core::{Attempt, AuthError, End, Heard, RetryPolicy, Verdict, verdict};
use bastide_net::{Network, retry_after};
use bytes::Bytes;

use crate::entra;

/// Options for a credential of `azure_identity` that signs in at `authority` over `network`.
pub(crate) fn client_options(network: &Network, authority: &str, retry: &RetryPolicy) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = authority.to_owned();
    ClientOptions {
        transport: Some(Transport::new(Arc::new(Client { network: network.clone(), retry: retry.clone() }))),
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        // Ours are below: azure_core's wait as long as any `Retry-After` says.
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}

/// How often a sick sign-in service is asked again: three tries in all, no wait above 10 s, so that all of it fits
/// into the time limit of [`crate::CacheOptions`].
pub(crate) fn default_retry() -> RetryPolicy {
    RetryPolicy { retries: 2, longest_asked: Duration::from_secs(10), ..RetryPolicy::default() }
}

/// Our error at the bottom of one of `azure_core`'s, which wraps it several times.
pub(crate) fn root<E: std::error::Error + 'static>(error: azure_core::Error) -> Option<E> {
    let mut error: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
    loop {
        error = match error.downcast::<E>() {
            Ok(found) => return Some(*found),
            Err(other) => match other.downcast::<azure_core::Error>() {
                Ok(wrapper) => wrapper.into_inner().ok()?,
                Err(other) => other.downcast::<std::io::Error>().ok()?.into_inner()?,
            },
        };
    }
}

/// Why there is no usable answer of the sign-in service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Network(bastide_net::Error),
    /// The service, or something in between, is not able to answer.
    #[error("{host} answered {status}{}", said(.message.as_deref()))]
    Sick { host: String, status: u16, message: Option<String>, retry_after: Option<Duration> },
    /// The service refuses this sign-in.
    #[error("{host} answered {status}{}", said(.message.as_deref()))]
    Refused { host: String, status: u16, message: Option<String> },
}

fn said(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(": {message}"))
}

impl Failure {
    /// As the rest of the program sees it.
    pub(crate) fn into_auth_error(self, provider: &str, tenant: Option<&str>) -> AuthError {
        let provider = provider.to_owned();
        match self {
            Failure::Network(source) => AuthError::Network { provider, source: Box::new(source) },
            Failure::Sick { retry_after, .. } => {
                AuthError::Sick { provider, message: self.to_string(), retry_after }
            }
            Failure::Refused { ref message, .. } => {
                let message = message.clone().unwrap_or_else(|| self.to_string());
                AuthError::Refused { provider, hint: entra::hint(&message, tenant), message }
            }
        }
    }
}

/// One HTTP client for `azure_core`.
struct Client {
    network: Network,
    retry: RetryPolicy,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        // `Other` is the kind that no layer above takes for something to do again.
        self.answer(request).await.map_err(|failure| azure_core::Error::new(ErrorKind::Other, failure))
    }
}

impl Client {
    async fn answer(&self, request: &Request) -> Result<AsyncRawResponse, Failure> {
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let mut number = 1;
        loop {
            let (end, failure) = match self.network.send(translated(request)?).await {
                Ok(answer) if answer.status().is_success() => {
                    let status = StatusCode::from(answer.status().as_u16());
                    return Ok(AsyncRawResponse::from_bytes(status, Headers::new(), answer.into_body()));
                }
                Ok(answer) => refusal(&host, &answer),
                // One that broke under the request. One that could not be opened was given all the time there is.
                Err(error) if !error.is_connect() && !error.is_timeout() => {
                    (Some(End::Broken(error.to_string())), Failure::Network(error))
                }
                Err(error) => (None, Failure::Network(error)),
            };
            let Some(end) = end else { return Err(failure) };
            let attempt = Attempt { number, end: &end, heard: Heard::Nothing };
            match verdict(&self.retry, attempt, rand::random()) {
                Verdict::Stop => return Err(failure),
                Verdict::Again(pause) => {
                    tracing::debug!(%failure, ?pause, "the sign-in service is asked again");
                    tokio::time::sleep(pause).await;
                    number += 1;
                }
            }
        }
    }
}

/// What an answer without a token comes to, and the end of the attempt when another may help.
fn refusal(host: &str, answer: &http::Response<Bytes>) -> (Option<End>, Failure) {
    let (host, status) = (host.to_owned(), answer.status().as_u16());
    let message = entra::message(answer.body());
    match status {
        // The token end point refuses with 400 or 401 (RFC 6749 §5.2), and with 403 behind some policies.
        400 | 401 | 403 => (None, Failure::Refused { host, status, message }),
        _ => {
            let retry_after = retry_after(answer.headers(), SystemTime::now());
            let curable = matches!(status, 429 | 500 | 502..=504);
            let end = curable.then_some(End::Refused { status, retry_after });
            (end, Failure::Sick { host, status, message, retry_after })
        }
    }
}

/// The same request in the types of `http`.
fn translated(request: &Request) -> Result<http::Request<Bytes>, Failure> {
    let mut builder = http::Request::builder().method(request.method().as_ref()).uri(request.url().as_str());
    for (name, value) in request.headers().iter() {
        builder = builder.header(name.as_str(), value.as_str());
    }
    let body = match request.body() {
        Body::Bytes(bytes) => Some(bytes.clone()),
        // No credential of azure_identity streams.
        _ => None,
    };
    let unsendable = || Failure::Sick {
        host: request.url().host_str().unwrap_or_default().to_owned(),
        status: 0,
        message: Some("the request cannot be sent".into()),
        retry_after: None,
    };
    builder.body(body.ok_or_else(unsendable)?).map_err(|_| unsendable())
}
