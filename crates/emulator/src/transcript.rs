//! What the emulator saw: every request, every minted session, every tunnel, as plain data that
//! tests read and `rules.rs` judges. It holds no secret, and its memory is bounded: of tunnels
//! there are sums, not frames. What is right or wrong is not decided here.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Everything that was seen since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Transcript {
    /// TLS connections that were accepted.
    pub connections: u64,
    /// Those of them that have ended.
    pub closed: u64,
    /// TCP connections whose TLS handshake failed.
    pub failed_handshakes: u64,
    /// Faults that have struck by name, and how often (see [`crate::faults`]).
    pub struck: BTreeMap<&'static str, u64>,
    /// What was granted by grant, and how often: `device_code`, `refresh_token`, `client_secret`,
    /// `client_certificate`, `federated_token`, `managed_identity`, `ssh_certificate`, `github_oidc`,
    /// `pipelines_oidc`; and `device_code_requested`.
    pub issued: BTreeMap<&'static str, u64>,
    /// Polls for a device code's token that came too early though the client had been told to slow down.
    pub hasty_polls: u64,
    /// Requests in the order of their answers, the last [`MAX_REQUESTS`].
    pub requests: VecDeque<Request>,
    /// Minted sessions by number, the last [`MAX_SESSIONS`].
    pub sessions: BTreeMap<u64, Session>,
}

/// Requests that are remembered. At about 1 KiB each: some tens of megabytes at most.
pub const MAX_REQUESTS: usize = 50_000;
/// Sessions that are remembered.
pub const MAX_SESSIONS: usize = 50_000;
/// Bytes that `transcript.jsonl` may grow to; what comes later is seen in memory only.
const MAX_FILE: u64 = 64 * 1024 * 1024;

impl Transcript {
    /// Requests of a kind, whatever their answer.
    pub fn count(&self, kind: Kind) -> usize {
        self.requests.iter().filter(|request| request.kind == kind).count()
    }

    /// Requests of a kind with this status.
    pub fn count_status(&self, kind: Kind, status: u16) -> usize {
        self.requests.iter().filter(|request| request.kind == kind && request.status == status).count()
    }

    /// Tokens that were minted.
    pub fn mints(&self) -> usize {
        self.count_status(Kind::Mint, 200)
    }

    /// WebSockets that were opened.
    pub fn upgrades(&self) -> usize {
        self.count_status(Kind::Upgrade, 101)
    }

    /// Sessions that were released.
    pub fn releases(&self) -> usize {
        self.count_status(Kind::Release, 200)
    }

    /// Requests to Entra ID for a token.
    pub fn token_requests(&self) -> usize {
        self.count(Kind::Token)
    }

    /// Times that a fault of this name has struck.
    pub fn struck(&self, fault: &str) -> u64 {
        self.struck.get(fault).copied().unwrap_or_default()
    }

    /// Times that something of this name was granted: see [`Transcript::issued`].
    pub fn issued(&self, grant: &str) -> u64 {
        self.issued.get(grant).copied().unwrap_or_default()
    }

    /// Sessions that were minted and not released, though nothing kept the client from it.
    pub fn unreleased(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().filter(|session| session.released == 0 && !session.excused)
    }

    /// Tunnels of all sessions, open and ended.
    pub fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        self.sessions.values().filter_map(|session| session.tunnel.as_ref())
    }
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something that is there for everybody: OpenID configuration, keys, cloud metadata.
    Discovery,
    /// `POST …/token`
    Token,
    /// `POST …/devicecode`
    DeviceCode,
    /// The page where people enter a device code.
    Page,
    /// A managed identity endpoint.
    Identity,
    /// The OIDC endpoint of a build service.
    Oidc,
    /// ARM, but for Resource Graph.
    Arm,
    /// A query to Resource Graph, or a further page of its answer.
    Graph,
    /// A key vault.
    KeyVault,
    /// `POST /api/connection`: the way to a data pod.
    Connection,
    /// `POST /api/tokens`
    Mint,
    /// The WebSocket's `GET`.
    Upgrade,
    /// `DELETE /api/tokens/…`
    Release,
    /// `GET /api/rdpfile`
    RdpFile,
    /// A path that nothing answers.
    Unknown,
}

