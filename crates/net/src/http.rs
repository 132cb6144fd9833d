//! Requests and whole answers over kept-alive HTTP/1.1 connections. Pooling, and sending again what
//! never left, are hyper-util's. Leaves out redirects (the caller decides) and decompression (nothing
//! is asked for that would need it).

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tower_service::Service;

use crate::dial::{self, Dialer};
use crate::error::{self, MAX_HEAD, Step};
use crate::proxy::Proxy;
use crate::wire::Wire;
use crate::{Error, Origin};

/// The kept-alive connections of one [`Network`](crate::Network).
pub(crate) struct Pool {
    client: Client<Connector, Full<Bytes>>,
    dialer: Dialer,
    /// Owns what runs beside a request; dropped with the pool, which ends it.
    _tasks: Arc<Tasks>,
}

impl Pool {
    pub(crate) fn new(dialer: Dialer) -> Pool {
        let tasks = Arc::new(Tasks::default());
        let client = Client::builder(Executor(Arc::downgrade(&tasks)))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_title_case_headers(true)
            .http1_max_buf_size(MAX_HEAD)
            .build(Connector(dialer.clone()));
        Pool { client, dialer, _tasks: tasks }
    }

    /// Sends `request` and collects the answer. The caller sets the deadline.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        origin: &Origin,
    ) -> Result<Response<Bytes>, Error> {
        let mut request = request.map(Full::new);
        let proxy = match Proxy::forwards(origin) {
            true => self.dialer.proxy.proxy_for(origin)?,
            false => None,
        };
        if let Some(authorization) = proxy.as_ref().and_then(|proxy| proxy.authorization.as_ref()) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        let peer = origin.peer();
        let response = self.client.request(request).await.map_err(|error| from_client(&peer, &error))?;
        if let Some(proxy) = proxy
            && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        {
            return Err(dial::refusal(&proxy, peer, &response));
        }
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
            match error.downcast::<hyper::Error>() {
                Ok(error) => Error::from_hyper(&peer, Step::Answer, &error),
                Err(error) if error.is::<LengthLimitError>() => {
                    Error::TooLarge { peer: peer.clone(), limit: MAX_BODY }
                }
                Err(error) => Error::Answer { peer: peer.clone(), source: error.into() },
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// The client wraps our own error, hyper's, or one of its own.
fn from_client(peer: &str, error: &legacy::Error) -> Error {
    if let Some(ours) = error::find::<Error>(error) {
        return ours.clone();
    }
    match error::find::<hyper::Error>(error) {
        Some(error) => Error::from_hyper(peer, Step::Answer, error),
        None => {
            let source = Arc::new(io::Error::other(error.to_string()));
            Error::Io { peer: peer.to_owned(), step: Step::Answer, source }
        }
    }
}

/// Opens a connection for the pool.
#[derive(Clone)]
struct Connector(Dialer);

impl Service<Uri> for Connector {
    type Response = TokioIo<PooledWire>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.0.clone();
        Box::pin(async move {
            let origin = Origin::parse(&uri.to_string())?;
            if Proxy::forwards(&origin)
                && let Some(proxy) = dialer.proxy.proxy_for(&origin)?
            {
                let wire = dialer.dial_proxy(&proxy).await?;
                return Ok(TokioIo::new(PooledWire { wire, leads_to: LeadsTo::Proxy }));
            }
            let wire = dialer.dial(&origin).await?;
            Ok(TokioIo::new(PooledWire { wire, leads_to: LeadsTo::Origin }))
        })
    }
}

/// A connection that carries HTTP. It is stricter than [`Wire`]: a stream that was cut is not the end
/// of a body (RFC 9112 §9.8).
struct PooledWire {
    wire: Wire,
    leads_to: LeadsTo,
}

/// Who reads the requests: a proxy has to be told the whole URL (RFC 9112 §3.2.2).
#[derive(PartialEq)]
enum LeadsTo {
    Origin,
    Proxy,
}

impl Connection for PooledWire {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.leads_to == LeadsTo::Proxy)
    }
}

impl AsyncRead for PooledWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.wire).poll_read(context, into))?;
        Poll::Ready(if self.wire.cut_short() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
    }
}

impl AsyncWrite for PooledWire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}

/// What runs beside requests: one task for each open connection, and one that closes idle ones.
#[derive(Default)]
struct Tasks(Mutex<JoinSet<()>>);

/// Hands tasks to their owner. It does not own the owner: a task that holds the pool would otherwise
/// keep itself alive.
#[derive(Clone)]
struct Executor(Weak<Tasks>);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        // Neither after the network is gone nor outside a runtime is there anybody to serve.
        let (Some(tasks), Ok(runtime)) = (self.0.upgrade(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let mut tasks = tasks.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(work, &runtime);
    }
}

/// Bytes of one answer. The largest known is a page of Resource Graph (1,000 rows, some MiB).
pub(crate) const MAX_BODY: usize = 16 * 1024 * 1024;

/// How long a connection is kept for the next request or upgrade: hyper-util's default, well below the 4 minutes
/// after which Azure's load balancers drop an idle flow without a word.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Idle connections that are kept for one origin: as many as a burst of sessions mints over at once;
/// ext#10137 counts bursts of a dozen from a browser.
const MAX_IDLE: usize = 16;
