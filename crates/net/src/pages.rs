//! A few pages for monitors and probes, served over HTTP/1.1 without TLS: the one thing that is listened for here. It leaves
//! out what they say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status of the answer.
    pub status: StatusCode,
    /// The media type.
    pub kind: &'static str,
    /// The body.
    pub text: String,
}

/// Callers at once: a scraper, two probes, and whoever looks.
const CALLERS: usize = 16;

/// A request and its answer take no time at all; who takes longer has gone.
const WITHIN: Duration = Duration::from_secs(10);

/// The pause after a failed `accept`: most likely the descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers `GET` and `HEAD` with what `page` says of the path; for as long as the future is awaited.
///
/// Cancel safe: who is being answered is cut.
pub async fn serve_pages(listener: TcpListener, page: impl Fn(&str) -> Page + Send + Sync + 'static) {
    let page = Arc::new(page);
    let seats = Arc::new(Semaphore::new(CALLERS));
    let mut callers = JoinSet::new();
    loop {
        while callers.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "somebody who wanted a page was lost");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let page = Arc::clone(&page);
        callers.spawn(async move {
            let _seat = seat;
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = respond(request.method(), request.uri().path(), &*page);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(WITHIN)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // Whoever hangs up has had enough.
            drop(timeout(WITHIN, connection).await);
        });
    }
}

fn respond(method: &Method, path: &str, page: &dyn Fn(&str) -> Page) -> Response<Full<Bytes>> {
    let Page { status, kind, text } = match *method {
        Method::GET | Method::HEAD => page(path),
        _ => Page {
            status: StatusCode::METHOD_NOT_ALLOWED,
            kind: "text/plain; charset=utf-8",
            text: "only GET\n".to_owned(),
        },
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
