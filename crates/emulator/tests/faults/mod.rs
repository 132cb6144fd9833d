//! What each fault does on the wire, by literals; and that nothing of it is held against a client
//! that behaves.

mod requests;

use std::io::ErrorKind;

use bastide_emulator::faults::{Fault, Order};
use bastide_emulator::transcript::End;
use bastide_emulator::{Emulator, Scenario, pattern};

use crate::client::*;

/// Port of `web-01` that sends everything back.
const ECHO: u16 = 7;
/// Port of `web-01` that sends the pattern without end.
const PRODUCE: u16 = 19;

/// A lab with orders, and a token for it.
async fn faulty(orders: &[&str]) -> (Lab, String) {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    order(&lab, orders);
    (lab, token)
}

fn order(emulator: &Emulator, words: &[&str]) {
    emulator.set_faults(words.iter().map(|word| word.parse::<Order>().unwrap()));
}

async fn lease(lab: &Lab, token: &str, port: u16) -> Lease {
    mint(lab, "localhost", token, &vm("web-01"), port).await
}

/// Ends what a client that behaves has to end, after which nothing is wrong.
async fn settle(lab: &Lab, lease: &Lease) {
    assert_eq!(lease.release(lab).await, 200);
    lab.wait_for(|transcript| transcript.sessions.values().all(|session| !session.is_open())).await;
    assert_eq!(lab.violations(), []);
    assert_eq!(lab.sessions().len(), 0);
}

fn tunnel_end(lab: &Lab) -> Option<End> {
    lab.transcript().tunnels().last().unwrap().end
}

