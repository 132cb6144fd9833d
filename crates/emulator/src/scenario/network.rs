//! Virtual networks as a scenario describes them: which addresses they hold, how those are divided, and which other
//! networks they are peered with. What ARM says of them is `networks.rs`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Deserialize;

use super::Place;

/// A virtual network.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "VirtualNetworkTable")]
pub struct VirtualNetwork {
    /// Resource name.
    pub name: String,
    /// Where it lives; `vnet` names the network itself.
    pub place: Place,
    /// The addresses that it holds.
    pub address_prefixes: Vec<Ipv4Net>,
    /// Its parts.
    pub subnets: Vec<Subnet>,
    /// The networks that it is connected with.
    pub peerings: Vec<Peering>,
}

impl VirtualNetwork {
    /// A network that something is in, and that nobody has described.
    pub(crate) fn implied(name: String, place: Place) -> VirtualNetwork {
        let address_prefixes = vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)];
        VirtualNetwork {
            name,
            place,
            subnets: subnets_of(&address_prefixes),
            address_prefixes,
            peerings: Vec::new(),
        }
    }
}

/// A part of a virtual network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Name. Bastion hosts are in the one that is called `AzureBastionSubnet`.
    pub name: String,
    /// Its addresses.
    pub prefix: Ipv4Net,
}

/// A connection of a virtual network with another one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peering {
    /// The other network: as [`Place::vnet`] names one.
    pub to: String,
    /// How far it has got.
    #[serde(default)]
    pub state: PeeringState,
}

/// State of a peering, as ARM spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PeeringState {
    /// Both networks have it, and it carries traffic.
    #[default]
    Connected,
    /// The other network has no peering yet.
    Initiated,
    /// The other network had one and has removed it.
    Disconnected,
}

/// A network's table, where everything with a default may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VirtualNetworkTable {
    name: String,
    group: Option<String>,
    subscription: Option<String>,
    location: Option<String>,
    #[serde(default = "address_prefixes")]
    address_prefixes: Vec<Ipv4Net>,
    subnets: Option<Vec<Subnet>>,
    #[serde(default)]
    peerings: Vec<Peering>,
}

impl From<VirtualNetworkTable> for VirtualNetwork {
    fn from(table: VirtualNetworkTable) -> VirtualNetwork {
        VirtualNetwork {
            place: Place::new(table.group, table.subscription, table.location, Some(table.name.clone())),
            name: table.name,
            subnets: table.subnets.unwrap_or_else(|| subnets_of(&table.address_prefixes)),
            address_prefixes: table.address_prefixes,
            peerings: table.peerings,
        }
    }
}

fn address_prefixes() -> Vec<Ipv4Net> {
    vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16)]
}

/// `default` is the first half of the first prefix, `AzureBastionSubnet` the last 64 addresses: the least that a
/// Bastion host takes.
fn subnets_of(prefixes: &[Ipv4Net]) -> Vec<Subnet> {
    let Some(first) = prefixes.first() else { return Vec::new() };
    let part =
        |name: &str, prefix: Option<Ipv4Net>| prefix.map(|prefix| Subnet { name: name.to_owned(), prefix });
    let half = first.subnets(first.prefix_len().saturating_add(1)).ok().and_then(|mut halves| halves.next());
    let last =
        Ipv4Net::new(first.broadcast(), BASTION_PREFIX.max(first.prefix_len())).ok().map(|net| net.trunc());
    part("default", half).into_iter().chain(part("AzureBastionSubnet", last)).collect()
}

/// `/26`: learn.microsoft.com, "Azure Bastion configuration settings", subnet.
const BASTION_PREFIX: u8 = 26;

/// The id of a network that is named by its id, by `GROUP/NAME`, or by its name in the own group.
pub(crate) fn network_id(subscription: &str, place: &Place, reference: &str) -> String {
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let (group, name) = reference.split_once('/').unwrap_or((&place.group, reference));
    format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{VIRTUAL_NETWORKS}/{name}")
}

/// The resource type, as ARM spells it.
pub(crate) const VIRTUAL_NETWORKS: &str = "Microsoft.Network/virtualNetworks";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_that_are_left_out() {
        let shown = |prefix: &str| {
            let subnets = subnets_of(&[prefix.parse().unwrap()]);
            subnets.iter().map(|one| format!("{} {}", one.name, one.prefix)).collect::<Vec<_>>()
        };
        assert_eq!(shown("10.1.0.0/16"), ["default 10.1.0.0/17", "AzureBastionSubnet 10.1.255.192/26"]);
        assert_eq!(shown("10.1.0.0/28"), ["default 10.1.0.0/29", "AzureBastionSubnet 10.1.0.0/28"]);
        assert_eq!(subnets_of(&[]).len(), 0);
    }

    #[test]
    fn networks_by_name() {
        let place = Place::new(Some("app".into()), None, None, None);
        let id = |reference: &str| network_id("s", &place, reference);
        assert_eq!(
            id("net"),
            "/subscriptions/s/resourceGroups/app/providers/Microsoft.Network/virtualNetworks/net"
        );
        assert_eq!(
            id("hub/net"),
            "/subscriptions/s/resourceGroups/hub/providers/Microsoft.Network/virtualNetworks/net"
        );
        assert_eq!(id("/subscriptions/x"), "/subscriptions/x");
    }
}
