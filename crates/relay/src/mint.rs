//! From an access token to an open WebSocket: data pod, mint, dial, upgrade (protocol.md §3, §5). It leaves out
//! when to try again and what is sent over the WebSocket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bastide_core::{
    AccessToken, AuthError, End, Entry, Grant, Plan, Provider, Secret, TokenRequest, service_message,
};
use bastide_net::{Challenge, Network, Origin, Upgrade, Wire, retry_after};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::error::{Wanted, is_catch_all};
use crate::lease::{Lease, Reaper, Release};
use crate::{Debt, Error, USER_AGENT};

/// Whether something was made for a connection, or before it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Kept,
}

/// Opens WebSockets by one plan.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) network: Network,
    pub(crate) provider: Arc<dyn Provider>,
    /// What tokens are asked for; shared, so that a challenge is met once.
    pub(crate) token: Arc<Mutex<TokenRequest>>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) front: Origin,
    pub(crate) reaper: Reaper,
}

/// An open WebSocket, and the lease that it uses up.
pub(crate) struct Opened {
    pub(crate) lease: Lease,
    pub(crate) wire: Wire,
    /// Bytes that came together with the answer to the upgrade.
    pub(crate) early: Bytes,
}

/// Why there is none, and what a retry makes of it.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) end: End,
}

impl Failure {
    /// Whether an upgrade failed because what it used had gone stale: a spare connection that brings no answer, or
    /// a lease that the service does not know any more.
    fn is_of_age(&self, lease: Age, wire: Age) -> bool {
        match self.end {
            End::Unreachable => wire == Age::Kept,
            End::UpgradeRefused { status: 400..=499 } => lease == Age::Kept,
            _ => false,
        }
    }
}

impl Gate {
    /// Opens a WebSocket, with `ahead` as its lease when there is one. What was kept ready, that lease or a spare
    /// connection, may have gone stale; then everything is made anew, at once and without a word.
    ///
    /// Cancel safe: a token that is being minted is released when it comes.
    pub(crate) async fn open(&self, ahead: Option<Lease>) -> Result<Opened, Failure> {
        let lease_age = if ahead.is_some() { Age::Kept } else { Age::New };
        let (lease, (wire, wire_age)) = match ahead {
            Some(lease) => {
                let way = self.way(&lease.host).await?;
                (lease, way)
            }
            None => {
                let (token, host) = self.entrance().await?;
                // The mint needs a round trip and so may the way to the upgrade: side by side.
                tokio::try_join!(self.mint(token, host.clone()), self.way(&host))?
            }
        };
        match self.upgrade(lease, wire).await {
            Err(failure) if failure.is_of_age(lease_age, wire_age) => {
                tracing::debug!(error = %failure.error, "what was kept ready had gone stale");
                let (token, host) = self.entrance().await?;
                let (lease, wire) = tokio::try_join!(self.mint(token, host.clone()), self.dial(&host))?;
                self.upgrade(lease, wire).await
            }
            outcome => outcome,
        }
    }

    /// Mints a lease for a connection to come.
    ///
    /// Cancel safe, as [`Gate::open`].
    pub(crate) async fn prepare(&self) -> Result<Lease, Failure> {
        let (token, host) = self.entrance().await?;
        self.mint(token, host).await
    }

    /// An access token, and the host that mints for it.
    async fn entrance(&self) -> Result<(Secret, Origin), Failure> {
        let mut token = self.access_token().await?;
        let host = self.host(&mut token).await?;
        Ok((token, host))
    }

    pub(crate) async fn access_token(&self) -> Result<Secret, Failure> {
        let token = self.provider.access_token(&self.wanted()).await.map_err(not_signed_in)?;
        Ok(token.secret)
    }

