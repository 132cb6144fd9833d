//! Misbehaviour on command: which faults there are, which are ordered, and who asks for them. A
//! fault strikes requests (`answers.rs`) or tunnels (`data_plane/mishap.rs`); how an order is
//! written is `notation.rs`. Without an order nothing here is asked more than once a request and
//! once a tunnel.

mod answers;
mod notation;

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::transcript::Kind;

pub(crate) use answers::{Cut, answer};
pub use notation::Error;

/// Something that the live service does, and that a laboratory would not.
///
/// Each variant names its source: a row of the table in protocol.md §4, or the section that makes it
/// possible. A fault of requests strikes a request of its kind; a fault of tunnels strikes a WebSocket
/// when it is opened, and is counted then; clearing the orders does not save it. The list is exhaustive, so that tests can be too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Another answer instead of the work: no token is minted or released, but the token of an upgrade is
    /// used up. Source: §4, 401/403 with a message and the catch-all, 5xx and 429 on `/api/tokens`; §2
    /// for ARM; RFC 6749 section 5.2 for Entra ID.
    Status {
        /// Which requests.
        #[serde(flatten)]
        on: Requests,
        /// Status, 200 to 599.
        #[serde(deserialize_with = "notation::status")]
        status: u16,
        /// Form of the body.
        #[serde(default)]
        body: Body,
        /// What a JSON body says; the catch-all of the live service when left out.
        #[serde(default = "notation::catch_all")]
        message: String,
        /// The header `Retry-After`, whatever its text.
        #[serde(default, deserialize_with = "notation::text")]
        retry_after: Option<String>,
    },
    /// The work is done, then half of the answer's body, then the connection ends without close_notify.
    /// Source: §3 step 1, any answer has to become a readable error.
    Half {
        /// Which requests.
        #[serde(flatten)]
        on: Requests,
    },
    /// No answer until the orders are replaced or cleared; then the work is done and answered as ever.
    /// Source: §4, a deadline for everything that may stay silent.
    Hold {
        /// Which requests.
        #[serde(flatten)]
        on: Requests,
    },
    /// TCP RST instead of the work and of an answer. Source: §4, reset on `/api/tokens`.
    Reset {
        /// Which requests.
        #[serde(flatten)]
        on: Requests,
    },
    /// The work is done, and its JSON answer lacks a field. Source: §3 step 1, a missing field is an error.
    MissingField {
        /// Which requests.
        #[serde(flatten)]
        on: Requests,
        /// Name of the field, at the top of the body.
        field: String,
    },
    /// All access tokens issued so far stop being accepted, at the moment of the order; it does not stay in
    /// the list. Source: §4, the access token expires while the listener lives on.
    ExpiredTokens,
    /// `101` with odd headers. Source: §4, `101` without `Upgrade:` / `Connection:`.
    Handshake {
        /// What is odd.
        flaw: Flaw,
    },
    /// `101`, then a raw `HTTP/1.1 400` of a Tomcat instead of frames. Source: §4, `101` from the proxy
    /// layer.
    RawPage {
        /// Bytes of each part that is sent by itself; all at once when left out.
        #[serde(default)]
        piece: Option<NonZeroUsize>,
        /// What comes after it.
        #[serde(default)]
        then: Then,
    },
    /// The end of a tunnel that the client does not expect. Source: §4, close codes, EOF or reset before
    /// the first byte; closed at once after the client's first bytes.
    Ending {
        /// How.
        how: Ending,
        /// When.
        #[serde(default)]
        at: At,
    },
    /// A tunnel that stays open and carries nothing, not even pongs. Source: §4, `101` then nothing for
    /// ever; silently dead after minutes to hours.
    Silence {
        /// From when on.
        #[serde(default)]
        at: At,
        /// Which way.
        #[serde(default)]
        direction: Direction,
    },
    /// The client's pings are not answered; all else goes on. Source: §4, pings and what becomes of them.
    PingIgnored,
    /// TCP RST at the client's first ping. Source: §4, pings said to cause resets.
    PingReset,
    /// Frames towards the client that are allowed and rare; several orders add up. Source: §4, messages
    /// above 32 KiB, text or continuation frames; §3 step 3, empty frames, and pings at any time.
    Frames {
        /// What is rare about them.
        form: Form,
    },
}

