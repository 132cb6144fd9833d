//! The scenario: what the emulated Azure holds, as a TOML file says it. Parsed and checked here;
//! `inventory.rs` turns it into Azure resources. How the tables of the file look is `file.rs`. No
//! secret that the file leaves out is made here.

mod entra;
mod file;
mod key_vault;
mod network;
mod security;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::faults::Order;

pub use entra::{
    Application, FederatedCredential, ManagedIdentity, Outcome, Refusal, Role, ServicePrincipal,
    SignInSettings, User,
};
pub use key_vault::{Access, AccessPolicy, Firewall, KeyKind, KeyVault, VaultKey, VaultSecret};
pub use network::{Peering, PeeringState, Subnet, VirtualNetwork};
pub(crate) use network::{VIRTUAL_NETWORKS, network_id};
pub use security::{Direction, NetworkSecurityGroup, RuleAccess, SecurityRule};

/// The documented default scenario, as `--print-scenario` shows it.
pub const EXAMPLE: &str = include_str!("../../scenario.example.toml");

/// Everything that the emulated Azure holds.
///
/// Read from TOML ([`Scenario::parse`], [`Scenario::read`]) or built in code from
/// [`Scenario::default`], which is [`EXAMPLE`]. [`crate::Emulator::start`] checks it in either case.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "file::Sections")]
pub struct Scenario {
    /// Figures that hold for the whole emulator.
    pub settings: Settings,
    /// How sign-in goes.
    pub sign_in: SignInSettings,
    /// Entra ID tenants.
    pub tenants: Vec<Tenant>,
    /// Subscriptions; the first one is the default of everything that names none.
    pub subscriptions: Vec<Subscription>,
    /// People.
    pub users: Vec<User>,
    /// Public clients.
    pub applications: Vec<Application>,
    /// Applications that can sign in.
    pub service_principals: Vec<ServicePrincipal>,
    /// Identities that a managed identity endpoint answers for.
    pub managed_identities: Vec<ManagedIdentity>,
    /// Virtual networks; those that are named and not described are there too.
    pub virtual_networks: Vec<VirtualNetwork>,
    /// Network security groups; none when left out.
    pub network_security_groups: Vec<NetworkSecurityGroup>,
    /// Bastion hosts.
    pub bastion_hosts: Vec<BastionHost>,
    /// Virtual machines.
    pub virtual_machines: Vec<VirtualMachine>,
    /// Scale sets.
    pub scale_sets: Vec<ScaleSet>,
    /// Key vaults.
    pub key_vaults: Vec<KeyVault>,
    /// Faults from the start; none when left out.
    pub faults: Vec<Order>,
}

impl Default for Scenario {
    #[expect(
        clippy::expect_used,
        reason = "EXAMPLE is part of the program; the test `example_is_whole` reads it"
    )]
    fn default() -> Scenario {
        toml::from_str(EXAMPLE).expect("the built-in scenario is valid")
    }
}

