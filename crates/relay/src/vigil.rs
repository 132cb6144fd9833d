//! What concerns every connection to a host at once: that the machine has slept, and that pings do harm. It leaves out
//! what a connection makes of it (`session`).

use std::sync::Weak;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::session::Ping;

/// How often to look whether the machine has slept: with [`crate::session::PONG_WITHIN`] behind it, a connection that
/// died meanwhile is found out within half a minute from when somebody wants it again.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// So much more on the wall clock than on the steady one is a sleep. A smaller step of the wall clock is its
/// correction, and a false alarm costs one ping.
const A_SLEEP: Duration = Duration::from_secs(5);

/// What every connection to a host has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News {
    /// How often the machine has slept.
    pub(crate) wakes: u64,
    /// Whether pings may be sent.
    pub(crate) ping: Ping,
}

/// Tells the connections to one host.
pub(crate) struct Vigil {
    sender: watch::Sender<News>,
}

impl Vigil {
    pub(crate) fn new(ping: Ping) -> Self {
        Self { sender: watch::Sender::new(News { wakes: 0, ping }) }
    }

    /// What there is to know, and what will be.
    pub(crate) fn news(&self) -> watch::Receiver<News> {
        self.sender.subscribe()
    }

    /// A ping has ended a connection (protocol.md §4): nobody pings this host any more. Said once.
    pub(crate) fn forbid_pings(&self) {
        let is_new = self
            .sender
            .send_if_modified(|news| std::mem::replace(&mut news.ping, Ping::Never) != Ping::Never);
        if is_new {
            tracing::warn!("a connection ended right after a ping: no more pings to this host");
        }
    }

    /// Tells of each sleep of the machine, until `stop`, or until nobody holds the vigil any more. Where pings are not
    /// wanted there is nothing to tell.
    ///
    /// Cancel safe.
    pub(crate) async fn keep(vigil: Weak<Vigil>, stop: CancellationToken) {
        let mut last = Clocks::read();
        loop {
            let stopped = stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none();
            let Some(vigil) = vigil.upgrade().filter(|vigil| !stopped && vigil.may_ping()) else { return };
            let now = Clocks::read();
            if let Some(slept) = now.slept_since(last) {
                tracing::info!("the machine has slept for {} s: connections are tried out", slept.as_secs());
                vigil.tell_of_a_sleep();
            }
            last = now;
        }
    }

    pub(crate) fn tell_of_a_sleep(&self) {
        self.sender.send_modify(|news| news.wakes += 1);
    }

    fn may_ping(&self) -> bool {
        self.sender.borrow().ping != Ping::Never
    }
}

/// Two clocks read at once. The steady one stands still while the machine sleeps (clock_gettime(2),
/// `CLOCK_MONOTONIC`; macOS likewise), and where it does not, its timers are right without help.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    wall: SystemTime,
    steady: Instant,
}

impl Clocks {
    fn read() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// How long the machine has slept since then, if it has.
    fn slept_since(self, then: Self) -> Option<Duration> {
        let wall = self.wall.duration_since(then.wall).ok()?;
        let asleep = wall.checked_sub(self.steady.duration_since(then.steady))?;
        (asleep >= A_SLEEP).then_some(asleep)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_sleep_is_told_from_a_correction() {
        let then = Clocks {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
            steady: crate::any_instant().into(),
        };
        let check = |wall: f64, steady: f64, expected: Option<u64>| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(wall);
            let now = Clocks { wall, steady: then.steady + Duration::from_secs_f64(steady) };
            assert_eq!(now.slept_since(then), expected.map(Duration::from_secs), "{wall:?} {steady}");
        };
        check(1005.0, 5.0, None);
        check(1008.0, 5.0, None);
        check(1010.0, 5.0, Some(5));
        check(1000.0 + 8.0 * 3600.0 + 5.0, 5.0, Some(8 * 3600));
        // A busy machine: both clocks have gone on.
        check(1060.0, 60.0, None);
        // Set back.
        check(1002.0, 5.0, None);
        check(10.0, 5.0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_to_tell_and_nothing_to_tell_end_it() {
        let stop = CancellationToken::new();
        let vigil = Arc::new(Vigil::new(Ping::WhenIdle));
        let kept = tokio::spawn(Vigil::keep(Arc::downgrade(&vigil), stop.clone()));
        let mut news = vigil.news();
        vigil.forbid_pings();
        vigil.forbid_pings();
        assert_eq!(*news.borrow_and_update(), News { wakes: 0, ping: Ping::Never });
        kept.await.unwrap();

        let vigil = Arc::new(Vigil::new(Ping::WhenIdle));
        let kept = tokio::spawn(Vigil::keep(Arc::downgrade(&vigil), stop.clone()));
        drop(vigil);
        kept.await.unwrap();

        let vigil = Arc::new(Vigil::new(Ping::WhenIdle));
        let kept = tokio::spawn(Vigil::keep(Arc::downgrade(&vigil), stop.clone()));
        stop.cancel();
        kept.await.unwrap();
    }
}
