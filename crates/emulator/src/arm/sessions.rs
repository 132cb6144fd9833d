//! The sessions of a Bastion host: `getActiveSessions` and `disconnectActiveSessions` (protocol.md §4; REST specification
//! of Microsoft.Network, `bastionHost.json`). Both are long-running operations unless the scenario says otherwise.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Fault, caller, page, page_at};
use crate::azure::Azure;
use crate::data_plane::Listed;
use crate::http::{Request, Response, json as json_answer, set_header, text};
use crate::inventory::{Host, uuid_like};

/// Operations that were begun, and what comes of them.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    table: Mutex<BTreeMap<u64, Operation>>,
}

#[derive(Debug, Clone)]
struct Operation {
    /// Id of the Bastion host.
    host: String,
    items: Vec<Value>,
    /// Questions that are still answered with 202.
    pending: u32,
}

/// Operations that are remembered; the oldest is forgotten first.
const MAX_OPERATIONS: usize = 1000;

/// What the actions are called, in the spelling of the rights to them.
const ACTIONS: [&str; 2] = ["getActiveSessions", "disconnectActiveSessions"];

/// Answers a request for the sessions of a Bastion host; none for another one.
pub(super) fn answer(azure: &Azure, request: &Request) -> Option<Result<Response, Fault>> {
    let path = format!("/{}", request.segments.join("/"));
    let (host, action, rest) = ACTIONS.iter().find_map(|action| {
        let at = path.to_ascii_lowercase().find(&format!("/{}", action.to_ascii_lowercase()))?;
        Some((path.get(..at)?, *action, path.get(at + 1 + action.len()..)?))
    })?;
    Some(match (&request.method, rest.trim_start_matches('/').split_once('/')) {
        (&Method::POST, None) if rest.is_empty() => begin(azure, request, host, action),
        (&Method::GET, Some((results, number))) if results.eq_ignore_ascii_case("operationResults") => {
            look(azure, request, host, number)
        }
        _ => return None,
    })
}

fn begin(azure: &Azure, request: &Request, host: &str, action: &str) -> Result<Response, Fault> {
    let caller = caller(azure, request)?;
    let found = azure.inventory.hosts.iter().find(|one| one.id.eq_ignore_ascii_case(host));
    if let Some(host) = found {
        caller.must_be_of(&host.tenant)?;
    }
    caller.must_be_allowed(&format!("Microsoft.Network/bastionHosts/{action}/action"), host)?;
    let host = found.ok_or_else(|| Fault::no_resource(host))?;
    let items = match action {
        "getActiveSessions" => list(azure, host),
        _ => disconnect(azure, host, &request.body),
    };
    let pending = u32::from(!azure.settings.sessions_at_once);
    let number = azure.operations.add(Operation { host: host.id.clone(), items: items.clone(), pending });
    let place = format!("{}/{action}/operationResults/{number}", host.id);
    if azure.settings.sessions_at_once {
        let body = page_at(azure, request, &place, items.into_iter())?;
        return Ok(json_answer(StatusCode::OK, &body));
    }
    let version = request.parameter("api-version").unwrap_or_default();
    Ok(later(&format!("{}{place}?api-version={version}", azure.url)))
}

/// What the operation has come to.
fn look(azure: &Azure, request: &Request, host: &str, number: &str) -> Result<Response, Fault> {
    let caller = caller(azure, request)?;
    caller.must_be_allowed("Microsoft.Network/bastionHosts/read", host)?;
    let operation = number.parse().ok().and_then(|number| azure.operations.look(number));
    let operation = operation
        .filter(|operation| operation.host.eq_ignore_ascii_case(host))
        .ok_or_else(|| Fault::no_resource(&format!("{host}/operationResults/{number}")))?;
    if operation.pending > 0 {
        return Ok(later(&format!("{}{}", azure.url, request.target)));
    }
    let body = page(azure, request, operation.items.into_iter())?;
    Ok(json_answer(StatusCode::OK, &body))
}

fn later(place: &str) -> Response {
    let mut response = text(StatusCode::ACCEPTED, "");
    set_header(&mut response, "location", place);
    // No client of a test has to wait.
    set_header(&mut response, "retry-after", "0");
    response
}

fn session_id(host: &Host, number: u64) -> String {
    uuid_like(&format!("{}/sessions/{number}", host.id))
}

fn sessions(azure: &Azure, host: &Host) -> Vec<Listed> {
    let open: Vec<u64> = {
        let transcript = azure.recorder.read();
        transcript
            .sessions
            .values()
            .filter(|session| session.is_open())
            .map(|session| session.number)
            .collect()
    };
    azure.sessions.of_host(&host.id, |number| open.contains(&number))
}

fn list(azure: &Azure, host: &Host) -> Vec<Value> {
    let mut items = Vec::new();
    for Listed { number, machine, port, since } in sessions(azure, host) {
        let machine = machine.as_deref().and_then(|id| azure.inventory.machine(id));
        let part = |at: usize| machine.and_then(|machine| machine.id.split('/').nth(at)).unwrap_or_default();
        items.push(json!({
            "sessionId": session_id(host, number), "startTime": since,
            "targetSubscriptionId": part(2), "targetResourceGroup": part(4), "resourceType": "VM",
            "targetHostName": machine.map(|machine| machine.name.as_str()).unwrap_or_default(),
            "targetIpAddress": machine.map(|machine| machine.private_ip.to_string()).unwrap_or_default(),
            "targetResourceId": machine.map(|machine| machine.id.as_str()).unwrap_or_default(),
            "protocol": if port == RDP { "RDP" } else { "SSH" },
            // A native client does not say who signs in.
            "userName": "", "sessionDurationInMins": 0.0,
        }));
    }
    items
}

const RDP: u16 = 3389;

fn disconnect(azure: &Azure, host: &Host, body: &[u8]) -> Vec<Value> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let wanted = body.get("sessionIds").and_then(Value::as_array).cloned().unwrap_or_default();
    let known = sessions(azure, host);
    let end = |id: &Value| {
        let id = id.as_str().unwrap_or_default();
        let found = known.iter().find(|one| session_id(host, one.number).eq_ignore_ascii_case(id));
        let Some(found) = found else {
            return json!({"sessionId": id, "message": format!("session {id} not found!"), "state": "NotFound"});
        };
        azure.sessions.disconnect(found.number);
        azure.recorder.write(|transcript| {
            if let Some(session) = transcript.sessions.get_mut(&found.number) {
                // Whoever held it is not to blame for a token that is gone.
                session.excused = true;
            }
        });
        json!({"sessionId": id, "message": format!("session {id} invalidated!"), "state": "Disconnected"})
    };
    wanted.iter().map(end).collect()
}

impl Operations {
    fn add(&self, operation: Operation) -> u64 {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let number = table.last_key_value().map_or(1, |(last, _)| last + 1);
        if table.len() >= MAX_OPERATIONS {
            table.pop_first();
        }
        table.insert(number, operation);
        number
    }

    /// An operation as it was before this look at it.
    fn look(&self, number: u64) -> Option<Operation> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = table.get_mut(&number)?;
        let seen = operation.clone();
        operation.pending = operation.pending.saturating_sub(1);
        Some(seen)
    }
}
