//! Where a request goes: scheme, host and port. Holds no path and no credentials, so that it may be
//! shown and logged. Leaves out how to get there, which is `dial`.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::Error;

/// Where a request goes: scheme, host and port. Shown as `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    /// Lower case, international names in punycode, IPv6 without brackets.
    host: String,
    port: u16,
}

/// The two schemes that this crate speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Origin {
    /// The origin of an `http` or `https` URL; path and query are ignored.
    ///
    /// # Errors
    /// [`Error::Address`] when it is no such URL, has no host, or carries a user name: credentials
    /// in a URL would end up in logs.
    pub fn parse(url: &str) -> Result<Origin, Error> {
        let refuse = || Error::Address { given: shown(url) };
        let parsed = Url::parse(url).map_err(|_| refuse())?;
        let scheme = match parsed.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(refuse()),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(refuse());
        }
        let host = match parsed.host().ok_or_else(refuse)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = parsed.port_or_known_default().ok_or_else(refuse)?;
        Ok(Origin { scheme, host, port })
    }

    /// The `https` origin of `host` or `host:port`, as ARM names a Bastion host.
    ///
    /// # Errors
    /// [`Error::Address`] when there is anything else in it, a path for example.
    pub fn https(authority: &str) -> Result<Origin, Error> {
        if authority.contains(['/', '\\', '?', '#', '@']) {
            return Err(Error::Address { given: shown(authority) });
        }
        Origin::parse(&format!("https://{authority}"))
    }

    /// The host's name or address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What goes into a `Host` header: the port is left out where the scheme implies it
    /// (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() { self.bracketed() } else { self.peer() }
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host when it is an address and needs no look-up.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `host:port`, IPv6 in brackets: the form of messages and of `CONNECT` (RFC 9112 §3.2.3).
    pub(crate) fn peer(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme.name(), self.peer())
    }
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// As much of a refused address as can be shown: no credentials, and no path, which may be a token.
fn shown(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}{host}").chars().take(SHOWN_LENGTH).flat_map(char::escape_debug).collect()
}

/// Of a refused address: longer than any DNS name (253, RFC 1035 §2.3.4).
const SHOWN_LENGTH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_and_authorities() {
        let check = |url: &str, display: &str, authority: &str| {
            let origin = Origin::parse(url).unwrap();
            assert_eq!((origin.to_string().as_str(), origin.authority().as_str()), (display, authority));
        };
        check(
            "https://Bst-1.Bastion.azure.com",
            "https://bst-1.bastion.azure.com:443",
            "bst-1.bastion.azure.com",
        );
        check("https://h:8443/api?x=1", "https://h:8443", "h:8443");
        check("http://h:80", "http://h:80", "h");
        check("http://h:443", "http://h:443", "h:443");
        check("https://[::1]:443/", "https://[::1]:443", "[::1]");
        check("https://münchen.example", "https://xn--mnchen-3ya.example:443", "xn--mnchen-3ya.example");

        let origin = Origin::https("bst-1.bastion.azure.com:444").unwrap();
        assert_eq!((origin.host(), origin.port()), ("bst-1.bastion.azure.com", 444));
        assert_eq!(Origin::https("[::1]").unwrap().host(), "::1");
    }

    #[test]
    fn refuses_the_rest_without_showing_secrets() {
        let check = |refused: Result<Origin, Error>, shown: &str| match refused {
            Err(Error::Address { given }) => assert_eq!(given, shown),
            other => panic!("{other:?}"),
        };
        check(Origin::parse("wss://h/webtunnelv2/secret"), "wss://h");
        check(Origin::parse("h:443"), "h:443");
        check(Origin::parse("https://user:secret@h/secret"), "https://h");
        check(Origin::parse("https:///"), "https://");
        check(Origin::parse("https://h:99999/secret"), "https://h:99999");
        check(Origin::parse("\u{1b}[31m"), "\\u{1b}[31m");
        check(Origin::https("h/secret"), "h");
        check(Origin::https("me@h"), "h");
        check(Origin::https(""), "https://");
        check(Origin::https("two words"), "https://two words");
    }
}
