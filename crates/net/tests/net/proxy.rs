//! Through a proxy of a few lines: what it is told, and what is made of its refusals.

use bastide_net::{Credentials, Error, Network, Options, ProxyRules, Step, Upgrade};
use bytes::Bytes;
use http::Request;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::{Authority, Peer, Server, network, told};

/// A tunnel for everybody who knows the password.
async fn tunnel(mut peer: Peer) {
    let head = peer.head().await;
    // base64("me:s3cret!"), RFC 7617 section 2.
    if !head.contains("\r\nProxy-Authorization: Basic bWU6czNjcmV0IQ==\r\n") {
        peer.say(
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\
             Content-Length: 0\r\n\r\n",
        )
        .await;
        return;
    }
    let target = head.split(' ').nth(1).unwrap();
    let port: u16 = target.rsplit(':').next().unwrap().parse().unwrap();
    let mut origin = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    peer.say("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let _ = tokio::io::copy_bidirectional(&mut peer.stream, &mut origin).await;
}

fn through(authority: &Authority, proxy: &str, no_proxy: &str) -> Network {
    let proxy = ProxyRules::from_url(proxy, no_proxy).unwrap();
    Network::new(Options { proxy, ..authority.options() }).unwrap()
}

/// Answers a plain request, or upgrades.
async fn origin(mut peer: Peer) {
    let head = peer.head().await;
    if head.contains("Upgrade") {
        peer.say("HTTP/1.1 101 Switching Protocols\r\n\r\nearly").await;
    } else {
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    }
    peer.rest().await;
}

#[tokio::test]
async fn requests_and_upgrades_take_the_tunnel() {
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), origin).await;
    let plain = Server::plain(tunnel).await;
    let secured = Server::tls(authority.acceptor(|_| ()), tunnel).await;
    for (scheme, proxy) in [("http", &plain), ("https", &secured)] {
        let url = format!("{scheme}://me:s3cret%21@localhost:{}", proxy.address.port());
        let network = through(&authority, &url, "");
        let request = Request::get(server.url("https", "/")).body(Bytes::new()).unwrap();
        assert_eq!(network.send(request).await.unwrap().body().as_ref(), b"ok");

        let wire = network.dial(&server.origin("https")).await.unwrap();
        let request = Request::get(server.url("https", "/")).header("Upgrade", "x").body(()).unwrap();
        let upgrade = network.upgrade(wire, request).await.unwrap();
        let Upgrade::Switched { early, .. } = upgrade else { panic!("{upgrade:?}") };
        assert_eq!(early.as_ref(), b"early");

        let port = server.address.port();
        let connect = format!(
            "CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\
             Proxy-Authorization: Basic bWU6czNjcmV0IQ==\r\n\r\n"
        );
        assert_eq!(proxy.heads(), [connect.clone(), connect]);
    }
    assert!(server.heads().iter().all(|head| !head.to_lowercase().contains("proxy")));
}

#[tokio::test]
async fn no_proxy_and_without_proxy_go_directly() {
    let authority = Authority::new("Contoso Root CA");
    let server = Server::tls(authority.acceptor(|_| ()), origin).await;
    let proxy = Server::plain(tunnel).await;
    let url = format!("http://localhost:{}", proxy.address.port());
    let get = || Request::get(server.url("https", "/")).body(Bytes::new()).unwrap();
    through(&authority, &url, "example.com,localhost").send(get()).await.unwrap();
    through(&authority, &url, "").without_proxy().send(get()).await.unwrap();
    assert_eq!(proxy.accepted(), 0);
}

#[tokio::test]
async fn credentials_missing_and_rejected() {
    let authority = Authority::new("Contoso Root CA");
    let proxy = Server::plain(tunnel).await;
    let port = proxy.address.port();
    let check = async |user: &str, expected: Credentials, words: &str| {
        let network = through(&authority, &format!("http://{user}localhost:{port}"), "");
        let origin = bastide_net::Origin::https("bst-1.example:443").unwrap();
        let error = network.dial(&origin).await.unwrap_err();
        let Error::ProxyCredentials { credentials, offered, .. } = &error else { panic!("{error:?}") };
        assert_eq!((*credentials, offered.as_slice()), (expected, &["Basic".to_owned()][..]));
        assert_eq!(told(&error), format!("the proxy localhost:{port} {words}"));
        assert!(error.hint().unwrap().contains("http://user:password@host:port"));
        assert!(!format!("{error:?} {network:?}").contains("hunter2"));
    };
    check("", Credentials::Missing, "asks for a user name and password").await;
    let rejected = "does not accept the configured user name and password";
    check("me:hunter2@", Credentials::Rejected, rejected).await;
}

