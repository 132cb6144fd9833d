//! Being told to stop: the first signal stops in order, the second at once. It leaves out what stopping is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::report::Reporter;
use crate::sys;

/// An end that takes longer says why, so that nobody thinks that nothing happens.
const PATIENCE: Duration = Duration::from_secs(1);

/// SIGINT.
const INTERRUPT: u8 = 2;

/// Listens for SIGINT, SIGTERM and SIGHUP (Ctrl-C elsewhere) for as long as it lives. All three mean the same: stop in
/// order, and say by the exit status which one it was, 128 and its number. SIGHUP is the terminal being closed.
pub(crate) struct Signals {
    stop: CancellationToken,
    number: Arc<AtomicU8>,
    _listener: JoinSet<()>,
}

impl Signals {
    /// Must be called within a runtime.
    pub(crate) fn listen(reporter: &Reporter) -> std::io::Result<Self> {
        Self::of(sys::StopSignals::new()?, reporter)
    }

    /// The same, with another meaning for SIGHUP (`sys::HangUps`).
    pub(crate) fn but_hang_up(reporter: &Reporter) -> std::io::Result<Self> {
        Self::of(sys::StopSignals::but_hang_up()?, reporter)
    }

    fn of(mut signals: sys::StopSignals, reporter: &Reporter) -> std::io::Result<Self> {
        let reporter = reporter.clone();
        let stop = CancellationToken::new();
        let number = Arc::new(AtomicU8::new(0));
        let mut listener = JoinSet::new();
        let (token, first) = (stop.clone(), Arc::clone(&number));
        listener.spawn(async move {
            first.store(signals.next().await, Ordering::Relaxed);
            token.cancel();
            let second = async {
                // A person's second Ctrl-C means it at once. Programs may say the same twice in one breath, as paramiko's
                // `ProxyCommand` does at its end.
                let interrupted = async { while signals.next().await != INTERRUPT {} };
                if timeout(PATIENCE, interrupted).await.is_ok() {
                    return INTERRUPT;
                }
                reporter
                    .say("Ending what is open and giving tokens back; Ctrl + C again does not wait for it");
                signals.next().await
            };
            let signal = second.await;
            // Tokens not yet given back stay in the ledger: the user does not want to wait.
            std::process::exit(i32::from(signal) + 128);
        });
        Ok(Self { stop, number, _listener: listener })
    }

    /// Cancelled by the first signal.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The first signal, if there was one.
    pub(crate) fn received(&self) -> Option<u8> {
        match self.number.load(Ordering::Relaxed) {
            0 => None,
            number => Some(number),
        }
    }
}
