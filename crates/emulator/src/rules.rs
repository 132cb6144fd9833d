//! The rules that a good client keeps, judged on the transcript (protocol.md §3, §5 and §7). They are
//! a question that tests ask: no request is answered differently because of them, and the
//! reference client breaks some.

use crate::transcript::{Kind, Request, Session, Transcript, Tunnel};

/// A rule that was broken, and by what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A minted token was never released. Sessions whose WebSocket is still open don't count.
    #[error("session {session}: minted, never released")]
    NotReleased {
        /// Number of the session.
        session: u64,
    },
    /// A session was released more than once.
    #[error("session {session}: released {times} times")]
    ReleasedTwice {
        /// Number of the session.
        session: u64,
        /// How often.
        times: u32,
    },
    /// An upgrade or a release did not name the node that minted.
    #[error("session {session}: an upgrade or release went to another node than the one that minted")]
    OtherNode {
        /// Number of the session.
        session: u64,
    },
    /// A WebSocket token was used more than once.
    #[error("session {session}: its WebSocket token was used {times} times")]
    TokenReused {
        /// Number of the session.
        session: u64,
        /// How often.
        times: u32,
    },
    /// A mint or connection request with a header that it must not have.
    #[error("request {request}: `{header}` must not be sent here")]
    ForbiddenHeader {
        /// Method and path.
        request: String,
        /// Name of the header.
        header: &'static str,
    },
    /// A field that the service does not know.
    #[error("request {request}: unknown field `{field}`")]
    UnknownField {
        /// Method and path.
        request: String,
        /// Name of the field.
        field: String,
    },
    /// A field that the service needs.
    #[error("request {request}: field `{field}` is missing")]
    MissingField {
        /// Method and path.
        request: String,
        /// Name of the field.
        field: &'static str,
    },
    /// An upgrade that offers a WebSocket extension.
    #[error("request {request}: offers the extension `{extension}`")]
    ExtensionOffered {
        /// Method and path.
        request: String,
        /// The offer.
        extension: String,
    },
    /// An upgrade that offers a subprotocol.
    #[error("request {request}: offers a subprotocol")]
    SubprotocolOffered {
        /// Method and path.
        request: String,
    },
    /// An upgrade at a data pod that names a node.
    #[error("session {session}: the upgrade at a data pod must not name a node")]
    NodeAtPod {
        /// Number of the session.
        session: u64,
    },
    /// A request to a path that does not exist.
    #[error("request {request}: there is no such path")]
    UnknownPath {
        /// Method and path.
        request: String,
    },
    /// A secret, or what stands for one, in a query, where logs and proxies see it (RFC 6750 section 5.3).
    #[error("request {request}: `{parameter}` must not be in the query")]
    SecretInQuery {
        /// Method and path.
        request: String,
        /// Name of the parameter.
        parameter: String,
    },
    /// A request for a token without TLS (RFC 6749 section 3.2).
    #[error("request {request}: a token must not be asked for without TLS")]
    TokenWithoutTls {
        /// Method and path.
        request: String,
    },
    /// A request that does not say what every one of its kind has to.
    #[error("request {request}: `{header}` is missing")]
    MissingHeader {
        /// Method and path.
        request: String,
        /// Name of the header.
        header: &'static str,
    },
    /// A request for a managed identity that came through a proxy.
    #[error("request {request}: a managed identity must be asked for directly, not through a proxy")]
    IdentityThroughProxy {
        /// Method and path.
        request: String,
    },
    /// Polls that came too early, more than once (RFC 8628 section 3.5).
    #[error("{count} poll(s) for a device code came too early after `slow_down`")]
    HastyPolls {
        /// How many.
        count: u64,
    },
    /// Frames of a WebSocket that break a rule.
    #[error("session {session}: {count} {fault}")]
    Frames {
        /// Number of the session.
        session: u64,
        /// What is wrong with them.
        fault: FrameFault,
        /// How many.
        count: u64,
    },
    /// Bytes that were sent before the answer to the upgrade.
    #[error("session {session}: {bytes} bytes were sent before the 101")]
    EarlyData {
        /// Number of the session.
        session: u64,
        /// How many.
        bytes: u64,
    },
}

