//! Which proxy stands between us and an origin, and what it wants to be told. The rules of the
//! variables and of `NO_PROXY` are hyper-util's, which follow curl's; talking to the proxy is `dial`.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::origin::Scheme;
use crate::{Error, Origin};

/// Which proxy a connection goes through. Its `Debug` form shows addresses and never credentials.
#[derive(Clone)]
pub struct ProxyRules {
    matcher: Option<Arc<Matcher>>,
}

impl ProxyRules {
    /// No proxy, whatever the environment says.
    #[must_use]
    pub fn none() -> ProxyRules {
        ProxyRules { matcher: None }
    }

    /// One proxy for everything but the hosts of `no_proxy`, a list as in the variable `NO_PROXY`:
    /// names (which stand for their subdomains too), addresses, networks as `10.0.0.0/8`, or `*`.
    ///
    /// `url` is `http://host:port` or `https://host:port` (then the way to the proxy is encrypted
    /// too), with `user:password@` before the host where the proxy asks for Basic credentials,
    /// percent-encoded where they hold other than letters and digits.
    ///
    /// # Errors
    /// [`Error::ProxyAddress`] when it is not such a URL; the message does not repeat it.
    pub fn from_url(url: &str, no_proxy: &str) -> Result<ProxyRules, Error> {
        Proxy::parse(url, "--proxy")?;
        let matcher = Matcher::builder().all(url.to_owned()).no(no_proxy.to_owned()).build();
        Ok(ProxyRules { matcher: Some(Arc::new(matcher)) })
    }

    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say, or their lower-case forms:
    /// curl(1), "ENVIRONMENT". As with curl, loopback is not left out by itself.
    ///
    /// # Errors
    /// [`Error::ProxyAddress`] names the variable that cannot be read. (curl goes out directly then,
    /// which in a network with proxies is a time-out that nobody can explain.)
    pub fn from_environment() -> Result<ProxyRules, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The same of variables that are not the process's own.
    ///
    /// # Errors
    /// [`Error::ProxyAddress`], as [`ProxyRules::from_environment`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<ProxyRules, Error> {
        for variable in VARIABLES {
            let value = get(variable).unwrap_or_default();
            // SOCKS is a proxy that we do not speak, but perhaps one that is never asked.
            if !value.is_empty() && !value.starts_with("socks") {
                Proxy::parse(&value, variable)?;
            }
        }
        // A CGI program's HTTP_PROXY is a header of the request (httpoxy.org).
        if get("REQUEST_METHOD").is_some() {
            return Ok(ProxyRules::none());
        }
        let first = |names: [&str; 2]| names.into_iter().find_map(&get).unwrap_or_default();
        let matcher = Matcher::builder()
            .all(first(["ALL_PROXY", "all_proxy"]))
            .https(first(["HTTPS_PROXY", "https_proxy"]))
            .http(first(["HTTP_PROXY", "http_proxy"]))
            .no(first(["NO_PROXY", "no_proxy"]))
            .build();
        Ok(ProxyRules { matcher: Some(Arc::new(matcher)) })
    }

    /// The proxy for `origin`, if there is one.
    pub(crate) fn proxy_for(&self, origin: &Origin) -> Result<Option<Proxy>, Error> {
        let Some(matcher) = &self.matcher else { return Ok(None) };
        let uri =
            Uri::try_from(origin.to_string()).map_err(|_| Error::Address { given: origin.to_string() })?;
        matcher.intercept(&uri).map(|intercept| Proxy::new(&intercept, "the environment")).transpose()
    }
}

impl fmt::Debug for ProxyRules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.matcher {
            None => formatter.write_str("ProxyRules::none()"),
            // hyper-util's form: addresses without credentials.
            Some(matcher) => matcher.fmt(formatter),
        }
    }
}

