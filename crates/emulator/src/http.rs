//! A request as the handlers see it and the answers they give. Reading it from the wire, and
//! writing what was seen into the transcript, is `server.rs`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::data_plane::Opening;
use crate::transcript::Kind;

/// What goes back.
pub(crate) type Response = hyper::Response<Body>;

/// The body of a response, in one piece.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    end: BodyEnd,
}

/// What comes after the bytes of a body.
#[derive(Debug, PartialEq, Eq)]
enum BodyEnd {
    /// Its end.
    Good,
    /// The end of the connection, once the bytes are out.
    Flush,
    /// The end of the connection.
    Abort,
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Over TLS: everything but managed identities.
    Tls,
    /// As it is, on the port of the managed identity endpoints.
    Plain,
}

/// A request with its whole body.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) wire: Wire,
    pub(crate) method: Method,
    /// Host name that it was sent to: lower case, without port.
    pub(crate) host: String,
    /// Path and query as they came.
    pub(crate) target: String,
    /// Path segments, decoded; an empty one at the end is left out.
    pub(crate) segments: Vec<String>,
    /// Query parameters, decoded.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn new(wire: Wire, parts: &hyper::http::request::Parts, body: Bytes) -> Request {
        let authority = parts.uri.host().map(str::to_owned).or_else(|| {
            Some(host_without_port(parts.headers.get(hyper::header::HOST)?.to_str().ok()?).to_owned())
        });
        let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        Request {
            wire,
            method: parts.method.clone(),
            host: authority.unwrap_or_default().to_ascii_lowercase(),
            target: parts.uri.path_and_query().map(|target| target.to_string()).unwrap_or_default(),
            segments: parts.uri.path().trim_matches('/').split('/').map(decoded).collect(),
            query: form(parts.uri.query().unwrap_or_default().as_bytes()),
            headers: parts.headers.clone(),
            body,
        }
    }

    /// Path segments in lower case, for paths where case does not matter.
    pub(crate) fn lower_segments(&self) -> Vec<String> {
        self.segments.iter().map(|segment| segment.to_ascii_lowercase()).collect()
    }

    /// A query parameter; ARM spells names in any case.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        lookup(&self.query, name)
    }

    /// A header that is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token of its `Authorization` header (RFC 6750 section 2.1).
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    }

    /// Whether the body says that it is of this media type.
    pub(crate) fn is_of_type(&self, media_type: &str) -> bool {
        let said = self.header("content-type").unwrap_or_default();
        said.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
    }

    /// The fields of a form body.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        form(&self.body)
    }
}

/// The first field of that name, in any case.
pub(crate) fn lookup<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// What a handler answers, and what the transcript needs to know besides.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) kind: Kind,
    /// The session that the request named or made.
    pub(crate) session: Option<u64>,
    /// The node that it named.
    pub(crate) node: Option<String>,
    /// The path with tokens replaced by the number of their session.
    pub(crate) path: Option<String>,
    /// Names of the fields of the body.
    pub(crate) fields: Vec<String>,
    /// What the connection turns into after a 101.
    pub(crate) opening: Option<Opening>,
}

impl Answer {
    pub(crate) fn new(kind: Kind, response: Response) -> Answer {
        Answer { response, kind, session: None, node: None, path: None, fields: Vec::new(), opening: None }
    }
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &Value) -> Response {
    with_type(status, "application/json; charset=utf-8", body.to_string())
}

/// A page.
pub(crate) fn html(status: StatusCode, body: String) -> Response {
    with_type(status, "text/html; charset=utf-8", body)
}

/// A plain-text answer.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Response {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

/// Adds a header; a value that can't be one is left out.
pub(crate) fn set_header(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The same response, whose connection ends after half of the body.
pub(crate) fn cut(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // One more than there is: also an empty body is cut.
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.bytes.len() + 1));
    let half = body.bytes.slice(..body.bytes.len() / 2);
    Response::from_parts(parts, Body { bytes: half, end: BodyEnd::Flush })
}

/// The same response without a field of its JSON object.
pub(crate) fn without_field(response: Response, field: &str) -> Response {
    let (parts, mut body) = response.into_parts();
    if let Ok(Value::Object(mut object)) = serde_json::from_slice(&body.bytes) {
        object.remove(field);
        body.bytes = Value::Object(object).to_string().into();
    }
    Response::from_parts(parts, body)
}

fn with_type(status: StatusCode, media_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body { bytes: body.into(), end: BodyEnd::Good });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        match self.end {
            BodyEnd::Good => Poll::Ready(None),
            BodyEnd::Flush => {
                // hyper flushes what it has when a body is not ready, and drops it when a body fails.
                self.end = BodyEnd::Abort;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            BodyEnd::Abort => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.end == BodyEnd::Good
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            BodyEnd::Good => SizeHint::with_exact(self.bytes.len() as u64),
            BodyEnd::Flush | BodyEnd::Abort => SizeHint::default(),
        }
    }
}

fn form(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

fn host_without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_their_port() {
        assert_eq!(host_without_port("localhost:443"), "localhost");
        assert_eq!(host_without_port("localhost"), "localhost");
        assert_eq!(host_without_port("[::1]:443"), "[::1]");
        assert_eq!(host_without_port("[::1]"), "[::1]");
    }
}
