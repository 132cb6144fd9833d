//! Minting, using and releasing tokens (protocol.md §3 steps 1, 2 and 4, and §5), with the checks
//! and the failures of the live service. What was seen goes into the transcript without the tokens.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;

use super::{Door, Side, message, node, noted};
use crate::azure::{Azure, Denied};
use crate::http::{Answer, Request, Response, json as json_answer, set_header, text};
use crate::inventory::{Machine, kind_of};
use crate::scenario::{Sku, Tunneling};
use crate::state::random_text;
use crate::transcript::{Kind, Session, now};

/// What a connection turns into after its 101.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Number of the session.
    pub(crate) session: u64,
    /// Id of the machine; none when no machine has the address that was asked for, or a security group drops the
    /// connection.
    pub(crate) machine: Option<String>,
    /// Port on it.
    pub(crate) port: u16,
    /// Is cancelled when ARM disconnects the session.
    pub(crate) disconnected: CancellationToken,
}

/// The tokens that are known. Released ones stay known for a while, to tell a second release.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: Mutex<Table>,
    /// Tokens for the RDP gateway; nothing takes them.
    gateway: Mutex<VecDeque<String>>,
}

#[derive(Debug, Default)]
struct Table {
    /// Number of the last session.
    last: u64,
    minted: BTreeMap<u64, Minted>,
}

#[derive(Debug)]
struct Minted {
    auth_token: String,
    websocket_token: String,
    node: String,
    /// Id of the Bastion host.
    host: String,
    used: Once,
    released: Once,
    machine: Option<String>,
    port: u16,
    /// When it was minted, RFC 3339.
    since: String,
    disconnected: CancellationToken,
}

/// A session of a Bastion host, as ARM lists them.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) number: u64,
    /// Id of the machine; none when no machine has the address that was asked for.
    pub(crate) machine: Option<String>,
    pub(crate) port: u16,
    pub(crate) since: String,
}

/// Whether something that can happen once has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Once {
    NotYet,
    Done,
}

/// Sessions that are known; the oldest is forgotten first.
const MAX_KNOWN: usize = 100_000;
/// Nodes that mint in turn, so that naming the right one matters.
const NODES: u64 = 2;

impl Sessions {
    /// Both tokens of every session that is known, and those for the RDP gateway.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = table.minted.values();
        let tokens = tokens.flat_map(|minted| [minted.auth_token.clone(), minted.websocket_token.clone()]);
        tokens.chain(gateway).collect()
    }

    /// A token for the RDP gateway.
    pub(super) fn gateway_token(&self) -> String {
        let mut gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        if gateway.len() >= MAX_KNOWN {
            gateway.pop_front();
        }
        let token = random_text();
        gateway.push_back(token.clone());
        token
    }

    /// The sessions of a Bastion host: tokens that were not given back, and tunnels that are open still
    /// (protocol.md §3 step 4).
    pub(crate) fn of_host(&self, host: &str, is_open: impl Fn(u64) -> bool) -> Vec<Listed> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = table.minted.iter().filter(|(number, minted)| {
            minted.host == host
                && !minted.disconnected.is_cancelled()
                && (minted.released == Once::NotYet || is_open(**number))
        });
        listed
            .map(|(number, minted)| Listed {
                number: *number,
                machine: minted.machine.clone(),
                port: minted.port,
                since: minted.since.clone(),
            })
            .collect()
    }

    /// Ends a session and its tunnel.
    pub(crate) fn disconnect(&self, number: u64) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(minted) = table.minted.get(&number) {
            minted.disconnected.cancel();
        }
    }

    fn add(&self, make: impl FnOnce(u64) -> Minted) -> u64 {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.last += 1;
        let number = table.last;
        if table.minted.len() >= MAX_KNOWN {
            table.minted.pop_first();
        }
        table.minted.insert(number, make(number));
        number
    }

    /// Finds a session and changes it.
    fn with<T>(
        &self,
        wanted: impl Fn(&Minted) -> bool,
        change: impl FnOnce(u64, &mut Minted) -> T,
    ) -> Option<T> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest first: it is nearly always the one.
        let (number, minted) = table.minted.iter_mut().rev().find(|(_, minted)| wanted(minted))?;
        Some(change(*number, minted))
    }
}

