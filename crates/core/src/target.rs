//! What a user connects to: a resource or a private address. It leaves out VM names: those are looked up
//! first and become a resource id.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Error, ResourceId};

/// The far end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A VM, a scale-set instance, or anything else with an ARM id.
    Resource(ResourceId),
    /// A private address in a network that the Bastion host reaches ("IP connect").
    Address(Ipv4Addr),
}

impl Target {
    /// Reads an address. Bastion has no IPv6 (protocol.md §4, limits).
    ///
    /// # Errors
    /// [`Error::Address`] when it is not an IPv4 address, or one that no VM can have.
    pub fn address(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Address { text: text.trim().to_owned(), reason };
        match text.trim().parse() {
            Ok(IpAddr::V4(address))
                if address.is_unspecified() || address.is_broadcast() || address.is_multicast() =>
            {
                Err(wrong("no VM can have it"))
            }
            Ok(IpAddr::V4(address)) => Ok(Self::Address(address)),
            Ok(IpAddr::V6(_)) => Err(wrong("Azure Bastion has no IPv6")),
            Err(_) => Err(wrong("four numbers from 0 to 255 with dots between them are needed")),
        }
    }

    /// A name that a person recognises: the VM's name, or the address.
    pub fn display_name(&self) -> String {
        match self {
            Target::Resource(id) => id.display_name(),
            Target::Address(address) => address.to_string(),
        }
    }

    /// Which kind it is.
    pub fn kind(&self) -> TargetKind {
        match self {
            Target::Resource(id) => id.kind(),
            Target::Address(_) => TargetKind::Address,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Resource(id) => id.fmt(formatter),
            Target::Address(address) => address.fmt(formatter),
        }
    }
}

/// The kinds of targets that behave differently somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A virtual machine.
    VirtualMachine,
    /// An instance of a scale set: a target like a VM (protocol.md §2).
    ScaleSetInstance,
    /// An AKS cluster: its private API server works as a target (protocol.md §4).
    ManagedCluster,
    /// A Bastion host: never a target.
    BastionHost,
    /// A private address.
    Address,
    /// Any other ARM id: accepted, but nobody has seen it work (protocol.md §4).
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_private_addresses_only() {
        assert_eq!(Target::address(" 10.0.0.4 ").unwrap(), Target::Address(Ipv4Addr::new(10, 0, 0, 4)));
        for text in [
            "",
            "10.0.0",
            "10.0.0.256",
            "10.0.0.4/24",
            "fd00::4",
            "0.0.0.0",
            "224.0.0.1",
            "web-01",
            "010.0.0.4",
        ] {
            assert!(matches!(Target::address(text), Err(Error::Address { .. })), "{text}");
        }
    }
}
