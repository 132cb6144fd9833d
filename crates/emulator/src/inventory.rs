//! The scenario as Azure has it: resource ids, ARM documents, who may do what, which machine an
//! address leads to. Fixed once the emulator runs. HTTP and tokens are elsewhere.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::networks::Network;
use crate::principals::{Keys, Principal};
use crate::scenario::{
    Application, BastionHost, Os, Place, Ports, Power, Scenario, Service, Subscription, Tenant, Tunneling,
    network_id,
};
use crate::security::Guard;

/// Everything that can be looked up.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// Tenants.
    pub(crate) tenants: Vec<Tenant>,
    /// Subscriptions, their `tenant` replaced by the tenant's id.
    pub(crate) subscriptions: Vec<Subscription>,
    /// Public clients.
    pub(crate) applications: Vec<Application>,
    /// Who can sign in, credentials filled in.
    pub(crate) principals: Vec<Principal>,
    /// What ARM lists and gets.
    pub(crate) resources: Vec<Resource>,
    /// Bastion hosts.
    pub(crate) hosts: Vec<Host>,
    /// Virtual machines and scale-set instances.
    pub(crate) machines: Vec<Machine>,
    /// Virtual networks.
    pub(crate) networks: Vec<Network>,
    /// Network security groups.
    pub(crate) guards: Vec<Guard>,
}

/// An ARM resource: what a GET on its id answers.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) id: String,
    pub(crate) document: Value,
    /// Of machines: what `/instanceView` answers and `$expand=instanceView` adds.
    pub(crate) instance_view: Option<Value>,
}

/// A Bastion host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: String,
    pub(crate) settings: BastionHost,
    /// Tenant id of its subscription.
    pub(crate) tenant: String,
    pub(crate) vnet_id: String,
    /// Host name of the data plane, without port.
    pub(crate) dns_name: String,
    /// Host name of the data pod of a Developer or QuickConnect host.
    pub(crate) pod_name: Option<String>,
    /// `…/providers/Microsoft.Network/bh-hostConnect/`: what targets by IP address start with (protocol.md §2).
    pub(crate) host_connect: String,
}

/// A machine that can be a target.
#[derive(Debug)]
pub(crate) struct Machine {
    /// `web-01`, `workers_0`: what its home and host key are named by.
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) nic_id: String,
    pub(crate) private_ip: Ipv4Addr,
    pub(crate) vnet_id: String,
    pub(crate) subnet: String,
    pub(crate) power: Power,
    pub(crate) ports: Ports,
    /// Whether users of Entra ID can sign in by SSH.
    pub(crate) aad_login: bool,
}

impl Machine {
    /// What answers on a port: nothing when the machine is off or the port is not named.
    pub(crate) fn service(&self, port: u16) -> Option<Service> {
        match self.power {
            Power::Running => self.ports.get(&port).copied(),
            Power::Deallocated | Power::Stopped | Power::Starting => None,
        }
    }
}