/// A request and the status of its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// When it was answered, RFC 3339.
    pub time: String,
    /// Number of the TLS connection that it came on.
    pub connection: u64,
    /// What it was for.
    pub kind: Kind,
    /// Method.
    pub method: String,
    /// Host name without port.
    pub host: String,
    /// Path, tokens in it replaced by the number of their session.
    pub path: String,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Names of the query's parameters.
    pub query: Vec<String>,
    /// Names and values of the headers, values that are secret left out.
    pub headers: Vec<(String, String)>,
    /// Names of the fields of a form or JSON body.
    pub fields: Vec<String>,
    /// The session that it named or made.
    pub session: Option<u64>,
    /// The node that it named.
    pub node: Option<String>,
    /// Status of the answer; 0 when the connection was reset instead.
    pub status: u16,
}

impl Request {
    /// Value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A minted token pair and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// Number, from 1, in the order of minting.
    pub number: u64,
    /// Name of the Bastion host.
    pub bastion: String,
    /// The node that minted.
    pub node: String,
    /// Whether it was minted at a data pod, where the upgrade names no node.
    pub pod: bool,
    /// Target resource.
    pub resource: String,
    /// Target port.
    pub port: u16,
    /// Upgrades that were tried with its WebSocket token.
    pub upgrades: u32,
    /// Times that it was released.
    pub released: u32,
    /// Upgrades and releases that named another node, or none where one was due.
    pub astray: u32,
    /// Whether a fault hid it, or its release, from the client, who is then not to blame for what follows.
    pub excused: bool,
    /// Its WebSocket, once it was opened.
    pub tunnel: Option<Tunnel>,
}

impl Session {
    /// Whether its WebSocket is open.
    pub fn is_open(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| tunnel.end.is_none())
    }
}

/// Sums over one WebSocket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// Frames from the client by operation code.
    pub frames: Frames,
    /// Largest payload of a frame from the client, in bytes.
    pub largest: u64,
    /// Frames from the client by size: index n counts payloads below 2ⁿ bytes that are not in n - 1;
    /// the last one counts all that are larger.
    pub sizes: [u64; SIZES],
    /// Frames from the client above [`MAX_PAYLOAD`].
    pub oversized: u64,
    /// Frames without FIN.
    pub unfinished: u64,
    /// Frames with a reserved bit.
    pub reserved_bits: u64,
    /// Frames without a mask.
    pub unmasked: u64,
    /// Frames whose mask is zero.
    pub zero_masks: u64,
    /// Frames whose mask is that of the frame before.
    pub repeated_masks: u64,
    /// Bytes that came before the 101 had gone out.
    pub early_bytes: u64,
    /// Payload bytes of data frames from the client.
    pub sent: u64,
    /// Bytes from the machine.
    pub received: u64,
    /// Pings that were sent to the client.
    pub pings: u64,
    /// Pongs of the client whose payload is that of a ping that it had not answered.
    pub pongs: u64,
    /// Status code of the client's Close frame.
    pub close_code: Option<u16>,
    /// How it ended; none while it is open.
    pub end: Option<End>,
    /// Mask of the last frame.
    #[serde(skip)]
    pub(crate) last_mask: Option<[u8; 4]>,
}

/// protocol.md §3: the largest payload that a client may send in one frame, in bytes.
pub const MAX_PAYLOAD: u64 = 4096;
/// Number of size classes: 0, 1, 2-3, … 32,768-65,535, larger.
pub const SIZES: usize = 18;

/// Frames by operation code (RFC 6455 section 5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each is the name of its operation code")]
pub struct Frames {
    pub continuation: u64,
    pub text: u64,
    pub binary: u64,
    pub close: u64,
    pub ping: u64,
    pub pong: u64,
}

/// How a WebSocket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The machine closed first, and the client answered the Close frame.
    Machine,
    /// The client sent a Close frame first.
    Client,
    /// The client's connection ended or failed without a Close frame.
    Lost,
    /// Nothing answered on the port.
    Refused,
    /// The client broke RFC 6455.
    Protocol,
    /// The emulator was stopped.
    Stopped,
    /// A fault ended it.
    Fault,
    /// Its session was disconnected by ARM.
    Disconnected,
}

