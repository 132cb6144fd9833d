//! What the kernel knows of a TCP socket of this machine: one look-up by sock_diag(7), which is `TCP_INFO`, the length
//! of the send queue and the owner without `unsafe`. It leaves out what follows from it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::net::TcpStream;

use crate::Standing;

/// None when the kernel does not say.
pub(crate) fn standing(stream: &TcpStream) -> Option<Standing> {
    let found = diagnose(stream.local_addr().ok()?, stream.peer_addr().ok()?);
    found
        .inspect_err(|error| tracing::debug!(%error, "the kernel does not say how a connection stands"))
        .ok()??
        .standing
}

/// What sock_diag(7) tells of one TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The user whose socket it is; 0 too when it is nobody's any more.
    pub uid: u32,
    /// 0 when no process has it open any more.
    pub inode: u32,
    /// What TCP knows of the connection, for as long as there is one.
    pub standing: Option<Standing>,
}

/// Asks the kernel for the TCP socket from `source` to `destination` on this machine, in any state; `None` when there
/// is none. It takes 3 µs at any number of sockets (libraries.md), and does not block.
///
/// # Errors
/// No descriptor or memory for the question, or a kernel that does not answer such.
pub fn diagnose(source: SocketAddr, destination: SocketAddr) -> io::Result<Option<Diagnosis>> {
    let (kind, protocol) = (SocketType::DGRAM, Some(SOCK_DIAG));
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request(plain(source), plain(destination)), SendFlags::empty(), &kernel)?;
    let mut answer = [0; LONGEST_ANSWER];
    // The kernel answers before `sendto` returns: DONTWAIT only guards against one that does not.
    let (length, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::DONTWAIT)?;
    parse(answer.get(..length).unwrap_or_default())
}

/// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, linux/tcp.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
/// `nlmsghdr`, and `inet_diag_msg` behind it; then come attributes.
const HEADER: usize = 16;
const MESSAGE: usize = 72;
/// `idiag_wqueue`, `idiag_uid` and `idiag_inode` within `inet_diag_msg`.
const WQUEUE: usize = 60;
const UID: usize = 64;
const INODE: usize = 68;
/// `tcpi_retransmits`, `tcpi_probes` and `tcpi_last_ack_recv` within `tcp_info`, which only ever grows at its end.
const RETRANSMITS: usize = 2;
const PROBES: usize = 3;
const LAST_ACK_RECV: usize = 56;
/// Twice what kernels send today.
const LONGEST_ANSWER: usize = 1024;

