//! Requests that a plugin has the host send: what it asks for is checked, sent over the one [`Network`] of the program,
//! and the answer is laid out for C. It leaves out how they come and go (`host`, `call`).

use std::ffi::{CString, c_char};
use std::mem::offset_of;

use bastide_core::{AuthError, Fault, causes};
use bastide_net::Network;
use bastide_plugin_abi::raw;
use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use zeroize::Zeroize;

/// What version 1.0 of a request has.
pub(super) const REQUEST_LEAST: usize = offset_of!(raw::HttpRequest, body_size) + size_of::<usize>();

/// Headers of a request, far above what any service takes.
pub(super) const MAX_HEADERS: usize = 100;

/// A request out of a plugin's words; none when it is not one over HTTPS.
pub(super) fn request(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: Vec<u8>,
) -> Option<Request<Bytes>> {
    let uri: Uri = url.parse().ok()?;
    // Neither without TLS nor with a password in it, which proxies and logs would see.
    if uri.scheme_str() != Some("https") || uri.authority()?.as_str().contains('@') {
        return None;
    }
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() =
        Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT)?;
    *request.uri_mut() = uri;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        // What says where it goes and how long it is, is ours to say.
        if name == HOST || name == http::header::CONTENT_LENGTH || name == http::header::TRANSFER_ENCODING {
            return None;
        }
        request.headers_mut().append(name, value);
    }
    Some(request)
}

/// Sends it. Not cancel safe, as every request: whether the other side has acted stays open.
pub(super) async fn send(
    network: Option<&Network>,
    plugin: &str,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, AuthError> {
    let fault = |message: String, hint: Option<String>, fault| AuthError::Plugin {
        plugin: plugin.to_owned(),
        message,
        hint,
        fault,
    };
    let Some(network) = network else {
        return Err(fault("it asks for a request, and nobody sends any here".into(), None, Fault::SignIn));
    };
    network.send(request).await.map_err(|error| {
        let whose = if error.is_configuration() { Fault::Usage } else { Fault::Network };
        let hint = error.hint().or_else(|| Some("check the network, --proxy and --ca-bundle".into()));
        fault(causes(&error).join(": "), hint, whose)
    })
}

/// An answer as C sees it, which stays where it is until it is dropped.
pub(super) struct Lent {
    answer: Box<raw::HttpAnswer>,
    // What `answer` points to.
    _headers: Vec<raw::HttpHeader>,
    _texts: Vec<CString>,
    body: Vec<u8>,
}

// SAFETY: the pointers lead to what it owns itself, which nobody writes to before it is dropped.
#[expect(unsafe_code, reason = "as the module's")]
unsafe impl Send for Lent {}

impl Lent {
    pub(super) fn new(response: Response<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        let mut texts = Vec::new();
        let mut headers = Vec::new();
        for (name, value) in &head.headers {
            let text = |text: Option<&str>| text.and_then(|text| CString::new(text).ok());
            if let (Some(name), Some(value)) = (text(Some(name.as_str())), text(value.to_str().ok())) {
                // What a text holds stays where it is when the text itself is moved.
                let (name_at, value_at): (*const c_char, *const c_char) = (name.as_ptr(), value.as_ptr());
                headers.push(raw::HttpHeader { name: name_at, value: value_at });
                texts.extend([name, value]);
            }
        }
        let body = Vec::from(body);
        let answer = Box::new(raw::HttpAnswer {
            size: size_of::<raw::HttpAnswer>() as u32,
            status: head.status.as_u16().into(),
            headers: headers.as_ptr(),
            header_count: headers.len(),
            body: body.as_ptr(),
            body_size: body.len(),
        });
        Self { answer, _headers: headers, _texts: texts, body }
    }

    /// Where it is.
    pub(super) fn address(&self) -> *const raw::HttpAnswer {
        &raw const *self.answer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // It may hold a secret.
        self.body.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_over_https_and_say_nothing_of_where_they_go() {
        let check = |method, url, header: (&str, &str)| {
            let headers = [(header.0.to_owned(), header.1.to_owned())];
            request(method, url, &headers, Vec::new()).is_some()
        };
        let url = "https://contoso.vault.azure.net/keys/ssh?api-version=7.4";
        assert!(check("GET", url, ("Accept", "application/json")));
        for (method, url, header) in [
            ("GET", "http://contoso.vault.azure.net/", ("Accept", "x")),
            ("GET", "/keys", ("Accept", "x")),
            ("GET", "https://me:secret@contoso.vault.azure.net/", ("Accept", "x")),
            ("CONNECT", url, ("Accept", "x")),
            ("G T", url, ("Accept", "x")),
            ("GET", url, ("Host", "example.org")),
            ("GET", url, ("Transfer-Encoding", "chunked")),
            ("GET", url, ("X", "a\r\nb: c")),
        ] {
            assert!(!check(method, url, header), "{method} {url} {header:?}");
        }
    }

    #[test]
    fn an_answer_is_laid_out_for_c() {
        let response = Response::builder().status(429).header("Retry-After", "3").header("x", &b"\xff"[..]);
        let lent = Lent::new(response.body(Bytes::from_static(b"body")).unwrap());
        // It stays where it is when it is moved.
        let address = lent.address();
        let lent = Box::new(lent);
        assert_eq!(lent.address(), address);
        assert_eq!((lent.answer.status, lent.answer.header_count, lent.answer.body_size), (429, 1, 4));
    }
}
