//! From nothing to a connection: name, TCP, proxy, TLS, with one deadline over all of it. Leaves out
//! what is said over the connection, but for the `CONNECT` to a proxy.

use std::future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri, header};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::deadline::Deadline;
use crate::error::{self, Credentials, Step};
use crate::options::Keepalive;
use crate::origin::Scheme;
use crate::proxy::{Proxy, ProxyRules};
use crate::tls::Tls;
use crate::upgrade::{self, Upgrade};
use crate::wire::{Layer, Wire};
use crate::{Error, Origin};

/// Everything that opening a connection needs.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) tls: Tls,
    pub(crate) proxy: ProxyRules,
    pub(crate) timeout: Duration,
    pub(crate) keepalive: Option<Keepalive>,
}

impl Dialer {
    /// A connection to `origin` itself, through a tunnel when a proxy is due.
    pub(crate) async fn dial(&self, origin: &Origin) -> Result<Wire, Error> {
        let deadline = Deadline::after(self.timeout);
        let Some(proxy) = self.proxy.proxy_for(origin)? else {
            return self.reach(origin, &deadline).await.map(Wire::new);
        };
        let layer = self.reach(&proxy.origin, &deadline).await?;
        let layer = self.tunnel(layer, &proxy, origin, &deadline).await?;
        self.secure(layer, origin, &deadline).await.map(Wire::new)
    }

    /// A connection to the proxy that forwards requests to `origin`.
    pub(crate) async fn dial_proxy(&self, proxy: &Proxy) -> Result<Wire, Error> {
        self.reach(&proxy.origin, &Deadline::after(self.timeout)).await.map(Wire::new)
    }

    /// TCP, and TLS where the origin's scheme says so.
    async fn reach(&self, origin: &Origin, deadline: &Deadline) -> Result<Layer, Error> {
        let peer = origin.peer();
        let addresses = deadline.bound(Step::Resolve, &peer, resolve(origin)).await?;
        let peer = error::tried(&peer, &addresses);
        let tcp = deadline.bound(Step::Connect, &peer, self.connect(origin, addresses, &peer)).await?;
        self.secure(Layer::Tcp(tcp), origin, deadline).await
    }

    pub(crate) async fn secure(
        &self,
        layer: Layer,
        origin: &Origin,
        deadline: &Deadline,
    ) -> Result<Layer, Error> {
        match origin.scheme() {
            Scheme::Http => Ok(layer),
            Scheme::Https => {
                deadline.bound(Step::Handshake, &origin.peer(), self.tls.secure(layer, origin)).await
            }
        }
    }

    /// The first of `addresses` that answers, both families at once after a short head start
    /// (RFC 8305), by hyper-util's connector.
    pub(crate) async fn connect(
        &self,
        origin: &Origin,
        addresses: Vec<SocketAddr>,
        peer: &str,
    ) -> Result<TcpStream, Error> {
        let uri =
            Uri::try_from(origin.to_string()).map_err(|_| Error::Address { given: origin.to_string() })?;
        let mut connector = HttpConnector::new_with_resolver(Resolved(addresses));
        connector.enforce_http(false);
        connector.set_nodelay(true);
        if let Some(keepalive) = self.keepalive {
            connector.set_keepalive(Some(keepalive.idle));
            connector.set_keepalive_interval(Some(keepalive.interval));
            connector.set_keepalive_retries(Some(keepalive.probes));
        }
        connector.set_happy_eyeballs_timeout(Some(HEAD_START));
        // Shared out among the addresses, so that a dead one leaves time for the next.
        connector.set_connect_timeout(Some(self.timeout));
        match connector.call(uri).await {
            Ok(stream) => Ok(stream.into_inner()),
            Err(failure) => Err(match error::find::<io::Error>(&failure).map(error::copy) {
                Some(io) if io.kind() == io::ErrorKind::TimedOut => {
                    Error::Timeout { peer: peer.to_owned(), step: Step::Connect, limit: self.timeout }
                }
                io => Error::from_io(peer, Step::Connect, io.unwrap_or_else(|| io::Error::other(failure))),
            }),
        }
    }

