//! A certificate authority, and a server that runs a script for each connection. Holds no assertion
//! about `bastide-net`.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bastide_net::{Network, Options, Origin};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A certificate authority and the folder that holds its certificate.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2020, 1, 2);
        params.not_after = date_time_ymd(2120, 3, 4);
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), root: certificate.der().clone(), folder }
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server whose certificate `adjust` may spoil. It presents its own certificate and the root.
    pub(crate) fn acceptor(&self, adjust: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the server");
        params.not_before = date_time_ymd(2021, 1, 2);
        params.not_after = date_time_ymd(2121, 3, 4);
        adjust(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone(), self.root.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    pub(crate) fn options(&self) -> Options {
        Options { ca_bundles: vec![self.bundle()], ..Options::default() }
    }

    pub(crate) fn network(&self) -> Network {
        Network::new(self.options()).unwrap()
    }
}

/// Both halves of a connection, plain or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The server's end of a connection.
pub(crate) struct Peer {
    /// The how-manieth connection this is, from 0.
    pub(crate) number: usize,
    pub(crate) stream: BufReader<Box<dyn Stream>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// The next request's head with its empty line; empty when the client has gone.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return String::new();
            }
        }
        self.heads.lock().unwrap().push(head.clone());
        head
    }

    pub(crate) async fn body<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut body = [0; LENGTH];
        self.stream.read_exact(&mut body).await.unwrap();
        body
    }

    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // The client may have enough and be gone.
        if self.stream.write_all(bytes.as_ref()).await.is_ok() {
            let _ = self.stream.flush().await;
        }
    }

    /// Waits until the client closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
        rest
    }
}

/// A server on a free loopback port; its connections end with it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn plain<F>(script: impl Fn(Peer) -> F + Send + Sync + 'static) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Server::start(None, script).await
    }

    pub(crate) async fn tls<F>(
        acceptor: TlsAcceptor,
        script: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Server::start(Some(acceptor), script).await
    }

    async fn start<F>(
        acceptor: Option<TlsAcceptor>,
        script: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let (counter, seen, script) = (Arc::clone(&accepted), Arc::clone(&heads), Arc::new(script));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let (acceptor, script, heads) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&seen));
                tcp.set_nodelay(true).unwrap();
                connections.spawn(async move {
                    let stream: Box<dyn Stream> = match acceptor {
                        None => Box::new(tcp),
                        Some(acceptor) => match acceptor.accept(tcp).await {
                            Ok(tls) => Box::new(tls),
                            Err(_) => return,
                        },
                    };
                    script(Peer { number, stream: BufReader::new(stream), heads }).await;
                });
            }
        });
        Server { address, accepted, heads, _tasks: tasks }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(crate) fn origin(&self, scheme: &str) -> Origin {
        Origin::parse(&format!("{scheme}://localhost:{}", self.address.port())).unwrap()
    }

    pub(crate) fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }
}

/// A script's future, for scripts that are chosen at run time.
pub(crate) type Script = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An error and its causes, as a command line shows them.
pub(crate) fn told(error: &bastide_net::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(link) = cause {
        text = format!("{text}: {link}");
        cause = link.source();
    }
    text
}

/// Without certificates of anybody but the system's.
pub(crate) fn network() -> Network {
    Network::new(Options::default()).unwrap()
}