/// Requests that a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// What they are for.
    #[serde(rename = "on")]
    pub kind: Kind,
    /// A part of their path and query, in any case; empty = all.
    #[serde(default)]
    pub path: String,
}

impl From<Kind> for Requests {
    fn from(kind: Kind) -> Requests {
        Requests { kind, path: String::new() }
    }
}

/// Form of an answer's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// An error of the service that is asked, in its own form.
    #[default]
    Json,
    /// A page of a proxy in front of it.
    Html,
    /// Nothing.
    Empty,
}

/// What is odd about the headers of a `101`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// Neither `Upgrade` nor `Connection`.
    NoHeaders,
    /// `Connection: keep-alive, Upgrade`
    KeepAlive,
    /// A `Sec-WebSocket-Accept` of another key.
    WrongAccept,
}

/// What comes after a raw page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// close_notify.
    #[default]
    Close,
    /// Nothing: the connection stays open.
    Stay,
}

/// An end of a tunnel. Written `close:1011`, `close_notify`, `fin`, `reset`, `truncated` or `garbage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Ending {
    /// A Close frame with this code. 1006 is never sent (RFC 6455 section 7.4.1): it is close_notify alone.
    Close(u16),
    /// close_notify without a Close frame.
    CloseNotify,
    /// TCP FIN without close_notify.
    Fin,
    /// TCP RST.
    Reset,
    /// Half a frame, then close_notify.
    Truncated,
    /// Bytes that are no TLS record of this connection, then TCP FIN.
    Garbage,
}

/// A point in the life of a tunnel. Written `upgrade`, `vm:BYTES`, `client:BYTES` or `now`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum At {
    /// After the 101, before anything else.
    #[default]
    Upgrade,
    /// When exactly so many bytes from the VM have been sent to the client.
    Vm(u64),
    /// When at least so many payload bytes have come from the client, before the VM gets them.
    Client(u64),
    /// When it is ordered, in tunnels that are open then, and in no other.
    Now,
}

/// Ways of a tunnel that are dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both.
    #[default]
    Both,
    /// Nothing reaches the client; the VM goes on reading.
    ToClient,
    /// Nothing reaches the VM; what it says goes on reaching the client.
    ToVm,
}

/// What is rare about frames towards the client. Written `text`, `fragmented`, `empty`, `pings` or
/// `large:BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Form {
    /// Text frames, whatever is in them.
    Text,
    /// Each message in two frames.
    Fragmented,
    /// An empty message before each message.
    Empty,
    /// A ping before each frame; the transcript counts right pongs.
    Pings,
    /// Frames as large as what the VM has to say, up to so many bytes.
    Large(NonZeroUsize),
}

/// A fault and how often it is to strike.
///
/// As a table: `{"fault": "status", "on": "mint", "status": 503, "times": 2}`. As a word for the command
/// line: `status:on=mint,status=503,times=2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
    /// How often; none = always.
    pub times: Option<u32>,
}

impl From<Fault> for Order {
    /// Always.
    fn from(fault: Fault) -> Order {
        Order { fault, times: None }
    }
}

impl Fault {
    /// As an order that is carried out so many times.
    pub fn times(self, times: u32) -> Order {
        Order { fault: self, times: Some(times) }
    }

    /// Its name in orders and in the transcript.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Status { .. } => "status",
            Fault::Half { .. } => "half",
            Fault::Hold { .. } => "hold",
            Fault::Reset { .. } => "reset",
            Fault::MissingField { .. } => "missing_field",
            Fault::ExpiredTokens => "expired_tokens",
            Fault::Handshake { .. } => "handshake",
            Fault::RawPage { .. } => "raw_page",
            Fault::Ending { .. } => "ending",
            Fault::Silence { .. } => "silence",
            Fault::PingIgnored => "ping_ignored",
            Fault::PingReset => "ping_reset",
            Fault::Frames { .. } => "frames",
        }
    }

    /// The requests that it strikes; none for faults of tunnels.
    fn requests(&self) -> Option<&Requests> {
        match self {
            Fault::Status { on, .. }
            | Fault::Half { on }
            | Fault::Hold { on }
            | Fault::Reset { on }
            | Fault::MissingField { on, .. } => Some(on),
            Fault::ExpiredTokens
            | Fault::Handshake { .. }
            | Fault::RawPage { .. }
            | Fault::Ending { .. }
            | Fault::Silence { .. }
            | Fault::PingIgnored
            | Fault::PingReset
            | Fault::Frames { .. } => None,
        }
    }
}

