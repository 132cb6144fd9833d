//! A point in time that bounds several steps together. It leaves out the steps.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::error::Step;

/// One point in time over several steps.
pub(crate) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Deadline {
        Deadline { at: Instant::now() + limit.min(LONGEST), limit }
    }

    /// Gives `work` what is left of the time; its name and that of the peer go into the error.
    pub(crate) async fn bound<T>(
        &self,
        step: Step,
        peer: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::time::timeout_at(self.at, work)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout { peer: peer.to_owned(), step, limit: self.limit }))
    }
}

/// A deadline further off is as good as none, and would overflow the clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