/// What can be wrong with a client's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameFault {
    /// protocol.md §3: every message in one frame.
    #[error("continuation frame(s)")]
    Continuation,
    /// As above: FIN is always set.
    #[error("frame(s) without FIN")]
    NotFinal,
    /// protocol.md §3: at most 4,096 bytes.
    #[error("frame(s) above 4096 bytes")]
    TooLarge,
    /// RFC 6455 section 5.1: a client masks every frame.
    #[error("unmasked frame(s)")]
    Unmasked,
    /// RFC 6455 section 5.3: masks are not to be predicted.
    #[error("frame(s) with the mask of the frame before")]
    ConstantMask,
    /// As above: a mask of zero masks nothing.
    #[error("frame(s) masked with zero")]
    ZeroMask,
    /// RFC 6455 section 5.2: reserved bits are zero without an extension.
    #[error("frame(s) with a reserved bit")]
    ReservedBits,
    /// RFC 6455 section 5.5.3: a pong carries what the ping did.
    #[error("pong(s) that answer no ping")]
    WrongPong,
}

/// Everything in a transcript that breaks a rule.
pub fn violations(transcript: &Transcript) -> Vec<Violation> {
    let mut found = Vec::new();
    if transcript.hasty_polls > 0 {
        found.push(Violation::HastyPolls { count: transcript.hasty_polls });
    }
    for request in &transcript.requests {
        of_request(request, transcript, &mut found);
    }
    for session in transcript.sessions.values() {
        of_session(session, &mut found);
        if let Some(tunnel) = &session.tunnel {
            of_tunnel(session.number, tunnel, &mut found);
        }
    }
    found
}

/// protocol.md §3, form of `POST /api/tokens`: fields it needs, then fields it also takes.
const MINT_FIELDS: [&str; 4] = ["resourceId", "protocol", "workloadHostPort", "aztoken"];
const MINT_OPTIONAL: [&str; 2] = ["token", "hostname"];
/// protocol.md §5, JSON of `POST /api/connection`.
const CONNECTION_FIELDS: [&str; 5] =
    ["resourceId", "bastionResourceId", "vmPort", "azToken", "connectionType"];
/// protocol.md §6, query of `GET /api/rdpfile`.
const RDP_FILE_PARAMETERS: [&str; 4] = ["resourceId", "format", "rdpport", "enablerdsaad"];
/// Key Vault REST API, Sign: JSON of the request.
const SIGN_FIELDS: [&str; 2] = ["alg", "value"];
/// Parameters that nobody may see who sees a URL.
const SECRETS: [&str; 9] = [
    "access_token",
    "refresh_token",
    "client_secret",
    "client_assertion",
    "device_code",
    "code",
    "assertion",
    "aztoken",
    "password",
];
/// Repetitions before a mask counts as constant: by chance one in 2⁹⁶.
const MASK_REPETITIONS: u64 = 3;

fn of_request(request: &Request, transcript: &Transcript, found: &mut Vec<Violation>) {
    let name = || format!("{} {}", request.method, request.path);
    for parameter in &request.query {
        if SECRETS.contains(&parameter.to_ascii_lowercase().as_str()) {
            found.push(Violation::SecretInQuery { request: name(), parameter: parameter.clone() });
        }
    }
    match request.kind {
        Kind::Token | Kind::DeviceCode if !request.tls => {
            found.push(Violation::TokenWithoutTls { request: name() });
        }
        Kind::Identity => {
            // App Service has a header of its own.
            let header = match request.path.starts_with("/app-service") {
                true => "x-identity-header",
                false => "metadata",
            };
            // Without any parameter it is the Azure SDKs' question whether the service is there at all.
            let is_probe = header == "metadata" && request.query.is_empty();
            if request.header(header).is_none() && !is_probe {
                found.push(Violation::MissingHeader { request: name(), header });
            }
            if ["x-forwarded-for", "via", "forwarded"].iter().any(|one| request.header(one).is_some()) {
                found.push(Violation::IdentityThroughProxy { request: name() });
            }
        }
        Kind::Mint => {
            forbidden(request, &["authorization", "x-node-id"], found);
            fields(request, &MINT_FIELDS, &MINT_OPTIONAL, found);
        }
        Kind::Connection => {
            forbidden(request, &["x-node-id"], found);
            fields(request, &CONNECTION_FIELDS, &[], found);
        }
        Kind::Upgrade => {
            forbidden(request, &["authorization"], found);
            if let Some(extension) = request.header("sec-websocket-extensions") {
                found.push(Violation::ExtensionOffered { request: name(), extension: extension.to_owned() });
            }
            if request.header("sec-websocket-protocol").is_some() {
                found.push(Violation::SubprotocolOffered { request: name() });
            }
            let session = request.session.and_then(|number| transcript.sessions.get(&number));
            if let Some(session) = session
                && session.pod
                && request.node.is_some()
            {
                found.push(Violation::NodeAtPod { session: session.number });
            }
        }
        Kind::RdpFile => {
            // Where a mint must not, this one has to: it carries no token of its own.
            if request.header("authorization").is_none() {
                found.push(Violation::MissingHeader { request: name(), header: "authorization" });
            }
            forbidden(request, &["x-node-id"], found);
            fields(request, &RDP_FILE_PARAMETERS, &[], found);
        }
        Kind::KeyVault => {
            if request.path.ends_with("/sign") {
                fields(request, &SIGN_FIELDS, &[], found);
            }
        }
        Kind::Unknown => found.push(Violation::UnknownPath { request: name() }),
        Kind::Discovery
        | Kind::Token
        | Kind::DeviceCode
        | Kind::Page
        | Kind::Oidc
        | Kind::Arm
        | Kind::Graph
        | Kind::Release => {}
    }
}