/// An order that stands, and how often it has struck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The order.
    #[serde(flatten)]
    pub order: Order,
    /// How often it has struck.
    pub struck: u32,
}

impl Standing {
    fn strike<T>(&mut self, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        if self.order.times.is_some_and(|times| self.struck >= times) {
            return None;
        }
        let picked = pick(&self.order.fault)?;
        self.struck = self.struck.saturating_add(1);
        Some(picked)
    }
}

/// The orders that stand. The first one that fits and is not used up strikes.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    set: Mutex<Set>,
}

/// Replaced as a whole.
#[derive(Debug, Default)]
struct Set {
    standing: Vec<Standing>,
    /// Cancelled when another set takes its place.
    replaced: CancellationToken,
}

impl Faults {
    /// Replaces all orders and lets go of whatever is held.
    pub(crate) fn replace(&self, orders: Vec<Order>) {
        let standing = orders.into_iter().map(|order| Standing { order, struck: 0 }).collect();
        let new = Set { standing, replaced: CancellationToken::new() };
        let old = std::mem::replace(&mut *self.lock(), new);
        old.replaced.cancel();
    }

    /// The orders that stand, used up or not.
    pub(crate) fn standing(&self) -> Vec<Standing> {
        self.lock().standing.clone()
    }

    /// Is cancelled when the orders are replaced.
    pub(crate) fn replaced(&self) -> CancellationToken {
        self.lock().replaced.clone()
    }

    /// What is picked from the first order that is not used up and fits, which counts as a strike; and the
    /// token that is cancelled when the orders are replaced.
    pub(crate) fn strike<T>(&self, pick: impl Fn(&Fault) -> Option<T>) -> Option<(T, CancellationToken)> {
        let mut set = self.lock();
        let picked = set.standing.iter_mut().find_map(|standing| standing.strike(&pick))?;
        Some((picked, set.replaced.clone()))
    }

    /// As above, of all orders that fit.
    pub(crate) fn strike_all<T>(&self, pick: impl Fn(&Fault) -> Option<T>) -> Vec<T> {
        self.lock().standing.iter_mut().filter_map(|standing| standing.strike(&pick)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        // A list that is replaced as a whole: a panic elsewhere leaves nothing half done.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_as_often_as_ordered_in_the_order_of_the_list() {
        let faults = Faults::default();
        let name = |faults: &Faults| faults.strike(|fault| Some(fault.name())).map(|(name, _)| name);
        assert_eq!(name(&faults), None);
        faults.replace(vec![Fault::PingIgnored.times(2), Fault::PingReset.into()]);
        let seen: Vec<_> = (0..4).map(|_| name(&faults)).collect();
        assert_eq!(
            seen,
            [Some("ping_ignored"), Some("ping_ignored"), Some("ping_reset"), Some("ping_reset")]
        );
        let struck: Vec<_> = faults.standing().iter().map(|standing| standing.struck).collect();
        assert_eq!(struck, [2, 2]);
        assert_eq!(faults.strike(|_| None::<()>).map(|_| ()), None);
    }

    #[test]
    fn who_is_held_is_let_go_when_the_orders_are_replaced() {
        let faults = Faults::default();
        faults.replace(vec![Fault::PingReset.into()]);
        let (_, held) = faults.strike(|_| Some(())).unwrap();
        assert!(!held.is_cancelled());
        faults.replace(Vec::new());
        assert!(held.is_cancelled() && !faults.replaced().is_cancelled());
    }
}
