//! `/_emulator/…`: the transcript and what follows from it, and the orders for faults, for tests in
//! any language. Needs no token, and holds no secret.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::azure::Azure;
use crate::faults::Order;
use crate::http::{Request, Response, json as json_answer};
use crate::rules::violations;

/// Answers a request that belongs here; none when it does not.
pub(crate) fn answer(azure: &Azure, request: &Request) -> Option<Response> {
    let path: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    let ["_emulator", rest @ ..] = path.as_slice() else { return None };
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
            ];
            return Some(json_answer(StatusCode::NOT_FOUND, &json!({"paths": paths})));
        }
    };
    Some(json_answer(StatusCode::OK, &body))
}

/// The orders that stand.
fn standing(azure: &Azure) -> Value {
    serde_json::to_value(azure.faults.standing()).unwrap_or_default()
}
