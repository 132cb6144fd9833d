//! Virtual networks as Azure has them: their ARM documents, and who reaches whom. What they are made from is the
//! scenario's.

use serde_json::{Value, json};

use crate::inventory::{Inventory, Resource, uuid_like};
use crate::scenario::{PeeringState, Scenario, VIRTUAL_NETWORKS, VirtualNetwork, network_id};

/// A virtual network, as far as traffic is concerned.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) id: String,
    /// Ids of the networks that a connected peering leads to.
    peers: Vec<String>,
}

/// Every network of a scenario by its id: those that it describes, and those that it only names.
pub(crate) fn all(scenario: &Scenario) -> Vec<(String, VirtualNetwork)> {
    let mut all: Vec<(String, VirtualNetwork)> = Vec::new();
    for network in &scenario.virtual_networks {
        if let Some(subscription) = scenario.subscription(&network.place) {
            all.push((network_id(&subscription.id, &network.place, &network.place.vnet), network.clone()));
        }
    }
    let hosts = scenario.bastion_hosts.iter().map(|one| &one.place);
    let machines = scenario.virtual_machines.iter().map(|one| &one.place);
    for place in hosts.chain(machines).chain(scenario.scale_sets.iter().map(|one| &one.place)) {
        let Some(subscription) = scenario.subscription(place) else { continue };
        let id = network_id(&subscription.id, place, &place.vnet);
        if !all.iter().any(|(known, _)| known.eq_ignore_ascii_case(&id)) {
            let name = id.rsplit('/').next().unwrap_or_default().to_owned();
            all.push((id, VirtualNetwork::implied(name, place.clone())));
        }
    }
    all
}

/// A peering of a network, from its own side.
struct Side<'a> {
    remote: String,
    state: PeeringState,
    /// None for a network that is not in the scenario.
    other: Option<&'a VirtualNetwork>,
}

/// The peerings of a network: its own, and the other sides of those that are connected.
fn sides<'a>(scenario: &Scenario, networks: &'a [(String, VirtualNetwork)], id: &str) -> Vec<Side<'a>> {
    let other = |id: &str| {
        networks.iter().find(|(known, _)| known.eq_ignore_ascii_case(id)).map(|(_, network)| network)
    };
    let mut found: Vec<Side<'a>> = Vec::new();
    for (near, network) in networks {
        let subscription =
            scenario.subscription(&network.place).map(|one| one.id.as_str()).unwrap_or_default();
        for peering in &network.peerings {
            let far = network_id(subscription, &network.place, &peering.to);
            let remote = if near.eq_ignore_ascii_case(id) {
                far
            } else if far.eq_ignore_ascii_case(id) && peering.state == PeeringState::Connected {
                near.clone()
            } else {
                continue;
            };
            if !found.iter().any(|side| side.remote.eq_ignore_ascii_case(&remote)) {
                found.push(Side { other: other(&remote), remote, state: peering.state });
            }
        }
    }
    found
}

impl Inventory {
    pub(crate) fn add_networks(&mut self, scenario: &Scenario) {
        let networks = all(scenario);
        for (id, network) in &networks {
            let sides = sides(scenario, &networks, id);
            let subnets: Vec<Value> = network.subnets.iter().map(|subnet| json!({
                "name": subnet.name, "id": format!("{id}/subnets/{}", subnet.name),
                "type": format!("{VIRTUAL_NETWORKS}/subnets"),
                "properties": {"provisioningState": "Succeeded", "addressPrefix": subnet.prefix.to_string()},
            })).collect();
            let peerings: Vec<Value> = sides.iter().map(|side| peering(id, side)).collect();
            self.resources.push(Resource {
                id: id.clone(),
                document: json!({
                    "name": network.name, "id": id, "type": VIRTUAL_NETWORKS, "location": network.place.location,
                    "properties": {
                        "provisioningState": "Succeeded", "resourceGuid": uuid_like(id),
                        "addressSpace": {"addressPrefixes": network.address_prefixes},
                        "subnets": subnets, "virtualNetworkPeerings": peerings, "enableDdosProtection": false,
                    },
                }),
                instance_view: None,
            });
            self.resources.extend(subnets.into_iter().chain(peerings).map(|document| Resource {
                id: document.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(),
                document,
                instance_view: None,
            }));
            let connected = sides.into_iter().filter(|side| side.state == PeeringState::Connected);
            self.networks
                .push(Network { id: id.clone(), peers: connected.map(|side| side.remote).collect() });
        }
    }

