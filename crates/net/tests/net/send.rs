//! Requests over kept-alive connections, and answers in every bad shape.

use bastide_net::{Error, Network, Step};
use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use std::sync::Arc;

use crate::support::{Authority, Peer, Script, Server, network, told};

fn get(server: &Server, path: &str) -> Request<Bytes> {
    Request::get(server.url("http", path)).body(Bytes::new()).unwrap()
}

/// Answers each request on a connection with its path.
async fn paths(mut peer: Peer) {
    loop {
        let head = peer.head().await;
        let Some(path) = head.split(' ').nth(1) else { return };
        peer.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), paths).await;
    let network = authority.network();
    for path in ["/a", "/b?c=d%20e", "/"] {
        let request = Request::get(server.url("https", path)).body(Bytes::new()).unwrap();
        let answer = network.clone().send(request).await.unwrap();
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, path.as_bytes()));
    }
    assert_eq!(server.accepted(), 1);
    let port = server.address.port();
    assert_eq!(server.heads()[1], format!("GET /b?c=d%20e HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"));

    // Another view has connections of its own.
    let request = Request::get(server.url("https", "/")).body(Bytes::new()).unwrap();
    network.without_proxy().send(request).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn bodies_go_both_ways_and_redirects_are_answers() {
    let server = Server::plain(|mut peer: Peer| async move {
        let head = peer.head().await;
        assert!(head.contains("\r\nContent-Length: 5\r\n"), "{head}");
        let body: [u8; 5] = peer.body().await;
        assert_eq!(&body, b"token");
        peer.say("HTTP/1.1 302 Found\r\nLocation: http://localhost:1/\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        peer.say("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await;
        peer.rest().await;
    })
    .await;
    let request = Request::post(server.url("http", "/api/tokens")).body(Bytes::from("token")).unwrap();
    let answer = network().send(request).await.unwrap();
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::FOUND, b"abcde".as_slice()));
}

#[tokio::test]
async fn a_connection_that_went_stale_is_replaced() {
    let closed = Arc::new(Notify::new());
    let notify = Arc::clone(&closed);
    let server = Server::plain(move |mut peer: Peer| {
        let notify = Arc::clone(&notify);
        async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            if peer.number == 0 {
                peer.stream.shutdown().await.unwrap();
                notify.notify_one();
            }
            peer.rest().await;
        }
    })
    .await;
    let network = network();
    network.send(get(&server, "/first")).await.unwrap();
    closed.notified().await;
    network.send(get(&server, "/second")).await.unwrap();
    assert_eq!((server.accepted(), server.heads().len()), (2, 2));
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_not_repeated() {
    let server = Server::plain(|mut peer: Peer| async move {
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        // Reads the second request and goes away without a word.
        peer.head().await;
    })
    .await;
    let network = network();
    network.send(get(&server, "/first")).await.unwrap();
    let error = network.send(get(&server, "/second")).await.unwrap_err();
    assert!(matches!(error, Error::Closed { step: Step::Answer, .. }), "{error:?}");
    assert!(!error.is_connect());
    assert_eq!((server.accepted(), server.heads().len()), (1, 2));
}

/// What `network` makes of an answer that `script` gives.
async fn failure(network: &Network, script: fn(Peer) -> Script) -> Error {
    let server = Server::plain(script).await;
    network.send(get(&server, "/secret")).await.unwrap_err()
}

#[tokio::test]
async fn answers_in_bad_shapes() {
    let network = network();

    let error = failure(&network, |mut peer| {
        Box::pin(async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Le").await;
        })
    })
    .await;
    assert!(matches!(error, Error::Closed { step: Step::Answer, .. }), "half a head: {error:?}");
    assert!(!told(&error).contains("secret"));

    let error = failure(&network, |mut peer| {
        Box::pin(async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").await;
        })
    })
    .await;
    assert!(matches!(error, Error::Closed { step: Step::Answer, .. }), "half a body: {error:?}");

    let error = failure(&network, |mut peer| {
        Box::pin(async move {
            peer.head().await;
            peer.say("<html>sign in</html>\r\n\r\n").await;
        })
    })
    .await;
    assert!(matches!(error, Error::Answer { .. }), "no HTTP: {error:?}");
    assert!(error.hint().is_some());

    let error = failure(&network, |mut peer| {
        Box::pin(async move {
            peer.head().await;
            peer.say(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1_000_000))).await;
            peer.rest().await;
        })
    })
    .await;
    assert!(matches!(error, Error::Answer { .. }), "huge head: {error:?}");
    assert!(told(&error).ends_with("message head is too large"), "{}", told(&error));

    let error = failure(&network, |mut peer| {
        Box::pin(async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\n\r\n").await;
            let block = vec![b'x'; 1024 * 1024];
            for _ in 0..17 {
                peer.say(&block).await;
            }
        })
    })
    .await;
    assert!(matches!(error, Error::TooLarge { limit: 16_777_216, .. }), "huge body: {error:?}");
}

#[tokio::test]
async fn a_body_cut_out_of_tls_is_no_body() {
    let authority = Authority::new("Contoso Root CA");
    // Ends without Content-Length: by TLS' goodbye the first time, by nothing but a FIN the second.
    let server = Server::tls(authority.acceptor(|_| ()), |mut peer| async move {
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhost.bastion").await;
        if peer.number == 0 {
            peer.stream.shutdown().await.unwrap();
            peer.rest().await;
        }
    })
    .await;
    let network = authority.network();
    let request = || Request::get(server.url("https", "/")).body(Bytes::new()).unwrap();
    assert_eq!(network.send(request()).await.unwrap().body().as_ref(), b"host.bastion");
    let error = network.send(request()).await.unwrap_err();
    assert!(matches!(error, Error::Closed { step: Step::Answer, .. }), "{error:?}");
}

#[tokio::test]
async fn silence_has_an_end() {
    let check = async |script: fn(Peer) -> Script| {
        let error = failure(&network(), script).await;
        assert!(matches!(error, Error::Timeout { step: Step::Answer, .. }), "{error:?}");
        assert!(error.is_timeout() && !error.is_connect());
        tokio::time::resume();
    };
    // Time stands still, and therefore jumps to the deadline, from where the server falls silent.
    check(|mut peer| {
        Box::pin(async move {
            peer.head().await;
            tokio::time::pause();
            peer.rest().await;
        })
    })
    .await;
    check(|mut peer| {
        Box::pin(async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").await;
            tokio::time::pause();
            peer.rest().await;
        })
    })
    .await;
}

#[tokio::test]
async fn a_uri_without_a_host_is_refused() {
    let request = Request::get("/path").body(Bytes::new()).unwrap();
    let error = network().send(request).await.unwrap_err();
    assert!(matches!(error, Error::Address { .. }) && error.is_configuration(), "{error:?}");
}