    fn wanted(&self) -> TokenRequest {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which host mints: the Bastion host itself, or the data pod that it names.
    async fn host(&self, token: &mut Secret) -> Result<Origin, Failure> {
        match self.plan.entry() {
            Entry::Node => Ok(self.front.clone()),
            Entry::Pod => self.data_pod(token).await,
        }
    }

    /// protocol.md §5: the body of a 200 is the pod's host name; anything else must not be taken for one.
    async fn data_pod(&self, token: &mut Secret) -> Result<Origin, Failure> {
        let ask = |token: &Secret| {
            post(&self.front, "/api/connection", "application/json", &self.plan.pod_request(token))
        };
        let answer = self.ask(&self.front, token, ask).await?;
        if answer.status() != 200 {
            return Err(self.refused(Wanted::Token, &answer));
        }
        pod(answer.body()).ok_or_else(|| {
            let said = service_message(answer.body()).unwrap_or_else(|| "an empty answer".into());
            Failure {
                error: Error::Pod { reason: said },
                end: End::Refused { status: 502, retry_after: None },
            }
        })
    }

    /// Mints in a task of its own, so that a caller who stops waiting leaves no token behind.
    async fn mint(&self, token: Secret, host: Origin) -> Result<Lease, Failure> {
        let (sender, receiver) = oneshot::channel();
        let gate = self.clone();
        self.reaper.adopt(async move {
            // Nobody there to take it: the lease comes back, is dropped, and so released.
            drop(sender.send(gate.mint_now(token, host).await));
        });
        match receiver.await {
            Ok(result) => result,
            // The task is gone without an answer: the runtime is shutting down.
            Err(_) => Err(Failure { error: Error::Stopped, end: End::Stopped }),
        }
    }

    async fn mint_now(&self, mut token: Secret, host: Origin) -> Result<Lease, Failure> {
        let content_type = "application/x-www-form-urlencoded";
        let ask = |token: &Secret| post(&host, "/api/tokens", content_type, &self.plan.mint_form(token));
        let answer = self.ask(&host, &mut token, ask).await?;
        if answer.status() != 200 {
            return Err(self.refused(Wanted::Token, &answer));
        }
        match Grant::parse(answer.body()) {
            Ok(grant) => Ok(Lease::new(grant, host, self.reaper.clone())),
            Err(mut error) => {
                if let Some((auth_token, node_id)) = error.releasable.take() {
                    let debt = Debt { host, auth_token, node_id };
                    self.reaper.release(Release { debt, connection: 0, entry: None });
                }
                let end = End::Refused { status: 502, retry_after: None };
                Err(Failure { error: Error::Grant(error), end })
            }
        }
    }

    /// Sends what `request` makes of `token`. A token that the cache thinks valid may have been revoked, or lack claims
    /// that the service challenges for: a 401 is tried once more with another one, which then stays in `token`.
    pub(crate) async fn ask(
        &self,
        host: &Origin,
        token: &mut Secret,
        request: impl Fn(&Secret) -> http::Result<Request<Bytes>> + Send + Sync,
    ) -> Result<Response<Bytes>, Failure> {
        let answer = self.send(host, request(token)).await?;
        if answer.status() != 401 {
            return Ok(answer);
        }
        *token = self.another_token(&answer, token).await.map_err(not_signed_in)?.secret;
        self.send(host, request(token)).await
    }

    /// Another token than the one that was refused by `answer`. The claims of a challenge stay for all that are asked for
    /// later; one that names those that `refused` was asked for with has revoked it.
    async fn another_token(
        &self,
        answer: &Response<Bytes>,
        refused: &Secret,
    ) -> Result<AccessToken, AuthError> {
        let mut wanted = self.wanted();
        let claims = Challenge::read(answer.headers()).claims();
        if claims.is_none() || claims == wanted.claims {
            return self.provider.another_token(&wanted, refused).await;
        }
        wanted.claims = claims;
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&wanted);
        self.provider.access_token(&wanted).await
    }

    async fn send(
        &self,
        host: &Origin,
        request: http::Result<Request<Bytes>>,
    ) -> Result<Response<Bytes>, Failure> {
        let request = request.map_err(|error| malformed(&error))?;
        self.network.send(request).await.map_err(|source| self.unreachable(host, source))
    }

    /// A connection for an upgrade: a spare one, or a new one.
    async fn way(&self, host: &Origin) -> Result<(Wire, Age), Failure> {
        match self.network.take_spare(host) {
            Some(wire) => Ok((wire, Age::Kept)),
            None => Ok((self.dial(host).await?, Age::New)),
        }
    }

    async fn dial(&self, host: &Origin) -> Result<Wire, Failure> {
        self.network.dial(host).await.map_err(|source| self.unreachable(host, source))
    }

