//! One WebSocket as a state machine without sockets, clocks or tasks: bytes and instants go in, bytes and a
//! verdict come out. It leaves out reading and writing (`pump`) and everything before the upgrade (`mint`).
//!
//! `Fresh` until the VM is heard, keeping what the local side sent so that it can be sent again; then `Live`;
//! `Closing` from the first sign of an end until what arrived is delivered and our close frame is written; then
//! `Ended`.

use std::io::{IoSlice, IoSliceMut};
use std::time::{Duration, Instant};

use bastide_core::{End, Heard};
use bastide_net::Standing;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Control;

use crate::inbox::{Found, Inbox};
use crate::outbox::Outbox;

/// How a session behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionOptions {
    /// Largest payload of a frame to the service. Default 4,096, as the reference client (protocol.md §3).
    pub(crate) max_frame: u16,
    /// How long the VM may say nothing at all before the service counts as sick; for protocols in which the
    /// server speaks first.
    pub(crate) first_byte: Option<Duration>,
    /// Whether to ping.
    pub(crate) ping: Ping,
    /// How long after the local side's FIN the VM may be silent before the WebSocket is closed.
    pub(crate) linger: Duration,
}

/// Whether to find out by pings that the service is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ping {
    /// After [`PING_AFTER`] without a frame.
    WhenIdle,
    /// Never.
    Never,
}

/// Local bytes that no VM has answered yet, to be sent again over a new connection.
#[derive(Default)]
pub(crate) struct Replay {
    bytes: Vec<u8>,
    /// The local side has sent its FIN behind them.
    finished: bool,
}

impl Replay {
    /// Whether there is no byte to be sent again.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A ping goes out after so long without a frame in either direction (protocol.md §4).
pub(crate) const PING_AFTER: Duration = Duration::from_secs(30);

/// No pong and no data for so long after a ping: dead (protocol.md §4).
pub(crate) const PONG_WITHIN: Duration = Duration::from_secs(20);

/// The same for a ping that stands behind more than [`SURELY_TAKEN`]: a VM that does not read for a while keeps the
/// service from reading, and the ping waits in the service's own buffers, where TCP has acknowledged it. As long as
/// Linux waits for an acknowledgement (ip-sysctl, `tcp_retries2`: 924 s).
pub(crate) const PONG_BEHIND_DATA_WITHIN: Duration = Duration::from_secs(900);

/// So many bytes find room between us and the VM although it does not read: half of what one socket on the way holds
/// (tcp(7), `tcp_rmem`: 131,072 by default).
const SURELY_TAKEN: u64 = 64 * 1024;

/// TCP has given the other end up when it has asked so often without an answer: as often as by keepalive
/// ([`bastide_net::Keepalive`]) …
const UNANSWERED: u32 = 3;

/// … and for so long: what a ping and its answer get.
const UNANSWERED_FOR: Duration = Duration::from_secs(30 + 20);

/// A connection that ends so soon after its first ping was ended by it (protocol.md §4).
pub(crate) const PING_SUSPICION: Duration = Duration::from_secs(2);

/// How long our close frame may take to leave, and the service's answer to it to come: RFC 6455 §7.1.1 leaves
/// the time to us. Data that still comes renews it. After a stop, the local side has as long to take the rest.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// The first pause between two looks whether a half-closed local side has gone for good; it doubles. A kernel sends
/// the FIN of a `close` a moment before it forgets the owner.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// So much is kept for another attempt: an SSH client sends 2 KiB before it hears the server, a TLS client
/// less. Whoever sends more before hearing anything gets one attempt, not a stall.
const REPLAY_LIMIT: usize = 256 * 1024;

/// The state machine. Call [`Session::end`] after each step.
pub(crate) struct Session {
    options: SessionOptions,
    phase: Phase,
    outbox: Outbox,
    inbox: Inbox,
    replay: Replay,
    /// Bytes of `replay` from an earlier attempt that were put into frames again.
    replayed: usize,
    /// Set from the local side's FIN on: when the VM's silence ends the session.
    linger_until: Option<Instant>,
    look: Look,
    /// Set from a stop on: when the local side has had its time to take the rest.
    give_up: Option<Instant>,
    started: Instant,
    /// When to find out whether the service is there: [`PING_AFTER`] from the last frame in either direction that we
    /// could have seen.
    ask_at: Instant,
    /// The machine has slept, and nothing has come from the service since.
    woken: bool,
    first_ping: Option<Instant>,
    awaiting_pong: Option<Awaited>,
    /// What [`Session::sent`] was at the oldest ping without a pong.
    asked: Option<u64>,
    /// So many bytes are not in the service's buffers any more: a pong has come from behind them, or the VM has spoken
    /// since. Who speaks may not have read for a while, so a word of the VM proves [`SURELY_TAKEN`] at most: who takes
    /// turns is found dead soon, and a VM that works off a batch of questions has its time.
    proven: u64,
    ended_by_ping: bool,
    /// The local side had said something and finished, and all of it was written, before the service last spoke.
    delivered: bool,
    sent: u64,
    received: u64,
}

/// When to look whether the local side, after its FIN, has gone for good.
#[derive(Default)]
struct Look {
    is_due: bool,
    next: Option<Instant>,
    pause: Duration,
}

/// A ping that is out.
#[derive(Clone, Copy)]
struct Awaited {
    since: Instant,
    /// When it is looked at again.
    look: Instant,
    /// How long its answer may take.
    limit: Duration,
}

impl Awaited {
    fn new(limit: Duration, now: Instant) -> Self {
        Self { since: now, look: now + PONG_WITHIN, limit }
    }
}

enum Phase {
    Fresh,
    Live,
    Closing { end: End, until: Instant, wire: Wire },
    Ended(End),
}

/// What the service's side is still good for while closing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Our close frame is out or on its way; the rest of the VM's bytes may come.
    Open,
    /// Nothing can be written any more; the rest of the VM's bytes may come.
    ReadOnly,
    /// Our answer to its close frame, or our last frame, is to be written; nothing more is read.
    WriteOnly,
    /// Gone.
    Gone,
}