    /// Asks `proxy` for a tunnel to `origin` (RFC 9110 §9.3.6).
    pub(crate) async fn tunnel(
        &self,
        layer: Layer,
        proxy: &Proxy,
        origin: &Origin,
        deadline: &Deadline,
    ) -> Result<Layer, Error> {
        let (peer, target) = (proxy.origin.peer(), origin.peer());
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(target.as_str())
            .header(header::HOST, target.as_str())
            .body(())
            .map_err(|_| Error::Address { given: origin.to_string() })?;
        if let Some(authorization) = &proxy.authorization {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        match upgrade::exchange(Wire::new(layer), request, &peer, Step::Tunnel, deadline).await? {
            Upgrade::Switched { wire, early, .. } if early.is_empty() => Ok(wire.into_layer()),
            // TLS and HTTP wait for the client: whoever speaks first is not the origin.
            Upgrade::Switched { .. } => {
                let source = error::words("the proxy sent bytes that nobody had asked for");
                Err(Error::Answer { peer, source })
            }
            Upgrade::Refused(answer) => Err(refusal(proxy, target, &answer)),
        }
    }
}

/// What a proxy's refusal means. Only a status that cannot be the origin's may come here.
pub(crate) fn refusal<B>(proxy: &Proxy, target: String, answer: &http::Response<B>) -> Error {
    let status = answer.status();
    let name = proxy.origin.peer();
    let challenges = match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => header::PROXY_AUTHENTICATE,
        // tinyproxy says so to wrong credentials.
        StatusCode::UNAUTHORIZED => header::WWW_AUTHENTICATE,
        _ => return Error::ProxyRefused { proxy: name, target, status },
    };
    let offered = answer.headers().get_all(challenges).iter();
    Error::ProxyCredentials {
        proxy: name,
        credentials: match proxy.authorization {
            Some(_) => Credentials::Rejected,
            None => Credentials::Missing,
        },
        offered: offered.filter_map(|value| scheme(value.to_str().ok()?)).take(MAX_SCHEMES).collect(),
    }
}

/// The authentication scheme at the start of a challenge (RFC 9110 §11.3), a bounded token.
fn scheme(challenge: &str) -> Option<String> {
    let scheme = challenge.split([' ', ',']).next()?;
    let token = scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    (token && (1..=MAX_SCHEME).contains(&scheme.len())).then(|| scheme.to_owned())
}

/// The addresses of an origin. Names below `localhost` lead to loopback without anybody being asked
/// (RFC 6761 §6.3); every other name is the operating system's to resolve, on a thread of tokio's
/// blocking pool that ends when the system's resolver does.
pub(crate) async fn resolve(origin: &Origin) -> Result<Vec<SocketAddr>, Error> {
    let port = origin.port();
    if let Some(address) = origin.address() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = origin.host().trim_end_matches('.');
    if name == "localhost" || name.ends_with(".localhost") {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(loopback.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    let failed = |source| Error::Name { peer: origin.peer(), source: Arc::new(source) };
    let addresses: Vec<_> = tokio::net::lookup_host((origin.host(), port)).await.map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

/// What hyper-util's connector takes for a resolver: one that already knows.
#[derive(Clone)]
struct Resolved(Vec<SocketAddr>);

impl Service<Name> for Resolved {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        future::ready(Ok(self.0.clone().into_iter()))
    }
}

/// How long the preferred address family is ahead of the other (RFC 8305 §8, "Connection Attempt
/// Delay").
const HEAD_START: Duration = Duration::from_millis(250);

/// Authentication schemes of a proxy that are shown, and the length of one: IANA knows 13, of up to
/// 15 characters.
const MAX_SCHEMES: usize = 8;
const MAX_SCHEME: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_not_asked_about() {
        for name in ["localhost", "vm.localhost", "LOCALHOST.", "a.b.Localhost"] {
            let origin = Origin::https(&format!("{name}:7")).unwrap();
            let addresses = resolve(&origin).await.unwrap();
            assert_eq!(addresses, ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()], "{name}");
        }
        let literal = resolve(&Origin::https("[::1]:7").unwrap()).await.unwrap();
        assert_eq!(literal, ["[::1]:7".parse().unwrap()]);
    }

    #[test]
    fn schemes_of_a_challenge() {
        let check = |challenge: &str, expected: Option<&str>| {
            assert_eq!(scheme(challenge).as_deref(), expected, "{challenge}");
        };
        check("Basic realm=\"x\"", Some("Basic"));
        check("Negotiate", Some("Negotiate"));
        check("", None);
        check("\u{1b}[2J", None);
        check(&"x".repeat(100), None);
    }
}