/// An IPv4 connection to an IPv6 socket is an IPv4 connection to the kernel.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `nlmsghdr` and `inet_diag_req_v2` for exactly one socket in any state, with its `tcp_info`.
fn request(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut message = Vec::with_capacity(72);
    message.extend(72u32.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number, port
    message.extend([u8::try_from(family.as_raw()).unwrap_or(0), IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
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

/// `nlmsghdr` and `inet_diag_msg` with attributes, or `nlmsgerr`.
fn parse(answer: &[u8]) -> io::Result<Option<Diagnosis>> {
    match short(answer, 4) {
        Some(SOCK_DIAG_BY_FAMILY) => {
            let field = |at| word(answer, HEADER + at).ok_or(io::ErrorKind::UnexpectedEof);
            let (waiting, uid, inode) = (field(WQUEUE)?, field(UID)?, field(INODE)?);
            let attributes = answer.get(HEADER + MESSAGE..).unwrap_or_default();
            Ok(Some(Diagnosis { uid, inode, standing: parse_standing(waiting, attributes) }))
        }
        Some(NLMSG_ERROR) => {
            let code = word(answer, HEADER).map_or(0, u32::cast_signed).saturating_neg();
            let error = io::Error::from_raw_os_error(code);
            if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `tcp_info` among the attributes; a socket without a connection has none.
fn parse_standing(waiting: u32, mut attributes: &[u8]) -> Option<Standing> {
    loop {
        let length = usize::from(short(attributes, 0)?);
        let content = attributes.get(4..length)?;
        if short(attributes, 2)? == INET_DIAG_INFO {
            let (retransmits, probes) = (*content.get(RETRANSMITS)?, *content.get(PROBES)?);
            let quiet = Duration::from_millis(word(content, LAST_ACK_RECV)?.into());
            return Some(Standing { waiting, unanswered: retransmits.max(probes).into(), quiet });
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair(bind: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(bind).await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_was_acknowledged_does_not_wait() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let (mut near, mut far) = pair(bind).await;
            near.write_all(b"hello").await.unwrap();
            far.read_exact(&mut [0; 5]).await.unwrap();
            far.write_all(b"hello").await.unwrap();
            near.read_exact(&mut [0; 5]).await.unwrap();
            let standing = standing(&near).unwrap();
            assert_eq!((standing.waiting, standing.unanswered), (0, 0), "{bind}");
        }
    }

    /// The kernel's word for a peer that lives and does not read: its window is closed and each probe is answered.
    /// `TCP_USER_TIMEOUT` would end this connection all the same (tcp_probe_timer in the kernel's tcp_timer.c), which
    /// is why nobody here sets it.
    #[tokio::test]
    async fn a_peer_that_does_not_read_goes_on_answering() {
        let (near, far) = pair("127.0.0.1:0").await;
        let full = async {
            loop {
                near.writable().await.unwrap();
                if near.try_write(&[0; 64 * 1024]).is_err() && standing(&near).unwrap().waiting > 0 {
                    return;
                }
            }
        };
        full.await;
        let now = standing(&near).unwrap();
        assert!(now.waiting > 0, "{now:?}");
        assert!(now.unanswered < 3, "{now:?}");
        drop(far);
    }

    #[test]
    fn answers_however_short() {
        let mut answer = vec![0; HEADER + MESSAGE];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[HEADER + WQUEUE..HEADER + WQUEUE + 4].copy_from_slice(&4711u32.to_ne_bytes());
        // An attribute of another kind, of five bytes and three of padding.
        answer.extend([9u16, 8].map(u16::to_ne_bytes).concat());
        answer.extend([1, 2, 3, 4, 5, 0, 0, 0]);
        answer.extend([64u16, INET_DIAG_INFO].map(u16::to_ne_bytes).concat());
        let mut info = [0; 60];
        (info[RETRANSMITS], info[PROBES]) = (7, 2);
        info[LAST_ACK_RECV..].copy_from_slice(&50_001u32.to_ne_bytes());
        answer.extend(info);
        let at = |offset: usize| HEADER + offset..HEADER + offset + 4;
        answer[at(UID)].copy_from_slice(&1000u32.to_ne_bytes());
        answer[at(INODE)].copy_from_slice(&77u32.to_ne_bytes());
        let found = parse(&answer).unwrap().unwrap();
        let quiet = Duration::from_millis(50_001);
        let standing = Some(Standing { waiting: 4711, unanswered: 7, quiet });
        assert_eq!(found, Diagnosis { uid: 1000, inode: 77, standing });
        for length in 0..HEADER + MESSAGE {
            assert!(parse(&answer[..length]).is_err(), "{length}");
        }
        let nothing_more = Diagnosis { standing: None, ..found };
        for length in HEADER + MESSAGE..answer.len() {
            assert_eq!(parse(&answer[..length]).unwrap(), Some(nothing_more), "{length}");
        }
        // An attribute of length 0 is none.
        answer[88..90].copy_from_slice(&[0, 0]);
        assert_eq!(parse(&answer).unwrap(), Some(nothing_more));
    }

    #[test]
    fn no_socket_is_no_error() {
        let mut answer = [0; HEADER + 4];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        // ENOENT and EPERM, negative as in `nlmsgerr`.
        answer[HEADER..].copy_from_slice(&(-2i32).to_ne_bytes());
        assert_eq!(parse(&answer).unwrap(), None);
        answer[HEADER..].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(parse(&answer).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
