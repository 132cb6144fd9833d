//! One request on a connection of its own, after which the connection may be the caller's: the
//! WebSocket upgrade, and `CONNECT`. Leaves out what a WebSocket is.

use std::future::Future;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::deadline::Deadline;
use crate::error::{MAX_HEAD, Step};
use crate::wire::Wire;
use crate::{Error, Origin};

/// How a server answered the wish for another protocol.
#[derive(Debug)]
pub enum Upgrade {
    /// Status 101, whatever the headers say: the live service leaves them out at times
    /// (protocol.md §4).
    Switched {
        /// The connection, free for the new protocol.
        wire: Wire,
        /// Status and headers.
        head: response::Parts,
        /// Bytes of the new protocol that came together with the head: read them first.
        early: Bytes,
    },
    /// Any other status, with as much of the body as came in time, 64 KiB at most. The connection is
    /// closed.
    Refused(Response<Bytes>),
}

/// Prepares `request`, which has an absolute URI, for being sent to its origin: path alone, and a
/// `Host` header (RFC 9112 §3.2.1).
pub(crate) fn to_origin_form(request: &mut Request<()>) -> Result<Origin, Error> {
    let origin = Origin::parse(&request.uri().to_string())?;
    let refuse = || Error::Address { given: origin.to_string() };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path: Uri = path.parse().map_err(|_| refuse())?;
    if !request.headers().contains_key(header::HOST) {
        let host = HeaderValue::try_from(origin.authority()).map_err(|_| refuse())?;
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = path;
    Ok(origin)
}

/// Sends `request` and waits for the head of the answer until `deadline`. Switched means 101, or any
/// 2xx to `CONNECT`.
pub(crate) async fn exchange(
    wire: Wire,
    request: Request<()>,
    peer: &str,
    step: Step,
    deadline: &Deadline,
) -> Result<Upgrade, Error> {
    let failed = |error: hyper::Error| Error::from_hyper(peer, step, &error);
    let connects = request.method() == Method::CONNECT;
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .handshake(TokioIo::new(wire))
        .await
        .map_err(failed)?;
    let answer = async move {
        let request = request.map(|()| Empty::<Bytes>::new());
        let head = async { sender.send_request(request).await.map_err(failed) };
        let response = deadline.bound(step, peer, head).await?;
        let status = response.status();
        let switched = if connects { status.is_success() } else { status == StatusCode::SWITCHING_PROTOCOLS };
        if switched {
            let (head, body) = response.into_parts();
            let response = Response::from_parts(head.clone(), body);
            let taken = async { hyper::upgrade::on(response).await.map_err(failed) };
            let upgraded = deadline.bound(step, peer, taken).await?;
            // The connection was made from this type a few lines above.
            let parts = upgraded
                .downcast::<TokioIo<Wire>>()
                .map_err(|_| Error::Closed { peer: peer.to_owned(), step })?;
            return Ok(Upgrade::Switched { wire: parts.io.into_inner(), head, early: parts.read_buf });
        }
        let (head, mut body) = response.into_parts();
        let mut page = BytesMut::new();
        // The status is the answer: a page that stops in the middle or never ends takes nothing from it.
        let _ = deadline.bound(step, peer, read_page(&mut body, &mut page)).await;
        Ok(Upgrade::Refused(Response::from_parts(head, page.freeze())))
    };
    drive(connection.with_upgrades(), answer).await
}

/// Reads a body into `page`, up to [`MAX_PAGE`] bytes.
async fn read_page(body: &mut Incoming, page: &mut BytesMut) -> Result<(), Error> {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            let room = MAX_PAGE - page.len();
            page.extend_from_slice(data.get(..room).unwrap_or(&data));
        }
        if page.len() == MAX_PAGE {
            break;
        }
    }
    Ok(())
}

/// Waits for `answer`, which makes progress only while `connection` is polled too. hyper tells the
/// one who waits for an answer what ended the connection.
async fn drive<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    match select(pin!(answer), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

/// Bytes of a refusal's page that are kept. Tomcat's and nginx's error pages are under 4 KiB.
const MAX_PAGE: usize = 64 * 1024;