    /// protocol.md §3 step 2: no subprotocol, no extension, no `Authorization`.
    async fn upgrade(&self, lease: Lease, wire: Wire) -> Result<Opened, Failure> {
        let path = self.plan.upgrade_path(&lease.grant);
        let key = generate_key();
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("{}{}", lease.host, path.expose()))
            .header(header::HOST, lease.host.authority())
            .header(header::UPGRADE, "websocket")
            .header(header::CONNECTION, "Upgrade")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            // Without the port where https implies it (RFC 6454 §6.1), as a browser sends it.
            .header(header::ORIGIN, format!("https://{}", lease.host.authority()))
            .body(())
            .map_err(|error| malformed(&error))?;
        let upgraded = self.network.upgrade(wire, request).await;
        match upgraded.map_err(|source| self.unreachable(&lease.host, source))? {
            Upgrade::Switched { wire, head, early } => {
                let accept = head.headers.get(header::SEC_WEBSOCKET_ACCEPT);
                // protocol.md §4: a missing one is forgiven, a wrong one is an answer to somebody else.
                if accept
                    .is_some_and(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
                {
                    return Err(Failure { error: Error::Accept, end: End::UpgradeRefused { status: 101 } });
                }
                Ok(Opened { lease, wire, early })
            }
            Upgrade::Refused(answer) => {
                let status = answer.status().as_u16();
                let error = Error::Upgrade {
                    status,
                    message: service_message(answer.body()),
                    request_id: request_id(answer.headers()),
                };
                Err(Failure { error, end: End::UpgradeRefused { status } })
            }
        }
    }

    fn unreachable(&self, host: &Origin, source: bastide_net::Error) -> Failure {
        // Nor does another try mend a certificate that nobody here trusts.
        let lasting = source.is_configuration() || source.presented().is_some();
        let end = if lasting { End::Declined } else { End::Unreachable };
        Failure { error: Error::Unreachable { host: host.authority(), source: source.into() }, end }
    }

    /// What a refusal of something wanted means.
    pub(crate) fn refused(&self, wanted: Wanted, answer: &Response<Bytes>) -> Failure {
        let status = answer.status().as_u16();
        let message = service_message(answer.body());
        // The catch-all of a 500 has many causes that stay; with another status it is the status that speaks.
        let lasting = status == 500 && message.as_deref().is_some_and(is_catch_all);
        let curable = matches!(status, 408 | 429 | 500..=599) && !lasting;
        let retry_after = retry_after(answer.headers(), SystemTime::now());
        let end = if curable { End::Refused { status, retry_after } } else { End::Declined };
        let error = Error::Mint {
            wanted,
            target: self.plan.target_name().to_owned(),
            port: self.plan.port(),
            status,
            message,
            request_id: request_id(answer.headers()),
            retry_after,
        };
        Failure { error, end }
    }
}

fn post(host: &Origin, path: &str, content_type: &str, body: &Secret) -> http::Result<Request<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("{host}{path}"))
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Bytes::copy_from_slice(body.expose().as_bytes()))
}

/// The data pod that an answer names: a host name and nothing else, in quotes or not.
pub(crate) fn pod(body: &[u8]) -> Option<Origin> {
    let name = std::str::from_utf8(body).ok()?.trim().trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    let fits = !name.is_empty() && name.len() <= LONGEST_HOST && name.chars().all(plain);
    fits.then(|| Origin::https(name).ok()).flatten()
}

/// Sign-in has made its own retries.
fn not_signed_in(error: AuthError) -> Failure {
    Failure { error: Error::SignIn(error), end: End::Declined }
}

/// A host name's limit with a port behind it (RFC 1035 §2.3.4).
const LONGEST_HOST: usize = 255 + 6;

/// The address of a host came from outside and does not make a URL; the error's own words hold no secret.
fn malformed(error: &http::Error) -> Failure {
    let reason = format!("its answer does not make a request: {error}");
    Failure { error: Error::Pod { reason }, end: End::Declined }
}

/// The id under which the service logged the request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    ["x-ms-request-id", "x-ms-correlation-request-id", "request-id", "x-request-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        // It is shown: one word, as a GUID is, of a length that fits a line.
        .filter(|id| id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(str::to_owned)
}
