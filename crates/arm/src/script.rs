//! A scripted HTTP server on loopback, and a provider of numbered tokens, for the tests of this crate. It leaves
//! out TLS, which is `net`'s, and everything that ARM knows: replies are given, requests are written down.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Cloud, Freshness, Provider, RetryPolicy, Secret, TokenRequest};
use bastide_net::{Network, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::Arm;

/// One reply, word for word; an empty one closes the connection.
pub(crate) struct Reply(String, String);

impl Reply {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self(format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"), body.into())
    }

    pub(crate) fn html(status: u16, body: &str) -> Self {
        Self(format!("HTTP/1.1 {status} X\r\nContent-Type: text/html\r\n"), body.into())
    }

    pub(crate) fn broken() -> Self {
        Self(String::new(), String::new())
    }

    pub(crate) fn header(mut self, line: &str) -> Self {
        self.0 += &format!("{line}\r\n");
        self
    }
}

/// A request, and the question that its token answered.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) authorization: String,
    pub(crate) tenant: Option<String>,
    pub(crate) freshness: Freshness,
    pub(crate) claims: Option<String>,
}

/// Gives its replies in order, one a connection.
pub(crate) struct Script {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    tokens: Arc<Tokens>,
    _task: JoinSet<()>,
}

impl Script {
    pub(crate) async fn start(replies: Vec<Reply>) -> Self {
        Self::start_with(|_| replies).await
    }

    /// With replies that name the server's own address.
    pub(crate) async fn start_with(replies: impl FnOnce(&str) -> Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (replies, log) = (replies(&url), Arc::clone(&requests));
        let mut task = JoinSet::new();
        task.spawn(async move {
            for Reply(head, body) in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !is_whole(&request) {
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        break;
                    }
                }
                log.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(String::from_utf8_lossy(&request).into_owned());
                if !head.is_empty() {
                    let text =
                        format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
            }
        });
        Self { url, requests, tokens: Arc::default(), _task: task }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn network(&self) -> Network {
        Network::new(Options::default()).unwrap()
    }

    /// An ARM that asks this server and does not pause between its tries.
    pub(crate) fn arm(&self) -> Arm {
        let cloud = Cloud { arm: self.url(), ..Cloud::public() };
        Arm::new(self.network(), cloud, Arc::clone(&self.tokens) as Arc<dyn Provider>).with_retry(
            RetryPolicy {
                retries: 3,
                first_pause: Duration::ZERO,
                longest_asked: Duration::from_secs(30),
                ..RetryPolicy::default()
            },
        )
    }

    /// Path and query of each request.
    pub(crate) fn paths(&self) -> Vec<String> {
        let path = |request: &String| request.split(' ').nth(1).unwrap_or_default().to_owned();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().map(path).collect()
    }

    /// The body of each request.
    pub(crate) fn bodies(&self) -> Vec<String> {
        let body = |request: &String| request.split_once("\r\n\r\n").unwrap_or_default().1.to_owned();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().map(body).collect()
    }

    /// Each request's token, and how it was asked for.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = self.tokens.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(requests.len(), asked.len());
        requests
            .iter()
            .zip(asked.iter())
            .map(|(request, ask)| Asked {
                authorization: request
                    .lines()
                    .find_map(|line| {
                        line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
                    })
                    .map(|(_, value)| value.to_owned())
                    .unwrap_or_default(),
                tenant: ask.tenant.clone(),
                freshness: ask.freshness,
                claims: ask.claims.clone(),
            })
            .collect()
    }
}

/// Whether the body is there, too.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    });
    length.is_none_or(|(_, length)| length.parse().is_ok_and(|length: usize| body.len() >= length))
}

/// Every token is new.
#[derive(Default)]
struct Tokens(Mutex<Vec<TokenRequest>>);

#[async_trait]
impl Provider for Tokens {
    fn name(&self) -> &str {
        "numbered"
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        assert_eq!(request.scope, "https://management.azure.com/.default");
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(request.clone());
        Ok(AccessToken {
            secret: Secret::new(format!("token {}", asked.len())),
            expires_on: SystemTime::now() + Duration::from_secs(3600),
        })
    }
}
