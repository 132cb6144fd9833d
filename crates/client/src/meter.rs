//! What a forwarding carries, while it does. It leaves out accounts of single connections, which come at their end.

use std::sync::atomic::{AtomicU64, Ordering};

use bastide_relay::Moved;

/// Counts connections and bytes. Read it at any time; the numbers are of the same moment only when nothing moves.
#[derive(Debug, Default)]
pub struct Meter {
    open: AtomicU64,
    accepted: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Meter {
    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections so far, those that are open among them.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Bytes from local programs to the VM. What another attempt sends again counts again.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes from the VM to local programs.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, moved: Moved) {
        self.sent.fetch_add(moved.sent, Ordering::Relaxed);
        self.received.fetch_add(moved.received, Ordering::Relaxed);
    }

    /// Counts a connection for as long as the value lives.
    pub(crate) fn connection(self: &std::sync::Arc<Self>) -> Counted {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Counted(std::sync::Arc::clone(self))
    }
}

/// A connection that is counted as open.
pub(crate) struct Counted(std::sync::Arc<Meter>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
