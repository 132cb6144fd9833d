//! The two ports, with TLS and without: accepts connections, reads requests, sends each to the service it belongs to,
//! writes what was seen into the transcript, and turns a connection into a tunnel after a 101.
//! One task owns one connection.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::azure::Azure;
use crate::data_plane::{self, Fate, Opening, tunnel};
use crate::faults::{self, Cut};
use crate::http::{Answer, Request, Response, Wire, json as json_answer};
use crate::socket::{Reset, Socket};
use crate::transcript::{self, End, Kind, Tunnel};
use crate::{arm, control, entra, identity, key_vault, oidc};

/// Serves until the stop token is cancelled, then ends every connection, within [`STOP_TIME`]. Errors of
/// a connection, and of accepting one, never end it. Not cancel safe: dropping it drops every connection.
pub(crate) async fn serve(azure: Arc<Azure>, ports: Ports, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    let last = AtomicU64::new(0);
    loop {
        tokio::select! {
            accepted = ports.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, wire)) => {
                    let number = last.fetch_add(1, Ordering::Relaxed) + 1;
                    let azure = Arc::clone(&azure);
                    match wire {
                        Wire::Tls => connections.spawn(connection(azure, acceptor.clone(), stream, number)),
                        Wire::Plain => connections.spawn(plain_connection(azure, stream, number)),
                    };
                }
                Err(fault) => {
                    // Most often too many open files: they come back when connections end.
                    tracing::warn!(%fault, "accepting a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => if let Err(fault) = ended {
                tracing::error!(%fault, "a connection's task failed");
            },
            () = azure.stop.cancelled() => break,
        }
    }
    drop(ports);
    let ended = async {
        while connections.join_next().await.is_some() {}
        azure.services.closed().await;
    };
    if timeout(STOP_TIME, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Connections at once; above, new ones wait in the listener's backlog. Four times what one client is
/// expected to open in a test.
const MAX_CONNECTIONS: usize = 4096;
/// Pause after a failed accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for all connections to end when the emulator stops; longer than a tunnel's goodbye.
const STOP_TIME: Duration = Duration::from_secs(10);
/// Time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A kept-alive connection may be idle for this long, as at Azure's front ends (four minutes).
const IDLE_TIME: Duration = Duration::from_secs(240);
/// Bytes of a request's body; the largest real one holds a token of a few KiB.
const MAX_BODY: usize = 256 * 1024;
/// Bytes that one read takes from the socket: rustls by itself asks for one record at a time.
const READ_AHEAD: usize = 256 * 1024;

/// Characters of a minted token; no name in the scenario's Azure has so many by accident.
const TOKEN_LENGTH: usize = 64;

type Client = tunnel::Client;

/// Where connections come in.
pub(crate) struct Ports {
    pub(crate) tls: TcpListener,
    pub(crate) plain: TcpListener,
}

impl Ports {
    /// The next connection on either port. Cancel safe.
    async fn accept(&self) -> std::io::Result<(TcpStream, Wire)> {
        tokio::select! {
            accepted = self.tls.accept() => accepted.map(|(stream, _)| (stream, Wire::Tls)),
            accepted = self.plain.accept() => accepted.map(|(stream, _)| (stream, Wire::Plain)),
        }
    }
}

async fn connection(azure: Arc<Azure>, acceptor: TlsAcceptor, stream: TcpStream, number: u64) {
    // Frames are written in large parts already; waiting for more would only add latency.
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream);
    let reset = socket.reset();
    let buffered = BufReader::with_capacity(READ_AHEAD, socket);
    let tls = match timeout(HANDSHAKE_TIME, acceptor.accept(buffered)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(_)) | Err(_) => return azure.recorder.write(|transcript| transcript.failed_handshakes += 1),
    };
    // Before it is counted: whoever has seen the count may hang up.
    let hang_up = azure.hang_up.subscribe();
    azure.recorder.write(|transcript| transcript.connections += 1);
    if let Some((upgraded, (opening, fate))) =
        speak_http(&azure, tls, Wire::Tls, number, &reset, hang_up).await
    {
        open_tunnel(&azure, upgraded, opening, fate).await;
    }
    azure.recorder.write(|transcript| transcript.closed += 1);
}

/// A connection to the managed identity endpoints, which open no tunnels.
async fn plain_connection(azure: Arc<Azure>, stream: TcpStream, number: u64) {
    let socket = Socket::new(stream);
    let reset = socket.reset();
    let hang_up = azure.hang_up.subscribe();
    let _ = speak_http(&azure, socket, Wire::Plain, number, &reset, hang_up).await;
}

