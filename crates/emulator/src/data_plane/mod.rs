//! The data plane of the Bastion hosts (protocol.md §3, §5 and §6): which paths there are and what goes
//! to whom. Tokens and their life are `tokens.rs`, WebSockets `tunnel.rs`, frames
//! `frames.rs`, faults of WebSockets `mishap.rs`, files for RDP clients `rdp_file.rs`.

mod frames;
mod mishap;
mod rdp_file;
mod tokens;
pub(crate) mod tunnel;

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::azure::Azure;
use crate::http::{Answer, Request, Response, json as json_answer, lookup};
use crate::inventory::Host;
use crate::transcript::Kind;

pub(crate) use mishap::Fate;
pub(crate) use tokens::{Listed, Opening, Sessions, thwart_release};

/// A Bastion host under one of its names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door<'a> {
    pub(crate) host: &'a Host,
    pub(crate) side: Side,
}

/// Which name of a Bastion host a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `dnsName`
    Gateway,
    /// The data pod of a Developer or QuickConnect host.
    Pod,
}

impl<'a> Door<'a> {
    /// The Bastion host with this name.
    fn find(azure: &'a Azure, name: &str) -> Option<Door<'a>> {
        azure.inventory.hosts.iter().find_map(|host| {
            if host.dns_name == name {
                Some(Door { host, side: Side::Gateway })
            } else if host.pod_name.as_deref() == Some(name) {
                Some(Door { host, side: Side::Pod })
            } else {
                None
            }
        })
    }

    /// Whether tokens are minted here: a Developer or QuickConnect host mints at its data pod only.
    fn mints(&self) -> bool {
        self.host.settings.sku.has_data_pod() == (self.side == Side::Pod)
    }
}

/// Answers a request that belongs to the data plane; none when it does not.
pub(crate) fn answer(azure: &Azure, request: &Request) -> Option<Answer> {
    let door = Door::find(azure, &request.host)?;
    let path: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    let answer = match (&request.method, path.as_slice()) {
        (&Method::POST, ["api", "tokens"]) if door.mints() => tokens::mint(azure, door, request),
        (&Method::DELETE, ["api", "tokens", token]) if door.mints() => {
            tokens::release(azure, door, token, request)
        }
        (&Method::GET, ["webtunnelv2", token]) if door.side == Side::Gateway && door.mints() => {
            tokens::upgrade(azure, door, token, request)
        }
        (&Method::GET, ["omni", "webtunnel", token]) if door.side == Side::Pod => {
            tokens::upgrade(azure, door, token, request)
        }
        (&Method::POST, ["api", "connection"])
            if door.side == Side::Gateway && door.host.pod_name.is_some() =>
        {
            tokens::connection(azure, door, request)
        }
        (&Method::GET, ["api", "rdpfile"]) if door.side == Side::Gateway && door.mints() => {
            rdp_file::answer(azure, door, request)
        }
        _ => return None,
    };
    Some(answer)
}

/// `{"message": …}`, the data plane's form of an error.
fn message(status: StatusCode, message: &str) -> Response {
    json_answer(status, &json!({"message": message}))
}

/// The node that a request names, in its header or in its query.
fn node(request: &Request) -> Option<String> {
    request.header("x-node-id").or_else(|| lookup(&request.query, "X-Node-Id")).map(str::to_owned)
}

/// An answer with the names of a body's fields in the transcript.
fn noted(kind: Kind, response: Response, fields: &[(String, String)]) -> Answer {
    Answer { fields: fields.iter().map(|(name, _)| name.clone()).collect(), ..Answer::new(kind, response) }
}
