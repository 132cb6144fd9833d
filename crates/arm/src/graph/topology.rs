//! What Resource Graph's rows say together: which network each VM and each Bastion host is in, and which networks are
//! peered. Pure functions over JSON; a row that cannot be read is left aside, as one that may not be read is. It leaves
//! out which of all that is meant (`locate`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use bastide_core::{BastionHost, ResourceId, Sku, TargetKind};
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::Value;

use crate::PowerState;

/// Bastion hosts, VMs, and the networks between them, as far as the caller may read them. Resource Graph is up to a
/// few minutes behind ARM: what hangs on an answer is asked of ARM again.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    pub(super) hosts: Vec<ListedHost>,
    pub(super) machines: Vec<ListedMachine>,
    /// Scale sets by their ids in lower case, and the networks of their instances.
    pub(super) scale_sets: Vec<(ResourceId, Vec<NetworkKey>)>,
    networks: Vec<(NetworkKey, Vec<Ipv4Net>)>,
    /// Each connected peering in both directions.
    peered: HashSet<(NetworkKey, NetworkKey)>,
}

/// A Bastion host as Resource Graph lists it.
#[derive(Debug, Clone)]
pub struct ListedHost {
    /// Its settings.
    pub description: BastionHost,
    /// The Azure region.
    pub location: String,
    /// Not known while it is being made.
    pub(super) network: Option<NetworkKey>,
}

/// A VM, or an instance of a scale set, as Resource Graph lists it.
#[derive(Debug, Clone)]
pub struct ListedMachine {
    /// Its id.
    pub id: ResourceId,
    /// Whether it runs.
    pub power: PowerState,
    /// The Azure region.
    pub location: String,
    /// Its private addresses, the first interface's first.
    pub addresses: Vec<Ipv4Addr>,
    pub(super) networks: Vec<NetworkKey>,
}

/// The id of a virtual network in lower case.
pub(super) type NetworkKey = String;

impl Topology {
    /// Joins rows.
    pub(crate) fn new(rows: impl IntoIterator<Item = Value>) -> Self {
        let mut topology = Topology::default();
        let mut interfaces: BTreeMap<String, Interfaces> = BTreeMap::new();
        for row in rows {
            let row: Row = match serde_json::from_value(row) {
                Ok(row) => row,
                Err(error) => {
                    tracing::debug!(%error, "a row of Resource Graph cannot be read");
                    continue;
                }
            };
            let Ok(id) = ResourceId::parse(&row.id) else { continue };
            match row.kind.to_ascii_lowercase().as_str() {
                "microsoft.network/bastionhosts" if id.kind() == TargetKind::BastionHost => {
                    topology.hosts.push(row.host(id));
                }
                "microsoft.network/virtualnetworks" => topology.add_network(&row),
                "microsoft.compute/virtualmachines"
                | "microsoft.compute/virtualmachinescalesets/virtualmachines"
                    if is_machine(&id) =>
                {
                    topology.machines.push(row.machine(id));
                }
                "microsoft.compute/virtualmachinescalesets" => {
                    let profiles = row.interfaces.iter().flatten().filter_map(|one| one.properties.as_ref());
                    let networks = profiles.flat_map(|one| networks(one.ip_configurations.as_deref()));
                    topology.scale_sets.push((id, networks.collect()));
                }
                "microsoft.network/networkinterfaces"
                | "microsoft.compute/virtualmachinescalesets/virtualmachines/networkinterfaces" => {
                    let Some(machine) = row.owner() else { continue };
                    let own = interfaces.entry(machine.to_ascii_lowercase()).or_default();
                    own.machine = machine;
                    own.addresses
                        .extend(row.ip_configurations.iter().flatten().filter_map(IpConfiguration::address));
                    own.networks.extend(networks(row.ip_configurations.as_deref()));
                }
                _ => {}
            }
        }
        topology.attach(interfaces);
        topology
    }

