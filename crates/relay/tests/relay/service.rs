//! A Bastion service on loopback that does what a script says, and a transcript of what it was asked. It shares
//! no code with the relay; paths and field names are typed here again. It holds no assertion but on the
//! transcript.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::bench::PATIENCE;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Pod,
    Mint,
    Upgrade,
    Release,
    RdpFile,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    /// The how-manieth of its kind, from 1.
    pub(crate) number: usize,
    /// The how-manieth connection it came on, from 1.
    pub(crate) connection: usize,
    /// Method, path and version.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Ask {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The names of all headers but those that any HTTP request has.
    pub(crate) fn header_names(&self) -> Vec<&str> {
        let plain = ["host", "content-length", "accept", "user-agent"];
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| !plain.contains(name));
        names.sort_unstable();
        names
    }
}

/// What the service does about it.
pub(crate) enum Reply {
    /// What a healthy service does.
    Usual,
    /// Status and reason, more header lines, body.
    Http(&'static str, &'static str, String),
    /// This head, then these bytes in the same write, then the VM.
    Switch(String, &'static [u8], Vm),
    /// A correct head, then these bytes, then the VM.
    Accept(&'static [u8], Vm),
    /// The end of the connection.
    Nothing,
}

/// The far end of a WebSocket.
pub(crate) enum Vm {
    /// Says what it hears, until the other side closes.
    Echo,
    /// Reads so many bytes of frames, then closes the connection without a word.
    HangUp(usize),
    /// Reads so many bytes of frames, writes these bytes, then closes the connection.
    LastWords(usize, &'static [u8]),
    /// Closes the connection at once.
    Gone,
}

/// `HTTP/1.1 status`, no header lines.
pub(crate) fn http(status: &'static str, body: &str) -> Reply {
    Reply::Http(status, "", body.to_owned())
}

pub(crate) type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Script = Arc<dyn Fn(Ask) -> Answer + Send + Sync>;

/// What has come so far.
#[derive(Default)]
struct Seen {
    asks: Mutex<Vec<Ask>>,
    /// Connections that have shaken hands.
    connections: AtomicUsize,
    /// Told at each change of the two.
    changed: Notify,
    /// Ends connections on which nothing is asked.
    hang_up: Notify,
}

/// A service that lives as long as this.
pub(crate) struct Service {
    pub(crate) port: u16,
    seen: Arc<Seen>,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

impl Service {
    /// One that answers each request as `script` says, at once.
    pub(crate) async fn new(script: impl Fn(&Ask) -> Reply + Send + Sync + 'static) -> Self {
        Self::later(move |ask| {
            let reply = script(&ask);
            Box::pin(async move { reply })
        })
        .await
    }

    /// One whose answers may take their time.
    pub(crate) async fn later(script: impl Fn(Ask) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = acceptor(&folder);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let (script, kept): (Script, _) = (Arc::new(script), Arc::clone(&seen));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, script, seen) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&seen));
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        let number = 1 + seen.connections.fetch_add(1, Ordering::SeqCst);
                        seen.changed.notify_waiters();
                        serve(BufReader::new(stream), number, &script, &seen).await;
                    }
                });
            }
        });
        Self { port, seen: kept, folder, _tasks: tasks }
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The requests of one kind so far.
    pub(crate) fn asks(&self, kind: Kind) -> Vec<Ask> {
        self.seen.asks.lock().unwrap().iter().filter(|ask| ask.kind == kind).cloned().collect()
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.asks(kind).len()
    }

    /// Connections that have shaken hands.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits until there were so many connections.
    pub(crate) async fn connected(&self, count: usize) {
        self.until(|| self.connections() >= count).await;
    }

    /// Waits until so many requests of a kind have come.
    pub(crate) async fn asked(&self, kind: Kind, count: usize) {
        self.until(|| self.count(kind) >= count).await;
    }

    async fn until(&self, so: impl Fn() -> bool) {
        let wait = async {
            loop {
                let changed = self.seen.changed.notified();
                if so() {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.expect("it comes to that");
    }

    /// Ends every connection on which nothing is asked, and waits until that has arrived.
    pub(crate) async fn hang_up(&self) {
        self.seen.hang_up.notify_waiters();
        // Behind one more turn of the runtime's poll, in which everything else that has arrived is seen too.
        drop(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap());
    }

    /// The judge: each of so many minted tokens was released once, at its node, and nothing else was.
    pub(crate) fn assert_released(&self, minted: usize) {
        let mut releases: HashMap<(String, Option<String>), usize> = HashMap::new();
        for ask in self.asks(Kind::Release) {
            let node = ask.header("x-node-id").map(str::to_owned);
            *releases.entry((ask.line, node)).or_default() += 1;
        }
        let expected = (1..=minted).map(|number| {
            let line = format!("DELETE /api/tokens/auth-{number}%2F%2B HTTP/1.1");
            ((line, Some(format!("node {number}"))), 1)
        });
        assert_eq!(releases, expected.collect());
        let asks = self.seen.asks.lock().unwrap();
        for ask in asks.iter().filter(|ask| ask.kind != Kind::RdpFile) {
            assert_eq!(ask.header("authorization"), None);
        }
    }
}

async fn serve(mut stream: BufReader<TlsStream<TcpStream>>, connection: usize, script: &Script, seen: &Seen) {
    loop {
        let ask = tokio::select! {
            ask = read(&mut stream, connection, seen) => ask,
            () = seen.hang_up.notified() => return,
        };
        let Some(ask) = ask else { return };
        let usual = match ask.kind {
            Kind::Pod => http("200 OK", ask.header("host").unwrap()),
            Kind::Mint => {
                let n = ask.number;
                let grant = format!(
                    r#"{{"authToken":"auth-{n}/+","nodeId":"node {n}","websocketToken":"ws/{n}","username":null}}"#
                );
                http("200 OK", &grant)
            }
            Kind::RdpFile => http("200 OK", "full address:s:10.0.0.4\r\n"),
            Kind::Upgrade => Reply::Accept(b"", Vm::Echo),
            Kind::Release => http("204 No Content", ""),
        };
        let key = ask.header("sec-websocket-key").unwrap_or_default().to_owned();
        let reply = match script(ask).await {
            Reply::Usual => usual,
            reply => reply,
        };
        let (mut head, first, vm) = match reply {
            Reply::Http(status, headers, body) => {
                let length = body.len();
                let text = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}");
                if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                continue;
            }
            Reply::Accept(first, vm) => {
                let accept = derive_accept_key(key.as_bytes());
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                (head.into_bytes(), first, vm)
            }
            Reply::Switch(head, first, vm) => (head.into_bytes(), first, vm),
            Reply::Nothing => return,
            Reply::Usual => unreachable!("the usual is none of these"),
        };
        head.extend_from_slice(first);
        if stream.write_all(&head).await.is_ok() && stream.flush().await.is_ok() {
            run(vm, stream).await;
        }
        return;
    }
}

async fn run(vm: Vm, mut stream: BufReader<TlsStream<TcpStream>>) {
    match vm {
        Vm::Gone => {}
        Vm::HangUp(count) => drop(stream.read_exact(&mut vec![0; count]).await),
        Vm::LastWords(count, words) => {
            let words = async {
                stream.read_exact(&mut vec![0; count]).await?;
                stream.write_all(words).await?;
                stream.flush().await
            };
            drop(words.await);
        }
        Vm::Echo => {
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                if message.is_binary() && socket.send(Message::Binary(message.into_data())).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn read(stream: &mut BufReader<TlsStream<TcpStream>>, connection: usize, seen: &Seen) -> Option<Ask> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    let line = line.trim_end().to_owned();
    let kind = match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["POST", "/api/connection", _] => Kind::Pod,
        ["POST", "/api/tokens", _] => Kind::Mint,
        ["DELETE", ..] => Kind::Release,
        ["GET", path, _] if path.starts_with("/api/rdpfile?") => Kind::RdpFile,
        ["GET", ..] => Kind::Upgrade,
        other => panic!("{other:?}"),
    };
    let mut asks = seen.asks.lock().unwrap();
    let number = 1 + asks.iter().filter(|ask| ask.kind == kind).count();
    let body = String::from_utf8(body).unwrap();
    let ask = Ask { kind, number, connection, line, headers, body };
    asks.push(ask.clone());
    seen.changed.notify_waiters();
    Some(ask)
}

/// A certificate for `localhost`, whose authority goes into `folder`.
fn acceptor(folder: &TempDir) -> TlsAcceptor {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = root.self_signed(&root_key).unwrap();
    std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