#[expect(
    clippy::wrong_self_convention,
    reason = "the names say from and to which side bytes go, and nothing is converted"
)]
impl Session {
    /// A session over a WebSocket that has just been opened. `replay` is what an earlier attempt could not
    /// bring to the VM; `seed` comes from the operating system's random numbers.
    pub(crate) fn new(options: SessionOptions, seed: [u8; 32], replay: Replay, now: Instant) -> Self {
        let linger_until = replay.finished.then(|| now + options.linger);
        Self {
            outbox: Outbox::new(options.max_frame, seed),
            options,
            phase: Phase::Fresh,
            inbox: Inbox::default(),
            replay,
            replayed: 0,
            linger_until,
            look: Look::default(),
            give_up: None,
            started: now,
            ask_at: now + PING_AFTER,
            woken: false,
            first_ping: None,
            awaiting_pong: None,
            asked: None,
            proven: 0,
            ended_by_ping: false,
            delivered: false,
            sent: 0,
            received: 0,
        }
    }

    /// Whether to read from the service: not while the local side has yet to take what came before.
    pub(crate) fn wants_wire(&self) -> bool {
        self.reads_on() && !self.inbox.has_payload()
    }

    /// Whether to read on after [`Session::from_wire`], so that more leaves in one write to the local side.
    pub(crate) fn reads_on(&self) -> bool {
        match &self.phase {
            Phase::Fresh | Phase::Live => true,
            Phase::Closing { wire, .. } => matches!(wire, Wire::Open | Wire::ReadOnly),
            Phase::Ended(_) => false,
        }
    }

    /// Where bytes from the service go. Empty when there is no room before the local side has taken some.
    pub(crate) fn wire_space(&mut self) -> &mut [u8] {
        self.inbox.space()
    }