impl Inventory {
    /// `port` is the emulator's own, which is part of the names in `dnsName`; `keys` stand in
    /// where the scenario has none.
    pub(crate) fn new(scenario: &Scenario, port: u16, keys: &Keys) -> Inventory {
        let tenant_id = |named: &str| match scenario.tenant(named) {
            Some(tenant) => tenant.id.clone(),
            None => named.to_owned(),
        };
        let mut inventory = Inventory {
            tenants: scenario.tenants.clone(),
            subscriptions: scenario
                .subscriptions
                .iter()
                .map(|one| Subscription { tenant: tenant_id(&one.tenant), ..one.clone() })
                .collect(),
            applications: scenario.applications.clone(),
            principals: crate::principals::all(scenario, keys),
            resources: Vec::new(),
            hosts: Vec::new(),
            machines: Vec::new(),
            networks: Vec::new(),
            guards: Vec::new(),
        };
        inventory.add_networks(scenario);
        for host in &scenario.bastion_hosts {
            let Some(subscription) = scenario.subscription(&host.place) else { continue };
            inventory.add_host(host, &subscription.id, tenant_id(&subscription.tenant), port);
        }
        for vm in &scenario.virtual_machines {
            let Some(subscription) = scenario.subscription(&vm.place) else { continue };
            let group = group_id(&subscription.id, &vm.place);
            let id = format!("{group}/providers/{VIRTUAL_MACHINES}/{}", vm.name);
            let nic_id = format!("{group}/providers/{NICS}/{}-nic", vm.name);
            let document = json!({
                "name": vm.name, "id": id, "type": VIRTUAL_MACHINES, "location": vm.place.location,
                "properties": machine_properties(&vm.name, vm.os, &nic_id, &id),
            });
            inventory.add_machine(
                Machine {
                    name: vm.name.clone(),
                    id,
                    nic_id,
                    private_ip: vm.private_ip,
                    vnet_id: network_id(&subscription.id, &vm.place, &vm.place.vnet),
                    subnet: vm.subnet.clone(),
                    power: vm.power,
                    ports: vm.ports.clone(),
                    aad_login: vm.aad_login,
                },
                document,
                &vm.place,
                vm.os,
            );
        }
        for set in &scenario.scale_sets {
            let Some(subscription) = scenario.subscription(&set.place) else { continue };
            let group = group_id(&subscription.id, &set.place);
            let set_id = format!("{group}/providers/{SCALE_SETS}/{}", set.name);
            inventory.resources.push(Resource {
                document: json!({
                    "name": set.name, "id": set_id, "type": SCALE_SETS, "location": set.place.location,
                    "sku": {"name": "Standard_B2s", "tier": "Standard", "capacity": set.instances.len()},
                    "properties": {
                        "orchestrationMode": "Uniform", "provisioningState": "Succeeded",
                        "virtualMachineProfile": {"networkProfile": {"networkInterfaceConfigurations": [{
                            "name": format!("{}-nic", set.name),
                            "properties": {"primary": true, "ipConfigurations": [{
                                "name": "ipconfig1",
                                "properties": {"subnet": {"id": format!(
                                    "{}/subnets/{}",
                                    network_id(&subscription.id, &set.place, &set.place.vnet), set.subnet
                                )}},
                            }]},
                        }]}},
                    },
                }),
                id: set_id.clone(),
                instance_view: None,
            });
            for instance in &set.instances {
                let id = format!("{set_id}/virtualMachines/{}", instance.id);
                let nic_id = format!("{id}/networkInterfaces/{}-nic", set.name);
                let name = format!("{}_{}", set.name, instance.id);
                let document = json!({
                    "name": name, "id": id, "type": SCALE_SET_MACHINES, "location": set.place.location,
                    "instanceId": instance.id.to_string(),
                    "properties": machine_properties(&name, set.os, &nic_id, &id),
                });
                inventory.add_machine(
                    Machine {
                        name,
                        id,
                        nic_id,
                        private_ip: instance.private_ip,
                        vnet_id: network_id(&subscription.id, &set.place, &set.place.vnet),
                        subnet: set.subnet.clone(),
                        power: instance.power,
                        ports: set.ports.clone(),
                        aad_login: set.aad_login,
                    },
                    document,
                    &set.place,
                    set.os,
                );
            }
        }
        inventory.add_security_groups(scenario);
        inventory
    }

    fn add_host(&mut self, host: &BastionHost, subscription: &str, tenant: String, port: u16) {
        let group = group_id(subscription, &host.place);
        let id = format!("{group}/providers/{BASTION_HOSTS}/{}", host.name);
        let digest = digest(&id.to_ascii_lowercase());
        let dns_name = host.dns_name.clone().unwrap_or_else(|| format!("bst-{digest:08x}.bastion.localhost"));
        let vnet = network_id(subscription, &host.place, &host.place.vnet);
        let mut properties = json!({
            "provisioningState": host.provisioning_state,
            "dnsName": format!("{dns_name}:{port}"),
            "scaleUnits": host.scale_units,
            "disableCopyPaste": !host.copy_paste,
            "enableIpConnect": host.ip_connect,
            "enableShareableLink": false,
            "enableSessionRecording": host.session_recording,
        });
        let fields = properties.as_object_mut();
        if let Some(fields) = fields {
            match host.tunneling {
                Tunneling::On => fields.insert("enableTunneling".into(), true.into()),
                Tunneling::Off => fields.insert("enableTunneling".into(), false.into()),
                Tunneling::Missing => None,
            };
            if host.sku.has_data_pod() {
                fields.insert("virtualNetwork".into(), json!({"id": vnet}));
            } else {
                let configuration = json!([{
                    "name": "IpConf", "id": format!("{id}/bastionHostIpConfigurations/IpConf"),
                    "type": "Microsoft.Network/bastionHosts/bastionHostIpConfigurations",
                    "properties": {
                        "provisioningState": "Succeeded", "privateIPAllocationMethod": "Dynamic",
                        "publicIPAddress": {"id": format!("{group}/providers/Microsoft.Network/publicIPAddresses/{}-ip", host.name)},
                        "subnet": {"id": format!("{vnet}/subnets/AzureBastionSubnet")},
                    },
                }]);
                fields.insert("ipConfigurations".into(), configuration);
            }
        }
        self.resources.push(Resource {
            id: id.clone(),
            document: json!({
                "name": host.name, "id": id, "type": BASTION_HOSTS, "location": host.place.location,
                "etag": format!("W/\"{digest:08x}\""),
                "sku": {"name": format!("{:?}", host.sku)}, "properties": properties,
            }),
            instance_view: None,
        });
        self.hosts.push(Host {
            pod_name: host.sku.has_data_pod().then(|| format!("pod-{digest:08x}.bastion.localhost")),
            host_connect: format!("{group}/providers/Microsoft.Network/bh-hostConnect/"),
            settings: host.clone(),
            id,
            tenant,
            vnet_id: vnet,
            dns_name,
        });
    }

