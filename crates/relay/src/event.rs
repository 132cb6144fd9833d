//! What happens to connections, for whoever wants to tell. It leaves out telling.

use bastide_core::causes;
use std::time::Duration;

use crate::Error;

/// Something that happened to one connection. Never holds a secret.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A local program connected.
    Opened {
        /// The connection's number, from 1.
        id: u64,
        /// Who connected, as far as known.
        peer: String,
    },
    /// A WebSocket is open, over which bytes can go; once an attempt.
    Connected {
        /// The connection's number.
        id: u64,
    },
    /// An attempt failed and another will be made.
    Retry {
        /// The connection's number.
        id: u64,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// How it failed.
        reason: String,
        /// The pause before the next.
        pause: Duration,
    },
    /// A connection is over.
    Closed {
        /// The connection's number.
        id: u64,
        /// Its account.
        account: Account,
    },
    /// A token was given back.
    Released {
        /// The connection that used it; 0 for one that no connection used.
        id: u64,
    },
    /// A token could not be given back; the service ends it at its own idle time-out.
    Leaked {
        /// The connection that used it.
        id: u64,
        /// Why.
        reason: String,
    },
}

/// Bytes that have moved since the last time that it was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the local side to the VM.
    pub sent: u64,
    /// From the VM to the local side.
    pub received: u64,
}

/// What one connection came to.
#[derive(Debug, Clone)]
pub struct Account {
    /// Who connected, as far as known.
    pub peer: String,
    /// How it ended: a [`bastide_core::End`], or the error that kept it from opening.
    pub outcome: Result<bastide_core::End, Error>,
    /// Bytes from the local side to the VM.
    pub sent: u64,
    /// Bytes from the VM to the local side.
    pub received: u64,
    /// From accept to end.
    pub elapsed: Duration,
}

impl Account {
    /// Why it ended, in words.
    pub fn reason(&self) -> String {
        match &self.outcome {
            Ok(end) => end.to_string(),
            Err(error) => causes(error).join(": "),
        }
    }
}