impl Scenario {
    /// Reads a scenario from TOML and checks it.
    ///
    /// # Errors
    /// [`Error::Syntax`] with line and column, [`Error::Meaning`] when parts don't fit together.
    pub fn parse(text: &str) -> Result<Scenario, Error> {
        let scenario: Scenario = toml::from_str(text).map_err(Box::new)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Reads a scenario from a TOML file and checks it.
    ///
    /// # Errors
    /// [`Error::File`], which names the file, around those of [`Scenario::parse`] and [`Error::Unreadable`].
    pub fn read(path: &Path) -> Result<Scenario, Error> {
        let scenario =
            std::fs::read_to_string(path).map_err(Error::from).and_then(|text| Scenario::parse(&text));
        scenario.map_err(|source| Error::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// Whether the parts fit together: names that are referred to exist, names that must be unique are.
    ///
    /// # Errors
    /// [`Error::Meaning`], which names the part.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Meaning(what));
        if self.tenants.is_empty() || self.subscriptions.is_empty() {
            return wrong("a scenario needs at least one tenant and one subscription".into());
        }
        if self.settings.page_size == 0 || self.settings.graph_page_size == 0 {
            return wrong("settings.page_size and graph_page_size must be at least 1".into());
        }
        if !(1..=MAX_FRAME_BYTES).contains(&self.settings.frame_bytes) {
            return wrong(format!("settings.frame_bytes must be between 1 and {MAX_FRAME_BYTES}"));
        }
        unique("tenant", self.tenants.iter().flat_map(|tenant| [&tenant.id, &tenant.domain]))?;
        unique("subscription", self.subscriptions.iter().flat_map(|one| [&one.id, &one.name]))?;
        for subscription in &self.subscriptions {
            self.known_tenant(&format!("subscription `{}`", subscription.name), &subscription.tenant)?;
        }
        let mut principals = Vec::new();
        for principal in &self.service_principals {
            self.known_tenant(&format!("service principal `{}`", principal.client_id), &principal.tenant)?;
            principals.push(format!("{} in {}", principal.client_id, principal.tenant));
        }
        unique("service principal", principals.iter())?;
        let (mut people, mut objects) = (Vec::new(), Vec::new());
        for user in &self.users {
            self.known_tenant(&format!("user `{}`", user.upn), &user.tenant)?;
            people.push(format!("{} in {}", user.upn, user.tenant));
            objects.push(format!("{} in {}", user.object_id, user.tenant));
        }
        unique("user", people.iter())?;
        for identity in &self.managed_identities {
            self.known_tenant(&format!("managed identity `{}`", identity.name), &identity.tenant)?;
            objects.push(format!("{} in {}", identity.object_id, identity.tenant));
        }
        unique("object id", objects.iter())?;
        unique("application", self.applications.iter().map(|one| &one.client_id))?;
        unique("managed identity", self.managed_identities.iter().map(|one| &one.name))?;
        if let Some(upn) = &self.sign_in.device_code_approved_by
            && !self.users.iter().any(|user| user.upn.eq_ignore_ascii_case(upn))
        {
            return wrong(format!("sign_in.device_code_approved_by: user `{upn}` is not in the scenario"));
        }
        if let Some(claims) = &self.sign_in.claims_challenge
            && serde_json::from_str::<serde_json::Value>(claims).is_err()
        {
            return wrong("sign_in.claims_challenge is not JSON".into());
        }
        let mut names = Vec::new();
        for network in &self.virtual_networks {
            self.known_place(&format!("virtual network `{}`", network.name), &network.place)?;
            names.push(place_name(&network.place, "virtualNetworks", &network.name));
            unique("subnet", network.subnets.iter().map(|subnet| &subnet.name))?;
        }
        self.check_networks()?;
        self.check_security_groups()?;
        for host in &self.bastion_hosts {
            let what = format!("Bastion host `{}`", host.name);
            self.known_place(&what, &host.place)?;
            if let Some(dns_name) = &host.dns_name
                && dns_name != "localhost"
                && !dns_name.ends_with(".localhost")
            {
                return wrong(format!(
                    "{what}: dns_name `{dns_name}` is neither localhost nor below .localhost"
                ));
            }
            names.push(place_name(&host.place, "bastionHosts", &host.name));
        }
        for machine in &self.virtual_machines {
            self.known_place(&format!("virtual machine `{}`", machine.name), &machine.place)?;
            names.push(place_name(&machine.place, "virtualMachines", &machine.name));
        }
        for set in &self.scale_sets {
            self.known_place(&format!("scale set `{}`", set.name), &set.place)?;
            names.push(place_name(&set.place, "virtualMachineScaleSets", &set.name));
            let ids: Vec<_> = set.instances.iter().map(|instance| instance.id.to_string()).collect();
            unique("scale-set instance", ids.iter())?;
        }
        for vault in &self.key_vaults {
            self.known_place(&format!("key vault `{}`", vault.name), &vault.place)?;
            // The documented pattern of a vault's name, of the names in it and of a version.
            check_name(&vault.name, 3..=24)?;
            let keys = vault.keys.iter().map(|key| (&key.name, &key.version));
            for (name, version) in keys.chain(vault.secrets.iter().map(|one| (&one.name, &one.version))) {
                check_name(name, 1..=127)?;
                if let Some(version) = version
                    && !(version.len() == 32 && version.bytes().all(|byte| byte.is_ascii_hexdigit()))
                {
                    return wrong(format!("`{version}` is not a version: 32 hexadecimal digits"));
                }
            }
        }
        unique("key vault", self.key_vaults.iter().map(|vault| &vault.name))?;
        for name in &names {
            let last = name.rsplit(' ').next().unwrap_or_default();
            // Azure's own limit on names, which also keeps them inside the state folder.
            if last.is_empty() || last.starts_with('.') || !last.bytes().all(is_of_a_name) {
                return wrong(format!("`{last}` is not a resource name: letters, digits, `-`, `_` and `.`"));
            }
        }
        unique("resource", names.iter())?;
        unique("dns_name", self.bastion_hosts.iter().filter_map(|host| host.dns_name.as_ref()))
    }

    /// Whether peerings lead to networks of the scenario, and machines are in subnets that their network has.
    fn check_networks(&self) -> Result<(), Error> {
        let networks = crate::networks::all(self);
        let find = |place: &Place, reference: &str| {
            let id = network_id(&self.subscription(place)?.id, place, reference);
            networks.iter().find(|(known, _)| known.eq_ignore_ascii_case(&id)).map(|(_, network)| network)
        };
        for network in &self.virtual_networks {
            for peering in &network.peerings {
                if find(&network.place, &peering.to).is_none() {
                    return Err(Error::Meaning(format!(
                        "virtual network `{}` is peered with `{}`, which is not in the scenario",
                        network.name, peering.to
                    )));
                }
            }
        }
        let machines = self.virtual_machines.iter().map(|one| (&one.name, &one.place, &one.subnet));
        let sets = self.scale_sets.iter().map(|one| (&one.name, &one.place, &one.subnet));
        for (name, place, subnet) in machines.chain(sets) {
            if let Some(network) = find(place, &place.vnet)
                && !network.subnets.iter().any(|known| known.name.eq_ignore_ascii_case(subnet))
            {
                return Err(Error::Meaning(format!(
                    "`{name}` is in subnet `{subnet}`, which virtual network `{}` does not have",
                    network.name
                )));
            }
        }
        Ok(())
    }

    fn known_tenant(&self, what: &str, wanted: &str) -> Result<(), Error> {
        match self.tenant(wanted) {
            Some(_) => Ok(()),
            None => {
                Err(Error::Meaning(format!("{what} is in tenant `{wanted}`, which is not in the scenario")))
            }
        }
    }

    fn known_place(&self, what: &str, place: &Place) -> Result<(), Error> {
        match self.subscription(place) {
            Some(_) => Ok(()),
            None => Err(Error::Meaning(format!(
                "{what} is in subscription `{}`, which is not in the scenario",
                place.subscription.as_deref().unwrap_or_default()
            ))),
        }
    }

    /// The tenant with this id or domain.
    pub(crate) fn tenant(&self, wanted: &str) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.is(wanted))
    }