/// HTTP until the connection ends or turns into something else.
async fn speak_http<S>(
    azure: &Arc<Azure>,
    stream: S,
    wire: Wire,
    number: u64,
    reset: &Reset,
    mut hang_up: watch::Receiver<()>,
) -> Option<(OnUpgrade, (Opening, Fate))>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgrade = Arc::new(Mutex::new(None));
    let service = service_fn(|mut incoming: hyper::Request<Incoming>| {
        let (azure, upgrade, reset) = (Arc::clone(azure), Arc::clone(&upgrade), reset.clone());
        async move {
            let upgraded = hyper::upgrade::on(&mut incoming);
            let (response, opening) = respond(&azure, incoming, wire, number).await;
            if let Some(opening) = opening {
                *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgraded, opening));
            }
            // hyper drops the connection without a word.
            response.inspect_err(|Cut| reset.order())
        }
    });
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut http = std::pin::pin!(http);
    // How it ended is the client's business: a reset is as good as a close.
    let asked_to_end = async {
        tokio::select! {
            () = azure.stop.cancelled() => {}
            // The sender lives as long as the emulator.
            _ = hang_up.changed() => {}
        }
    };
    tokio::select! {
        _ = http.as_mut() => {}
        () = asked_to_end => {
            http.as_mut().graceful_shutdown();
            let _ = http.await;
        }
    }
    upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
}

async fn respond(
    azure: &Azure,
    incoming: hyper::Request<Incoming>,
    wire: Wire,
    connection: u64,
) -> (Result<Response, Cut>, Option<(Opening, Fate)>) {
    let (parts, body) = incoming.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return (Ok(error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or incomplete")), None);
    };
    let request = Request::new(wire, &parts, body.to_bytes());
    if !is_loopback_name(&request.host) {
        // A page in a browser must not get here under a name of its own.
        let answer = error(StatusCode::MISDIRECTED_REQUEST, "the emulator answers to loopback names only");
        return (Ok(answer), None);
    }
    if wire == Wire::Tls
        && let Some(response) = control::answer(azure, &request)
    {
        return (Ok(response), None);
    }
    let (answer, outcome) = faults::answer(azure, &request, || route(azure, &request)).await;
    let opening = answer.opening.map(|opening| (opening, Fate::of_new_tunnel(azure)));
    if let Some((opening, _)) = &opening {
        azure.recorder.tunnel(opening.session, &Tunnel::default());
    }
    let path = answer.path.unwrap_or_else(|| without_tokens(&request.target));
    azure.recorder.request(transcript::Request {
        time: transcript::now(),
        connection,
        kind: answer.kind,
        method: request.method.to_string(),
        host: request.host.clone(),
        path,
        tls: wire == Wire::Tls,
        query: request.query.iter().map(|(name, _)| name.clone()).collect(),
        headers: shown(&request.headers),
        fields: answer.fields,
        session: answer.session,
        node: answer.node,
        status: outcome.as_ref().map_or(0, |()| answer.response.status().as_u16()),
    });
    (outcome.map(|()| answer.response), opening)
}

/// The data plane first: its default host shares a name with ARM and Entra ID.
fn route(azure: &Azure, request: &Request) -> Answer {
    let nothing = |kind| Answer::new(kind, error(StatusCode::NOT_FOUND, "there is no such path"));
    if request.wire == Wire::Plain {
        let is_token = request.segments.iter().any(|segment| segment.eq_ignore_ascii_case("oauth2"));
        let kind = if is_token { Kind::Token } else { Kind::Unknown };
        return identity::answer(azure, request).unwrap_or_else(|| nothing(kind));
    }
    if let Some(answer) = key_vault::answer(azure, request) {
        return answer;
    }
    if let Some(answer) = data_plane::answer(azure, request) {
        return answer;
    }
    let is_control_plane = !request.host.ends_with(".localhost");
    let answer = is_control_plane
        .then(|| {
            arm::answer(azure, request)
                .or_else(|| oidc::answer(azure, request))
                .or_else(|| entra::answer(azure, request))
        })
        .flatten();
    answer.unwrap_or_else(|| nothing(Kind::Unknown))
}

fn error(status: StatusCode, message: &str) -> Response {
    json_answer(status, &json!({"error": {"code": status.canonical_reason(), "message": message}}))
}

fn is_loopback_name(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A path for the transcript. Whoever sends a token where none belongs must not have it written down:
/// segments as long as one are left out.
fn without_tokens(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let shown =
        |segment: &str| if segment.len() < TOKEN_LENGTH { segment.to_owned() } else { "{…}".to_owned() };
    path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

/// Headers for the transcript, values that are secret left out.
fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    let value = |name: &str, value: &hyper::header::HeaderValue| match name {
        "authorization" | "cookie" | "proxy-authorization" | "x-identity-header" => "…".to_owned(),
        _ => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    headers.iter().map(|(name, content)| (name.to_string(), value(name.as_str(), content))).collect()
}

async fn open_tunnel(azure: &Azure, upgraded: OnUpgrade, opening: Opening, fate: Fate) {
    let client = upgraded.await.ok().and_then(|upgraded| upgraded.downcast::<TokioIo<Client>>().ok());
    let Some(client) = client else {
        // The client went away before the 101 had reached it.
        let lost = Tunnel { end: Some(End::Lost), ..Tunnel::default() };
        return azure.recorder.tunnel(opening.session, &lost);
    };
    let machine = match opening.machine.as_deref().and_then(|id| azure.inventory.machine(id)) {
        Some(machine) => azure.services.connect(machine, opening.port).await,
        None => Err(std::io::ErrorKind::HostUnreachable.into()),
    };
    tunnel::run(azure, opening, fate, client.io.into_inner(), &client.read_buf, machine).await;
}