/// `POST /api/tokens`
pub(super) fn mint(azure: &Azure, door: Door<'_>, request: &Request) -> Answer {
    let fields = request.form();
    let mut answer = noted(Kind::Mint, Refusal::Unexpected.response(), &fields);
    answer.node = node(request);
    // Observed on the live service by one client (protocol.md §3): both end in the catch-all.
    if !request.is_of_type("application/x-www-form-urlencoded") || request.header("authorization").is_some() {
        return answer;
    }
    match try_mint(azure, door, &fields) {
        Ok((number, body)) => {
            answer.session = Some(number);
            answer.response = json_answer(StatusCode::OK, &body);
        }
        Err(refusal) => answer.response = refusal.response(),
    }
    answer
}

fn try_mint(azure: &Azure, door: Door<'_>, fields: &[(String, String)]) -> Result<(u64, Value), Refusal> {
    let field = |name| needed(fields, name);
    let resource = field("resourceId")?;
    let port = port(field("workloadHostPort")?)?;
    if field("protocol")? != "tcptunnel" {
        return Err(Refusal::NotTcp);
    }
    let target = authorize(azure, door, field("aztoken")?, resource, fields)?;
    if let Target::Address(_) = target
        && !IP_CONNECT_PORTS.contains(&port)
    {
        return Err(Refusal::IpConnectPort);
    }
    let machine = match target {
        Target::Machine(machine) => Some(machine),
        Target::Address(address) => azure.inventory.machine_at(door.host, address),
    };
    let (auth_token, websocket_token) = (random_text().to_uppercase(), random_text());
    let mut node = String::new();
    let number = azure.sessions.add(|number| {
        node = format!("node-{}", (number - 1) % NODES);
        Minted {
            auth_token: auth_token.clone(),
            websocket_token: websocket_token.clone(),
            node: node.clone(),
            host: door.host.id.clone(),
            used: Once::NotYet,
            released: Once::NotYet,
            machine: machine.map(|machine| machine.id.clone()),
            port,
            since: now(),
            disconnected: CancellationToken::new(),
        }
    });
    azure.recorder.session(Session {
        number,
        bastion: door.host.settings.name.clone(),
        node: node.clone(),
        pod: door.side == Side::Pod,
        resource: resource.to_owned(),
        port,
        upgrades: 0,
        released: 0,
        astray: 0,
        excused: false,
        tunnel: None,
    });
    let body = json!({
        "authToken": auth_token, "username": "", "dataSource": "default", "availableDataSources": ["default"],
        "nodeId": node, "websocketToken": websocket_token,
    });
    Ok((number, body))
}

/// protocol.md §2.
const IP_CONNECT_PORTS: [u16; 2] = [22, 3389];

pub(super) enum Target<'a> {
    Machine(&'a Machine),
    Address(Ipv4Addr),
}

/// Whether a caller may have a tunnel through this host to that resource.
pub(super) fn authorize<'a>(
    azure: &'a Azure,
    door: Door<'_>,
    token: &str,
    resource: &str,
    fields: &[(String, String)],
) -> Result<Target<'a>, Refusal> {
    let caller = azure.authenticate(token)?;
    if let Some(challenge) = azure.sign_ins.challenge(&caller.claims) {
        return Err(Denied::Claims { challenge }.into());
    }
    caller.must_be_of(&door.host.tenant)?;
    let settings = &door.host.settings;
    if settings.sku == Sku::Basic {
        return Err(Refusal::Sku);
    }
    if !settings.sku.has_data_pod() && settings.tunneling != Tunneling::On {
        return Err(Refusal::TunnelingOff);
    }
    if settings.session_recording {
        return Err(Refusal::Recording);
    }
    // From here on the live service has one answer for everything (protocol.md §4).
    let must_read = |id: &str| match caller.must_be_allowed(&format!("{}/read", kind_of(id)), id) {
        Ok(()) => Ok(()),
        Err(_) => Err(Refusal::Unexpected),
    };
    must_read(&door.host.id)?;
    if let Some(machine) = azure.inventory.machine(resource) {
        must_read(&machine.id)?;
        must_read(&machine.nic_id)?;
        if !azure.inventory.serves(door.host, machine) {
            return Err(Refusal::Unexpected);
        }
        // protocol.md §2: a machine in a peered network.
        if !machine.vnet_id.eq_ignore_ascii_case(&door.host.vnet_id) {
            must_read(&machine.vnet_id)?;
        }
        return Ok(Target::Machine(machine));
    }
    let prefix = &door.host.host_connect;
    let (start, address) = resource.split_at_checked(prefix.len()).ok_or(Refusal::Unexpected)?;
    let address: Ipv4Addr = match address.parse() {
        Ok(address) if start.eq_ignore_ascii_case(prefix) => address,
        _ => return Err(Refusal::Unexpected),
    };
    if !settings.ip_connect {
        return Err(Refusal::IpConnectOff);
    }
    match needed(fields, "hostname")? == address.to_string() {
        true => Ok(Target::Address(address)),
        false => Err(Refusal::Unexpected),
    }
}

