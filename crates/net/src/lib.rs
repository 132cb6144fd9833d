//! The only way out of the process: names, TCP, proxies, TLS roots, HTTP/1.1 and its upgrade. It does
//! not know what Bastion is, reads no environment but through [`ProxyRules::from_environment`], follows
//! no redirect, and has no switch that turns TLS verification off.
//!
//! A [`Network`] is made once from [`Options`] and cloned freely. Requests go through
//! [`Network::send`]; a connection of one's own comes from [`Network::dial`] and [`Network::upgrade`], and without
//! waiting from [`Network::dial_ahead`] and [`Network::take_spare`]. [`Network::walk`] shows the way, step by step.
//! Every wait ends: see [`Options`].

mod buffer;
mod chain;
mod challenge;
mod deadline;
mod dial;
mod error;
mod http;
mod options;
mod origin;
mod pages;
mod proxy;
mod retry_after;
mod spare;
mod sys;
mod tls;
mod upgrade;
mod walk;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;

pub use crate::buffer::Buffer;
pub use crate::chain::{Certificate, Chain, Distrust};
pub use crate::challenge::Challenge;
pub use crate::error::{BundleFault, Cause, Credentials, Error, Step};
pub use crate::options::{Keepalive, Options};
pub use crate::origin::Origin;
pub use crate::pages::{Page, serve_pages};
pub use crate::proxy::ProxyRules;
pub use crate::retry_after::retry_after;
#[cfg(target_os = "linux")]
pub use crate::sys::{Diagnosis, diagnose};
pub use crate::upgrade::Upgrade;
pub use crate::walk::{Reached, Walk};
pub use crate::wire::{Standing, Wire};
pub use ::http::StatusCode as PageStatus;

use crate::deadline::Deadline;
use crate::dial::Dialer;
use crate::http::Pool;
use crate::spare::Spares;
use crate::tls::Tls;

/// The way out, with one set of roots, proxies and time limits, and its kept-alive connections. A
/// cheap handle: clones share everything. When the last one is dropped, idle connections are closed.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    pool: Pool,
    spares: Spares,
    answer_timeout: Duration,
}

impl Network {
    /// Reads the CA bundles and the system's roots; opens no connection.
    ///
    /// # Errors
    /// [`Error::Bundle`] names the file that cannot be used; [`Error::TrustStore`] says that the
    /// system has no roots.
    pub fn new(options: Options) -> Result<Network, Error> {
        let dialer = Dialer {
            tls: Tls::new(&options.ca_bundles)?,
            proxy: options.proxy,
            timeout: options.dial_timeout,
            keepalive: options.keepalive,
        };
        Ok(Network::over(dialer, options.answer_timeout))
    }

    /// The same way out without any proxy, and with connections of its own: for addresses that mean
    /// another machine when a proxy asks for them, as that of the instance metadata service does.
    #[must_use]
    pub fn without_proxy(&self) -> Network {
        let dialer = Dialer { proxy: ProxyRules::none(), ..self.shared.dialer.clone() };
        Network::over(dialer, self.shared.answer_timeout)
    }

    /// Opens a connection of one's own to `origin`: name resolution, TCP to the first address that
    /// answers, a tunnel through the proxy when one is due, and TLS when the origin is `https`. All of
    /// it within [`Options::dial_timeout`].
    ///
    /// Cancel safe: dropping the future closes what was open.
    ///
    /// # Errors
    /// Every [`Error`] but [`Error::TooLarge`] of a body; [`Error::is_connect`] holds for them.
    pub async fn dial(&self, origin: &Origin) -> Result<Wire, Error> {
        self.shared.dialer.dial(origin).await
    }

    /// Opens connections to `origin` in the background until `count` of them wait for [`Network::take_spare`]
    /// or are on their way. Each is closed after 90 s, which is how long a connection is kept for the next
    /// request too: where that one is gone, a spare saves no round trip. At most 32 are kept in all; one that
    /// can't be opened is not tried again. Does nothing outside a tokio runtime.
    pub fn dial_ahead(&self, origin: &Origin, count: usize) {
        self.shared.spares.stock(&self.shared.dialer, origin, count);
    }

    /// A connection to `origin` that [`Network::dial_ahead`] has opened, unless the other end is known to have
    /// closed it. That it has can still come out when it is used, as with everything that was kept.
    #[must_use]
    pub fn take_spare(&self, origin: &Origin) -> Option<Wire> {
        self.shared.spares.take(origin)
    }

    /// Sends a request with an absolute URI over a kept-alive connection, or a new one, and collects
    /// the answer, up to 16 MiB. All of it within [`Options::answer_timeout`]. Every status is an
    /// answer and none is followed.
    ///
    /// A request that finds its kept-alive connection closed before anything of it was written goes
    /// out again on another; one that may have left never does.
    ///
    /// Not cancel safe: dropping the future leaves open whether the server has acted.
    ///
    /// # Errors
    /// Every [`Error`]. The server can't have acted when [`Error::is_connect`] holds.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let origin = Origin::parse(&request.uri().to_string())?;
        let deadline = Deadline::after(self.shared.answer_timeout);
        let exchange = self.shared.pool.send(request, &origin);
        deadline.bound(Step::Answer, &origin.peer(), Box::pin(exchange)).await
    }

    /// Asks on `wire` for another protocol. `request` has an absolute URI and all headers that the
    /// protocol needs; `Host` is added when it is missing. The head of the answer has to come within
    /// [`Options::answer_timeout`].
    ///
    /// Cancel safe in that dropping the future closes the connection; whether the server has seen the
    /// request stays open.
    ///
    /// # Errors
    /// Those of an exchange: [`Error::Timeout`], [`Error::Closed`], [`Error::Reset`],
    /// [`Error::TooLarge`], [`Error::Answer`]. Another status than 101 is [`Upgrade::Refused`].
    pub async fn upgrade(&self, wire: Wire, mut request: Request<()>) -> Result<Upgrade, Error> {
        let origin = upgrade::to_origin_form(&mut request)?;
        let deadline = Deadline::after(self.shared.answer_timeout);
        Box::pin(upgrade::exchange(wire, request, &origin.peer(), Step::Answer, &deadline)).await
    }

    fn over(dialer: Dialer, answer_timeout: Duration) -> Network {
        let (pool, spares) = (Pool::new(dialer.clone()), Spares::default());
        Network { shared: Arc::new(Shared { dialer, pool, spares, answer_timeout }) }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Network").field("proxy", &self.shared.dialer.proxy).finish_non_exhaustive()
    }
}