/// A proxy and what it wants to be told.
pub(crate) struct Proxy {
    pub(crate) origin: Origin,
    /// The value of `Proxy-Authorization`, marked as sensitive: its `Debug` form hides it.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Proxy {
    fn parse(url: &str, place: &'static str) -> Result<Proxy, Error> {
        let malformed = || Error::ProxyAddress { place, reason: "it is not a URL like http://host:port" };
        let anywhere = Uri::from_static("http://proxied.invalid/");
        let matcher = Matcher::builder().all(url.to_owned()).build();
        Proxy::new(&matcher.intercept(&anywhere).ok_or_else(malformed)?, place)
    }

    fn new(intercept: &Intercept, place: &'static str) -> Result<Proxy, Error> {
        let uri = intercept.uri();
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Error::ProxyAddress { place, reason: "SOCKS proxies are not spoken" });
        }
        let origin = Origin::parse(&uri.to_string())
            .map_err(|_| Error::ProxyAddress { place, reason: "its host or port cannot be read" })?;
        Ok(Proxy { origin, authorization: intercept.basic_auth().cloned() })
    }

    /// Whether requests to `origin` are handed to the proxy whole (RFC 9112 §3.2.2) instead of
    /// through a tunnel.
    pub(crate) fn forwards(origin: &Origin) -> bool {
        origin.scheme() == Scheme::Http
    }
}

/// In no particular order.
const VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_proxy_for_an_origin() {
        let rules = ProxyRules::from_url(
            "http://us%40er:p%3Aw@proxy.corp:3128",
            "azure.com, .internal, 10.0.0.0/8, 192.168.1.1, ::1",
        )
        .unwrap();
        let check = |url: &str, proxied: &str| {
            let proxy = rules.proxy_for(&Origin::parse(url).unwrap()).unwrap();
            assert_eq!(proxy.map(|proxy| proxy.origin.to_string()).unwrap_or_default(), proxied, "{url}");
        };
        check("https://example.com", "http://proxy.corp:3128");
        check("http://example.com", "http://proxy.corp:3128");
        check("https://notazure.com", "http://proxy.corp:3128");
        check("https://192.168.1.2", "http://proxy.corp:3128");
        check("https://azure.com", "");
        check("https://bst-1.bastion.azure.com:444", "");
        check("https://db.internal", "");
        check("https://10.1.2.3", "");
        check("https://192.168.1.1", "");
        check("https://[::1]", "");

        let proxy = rules.proxy_for(&Origin::https("example.com").unwrap()).unwrap().unwrap();
        // base64("us@er:p:w"), RFC 7617 section 2.
        assert_eq!(proxy.authorization.unwrap(), "Basic dXNAZXI6cDp3");
    }

    #[test]
    fn forms_of_a_proxy_address() {
        let check = |url: &str, expected: &str| {
            let outcome = match Proxy::parse(url, "--proxy") {
                Ok(proxy) => proxy.origin.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(outcome, expected, "{url}");
            assert!(!outcome.contains("secret"));
        };
        let malformed = "the proxy address of --proxy cannot be used: it is not a URL like http://host:port";
        check("http://proxy:3128", "http://proxy:3128");
        check("https://proxy", "https://proxy:443");
        check("proxy:3128", "http://proxy:3128");
        check("http://u:secret@proxy:3128/", "http://proxy:3128");
        check("", malformed);
        check("ftp://u:secret@proxy", malformed);
        check("http://u:secret^@proxy", malformed);
        check(
            "http://u:p@secret@proxy:3128",
            "the proxy address of --proxy cannot be used: its host or port cannot be read",
        );
        check(
            "socks5h://u:secret@proxy",
            "the proxy address of --proxy cannot be used: SOCKS proxies are not spoken",
        );
    }

    #[test]
    fn shows_no_credentials() {
        let rules = ProxyRules::from_url("http://user:secret@proxy.corp:3128", "").unwrap();
        let proxy = rules.proxy_for(&Origin::https("example.com").unwrap()).unwrap().unwrap();
        let shown = format!("{rules:?} {:?}", proxy.authorization);
        assert!(shown.contains("proxy.corp:3128"), "{shown}");
        assert!(!shown.contains("secret") && !shown.contains("dXNl"), "{shown}");
    }
}
