//! Moves one connection's bytes through Azure Bastion and never forgets a token. It knows neither how a sign-in
//! works nor how a Bastion host is found: a [`bastide_core::Provider`] and a [`bastide_core::Plan`] come from
//! outside.
//!
//! A connection's path is [`Relay::carry`]: authorise, mint beside dial, upgrade, relay, judge, release. What
//! happens on it is told to an [`Observer`].

mod dues;
mod error;
mod event;
#[cfg(fuzzing)]
pub mod fuzzing;
mod inbox;
mod lease;
mod ledger;
mod local;
mod mint;
mod outbox;
mod pump;
mod rdp;
mod relay;
mod session;
mod stock;
mod sys;
mod vigil;

use std::sync::Arc;

pub use dues::Dues;
pub use error::{Error, Wanted};
pub use event::{Account, Event, Moved};
pub use lease::give_back;
pub use ledger::{Debt, Entry, Ledger};
pub use local::{Halves, Local};
pub use relay::{Keepalive, Options, Relay, VmState, Witness};

/// Who is told what happens. Called from the tasks that carry connections, so it must not block.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// Says to the service who asks.
const USER_AGENT: &str = concat!("bastide/", env!("CARGO_PKG_VERSION"));

/// A moment for tests to count from: fed instants need one, and the session's own files read no clock.
#[cfg(any(test, fuzzing))]
fn any_instant() -> std::time::Instant {
    std::time::Instant::now()
}
