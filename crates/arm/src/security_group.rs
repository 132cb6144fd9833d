//! Network security groups: whether one lets a connection pass, decided from its rules as Azure decides it. It leaves
//! out which groups stand in a connection's way.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use bastide_core::ResourceId;
use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::answer::shown;
use crate::client::Question;
use crate::{Arm, Error};

/// A network security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its id.
    pub id: ResourceId,
    /// The rule that counts most comes first.
    rules: Vec<Rule>,
}

/// A TCP connection, as a security group sees it.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// Which rules are asked.
    pub direction: Direction,
    /// All addresses that it may come from; empty where nobody knows.
    pub from: &'a [Ipv4Net],
    /// The addresses that it goes to; empty where nobody knows.
    pub to: &'a [Ipv4Net],
    /// The application security groups that the machine it goes to belongs to.
    pub to_groups: &'a [ResourceId],
    /// The port that it goes to.
    pub port: u16,
}

/// Which way a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the subnet or machine that has the group.
    Inbound,
    /// Out of it.
    Outbound,
}

/// What a security group does with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Lets it pass.
    Allowed,
    /// Drops it.
    Denied {
        /// The rule that does.
        rule: String,
        /// Its priority.
        priority: u32,
    },
    /// That depends on what is behind a name: a service tag, an application security group, a part of a subnet.
    Unclear {
        /// The rule on which it depends.
        rule: String,
    },
}

impl SecurityGroup {
    /// What the group does with a connection: the first rule that fits decides. A rule of which nobody can say whether
    /// it fits matters only where the next one that does would decide otherwise.
    pub fn rule(&self, flow: Flow<'_>) -> Ruling {
        let mut doubtful: Vec<&Rule> = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.direction == flow.direction) {
            match rule.fit(flow) {
                Fit::No => {}
                Fit::Maybe => doubtful.push(rule),
                Fit::Yes => {
                    return match (doubtful.iter().find(|doubt| doubt.access != rule.access), rule.access) {
                        (Some(doubt), _) => Ruling::Unclear { rule: doubt.name.clone() },
                        (None, Access::Allow) => Ruling::Allowed,
                        (None, Access::Deny) => {
                            Ruling::Denied { rule: rule.name.clone(), priority: rule.priority }
                        }
                    };
                }
            }
        }
        // Azure's own rules come last and fit everything: they were not told.
        Ruling::Unclear { rule: doubtful.first().map_or("the default rules", |rule| &rule.name).to_owned() }
    }

    /// The highest number that a new rule can have and still count more than the one of `priority`.
    pub fn free_priority_before(&self, direction: Direction, priority: u32) -> Option<u32> {
        let taken = |number: u32| {
            self.rules.iter().any(|rule| rule.direction == direction && rule.priority == number)
        };
        RULE_PRIORITIES.rev().find(|number| *number < priority && !taken(*number))
    }
}

impl Arm {
    /// The network security group with this id.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of an exchange with ARM.
    pub async fn security_group(&self, id: &ResourceId) -> Result<SecurityGroup, Error> {
        let what = format!("network security group '{}' in resource group '{}'", id.name(), id.group());
        let question = Question {
            what: &what,
            path: id.as_str(),
            api_version: crate::network::API_VERSION,
            expand: None,
            subscription: Some(id.subscription()),
        };
        let group: Group = question.parse(&self.get(&question).await?)?;
        Ok(group.read(id))
    }
}

/// Priorities that a rule of the user's can have; Azure's own have greater ones
/// (learn.microsoft.com/azure/virtual-network/network-security-groups-overview).
const RULE_PRIORITIES: RangeInclusive<u32> = 100..=4096;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    name: String,
    priority: u32,
    direction: Direction,
    access: Access,
    protocol: String,
    sources: Places,
    destinations: Places,
    source_ports: Vec<String>,
    destination_ports: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Allow,
    Deny,
}

/// The end of a connection in the words of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Places {
    /// Addresses, prefixes, service tags, `*`.
    words: Vec<String>,
    /// Ids of application security groups.
    groups: Vec<String>,
}

/// Whether a part of a rule fits. In this order, so that "and" is the least of several, and "or" the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// Nobody can say from here.
    Maybe,
    Yes,
}