    /// The subscription of a place: the named one, else the first.
    pub(crate) fn subscription(&self, place: &Place) -> Option<&Subscription> {
        match &place.subscription {
            None => self.subscriptions.first(),
            Some(wanted) => self
                .subscriptions
                .iter()
                .find(|one| one.id.eq_ignore_ascii_case(wanted) || one.name.eq_ignore_ascii_case(wanted)),
        }
    }
}

/// Figures that hold for the whole emulator.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Life of an access token in seconds. 3,599 is what Entra ID answers for a fresh token.
    pub token_lifetime_seconds: u32,
    /// Resources on one page of an ARM list. Small, so that every client meets `nextLink`.
    pub page_size: usize,
    /// Whether ARM has the sessions of a Bastion host at hand; the live service answers 202 and has them later.
    pub sessions_at_once: bool,
    /// Rows on one page of an answer of Resource Graph. 1,000 is the service's own limit.
    pub graph_page_size: usize,
    /// Largest payload of a frame towards the client, in bytes. 16 KiB is one TLS record.
    pub frame_bytes: usize,
    /// User of the built-in SSH servers.
    pub vm_username: String,
    /// Password of the built-in SSH servers; random when left out.
    pub vm_password: Option<Secret>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            token_lifetime_seconds: 3599,
            page_size: 2,
            sessions_at_once: false,
            graph_page_size: 1000,
            frame_bytes: 16 * 1024,
            vm_username: "azureuser".into(),
            vm_password: None,
        }
    }
}

