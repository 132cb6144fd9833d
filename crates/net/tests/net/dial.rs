//! Getting to a server that is not there, is slow, or goes away.

use bastide_net::{Error, Network, Options, Origin, Step};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{Peer, Server, network, told};

/// A loopback port on which nothing listens.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_refusal_names_what_was_tried() {
    let port = free_port().await;
    let error = network().dial(&Origin::https(&format!("vm.localhost:{port}")).unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let expected =
        format!("vm.localhost:{port} (tried 127.0.0.1:{port}, [::1]:{port}) refused the connection");
    assert_eq!(told(&error), expected);
    assert!(error.hint().is_some() && error.is_connect());

    let error = network().dial(&Origin::https(&format!("127.0.0.1:{port}")).unwrap()).await.unwrap_err();
    assert_eq!(told(&error), format!("127.0.0.1:{port} refused the connection"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    // Labels of more than 63 letters never leave the machine.
    let name = "x".repeat(64);
    let error = network().dial(&Origin::https(&format!("{name}.invalid")).unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Name { .. } | Error::Address { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_shakes_hands() {
    let server = Server::plain(|mut peer: Peer| async move {
        peer.rest().await;
    })
    .await;
    let network = Network::new(Options::default()).unwrap();
    let error = network.dial(&server.origin("https")).await.unwrap_err();
    let Error::Timeout { step, limit, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*step, *limit), (Step::Handshake, Options::default().dial_timeout));
    assert!(error.is_timeout() && error.is_connect() && error.hint().is_some());
    assert_eq!(
        told(&error),
        format!("localhost:{} gave no answer within 15s while shaking hands for TLS", server.address.port())
    );
}

#[tokio::test]
async fn a_server_that_hangs_up_during_the_handshake() {
    let server = Server::plain(|mut peer: Peer| async move {
        // All of the first record, so that the end is a FIN and not a reset.
        let [_, _, _, high, low]: [u8; 5] = peer.body().await;
        let mut hello = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        peer.stream.read_exact(&mut hello).await.unwrap();
    })
    .await;
    let error = network().dial(&server.origin("https")).await.unwrap_err();
    assert!(matches!(error, Error::Closed { step: Step::Handshake, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("firewall"));
}