    fn add_machine(&mut self, machine: Machine, document: Value, place: &Place, os: Os) {
        let nic_name = machine.nic_id.rsplit('/').next().unwrap_or_default();
        self.resources.push(Resource {
            id: machine.nic_id.clone(),
            document: json!({
                "name": nic_name, "id": machine.nic_id, "type": NICS, "location": place.location,
                "properties": {
                    "provisioningState": "Succeeded", "primary": true,
                    "virtualMachine": {"id": machine.id},
                    "ipConfigurations": [{
                        "name": "ipconfig1", "id": format!("{}/ipConfigurations/ipconfig1", machine.nic_id),
                        "properties": {
                            "provisioningState": "Succeeded", "primary": true,
                            "privateIPAddress": machine.private_ip.to_string(),
                            "privateIPAddressVersion": "IPv4", "privateIPAllocationMethod": "Dynamic",
                            "subnet": {"id": format!("{}/subnets/{}", machine.vnet_id, machine.subnet)},
                        },
                    }],
                },
            }),
            instance_view: None,
        });
        self.resources.push(Resource {
            id: machine.id.clone(),
            document,
            instance_view: Some(instance_view(&machine.name, os, machine.power)),
        });
        self.machines.push(machine);
    }

    /// The resource with this id.
    pub(crate) fn resource(&self, id: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.id.eq_ignore_ascii_case(id))
    }

    /// The machine with this id.
    pub(crate) fn machine(&self, id: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.id.eq_ignore_ascii_case(id))
    }

    /// The machine with this address in a network that a Bastion host reaches, as IP connect finds it: its own
    /// network first.
    pub(crate) fn machine_at(&self, host: &Host, address: Ipv4Addr) -> Option<&Machine> {
        let here = self.machines.iter().filter(|machine| machine.private_ip == address);
        let own = here.clone().find(|machine| machine.vnet_id.eq_ignore_ascii_case(&host.vnet_id));
        own.or_else(|| here.clone().find(|machine| self.serves(host, machine)))
    }

    /// Whether a Bastion host reaches a machine: in its own network, or in a peered one unless it is shared with
    /// others (protocol.md §5: Developer).
    pub(crate) fn serves(&self, host: &Host, machine: &Machine) -> bool {
        match host.settings.sku.has_data_pod() {
            true => host.vnet_id.eq_ignore_ascii_case(&machine.vnet_id),
            false => self.reaches(&host.vnet_id, &machine.vnet_id),
        }
    }

    /// The subscription with this id.
    pub(crate) fn subscription(&self, id: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|one| one.id.eq_ignore_ascii_case(id))
    }

    /// The tenant with this id or domain.
    pub(crate) fn tenant(&self, named: &str) -> Option<&Tenant> {
        self.tenants
            .iter()
            .find(|tenant| tenant.id.eq_ignore_ascii_case(named) || tenant.domain.eq_ignore_ascii_case(named))
    }

    /// Resource groups of a subscription: those that hold something.
    pub(crate) fn groups(&self, subscription: &str) -> Vec<String> {
        let mut groups: Vec<String> = Vec::new();
        for resource in
            self.resources.iter().filter(|one| is_below(&one.id, &format!("/subscriptions/{subscription}")))
        {
            if let Some(group) = resource.id.split('/').nth(4)
                && !groups.iter().any(|known| known.eq_ignore_ascii_case(group))
            {
                groups.push(group.to_owned());
            }
        }
        groups
    }
}

/// Kinds of resources, as ARM spells them.
const BASTION_HOSTS: &str = "Microsoft.Network/bastionHosts";
const NICS: &str = "Microsoft.Network/networkInterfaces";
const VIRTUAL_MACHINES: &str = "Microsoft.Compute/virtualMachines";
const SCALE_SETS: &str = "Microsoft.Compute/virtualMachineScaleSets";
const SCALE_SET_MACHINES: &str = "Microsoft.Compute/virtualMachineScaleSets/virtualMachines";

/// Whether a resource is the scope or below it, by whole segments and in any case.
pub(crate) fn is_below(id: &str, scope: &str) -> bool {
    let scope = scope.trim_end_matches('/');
    match id.get(..scope.len()) {
        Some(head) => {
            head.eq_ignore_ascii_case(scope) && matches!(id.as_bytes().get(scope.len()), None | Some(b'/'))
        }
        None => false,
    }
}

