//! What the kernel knows of a TCP connection of ours: one look-up by sock_diag(7), which is `TCP_INFO` and the length
//! of the send queue without `unsafe`. It leaves out what follows from it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::net::TcpStream;

use crate::Standing;

/// None when the kernel does not say.
pub(crate) fn standing(stream: &TcpStream) -> Option<Standing> {
    let answer = ask(stream.local_addr().ok()?, stream.peer_addr().ok()?);
    answer
        .inspect_err(|error| tracing::debug!(%error, "the kernel does not say how a connection stands"))
        .ok()?
}

fn ask(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Standing>> {
    let (kind, protocol) = (SocketType::DGRAM, Some(SOCK_DIAG));
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request(local, peer), SendFlags::empty(), &kernel)?;
    let mut answer = [0; LONGEST_ANSWER];
    // The kernel answers before `sendto` returns: DONTWAIT only guards against one that does not.
    let (length, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::DONTWAIT)?;
    Ok(parse(answer.get(..length).unwrap_or_default()))
}

/// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, linux/tcp.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
/// `nlmsghdr`, and `inet_diag_msg` behind it; then come attributes.
const HEADER: usize = 16;
const MESSAGE: usize = 72;
/// `idiag_wqueue` within `inet_diag_msg`.
const WQUEUE: usize = 60;
/// `tcpi_retransmits`, `tcpi_probes` and `tcpi_last_ack_recv` within `tcp_info`, which only ever grows at its end.
const RETRANSMITS: usize = 2;
const PROBES: usize = 3;
const LAST_ACK_RECV: usize = 56;
/// Twice what kernels send today.
const LONGEST_ANSWER: usize = 1024;

/// `nlmsghdr` and `inet_diag_req_v2` for exactly one socket in any state, with its `tcp_info`.
fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut message = Vec::with_capacity(72);
    message.extend(72u32.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number, port
    message.extend([u8::try_from(family.as_raw()).unwrap_or(0), IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    message.extend(u32::MAX.to_ne_bytes()); // states
    message.extend(local.port().to_be_bytes());
    message.extend(peer.port().to_be_bytes());
    message.extend(address(local.ip()));
    message.extend(address(peer.ip()));
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

fn parse(answer: &[u8]) -> Option<Standing> {
    if short(answer, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let waiting = word(answer, HEADER + WQUEUE)?;
    let mut attributes = answer.get(HEADER + MESSAGE..)?;
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
        let standing = parse(&answer).unwrap();
        let quiet = Duration::from_millis(50_001);
        assert_eq!(standing, Standing { waiting: 4711, unanswered: 7, quiet });
        for length in 0..answer.len() {
            assert_eq!(parse(&answer[..length]), None, "{length}");
        }
        // An attribute of length 0 is none.
        answer[88..90].copy_from_slice(&[0, 0]);
        assert_eq!(parse(&answer), None);
    }
}
