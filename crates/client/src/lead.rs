//! What a forwarding leads to: a relay that is there, or one that the first connection brings about. It leaves out
//! listening (`tunnel`), and how a relay comes about, which whoever wants it knows.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bastide_relay::Relay;
use futures_util::FutureExt as _;
use futures_util::future::Shared;

/// A relay that is being opened; none when that failed, of which whoever opens it has told.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Option<Relay>> + Send>>;

/// Clones lead to the same relay.
#[derive(Clone)]
pub(crate) enum Lead {
    /// It is there.
    Open(Relay),
    /// The first connection has it opened.
    Lazy(Arc<Lazy>),
}

pub(crate) struct Lazy {
    open: Box<dyn Fn() -> Opening + Send + Sync>,
    opening: Mutex<Option<Shared<Opening>>>,
}

impl Lead {
    /// One that is opened by the first connection that wants it. After a failure the next connection tries again.
    pub(crate) fn lazy(open: impl Fn() -> Opening + Send + Sync + 'static) -> Self {
        Self::Lazy(Arc::new(Lazy { open: Box::new(open), opening: Mutex::new(None) }))
    }

    /// The relay. Who comes while it is being opened waits for the same attempt.
    ///
    /// Cancel safe: the attempt goes on with the next one who asks.
    pub(crate) async fn relay(&self) -> Option<Relay> {
        let opening = match self {
            Lead::Open(relay) => return Some(relay.clone()),
            Lead::Lazy(lazy) => lazy.opening(),
        };
        opening.await
    }

    /// The relay, if it is there.
    pub(crate) fn opened(&self) -> Option<Relay> {
        match self {
            Lead::Open(relay) => Some(relay.clone()),
            Lead::Lazy(lazy) => lazy.lock().as_ref()?.peek()?.clone(),
        }
    }
}

impl Lazy {
    fn opening(&self) -> Shared<Opening> {
        let mut opening = self.lock();
        let has_failed = |opening: &Shared<Opening>| matches!(opening.peek(), Some(None));
        match &*opening {
            Some(opening) if !has_failed(opening) => opening.clone(),
            _ => opening.insert((self.open)().shared()).clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Shared<Opening>>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn many_share_an_attempt_and_a_failure_is_tried_again() {
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&attempts);
        let lead = Lead::lazy(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                yield_now().await;
                None
            })
        });
        assert!(lead.opened().is_none());
        let (first, second) = tokio::join!(lead.relay(), lead.relay());
        assert!(first.is_none() && second.is_none());
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
        assert!(lead.relay().await.is_none());
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
    }
}