impl Rule {
    fn fit(&self, flow: Flow<'_>) -> Fit {
        let protocol = match self.protocol.to_ascii_lowercase().as_str() {
            "*" | "tcp" => Fit::Yes,
            _ => Fit::No,
        };
        let to_group = |group: &String| match flow
            .to_groups
            .iter()
            .any(|own| own.as_str().eq_ignore_ascii_case(group))
        {
            true => Fit::Yes,
            // A machine of which nothing is known may be in any.
            false if flow.to.is_empty() => Fit::Maybe,
            false => Fit::No,
        };
        let source_port = any(&self.source_ports, |range| if range == "*" { Fit::Yes } else { Fit::Maybe });
        let port = any(&self.destination_ports, |range| fits_port(range, flow.port));
        // Who owns the addresses that Bastion comes from does not say in which groups they are.
        let source = self.sources.fit(flow.from, |_| Fit::Maybe);
        let destination = self.destinations.fit(flow.to, to_group);
        protocol.min(source_port).min(port).min(source).min(destination)
    }
}

impl Places {
    fn fit(&self, addresses: &[Ipv4Net], group: impl Fn(&String) -> Fit) -> Fit {
        any(&self.words, |word| fits_address(word, addresses)).max(any(&self.groups, group))
    }
}

fn any(words: &[String], fit: impl Fn(&String) -> Fit) -> Fit {
    words.iter().map(fit).max().unwrap_or(Fit::No)
}

/// Whether a rule's word stands for all of these addresses.
fn fits_address(word: &str, addresses: &[Ipv4Net]) -> Fit {
    let unknown = addresses.is_empty();
    match word.to_ascii_lowercase().as_str() {
        "*" | "any" | "0.0.0.0/0" => return Fit::Yes,
        // Both ends are in one, or in one that is peered with it, or reached through one.
        "virtualnetwork" => return Fit::Yes,
        "internet" | "azureloadbalancer" => return if unknown { Fit::Maybe } else { Fit::No },
        _ => {}
    }
    let prefix = word.parse::<Ipv4Net>().or_else(|_| word.parse::<Ipv4Addr>().map(Ipv4Net::from));
    match prefix {
        // IPv6, which Bastion has none of, or a service tag.
        Err(_) => {
            if word.contains(':') {
                Fit::No
            } else {
                Fit::Maybe
            }
        }
        Ok(_) if unknown => Fit::Maybe,
        Ok(prefix) if addresses.iter().all(|own| prefix.contains(own)) => Fit::Yes,
        Ok(prefix) if addresses.iter().any(|own| prefix.contains(own) || own.contains(&prefix)) => Fit::Maybe,
        Ok(_) => Fit::No,
    }
}