/// An Entra ID tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Directory id, a GUID.
    pub id: String,
    /// Verified domain; works in place of the id wherever a tenant is named.
    pub domain: String,
    /// Name for people.
    #[serde(default)]
    pub display_name: String,
}

impl Tenant {
    /// Whether this is its id or domain.
    fn is(&self, wanted: &str) -> bool {
        self.id.eq_ignore_ascii_case(wanted) || self.domain.eq_ignore_ascii_case(wanted)
    }
}

/// A subscription.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Subscription id, a GUID.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Id or domain of its tenant.
    pub tenant: String,
}

/// Where a resource lives. Flattened into the tables of hosts, machines and scale sets.
#[derive(Clone, Debug)]
pub struct Place {
    /// Resource group.
    pub group: String,
    /// Subscription id or name; the first subscription when left out.
    pub subscription: Option<String>,
    /// Azure region.
    pub location: String,
    /// Virtual network: its name in the same group, `GROUP/NAME`, or its id.
    pub vnet: String,
}

/// Tier of a Bastion host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Sku {
    /// Portal only.
    Basic,
    /// With native client.
    #[default]
    Standard,
    /// With session recording and private-only deployment.
    Premium,
    /// Shared, free, through a data pod (protocol.md §5).
    Developer,
    /// As Developer.
    QuickConnect,
}

impl Sku {
    /// Whether connections go through a data pod: protocol.md §5.
    pub(crate) fn has_data_pod(self) -> bool {
        matches!(self, Sku::Developer | Sku::QuickConnect)
    }
}

/// The property `enableTunneling` of a Bastion host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "file::TunnelingText")]
pub enum Tunneling {
    /// `true`
    On,
    /// `false`
    Off,
    /// The property is not there, which counts as off.
    Missing,
}

/// A Bastion host.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "file::BastionHostTable")]
pub struct BastionHost {
    /// Resource name.
    pub name: String,
    /// Where it lives.
    pub place: Place,
    /// Tier.
    pub sku: Sku,
    /// `enableTunneling`.
    pub tunneling: Tunneling,
    /// `enableIpConnect`.
    pub ip_connect: bool,
    /// `enableSessionRecording`, which turns the native client off.
    pub session_recording: bool,
    /// The inverse of `disableCopyPaste`.
    pub copy_paste: bool,
    /// `scaleUnits`: instances.
    pub scale_units: u32,
    /// `provisioningState`.
    pub provisioning_state: String,
    /// Host name of its data plane without the port; one of its own below `bastion.localhost` when left out.
    pub dns_name: Option<String>,
}

/// Operating system of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Os {
    /// Linux
    #[default]
    Linux,
    /// Windows
    Windows,
}

/// Power state of a machine; only a running one can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// On.
    #[default]
    Running,
    /// Off and not billed.
    Deallocated,
    /// Off and billed.
    Stopped,
    /// On its way up.
    Starting,
}

/// What answers on each port of a machine.
pub type Ports = BTreeMap<u16, Service>;

