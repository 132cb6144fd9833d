//! Network security groups as a scenario describes them. What they let through, and what ARM says of them, is
//! `security.rs`.

use serde::Deserialize;

use super::{Error, Place, Scenario, network_id, unique};

/// A network security group. Azure's own rules are behind those of the scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "NetworkSecurityGroupTable")]
pub struct NetworkSecurityGroup {
    /// Resource name.
    pub name: String,
    /// Where it lives.
    pub place: Place,
    /// Subnets that have it, as `NETWORK/SUBNET`, where the network is named as [`Place::vnet`] names one.
    pub subnets: Vec<String>,
    /// Virtual machines of the same group whose network interface has it.
    pub machines: Vec<String>,
    /// Its rules.
    pub rules: Vec<SecurityRule>,
}

/// A rule of a security group.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityRule {
    /// Name.
    pub name: String,
    /// From 100 to 4,096; the least counts most.
    pub priority: u16,
    /// Which traffic it is about.
    #[serde(default)]
    pub direction: Direction,
    /// What it does with it.
    pub access: RuleAccess,
    /// `Tcp`, `Udp`, `*`.
    #[serde(default = "any")]
    pub protocol: String,
    /// Where from: a prefix, `VirtualNetwork`, `Internet` or `*`; any other word is a service tag that is nowhere here.
    #[serde(default = "any")]
    pub source: String,
    /// Where to, in the same words.
    #[serde(default = "any")]
    pub destination: String,
    /// `22`, `20-30` or `*`.
    #[serde(default = "any")]
    pub port: String,
}

/// Which traffic a rule is about, as ARM spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Direction {
    /// To the subnet or machine.
    #[default]
    Inbound,
    /// From it.
    Outbound,
}

/// What a rule does, as ARM spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RuleAccess {
    /// Lets it pass.
    Allow,
    /// Drops it.
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkSecurityGroupTable {
    name: String,
    group: Option<String>,
    subscription: Option<String>,
    location: Option<String>,
    #[serde(default)]
    subnets: Vec<String>,
    #[serde(default)]
    machines: Vec<String>,
    #[serde(default)]
    rules: Vec<SecurityRule>,
}

impl From<NetworkSecurityGroupTable> for NetworkSecurityGroup {
    fn from(table: NetworkSecurityGroupTable) -> NetworkSecurityGroup {
        NetworkSecurityGroup {
            name: table.name,
            place: Place::new(table.group, table.subscription, table.location, None),
            subnets: table.subnets,
            machines: table.machines,
            rules: table.rules,
        }
    }
}

fn any() -> String {
    "*".into()
}

impl NetworkSecurityGroup {
    /// Ids of the subnets that have it.
    pub(crate) fn subnet_ids(&self, subscription: &str) -> impl Iterator<Item = String> {
        self.subnets.iter().map(move |named| {
            let (network, subnet) = named.rsplit_once('/').unwrap_or(("", named));
            format!("{}/subnets/{subnet}", network_id(subscription, &self.place, network))
        })
    }
}

impl Scenario {
    /// Whether security groups stand before something that is there, and each subnet and machine has one at most.
    pub(super) fn check_security_groups(&self) -> Result<(), Error> {
        let networks = crate::networks::all(self);
        let (mut subnets, mut machines) = (Vec::new(), Vec::new());
        for group in &self.network_security_groups {
            let what = format!("network security group `{}`", group.name);
            self.known_place(&what, &group.place)?;
            let subscription = self.subscription(&group.place).map(|one| one.id.as_str()).unwrap_or_default();
            for id in group.subnet_ids(subscription) {
                let is_there = networks.iter().any(|(network, one)| {
                    one.subnets
                        .iter()
                        .any(|subnet| id.eq_ignore_ascii_case(&format!("{network}/subnets/{}", subnet.name)))
                });
                if !is_there {
                    return Err(Error::Meaning(format!("{what}: subnet `{id}` is not in the scenario")));
                }
                subnets.push(id);
            }
            for name in &group.machines {
                let is_it = |one: &&super::VirtualMachine| {
                    one.name.eq_ignore_ascii_case(name)
                        && one.place.group.eq_ignore_ascii_case(&group.place.group)
                };
                if self.virtual_machines.iter().find(is_it).is_none() {
                    return Err(Error::Meaning(format!("{what}: machine `{name}` is not in its group")));
                }
                machines.push(format!("{name} in {}", group.place.group));
            }
            let priorities: Vec<_> =
                group.rules.iter().map(|rule| format!("{:?} {}", rule.direction, rule.priority)).collect();
            unique(&format!("{what}: rule"), priorities.iter())?;
        }
        unique("security group of subnet", subnets.iter())?;
        unique("security group of machine", machines.iter())
    }
}