/// A field of a body; the data plane's names are taken letter by letter.
pub(super) fn needed<'a>(fields: &'a [(String, String)], name: &'static str) -> Result<&'a str, Refusal> {
    let value = fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    value.filter(|value| !value.is_empty()).ok_or(Refusal::Missing(name))
}

pub(super) fn port(text: &str) -> Result<u16, Refusal> {
    text.parse().ok().filter(|port| *port > 0).ok_or(Refusal::NotAPort)
}

/// Why there is no token. The live service's words are known for `Tunneling is disabled` and for the
/// catch-all (protocol.md §4); the others say what a live service would hide behind it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("The field '{0}' is missing.")]
    Missing(&'static str),
    #[error("The port is not a number between 1 and 65535.")]
    NotAPort,
    #[error("The field 'protocol' must be 'tcptunnel'.")]
    NotTcp,
    #[error(transparent)]
    Unauthorized(#[from] Denied),
    #[error("Native client support requires the Standard SKU or higher.")]
    Sku,
    #[error("Tunneling is disabled")]
    TunnelingOff,
    #[error("Native client connections are not available while session recording is enabled.")]
    Recording,
    #[error("IP-based connection is disabled on this Bastion host.")]
    IpConnectOff,
    #[error("Only ports 22 and 3389 are allowed with IP-based connection.")]
    IpConnectPort,
    #[error("Unexpected internal error")]
    Unexpected,
}

impl Refusal {
    pub(super) fn response(&self) -> Response {
        let status = match self {
            Refusal::Missing(_) | Refusal::NotAPort | Refusal::NotTcp => StatusCode::BAD_REQUEST,
            Refusal::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Refusal::Sku
            | Refusal::TunnelingOff
            | Refusal::Recording
            | Refusal::IpConnectOff
            | Refusal::IpConnectPort => StatusCode::FORBIDDEN,
            Refusal::Unexpected => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = message(status, &self.to_string());
        // learn.microsoft.com, "Claims challenges, claims requests and client capabilities".
        if let Refusal::Unauthorized(Denied::Claims { challenge }) = self {
            let claims = STANDARD.encode(challenge);
            let challenge = format!("Bearer error=\"insufficient_claims\", claims=\"{claims}\"");
            set_header(&mut response, "www-authenticate", &challenge);
        }
        response
    }
}

/// `POST /api/connection`: the name of the data pod, as plain text.
pub(super) fn connection(azure: &Azure, door: Door<'_>, request: &Request) -> Answer {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let fields: Vec<(String, String)> = body
        .as_object()
        .map(|object| {
            let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            object.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
        })
        .unwrap_or_default();
    let mut answer = noted(Kind::Connection, Refusal::Unexpected.response(), &fields);
    answer.node = node(request);
    if !request.is_of_type("application/json") {
        return answer;
    }
    answer.response = match try_connection(azure, door, &fields) {
        Ok(pod) => text(StatusCode::OK, pod),
        Err(refusal) => refusal.response(),
    };
    answer
}

fn try_connection(azure: &Azure, door: Door<'_>, fields: &[(String, String)]) -> Result<String, Refusal> {
    let field = |name| needed(fields, name);
    let host = field("bastionResourceId")?;
    if !host.eq_ignore_ascii_case(&door.host.id) || field("connectionType")? != "nativeclient" {
        return Err(Refusal::Unexpected);
    }
    port(field("vmPort")?)?;
    authorize(azure, door, field("azToken")?, field("resourceId")?, fields)?;
    let pod = door.host.pod_name.as_deref().unwrap_or_default();
    let port = azure.url.rsplit(':').next().unwrap_or_default();
    Ok(format!("{pod}:{port}"))
}

/// `GET /webtunnelv2/{websocketToken}` and `GET /omni/webtunnel/{websocketToken}`
pub(super) fn upgrade(azure: &Azure, door: Door<'_>, token: &str, request: &Request) -> Answer {
    let mut answer = Answer::new(Kind::Upgrade, message(StatusCode::NOT_FOUND, "The token is not known."));
    answer.node = node(request);
    let label = |number: &str| match door.side {
        Side::Gateway => format!("/webtunnelv2/{{{number}}}"),
        Side::Pod => format!("/omni/webtunnel/{{{number}}}"),
    };
    answer.path = Some(label("unknown"));
    let Some(key) = websocket_key(request) else {
        answer.response = message(StatusCode::BAD_REQUEST, "This is not a WebSocket handshake.");
        return answer;
    };
    let named = answer.node.clone();
    let found = azure.sessions.with(
        |minted| minted.websocket_token == token && minted.host == door.host.id,
        |number, minted| {
            let astray = door.side == Side::Gateway && named.as_deref() != Some(&minted.node);
            // A token works once, whatever comes of it (protocol.md §3).
            let used = std::mem::replace(&mut minted.used, Once::Done);
            let disconnected = minted.disconnected.clone();
            let is_alive = minted.released == Once::NotYet && !disconnected.is_cancelled();
            let good = used == Once::NotYet && is_alive && !astray;
            // What a security group drops never comes.
            let machine = minted.machine.clone().filter(|id| {
                let machine = azure.inventory.machine(id);
                machine.is_some_and(|machine| azure.inventory.lets_through(door.host, machine, minted.port))
            });
            let opening = Opening { session: number, machine, port: minted.port, disconnected };
            (number, astray, good.then_some(opening))
        },
    );
    let Some((number, astray, opening)) = found else { return answer };
    answer.session = Some(number);
    answer.path = Some(label(&number.to_string()));
    azure.recorder.write(|transcript| {
        if let Some(session) = transcript.sessions.get_mut(&number) {
            session.upgrades += 1;
            session.astray += u32::from(astray);
        }
    });
    if opening.is_some() {
        answer.response = text(StatusCode::SWITCHING_PROTOCOLS, "");
        let headers = answer.response.headers_mut();
        headers.clear();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        set_header(&mut answer.response, "sec-websocket-accept", &derive_accept_key(key.as_bytes()));
    }
    answer.opening = opening;
    answer
}

/// The key of a WebSocket handshake (RFC 6455 section 4.2.1), if that is what it is.
fn websocket_key(request: &Request) -> Option<&str> {
    let lists = |name: &str, wanted: &str| {
        request
            .header(name)
            .is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted)))
    };
    let handshake = lists("upgrade", "websocket")
        && lists("connection", "upgrade")
        && request.header("sec-websocket-version") == Some("13");
    request.header("sec-websocket-key").filter(|_| handshake)
}

