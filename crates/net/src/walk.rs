//! The way to an origin, one step after the other, for whoever wants to see where it ends and how long each step takes.
//! Leaves out the steps themselves, which are those of `dial`.

use std::net::SocketAddr;

use crate::chain::Chain;
use crate::deadline::Deadline;
use crate::dial::{Dialer, resolve};
use crate::error::{self, Step};
use crate::proxy::Proxy;
use crate::wire::Layer;
use crate::{Error, Network, Origin};

/// The way to an origin. Each step leads to the next, and all of them have the time that [`Network::dial`] has.
pub struct Walk {
    dialer: Dialer,
    origin: Origin,
    proxy: Option<Proxy>,
    deadline: Deadline,
}

/// A connection on which TLS has not begun.
pub struct Reached {
    layer: Layer,
    address: Option<SocketAddr>,
}

impl Network {
    /// Begins the way to `origin`, for which a proxy may be due.
    ///
    /// # Errors
    /// [`Error::ProxyAddress`] when that proxy can't be used.
    pub fn walk(&self, origin: &Origin) -> Result<Walk, Error> {
        let dialer = self.shared.dialer.clone();
        let proxy = dialer.proxy.proxy_for(origin)?;
        Ok(Walk { deadline: Deadline::after(dialer.timeout), dialer, origin: origin.clone(), proxy })
    }
}

impl Walk {
    /// The proxy that it leads through.
    #[must_use]
    pub fn proxy(&self) -> Option<&Origin> {
        self.proxy.as_ref().map(|proxy| &proxy.origin)
    }

    /// Looks up who is first on the way: the proxy, or the origin itself.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Timeout`].
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let hop = self.first_hop();
        self.deadline.bound(Step::Resolve, &hop.peer(), resolve(hop)).await
    }

    /// Connects to the first of these addresses that answers, and asks a proxy for a tunnel.
    ///
    /// Cancel safe: dropping the future closes what was open.
    ///
    /// # Errors
    /// Those of [`Network::dial`].
    pub async fn connect(&self, addresses: Vec<SocketAddr>) -> Result<Reached, Error> {
        let hop = self.first_hop();
        let peer = error::tried(&hop.peer(), &addresses);
        let connecting = self.dialer.connect(hop, addresses, &peer);
        let tcp = self.deadline.bound(Step::Connect, &peer, connecting).await?;
        let address = tcp.peer_addr().ok();
        let layer = Layer::Tcp(tcp);
        let layer = match &self.proxy {
            None => layer,
            Some(proxy) => {
                let layer = self.dialer.secure(layer, &proxy.origin, &self.deadline).await?;
                self.dialer.tunnel(layer, proxy, &self.origin, &self.deadline).await?
            }
        };
        Ok(Reached { layer, address })
    }

    /// Agrees on TLS, and tells which certificates vouched for the origin: those that it presented, its own first. The
    /// connection is then closed.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Certificate`], [`Error::Tls`] and those of a connection that ends.
    pub async fn secure(&self, reached: Reached) -> Result<Chain, Error> {
        let layer = self.dialer.secure(reached.layer, &self.origin, &self.deadline).await?;
        Ok(layer.chain())
    }

    fn first_hop(&self) -> &Origin {
        self.proxy().unwrap_or(&self.origin)
    }
}

impl Reached {
    /// The address that answered: the proxy's, where there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}