    /// Bytes that came together with the answer to the upgrade.
    pub(crate) fn from_early(&mut self, bytes: &[u8], now: Instant) {
        if !bytes.is_empty() {
            self.inbox.preload(bytes);
            self.from_wire(bytes.len(), now);
        }
    }

    /// `count` bytes came from the service.
    pub(crate) fn from_wire(&mut self, count: usize, now: Instant) {
        self.note_delivery();
        self.inbox.fill(count);
        self.ask_at = now + PING_AFTER;
        self.woken = false;
        self.awaiting_pong = None;
        loop {
            let (payload, found) = self.inbox.next();
            if payload > 0 {
                self.heard_vm(payload, now);
            }
            match found {
                Found::Nothing => return,
                // RFC 6455 §5.5.3 lets a pong answer only the last of several pings: the oldest is what it proves.
                Found::Pong => self.proven = self.asked.take().unwrap_or_default().max(self.proven),
                Found::Ping(_) if matches!(self.phase, Phase::Closing { wire: Wire::ReadOnly, .. }) => {}
                Found::Ping(payload) => self.outbox.push_control(Control::Pong, &payload),
                Found::Close(code, reason) => {
                    // RFC 6455 §5.5.1: the answer echoes the code; §7.4.1: these are never sent.
                    let echoed = code.to_be_bytes();
                    self.cut_short(if matches!(code, 1005 | 1006 | 1015) { &[] } else { &echoed });
                    return self.close(End::Closed { code, reason }, Wire::WriteOnly, now);
                }
                Found::Http(status) => return self.close(End::ProxyRefused { status }, Wire::Gone, now),
                Found::Malformed(what) => {
                    // RFC 6455 §7.4.1: 1002, protocol error.
                    self.cut_short(&1002u16.to_be_bytes());
                    return self.close(End::Malformed(what), Wire::WriteOnly, now);
                }
            }
        }
    }

    /// The service's bytes are over, with or without a close_notify.
    pub(crate) fn wire_eof(&mut self, now: Instant) {
        self.note_delivery();
        let end = if self.inbox.is_http_cut_short() {
            End::ProxyRefused { status: None }
        } else if self.inbox.is_within_frame() {
            End::Broken("the service's bytes end within a frame".into())
        } else {
            End::Eof
        };
        self.close(end, Wire::Gone, now);
    }

    /// Reading from the service failed.
    pub(crate) fn wire_broken(&mut self, error: String, now: Instant) {
        self.close(End::Broken(error), Wire::Gone, now);
    }

    /// Writing to the service failed. What it sent before may still be there to read, so nothing ends yet:
    /// reading finds the end.
    pub(crate) fn wire_deaf(&mut self, error: String, now: Instant) {
        self.outbox.clear();
        let wire = if self.reads_on() { Wire::ReadOnly } else { Wire::Gone };
        self.close(End::Broken(error), wire, now);
    }

    /// Bytes to write to the service.
    pub(crate) fn to_wire(&mut self) -> &[u8] {
        if self.is_replaying() && self.outbox.is_empty() && matches!(self.phase, Phase::Fresh | Phase::Live) {
            let count = self.outbox.put(self.replay.bytes.get(self.replayed..).unwrap_or_default());
            self.replayed += count;
            self.sent += count as u64;
            self.forget_replay();
        }
        self.outbox.pending()
    }

    /// `count` bytes of [`Session::to_wire`] were written.
    pub(crate) fn wrote_wire(&mut self, count: usize) {
        self.outbox.advance(count);
    }

