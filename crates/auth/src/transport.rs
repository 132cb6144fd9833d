//! The way to sign-in services: exchanges over [`bastide_net::Network`] with retries whose bounds are known, and
//! the HTTP clients that `azure_identity` and `oauth2` want, made of them. It leaves out what is asked.

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
use url::form_urlencoded;

use crate::entra;

/// Options for a credential of `azure_identity` that signs in at `authority`. `fields` go into its forms besides
/// what it writes there itself: claims and the public key of an SSH certificate, of which it knows nothing.
pub(crate) fn client_options(
    exchange: &Exchange,
    authority: &str,
    fields: Vec<(&'static str, String)>,
) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = authority.to_owned();
    ClientOptions {
        transport: Some(Transport::new(Arc::new(Client { exchange: exchange.clone(), fields }))),
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        // Ours are below: azure_core's wait as long as any `Retry-After` says.
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}

/// How often a sick sign-in service is asked again: three tries in all, no wait above 10 s, so that all of it fits
/// into the time limit of [`crate::CacheOptions`].
fn default_retry() -> RetryPolicy {
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
    /// An address or a header of the user's that can't be one.
    #[error("the request cannot be sent: an address or a value in it is malformed")]
    Unsendable,
}

fn said(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(": {message}"))
}

impl Failure {
    /// As the rest of the program sees it.
    pub(crate) fn into_auth_error(self, provider: &str, tenant: Option<&str>) -> AuthError {
        let provider = provider.to_owned();
        match self {
            Failure::Network(source) => AuthError::Network { provider, source: Arc::new(source) },
            Failure::Sick { retry_after, .. } => {
                AuthError::Sick { provider, message: self.to_string(), retry_after }
            }
            Failure::Unsendable => AuthError::Refused { provider, message: self.to_string(), hint: None },
            Failure::Refused { ref message, .. } => {
                let message = message.clone().unwrap_or_else(|| self.to_string());
                AuthError::Refused { hint: entra::hint(&message, &provider, tenant), provider, message }
            }
        }
    }
}

/// Requests with their retries.
#[derive(Clone)]
pub(crate) struct Exchange {
    network: Network,
    retry: RetryPolicy,
}

impl Exchange {
    /// Over `network`, three tries in all.
    pub(crate) fn new(network: Network) -> Self {
        Self { network, retry: default_retry() }
    }

    /// The same without pauses, for tests.
    #[cfg(test)]
    pub(crate) fn hasty(network: Network) -> Self {
        Self { network, retry: RetryPolicy { first_pause: Duration::ZERO, ..default_retry() } }
    }

    /// The answer, where it is a success. A sick service is asked again.
    pub(crate) async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Failure> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let mut number = 1;
        loop {
            let (end, failure) = match self.network.send(request.clone()).await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
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

    /// The answer, whatever it is, asked for once.
    pub(crate) async fn once(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Failure> {
        self.network.send(request).await.map_err(Failure::Network)
    }
}

/// What an answer without a token comes to, and the end of the attempt when another may help.
pub(crate) fn refusal(host: &str, answer: &http::Response<Bytes>) -> (Option<End>, Failure) {
    let (host, status) = (host.to_owned(), answer.status().as_u16());
    let message = entra::message(answer.body());
    match status {
        // The token end point refuses with 400 or 401 (RFC 6749 §5.2), and with 403 behind some policies.
        400 | 401 | 403 => (None, Failure::Refused { host, status, message }),
        _ => {
            let retry_after = retry_after(answer.headers(), SystemTime::now());
            let curable = is_sick(status);
            let end = curable.then_some(End::Refused { status, retry_after });
            (end, Failure::Sick { host, status, message, retry_after })
        }
    }
}

/// Whether a status says that the service can't answer now.
pub(crate) fn is_sick(status: u16) -> bool {
    matches!(status, 429 | 500 | 502..=504)
}

/// A request without a body, as the end points of managed and federated identities want it.
///
/// # Errors
/// [`Failure::Unsendable`] when the address or a header can't be.
pub(crate) fn request(
    method: http::Method,
    address: &str,
    headers: &[(&str, &str)],
) -> Result<http::Request<Bytes>, Failure> {
    let mut builder = http::Request::builder().method(method).uri(address);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Bytes::new()).map_err(|_| Failure::Unsendable)
}

/// One HTTP client for `azure_core`.
struct Client {
    exchange: Exchange,
    fields: Vec<(&'static str, String)>,
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
        let failed = |failure| azure_core::Error::new(ErrorKind::Other, failure);
        let answer = self.exchange.send(self.translated(request).map_err(failed)?).await.map_err(failed)?;
        let status = StatusCode::from(answer.status().as_u16());
        Ok(AsyncRawResponse::from_bytes(status, Headers::new(), answer.into_body()))
    }
}

impl Client {
    /// The same request in the types of `http`, with our fields at the end of its form.
    fn translated(&self, request: &Request) -> Result<http::Request<Bytes>, Failure> {
        let mut builder =
            http::Request::builder().method(request.method().as_ref()).uri(request.url().as_str());
        for (name, value) in request.headers().iter() {
            builder = builder.header(name.as_str(), value.as_str());
        }
        // No credential of azure_identity streams.
        let Body::Bytes(body) = request.body() else { return Err(Failure::Unsendable) };
        let body = match self.fields.as_slice() {
            [] => body.clone(),
            fields => {
                let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                Bytes::from([body.as_ref(), b"&", form.as_bytes()].concat())
            }
        };
        builder.body(body).map_err(|_| Failure::Unsendable)
    }
}
