//! Faults of requests: what is answered instead, or what becomes of the answer. Which fault strikes
//! is `mod.rs`; the ordinary answers are those of the services.

use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{Method, StatusCode};
use serde_json::json;

use super::{Body, Fault, Flaw};
use crate::azure::Azure;
use crate::data_plane;
use crate::http::{Answer, Request, Response, cut, json as json_answer, set_header, text, without_field};
use crate::key_vault;
use crate::transcript::Kind;

/// The connection is to be reset instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut by a fault")]
pub(crate) struct Cut;

/// The answer of `route`, or what a fault makes of it. An error in place of the response: the connection is
/// reset. Not cancel safe, as a request that is dropped half-way.
pub(crate) async fn answer(
    azure: &Azure,
    request: &Request,
    route: impl Fn() -> Answer,
) -> (Answer, Result<(), Cut>) {
    let kind = kind(request);
    let Some((fault, replaced)) =
        azure.strike(|fault| of_request(fault, kind, request).then(|| fault.clone()))
    else {
        return (route(), Ok(()));
    };
    match fault {
        Fault::Status { status, body, message, retry_after, .. } => {
            let mut answer = thwarted(azure, kind, request, route);
            answer.response = refusal(kind, status, body, &message);
            if let Some(retry_after) = retry_after {
                set_header(&mut answer.response, "retry-after", &retry_after);
            }
            (answer, Ok(()))
        }
        Fault::Half { .. } => {
            let mut answer = route();
            if answer.opening.take().is_some() {
                answer.response = text(StatusCode::BAD_GATEWAY, "Bad Gateway");
            }
            excuse(azure, &answer);
            answer.response = cut(answer.response);
            (answer, Ok(()))
        }
        Fault::Hold { .. } => {
            if kind == Kind::Release {
                // Who gives up, or tries again, has done what a client can do.
                data_plane::thwart_release(azure, request);
            }
            tokio::select! {
                () = replaced.cancelled() => (route(), Ok(())),
                () = azure.stop.cancelled() => (thwarted(azure, kind, request, route), Err(Cut)),
            }
        }
        Fault::Reset { .. } => (thwarted(azure, kind, request, route), Err(Cut)),
        Fault::MissingField { field, .. } => {
            let mut answer = route();
            // Without the WebSocket token a session can still be released.
            if field != "websocketToken" {
                excuse(azure, &answer);
            }
            answer.response = without_field(answer.response, &field);
            (answer, Ok(()))
        }
        Fault::Handshake { flaw } => {
            let mut answer = route();
            if answer.opening.is_some() {
                spoil(&mut answer.response, flaw);
            }
            (answer, Ok(()))
        }
        Fault::ExpiredTokens
        | Fault::RawPage { .. }
        | Fault::Ending { .. }
        | Fault::Silence { .. }
        | Fault::PingIgnored
        | Fault::PingReset
        | Fault::Frames { .. } => (route(), Ok(())),
    }
}

fn of_request(fault: &Fault, kind: Kind, request: &Request) -> bool {
    match fault.requests() {
        Some(on) => {
            let target = || request.target.to_ascii_lowercase();
            on.kind == kind && (on.path.is_empty() || target().contains(&on.path.to_ascii_lowercase()))
        }
        None => matches!(fault, Fault::Handshake { .. }) && kind == Kind::Upgrade,
    }
}

