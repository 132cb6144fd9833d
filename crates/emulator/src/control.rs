//! `/_emulator/…`: the transcript and what follows from it, the orders for faults, and what a person or
//! an administrator of Entra ID would do, for tests in any language. Needs no token, and holds no secret;
//! pages of other origins are kept out.

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::azure::Azure;
use crate::entra::RefreshEnd;
use crate::faults::Order;
use crate::http::{Request, Response, json as json_answer};
use crate::rules::violations;
use crate::scenario::Outcome;

/// Answers a request that belongs here; none when it does not.
pub(crate) fn answer(azure: &Azure, request: &Request) -> Option<Response> {
    let path: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    let ["_emulator", rest @ ..] = path.as_slice() else { return None };
    let foreign = |origin: &str| {
        Some(origin) != request.header("host").map(|host| format!("https://{host}")).as_deref()
    };
    if request.header("origin").is_some_and(foreign) {
        return Some(json_answer(
            StatusCode::FORBIDDEN,
            &json!({"message": "not from a page of another origin"}),
        ));
    }
    let body = match (&request.method, rest) {
        (&Method::GET, ["transcript"]) => serde_json::to_value(azure.recorder.snapshot()).unwrap_or_default(),
        (&Method::GET, ["violations"]) => {
            let found = violations(&azure.recorder.read());
            found.iter().map(|violation| Value::from(violation.to_string())).collect()
        }
        (&Method::GET, ["sessions"]) => {
            let transcript = azure.recorder.read();
            transcript.unreleased().map(|session| serde_json::to_value(session).unwrap_or_default()).collect()
        }
        (&Method::GET, ["faults"]) => standing(azure),
        (&Method::POST, ["faults"]) => match serde_json::from_slice::<Vec<Order>>(&request.body) {
            Ok(orders) => {
                azure.misbehave(orders);
                standing(azure)
            }
            Err(fault) => {
                let body = json!({"message": format!("not a list of orders: {fault}")});
                return Some(json_answer(StatusCode::BAD_REQUEST, &body));
            }
        },
        (&Method::DELETE, ["faults"]) => {
            azure.misbehave(Vec::new());
            standing(azure)
        }
        (&Method::GET, ["device"]) => serde_json::to_value(azure.sign_ins.waiting()).unwrap_or_default(),
        (&Method::POST, ["sign_in"]) => {
            let act = serde_json::from_slice::<Act>(&request.body).map_err(|fault| fault.to_string());
            if let Err(fault) = act.and_then(|act| perform(azure, act)) {
                return Some(json_answer(StatusCode::BAD_REQUEST, &json!({"message": fault})));
            }
            json!({})
        }
        (&Method::POST, ["hang-up"]) => {
            azure.hang_up.send_replace(());
            json!({})
        }
        (&Method::POST, ["reset"]) => {
            azure.recorder.reset();
            json!({})
        }
        _ => {
            let paths = [
                "GET /_emulator/transcript",
                "GET /_emulator/violations",
                "GET /_emulator/sessions",
                "POST /_emulator/hang-up",
                "POST /_emulator/reset",
                "GET /_emulator/faults",
                "POST /_emulator/faults",
                "DELETE /_emulator/faults",
                "GET /_emulator/device",
                "POST /_emulator/sign_in",
            ];
            return Some(json_answer(StatusCode::NOT_FOUND, &json!({"paths": paths})));
        }
    };
    Some(json_answer(StatusCode::OK, &body))
}

/// What a person, or an administrator, does: `{"act": "approve", "user_code": "…", "upn": "…"}`.
#[derive(Deserialize)]
#[serde(tag = "act", rename_all = "snake_case", deny_unknown_fields)]
enum Act {
    /// Approves a device code as a user.
    Approve { user_code: String, upn: String },
    /// Refuses a device code.
    Decline { user_code: String },
    /// Lets all device codes expire.
    ExpireDeviceCodes,
    /// Answers the next question for each device code with `slow_down`.
    SlowDownDeviceCodes,
    /// Lets all access tokens expire.
    ExpireAccessTokens,
    /// Ends all refresh tokens.
    EndRefreshTokens { end: RefreshEnd },
    /// Sets what comes of a user's sign-in.
    SetOutcome { upn: String, outcome: Outcome },
    /// Lets ARM demand claims, or nothing.
    DemandClaims { claims: Option<Value> },
}

fn perform(azure: &Azure, act: Act) -> Result<(), String> {
    let sign_ins = &azure.sign_ins;
    match act {
        Act::Approve { user_code, upn } => {
            azure.approve(&user_code, &upn).map_err(|fault| fault.to_string())?;
        }
        Act::Decline { user_code } => {
            sign_ins.decline(&user_code).map_err(|fault| fault.to_string())?;
        }
        Act::ExpireDeviceCodes => sign_ins.expire_device_codes(),
        Act::SlowDownDeviceCodes => sign_ins.slow_down_device_codes(),
        Act::ExpireAccessTokens => azure.issuer.expire_all(),
        Act::EndRefreshTokens { end } => sign_ins.end_refresh_tokens(end),
        Act::SetOutcome { upn, outcome } => sign_ins.set_outcome(&upn, outcome),
        Act::DemandClaims { claims } => sign_ins.demand(claims.map(|claims| claims.to_string())),
    }
    Ok(())
}

/// The orders that stand.
fn standing(azure: &Azure) -> Value {
    serde_json::to_value(azure.faults.standing()).unwrap_or_default()
}
