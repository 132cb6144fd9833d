//! A client that shares nothing with the product: requests and frames as literal bytes over TLS.
//! For the tests of the emulator only.

use std::sync::Arc;

use bastide_emulator::{Emulator, Options, Scenario, Transcript};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const TENANT: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const SUBSCRIPTION: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const CLIENT: &str = "44444444-4444-4444-8444-444444444444";
/// RFC 6455 section 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// RFC 6455 section 5.7, as a binary message: "Hello", masked.
pub(crate) const HELLO: &[u8] = &[0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// A close frame with status 1000, masked with ff00ff00.
pub(crate) const CLOSE: &[u8] = &[0x88, 0x82, 0xff, 0x00, 0xff, 0x00, 0xfc, 0xe8];

/// An emulator in a folder that goes away with it.
pub(crate) struct Lab {
    pub(crate) emulator: Emulator,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Lab {
    type Target = Emulator;

    fn deref(&self) -> &Emulator {
        &self.emulator
    }
}

impl Lab {
    /// Stops the emulator, and tells what it saw.
    pub(crate) async fn stop(self) -> Transcript {
        self.emulator.shutdown().await
    }
}

pub(crate) async fn lab(scenario: Scenario) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { state: folder.path().join("state"), scenario, ..Options::default() };
    Lab { emulator: Emulator::start(options).await.unwrap(), _folder: folder }
}

pub(crate) fn bastion(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/demo/providers/Microsoft.Network/bastionHosts/{name}"
    )
}

pub(crate) fn vm(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/demo/providers/Microsoft.Compute/virtualMachines/{name}"
    )
}

pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// One TLS connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    host: String,
}

impl Connection {
    pub(crate) async fn open(emulator: &Emulator, host: &str) -> Connection {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(emulator.ca_file()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(("127.0.0.1", emulator.port())).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        Connection { stream, host: host.to_owned() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// `head` is the request line and headers that are special, each ended by a newline.
    pub(crate) async fn request(&mut self, head: &str, body: &str) -> Answer {
        self.ask(head, body).await;
        self.answer().await
    }

    /// As above, without waiting for an answer.
    pub(crate) async fn ask(&mut self, head: &str, body: &str) {
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let mut text = format!("{line} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for header in headers.lines() {
            text.push_str(&format!("{header}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.send(format!("{text}\r\n{body}").as_bytes()).await;
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        Answer { status, head, body }
    }

    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// So many payload bytes, in however many binary frames below 126 bytes they come.
    pub(crate) async fn payload(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let head = self.read(2).await;
            assert!(head[0] == 0x82 && head[1] < 126, "{head:?}");
            bytes.extend(self.read(head[1].into()).await);
        }
        bytes
    }

    /// Everything up to the end; none when it is a clean one (close_notify).
    pub(crate) async fn end(&mut self) -> (Vec<u8>, Option<std::io::ErrorKind>) {
        let mut bytes = Vec::new();
        let ended = self.stream.read_to_end(&mut bytes).await;
        (bytes, ended.err().map(|fault| fault.kind()))
    }

    /// Everything up to a clean end (close_notify).
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).await.expect("a clean end");
        bytes
    }
}

/// An access token for ARM.
pub(crate) async fn token(emulator: &Emulator) -> String {
    token_for(emulator, "https://management.core.windows.net//.default").await
}

/// An access token of the service principal.
pub(crate) async fn token_for(emulator: &Emulator, scope: &str) -> String {
    let env = emulator.env();
    let secret = &env.iter().find(|(name, _)| name == "AZURE_CLIENT_SECRET").unwrap().1;
    let answer = ask_token(
        emulator,
        TENANT,
        &[
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT),
            ("client_secret", secret),
            ("scope", scope),
        ],
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

pub(crate) async fn ask_token(emulator: &Emulator, tenant: &str, fields: &[(&str, &str)]) -> Answer {
    let head = format!("POST /{tenant}/oauth2/v2.0/token\nContent-Type: application/x-www-form-urlencoded\n");
    Connection::open(emulator, "localhost").await.request(&head, &form(fields)).await
}

pub(crate) async fn get(emulator: &Emulator, token: &str, target: &str) -> Answer {
    let head = format!("GET {target}\nAuthorization: Bearer {token}\n");
    Connection::open(emulator, "localhost").await.request(&head, "").await
}

/// Name of the data plane of a Bastion host, without port.
pub(crate) async fn dns_name(emulator: &Emulator, token: &str, name: &str) -> String {
    let host = get(emulator, token, &format!("{}?api-version=2024-01-01", bastion(name))).await;
    assert_eq!(host.status, 200, "{}", host.text());
    host.json()["properties"]["dnsName"].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned()
}

/// A minted session.
pub(crate) struct Lease {
    pub(crate) host: String,
    pub(crate) auth: String,
    pub(crate) node: String,
    pub(crate) websocket: String,
}

pub(crate) async fn ask_mint(emulator: &Emulator, host: &str, fields: &[(&str, &str)]) -> Answer {
    let head = "POST /api/tokens\nContent-Type: application/x-www-form-urlencoded\n";
    Connection::open(emulator, host).await.request(head, &form(fields)).await
}

pub(crate) async fn mint(emulator: &Emulator, host: &str, token: &str, resource: &str, port: u16) -> Lease {
    let port = port.to_string();
    let answer = ask_mint(
        emulator,
        host,
        &[
            ("resourceId", resource),
            ("protocol", "tcptunnel"),
            ("workloadHostPort", &port),
            ("aztoken", token),
        ],
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let field = |name: &str| body[name].as_str().unwrap().to_owned();
    Lease {
        host: host.into(),
        auth: field("authToken"),
        node: field("nodeId"),
        websocket: field("websocketToken"),
    }
}

pub(crate) fn handshake(target: &str, more: &str) -> String {
    format!(
        "GET {target}\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: {KEY}\nSec-WebSocket-Version: 13\n{more}"
    )
}

impl Lease {
    /// The WebSocket, open.
    pub(crate) async fn upgrade(&self, emulator: &Emulator) -> Connection {
        let mut connection = Connection::open(emulator, &self.host).await;
        let target = format!("/webtunnelv2/{}?X-Node-Id={}", self.websocket, self.node);
        let answer = connection.request(&handshake(&target, ""), "").await;
        assert_eq!(answer.status, 101, "{}", answer.head);
        connection
    }

    pub(crate) async fn release(&self, emulator: &Emulator) -> u16 {
        self.release_on(emulator, &self.node).await
    }

    pub(crate) async fn release_on(&self, emulator: &Emulator, node: &str) -> u16 {
        let head = format!("DELETE /api/tokens/{}\nX-Node-Id: {node}\n", self.auth);
        Connection::open(emulator, &self.host).await.request(&head, "").await.status
    }
}