#[tokio::test]
async fn handshakes() {
    let (lab, token) = faulty(&[]).await;
    for (flaw, has, lacks) in [
        ("no_headers", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "pgrade"),
        ("keep_alive", "connection: keep-alive, Upgrade\r\n", "connection: Upgrade"),
        ("wrong_accept", "sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "s3pPLMBi"),
    ] {
        order(&lab, &[&format!("handshake:flaw={flaw}")]);
        let lease = lease(&lab, &token, ECHO).await;
        let mut tunnel = Connection::open(&lab, "localhost").await;
        let target = format!("/webtunnelv2/{}?X-Node-Id={}", lease.websocket, lease.node);
        let upgraded = tunnel.request(&handshake(&target, ""), "").await;
        assert_eq!(upgraded.status, 101);
        assert!(upgraded.head.contains(has) && !upgraded.head.contains(lacks), "{}", upgraded.head);
        tunnel.send(HELLO).await;
        assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
        tunnel.send(CLOSE).await;
        tunnel.rest().await;
        settle(&lab, &lease).await;
    }
}

#[tokio::test]
async fn raw_page() {
    let (lab, token) = faulty(&[]).await;
    for piece in [1, 7, 4096] {
        order(&lab, &[&format!("raw_page:piece={piece}")]);
        let lease = lease(&lab, &token, ECHO).await;
        let mut tunnel = lease.upgrade(&lab).await;
        tunnel.send(HELLO).await;
        let (page, fault) = tunnel.end().await;
        assert!(page.starts_with(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html"));
        assert!(page.ends_with(b"</html>"));
        assert_eq!(fault, None);
        drop(tunnel);
        settle(&lab, &lease).await;
        assert_eq!(tunnel_end(&lab), Some(End::Fault));
    }
    order(&lab, &["raw_page:then=stay,times=1"]);
    let lease = lease(&lab, &token, ECHO).await;
    let mut tunnel = lease.upgrade(&lab).await;
    let mut page = Vec::new();
    while !page.ends_with(b"</html>") {
        page.extend(tunnel.read(1).await);
    }
    // Open, and deaf: a stop of the emulator is what ends it.
    tunnel.send(HELLO).await;
    assert_eq!(lease.release(&lab).await, 200);
    let (transcript, (rest, _)) = tokio::join!(lab.stop(), tunnel.end());
    assert_eq!((rest, transcript.struck("raw_page")), (Vec::new(), 4));
}

/// What arrives of the pattern, in one binary frame.
fn pattern_frame(bytes: u8) -> Vec<u8> {
    [0x82, bytes].into_iter().chain((0..u64::from(bytes)).map(pattern)).collect()
}

#[tokio::test]
async fn endings() {
    let (lab, token) = faulty(&[]).await;
    const TRUNCATED: &[u8] = b"\x82\x64\0\0\0\0\0\0\0\0\0\0";
    for (how, last, fault) in [
        ("close:1001", b"\x88\x02\x03\xe9".as_slice(), None),
        ("close:1011", b"\x88\x02\x03\xf3", None),
        ("close:1012", b"\x88\x02\x03\xf4", None),
        ("close:1013", b"\x88\x02\x03\xf5", None),
        ("close:1006", b"", None),
        ("close_notify", b"", None),
        ("fin", b"", Some(ErrorKind::UnexpectedEof)),
        ("reset", b"", Some(ErrorKind::ConnectionReset)),
        ("truncated", TRUNCATED, None),
    ] {
        for (at, before) in [("upgrade", Vec::new()), ("vm:0", Vec::new()), ("vm:100", pattern_frame(100))] {
            order(&lab, &[&format!("ending:how={how},at={at}")]);
            let lease = lease(&lab, &token, PRODUCE).await;
            let mut tunnel = lease.upgrade(&lab).await;
            let (arrived, ended) = match how.starts_with("close:") && how != "close:1006" {
                true => {
                    let arrived = tunnel.read(before.len() + last.len()).await;
                    tunnel.send(CLOSE).await;
                    let (rest, ended) = tunnel.end().await;
                    (arrived.into_iter().chain(rest).collect(), ended)
                }
                false => tunnel.end().await,
            };
            assert_eq!((arrived, ended), ([&before, last].concat(), fault), "{how} {at}");
            drop(tunnel);
            settle(&lab, &lease).await;
            assert_eq!(tunnel_end(&lab), Some(End::Fault), "{how} {at}");
        }
    }
}

#[tokio::test]
async fn ends_after_the_clients_first_bytes() {
    let (lab, token) = faulty(&["ending:how=close:1000,at=client:5,times=2"]).await;
    for _ in 0..2 {
        let lease = lease(&lab, &token, ECHO).await;
        let mut tunnel = lease.upgrade(&lab).await;
        tunnel.send(&[0x89, 0x80, 1, 2, 3, 4]).await;
        assert_eq!(tunnel.read(2).await, b"\x8a\x00");
        tunnel.send(HELLO).await;
        assert_eq!(tunnel.read(4).await, b"\x88\x02\x03\xe8");
        tunnel.send(CLOSE).await;
        assert_eq!(tunnel.rest().await, b"");
        settle(&lab, &lease).await;
    }
    let lease = lease(&lab, &token, ECHO).await;
    let mut tunnel = lease.upgrade(&lab).await;
    tunnel.send(HELLO).await;
    assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
    assert_eq!(lab.faults()[0].struck, 2);
}

#[tokio::test]
async fn only_tunnels_that_are_open_end_now() {
    let (lab, token) = faulty(&[]).await;
    let old = lease(&lab, &token, ECHO).await;
    let mut open = old.upgrade(&lab).await;
    order(&lab, &["ending:how=reset,at=now"]);
    assert_eq!(open.end().await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    settle(&lab, &old).await;
    let new = lease(&lab, &token, ECHO).await;
    let mut open = new.upgrade(&lab).await;
    open.send(HELLO).await;
    assert_eq!(open.read(7).await, b"\x82\x05Hello");
    open.send(CLOSE).await;
    open.rest().await;
    settle(&lab, &new).await;
}

#[tokio::test]
async fn ends_in_garbage() {
    let (lab, token) = faulty(&["ending:how=garbage"]).await;
    let lease = lease(&lab, &token, PRODUCE).await;
    let mut tunnel = Connection::open(&lab, "localhost").await;
    let target = format!("/webtunnelv2/{}?X-Node-Id={}", lease.websocket, lease.node);
    tunnel.ask(&handshake(&target, ""), "").await;
    // A TLS library may give up before it hands over what came with the garbage, the 101.
    assert_eq!(tunnel.end().await.1, Some(ErrorKind::InvalidData));
    drop(tunnel);
    settle(&lab, &lease).await;
}

/// A ping without payload, masked with 01020304.
const PING: &[u8] = &[0x89, 0x80, 1, 2, 3, 4];

#[tokio::test]
async fn silence_both_ways() {
    // From the 101 on, after some bytes, and in the middle of a tunnel that worked.
    for at in ["upgrade", "vm:5", "now"] {
        let (lab, token) = faulty(&[]).await;
        let word = format!("silence:at={at}");
        if at != "now" {
            order(&lab, &[&word]);
        }
        let lease = lease(&lab, &token, ECHO).await;
        let mut tunnel = lease.upgrade(&lab).await;
        if at != "upgrade" {
            tunnel.send(HELLO).await;
            assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
        }
        if at == "now" {
            order(&lab, &[&word]);
        }
        lab.wait_for(|transcript| transcript.struck("silence") == 1).await;
        tunnel.send(&[PING, HELLO, CLOSE].concat()).await;
        assert_eq!(lease.release(&lab).await, 200);
        let (_, (rest, _)) = tokio::join!(lab.stop(), tunnel.end());
        assert_eq!(rest, b"", "{at}");
    }
}

#[tokio::test]
async fn silence_one_way() {
    // The VM hears, and the client does not.
    let (lab, token) = faulty(&["silence:direction=to_client"]).await;
    let lease = lease(&lab, &token, ECHO).await;
    let mut tunnel = lease.upgrade(&lab).await;
    tunnel.send(&[PING, HELLO].concat()).await;
    lab.wait_for(|transcript| transcript.tunnels().any(|tunnel| tunnel.sent == 5)).await;
    tunnel.send(CLOSE).await;
    lab.wait_for(|transcript| transcript.tunnels().any(|tunnel| tunnel.frames.close == 1)).await;
    drop(tunnel);
    settle(&lab, &lease).await;

    // The client hears, and the VM does not.
    let (lab, token) = faulty(&["silence:direction=to_vm,at=vm:10"]).await;
    let lease = self::lease(&lab, &token, PRODUCE).await;
    let mut tunnel = lease.upgrade(&lab).await;
    assert_eq!(tunnel.read(12).await, pattern_frame(10));
    tunnel.send(&[PING, HELLO].concat()).await;
    // No pong is among the frames of 16 KiB that follow.
    for _ in 0..8 {
        assert_eq!(tunnel.read(4).await, [0x82, 126, 0x40, 0]);
        tunnel.read(0x4000).await;
    }
    drop(tunnel);
    settle(&lab, &lease).await;
    assert_eq!(lab.transcript().tunnels().next().unwrap().sent, 0);
}

#[tokio::test]
async fn pings_of_the_client() {
    let (lab, token) = faulty(&["ping_ignored:times=1"]).await;
    let ignored = lease(&lab, &token, ECHO).await;
    let mut tunnel = ignored.upgrade(&lab).await;
    tunnel.send(&[PING, HELLO, CLOSE].concat()).await;
    assert_eq!(tunnel.rest().await, b"\x82\x05Hello\x88\x02\x03\xe8");
    settle(&lab, &ignored).await;

    lab.set_faults([Fault::PingReset]);
    let reset = lease(&lab, &token, ECHO).await;
    let mut tunnel = reset.upgrade(&lab).await;
    tunnel.send(HELLO).await;
    assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
    tunnel.send(PING).await;
    assert_eq!(tunnel.end().await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    settle(&lab, &reset).await;
}

#[tokio::test]
async fn frames_of_the_server() {
    let (lab, token) = faulty(&[]).await;
    let pong = |number: u8| [0x8a, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number];
    for (orders, expected) in [
        (vec!["frames:form=text"], b"\x81\x05Hello".as_slice()),
        (vec!["frames:form=empty"], b"\x82\x00\x82\x05Hello"),
        (vec!["frames:form=fragmented"], b"\x02\x02He\x80\x03llo"),
        (vec!["frames:form=text", "frames:form=fragmented"], b"\x01\x02He\x80\x03llo"),
        (
            vec!["frames:form=fragmented", "frames:form=pings"],
            b"\x89\x08\0\0\0\0\0\0\0\0\x02\x02He\x89\x08\0\0\0\0\0\0\0\x01\x80\x03llo",
        ),
    ] {
        let pings = orders.contains(&"frames:form=pings");
        order(&lab, &orders);
        let lease = lease(&lab, &token, ECHO).await;
        let mut tunnel = lease.upgrade(&lab).await;
        tunnel.send(HELLO).await;
        assert_eq!(tunnel.read(expected.len()).await, expected, "{orders:?}");
        if pings {
            // The second one only, which RFC 6455 allows. Its mask is zero, which it does not.
            tunnel.send(&pong(1)).await;
            lab.wait_for(|transcript| transcript.tunnels().any(|tunnel| tunnel.pongs == 1)).await;
            tunnel.send(&pong(0)).await;
        }
        tunnel.send(CLOSE).await;
        assert_eq!(tunnel.rest().await, b"\x88\x02\x03\xe8");
        assert_eq!(lease.release(&lab).await, 200);
        let broken = lab.violations().iter().any(|one| one.to_string().ends_with("answer no ping"));
        assert_eq!(broken, pings, "{:?}", lab.violations());
        let seen = lab.transcript();
        let sums = seen.tunnels().last().unwrap();
        assert_eq!((sums.pings, sums.pongs), if pings { (2, 1) } else { (0, 0) });
    }
}

#[tokio::test]
async fn large_frames() {
    let (lab, token) = faulty(&["frames:form=large:1048576"]).await;
    let lease = lease(&lab, &token, PRODUCE).await;
    let mut tunnel = lease.upgrade(&lab).await;
    assert_eq!(tunnel.read(10).await, [0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0]);
    let payload = tunnel.read(1024 * 1024).await;
    assert!(payload.iter().enumerate().all(|(at, byte)| *byte == pattern(at as u64)));
    drop(tunnel);
    settle(&lab, &lease).await;
}