    /// Gives VMs their interfaces. A VM that was asked for by its id has no row of its own.
    fn attach(&mut self, interfaces: BTreeMap<String, Interfaces>) {
        let known: HashMap<String, usize> = self
            .machines
            .iter()
            .enumerate()
            .map(|(at, one)| (one.id.as_str().to_ascii_lowercase(), at))
            .collect();
        for (key, Interfaces { machine, addresses, networks }) in interfaces {
            match (known.get(&key).and_then(|at| self.machines.get_mut(*at)), ResourceId::parse(&machine)) {
                (Some(machine), _) => (machine.addresses, machine.networks) = (addresses, networks),
                (None, Ok(id)) if is_machine(&id) => self.machines.push(ListedMachine {
                    id,
                    power: PowerState::Unknown,
                    location: String::new(),
                    addresses,
                    networks,
                }),
                (None, _) => {}
            }
        }
    }

    fn add_network(&mut self, row: &Row) {
        let key = row.id.to_ascii_lowercase();
        for peering in row.peerings.iter().flatten().filter_map(|one| one.properties.as_ref()) {
            let connected =
                peering.peering_state.as_deref().is_some_and(|state| state.eq_ignore_ascii_case("Connected"));
            if let (true, Some(remote)) = (connected, &peering.remote_virtual_network) {
                let remote = remote.id.to_ascii_lowercase();
                self.peered.insert((key.clone(), remote.clone()));
                self.peered.insert((remote, key.clone()));
            }
        }
        let prefixes = row.address_prefixes.iter().flatten().filter_map(|prefix| prefix.parse().ok());
        self.networks.push((key, prefixes.collect()));
    }

    /// All Bastion hosts.
    pub fn hosts(&self) -> &[ListedHost] {
        &self.hosts
    }

    /// All VMs and instances of scale sets.
    pub fn machines(&self) -> &[ListedMachine] {
        &self.machines
    }

    /// The Bastion hosts that reach a VM.
    pub fn hosts_of<'a>(&'a self, machine: &'a ListedMachine) -> impl Iterator<Item = &'a ListedHost> {
        self.hosts.iter().filter(|host| self.reaches(host, &machine.networks))
    }

    /// Whether a host is in one of these networks, or in one that is peered with it; Developer hosts do not see over
    /// the fence (learn.microsoft.com/azure/bastion/quickstart-developer-sku).
    pub(super) fn reaches(&self, host: &ListedHost, networks: &[NetworkKey]) -> bool {
        let Some(own) = &host.network else { return false };
        let is_neighbour = |network: &NetworkKey| {
            !host.description.sku.has_data_pod() && self.peered.contains(&(own.clone(), network.clone()))
        };
        networks.iter().any(|network| network == own || is_neighbour(network))
    }

    /// The networks that an address may be in: where a VM has it, or else where one could. Networks that are not
    /// connected may hold the same addresses.
    pub(super) fn networks_of(&self, address: Ipv4Addr) -> Vec<NetworkKey> {
        let owners = self.machines.iter().filter(|machine| machine.addresses.contains(&address));
        let taken: Vec<NetworkKey> = owners.flat_map(|machine| machine.networks.clone()).collect();
        if !taken.is_empty() {
            return taken;
        }
        let holding =
            self.networks.iter().filter(|(_, prefixes)| prefixes.iter().any(|one| one.contains(&address)));
        holding.map(|(key, _)| key.clone()).collect()
    }
}

/// Whether it is the id of a VM, or of an instance of a scale set.
pub(super) fn is_machine(id: &ResourceId) -> bool {
    matches!(id.kind(), TargetKind::VirtualMachine | TargetKind::ScaleSetInstance)
}

/// The network interfaces of one VM together.
#[derive(Default)]
struct Interfaces {
    /// The VM's id.
    machine: String,
    addresses: Vec<Ipv4Addr>,
    networks: Vec<NetworkKey>,
}

