//! What lies between a Bastion host and a VM: network interfaces, subnets, virtual networks. It leaves out the rules of
//! security groups (`security_group`) and what follows from all of it.

use std::net::Ipv4Addr;

use bastide_core::{ResourceId, TargetKind};
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::answer::shown;
use crate::client::Question;
use crate::{Arm, Error};

/// A network interface by its primary address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInterface {
    /// Its id, as it was asked for.
    pub id: ResourceId,
    /// The private address.
    pub address: Option<Ipv4Addr>,
    /// The subnet that it is in.
    pub subnet: Option<ResourceId>,
    /// The network security group of its own.
    pub security_group: Option<ResourceId>,
    /// The application security groups that it belongs to.
    pub application_groups: Vec<ResourceId>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its id, as it was asked for.
    pub id: ResourceId,
    /// The addresses that are in it, without those of IPv6.
    pub prefixes: Vec<Ipv4Net>,
    /// The network security group of everything in it.
    pub security_group: Option<ResourceId>,
}

/// A virtual network, as far as it leads to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualNetwork {
    /// Its id, as it was asked for.
    pub id: ResourceId,
    peerings: Vec<Peering>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Peering {
    remote: ResourceId,
    state: String,
}

impl VirtualNetwork {
    /// The state of its peering with another one, such as `Connected`; none where there is no peering.
    pub fn peering_with(&self, other: &ResourceId) -> Option<&str> {
        let peering = self.peerings.iter().find(|peering| peering.remote == *other);
        peering.map(|peering| peering.state.as_str())
    }
}

impl Arm {
    /// The network interface with this id, of a VM or of a scale-set instance.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of an exchange with ARM.
    pub async fn network_interface(&self, id: &ResourceId) -> Result<NetworkInterface, Error> {
        // Those of scale sets are below the compute provider, where the network provider answers by a version of its own.
        let version = if is_of_scale_set(id) { SCALE_SET_API_VERSION } else { API_VERSION };
        let resource: Resource<InterfaceProperties> = self.read(id, "network interface", version).await?;
        Ok(resource.properties.read(id))
    }

    /// The subnet with this id.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of an exchange with ARM.
    pub async fn subnet(&self, id: &ResourceId) -> Result<Subnet, Error> {
        let resource: Resource<SubnetProperties> = self.read(id, "subnet", API_VERSION).await?;
        Ok(resource.properties.read(id))
    }

    /// The virtual network with this id.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of an exchange with ARM.
    pub async fn virtual_network(&self, id: &ResourceId) -> Result<VirtualNetwork, Error> {
        let resource: Resource<NetworkProperties> = self.read(id, "virtual network", API_VERSION).await?;
        let peerings = resource.properties.virtual_network_peerings.into_iter();
        let peerings = peerings.filter_map(|peering| {
            let state = shown(&peering.properties.peering_state.unwrap_or_default());
            Some(Peering { remote: peering.properties.remote_virtual_network.parse()?, state })
        });
        Ok(VirtualNetwork { id: id.clone(), peerings: peerings.collect() })
    }

    async fn read<T: DeserializeOwned>(
        &self,
        id: &ResourceId,
        kind: &str,
        api_version: &'static str,
    ) -> Result<T, Error> {
        let what = format!("{kind} '{}' in resource group '{}'", id.name(), id.group());
        let question = Question {
            what: &what,
            path: id.as_str(),
            api_version,
            expand: None,
            subscription: Some(id.subscription()),
        };
        question.parse(&self.get(&question).await?)
    }
}

/// A stable version of Microsoft.Network (azure-rest-api-specs), that of Bastion hosts.
pub(crate) const API_VERSION: &str = "2024-01-01";

/// The newest version that answers for network interfaces of scale sets (azure-rest-api-specs, `vmssNetworkInterface.json`).
const SCALE_SET_API_VERSION: &str = "2018-10-01";

fn is_of_scale_set(id: &ResourceId) -> bool {
    id.parent().is_some_and(|machine| machine.kind() == TargetKind::ScaleSetInstance)
}

#[derive(Deserialize)]
struct Resource<T> {
    properties: T,
}

/// A reference to another resource.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Reference {
    id: String,
}

