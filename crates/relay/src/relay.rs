//! The path of one connection, from the accepted local side to the released token (ARCHITECTURE.md, "The path
//! of a connection"). It leaves out listening.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bastide_core::{
    Attempt, EVER, End, Heard, Plan, Provider, RdpFile, RdpSignIn, ResourceId, RetryPolicy, TokenRequest,
    Verdict, causes, is_closed_port, verdict,
};
use bastide_net::{Network, Origin};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::lease::Reaper;
use crate::local::Local;
use crate::mint::{Failure, Gate, Opened};
use crate::pump::{close_local, close_wire, pump};
use crate::session::{Ping, Replay, Session, SessionOptions};
use crate::stock::Stock;
use crate::vigil::Vigil;
use crate::{Account, Dues, Error, Event, Ledger, Moved, Observer};

/// How connections are opened and kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest payload of a frame to the service, in bytes. Default 4,096 (protocol.md §3 step 3).
    pub max_frame: u16,
    /// How the end of a silent connection is found. Default [`Keepalive::Ping`].
    pub keepalive: Keepalive,
    /// From accept to an open WebSocket, all attempts together. Default 60 s: two set-ups of the 30 s that
    /// other clients allow (peers.md F31).
    pub connect_timeout: Duration,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// How long the VM may say nothing at all, where its protocol has the server speak first; then another attempt
    /// is made, as long as `connect_timeout` is not over. Default none.
    pub first_byte: Option<Duration>,
    /// How long the VM may be silent after the local side's FIN before the connection is closed: WebSocket has
    /// no half-close, so this is the time that an answer has. Default 10 s.
    pub linger: Duration,
    /// Where minted tokens stand written until they are given back. Default: nowhere.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// Whose it is what the relay owes the service. Default: nobody's but its own.
    pub dues: Dues,
    /// Leases kept minted ahead, at most 20, so that a connection is open after one round trip: from
    /// [`Relay::prepare`] or the first connection on, until none has come for 30 s; then they are released, and the
    /// next connection has them minted again. Each is a session that counts against the Bastion host's limit
    /// (protocol.md §4). Default 0.
    pub prefetch: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_frame: 4096,
            keepalive: Keepalive::Ping,
            connect_timeout: Duration::from_secs(60),
            retry: RetryPolicy::default(),
            first_byte: None,
            linger: Duration::from_secs(10),
            ledger: None,
            dues: Dues::default(),
            prefetch: 0,
        }
    }
}

/// How the end of a silent connection is found (protocol.md §4). TCP keepalive is the network's business
/// ([`bastide_net::Options`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keepalive {
    /// WebSocket pings after 30 s without a frame, on top of TCP keepalive.
    Ping,
    /// TCP keepalive alone.
    Tcp,
}

/// Knows more about the target than the data plane says.
#[async_trait]
pub trait Witness: Send + Sync {
    /// What keeps the VM from answering, when it does not run; none when it does, or when nobody knows. Asked once a
    /// connection that could not be opened, and has to answer within seconds. Must be cancel safe.
    async fn vm_state(&self) -> Option<VmState>;
}

/// A VM that does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmState {
    /// Its resource id.
    pub id: ResourceId,
    /// Azure's word for its state, such as `deallocated`.
    pub state: String,
}

/// Carries connections to one port of one target. A cheap handle: clones share everything, and the last one that is
/// dropped gives back what was minted ahead.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

struct Shared {
    gate: Gate,
    options: Options,
    observer: Observer,
    witness: Option<Arc<dyn Witness>>,
    stop: CancellationToken,
    setups: Semaphore,
    stock: Arc<Stock>,
    /// Whether another connection is expected behind each.
    expects_more: AtomicBool,
    vigil: Arc<Vigil>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
        self.stock.clear();
    }
}

/// Connections being opened at once: each costs a TLS handshake here and a session at the service, whose limit
/// is about 40 an instance (protocol.md §4).
const SETUPS_AT_ONCE: usize = 64;

/// How often a connection that is being opened looks whether it is still wanted: well below the second that a
/// person takes to press Ctrl-C again, and at 3 µs a look (libraries.md) next to nothing.
const LOOK_WHILE_OPENING: Duration = Duration::from_millis(250);

/// TLS connections kept open for upgrades to come where no lease is minted ahead: the next connection rarely waits
/// for company, and a second one would only be a second one to go stale.
const SPARE_CONNECTIONS: usize = 1;

/// How long a witness is heard: a question to ARM takes well below a second, and the user waits.
const WITNESS_WITHIN: Duration = Duration::from_secs(5);

