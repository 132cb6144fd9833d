//! Health and metrics over HTTP, for Kubernetes and Prometheus: `/healthz`, `/readyz`, `/metrics`. It leaves out what they
//! say (`status`).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::status::{Phase, Status, metrics};

/// What is to be told, as of now.
pub(super) type Statuses = Arc<RwLock<std::collections::BTreeMap<String, Arc<Status>>>>;

/// Callers at once: a scraper, two probes, and whoever looks.
const CALLERS: usize = 16;

/// A request and its answer take no time at all; who takes longer has gone.
const WITHIN: Duration = Duration::from_secs(10);

/// Serves for as long as the future is awaited. Cancel safe.
pub(super) async fn serve(listener: TcpListener, statuses: Statuses) {
    let seats = Arc::new(Semaphore::new(CALLERS));
    let mut callers = JoinSet::new();
    loop {
        while callers.try_join_next().is_some() {}
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a caller of the health endpoint was lost");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let statuses = Arc::clone(&statuses);
        callers.spawn(async move {
            let _seat = seat;
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), &statuses);
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

/// Where it listens: on loopback, since everybody who can connect sees the names of the tunnels.
pub(super) fn is_private(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

fn answer(method: &Method, path: &str, statuses: &Statuses) -> Response<Full<Bytes>> {
    let statuses = statuses.read().unwrap_or_else(PoisonError::into_inner).clone();
    let (status, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            let broken: Vec<&str> = statuses
                .iter()
                .filter(|(_, status)| matches!(status.phase(), Phase::Failed | Phase::Ended))
                .map(|(name, _)| name.as_str())
                .collect();
            match broken.as_slice() {
                [] => (StatusCode::OK, "ok\n".to_owned()),
                names => {
                    (StatusCode::SERVICE_UNAVAILABLE, format!("no way to the VM: {}\n", names.join(", ")))
                }
            }
        }
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, metrics(&statuses)),
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let kind = if path == "/metrics" {
        "text/plain; version=0.0.4; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
