//! What a forwarding carries, while it does. It leaves out accounts of single connections, which come at their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bastide_relay::Moved;

/// Counts connections and bytes. Read it at any time; the numbers are of the same moment only when nothing moves.
#[derive(Debug, Default)]
pub struct Meter {
    open: AtomicU64,
    accepted: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    whole: Option<Arc<Meter>>,
}

impl Meter {
    /// One whose every count is one of `whole`'s too: that of a connection, of what it belongs to.
    pub fn within(whole: &Arc<Self>) -> Self {
        Self { whole: Some(Arc::clone(whole)), ..Self::default() }
    }

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
        if let Some(whole) = &self.whole {
            whole.add(moved);
        }
    }

    /// Counts a connection for as long as the value lives.
    pub(crate) fn connection(self: &Arc<Self>) -> Counted {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        let whole = self.whole.as_ref().map(|whole| Box::new(whole.connection()));
        Counted { meter: Arc::clone(self), _whole: whole }
    }
}

/// A connection that is counted as open.
pub(crate) struct Counted {
    meter: Arc<Meter>,
    _whole: Option<Box<Counted>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.meter.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_part_counts_is_counted_in_the_whole() {
        let whole = Arc::new(Meter::default());
        let parts = [Arc::new(Meter::within(&whole)), Arc::new(Meter::within(&whole))];
        let connections = [parts[0].connection(), parts[1].connection()];
        parts[0].add(Moved { sent: 5, received: 7 });
        parts[1].add(Moved { sent: 20, received: 1 });
        let counts = |meter: &Meter| (meter.accepted(), meter.open(), meter.sent(), meter.received());
        assert_eq!(counts(&parts[0]), (1, 1, 5, 7));
        assert_eq!(counts(&whole), (2, 2, 25, 8));
        drop(connections);
        assert_eq!(counts(&whole), (2, 0, 25, 8));
    }
}