/// The resource type in an id: what actions on it start with.
pub(crate) fn kind_of(id: &str) -> String {
    let after = id.rsplit("/providers/").next().unwrap_or_default();
    let mut segments = after.split('/');
    let mut kind = segments.next().unwrap_or_default().to_owned();
    for segment in segments.step_by(2) {
        kind.push('/');
        kind.push_str(segment);
    }
    kind
}

/// Azure's action patterns: `*` stands for anything, case does not matter.
pub(crate) fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = action.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    match last {
        None => rest.is_empty(),
        Some(tail) => action.ends_with(tail),
    }
}

fn group_id(subscription: &str, place: &Place) -> String {
    format!("/subscriptions/{subscription}/resourceGroups/{}", place.group)
}

fn machine_properties(name: &str, os: Os, nic_id: &str, id: &str) -> Value {
    let mut profile = json!({"computerName": name, "adminUsername": "azureuser", "secrets": []});
    if let Some(profile) = profile.as_object_mut() {
        match os {
            Os::Linux => {
                profile.insert("linuxConfiguration".into(), json!({"disablePasswordAuthentication": false}))
            }
            Os::Windows => profile.insert("windowsConfiguration".into(), json!({"provisionVMAgent": true})),
        };
    }
    json!({
        "vmId": uuid_like(id),
        "provisioningState": "Succeeded",
        "hardwareProfile": {"vmSize": "Standard_B2s"},
        "storageProfile": {"osDisk": {"osType": format!("{os:?}"), "createOption": "FromImage", "name": format!("{name}-disk")}},
        "osProfile": profile,
        "networkProfile": {"networkInterfaces": [{"id": nic_id, "properties": {"primary": true}}]},
    })
}

fn instance_view(name: &str, os: Os, power: Power) -> Value {
    let power = match power {
        Power::Running => ("PowerState/running", "VM running"),
        Power::Deallocated => ("PowerState/deallocated", "VM deallocated"),
        Power::Stopped => ("PowerState/stopped", "VM stopped"),
        Power::Starting => ("PowerState/starting", "VM starting"),
    };
    json!({
        "computerName": name,
        "osName": match os { Os::Linux => "debian", Os::Windows => "Windows Server 2025 Datacenter" },
        "statuses": [
            {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded"},
            {"code": power.0, "level": "Info", "displayStatus": power.1},
        ],
    })
}

/// FNV-1a, 32 bits: names and ids that stay the same from run to run.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

pub(crate) fn uuid_like(id: &str) -> String {
    let part = |salt: &str| digest(&format!("{salt}{}", id.to_ascii_lowercase()));
    let (b, c) = (part("b"), part("c"));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:04x}{:08x}",
        part("a"),
        b >> 16,
        b & 0xfff,
        c & 0xfff,
        c >> 16,
        part("d")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_patterns() {
        assert!(matches("*/read", "Microsoft.Network/bastionHosts/read"));
        assert!(matches("*", "Microsoft.Network/bastionHosts/write"));
        assert!(matches("Microsoft.Network/*/read", "microsoft.network/networkInterfaces/READ"));
        assert!(!matches("*/read", "Microsoft.Network/bastionHosts/write"));
        assert!(!matches("Microsoft.Network/read", "Microsoft.Network/bastionHosts/read"));
        assert!(!matches("*/read", "Microsoft.Compute/read/readers"));
    }

    #[test]
    fn kinds_of_ids() {
        let vm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-01";
        assert_eq!(kind_of(vm), VIRTUAL_MACHINES);
        let set = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/w";
        assert_eq!(kind_of(&format!("{set}/virtualMachines/0")), SCALE_SET_MACHINES);
    }

    #[test]
    fn scopes_end_at_segments() {
        assert!(is_below("/subscriptions/a/resourceGroups/demo", "/SUBSCRIPTIONS/a"));
        assert!(is_below("/subscriptions/a", "/"));
        assert!(!is_below("/subscriptions/ab", "/subscriptions/a"));
        assert!(!is_below("/subscriptions/a", "/subscriptions/a/resourceGroups/demo"));
    }

    #[test]
    fn addresses_are_looked_up_in_the_network_of_the_host() {
        let keys = Keys {
            client_secret: "x".into(),
            certificate: String::new(),
            url: "https://localhost:443".into(),
        };
        let inventory = Inventory::new(&Scenario::default(), 443, &keys);
        let host = &inventory.hosts[0];
        assert_eq!(host.dns_name, "localhost");
        assert_eq!(inventory.machine_at(host, Ipv4Addr::new(10, 0, 0, 4)).unwrap().name, "web-01");
        assert!(inventory.machine_at(host, Ipv4Addr::new(10, 9, 9, 9)).is_none());
        let off = inventory.machines.iter().find(|machine| machine.name == "off-01").unwrap();
        assert_eq!(off.service(22), None);
    }
}
