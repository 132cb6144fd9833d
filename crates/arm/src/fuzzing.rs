//! Doors for the fuzz targets of `tests/fuzz`, there with `--cfg fuzzing` only: what reads ARM's answers. The targets
//! say what has to hold.

use std::time::SystemTime;

use bastide_core::ResourceId;
use http::HeaderMap;

use crate::{Answer, Direction, Error, Flow, Located, Ruling, Topology, Unlocated, VirtualMachine, Wanted};

/// A refusal, as an error for its user.
pub fn refusal(status: u16, headers: &HeaderMap, body: &[u8]) -> (Answer, Error) {
    let answer = Answer::read(status, headers, body, SystemTime::UNIX_EPOCH);
    (answer.clone(), Error::refused("the VM", answer))
}

/// A VM's description.
pub fn virtual_machine(id: &ResourceId, body: &[u8]) -> Option<VirtualMachine> {
    crate::virtual_machine::read(id, body)
}

/// The default subscription of the Azure CLI's profile.
pub fn azure_cli_default(profile: &[u8], cloud: &str) -> Option<String> {
    crate::subscription::azure_cli_default(profile, cloud)
}

/// What a network security group does with a connection to `port` of which nothing else is known.
pub fn security_group(id: &ResourceId, body: &[u8], port: u16) -> Option<Ruling> {
    let group = crate::security_group::read(id, body)?;
    Some(group.rule(Flow { direction: Direction::Inbound, from: &[], to: &[], to_groups: &[], port }))
}

/// What Resource Graph's answer says of these words.
pub fn locate(words: &Wanted, body: &[u8]) -> Option<(Topology, Result<Located, Unlocated>)> {
    crate::graph::read(words, body)
}
