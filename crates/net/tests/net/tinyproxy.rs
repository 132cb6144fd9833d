//! Through a real proxy: Debian's tinyproxy, with a user name and a password.

use std::process::Stdio;

use bastide_net::{Credentials, Error, Network, Options, ProxyRules, Upgrade};
use bytes::Bytes;
use http::Request;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::support::{Authority, Peer, Server};

/// A running tinyproxy; killed when dropped.
struct Tinyproxy {
    port: u16,
    _process: Child,
    _folder: TempDir,
}

impl Tinyproxy {
    async fn start() -> Tinyproxy {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let settings = folder.path().join("tinyproxy.conf");
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nLogLevel Info\nBasicAuth me s3cret\n\
             DisableViaHeader Yes\n"
        );
        std::fs::write(&settings, text).unwrap();
        let mut process = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("this test needs tinyproxy: apt-get install --yes tinyproxy-bin");
        // It says when it listens.
        let mut log = BufReader::new(process.stdout.take().unwrap()).lines();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("Accepting connections") {
                return Tinyproxy { port, _process: process, _folder: folder };
            }
        }
        panic!("tinyproxy ended before it listened: {:?}", process.wait().await);
    }

    fn network(&self, authority: &Authority, user: &str) -> Network {
        let proxy = ProxyRules::from_url(&format!("http://{user}127.0.0.1:{}", self.port), "").unwrap();
        Network::new(Options { proxy, ..authority.options() }).unwrap()
    }
}

async fn origin(mut peer: Peer) {
    if peer.head().await.contains("Upgrade") {
        peer.say("HTTP/1.1 101 Switching Protocols\r\n\r\nearly").await;
        let ping: [u8; 4] = peer.body().await;
        peer.say(ping).await;
    } else {
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    }
    peer.rest().await;
}

#[tokio::test]
async fn a_real_proxy_carries_requests_and_upgrades() {
    let authority = Authority::new("Contoso Root CA");
    let proxy = Tinyproxy::start().await;
    let secured = Server::tls(authority.acceptor(|_| ()), origin).await;
    let plain = Server::plain(origin).await;
    let network = proxy.network(&authority, "me:s3cret@");

    // By address: the proxy's resolver is not ours.
    let url = |scheme: &str, server: &Server| format!("{scheme}://{}/", server.address);
    for url in [url("https", &secured), url("http", &plain)] {
        let answer = network.send(Request::get(&url).body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(answer.body().as_ref(), b"ok", "{url}");
    }

    let url = url("https", &secured);
    let wire = network.dial(&bastide_net::Origin::parse(&url).unwrap()).await.unwrap();
    let request = Request::get(&url).header("Upgrade", "x").body(()).unwrap();
    let upgrade = network.upgrade(wire, request).await.unwrap();
    let Upgrade::Switched { mut wire, early, .. } = upgrade else { panic!("{upgrade:?}") };
    assert_eq!(early.as_ref(), b"early");
    wire.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    wire.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"ping");

    // tinyproxy answers 407 where credentials are missing and 401 where they are wrong.
    for (user, expected) in [("", Credentials::Missing), ("me:wrong@", Credentials::Rejected)] {
        let network = proxy.network(&authority, user);
        let request = Request::get(&url).body(Bytes::new()).unwrap();
        let error = network.send(request).await.unwrap_err();
        let Error::ProxyCredentials { credentials, .. } = &error else { panic!("{user}: {error:?}") };
        assert_eq!(*credentials, expected);
    }
}
