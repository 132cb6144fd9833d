//! One session over the data plane: mint, upgrade, first byte, release. Nothing is sent to the VM. It leaves out the
//! relay, which does it.

use std::sync::Arc;
use std::time::Duration;

use bastide_core::{End, Fault};
use bastide_relay::{Event, Observer, Relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Finding, Link, Patient, Place, Report};
use crate::{Client, TunnelOptions};

/// What the relay has told so far.
#[derive(Debug, Clone, Default)]
struct Progress {
    connected: Option<Instant>,
    retries: u32,
    leaked: Option<String>,
}

/// How long a port has to stay open that need not say anything: the service closes at once what it does not reach
/// (protocol.md §4).
const OPEN_LONG_ENOUGH: Duration = Duration::from_secs(2);

/// The lease that is minted is used in the next moment.
const LEASE_KEPT: Duration = Duration::from_secs(30);

/// Bytes of the VM that are looked at: an identification line has at most 255 (RFC 4253 §4.2).
const LOOKED_AT: usize = 255;

/// Opens a session, if everything before it holds.
pub(super) async fn examine(
    client: &Client,
    place: &Place,
    patient: &Patient,
    stop: &CancellationToken,
    report: &mut Report<'_>,
) {
    // What is broken is known: a session would fail for the same reason, or hold up a VM that is off.
    if report.broken().is_some() {
        return;
    }
    let Place { host, target } = place;
    let progress = watch::Sender::new(Progress::default());
    let relay = host
        .plan(target, patient.port)
        .and_then(|plan| client.relay(host, plan, patient.relay.clone(), observer(progress.clone())));
    let relay = match relay {
        Ok(relay) => relay,
        Err(error) => return report.add(Finding::failed(Link::Mint, Duration::ZERO, &error)),
    };
    let stopped = async {
        stop.cancelled().await;
        relay.stop();
        // The session ends by that, and the examination with it.
        std::future::pending::<()>().await;
    };
    let name = target.display_name();
    tokio::select! {
        () = open(&relay, &name, patient, &progress, report) => {}
        () = stopped => {}
    }
}

/// Mint, and what follows from it.
async fn open(
    relay: &Relay,
    name: &str,
    patient: &Patient,
    progress: &watch::Sender<Progress>,
    report: &mut Report<'_>,
) {
    let started = Instant::now();
    match relay.prepare(LEASE_KEPT).await {
        Ok(()) => {
            let tries = retried(progress.borrow().retries);
            let says = format!("a token for port {} of '{name}'{tries}", patient.port);
            report.add(Finding::ok(Link::Mint, started.elapsed(), says));
            carry(relay, patient, progress, report).await;
        }
        Err(error) => {
            report.add(Finding::failed(Link::Mint, started.elapsed(), &error.into()));
            relay.close(TunnelOptions::default().grace).await;
        }
    }
}

/// Upgrade, first byte and release.
async fn carry(
    relay: &Relay,
    patient: &Patient,
    progress: &watch::Sender<Progress>,
    report: &mut Report<'_>,
) {
    progress.send_modify(|progress| progress.retries = 0);
    let mut news = progress.subscribe();
    let (mut near, far) = tokio::io::duplex(LOOKED_AT);
    let speaks_first = patient.relay.first_byte.is_some();
    let started = Instant::now();
    let halt = relay.stop_token();
    let mut carrying = std::pin::pin!(relay.carry(1, "doctor".into(), far, &|_| (), &halt));
    let mut said = [0; LOOKED_AT];
    // The relay ends an attempt that takes too long, and all of them.
    let seen = tokio::select! {
        account = &mut carrying => Seen::End(account.outcome),
        read = near.read(&mut said) => match read {
            Ok(count) if count > 0 => Seen::Bytes(count),
            // The relay has come to an end, and waits for this side to see it.
            _ => {
                let _ = near.shutdown().await;
                Seen::End(carrying.as_mut().await.outcome)
            }
        },
        () = stays_open(&mut news), if !speaks_first => Seen::Openness,
    };
    let Progress { connected, retries, .. } = progress.borrow().clone();
    if let Some(at) = connected {
        let says = format!("a WebSocket is open{}", retried(retries));
        report.add(Finding::ok(Link::Upgrade, at.duration_since(started), says));
    }
    let (link, since) = match connected {
        Some(at) => (Link::FirstByte, at),
        None => (Link::Upgrade, started),
    };
    let took = since.elapsed();
    let is_over = matches!(seen, Seen::End(_));
    report.add(match seen {
        Seen::Bytes(count) => Finding::ok(link, took, words(said.get(..count).unwrap_or_default())),
        Seen::Openness => {
            Finding::ok(link, took, format!("port {} stays open, and says nothing", patient.port))
        }
        Seen::End(Ok(end)) => ended(link, took, &end),
        Seen::End(Err(error)) => Finding::failed(link, took, &error.into()),
    });
    drop(near);
    let rest = async {
        if !is_over {
            carrying.await;
        }
    };
    release(relay, progress, report, rest).await;
}