/// A virtual machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "file::VirtualMachineTable")]
pub struct VirtualMachine {
    /// Resource name.
    pub name: String,
    /// Where it lives.
    pub place: Place,
    /// Operating system.
    pub os: Os,
    /// Power state.
    pub power: Power,
    /// Private address in its network.
    pub private_ip: Ipv4Addr,
    /// Subnet of its network.
    pub subnet: String,
    /// What answers on its ports.
    pub ports: Ports,
    /// Whether it has the extension that lets users of Entra ID sign in by SSH.
    pub aad_login: bool,
}

/// A scale set.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "file::ScaleSetTable")]
pub struct ScaleSet {
    /// Resource name.
    pub name: String,
    /// Where it lives.
    pub place: Place,
    /// Operating system.
    pub os: Os,
    /// Its machines.
    pub instances: Vec<Instance>,
    /// Subnet of its network.
    pub subnet: String,
    /// What answers on the ports of each instance.
    pub ports: Ports,
    /// As for a virtual machine.
    pub aad_login: bool,
}

/// A machine of a scale set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Instance id.
    pub id: u32,
    /// Private address.
    pub private_ip: Ipv4Addr,
    /// Power state.
    #[serde(default)]
    pub power: Power,
}

/// What answers on a port of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Service {
    /// The built-in SSH server.
    Ssh,
    /// Sends everything back.
    Echo,
    /// Takes everything, says nothing.
    Swallow,
    /// Sends the pattern of [`crate::pattern`], so many bytes or without end.
    Produce(Option<u64>),
    /// Accepts, then neither reads nor writes.
    Silent,
    /// Refuses the connection.
    Refuse,
    /// A real service on this machine.
    Address(SocketAddr),
}

impl TryFrom<String> for Service {
    type Error = String;

    fn try_from(text: String) -> Result<Service, String> {
        match text.as_str() {
            "ssh" => Ok(Service::Ssh),
            "echo" => Ok(Service::Echo),
            "swallow" => Ok(Service::Swallow),
            "produce" => Ok(Service::Produce(None)),
            "silent" => Ok(Service::Silent),
            "refuse" => Ok(Service::Refuse),
            other => {
                if let Some(bytes) = other.strip_prefix("produce:") {
                    return match bytes.parse() {
                        Ok(bytes) => Ok(Service::Produce(Some(bytes))),
                        Err(_) => Err(format!("`{bytes}` is not a number of bytes")),
                    };
                }
                match other.parse::<SocketAddr>() {
                    Ok(address) if address.ip().is_loopback() => Ok(Service::Address(address)),
                    Ok(address) => {
                        Err(format!("{address} is not on loopback: nothing may leave this machine"))
                    }
                    Err(_) => Err(format!(
                        "unknown service `{other}`: expected ssh, echo, swallow, produce, produce:BYTES, silent, refuse or 127.0.0.1:PORT"
                    )),
                }
            }
        }
    }
}

/// A text that is not for logs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that can't be used.
    #[error("using scenario {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<Error>,
    },
    /// The file could not be read.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    /// Not TOML, or not of a scenario's form; shows line and column.
    #[error(transparent)]
    Syntax(#[from] Box<toml::de::Error>),
    /// Parts that don't fit together.
    #[error("{0}")]
    Meaning(String),
}

/// More than any public client sends, little enough to keep per-connection memory small.
const MAX_FRAME_BYTES: usize = 1024 * 1024;

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn check_name(name: &str, length: std::ops::RangeInclusive<usize>) -> Result<(), Error> {
    match length.contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        true => Ok(()),
        false => Err(Error::Meaning(format!(
            "`{name}` is not a name in Key Vault: {} to {} letters, digits and `-`",
            length.start(),
            length.end()
        ))),
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(Error::Meaning(format!("{what} `{name}` is there twice")));
        }
    }
    Ok(())
}