fn fits_port(range: &str, port: u16) -> Fit {
    if range == "*" {
        return Fit::Yes;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if (first..=last).contains(&port) => Fit::Yes,
        (Ok(_), Ok(_)) => Fit::No,
        _ => Fit::Maybe,
    }
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    properties: GroupProperties,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GroupProperties {
    security_rules: Vec<RuleResource>,
    default_security_rules: Vec<RuleResource>,
}

#[derive(Deserialize)]
struct RuleResource {
    #[serde(default)]
    name: String,
    properties: RuleProperties,
}

/// Each end is a word, or a list of words, or a list of groups (azure-rest-api-specs, `SecurityRule`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleProperties {
    protocol: String,
    access: String,
    direction: String,
    priority: u32,
    source_port_range: Option<String>,
    #[serde(default)]
    source_port_ranges: Vec<String>,
    destination_port_range: Option<String>,
    #[serde(default)]
    destination_port_ranges: Vec<String>,
    source_address_prefix: Option<String>,
    #[serde(default)]
    source_address_prefixes: Vec<String>,
    destination_address_prefix: Option<String>,
    #[serde(default)]
    destination_address_prefixes: Vec<String>,
    #[serde(default)]
    source_application_security_groups: Vec<Named>,
    #[serde(default)]
    destination_application_security_groups: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl Group {
    fn read(self, id: &ResourceId) -> SecurityGroup {
        let GroupProperties { security_rules, default_security_rules } = self.properties;
        let mut rules: Vec<Rule> =
            security_rules.into_iter().chain(default_security_rules).map(RuleResource::read).collect();
        rules.sort_by_key(|rule| rule.priority);
        SecurityGroup { id: id.clone(), rules }
    }
}

impl RuleResource {
    fn read(self) -> Rule {
        let RuleResource { name, properties } = self;
        let words = |one: Option<String>, many: Vec<String>| -> Vec<String> {
            one.into_iter().chain(many).filter(|word| !word.is_empty()).collect()
        };
        let ids = |groups: Vec<Named>| groups.into_iter().map(|group| group.id).collect();
        Rule {
            name: shown(&name),
            priority: properties.priority,
            direction: match properties.direction.eq_ignore_ascii_case("outbound") {
                true => Direction::Outbound,
                false => Direction::Inbound,
            },
            access: match properties.access.eq_ignore_ascii_case("allow") {
                true => Access::Allow,
                false => Access::Deny,
            },
            protocol: properties.protocol,
            sources: Places {
                words: words(properties.source_address_prefix, properties.source_address_prefixes),
                groups: ids(properties.source_application_security_groups),
            },
            destinations: Places {
                words: words(properties.destination_address_prefix, properties.destination_address_prefixes),
                groups: ids(properties.destination_application_security_groups),
            },
            source_ports: words(properties.source_port_range, properties.source_port_ranges),
            destination_ports: words(properties.destination_port_range, properties.destination_port_ranges),
        }
    }
}

/// What a description says, without the question around it.
#[cfg(fuzzing)]
pub(crate) fn read(id: &ResourceId, body: &[u8]) -> Option<SecurityGroup> {
    serde_json::from_slice::<Group>(body).ok().map(|group| group.read(id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GROUP: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/web-nsg";
    const ASG: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/applicationSecurityGroups/web";

    /// Azure's own rules, as every group has them.
    fn defaults() -> serde_json::Value {
        let rule = |name: &str, priority: u32, direction: &str, access: &str, from: &str, to: &str| {
            json!({"name": name, "properties": {
                "protocol": "*", "sourcePortRange": "*", "destinationPortRange": "*",
                "sourceAddressPrefix": from, "destinationAddressPrefix": to,
                "access": access, "priority": priority, "direction": direction,
            }})
        };
        json!([
            rule("AllowVnetInBound", 65000, "Inbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
            rule("AllowAzureLoadBalancerInBound", 65001, "Inbound", "Allow", "AzureLoadBalancer", "*"),
            rule("DenyAllInBound", 65500, "Inbound", "Deny", "*", "*"),
            rule("AllowVnetOutBound", 65000, "Outbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
            rule("AllowInternetOutBound", 65001, "Outbound", "Allow", "*", "Internet"),
            rule("DenyAllOutBound", 65500, "Outbound", "Deny", "*", "*"),
        ])
    }

    /// Rules as `PRIORITY ACCESS PROTOCOL FROM TO PORTS`, lists with commas; named by their priority.
    fn group(rules: &[&str]) -> SecurityGroup {
        let rules: Vec<_> = rules
            .iter()
            .map(|rule| {
                let words: Vec<&str> = rule.split(' ').collect();
                let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
                let asg = |text: &str| {
                    if text == "ASG" { vec![json!({"id": ASG.to_uppercase()})] } else { Vec::new() }
                };
                let prefixes = |text: &str| if text == "ASG" { Vec::new() } else { list(text) };
                json!({"name": format!("r{}", words[0]), "properties": {
                    "priority": words[0].parse::<u32>().unwrap(), "access": words[1], "protocol": words[2],
                    "direction": "Inbound", "sourcePortRange": "*",
                    "sourceAddressPrefixes": prefixes(words[3]),
                    "sourceApplicationSecurityGroups": asg(words[3]),
                    "destinationAddressPrefixes": prefixes(words[4]),
                    "destinationApplicationSecurityGroups": asg(words[4]),
                    "destinationPortRanges": list(words[5]),
                }})
            })
            .collect();
        let group = json!({"properties": {"securityRules": rules, "defaultSecurityRules": defaults()}});
        serde_json::from_value::<Group>(group).unwrap().read(&GROUP.parse().unwrap())
    }

    fn nets(words: &[&str]) -> Vec<Ipv4Net> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(rules: &[&str], expected: &str) {
        let (from, to) = (nets(&["10.0.1.0/26"]), nets(&["10.0.0.4/32"]));
        let to_groups = [ASG.parse().unwrap()];
        let flow =
            Flow { direction: Direction::Inbound, from: &from, to: &to, to_groups: &to_groups, port: 22 };
        assert_eq!(words(group(rules).rule(flow)), expected, "{rules:?}");
    }

    fn words(ruling: Ruling) -> String {
        match ruling {
            Ruling::Allowed => "allowed".into(),
            Ruling::Denied { rule, priority } => format!("denied {rule} {priority}"),
            Ruling::Unclear { rule } => format!("unclear {rule}"),
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        check(&[], "allowed");
        check(&["200 Deny * * * *"], "denied r200 200");
        check(&["200 Deny * * * *", "100 Allow Tcp * * 22"], "allowed");
        check(&["100 Deny * * * *", "200 Allow Tcp * * 22"], "denied r100 100");
        check(&["300 Deny * * * 22", "200 Allow Udp * * 22"], "denied r300 300");
        check(&["300 deny TCP VirtualNetwork VirtualNetwork 22"], "denied r300 300");
    }

    #[test]
    fn ports_are_numbers_and_ranges() {
        for (ports, fits) in [
            ("22", true),
            ("80,22", true),
            ("20-30", true),
            ("22-22", true),
            ("23-30", false),
            ("222", false),
            ("", true),
        ] {
            let expected = match (fits, ports) {
                // A word that means nothing is not read as anything.
                (true, "") => "allowed",
                (true, _) => "denied r100 100",
                (false, _) => "allowed",
            };
            check(&[&format!("100 Deny Tcp * * {ports}")], expected);
        }
        check(&["100 Deny Tcp * * ssh"], "unclear r100");
    }

    #[test]
    fn prefixes_hold_the_subnet_or_not_or_a_part_of_it() {
        let rule = |from: &str| format!("100 Deny Tcp {from} * 22");
        check(&[&rule("10.0.1.0/24")], "denied r100 100");
        check(&[&rule("10.0.0.0/8")], "denied r100 100");
        check(&[&rule("0.0.0.0/0")], "denied r100 100");
        check(&[&rule("10.0.2.0/24")], "allowed");
        check(&[&rule("203.0.113.7")], "allowed");
        check(&[&rule("2001:db8::/32")], "allowed");
        check(&[&rule("10.0.1.0/27")], "unclear r100");
        check(&[&rule("10.0.1.7")], "unclear r100");
        check(&[&rule("10.0.2.0/24,10.0.1.0/25")], "denied r100 100");
        let rule = |to: &str| format!("100 Deny Tcp * {to} 22");
        check(&[&rule("10.0.0.4")], "denied r100 100");
        check(&[&rule("10.0.0.5")], "allowed");
        check(&[&rule("10.0.0.0/24")], "denied r100 100");
    }

    #[test]
    fn names_of_many_addresses() {
        let rule = |from: &str| format!("100 Deny Tcp {from} * 22");
        check(&[&rule("VirtualNetwork")], "denied r100 100");
        check(&[&rule("Internet")], "allowed");
        check(&[&rule("AzureLoadBalancer")], "allowed");
        check(&[&rule("AzureCloud.westeurope")], "unclear r100");
        check(&[&rule("ASG")], "unclear r100");
        check(&["100 Deny Tcp * ASG 22"], "denied r100 100");
        // It does not matter who is meant, when all others are let in too.
        check(&["100 Allow Tcp Storage * 22"], "allowed");
        check(&["100 Allow Tcp Storage * 22", "200 Deny * * * *"], "unclear r100");
        check(&["100 Deny Tcp Storage * 22", "200 Deny * * * *"], "denied r200 200");
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let (from, to) = (nets(&["10.0.1.0/26"]), nets(&["10.0.0.4/32"]));
        let check = |rules: &[&str], from: &[Ipv4Net], to: &[Ipv4Net], expected: &str| {
            let flow = Flow { direction: Direction::Inbound, from, to, to_groups: &[], port: 22 };
            assert_eq!(words(group(rules).rule(flow)), expected, "{rules:?}");
        };
        check(&[], &[], &[], "allowed");
        check(&["100 Deny Tcp 10.0.1.0/26 * 22"], &[], &to, "unclear r100");
        check(&["100 Deny Tcp * 10.0.0.4 22"], &from, &[], "unclear r100");
        check(&["100 Deny Tcp * ASG 22"], &from, &[], "unclear r100");
        check(&["100 Deny Tcp * ASG 22"], &from, &to, "allowed");
        check(&["100 Deny Tcp * * 22"], &[], &[], "denied r100 100");
    }

    #[test]
    fn each_direction_has_its_rules() {
        let group = group(&["100 Deny * * * *"]);
        let (from, to) = (nets(&["10.0.1.0/26"]), nets(&["10.0.0.4/32"]));
        let flow = Flow { direction: Direction::Outbound, from: &from, to: &to, to_groups: &[], port: 22 };
        assert_eq!(group.rule(flow), Ruling::Allowed);
    }

    #[test]
    fn a_rule_that_counts_more_has_a_free_number() {
        let group = group(&["4096 Allow * * * *", "101 Deny * * * *", "100 Allow * * * 80"]);
        let check = |priority, expected| {
            assert_eq!(group.free_priority_before(Direction::Inbound, priority), expected, "{priority}");
        };
        check(65500, Some(4095));
        check(4096, Some(4095));
        check(101, None);
        check(100, None);
        assert_eq!(group.free_priority_before(Direction::Outbound, 101), Some(100));
    }

    #[test]
    fn a_group_without_its_default_rules_decides_nothing() {
        let group: Group = serde_json::from_str("{}").unwrap();
        let group = group.read(&GROUP.parse().unwrap());
        let flow = Flow { direction: Direction::Inbound, from: &[], to: &[], to_groups: &[], port: 22 };
        assert_eq!(group.rule(flow), Ruling::Unclear { rule: "the default rules".into() });
    }
}