impl Relay {
    /// A relay that opens connections by `plan`; `witness` is heard when none can be opened. Opens nothing yet, but
    /// begins to give back what the ledger has inherited. Must be called within a tokio runtime, which then runs its
    /// mints and releases.
    ///
    /// # Errors
    /// [`Error::Pod`] when the host's data plane name is no host name.
    pub fn new(
        network: Network,
        provider: Arc<dyn Provider>,
        token: TokenRequest,
        plan: Plan,
        options: Options,
        observer: Observer,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<Self, Error> {
        let front = Origin::https(plan.dns_name()).map_err(|error| Error::Pod {
            reason: format!("'{}' is no host name: {error}", plan.dns_name()),
        })?;
        let options = Options { connect_timeout: options.connect_timeout.min(EVER), ..options };
        let runtime = tokio::runtime::Handle::current();
        let ledger = options.ledger.clone();
        let dues = Dues::within(&options.dues);
        let reaper = Reaper::new(network.clone(), Arc::clone(&observer), ledger, runtime, dues);
        let stop = CancellationToken::new();
        reaper.work_off(stop.clone());
        let vigil = Arc::new(Vigil::new(match options.keepalive {
            Keepalive::Ping => Ping::WhenIdle,
            Keepalive::Tcp => Ping::Never,
        }));
        reaper.adopt(Vigil::keep(Arc::downgrade(&vigil), stop.clone()));
        let (token, plan) = (Arc::new(Mutex::new(token)), Arc::new(plan));
        let gate = Gate { network, provider, token, plan, front, reaper };
        Ok(Self {
            shared: Arc::new(Shared {
                stock: Stock::new(gate.clone(), options.prefetch, stop.clone()),
                gate,
                options,
                observer,
                witness,
                stop,
                setups: Semaphore::new(SETUPS_AT_ONCE),
                expects_more: AtomicBool::new(false),
                vigil,
            }),
        })
    }

    /// Sees to it that a lease is minted ahead, which the next connection takes: the proof that sign-in, rights and
    /// service work. One that no connection has taken after `keep` is released. That connection also finds a TLS connection open
    /// for its upgrade.
    ///
    /// Cancel safe: a token that is being minted is released when it comes.
    ///
    /// # Errors
    /// The [`Error`] that the first connection would meet, after the retries that it would make.
    pub async fn prepare(&self, keep: Duration) -> Result<(), Error> {
        let shared = &self.shared;
        if shared.stock.is_ready() {
            return Ok(());
        }
        let lease = shared.insist(|| shared.gate.prepare()).await?;
        shared.open_ahead(&lease.host);
        shared.stock.put(lease, keep);
        shared.stock.fill();
        Ok(())
    }

    /// Fetches the file by which an RDP client connects over the Bastion host's own gateway, without this relay
    /// (protocol.md §6).
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no gateway, and else what [`Relay::prepare`] meets, after as many retries.
    pub async fn rdp_file(&self, sign_in: RdpSignIn) -> Result<RdpFile, Error> {
        let shared = &self.shared;
        let path = shared.gate.plan.rdp_file_path(sign_in).map_err(Error::Refused)?;
        shared.insist(|| shared.gate.rdp_file(&path)).await
    }

    /// By what its connections are opened.
    pub fn plan(&self) -> &Plan {
        &self.shared.gate.plan
    }

    /// Says that this relay serves a listener: from now on, behind each connection a TLS connection is opened for
    /// the upgrade of the next one, and closed if there is none within 90 s.
    pub fn expect_more(&self) {
        self.shared.expects_more.store(true, Ordering::Relaxed);
    }

    /// Carries one connection to its end: authorise, mint beside dial, upgrade, relay, judge, release. `active` is
    /// told when the WebSocket is open, of nothing, and whenever bytes have moved.
    ///
    /// Not cancel safe: bytes are lost. To end it early cancel `stop`, which is one of [`Relay::stop_token`], or use
    /// [`Relay::stop`] for all connections; tokens are released either way.
    pub async fn carry<L: Local>(
        &self,
        id: u64,
        peer: String,
        mut local: L,
        active: &(dyn Fn(Moved) + Send + Sync),
        stop: &CancellationToken,
    ) -> Account {
        let shared = &self.shared;
        let started = Instant::now();
        (shared.observer)(Event::Opened { id, peer: peer.clone() });
        let deadline = started + shared.options.connect_timeout;
        let mut course = Course { id, deadline, sent: 0, received: 0, stop };
        let outcome = Box::pin(shared.attempts(&mut course, &mut local, active)).await;
        Account { peer, outcome, sent: course.sent, received: course.received, elapsed: started.elapsed() }
    }

    /// Tells everybody who listens how a connection ended. Apart from [`Relay::carry`], so that the caller can
    /// look at the account first.
    pub fn report(&self, id: u64, account: Account) {
        (self.shared.observer)(Event::Closed { id, account });
    }

    /// A token that ends what is carried with it, and that [`Relay::stop`] cancels too.
    pub fn stop_token(&self) -> CancellationToken {
        self.shared.stop.child_token()
    }

    /// Ends every connection: each sends what it has, closes its WebSocket and releases its token.
    pub fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.stock.clear();
    }