    /// Whether to read from the local side: not while the service has yet to take what came before.
    pub(crate) fn wants_local(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Live)
            && self.linger_until.is_none()
            && self.outbox.is_empty()
            && !self.is_replaying()
    }

    /// Where local bytes go.
    pub(crate) fn local_slots(&mut self) -> Vec<IoSliceMut<'_>> {
        self.outbox.slots()
    }

    /// `count` bytes came from the local side.
    pub(crate) fn from_local(&mut self, count: usize, now: Instant) {
        if matches!(self.phase, Phase::Fresh) {
            if self.replay.bytes.len() + count <= REPLAY_LIMIT {
                self.outbox.copy_unsealed(count, &mut self.replay.bytes);
                self.replayed = self.replay.bytes.len();
            } else {
                self.phase = Phase::Live;
            }
        }
        self.forget_replay();
        self.outbox.seal(count);
        self.sent += count as u64;
        if !self.woken {
            self.ask_at = now + PING_AFTER;
        }
    }

    /// The local side sent its FIN. WebSocket has no half-close: the VM's answer may still come, so the
    /// WebSocket is closed only after a silence (the reference client closes at once and loses the answer).
    pub(crate) fn local_eof(&mut self, now: Instant) {
        self.replay.finished = true;
        self.linger_until = Some(now + self.options.linger);
        self.look = Look { is_due: true, next: Some(now + LOOK_AGAIN), pause: LOOK_AGAIN };
    }

    /// Whether to look if the local side, which has sent its FIN, has gone for good. Says so once for each look.
    pub(crate) fn wants_look(&mut self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Live)
            && !self.is_sending()
            && std::mem::take(&mut self.look.is_due)
    }

    /// The FIN was that of a close: nobody is left to take an answer, and waiting for one would only hold one of
    /// the service's few sessions. What was sent still reaches the VM.
    pub(crate) fn local_gone(&mut self, now: Instant) {
        if let Phase::Fresh | Phase::Live = self.phase {
            self.inbox.discard_payload();
            self.say_goodbye(End::LocalClosed, Wire::Open, now);
        }
    }

    /// The local side is gone, as `end` has it: nobody takes what the VM sends.
    pub(crate) fn local_broken(&mut self, end: End, now: Instant) {
        self.inbox.discard_payload();
        match self.phase {
            Phase::Closing { .. } | Phase::Ended(_) => self.close(end, Wire::Gone, now),
            Phase::Fresh | Phase::Live => self.say_goodbye(end, Wire::WriteOnly, now),
        }
    }

    /// Payload for the local side.
    pub(crate) fn to_local(&self) -> Vec<IoSlice<'_>> {
        self.inbox.payload()
    }

    /// Whether there is payload for the local side.
    pub(crate) fn has_local(&self) -> bool {
        self.inbox.has_payload()
    }

    /// `count` bytes of [`Session::to_local`] were written.
    pub(crate) fn wrote_local(&mut self, count: usize, now: Instant) {
        self.inbox.advance(count);
        // The service could not be heard meanwhile, so its silence begins anew.
        self.ask_at = now + PING_AFTER;
        self.awaiting_pong = self.awaiting_pong.map(|awaited| Awaited::new(awaited.limit, now));
    }

    /// The machine has slept, and the session's clock may have slept with it (clock_gettime(2), `CLOCK_MONOTONIC`):
    /// what died meanwhile is found out now.
    pub(crate) fn woke(&mut self, now: Instant) {
        if self.awaiting_pong.is_none() {
            self.woken = true;
            self.ask_at = now;
        }
    }

    /// No more pings: another connection to this host was ended by one (protocol.md §4).
    pub(crate) fn forbid_pings(&mut self) {
        self.options.ping = Ping::Never;
        self.awaiting_pong = None;
    }

    /// Nothing is to be moved for now: gives back the memory that holds nothing.
    pub(crate) fn rest(&mut self) {
        self.inbox.rest();
        self.outbox.rest();
    }

    /// The tunnel is being shut down. May be told again.
    pub(crate) fn stop(&mut self, now: Instant) {
        self.give_up.get_or_insert(now + CLOSE_WITHIN);
        if let Phase::Fresh | Phase::Live = self.phase {
            self.say_goodbye(End::Stopped, Wire::WriteOnly, now);
        }
    }

    /// When [`Session::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let ping = match (self.options.ping, self.awaiting_pong) {
            (Ping::Never, _) => None,
            // As long as the local side takes nothing we don't listen: the service's silence says nothing.
            (Ping::WhenIdle, _) if self.inbox.has_payload() => None,
            (Ping::WhenIdle, Some(awaited)) => Some(awaited.look),
            (Ping::WhenIdle, None) => Some(self.ask_at),
        };
        match &self.phase {
            Phase::Fresh => {
                let first_byte = self.options.first_byte.map(|limit| self.started + limit);
                [ping, first_byte, self.linger_until, self.look.next].into_iter().flatten().min()
            }
            Phase::Live => [ping, self.linger_until, self.look.next].into_iter().flatten().min(),
            Phase::Closing { wire: Wire::Gone, .. } => self.give_up,
            Phase::Closing { until, .. } => Some(self.give_up.map_or(*until, |at| at.min(*until))),
            Phase::Ended(_) => None,
        }
    }

    /// Time has passed. `standing` asks how TCP sees the connection, where that is known.
    pub(crate) fn tick(&mut self, now: Instant, standing: impl FnOnce() -> Option<Standing>) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let is_sending = self.is_sending();
        match &mut self.phase {
            Phase::Ended(_) => {}
            Phase::Closing { wire, .. } if due(self.give_up) => {
                *wire = Wire::Gone;
                self.give_up = None;
                self.outbox.clear();
                self.inbox.discard_payload();
            }
            // The service may have more to say: we have not listened.
            Phase::Closing { until, wire: Wire::Open | Wire::ReadOnly, .. } if self.inbox.has_payload() => {
                *until = now + CLOSE_WITHIN;
            }
            // Delivery to a slow local side has no deadline of ours; frames to the service have.
            Phase::Closing { wire, .. } => {
                *wire = Wire::Gone;
                self.outbox.clear();
            }
            Phase::Fresh if due(self.options.first_byte.map(|limit| self.started + limit)) => {
                self.say_goodbye(End::Silent, Wire::WriteOnly, now);
            }
            // The VM can't answer what it has not got.
            Phase::Fresh | Phase::Live if due(self.linger_until) && is_sending => {
                self.linger_until = Some(now + self.options.linger);
            }
            Phase::Fresh | Phase::Live if due(self.linger_until) => {
                self.say_goodbye(End::LocalClosed, Wire::Open, now);
            }
            Phase::Fresh | Phase::Live if due(self.look.next) => {
                self.look.pause *= 2;
                self.look.next = Some(now + self.look.pause);
                self.look.is_due = true;
            }
            Phase::Fresh | Phase::Live => self.ask(standing(), now),
        }
    }

    /// Finds out whether the service is still there. Its silence proves something only when nothing of ours waits to
    /// leave; while something does, its acknowledgements do. A service that takes nothing and answers TCP's probes is
    /// one whose VM pauses, for as long as it likes.
    fn ask(&mut self, tcp: Option<Standing>, now: Instant) {
        let waiting = tcp.filter(|tcp| tcp.waiting > 0);
        let given_up = waiting.is_some_and(|tcp| tcp.unanswered >= UNANSWERED && tcp.quiet >= UNANSWERED_FOR);
        let is_sending = self.is_sending();
        match &mut self.awaiting_pong {
            _ if given_up => self.close(End::Dead, Wire::Gone, now),
            Some(awaited) if now < awaited.since + awaited.limit => awaited.look = now + PONG_WITHIN,
            Some(_) => self.close(End::Dead, Wire::Gone, now),
            // A ping would stand behind it.
            None if waiting.is_some() || is_sending => self.ask_at = now + PONG_WITHIN,
            None => {
                let is_surely_taken = self.sent - self.proven <= SURELY_TAKEN;
                let limit = if is_surely_taken { PONG_WITHIN } else { PONG_BEHIND_DATA_WITHIN };
                self.outbox.push_control(Control::Ping, b"");
                self.awaiting_pong = Some(Awaited::new(limit, now));
                self.asked.get_or_insert(self.sent);
                self.ask_at = now + PING_AFTER;
                // What died while the machine slept did not die of the first ping behind it.
                if !std::mem::take(&mut self.woken) {
                    self.first_ping.get_or_insert(now);
                }
            }
        }
    }

    /// How it ended, once everything that had arrived is delivered and every frame that matters is written.
    pub(crate) fn end(&mut self) -> Option<&End> {
        if let Phase::Closing { end, wire, .. } = &self.phase {
            let delivered = !self.inbox.has_payload();
            let over = match wire {
                Wire::Open | Wire::ReadOnly => false,
                Wire::WriteOnly => self.outbox.is_empty(),
                Wire::Gone => true,
            };
            if delivered && over {
                self.phase = Phase::Ended(end.clone());
            }
        }
        match &self.phase {
            Phase::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Whether the VM was heard, or so much was sent that it can't be sent again.
    pub(crate) fn heard(&self) -> Heard {
        match self.received {
            0 if self.sent > REPLAY_LIMIT as u64 => Heard::Something,
            0 if self.delivered => Heard::NoAnswer,
            0 => Heard::Nothing,
            _ => Heard::Something,
        }
    }

    /// What another attempt has to send again.
    pub(crate) fn into_replay(self) -> Replay {
        self.replay
    }

    /// Payload bytes taken from the local side in this session, replayed ones included.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Payload bytes that came from the VM.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the service ended the session so soon after its first ping that the ping is to blame.
    pub(crate) fn was_ended_by_ping(&self) -> bool {
        self.ended_by_ping
    }

    fn heard_vm(&mut self, payload: usize, now: Instant) {
        self.received += payload as u64;
        self.proven = self.sent.min(self.proven + SURELY_TAKEN);
        match &mut self.phase {
            Phase::Fresh => self.phase = Phase::Live,
            Phase::Closing { until, .. } => *until = now + CLOSE_WITHIN,
            Phase::Live | Phase::Ended(_) => {}
        }
        self.forget_replay();
        if let Some(until) = &mut self.linger_until {
            *until = now + self.options.linger;
        }
    }

    fn note_delivery(&mut self) {
        if self.replay.finished && matches!(self.phase, Phase::Fresh | Phase::Live) {
            self.delivered = self.sent > 0 && !self.is_sending();
        }
    }

    /// Drops what can't be needed any more.
    fn forget_replay(&mut self) {
        if matches!(self.phase, Phase::Live) && !self.is_replaying() {
            self.replay.bytes = Vec::new();
            self.replayed = 0;
        }
    }

    /// Whether local bytes have yet to leave.
    fn is_sending(&self) -> bool {
        self.is_replaying() || !self.outbox.is_empty()
    }

    /// Whether bytes of an earlier attempt are still to be framed.
    fn is_replaying(&self) -> bool {
        self.replayed < self.replay.bytes.len()
    }

    /// Our close frame in place of everything that the service would not read any more. The first one counts.
    fn cut_short(&mut self, payload: &[u8]) {
        if let Phase::Fresh | Phase::Live = self.phase {
            self.outbox.drop_unstarted();
            self.outbox.push_control(Control::Close, payload);
        }
    }

    /// Our close frame, behind what is already framed (RFC 6455 §7.4.1: 1000, normal closure).
    fn say_goodbye(&mut self, end: End, wire: Wire, now: Instant) {
        self.outbox.push_control(Control::Close, &1000u16.to_be_bytes());
        self.close(end, wire, now);
    }

    fn close(&mut self, end: End, wire: Wire, now: Instant) {
        if wire == Wire::Gone {
            self.outbox.clear();
        }
        match &mut self.phase {
            Phase::Ended(_) => {}
            // The first reason is the reason; what the other side does about it comes later.
            Phase::Closing { wire: old, .. } => *old = wire,
            Phase::Fresh | Phase::Live => {
                self.ended_by_ping = matches!(end, End::Closed { .. } | End::Eof | End::Broken(_))
                    && self.first_ping.is_some_and(|at| now < at + PING_SUSPICION);
                self.phase = Phase::Closing { end, until: now + CLOSE_WITHIN, wire };
            }
        }
    }
}

#[cfg(test)]
mod ends;
#[cfg(any(test, fuzzing))]
#[expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a judge of tests fails by panicking"
)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