/// A row, with the columns of `query`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    location: Option<String>,
    sku: Option<SkuName>,
    machine: Option<String>,
    ip_configurations: Option<Vec<IpConfiguration>>,
    virtual_network: Option<String>,
    peerings: Option<Vec<Peering>>,
    address_prefixes: Option<Vec<String>>,
    interfaces: Option<Vec<Interface>>,
    power: Option<String>,
    dns_name: Option<String>,
    enable_tunneling: Option<bool>,
    enable_ip_connect: Option<bool>,
    enable_session_recording: Option<bool>,
    provisioning_state: Option<String>,
}

#[derive(Deserialize)]
struct SkuName {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Reference {
    id: String,
}

/// Of an interface or of a Bastion host.
#[derive(Deserialize)]
struct IpConfiguration {
    properties: Option<IpProperties>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IpProperties {
    subnet: Option<Reference>,
    #[serde(rename = "privateIPAddress")]
    private_ip_address: Option<String>,
}

#[derive(Deserialize)]
struct Peering {
    properties: Option<PeeringProperties>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeeringProperties {
    peering_state: Option<String>,
    remote_virtual_network: Option<Reference>,
}

/// What a scale set gives each of its instances.
#[derive(Deserialize)]
struct Interface {
    properties: Option<InterfaceProperties>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InterfaceProperties {
    ip_configurations: Option<Vec<IpConfiguration>>,
}

impl Row {
    fn host(self, id: ResourceId) -> ListedHost {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let network = networks(self.ip_configurations.as_deref()).next();
        ListedHost {
            network: network.or_else(|| given(self.virtual_network).map(|id| id.to_ascii_lowercase())),
            location: word(self.location),
            description: BastionHost {
                id,
                dns_name: given(self.dns_name),
                sku: self
                    .sku
                    .and_then(|sku| sku.name)
                    .map_or(Sku::Basic, |name| Sku::named(&word(Some(name)))),
                tunneling: self.enable_tunneling,
                ip_connect: self.enable_ip_connect.unwrap_or(false),
                session_recording: self.enable_session_recording.unwrap_or(false),
                provisioning_state: given(Some(word(self.provisioning_state))),
                // Asked of ARM itself, where it matters.
                scale_units: None,
                subnet: None,
            },
        }
    }

    fn machine(self, id: ResourceId) -> ListedMachine {
        ListedMachine {
            id,
            power: PowerState::of_code(&word(self.power)),
            location: word(self.location),
            addresses: Vec::new(),
            networks: Vec::new(),
        }
    }

    /// The id of the VM that an interface belongs to: for an instance of a scale set the id above its own.
    fn owner(&self) -> Option<String> {
        let named = self.machine.as_deref().filter(|id| !id.is_empty());
        let above =
            || self.id.to_ascii_lowercase().find("/networkinterfaces/").and_then(|at| self.id.get(..at));
        let above = || above().filter(|id| id.to_ascii_lowercase().contains("/virtualmachines/"));
        named.or_else(above).map(str::to_owned)
    }
}

impl IpConfiguration {
    fn address(&self) -> Option<Ipv4Addr> {
        self.properties.as_ref()?.private_ip_address.as_deref()?.parse().ok()
    }
}

/// One of Azure's own words, which are shown on terminals.
fn word(text: Option<String>) -> String {
    let text = text.unwrap_or_default();
    text.chars().filter(|letter| !letter.is_control()).take(LONGEST_WORD).collect()
}

/// Regions, SKUs and states have half of that.
const LONGEST_WORD: usize = 64;

/// The networks of subnets: what stands before `/subnets/`.
fn networks(configurations: Option<&[IpConfiguration]>) -> impl Iterator<Item = NetworkKey> {
    configurations.unwrap_or_default().iter().filter_map(|one| {
        let subnet = one.properties.as_ref()?.subnet.as_ref()?.id.to_ascii_lowercase();
        let (network, _) = subnet.split_once("/subnets/")?;
        Some(network.to_owned())
    })
}