impl Tunnel {
    /// Counts the header of a frame from the client.
    pub(crate) fn saw(&mut self, header: &FrameHeader, length: u64) {
        match header.opcode {
            OpCode::Data(Data::Continue) => self.frames.continuation += 1,
            OpCode::Data(Data::Text) => self.frames.text += 1,
            OpCode::Data(Data::Binary | Data::Reserved(_)) => self.frames.binary += 1,
            OpCode::Control(Control::Close) => self.frames.close += 1,
            OpCode::Control(Control::Ping) => self.frames.ping += 1,
            OpCode::Control(Control::Pong | Control::Reserved(_)) => self.frames.pong += 1,
        }
        self.largest = self.largest.max(length);
        self.oversized += u64::from(length > MAX_PAYLOAD);
        let class = usize::try_from(u64::BITS - length.leading_zeros()).unwrap_or(SIZES).min(SIZES - 1);
        if let Some(count) = self.sizes.get_mut(class) {
            *count += 1;
        }
        self.unfinished += u64::from(!header.is_final);
        self.reserved_bits += u64::from(header.rsv1 || header.rsv2 || header.rsv3);
        match header.mask {
            None => self.unmasked += 1,
            Some(mask) => {
                self.zero_masks += u64::from(mask == [0; 4]);
                self.repeated_masks += u64::from(self.last_mask == Some(mask));
            }
        }
        self.last_mask = header.mask;
    }

    /// Frames of all operation codes.
    pub fn frame_count(&self) -> u64 {
        self.sizes.iter().sum()
    }
}

/// The transcript while it is being written.
#[derive(Debug)]
pub(crate) struct Recorder {
    state: Mutex<Transcript>,
    changed: Notify,
    file: Mutex<(File, u64)>,
}

impl Recorder {
    /// `file` receives a line of JSON for each request and each tunnel that ended.
    pub(crate) fn new(file: File) -> Recorder {
        Recorder { state: Mutex::default(), changed: Notify::new(), file: Mutex::new((file, 0)) }
    }

    /// A copy of what was seen so far.
    pub(crate) fn snapshot(&self) -> Transcript {
        self.read().clone()
    }

    /// Looks at the transcript without a copy.
    pub(crate) fn read(&self) -> MutexGuard<'_, Transcript> {
        // The data is sums and lists: a panic elsewhere leaves nothing half done that matters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the transcript and wakes who waits for a change.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Transcript) -> T) -> T {
        let answer = change(&mut self.read());
        self.changed.notify_waiters();
        answer
    }

    /// Adds a request.
    pub(crate) fn request(&self, request: Request) {
        self.line("request", &request);
        self.write(|transcript| {
            if transcript.requests.len() >= MAX_REQUESTS {
                transcript.requests.pop_front();
            }
            transcript.requests.push_back(request);
        });
    }

    /// Counts something that was granted.
    pub(crate) fn count(&self, grant: &'static str) {
        self.write(|transcript| *transcript.issued.entry(grant).or_default() += 1);
    }

    /// Counts a strike of the fault with this name.
    pub(crate) fn struck(&self, fault: &'static str) {
        self.write(|transcript| *transcript.struck.entry(fault).or_default() += 1);
    }

    /// Adds a session.
    pub(crate) fn session(&self, session: Session) {
        self.write(|transcript| {
            if transcript.sessions.len() >= MAX_SESSIONS {
                transcript.sessions.pop_first();
            }
            transcript.sessions.insert(session.number, session);
        });
    }

    /// Brings the sums of a tunnel up to date.
    pub(crate) fn tunnel(&self, session: u64, tunnel: &Tunnel) {
        self.write(|transcript| {
            if let Some(session) = transcript.sessions.get_mut(&session) {
                session.tunnel = Some(tunnel.clone());
            }
        });
        if tunnel.end.is_some() {
            self.line("tunnel", &serde_json::json!({"time": now(), "session": session, "tunnel": tunnel}));
        }
    }

    /// Forgets all but the sessions that are not over.
    pub(crate) fn reset(&self) {
        self.write(|transcript| {
            let mut sessions = std::mem::take(&mut transcript.sessions);
            sessions.retain(|_, session| session.is_open() || (session.released == 0 && !session.excused));
            *transcript = Transcript { sessions, ..Transcript::default() };
        });
    }

    /// Waits until the transcript meets a condition. Cancel safe.
    pub(crate) async fn wait_for(&self, mut condition: impl FnMut(&Transcript) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(&self.read()) {
                return;
            }
            changed.await;
        }
    }

    fn line(&self, event: &str, content: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(&serde_json::json!({ event: content })) else { return };
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let length = line.len() as u64;
        if file.1 + length <= MAX_FILE {
            // A full disk must not stop a test: what was seen is in memory as well.
            let _ = file.0.write_all(&line);
            file.1 += length;
        }
    }
}

/// Now, RFC 3339.
pub(crate) fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