/// A release that a fault keeps from happening; the client has tried, which is all that it could do.
pub(crate) fn thwart_release(azure: &Azure, request: &Request) -> Answer {
    let mut answer = Answer::new(Kind::Release, text(StatusCode::OK, ""));
    answer.node = node(request);
    let token = request.segments.last().map_or("", String::as_str);
    answer.session = azure.sessions.with(|minted| minted.auth_token == token, |number, _| number);
    let label = answer.session.map_or_else(|| "unknown".into(), |number| number.to_string());
    answer.path = Some(format!("/api/tokens/{{{label}}}"));
    azure.recorder.write(|transcript| {
        if let Some(session) = answer.session.and_then(|number| transcript.sessions.get_mut(&number)) {
            session.excused = true;
        }
    });
    answer
}

/// `DELETE /api/tokens/{authToken}`
pub(super) fn release(azure: &Azure, door: Door<'_>, token: &str, request: &Request) -> Answer {
    let mut answer = Answer::new(Kind::Release, message(StatusCode::NOT_FOUND, "The token is not known."));
    answer.node = node(request);
    answer.path = Some("/api/tokens/{unknown}".into());
    let named = answer.node.clone();
    let found = azure.sessions.with(
        |minted| minted.auth_token == token && minted.host == door.host.id,
        |number, minted| {
            let astray = named.as_deref() != Some(&minted.node);
            let again = minted.released;
            if !astray {
                minted.released = Once::Done;
            }
            (number, astray, again)
        },
    );
    let Some((number, astray, again)) = found else { return answer };
    answer.session = Some(number);
    answer.path = Some(format!("/api/tokens/{{{number}}}"));
    azure.recorder.write(|transcript| {
        if let Some(session) = transcript.sessions.get_mut(&number) {
            session.astray += u32::from(astray);
            session.released += u32::from(!astray);
        }
    });
    if !astray && again == Once::NotYet {
        answer.response = text(StatusCode::OK, "");
    }
    answer
}
