//! A running tunnel: listeners, one task for each connection, and a stop that leaves nothing behind. It leaves out
//! what a connection is (`bastide-relay`).

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bastide_core::{EVER, End};
use bastide_relay::{Account, Local, Moved, Relay};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::endpoint::{Endpoint, Inherited, Listener};
use crate::lead::Lead;
use crate::local_socket::LocalSocket;
use crate::meter::Meter;
use crate::{Error, PeerPolicy};

/// A local endpoint and what its connections lead to.
pub struct Forward {
    listener: Listener,
    endpoint: Endpoint,
    lead: Lead,
    meter: Arc<Meter>,
}

impl Forward {
    /// Opens `endpoint` for connections over `relay`. Nobody is served before [`Tunnel::run`].
    ///
    /// # Errors
    /// [`Error::EndpointTaken`], [`Error::PortPrivileged`], [`Error::Endpoint`].
    pub async fn open(endpoint: &Endpoint, relay: Relay) -> Result<Self, Error> {
        Self::new(Listener::open(endpoint).await?, Some(endpoint), Lead::Open(relay))
    }

    /// Opens `endpoint` for connections over a relay that the first of them has opened by `open`, which tells of its
    /// failures itself: a connection that gets no relay is closed, and the next one tries again. Those that come
    /// meanwhile wait for the same attempt.
    ///
    /// # Errors
    /// As [`Forward::open`].
    pub async fn lazily<F>(
        endpoint: &Endpoint,
        open: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<Self, Error>
    where
        F: Future<Output = Option<Relay>> + Send + 'static,
    {
        Self::new(Listener::open(endpoint).await?, Some(endpoint), Lead::lazy(move || Box::pin(open())))
    }

    /// The same with a socket that listens already, such as systemd hands over (sd_listen_fds(3)).
    ///
    /// # Errors
    /// [`Error::Inherited`] for one that can't be listened on.
    pub fn inherited<F>(
        socket: Inherited,
        open: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<Self, Error>
    where
        F: Future<Output = Option<Relay>> + Send + 'static,
    {
        let listener = Listener::inherited(socket).map_err(Error::Inherited)?;
        Self::new(listener, None, Lead::lazy(move || Box::pin(open())))
    }

    fn new(listener: Listener, wanted: Option<&Endpoint>, lead: Lead) -> Result<Self, Error> {
        let endpoint = listener.endpoint().map_err(|source| match wanted {
            Some(endpoint) => Error::Endpoint { endpoint: endpoint.clone(), source },
            None => Error::Inherited(source),
        })?;
        Ok(Self { listener, endpoint, lead, meter: Arc::default() })
    }

    /// The same, whose counts are some of `whole`'s too.
    #[must_use]
    pub fn counted_in(self, whole: &Arc<Meter>) -> Self {
        Self { meter: Arc::new(Meter::within(whole)), ..self }
    }

    /// What it carries, also after the tunnel has begun.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Where it listens, with the port that was free.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// When a tunnel ends by itself, and whom it serves.
#[derive(Debug, Clone)]
pub struct TunnelOptions {
    /// Its life (`--timeout`). Default: as long as it is wanted.
    pub lifetime: Option<Duration>,
    /// Without a byte in any connection for so long, it ends (`--idle-timeout`). Default: never.
    pub idle: Option<Duration>,
    /// Which local users may connect.
    pub peers: PeerPolicy,
    /// How many connections there may be at once. Tunnels with clones of it share them.
    pub seats: Seats,
    /// How long open connections and releases may take to end, together. Default 10 s: a release takes about as
    /// long as a mint, "about 3 s" at worst (peers.md F31), and may need another try.
    pub grace: Duration,
}

impl Default for TunnelOptions {
    fn default() -> Self {
        Self {
            lifetime: None,
            idle: None,
            peers: PeerPolicy::SameUser,
            seats: Seats::default(),
            grace: Duration::from_secs(10),
        }
    }
}

/// Room for connections. Default: as many as the process has descriptors for, and 4,096 at the most; ask for it when the
/// limit of descriptors is what it will be.
#[derive(Debug, Clone)]
pub struct Seats(Arc<Semaphore>);

impl Default for Seats {
    fn default() -> Self {
        let room = |limit: u64| limit.saturating_sub(DESCRIPTORS_KEPT) / DESCRIPTORS_EACH;
        let seats = crate::sys::descriptor_limit()
            .map_or(MOST_CONNECTIONS, |limit| usize::try_from(room(limit)).unwrap_or(MOST_CONNECTIONS));
        Self(Arc::new(Semaphore::new(seats.clamp(1, MOST_CONNECTIONS))))
    }
}

/// Several forwardings that live and end together.
pub struct Tunnel {
    forwards: Vec<Forward>,
    options: TunnelOptions,
}

/// How a tunnel came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Why.
    pub cause: StopCause,
    /// Tokens that could not be given back; the service ends them at its own idle time-out.
    pub leaked: u64,
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// Somebody asked.
    Asked,
    /// [`TunnelOptions::lifetime`] is over.
    Lifetime,
    /// [`TunnelOptions::idle`] is over.
    Idle,
}

/// Connections at once. The service serves about 40 an instance and 50 instances (protocol.md §4): twice that, so
/// that connections being opened and closed do not stand in the way.
const MOST_CONNECTIONS: usize = 4096;

/// Descriptors that one connection has at its most: the local side, the wire, and a connection for its mint or its
/// release. Nobody is let in for whom they would not suffice: a release without a descriptor is a token left behind.
const DESCRIPTORS_EACH: u64 = 3;

/// Descriptors for everything else: standard streams, the runtime, listeners, sign-in, kept-alive connections, the
/// ledger. A tunnel that listens has 12 open.
const DESCRIPTORS_KEPT: u64 = 32;

/// The pause after a failed `accept`, unless a connection ends before: most likely the descriptors are used up, by others
/// or by us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Tunnel {
    /// A tunnel of these forwardings.
    pub fn new(forwards: Vec<Forward>, options: TunnelOptions) -> Self {
        Self { forwards, options }
    }

    /// Serves until `stop` is cancelled or a limit of [`TunnelOptions`] is reached; then stops accepting, ends the
    /// connections, releases every token, and says how it went.
    ///
    /// Not cancel safe: dropping the future cuts connections; tokens are still released as long as the runtime
    /// lives. To end it, cancel `stop`.
    pub async fn run(self, stop: CancellationToken) -> Stopped {
        let Self { forwards, options } = self;
        let activity = Arc::new(Activity::new());
        let leads: Vec<Lead> = forwards.iter().map(|forward| forward.lead.clone()).collect();
        let accepting = CancellationToken::new();
        let mut acceptors = JoinSet::new();
        for forward in forwards {
            if let Some(relay) = forward.lead.opened() {
                relay.expect_more();
            }
            acceptors.spawn(accept_loop(Acceptor {
                forward,
                peers: options.peers,
                seats: Arc::clone(&options.seats.0),
                activity: Arc::clone(&activity),
                stop: accepting.clone(),
            }));
        }
        let cause = tokio::select! {
            () = stop.cancelled() => StopCause::Asked,
            () = end_of(options.lifetime) => StopCause::Lifetime,
            () = activity.silent_for(options.idle) => StopCause::Idle,
        };
        accepting.cancel();
        for relay in leads.iter().filter_map(Lead::opened) {
            relay.stop();
        }
        let deadline = Instant::now() + options.grace;
        let connections = async { while acceptors.join_next().await.is_some() {} };
        if timeout_at(deadline, connections).await.is_err() {
            // What is left is cut; its leases come back by being dropped.
            acceptors.shutdown().await;
        }
        // One for all of them, however many hosts have gone.
        let deadline = deadline.max(Instant::now() + LEAST_GRACE);
        let mut leaked = 0;
        for relay in leads.iter().filter_map(Lead::opened) {
            leaked += relay.close(deadline.saturating_duration_since(Instant::now())).await;
        }
        Stopped { cause, leaked }
    }
}

/// Carries the one connection that `local` is, within the limits of `options`, and gives its token back: what
/// `bastide proxy` does.
///
/// Not cancel safe, as [`Tunnel::run`]. To end it, cancel `stop`.
pub async fn serve_one<L: Local>(
    relay: &Relay,
    peer: &str,
    local: L,
    options: &TunnelOptions,
    stop: CancellationToken,
) -> (Account, Stopped) {
    let (account, cause, deadline) = carry_one(relay, 1, peer, local, options, &|_| {}, &stop).await;
    let leaked = relay.close(deadline.saturating_duration_since(Instant::now()).max(LEAST_GRACE)).await;
    (account, Stopped { cause, leaked })
}

/// Carries one connection within the limits of `options`; how it ended, why, and until when what follows has time.
pub(crate) async fn carry_one<L: Local>(
    relay: &Relay,
    id: u64,
    peer: &str,
    local: L,
    options: &TunnelOptions,
    moved: &(dyn Fn(Moved) + Send + Sync),
    stop: &CancellationToken,
) -> (Account, StopCause, Instant) {
    let activity = Activity::new();
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let active = |count: Moved| {
        activity.touch();
        sent.fetch_add(count.sent, Ordering::Relaxed);
        received.fetch_add(count.received, Ordering::Relaxed);
        moved(count);
    };
    let started = Instant::now();
    let halt = relay.stop_token();
    let mut carried = pin!(relay.carry(id, peer.to_owned(), local, &active, &halt));
    let (done, cause) = tokio::select! {
        account = &mut carried => (Some(account), StopCause::Asked),
        () = stop.cancelled() => (None, StopCause::Asked),
        () = end_of(options.lifetime) => (None, StopCause::Lifetime),
        () = activity.silent_for(options.idle) => (None, StopCause::Idle),
    };
    let deadline = Instant::now() + options.grace;
    let account = match done {
        Some(account) => account,
        None => {
            halt.cancel();
            // A local side that takes nothing any more has given up its right to an account.
            timeout_at(deadline, carried).await.unwrap_or_else(|_| Account {
                peer: peer.to_owned(),
                outcome: Ok(End::Stopped),
                sent: sent.load(Ordering::Relaxed),
                received: received.load(Ordering::Relaxed),
                elapsed: started.elapsed(),
            })
        }
    };
    (account, cause, deadline)
}

/// A number for a connection, from 1: every one of a process has its own, whichever tunnel it belongs to.
pub(crate) fn next_number() -> u64 {
    static NEWEST: AtomicU64 = AtomicU64::new(0);
    NEWEST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Releases get at least so long, also when connections have used up the grace.
pub(crate) const LEAST_GRACE: Duration = Duration::from_secs(1);

struct Acceptor {
    forward: Forward,
    peers: PeerPolicy,
    seats: Arc<Semaphore>,
    activity: Arc<Activity>,
    stop: CancellationToken,
}

/// Accepts until stopped, whatever `accept` says, then waits for its connections. The listener is closed before that
/// wait.
async fn accept_loop(acceptor: Acceptor) {
    let Acceptor { forward, peers, seats, activity, stop } = acceptor;
    let Forward { listener, lead, endpoint, meter } = forward;
    let mut connections = JoinSet::new();
    let mut said = Said::default();
    loop {
        while connections.try_join_next().is_some() {}
        if seats.available_permits() == 0 && !std::mem::replace(&mut said.full, true) {
            tracing::warn!(
                "as many connections are open as there may be, or as the limit of open files allows (ulimit -n): \
                 further ones wait for one to end"
            );
        }
        let arrival = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            arrival = next(&listener, &seats, peers) => arrival,
        };
        let (seat, local, peer) = match arrival {
            Arrival::Welcome(seat, local, peer) => (seat, local, peer),
            Arrival::Gone(error) => {
                tracing::debug!(%endpoint, %error, "a local program has gone before it was served");
                continue;
            }
            Arrival::Stranger(error) if said.stranger => {
                tracing::info!(%endpoint, %error, "a local connection was refused");
                continue;
            }
            Arrival::Stranger(error) => {
                said.stranger = true;
                tracing::warn!(%endpoint, %error, "a local connection was refused; -v tells of further ones");
                continue;
            }
            Arrival::Starved(error) => {
                if !std::mem::replace(&mut said.starved, true) {
                    tracing::warn!(%endpoint, %error, "local connections cannot be accepted now, and wait");
                }
                tokio::select! {
                    () = sleep(ACCEPT_PAUSE) => {}
                    Some(_) = connections.join_next() => {}
                    () = stop.cancelled() => break,
                }
                continue;
            }
        };
        let id = next_number();
        let lead = lead.clone();
        let activity = Arc::clone(&activity);
        let meter = Arc::clone(&meter);
        let stop = stop.clone();
        connections.spawn(async move {
            let (_seat, counted) = (seat, meter.connection());
            activity.touch();
            let relay = tokio::select! {
                relay = lead.relay() => relay,
                () = stop.cancelled() => None,
            };
            let Some(relay) = relay else { return };
            if stop.is_cancelled() {
                // It came just when those that were there were stopped.
                relay.stop();
            }
            relay.expect_more();
            let active = |moved: Moved| {
                activity.touch();
                meter.add(moved);
            };
            let account = relay.carry(id, peer, local, &active, &relay.stop_token()).await;
            // Who hears of its end finds it counted.
            drop(counted);
            relay.report(id, account);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// What a listener has said already: others could make it repeat itself without end.
#[derive(Default)]
struct Said {
    full: bool,
    starved: bool,
    stranger: bool,
}

/// Somebody at the door.
enum Arrival {
    /// To be served: a seat, the connection, and who it is.
    Welcome(OwnedSemaphorePermit, LocalSocket, String),
    /// Has left again.
    Gone(io::Error),
    /// Belongs to another user.
    Stranger(io::Error),
    /// Nobody can be let in for want of something that may come back.
    Starved(io::Error),
}

/// The next local connection, when there is a seat for it. Cancel safe.
async fn next(listener: &Listener, seats: &Arc<Semaphore>, peers: PeerPolicy) -> Arrival {
    let seat = match Arc::clone(seats).acquire_owned().await {
        Ok(seat) => seat,
        // The semaphore is never closed.
        Err(error) => return Arrival::Starved(io::Error::other(error)),
    };
    let accepted = match listener {
        Listener::Tcp(listener) => {
            listener.accept().await.map(|(stream, peer)| (LocalSocket::Tcp(stream), peer.to_string()))
        }
        #[cfg(unix)]
        Listener::Unix(socket) => {
            let peer = format!("unix:{}", socket.path().display());
            socket.accept().await.map(|stream| (LocalSocket::Unix(stream), peer))
        }
    };
    let (local, peer) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => Arrival::Gone(error),
                _ => Arrival::Starved(error),
            };
        }
    };
    if let LocalSocket::Tcp(stream) = &local {
        // Keystrokes must not wait for each other (Nagle, RFC 896). A socket whose peer has gone may say no to it.
        match peers.admit(stream).map(|()| stream.set_nodelay(true)) {
            Ok(Ok(())) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Arrival::Stranger(error),
            Ok(Err(error)) => return Arrival::Gone(error),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Arrival::Gone(error),
            Err(error) => return Arrival::Starved(error),
        }
    }
    #[cfg(unix)]
    if let LocalSocket::Unix(stream) = &local {
        match peers.admit_unix(stream) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Arrival::Stranger(error),
            Err(error) => return Arrival::Gone(error),
        }
    }
    Arrival::Welcome(seat, local, peer)
}

/// When a byte last moved in any connection.
struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    fn touch(&self) {
        let elapsed = self.start.elapsed().as_millis();
        self.last.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Waits until nothing has moved for `idle`.
    async fn silent_for(&self, idle: Option<Duration>) {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            let due = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle.min(EVER);
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

async fn end_of(lifetime: Option<Duration>) {
    match lifetime {
        Some(lifetime) => sleep(lifetime.min(EVER)).await,
        None => std::future::pending().await,
    }
}