fn forbidden(request: &Request, headers: &[&'static str], found: &mut Vec<Violation>) {
    for header in headers {
        if request.header(header).is_some() {
            let request = format!("{} {}", request.method, request.path);
            found.push(Violation::ForbiddenHeader { request, header });
        }
    }
}

fn fields(request: &Request, needed: &[&'static str], optional: &[&str], found: &mut Vec<Violation>) {
    let name = || format!("{} {}", request.method, request.path);
    for field in &request.fields {
        if !needed.contains(&field.as_str()) && !optional.contains(&field.as_str()) {
            found.push(Violation::UnknownField { request: name(), field: field.clone() });
        }
    }
    for field in needed.iter().filter(|field| !request.fields.iter().any(|known| known == *field)) {
        found.push(Violation::MissingField { request: name(), field });
    }
}

fn of_session(session: &Session, found: &mut Vec<Violation>) {
    let number = session.number;
    // What a fault hid from the client is not held against it.
    if session.released == 0 && !session.is_open() && !session.excused {
        found.push(Violation::NotReleased { session: number });
    }
    if session.released > 1 && !session.excused {
        found.push(Violation::ReleasedTwice { session: number, times: session.released });
    }
    if session.astray > 0 && !session.excused {
        found.push(Violation::OtherNode { session: number });
    }
    if session.upgrades > 1 {
        found.push(Violation::TokenReused { session: number, times: session.upgrades });
    }
}

fn of_tunnel(session: u64, tunnel: &Tunnel, found: &mut Vec<Violation>) {
    if tunnel.early_bytes > 0 {
        found.push(Violation::EarlyData { session, bytes: tunnel.early_bytes });
    }
    let repeated = if tunnel.repeated_masks >= MASK_REPETITIONS { tunnel.repeated_masks } else { 0 };
    // One mask in 2³² is zero by chance, which a gigabyte in small frames may well meet.
    let zero = if tunnel.zero_masks > tunnel.frame_count() >> 16 { tunnel.zero_masks } else { 0 };
    // Without a ping a pong is a sign of life (RFC 6455 section 5.5.3).
    let wrong_pongs = if tunnel.pings > 0 { tunnel.frames.pong.saturating_sub(tunnel.pongs) } else { 0 };
    let faults = [
        (FrameFault::Continuation, tunnel.frames.continuation),
        (FrameFault::NotFinal, tunnel.unfinished),
        (FrameFault::TooLarge, tunnel.oversized),
        (FrameFault::Unmasked, tunnel.unmasked),
        (FrameFault::ConstantMask, repeated),
        (FrameFault::ZeroMask, zero),
        (FrameFault::ReservedBits, tunnel.reserved_bits),
        (FrameFault::WrongPong, wrong_pongs),
    ];
    for (fault, count) in faults {
        if count > 0 {
            found.push(Violation::Frames { session, fault, count });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    use super::*;
    use crate::transcript::End;

    fn session() -> Session {
        Session {
            number: 1,
            bastion: "bastion".into(),
            node: "node-0".into(),
            pod: false,
            resource: "/subscriptions/s".into(),
            port: 22,
            upgrades: 1,
            released: 1,
            astray: 0,
            excused: false,
            tunnel: Some(Tunnel { end: Some(End::Client), ..Tunnel::default() }),
        }
    }

    fn request(kind: Kind) -> Request {
        Request {
            time: String::new(),
            connection: 1,
            kind,
            method: "POST".into(),
            host: "localhost".into(),
            path: "/x".into(),
            tls: true,
            query: Vec::new(),
            headers: Vec::new(),
            fields: Vec::new(),
            session: Some(1),
            node: None,
            status: 200,
        }
    }

    fn mint() -> Request {
        let fields = ["resourceId", "protocol", "workloadHostPort", "aztoken"].map(str::to_owned).to_vec();
        Request { fields, ..request(Kind::Mint) }
    }

    #[track_caller]
    fn check(request: Option<Request>, session: Session, expected: &[&str]) {
        let mut transcript = Transcript::default();
        transcript.requests.extend(request);
        transcript.sessions.insert(1, session);
        let found: Vec<String> = violations(&transcript).iter().map(Violation::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_good_session_breaks_nothing() {
        check(Some(mint()), session(), &[]);
        check(None, Session { released: 0, tunnel: Some(Tunnel::default()), ..session() }, &[]);
    }

    #[test]
    fn sessions() {
        check(None, Session { released: 0, ..session() }, &["session 1: minted, never released"]);
        check(
            None,
            Session { released: 0, tunnel: None, ..session() },
            &["session 1: minted, never released"],
        );
        check(None, Session { released: 2, ..session() }, &["session 1: released 2 times"]);
        for released in [0, 2] {
            check(None, Session { released, excused: true, ..session() }, &[]);
        }
        let astray = "session 1: an upgrade or release went to another node than the one that minted";
        check(None, Session { astray: 1, ..session() }, &[astray]);
        // It was not told of the node.
        check(None, Session { astray: 1, excused: true, ..session() }, &[]);
        check(
            None,
            Session { upgrades: 2, ..session() },
            &["session 1: its WebSocket token was used 2 times"],
        );
    }

    #[test]
    fn requests() {
        let with_header = |mut request: Request, name: &str, value: &str| {
            request.headers.push((name.into(), value.into()));
            Some(request)
        };
        check(
            with_header(mint(), "authorization", "…"),
            session(),
            &["request POST /x: `authorization` must not be sent here"],
        );
        check(
            with_header(mint(), "x-node-id", "node-0"),
            session(),
            &["request POST /x: `x-node-id` must not be sent here"],
        );
        let mut odd = mint();
        odd.fields[0] = "resource".into();
        check(
            Some(odd),
            session(),
            &["request POST /x: unknown field `resource`", "request POST /x: field `resourceId` is missing"],
        );
        let connection = ["resourceId", "bastionResourceId", "vmPort", "azToken"].map(str::to_owned).to_vec();
        check(
            Some(Request { fields: connection, ..request(Kind::Connection) }),
            session(),
            &["request POST /x: field `connectionType` is missing"],
        );
        let offer = "permessage-deflate; client_max_window_bits";
        check(
            with_header(request(Kind::Upgrade), "sec-websocket-extensions", offer),
            session(),
            &["request POST /x: offers the extension `permessage-deflate; client_max_window_bits`"],
        );
        check(
            with_header(request(Kind::Upgrade), "sec-websocket-protocol", "chat"),
            session(),
            &["request POST /x: offers a subprotocol"],
        );
        check(
            Some(Request { node: Some("node-0".into()), ..request(Kind::Upgrade) }),
            Session { pod: true, ..session() },
            &["session 1: the upgrade at a data pod must not name a node"],
        );
        let parameters = ["resourceId", "format", "rdpport", "enablerdsaad", "aztoken"].map(str::to_owned);
        check(
            Some(Request {
                fields: parameters.to_vec(),
                query: parameters.to_vec(),
                ..request(Kind::RdpFile)
            }),
            session(),
            &[
                "request POST /x: `aztoken` must not be in the query",
                "request POST /x: `authorization` is missing",
                "request POST /x: unknown field `aztoken`",
            ],
        );
        check(Some(request(Kind::Unknown)), session(), &["request POST /x: there is no such path"]);
    }

    #[test]
    fn sign_in() {
        let plain = Request { tls: false, ..request(Kind::Token) };
        check(Some(plain), session(), &["request POST /x: a token must not be asked for without TLS"]);
        let query = vec!["resource".into(), "client_secret".into()];
        check(
            Some(Request { query, ..request(Kind::Token) }),
            session(),
            &["request POST /x: `client_secret` must not be in the query"],
        );
        let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let probe = Request { tls: false, ..request(Kind::Identity) };
        check(Some(probe.clone()), session(), &[]);
        let identity = |headers| Request { headers, query: vec!["resource".into()], ..probe.clone() };
        check(Some(identity(header("metadata", "true"))), session(), &[]);
        check(
            Some(identity(header("via", "1.1 proxy"))),
            session(),
            &[
                "request POST /x: `metadata` is missing",
                "request POST /x: a managed identity must be asked for directly, not through a proxy",
            ],
        );
        let app_service = identity(header("x-identity-header", "…"));
        check(Some(Request { path: "/app-service/msi/token".into(), ..app_service }), session(), &[]);
        let transcript = Transcript { hasty_polls: 2, ..Transcript::default() };
        let said: Vec<String> = violations(&transcript).iter().map(Violation::to_string).collect();
        assert_eq!(said, ["2 poll(s) for a device code came too early after `slow_down`"]);
    }

    #[test]
    fn frames() {
        #[track_caller]
        fn tunnel(frames: &[(FrameHeader, u64)], expected: &[&str]) {
            let mut tunnel = Tunnel { end: Some(End::Client), ..Tunnel::default() };
            for (header, length) in frames {
                tunnel.saw(header, *length);
            }
            check(None, Session { tunnel: Some(tunnel), ..session() }, expected);
        }
        let good = |mask: u8| FrameHeader {
            opcode: OpCode::Data(Data::Binary),
            mask: Some([mask, 1, 2, 3]),
            ..FrameHeader::default()
        };
        tunnel(&[(good(1), 4096), (good(2), 0), (good(2), 1), (good(3), 1)], &[]);
        tunnel(&[(good(1), 4097)], &["session 1: 1 frame(s) above 4096 bytes"]);
        tunnel(&[(FrameHeader { mask: None, ..good(1) }, 1)], &["session 1: 1 unmasked frame(s)"]);
        tunnel(&[(FrameHeader { is_final: false, ..good(1) }, 1)], &["session 1: 1 frame(s) without FIN"]);
        tunnel(&[(FrameHeader { rsv1: true, ..good(1) }, 1)], &["session 1: 1 frame(s) with a reserved bit"]);
        tunnel(
            &[(FrameHeader { mask: Some([0; 4]), ..good(1) }, 1)],
            &["session 1: 1 frame(s) masked with zero"],
        );
        let more = FrameHeader { opcode: OpCode::Data(Data::Continue), ..good(1) };
        tunnel(&[(more, 1)], &["session 1: 1 continuation frame(s)"]);
        let same = vec![(good(7), 1); 4];
        tunnel(&same, &["session 1: 3 frame(s) with the mask of the frame before"]);
        let pong = FrameHeader { opcode: OpCode::Control(Control::Pong), ..good(1) };
        tunnel(&[(pong.clone(), 0)], &[]);
        let mut pinged = Tunnel { pings: 2, pongs: 1, end: Some(End::Client), ..Tunnel::default() };
        pinged.saw(&pong, 8);
        pinged.saw(&good(2), 8);
        check(None, Session { tunnel: Some(pinged.clone()), ..session() }, &[]);
        pinged.saw(&pong, 7);
        let wrong = "session 1: 1 pong(s) that answer no ping";
        check(None, Session { tunnel: Some(pinged), ..session() }, &[wrong]);
        let early = Tunnel { early_bytes: 3, end: Some(End::Client), ..Tunnel::default() };
        check(
            None,
            Session { tunnel: Some(early), ..session() },
            &["session 1: 3 bytes were sent before the 101"],
        );
    }
}
