//! Port forwarding (RFC 4254 §7): connections to the machine's loopback addresses, and listeners there.
//!
//! Everything else is refused: the emulator is no way into the network of the laptop it runs on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use russh::ChannelWriteHalf;
use russh::server::{Handle, Msg};
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::inbox::{Inbound, Inbox};
use super::process::{Stream, send};

/// The loopback addresses that `host` names, or none if it names anything else. Nothing is looked up.
pub(super) fn loopback(host: &str) -> Vec<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    host.parse().into_iter().filter(IpAddr::is_loopback).collect()
}

/// The loopback address to listen on for `host`. "Everywhere" (RFC 4254 §7.1) means loopback, as with
/// sshd's `GatewayPorts no`.
pub(super) fn listen_address(host: &str) -> Option<IpAddr> {
    let host = if matches!(host, "" | "*" | "0.0.0.0" | "::") { "localhost" } else { host };
    loopback(host).first().copied()
}

/// Connects to the first of `addresses` that answers.
///
/// # Errors
/// The last address's error, or a time-out after [`CONNECT_LIMIT`].
pub(super) async fn connect(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let targets: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(&*targets)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Joins a connection and a channel until both directions have ended. A client that closes the channel
/// wants no more, but what it sent before is still delivered, as sshd does; only the end of the SSH
/// connection cuts that short.
pub(super) async fn join(stream: TcpStream, inbound: Inbound, outbound: ChannelWriteHalf<Msg>) {
    let Inbound { mut data, closed, ended } = inbound;
    let (source, mut sink) = stream.into_split();
    let inwards = async {
        // Either error means that the peer has gone; the other direction notices by itself.
        _ = copy(&mut data, &mut sink).await;
        _ = sink.shutdown().await;
    };
    let outwards = async {
        tokio::select! {
            () = closed.cancelled() => {}
            () = send(source, &outbound, Stream::Output) => {
                _ = outbound.eof().await;
            }
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        _ = async { tokio::join!(inwards, outwards) } => {
            // Not heard when the client has closed already.
            _ = outbound.close().await;
        }
    }
}

/// Accepts connections for the client until `cancelled`. Each becomes a channel, and a task of `tasks`.
pub(super) async fn listen(
    listener: TcpListener,
    forward: Forward,
    handle: Handle,
    inbox: Inbox,
    tasks: TaskTracker,
    cancelled: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = cancelled.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            // Of accept(2)'s other errors only the lack of descriptors lasts, and then nothing else works.
            Err(error) => return debug!(%error, "a forwarded port stopped listening"),
        };
        if inbox.len() >= super::connection::MAX_CHANNELS {
            continue;
        }
        let (forward, handle, inbox) = (forward.clone(), handle.clone(), inbox.clone());
        let cancelled = cancelled.clone();
        tasks.spawn(async move {
            let (address, origin) = (forward.address, peer.ip().to_string());
            let opening =
                handle.channel_open_forwarded_tcpip(address, forward.port.into(), origin, peer.port().into());
            let opened = tokio::select! {
                () = cancelled.cancelled() => return,
                opened = opening => opened,
            };
            let Ok(channel) = opened else { return };
            let id = channel.id();
            let (_, outbound) = channel.split();
            if let Some(inbound) = inbox.claim(id) {
                join(stream, inbound, outbound).await;
            }
            inbox.close(id);
        });
    }
}

/// A port that the client asked for, in its own words: they come back with each connection.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Forward {
    pub(super) address: String,
    pub(super) port: u16,
}

/// Our choice: a loopback connection is made at once or refused, unless a listener's backlog is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::{listen_address, loopback};

    #[test]
    fn only_loopback_addresses_are_named() {
        for (host, count) in [
            ("localhost", 2),
            ("LOCALHOST", 2),
            ("127.0.0.1", 1),
            ("127.8.9.10", 1),
            ("::1", 1),
            ("169.254.169.254", 0),
            ("10.0.0.4", 0),
            ("0.0.0.0", 0),
            ("example.com", 0),
            ("", 0),
        ] {
            assert_eq!(loopback(host).len(), count, "{host}");
        }
        assert_eq!(listen_address(""), loopback("127.0.0.1").first().copied());
        assert_eq!(listen_address("10.0.0.4"), None);
    }
}
