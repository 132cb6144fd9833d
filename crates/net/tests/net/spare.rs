//! Connections that are opened ahead: taken once, gone when the other end or their time says so.

use std::sync::Arc;
use std::time::Duration;

use bastide_net::{Network, Origin, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Authority, Peer, Server, network};

/// Nothing here takes a second; a machine that is busy with other things may.
const PATIENCE: Duration = Duration::from_secs(60);

/// The spare that is being opened.
async fn spare(network: &Network, origin: &Origin) -> Wire {
    let taken = async {
        loop {
            if let Some(wire) = network.take_spare(origin) {
                return wire;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, taken).await.expect("a spare connection")
}

async fn echo(mut peer: Peer) {
    let byte: [u8; 1] = peer.body().await;
    peer.say(byte).await;
    peer.rest().await;
}

#[tokio::test]
async fn each_is_taken_once_and_works() {
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), echo).await;
    let (network, origin) = (authority.network(), server.origin("https"));
    assert!(network.take_spare(&origin).is_none(), "nobody has asked for one");
    network.dial_ahead(&origin, 2);
    // What is under way counts.
    network.dial_ahead(&origin, 1);
    network.dial_ahead(&origin, 2);
    for _ in 0..2 {
        let mut wire = spare(&network, &origin).await;
        wire.write_all(b"x").await.unwrap();
        let mut back = [0];
        wire.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"x");
    }
    assert!(network.take_spare(&origin).is_none());
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn one_leads_to_its_origin_alone() {
    let (here, there) = (Server::plain(echo).await, Server::plain(echo).await);
    let network = network();
    network.dial_ahead(&here.origin("http"), 1);
    drop(spare(&network, &here.origin("http")).await);
    network.dial_ahead(&here.origin("http"), 1);
    assert!(network.take_spare(&there.origin("http")).is_none());
    spare(&network, &here.origin("http")).await;
    assert_eq!(there.accepted(), 0);
}

/// A server whose script runs when the client has shaken hands too, which the spare connection is then kept for.
async fn serving<F>(script: impl Fn(Peer) -> F + Send + Sync + 'static) -> (Server, Network, Origin)
where
    F: Future<Output = ()> + Send + 'static,
{
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), script).await;
    let (network, origin) = (authority.network(), server.origin("https"));
    network.dial_ahead(&origin, 1);
    (server, network, origin)
}

#[tokio::test]
async fn one_that_the_other_end_closed_or_spoke_on_is_not_handed_out() {
    for words in ["", "HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let done = Arc::new(Notify::new());
        let told = Arc::clone(&done);
        let (_server, network, origin) = serving(move |mut peer: Peer| {
            let told = Arc::clone(&told);
            async move {
                if peer.number == 0 {
                    peer.say(words).await;
                    peer.stream.shutdown().await.unwrap();
                    told.notify_one();
                }
                peer.rest().await;
            }
        })
        .await;
        done.notified().await;
        // What was sent first has arrived first.
        network.dial(&origin).await.unwrap();
        assert!(network.take_spare(&origin).is_none());
        // Its place is free.
        network.dial_ahead(&origin, 1);
        spare(&network, &origin).await;
    }
}

#[tokio::test]
async fn one_that_nobody_takes_is_closed() {
    let (here, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begun, ended) = (Arc::clone(&here), Arc::clone(&closed));
    let (_server, network, origin) = serving(move |mut peer: Peer| {
        let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
        async move {
            begun.notify_one();
            peer.rest().await;
            ended.notify_one();
        }
    })
    .await;
    here.notified().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(90)).await;
    tokio::time::resume();
    timeout(PATIENCE, closed.notified()).await.expect("it is closed");
    assert!(network.take_spare(&origin).is_none());
}
