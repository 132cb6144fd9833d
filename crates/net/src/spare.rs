//! Connections that are opened ahead of whoever will want them, so that asking for one costs no round trip. Leaves
//! out how a connection is opened, which is `dial`, and who will want it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Origin;
use crate::dial::Dialer;
use crate::http::IDLE_TIMEOUT;
use crate::wire::Wire;

/// The spare connections of one [`Network`](crate::Network).
#[derive(Default)]
pub(crate) struct Spares {
    shelf: Arc<Shelf>,
    /// Owns one task for each spare: it opens it, and closes it when its time is over. Dropped with the network,
    /// which ends them.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Shelf(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    /// The number of the newest.
    last: u64,
    spares: Vec<Spare>,
}

struct Spare {
    number: u64,
    origin: Origin,
    /// None while it is being opened.
    wire: Option<Wire>,
    /// Its task ends when this is dropped.
    _kept: oneshot::Sender<()>,
}

impl Spares {
    /// A connection to `origin` that was opened ahead and is still open, as far as this end knows.
    pub(crate) fn take(&self, origin: &Origin) -> Option<Wire> {
        let mut slots = self.shelf.slots();
        loop {
            let usable = |spare: &Spare| spare.origin == *origin && spare.wire.is_some();
            // The youngest is the likeliest to be alive.
            let place = slots.spares.iter().rposition(usable)?;
            let mut wire = slots.spares.remove(place).wire?;
            if is_quiet(&mut wire) {
                return Some(wire);
            }
            tracing::debug!(%origin, "the other end has closed a spare connection");
        }
    }

    /// Opens connections to `origin` in the background until `count` are there or on their way.
    pub(crate) fn stock(&self, dialer: &Dialer, origin: &Origin, count: usize) {
        // Outside a runtime there is nobody to open anything for.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        let mut slots = self.shelf.slots();
        let there = slots.spares.iter().filter(|spare| spare.origin == *origin).count();
        let room = MAX_SPARES.saturating_sub(slots.spares.len());
        for _ in 0..count.saturating_sub(there).min(room) {
            slots.last += 1;
            let number = slots.last;
            let (kept, gone) = oneshot::channel();
            slots.spares.push(Spare { number, origin: origin.clone(), wire: None, _kept: kept });
            let (shelf, dialer, origin) = (Arc::clone(&self.shelf), dialer.clone(), origin.clone());
            tasks.spawn_on(async move { shelf.keep(number, &dialer, &origin, gone).await }, &runtime);
        }
    }
}

impl Shelf {
    /// One spare from its beginning to its end, unless it is taken before that.
    async fn keep(&self, number: u64, dialer: &Dialer, origin: &Origin, gone: oneshot::Receiver<()>) {
        match Box::pin(dialer.dial(origin)).await {
            Ok(wire) => {
                if let Some(spare) = self.slots().spares.iter_mut().find(|spare| spare.number == number) {
                    spare.wire = Some(wire);
                }
                // Over, or taken.
                drop(timeout(IDLE_TIMEOUT, gone).await);
            }
            // Whoever wants a connection meets the same fault, and tells it.
            Err(error) => tracing::debug!(%origin, %error, "no spare connection"),
        }
        self.slots().spares.retain(|spare| spare.number != number);
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // A panic while the lock is held leaves every spare whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the other end has said nothing: neither bytes, which nobody has asked for, nor an end.
fn is_quiet(wire: &mut Wire) -> bool {
    let mut byte = [0];
    let mut into = ReadBuf::new(&mut byte);
    Pin::new(wire).poll_read(&mut Context::from_waker(Waker::noop()), &mut into).is_pending()
}

/// Spare connections to all origins together: the 20 leases that a tunnel may have minted ahead, and some for
/// others that share the network.
const MAX_SPARES: usize = 32;