fn place_name(place: &Place, kind: &str, name: &str) -> String {
    format!("{kind} {} {} {name}", place.subscription.as_deref().unwrap_or_default(), place.group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_is_whole() {
        let scenario = Scenario::parse(EXAMPLE).unwrap();
        assert_eq!(scenario.bastion_hosts.len(), 9);
        assert_eq!(scenario.virtual_machines[0].ports[&7], Service::Echo);
        for section in [
            "[settings]",
            "[sign_in]",
            "[[tenants]]",
            "[[subscriptions]]",
            "[[users]]",
            "[[applications]]",
            "[[service_principals]]",
            "[[managed_identities]]",
            "[[virtual_networks]]",
            "[[bastion_hosts]]",
            "[[virtual_machines]]",
            "[[scale_sets]]",
            "[[key_vaults]]",
        ] {
            assert!(EXAMPLE.contains(section), "{section}");
        }
    }

    #[test]
    fn sections_left_out_are_the_default_ones() {
        let scenario = Scenario::parse("[settings]\npage_size = 7\n").unwrap();
        assert_eq!(scenario.settings.page_size, 7);
        assert_eq!(scenario.settings.frame_bytes, 16 * 1024);
        assert_eq!(scenario.bastion_hosts.len(), 9);
        assert_eq!(scenario.faults, []);
        let faulty = Scenario::parse("[[faults]]\nfault = \"ping_reset\"\ntimes = 1\n").unwrap();
        assert_eq!(faulty.faults, [crate::faults::Fault::PingReset.times(1)]);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        #[track_caller]
        fn check(text: &str, expected: &[&str]) {
            let said = Scenario::parse(text).unwrap_err().to_string();
            for part in expected {
                assert!(said.contains(part), "`{part}` is not in: {said}");
            }
        }
        let vm = "[[virtual_machines]]\nname = \"x\"\nprivate_ip = \"10.0.0.9\"\n";
        check("[settings]\npage_sise = 3\n", &["line 2", "page_sise"]);
        check("[settings]\npage_size = 0\n", &["page_size", "must be at least 1"]);
        check("[[faults]]\nfault = \"sing\"\n", &["unknown variant `sing`"]);
        check("oops", &["line 1"]);
        check(&format!("{vm}ports = {{ 22 = \"shh\" }}\n"), &["unknown service `shh`"]);
        check(&format!("{vm}ports = {{ 22 = \"8.8.8.8:22\" }}\n"), &["nothing may leave this machine"]);
        check(&format!("{vm}ports = {{ 70000 = \"echo\" }}\n"), &["`70000` is not a port"]);
        check(&format!("{vm}ports = {{ 1 = \"produce:x\" }}\n"), &["not a number of bytes"]);
        check(&format!("{vm}{vm}"), &["is there twice"]);
        check(&vm.replace("\"x\"", "\"../x\""), &["not a resource name"]);
        check(&format!("{vm}subscription = \"nope\"\n"), &["virtual machine `x`", "`nope`"]);
        check(&format!("{vm}subnet = \"nope\"\n"), &["`x`", "`nope`", "demo-vnet"]);
        let network = "[[virtual_networks]]\nname = \"net\"\n";
        check(&format!("{network}peerings = [{{ to = \"nope\" }}]\n"), &["`net`", "`nope`"]);
        check(&format!("{network}address_prefixes = [\"10.0.0.0\"]\n"), &["line 3"]);
        check("[[bastion_hosts]]\nname = \"b\"\nsku = \"Gold\"\n", &["line 3", "Gold"]);
        check("[[bastion_hosts]]\nname = \"b\"\ntunneling = \"on\"\n", &["missing"]);
        check("[[bastion_hosts]]\nname = \"b\"\ndns_name = \"b.azure.com\"\n", &[".localhost"]);
        check(
            "[[subscriptions]]\nid = \"1\"\nname = \"s\"\ntenant = \"t\"\n",
            &["`t`", "not in the scenario"],
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let scenario = Scenario::parse("[settings]\nvm_password = \"hunter2\"\n").unwrap();
        assert!(!format!("{scenario:?}").contains("hunter2"));
    }
}
