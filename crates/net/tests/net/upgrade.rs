//! The upgrade: status 101 decides, and no byte that came with it is lost.

use bastide_net::{Error, Network, Step, Upgrade};
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Authority, Peer, Script, Server, network, told};

fn request(server: &Server, scheme: &str) -> Request<()> {
    Request::get(server.url(scheme, "/webtunnelv2/t?X-Node-Id=n"))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .body(())
        .unwrap()
}

async fn ask(network: &Network, server: &Server, scheme: &str) -> Result<Upgrade, Error> {
    let wire = network.dial(&server.origin(scheme)).await?;
    network.upgrade(wire, request(server, scheme)).await
}

#[tokio::test]
async fn status_101_decides_whatever_the_headers() {
    let authority = Authority::new("Contoso Root CA");
    let network = authority.network();
    for headers in [
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: close\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "",
    ] {
        let server = Server::tls(authority.acceptor(|_| ()), move |mut peer: Peer| async move {
            peer.head().await;
            peer.say(format!("HTTP/1.1 101 Switching Protocols\r\n{headers}\r\nearly")).await;
            let ping: [u8; 4] = peer.body().await;
            peer.say(ping).await;
            peer.rest().await;
        })
        .await;
        let upgrade = ask(&network, &server, "https").await.unwrap();
        let Upgrade::Switched { mut wire, head, early } = upgrade else { panic!("{headers}: {upgrade:?}") };
        assert_eq!((head.status, early.as_ref()), (StatusCode::SWITCHING_PROTOCOLS, b"early".as_slice()));
        wire.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        wire.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"ping");
        let port = server.address.port();
        assert_eq!(
            server.heads(),
            [format!(
                "GET /webtunnelv2/t?X-Node-Id=n HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Host: localhost:{port}\r\n\r\n"
            )]
        );
    }
}

#[tokio::test]
async fn no_early_byte_is_lost_wherever_the_bytes_are_cut() {
    const ANSWER: &[u8] = b"HTTP/1.1 101 \r\nX: y\r\n\r\nHTTP/1.1 400 Bad Request";
    const EARLY: &[u8] = b"HTTP/1.1 400 Bad Request";
    // A connection for each cut; its number is the place of the cut.
    let server = Server::plain(|mut peer: Peer| async move {
        peer.head().await;
        let (first, second) = ANSWER.split_at(peer.number);
        peer.say(first).await;
        // The client gets to read the first part before there is a second one.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        peer.say(second).await;
        let _ = peer.stream.shutdown().await;
    })
    .await;
    let network = network();
    for cut in 0..=ANSWER.len() {
        let upgrade = ask(&network, &server, "http").await.unwrap();
        let Upgrade::Switched { mut wire, early, .. } = upgrade else { panic!("{cut}: {upgrade:?}") };
        let mut all = early.to_vec();
        wire.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, EARLY, "{cut}");
    }
}

#[tokio::test]
async fn another_status_is_a_refusal_with_its_page() {
    let check = async |script: fn(Peer) -> Script, status: u16, page: &[u8]| {
        let server = Server::plain(script).await;
        let upgrade = ask(&network(), &server, "http").await.unwrap();
        let Upgrade::Refused(answer) = upgrade else { panic!("{upgrade:?}") };
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (status, page));
    };
    check(
        |mut peer| {
            Box::pin(async move {
                peer.head().await;
                peer.say("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\npage").await;
                peer.rest().await;
            })
        },
        404,
        b"page",
    )
    .await;
    // 200 to a GET is no upgrade, and a body without a length ends with the connection.
    check(
        |mut peer| {
            Box::pin(async move {
                peer.head().await;
                peer.say("HTTP/1.1 200 OK\r\n\r\nsign in").await;
            })
        },
        200,
        b"sign in",
    )
    .await;
    // A page that is cut takes nothing from the status.
    check(
        |mut peer| {
            Box::pin(async move {
                peer.head().await;
                peer.say("HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nhalf").await;
            })
        },
        503,
        b"half",
    )
    .await;
    // One that never ends is cut by us.
    check(
        |mut peer| {
            Box::pin(async move {
                peer.head().await;
                peer.say("HTTP/1.1 500 Oops\r\n\r\n").await;
                peer.say(vec![b'x'; 200_000]).await;
                peer.rest().await;
            })
        },
        500,
        &[b'x'; 65_536],
    )
    .await;
    // And one that stalls is given up.
    check(
        |mut peer| {
            Box::pin(async move {
                peer.head().await;
                peer.say("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 100\r\n\r\nhalf").await;
                tokio::time::pause();
                peer.rest().await;
            })
        },
        502,
        b"half",
    )
    .await;
}

#[tokio::test]
async fn no_answer_at_all() {
    let network = network();
    let server = Server::plain(|mut peer: Peer| async move {
        peer.head().await;
        if peer.number == 0 {
            peer.say("HTTP/1.1 101 Switching").await;
            return;
        }
        tokio::time::pause();
        peer.rest().await;
    })
    .await;
    let error = ask(&network, &server, "http").await.unwrap_err();
    assert!(matches!(error, Error::Closed { step: Step::Answer, .. }), "{error:?}");
    let error = ask(&network, &server, "http").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { step: Step::Answer, .. }), "{error:?}");
    assert!(!told(&error).contains("webtunnel"), "{}", told(&error));
}
