//! Leases that are minted ahead of the connections that take them: the one that proves a tunnel, and those of
//! [`Options::prefetch`](crate::Options::prefetch). It leaves out minting (`mint`) and giving back (`lease`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::lease::Lease;
use crate::mint::Gate;

/// The leases that no connection uses yet.
pub(crate) struct Stock {
    gate: Gate,
    /// How many [`Stock::fill`] sees to.
    wanted: usize,
    stop: CancellationToken,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// The number of the newest.
    last: u64,
    /// Oldest first.
    ready: VecDeque<Ready>,
    /// Mints of [`Stock::fill`] under way.
    coming: usize,
}

struct Ready {
    number: u64,
    lease: Lease,
    /// When it is given back.
    until: Instant,
}

/// Leases are kept for so long after the last connection was opened: what cli.md, "Output", gives the lease that
/// proves a tunnel.
const KEPT: Duration = Duration::from_secs(30);

/// Leases minted ahead at most: half of the 40 SSH sessions of one instance (protocol.md §4), so that a tunnel
/// that nobody uses leaves room for others.
pub(crate) const MOST_AHEAD: usize = 20;

impl Stock {
    /// An empty one, where [`Stock::fill`] sees to `wanted` leases.
    pub(crate) fn new(gate: Gate, wanted: usize, stop: CancellationToken) -> Arc<Self> {
        let wanted = wanted.min(MOST_AHEAD);
        Arc::new(Self { gate, wanted, stop, shelf: Mutex::default() })
    }

    /// How many leases [`Stock::fill`] sees to.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Keeps a lease for the next connection, or gives it back after `keep`.
    pub(crate) fn put(self: &Arc<Self>, lease: Lease, keep: Duration) {
        self.shelve(&mut self.shelf(), lease, keep);
    }

    /// Whether there is a lease for the next connection.
    pub(crate) fn is_ready(&self) -> bool {
        !self.shelf().ready.is_empty()
    }

    /// The lease that has waited longest.
    pub(crate) fn take(&self) -> Option<Lease> {
        self.shelf().ready.pop_front().map(|ready| ready.lease)
    }

    /// Mints in the background what is missing. Called for each connection that was opened: while some come, what
    /// is ready stays so. A mint that fails is not tried again before the next connection, which tells why.
    pub(crate) fn fill(self: &Arc<Self>) {
        if self.wanted == 0 || self.stop.is_cancelled() {
            return;
        }
        let mut shelf = self.shelf();
        let until = Instant::now() + KEPT;
        for ready in &mut shelf.ready {
            ready.until = ready.until.max(until);
        }
        let missing = self.wanted.saturating_sub(shelf.ready.len() + shelf.coming);
        shelf.coming += missing;
        for _ in 0..missing {
            let stock = Arc::clone(self);
            self.gate.reaper.adopt(async move { stock.mint().await });
        }
    }

    /// Gives everything back.
    pub(crate) fn clear(&self) {
        let leases = std::mem::take(&mut self.shelf().ready);
        drop(leases);
    }

    async fn mint(self: Arc<Self>) {
        // Stopped in the middle, the mint goes on in a task of its own and its lease is given back.
        let minted = self.stop.run_until_cancelled(self.gate.prepare()).await;
        let mut shelf = self.shelf();
        shelf.coming -= 1;
        match minted {
            Some(Ok(lease)) => self.shelve(&mut shelf, lease, KEPT),
            Some(Err(failure)) => tracing::debug!(error = %failure.error, "no lease was minted ahead"),
            None => {}
        }
    }

    fn shelve(self: &Arc<Self>, shelf: &mut Shelf, lease: Lease, keep: Duration) {
        // Once stopped, nobody clears the shelf again: the lease is dropped here, and so released.
        if self.stop.is_cancelled() {
            return;
        }
        shelf.last += 1;
        let number = shelf.last;
        shelf.ready.push_back(Ready { number, lease, until: Instant::now() + keep });
        let stock = Arc::clone(self);
        self.gate.reaper.adopt(async move { stock.watch(number).await });
    }

    /// Gives a lease back when its time is over, which may be put off meanwhile.
    async fn watch(&self, number: u64) {
        while let Some(until) = self.until(number) {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep_until(until) => {}
            }
            let over = self.overdue(number);
            drop(over);
        }
    }

    fn until(&self, number: u64) -> Option<Instant> {
        self.shelf().ready.iter().find(|ready| ready.number == number).map(|ready| ready.until)
    }

    /// Takes a lease off the shelf if its time is over.
    fn overdue(&self, number: u64) -> Option<Ready> {
        let mut shelf = self.shelf();
        let now = Instant::now();
        let place = shelf.ready.iter().position(|ready| ready.number == number && ready.until <= now)?;
        shelf.ready.remove(place)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Nothing that holds the lock can panic; if it did, the leases would still be whole.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
