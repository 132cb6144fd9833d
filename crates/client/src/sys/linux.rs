//! Whose process is at the other end of a loopback connection: one look-up by sock_diag(7), 3 µs at any number
//! of sockets (libraries.md). It leaves out what to do about it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::geteuid;
use tokio::net::TcpStream;

/// Lets a connection in whose other end belongs to our user or to root. A connection from another machine has no
/// socket here, and passes: binding to more than loopback is a decision of its own.
///
/// # Errors
/// `PermissionDenied` for another user; `NotConnected` for a peer that is gone already, of which nobody can tell whose
/// it was: a closed socket reads as uid 0. What the kernel says when it is short of descriptors or memory.
pub(crate) fn admit_same_user(stream: &TcpStream) -> io::Result<()> {
    let (peer, local) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
    let denied = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    let gone = || Err(io::ErrorKind::NotConnected.into());
    match owner(peer, local) {
        Ok(Some(Owner { inode: 0, .. })) => gone(),
        Ok(Some(Owner { uid, .. })) if uid == 0 || uid == geteuid().as_raw() => Ok(()),
        Ok(Some(Owner { uid, .. })) => {
            denied(format!("{peer} belongs to another user (uid {uid}); --allow-other-users lets it in"))
        }
        Ok(None) if peer.ip() != local.ip() && !peer.ip().is_loopback() => Ok(()),
        Ok(None) => gone(),
        // No descriptor for the question is no answer to it.
        Err(error)
            if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS)) =>
        {
            Err(error)
        }
        Err(error) => denied(format!(
            "this kernel does not say whose {peer} is ({error}); --allow-other-users lets everybody in"
        )),
    }
}

/// Whether the program at the other end of a loopback connection has closed it for good: its socket has no owner any
/// more, while one that was only shut down for writing has.
pub(crate) fn is_abandoned(stream: &TcpStream) -> bool {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return false };
    let (peer, local) = (plain(peer), plain(local));
    peer.ip().is_loopback() && matches!(owner(peer, local), Ok(None | Some(Owner { inode: 0, .. })))
}

/// The owner of a socket.
struct Owner {
    uid: u32,
    /// 0 when no process has it open any more.
    inode: u32,
}

/// An IPv4 connection to an IPv6 socket is an IPv4 connection to the kernel.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The owner of the TCP socket from `source` to `destination` on this machine, if there is one.
fn owner(source: SocketAddr, destination: SocketAddr) -> io::Result<Option<Owner>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request(source, destination), SendFlags::empty(), &kernel)?;
    let mut answer = [0; 512];
    // The kernel answers before `sendto` returns: DONTWAIT only guards against one that does not.
    let (length, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::DONTWAIT)?;
    parse(answer.get(..length).unwrap_or_default())
}

/// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const IPPROTO_TCP: u8 = 6;

/// `nlmsghdr` and `inet_diag_req_v2` for exactly one socket in any state.
fn request(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut message = Vec::with_capacity(72);
    message.extend(72u32.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number, port
    message.extend([u8::try_from(family.as_raw()).unwrap_or(0), IPPROTO_TCP, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes()); // states
    message.extend(source.port().to_be_bytes());
    message.extend(destination.port().to_be_bytes());
    message.extend(address(source.ip()));
    message.extend(address(destination.ip()));
    message.extend([0; 4]); // any interface
    message.extend([0xff; 8]); // INET_DIAG_NOCOOKIE
    message
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `nlmsghdr` and `inet_diag_msg`, or `nlmsgerr`.
fn parse(answer: &[u8]) -> io::Result<Option<Owner>> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match kind {
        Some(SOCK_DIAG_BY_FAMILY) => match (word(answer, HEADER + 64), word(answer, HEADER + 68)) {
            (Some(uid), Some(inode)) => Ok(Some(Owner { uid, inode })),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        },
        Some(NLMSG_ERROR) => {
            let code = word(answer, HEADER).map_or(0, u32::cast_signed).saturating_neg();
            let error = io::Error::from_raw_os_error(code);
            if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn our_own_connections_are_ours() {
        for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(bind).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            for host in ["127.0.0.1", "::1"] {
                let Ok(client) = TcpStream::connect((host, port)).await else { continue };
                let (server, _) = listener.accept().await.unwrap();
                admit_same_user(&server).unwrap();
                let found = owner(plain(client.local_addr().unwrap()), plain(client.peer_addr().unwrap()));
                let found = found.unwrap().unwrap();
                assert_eq!(found.uid, geteuid().as_raw());
                assert_ne!(found.inode, 0);
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_proves_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        drop(client);
        let (server, _) = listener.accept().await.unwrap();
        let error = admit_same_user(&server).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }

    #[tokio::test]
    async fn a_close_is_told_from_a_half_close() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert!(!is_abandoned(&server));
        drop(client);
        assert!(is_abandoned(&server));
    }

    #[test]
    fn answers_however_short() {
        let mut answer = vec![0; 88];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[80..84].copy_from_slice(&1000u32.to_ne_bytes());
        answer[84..88].copy_from_slice(&77u32.to_ne_bytes());
        let owner = parse(&answer).unwrap().unwrap();
        assert_eq!((owner.uid, owner.inode), (1000, 77));
        for length in 0..answer.len() {
            assert!(parse(&answer[..length]).is_err());
        }
    }
}