#[tokio::test]
async fn a_proxy_that_speaks_only_ntlm_leads_to_cntlm() {
    let authority = Authority::new("Contoso Root CA");
    let proxy = Server::plain(|mut peer: Peer| async move {
        peer.head().await;
        peer.say(
            "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\
             Content-Length: 0\r\n\r\n",
        )
        .await;
    })
    .await;
    let network = through(&authority, &format!("http://localhost:{}", proxy.address.port()), "");
    let error = network.dial(&bastide_net::Origin::https("bst-1.example").unwrap()).await.unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("it offers Negotiate, NTLM only") && hint.contains("cntlm"), "{hint}");
}

#[tokio::test]
async fn refusals_silence_and_absence_name_the_proxy() {
    let authority = Authority::new("Contoso Root CA");
    let origin = bastide_net::Origin::https("bst-1.example").unwrap();
    let proxy = Server::plain(|mut peer: Peer| async move {
        peer.head().await;
        match peer.number {
            0 => peer.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await,
            1 => peer.say("HTTP/1.1 200 OK\r\n\r\nyou have won").await,
            _ => tokio::time::pause(),
        }
        peer.rest().await;
    })
    .await;
    let port = proxy.address.port();
    let network = through(&authority, &format!("http://localhost:{port}"), "");

    let error = network.dial(&origin).await.unwrap_err();
    assert_eq!(
        told(&error),
        format!("the proxy localhost:{port} refused to connect to bst-1.example:443: status 403 Forbidden")
    );
    assert!(error.hint().unwrap().contains("CONNECT to bst-1.example:443"));

    let error = network.dial(&origin).await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");

    let error = network.dial(&origin).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { step: Step::Tunnel, .. }), "{error:?}");
    assert!(told(&error).starts_with(&format!("localhost:{port} gave no answer")), "{}", told(&error));
    tokio::time::resume();

    drop(proxy);
    let error = network.dial(&origin).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn plain_requests_are_handed_to_the_proxy_whole() {
    let authority = Authority::new("Contoso Root CA");
    let proxy = Server::plain(|mut peer: Peer| async move {
        while let head = peer.head().await
            && !head.is_empty()
        {
            let answer = match head.contains("Proxy-Authorization: Basic bWU6cHc=") {
                true => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                false => "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            };
            peer.say(answer).await;
        }
    })
    .await;
    let port = proxy.address.port();
    let get = || Request::get("http://origin.example/path?q").body(Bytes::new()).unwrap();
    let network = through(&authority, &format!("http://me:pw@localhost:{port}"), "");
    assert_eq!(network.send(get()).await.unwrap().body().as_ref(), b"ok");
    assert_eq!(
        proxy.heads(),
        ["GET http://origin.example/path?q HTTP/1.1\r\nProxy-Authorization: Basic bWU6cHc=\r\n\
          Host: origin.example\r\n\r\n"]
    );
    let network = through(&authority, &format!("http://localhost:{port}"), "");
    let error = network.send(get()).await.unwrap_err();
    assert!(matches!(error, Error::ProxyCredentials { .. }), "{error:?}");
}

/// Not a test of its own: prints what `ProxyRules::from_environment` makes of its environment.
#[test]
fn environment() {
    match ProxyRules::from_environment() {
        Ok(rules) => println!("rules: {rules:?}"),
        Err(error) => println!("error: {}", told(&error)),
    }
}

#[test]
fn the_environment_is_read_with_its_mistakes() {
    let check = |variables: &[(&str, &str)], expected: &[&str]| {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "proxy::environment", "--nocapture"])
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8(child.stdout).unwrap();
        for words in expected {
            assert!(said.contains(words), "{variables:?}: {said}");
        }
        assert!(!said.contains("s3cret"), "{said}");
    };
    check(&[], &["rules: Matcher"]);
    check(
        &[
            ("https_proxy", "http://me:s3cret@lower.corp:1"),
            ("HTTP_PROXY", "upper.corp:2"),
            ("NO_PROXY", "x.org"),
        ],
        &["rules: ", "http://lower.corp:1", "http://upper.corp:2", "x.org"],
    );
    check(&[("ALL_PROXY", "socks5://s.corp"), ("HTTPS_PROXY", "http://h.corp")], &["rules: ", "h.corp"]);
    check(
        &[("HTTPS_PROXY", "http://me:s3cret^@h.corp")],
        &["error: the proxy address of HTTPS_PROXY cannot be used: it is not a URL like http://host:port"],
    );
}

#[tokio::test]
async fn the_default_asks_no_proxy() {
    let server = Server::plain(origin).await;
    let mut wire = network().dial(&server.origin("http")).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut wire, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut byte = [0];
    wire.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"H");
}
