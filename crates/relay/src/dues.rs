//! What is owed to the service: mints under way, and minted tokens that have not been given back. It leaves out giving
//! back (`lease`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What several relays owe together, for whoever ends the process or whatever they were opened with. A cheap handle:
/// clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Dues {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    open: TaskTracker,
    leaked: AtomicU64,
    whole: Option<Dues>,
}

/// Something owed, until it is dropped.
pub(crate) struct Due {
    _own: TaskTrackerToken,
    _whole: Option<Box<Due>>,
}

impl Dues {
    /// Those of a part, which are `whole`'s too.
    pub(crate) fn within(whole: &Dues) -> Self {
        Self { shared: Arc::new(Shared { whole: Some(whole.clone()), ..Shared::default() }) }
    }

    pub(crate) fn due(&self) -> Due {
        let whole = self.shared.whole.as_ref().map(|whole| Box::new(whole.due()));
        Due { _own: self.shared.open.token(), _whole: whole }
    }

    /// Runs a task that is owed until it ends.
    pub(crate) fn spawn(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        let due = self.due();
        runtime.spawn(async move {
            task.await;
            drop(due);
        });
    }

    /// Notes a token that could not be given back.
    pub(crate) fn note_leak(&self) {
        self.shared.leaked.fetch_add(1, Ordering::Relaxed);
        if let Some(whole) = &self.shared.whole {
            whole.note_leak();
        }
    }

    /// Waits until nothing is owed any more, at most for `grace`; how many tokens were not given back. Relays that are
    /// still in use go on, and are waited for.
    ///
    /// Cancel safe: giving back goes on.
    pub async fn settle(&self, grace: Duration) -> u64 {
        let open = &self.shared.open;
        // Closed, it can be waited for; what comes later is counted all the same.
        open.close();
        let left = match timeout(grace, open.wait()).await {
            Ok(()) => 0,
            Err(_) => open.len() as u64,
        };
        self.shared.leaked.load(Ordering::Relaxed) + left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_part_owes_the_whole_owes() {
        let whole = Dues::default();
        let parts = [Dues::within(&whole), Dues::within(&whole)];
        let due = parts[0].due();
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        parts[0].spawn(&Handle::current(), async move { drop(released.await) });
        parts[0].note_leak();
        let counts = async || {
            let mut counts = Vec::new();
            for dues in [&parts[0], &parts[1], &whole] {
                counts.push(dues.settle(Duration::ZERO).await);
            }
            counts
        };
        assert_eq!(counts().await, [3, 0, 3]);
        drop(due);
        assert_eq!(counts().await, [2, 0, 2]);
        drop(release);
        assert_eq!(whole.settle(Duration::from_secs(60)).await, 1);
    }
}