/// What a request is for, by its host, method and path alone.
fn kind(request: &Request) -> Kind {
    if key_vault::is_vault(&request.host) {
        return Kind::KeyVault;
    }
    let lower = request.lower_segments();
    let path: Vec<&str> = lower.iter().map(String::as_str).collect();
    match (&request.method, path.as_slice()) {
        (&Method::POST, ["api", "tokens"]) => Kind::Mint,
        (&Method::DELETE, ["api", "tokens", _]) => Kind::Release,
        (&Method::GET, ["webtunnelv2", _] | ["omni", "webtunnel", _]) => Kind::Upgrade,
        (&Method::POST, ["api", "connection"]) => Kind::Connection,
        (&Method::GET, ["api", "rdpfile"]) => Kind::RdpFile,
        (&Method::POST, [_, "oauth2", "v2.0", "devicecode"]) => Kind::DeviceCode,
        (_, ["metadata", "identity", ..] | ["arc" | "app-service" | "cloud-shell", ..]) => Kind::Identity,
        (_, ["device"]) => Kind::Page,
        (_, ["oidc", _, "token"]) => Kind::Oidc,
        (_, [_, "oauth2", ..]) => Kind::Token,
        (_, ["providers", "microsoft.resourcegraph", ..]) => Kind::Graph,
        (_, ["tenants" | "subscriptions" | "providers", ..]) => Kind::Arm,
        _ => Kind::Discovery,
    }
}

/// The ordinary answer without its effect, for a response to be put in its place.
fn thwarted(azure: &Azure, kind: Kind, request: &Request, route: impl Fn() -> Answer) -> Answer {
    match kind {
        // What they hand out can be had once: a device code must not be used up for nothing.
        Kind::Mint | Kind::Token | Kind::DeviceCode | Kind::Page | Kind::Identity | Kind::Oidc => {
            let fields = request.form().into_iter().map(|(name, _)| name).collect();
            Answer { fields, ..Answer::new(kind, text(StatusCode::OK, "")) }
        }
        Kind::Release => data_plane::thwart_release(azure, request),
        // An upgrade uses its token up, whatever comes of it; the others have no effect.
        _ => Answer { opening: None, ..route() },
    }
}

/// A client that was not told of a session, or not of its release, is not to blame for what follows.
fn excuse(azure: &Azure, answer: &Answer) {
    let Some(number) = answer.session.filter(|_| matches!(answer.kind, Kind::Mint | Kind::Release)) else {
        return;
    };
    azure.recorder.write(|transcript| {
        if let Some(session) = transcript.sessions.get_mut(&number) {
            session.excused = true;
        }
    });
}

fn refusal(kind: Kind, status: u16, body: Body, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = status.canonical_reason().unwrap_or("Unknown");
    match (body, kind) {
        (Body::Empty, _) => text(status, ""),
        (Body::Html, _) => {
            let code = status.as_u16();
            let page = format!(
                "<html>\r\n<head><title>{code} {reason}</title></head>\r\n<body>\r\n<center><h1>{code} {reason}</h1></center>\r\n<hr><center>Microsoft-Azure-Application-Gateway/v2</center>\r\n</body>\r\n</html>\r\n"
            );
            let mut response = text(status, page);
            set_header(&mut response, "content-type", "text/html");
            response
        }
        (Body::Json, Kind::Token | Kind::DeviceCode) => json_answer(
            status,
            &json!({"error": "temporarily_unavailable", "error_description": format!("AADSTS90033: {message}"), "error_codes": [90033]}),
        ),
        // The form of IMDS.
        (Body::Json, Kind::Identity) => {
            json_answer(status, &json!({"error": reason.to_lowercase(), "error_description": message}))
        }
        (Body::Json, Kind::Arm | Kind::Graph | Kind::Discovery | Kind::KeyVault) => {
            json_answer(status, &json!({"error": {"code": reason.replace(' ', ""), "message": message}}))
        }
        (
            Body::Json,
            Kind::Mint
            | Kind::Release
            | Kind::Upgrade
            | Kind::Connection
            | Kind::RdpFile
            | Kind::Page
            | Kind::Oidc
            | Kind::Unknown,
        ) => json_answer(status, &json!({"message": message})),
    }
}

fn spoil(response: &mut Response, flaw: Flaw) {
    let headers = response.headers_mut();
    match flaw {
        Flaw::NoHeaders => {
            headers.remove(UPGRADE);
            headers.remove(CONNECTION);
        }
        Flaw::KeepAlive => {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        }
        // Twenty zero bytes: the SHA-1 of no key that anybody will find.
        Flaw::WrongAccept => {
            headers.insert("sec-websocket-accept", HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAAAAAAA="));
        }
    }
}
