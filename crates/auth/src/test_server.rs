//! A scripted HTTPS server on loopback for the tests of this crate. It leaves out everything that a sign-in
//! service knows: answers are given, requests are written down.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use bastide_net::{Network, Options};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::{Setup, Store};

/// One answer, word for word.
pub(crate) struct Answer {
    head: String,
    body: String,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self { head: format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"), body: body.into() }
    }

    pub(crate) fn html(status: u16, body: &str) -> Self {
        Self { head: format!("HTTP/1.1 {status} X\r\nContent-Type: text/html\r\n"), body: body.into() }
    }

    pub(crate) fn header(mut self, line: &str) -> Self {
        self.head += &format!("{line}\r\n");
        self
    }
}

/// Gives the answers in order, one a connection; then it closes what comes.
pub(crate) struct Server {
    port: u16,
    folder: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), cert.pem()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            for answer in answers {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut request = Vec::new();
                while !is_whole(&request) {
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        break;
                    }
                }
                log.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(String::from_utf8_lossy(&request).into_owned());
                let Answer { head, body } = answer;
                let text = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                stream.write_all(text.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self { port, folder, requests, task }
    }

    /// A network that trusts this server.
    pub(crate) fn network(&self) -> Network {
        Network::new(Options { ca_bundles: vec![self.folder.path().join("ca.pem")], ..Options::default() })
            .unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// What was asked, head and body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops listening.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// What providers at this server are made from.
pub(crate) fn setup(server: &Server, variables: &[(&str, &str)]) -> Setup {
    Setup {
        network: server.network(),
        authority: server.url(),
        environment: variables.iter().copied().collect(),
        tenant: None,
        client_id: None,
        store: Store::in_memory(),
        exec_command: None,
        prompt: None,
        plugins: Vec::new(),
        asker: None,
    }
}

/// Whether head and announced body are there.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0_usize)
}