    /// Whether traffic goes from one network to another: within it, or over one peering, which is not transitive.
    pub(crate) fn reaches(&self, from: &str, to: &str) -> bool {
        from.eq_ignore_ascii_case(to)
            || self.networks.iter().any(|network| {
                network.id.eq_ignore_ascii_case(from)
                    && network.peers.iter().any(|peer| peer.eq_ignore_ascii_case(to))
            })
    }
}

fn peering(id: &str, side: &Side<'_>) -> Value {
    let name = format!("to-{}", side.remote.rsplit('/').next().unwrap_or_default());
    let prefixes = side.other.map(|network| network.address_prefixes.clone()).unwrap_or_default();
    json!({
        "name": name, "id": format!("{id}/virtualNetworkPeerings/{name}"),
        "type": format!("{VIRTUAL_NETWORKS}/virtualNetworkPeerings"),
        "properties": {
            "provisioningState": "Succeeded", "peeringState": format!("{:?}", side.state),
            "peeringSyncLevel": match side.state {
                PeeringState::Connected => "FullyInSync",
                PeeringState::Initiated => "RemoteNotInSync",
                PeeringState::Disconnected => "LocalAndRemoteNotInSync",
            },
            "remoteVirtualNetwork": {"id": side.remote},
            "remoteAddressSpace": {"addressPrefixes": prefixes},
            "allowVirtualNetworkAccess": true, "allowForwardedTraffic": false,
            "allowGatewayTransit": false, "useRemoteGateways": false,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principals::Keys;

    fn inventory(scenario: &str) -> Inventory {
        let keys = Keys {
            client_secret: "x".into(),
            certificate: String::new(),
            url: "https://localhost:443".into(),
        };
        Inventory::new(&Scenario::parse(scenario).unwrap(), 443, &keys)
    }

    const HUB: &str = "/subscriptions/22222222-2222-4222-8222-222222222222/resourceGroups/network/providers/\
                       Microsoft.Network/virtualNetworks/hub";

    #[test]
    fn peerings_have_two_sides_once_they_are_connected() {
        #[track_caller]
        fn check(state: &str, reaches: bool, sides: usize) {
            let inventory = inventory(&format!(
                "[[virtual_networks]]\nname = \"hub\"\ngroup = \"network\"\n\
                 [[virtual_networks]]\nname = \"spoke\"\npeerings = [{{ to = \"network/hub\", state = \"{state}\" }}]\n"
            ));
            let spoke = HUB.replace("/network/", "/demo/").replace("/hub", "/spoke");
            assert_eq!(inventory.reaches(HUB, &spoke), reaches, "{state}");
            assert_eq!(inventory.reaches(&spoke, HUB), reaches, "{state}");
            assert!(inventory.reaches(HUB, &HUB.to_uppercase()));
            let peerings =
                inventory.resources.iter().filter(|one| one.id.contains("/virtualNetworkPeerings/"));
            assert_eq!(peerings.count(), sides, "{state}");
        }
        check("Connected", true, 2);
        check("Initiated", false, 1);
        check("Disconnected", false, 1);
    }

    #[test]
    fn networks_that_are_only_named_are_there_too() {
        let inventory = inventory(
            "[[virtual_machines]]\nname = \"x\"\nprivate_ip = \"10.9.0.4\"\nvnet = \"network/hub\"\n\
             [[bastion_hosts]]\nname = \"b\"\n",
        );
        let hub = inventory.resource(HUB).unwrap();
        assert_eq!(hub.document["properties"]["addressSpace"]["addressPrefixes"][0], "10.0.0.0/8");
        assert!(inventory.resource(&format!("{HUB}/subnets/AzureBastionSubnet")).is_some());
        assert_eq!(inventory.networks.len(), 2);
        assert!(!inventory.reaches(&inventory.hosts[0].vnet_id, HUB));
    }
}