    /// Stops, and waits until every token is given back, at most for `grace`; how many were not. Connections
    /// that [`Relay::carry`] is still ending hold theirs, and are waited for.
    ///
    /// Cancel safe: releases go on.
    pub async fn close(&self, grace: Duration) -> u64 {
        self.stop();
        self.shared.gate.reaper.finish(grace).await
    }
}

/// Waits until the program at the other end is known to have gone, and nothing of it is left to carry.
async fn until_vacant<L: Local>(local: &mut L, replay: &Replay) {
    while !replay.is_empty() || !local.is_vacant() {
        sleep(LOOK_WHILE_OPENING).await;
    }
}

/// One connection's way through its attempts.
struct Course<'a> {
    id: u64,
    /// Until when a WebSocket has to be open.
    deadline: Instant,
    sent: u64,
    received: u64,
    /// Ends this one.
    stop: &'a CancellationToken,
}

impl Shared {
    /// Makes a request of the data plane as often as a first connection would, and within its time.
    async fn insist<T, F>(&self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = Instant::now() + self.options.connect_timeout;
        let mut number = 0;
        loop {
            number += 1;
            let answered = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Error::Stopped),
                answered = request() => answered,
                () = sleep_until(deadline) => return Err(self.timed_out()),
            };
            let failure = match answered {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let attempt = Attempt { number, end: &failure.end, heard: Heard::Nothing };
            match verdict(&self.options.retry, attempt, rand::random()) {
                Verdict::Again(pause) if Instant::now() + pause < deadline => {
                    self.tell_retry(0, number, &causes(&failure.error).join(": "), pause);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.stop.cancelled() => return Err(Error::Stopped),
                    }
                }
                _ => return Err(self.testified(failure.error, &self.stop).await),
            }
        }
    }

    async fn attempts<L: Local>(
        &self,
        course: &mut Course<'_>,
        local: &mut L,
        active: &(dyn Fn(Moved) + Send + Sync),
    ) -> Result<End, Error> {
        let mut replay = Replay::default();
        let mut number = 0;
        let mut clean_ends = 0;
        loop {
            number += 1;
            let opened = tokio::select! {
                biased;
                () = course.stop.cancelled() => return Ok(End::Stopped),
                opened = self.open(course, number, &replay, local) => opened,
                () = sleep_until(course.deadline) => return Err(self.timed_out()),
            };
            let Some(opened) = opened else { return Ok(End::LocalClosed) };
            let (end, heard, error) = match opened {
                Ok(opened) => {
                    let (end, session) = self.relay(course, opened, replay, local, active).await;
                    let heard = session.heard();
                    replay = session.into_replay();
                    (end, heard, None)
                }
                Err(failure) => (failure.end, Heard::Nothing, Some(failure.error)),
            };
            clean_ends = if end.is_clean() { clean_ends + 1 } else { 0 };
            let attempt = Attempt { number, end: &end, heard };
            match verdict(&self.options.retry, attempt, rand::random()) {
                Verdict::Again(pause)
                    if Instant::now() + pause < course.deadline && !is_closed_port(clean_ends) =>
                {
                    let reason = error.map_or_else(|| end.to_string(), |error| causes(&error).join(": "));
                    self.tell_retry(course.id, number, &reason, pause);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = course.stop.cancelled() => return Ok(End::Stopped),
                    }
                }
                _ => {
                    let outcome =
                        match error.map_or_else(|| self.sum_up(course, end.clone(), heard, number), Err) {
                            Ok(end) => Ok(end),
                            // Before the local program hears of the end, upon which it may end us.
                            Err(error) => Err(self.testified(error, course.stop).await),
                        };
                    return match (outcome, close_local(local, &end).await) {
                        (Ok(end), Some(lost)) if end.is_ordinary() => Ok(lost),
                        (outcome, _) => outcome,
                    };
                }
            }
        }
    }

    /// A WebSocket with a lease, in turn; from the second attempt on with a new one, for a new mint may land on
    /// another node (protocol.md §3). None when the local program has gone meanwhile and left nothing to carry: what
    /// was being minted for it is then released.
    async fn open<L: Local>(
        &self,
        course: &Course<'_>,
        number: u32,
        replay: &Replay,
        local: &mut L,
    ) -> Option<Result<Opened, Failure>> {
        // The semaphore is never closed.
        let _turn = self.setups.acquire().await;
        let opening = async {
            let ahead = if number == 1 { self.stock.take() } else { None };
            let mut opened = self.gate.open(ahead).await?;
            opened.lease.connection = course.id;
            Ok(opened)
        };
        let opened = tokio::select! {
            biased;
            () = until_vacant(local, replay) => return None,
            opened = opening => opened,
        };
        if let Ok(opened) = &opened {
            (self.observer)(Event::Connected { id: course.id });
            if self.expects_more.load(Ordering::Relaxed) {
                self.open_ahead(&opened.lease.host);
            }
            self.stock.fill();
        }
        Some(opened)
    }

    /// Has a TLS connection opened for the next upgrade, and one for each lease that is minted ahead.
    fn open_ahead(&self, host: &Origin) {
        self.gate.network.dial_ahead(host, self.stock.wanted().max(SPARE_CONNECTIONS));
    }

    /// Moves bytes over one WebSocket until it ends, and gives its token back.
    async fn relay<L: Local>(
        &self,
        course: &mut Course<'_>,
        opened: Opened,
        replay: Replay,
        local: &mut L,
        active: &(dyn Fn(Moved) + Send + Sync),
    ) -> (End, Session) {
        let Opened { lease, mut wire, early } = opened;
        let mut news = self.vigil.news();
        let ping = news.borrow_and_update().ping;
        let options = SessionOptions {
            max_frame: self.options.max_frame,
            first_byte: self
                .options
                .first_byte
                .map(|limit| limit.min(course.deadline.saturating_duration_since(Instant::now()))),
            ping,
            linger: self.options.linger,
        };
        let mut session = Session::new(options, rand::random(), replay, Instant::now().into_std());
        session.from_early(&early, Instant::now().into_std());
        active(Moved::default());
        let end = pump(&mut session, local, &mut wire, course.stop, &mut news, active).await;
        close_wire(&mut wire).await;
        drop(lease);
        course.sent = session.sent();
        course.received = session.received();
        if session.was_ended_by_ping() {
            self.vigil.forbid_pings();
        }
        (end, session)
    }

    /// What the end of the last attempt means for the user.
    fn sum_up(&self, course: &Course<'_>, end: End, heard: Heard, attempts: u32) -> Result<End, Error> {
        let (target, port) = (self.gate.plan.target_name().to_owned(), self.gate.plan.port());
        let lasted = Instant::now() >= course.deadline
            && matches!(end, End::Closed { .. } | End::Eof | End::Broken(_) | End::Dead);
        match end {
            End::LocalClosed | End::LocalBroken(_) | End::LocalFailed(_) | End::Stopped => Ok(end),
            // It was open, only nobody has said anything over it.
            _ if heard == Heard::Something || lasted => Ok(end),
            end if end.is_clean() && heard == Heard::NoAnswer => {
                Err(Error::NoAnswer { target, port, sent: course.sent })
            }
            end if end.is_clean() => Err(Error::PortClosed { target, port, attempts }),
            end => Err(Error::Sick { target, attempts, end }),
        }
    }

    /// The error, or what the witness knows about its cause.
    async fn testified(&self, error: Error, stop: &CancellationToken) -> Error {
        let Some(witness) = self.witness.as_ref().filter(|_| error.may_be_the_vm()) else { return error };
        let state = tokio::select! {
            state = witness.vm_state() => state,
            () = sleep(WITNESS_WITHIN) => None,
            () = stop.cancelled() => None,
        };
        match state {
            Some(VmState { id, state }) => {
                Error::VmOff { target: self.gate.plan.target_name().to_owned(), state, id: id.into() }
            }
            None => error,
        }
    }

    fn timed_out(&self) -> Error {
        Error::TimedOut {
            target: self.gate.plan.target_name().to_owned(),
            after: self.options.connect_timeout,
        }
    }

    fn tell_retry(&self, id: u64, attempt: u32, reason: &str, pause: Duration) {
        (self.observer)(Event::Retry { id, attempt, reason: reason.to_owned(), pause });
    }
}