impl Reference {
    fn parse(&self) -> Option<ResourceId> {
        ResourceId::parse(&self.id).ok()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InterfaceProperties {
    #[serde(default)]
    ip_configurations: Vec<Resource<Configuration>>,
    network_security_group: Option<Reference>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    primary: bool,
    #[serde(rename = "privateIPAddress")]
    private_ip_address: Option<String>,
    subnet: Option<Reference>,
    application_security_groups: Vec<Reference>,
}

impl InterfaceProperties {
    fn read(self, id: &ResourceId) -> NetworkInterface {
        let mut all: Vec<_> = self.ip_configurations.into_iter().map(|one| one.properties).collect();
        let place = all.iter().position(|one| one.primary).unwrap_or_default();
        let primary = if all.is_empty() { Configuration::default() } else { all.swap_remove(place) };
        NetworkInterface {
            id: id.clone(),
            address: primary.private_ip_address.and_then(|address| address.parse().ok()),
            subnet: primary.subnet.and_then(|subnet| subnet.parse()),
            security_group: self.network_security_group.and_then(|group| group.parse()),
            application_groups: primary
                .application_security_groups
                .iter()
                .filter_map(Reference::parse)
                .collect(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubnetProperties {
    address_prefix: Option<String>,
    #[serde(default)]
    address_prefixes: Vec<String>,
    network_security_group: Option<Reference>,
}

impl SubnetProperties {
    fn read(self, id: &ResourceId) -> Subnet {
        let prefixes = self.address_prefix.into_iter().chain(self.address_prefixes);
        Subnet {
            id: id.clone(),
            prefixes: prefixes.filter_map(|prefix| prefix.parse().ok()).collect(),
            security_group: self.network_security_group.and_then(|group| group.parse()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkProperties {
    #[serde(default)]
    virtual_network_peerings: Vec<Resource<PeeringProperties>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeeringProperties {
    #[serde(default)]
    remote_virtual_network: Reference,
    peering_state: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Reply, Script};

    const BASE: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network";

    #[tokio::test]
    async fn an_interface_is_read_by_its_primary_address() {
        let body = format!(
            r#"{{"properties":{{"networkSecurityGroup":{{"id":"{BASE}/networkSecurityGroups/n"}},"ipConfigurations":[
                {{"name":"two","properties":{{"primary":false,"privateIPAddress":"10.0.0.9"}}}},
                {{"name":"one","properties":{{"primary":true,"privateIPAddress":"10.0.0.4",
                  "subnet":{{"id":"{BASE}/virtualNetworks/v/subnets/default"}},
                  "applicationSecurityGroups":[{{"id":"{BASE}/applicationSecurityGroups/web"}}]}}}}]}}}}"#
        );
        let script =
            Script::start(vec![Reply::json(200, &body), Reply::json(200, r#"{"properties":{}}"#)]).await;
        let arm = script.arm();
        let id: ResourceId = format!("{BASE}/networkInterfaces/web-nic").parse().unwrap();
        let interface = arm.network_interface(&id).await.unwrap();
        assert_eq!(interface.address, Some(Ipv4Addr::new(10, 0, 0, 4)));
        assert_eq!(interface.subnet.as_ref().unwrap().parent().unwrap().name(), "v");
        assert_eq!(interface.security_group.unwrap().name(), "n");
        assert_eq!(interface.application_groups[0].name(), "web");

        let set = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/set/virtualMachines/0/networkInterfaces/nic";
        let interface = arm.network_interface(&set.parse().unwrap()).await.unwrap();
        assert_eq!((interface.address, interface.subnet), (None, None));
        assert_eq!(
            script.paths(),
            [format!("{id}?api-version=2024-01-01"), format!("{set}?api-version=2018-10-01")]
        );
    }

    #[tokio::test]
    async fn a_subnet_has_one_prefix_or_several() {
        let check = async |properties: &str, prefixes: &[&str]| {
            let script =
                Script::start(vec![Reply::json(200, &format!(r#"{{"properties":{properties}}}"#))]).await;
            let id: ResourceId = format!("{BASE}/virtualNetworks/v/subnets/default").parse().unwrap();
            let subnet = script.arm().subnet(&id).await.unwrap();
            let found: Vec<_> = subnet.prefixes.iter().map(ToString::to_string).collect();
            assert_eq!(found, prefixes);
        };
        check(r#"{"addressPrefix":"10.0.1.0/26"}"#, &["10.0.1.0/26"]).await;
        check(r#"{"addressPrefixes":["10.0.1.0/26","fd00::/64"]}"#, &["10.0.1.0/26"]).await;
        check("{}", &[]).await;
    }

    #[tokio::test]
    async fn a_network_knows_its_peers() {
        let body = format!(
            r#"{{"properties":{{"virtualNetworkPeerings":[{{"name":"hub","properties":{{
                "remoteVirtualNetwork":{{"id":"{BASE}/virtualNetworks/HUB"}},"peeringState":"Disconnected"}}}},
                {{"properties":{{}}}}]}}}}"#
        );
        let script = Script::start(vec![Reply::json(200, &body)]).await;
        let id: ResourceId = format!("{BASE}/virtualNetworks/spoke").parse().unwrap();
        let network = script.arm().virtual_network(&id).await.unwrap();
        let peer = |name: &str| format!("{BASE}/virtualNetworks/{name}").parse().unwrap();
        assert_eq!(network.peering_with(&peer("hub")), Some("Disconnected"));
        assert_eq!(network.peering_with(&peer("other")), None);
    }
}
