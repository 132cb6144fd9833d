//! What systemd wants to hear (sd_notify(3)) and hands over (sd_listen_fds(3)). Nothing happens where there is no systemd.

use std::collections::BTreeMap;
use std::time::Duration;

use bastide::Inherited;
use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Every listener is open.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// A new file is being read; [`ready()`] follows.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the clock could not be read"),
    }
}

/// The end has begun.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// In words, for `systemctl status`.
pub(crate) fn status(words: &str) {
    notify(&[NotifyState::Status(words)]);
}

/// A sign of life.
pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often systemd wants a sign of life, if it does: half of its patience, as it recommends.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

/// Whoever does not listen has asked for nothing.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// The sockets that were handed over, by the names of their `FileDescriptorName=`.
pub(crate) fn sockets(names: Option<&str>) -> BTreeMap<String, Vec<Inherited>> {
    let mut handed = ListenFd::from_env();
    let names: Vec<&str> = names.unwrap_or_default().split(':').collect();
    let mut sockets: BTreeMap<String, Vec<Inherited>> = BTreeMap::new();
    for index in 0..handed.len() {
        let name = names.get(index).copied().unwrap_or_default();
        let socket = match handed.take_tcp_listener(index) {
            Ok(Some(listener)) => Some(Inherited::Tcp(listener)),
            _ => handed.take_unix_listener(index).ok().flatten().map(Inherited::Unix),
        };
        match socket {
            Some(socket) => sockets.entry(name.to_owned()).or_default().push(socket),
            None => {
                tracing::warn!(name, "a socket that was handed over is no listening stream, and is not used");
            }
        }
    }
    sockets
}