/// How a connection has shown what it is.
enum Seen {
    /// The VM has said so much.
    Bytes(usize),
    /// It stays open.
    Openness,
    /// It is over already.
    End(Result<End, bastide_relay::Error>),
}

/// Ends when an attempt has been connected for long enough; each new one begins anew.
async fn stays_open(news: &mut watch::Receiver<Progress>) {
    loop {
        let connected = news.borrow_and_update().connected;
        tokio::select! {
            () = sleep(OPEN_LONG_ENOUGH), if connected.is_some() => return,
            // The sender lives as long as the examination.
            changed = news.changed() => if changed.is_err() { return },
        }
    }
}

async fn release(
    relay: &Relay,
    progress: &watch::Sender<Progress>,
    report: &mut Report<'_>,
    carrying: impl Future<Output = ()>,
) {
    let started = Instant::now();
    let (leaked, ()) = tokio::join!(relay.close(TunnelOptions::default().grace), carrying);
    let took = started.elapsed();
    report.add(match (leaked, progress.borrow().leaked.clone()) {
        (0, _) => Finding::ok(Link::Release, took, "the token is given back"),
        (_, reason) => {
            let reason = reason.unwrap_or_else(|| "no answer in time".into());
            let says = format!("the token could not be given back: {reason}");
            Finding::broken(Link::Release, took, Fault::Service, says).with_fix(
                "it counts as a session until the service ends it; the next bastide tries again, and so does \
                 `bastide sessions close`",
            )
        }
    });
}

fn observer(progress: watch::Sender<Progress>) -> Observer {
    Arc::new(move |event| {
        progress.send_modify(|progress| match event {
            Event::Connected { .. } => progress.connected = Some(Instant::now()),
            Event::Retry { .. } => progress.retries += 1,
            Event::Leaked { reason, .. } => progress.leaked = Some(reason),
            _ => {}
        });
    })
}

fn retried(retries: u32) -> String {
    match retries {
        0 => String::new(),
        1 => ", after another try".into(),
        more => format!(", after {more} more tries"),
    }
}

/// The first line that the VM has said, as a terminal can show it.
fn words(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let shown: String = String::from_utf8_lossy(line).chars().flat_map(char::escape_debug).collect();
    format!("the VM says \"{shown}\"")
}

/// An end that is no error by itself, only too early.
fn ended(link: Link, took: Duration, end: &End) -> Finding {
    Finding::broken(link, took, Fault::Vm, format!("the connection ended before anything came back: {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_is_shown_and_moves_no_cursor() {
        assert_eq!(words(b"SSH-2.0-OpenSSH_9.2\r\nrest"), "the VM says \"SSH-2.0-OpenSSH_9.2\"");
        assert_eq!(words(b"\x1b[2J\xff"), "the VM says \"\\u{1b}[2J\u{fffd}\"");
    }

    #[test]
    fn tries_are_counted() {
        assert_eq!(retried(0), "");
        assert_eq!(retried(1), ", after another try");
        assert_eq!(retried(3), ", after 3 more tries");
    }
}
