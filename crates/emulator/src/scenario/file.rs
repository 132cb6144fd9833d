//! The tables of a scenario file as they stand in it, where everything with a default may be left
//! out. What they mean is `mod.rs`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::{
    Application, BastionHost, Instance, KeyVault, ManagedIdentity, NetworkSecurityGroup, Os, Place, Ports,
    Power, ScaleSet, Scenario, Service, ServicePrincipal, Settings, SignInSettings, Sku, Subscription,
    Tenant, Tunneling, User, VirtualMachine, VirtualNetwork,
};
use crate::faults::Order;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sections {
    settings: Option<Settings>,
    sign_in: Option<SignInSettings>,
    tenants: Option<Vec<Tenant>>,
    subscriptions: Option<Vec<Subscription>>,
    users: Option<Vec<User>>,
    applications: Option<Vec<Application>>,
    service_principals: Option<Vec<ServicePrincipal>>,
    managed_identities: Option<Vec<ManagedIdentity>>,
    virtual_networks: Option<Vec<VirtualNetwork>>,
    #[serde(default)]
    network_security_groups: Vec<NetworkSecurityGroup>,
    bastion_hosts: Option<Vec<BastionHost>>,
    virtual_machines: Option<Vec<VirtualMachine>>,
    scale_sets: Option<Vec<ScaleSet>>,
    key_vaults: Option<Vec<KeyVault>>,
    #[serde(default)]
    faults: Vec<Order>,
}

impl From<Sections> for Scenario {
    /// EXAMPLE has every section, so that reading it never comes back here for a default. Of those who sign in by
    /// default, the ones of a tenant that the file leaves out stay away.
    fn from(file: Sections) -> Scenario {
        let tenants = file.tenants.unwrap_or_else(|| Scenario::default().tenants);
        let is_here = |wanted: &str| tenants.iter().any(|tenant| tenant.is(wanted));
        let users = || Scenario::default().users.into_iter().filter(|user| is_here(&user.tenant)).collect();
        let identities = || {
            let all = Scenario::default().managed_identities.into_iter();
            all.filter(|identity| is_here(&identity.tenant)).collect()
        };
        Scenario {
            settings: file.settings.unwrap_or_default(),
            sign_in: file.sign_in.unwrap_or_default(),
            users: file.users.unwrap_or_else(users),
            applications: file.applications.unwrap_or_else(|| Scenario::default().applications),
            managed_identities: file.managed_identities.unwrap_or_else(identities),
            subscriptions: file.subscriptions.unwrap_or_else(|| Scenario::default().subscriptions),
            service_principals: file
                .service_principals
                .unwrap_or_else(|| Scenario::default().service_principals),
            virtual_networks: file.virtual_networks.unwrap_or_else(|| Scenario::default().virtual_networks),
            network_security_groups: file.network_security_groups,
            bastion_hosts: file.bastion_hosts.unwrap_or_else(|| Scenario::default().bastion_hosts),
            virtual_machines: file.virtual_machines.unwrap_or_else(|| Scenario::default().virtual_machines),
            scale_sets: file.scale_sets.unwrap_or_else(|| Scenario::default().scale_sets),
            key_vaults: file.key_vaults.unwrap_or_else(|| Scenario::default().key_vaults),
            faults: file.faults,
            tenants,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BastionHostTable {
    name: String,
    group: Option<String>,
    subscription: Option<String>,
    location: Option<String>,
    vnet: Option<String>,
    sku: Option<Sku>,
    tunneling: Option<Tunneling>,
    ip_connect: Option<bool>,
    session_recording: Option<bool>,
    copy_paste: Option<bool>,
    scale_units: Option<u32>,
    provisioning_state: Option<String>,
    dns_name: Option<String>,
}

impl From<BastionHostTable> for BastionHost {
    fn from(table: BastionHostTable) -> BastionHost {
        BastionHost {
            name: table.name,
            place: Place::new(table.group, table.subscription, table.location, table.vnet),
            sku: table.sku.unwrap_or_default(),
            tunneling: table.tunneling.unwrap_or(Tunneling::On),
            ip_connect: table.ip_connect.unwrap_or(true),
            session_recording: table.session_recording.unwrap_or(false),
            copy_paste: table.copy_paste.unwrap_or(true),
            scale_units: table.scale_units.unwrap_or(2),
            provisioning_state: table.provisioning_state.unwrap_or_else(|| "Succeeded".into()),
            dns_name: table.dns_name.map(|name| name.to_ascii_lowercase()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VirtualMachineTable {
    name: String,
    group: Option<String>,
    subscription: Option<String>,
    location: Option<String>,
    vnet: Option<String>,
    #[serde(default)]
    os: Os,
    #[serde(default)]
    power: Power,
    private_ip: Ipv4Addr,
    subnet: Option<String>,
    #[serde(default, deserialize_with = "ports")]
    ports: Ports,
    aad_login: Option<bool>,
}

impl From<VirtualMachineTable> for VirtualMachine {
    fn from(table: VirtualMachineTable) -> VirtualMachine {
        VirtualMachine {
            name: table.name,
            place: Place::new(table.group, table.subscription, table.location, table.vnet),
            os: table.os,
            power: table.power,
            private_ip: table.private_ip,
            subnet: table.subnet.unwrap_or_else(|| "default".into()),
            ports: table.ports,
            aad_login: table.aad_login.unwrap_or(true),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScaleSetTable {
    name: String,
    group: Option<String>,
    subscription: Option<String>,
    location: Option<String>,
    vnet: Option<String>,
    #[serde(default)]
    os: Os,
    instances: Vec<Instance>,
    subnet: Option<String>,
    #[serde(default, deserialize_with = "ports")]
    ports: Ports,
    aad_login: Option<bool>,
}

impl From<ScaleSetTable> for ScaleSet {
    fn from(table: ScaleSetTable) -> ScaleSet {
        ScaleSet {
            name: table.name,
            place: Place::new(table.group, table.subscription, table.location, table.vnet),
            os: table.os,
            instances: table.instances,
            subnet: table.subnet.unwrap_or_else(|| "default".into()),
            ports: table.ports,
            aad_login: table.aad_login.unwrap_or(true),
        }
    }
}

/// The keys of a TOML table are text.
fn ports<'de, D: Deserializer<'de>>(from: D) -> Result<Ports, D::Error> {
    let table = BTreeMap::<String, Service>::deserialize(from)?;
    let port = |text: String| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(de::Error::custom(format!("`{text}` is not a port"))),
    };
    table.into_iter().map(|(text, service)| Ok((port(text)?, service))).collect()
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false or \"missing\"")]
pub(super) enum TunnelingText {
    Flag(bool),
    Text(String),
}

impl TryFrom<TunnelingText> for Tunneling {
    type Error = String;

    fn try_from(text: TunnelingText) -> Result<Tunneling, String> {
        match text {
            TunnelingText::Flag(true) => Ok(Tunneling::On),
            TunnelingText::Flag(false) => Ok(Tunneling::Off),
            TunnelingText::Text(text) if text == "missing" => Ok(Tunneling::Missing),
            TunnelingText::Text(text) => Err(format!("`{text}`: expected true, false or \"missing\"")),
        }
    }
}

impl Place {
    pub(super) fn new(
        group: Option<String>,
        subscription: Option<String>,
        location: Option<String>,
        vnet: Option<String>,
    ) -> Place {
        Place {
            group: group.unwrap_or_else(|| "demo".into()),
            subscription,
            location: location.unwrap_or_else(|| "westeurope".into()),
            vnet: vnet.unwrap_or_else(|| "demo/demo-vnet".into()),
        }
    }
}
