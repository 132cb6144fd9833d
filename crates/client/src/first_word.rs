//! Who says the first word over a connection, and how long it is waited for. It leaves out what is done when nothing
//! comes (`bastide-relay`).

use std::time::Duration;

/// Who says the first word over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstWord {
    /// The VM: SSH (RFC 4253 §4.2).
    Vm,
    /// Nobody knows.
    Either,
}

impl FirstWord {
    /// On a port that is known for a protocol.
    pub fn on(port: u16) -> Self {
        if port == SSH_PORT { FirstWord::Vm } else { FirstWord::Either }
    }

    /// How long one attempt waits for it ([`crate::RelayOptions::first_byte`]): half of the time that all attempts
    /// have, so that a second one has as long. By default these are the 30 s that agentbaker gives the whole SSH
    /// handshake (peers.md F31).
    pub fn within(self, connect_timeout: Duration) -> Option<Duration> {
        (self == FirstWord::Vm).then_some(connect_timeout / 2)
    }
}

/// RFC 4253 §4.1.
const SSH_PORT: u16 = 22;
