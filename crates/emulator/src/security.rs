//! Network security groups as Azure has them: their ARM documents, and what they let through. What they are made from is
//! the scenario's.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::inventory::{Host, Inventory, Machine, Resource};
use crate::scenario::{Direction, NetworkSecurityGroup, RuleAccess, Scenario, SecurityRule};

/// A security group, as far as traffic is concerned.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Ids of the subnets and network interfaces that have it.
    before: Vec<String>,
    rules: Vec<SecurityRule>,
}

/// The resource type, as ARM spells it.
const SECURITY_GROUPS: &str = "Microsoft.Network/networkSecurityGroups";

/// Azure's own rules (learn.microsoft.com, "Network security groups", default security rules): name, priority,
/// direction, access, source, destination.
const DEFAULT_RULES: [(&str, u16, Direction, RuleAccess, &str, &str); 6] = [
    ("AllowVnetInBound", 65000, Direction::Inbound, RuleAccess::Allow, "VirtualNetwork", "VirtualNetwork"),
    ("AllowAzureLoadBalancerInBound", 65001, Direction::Inbound, RuleAccess::Allow, "AzureLoadBalancer", "*"),
    ("DenyAllInBound", 65500, Direction::Inbound, RuleAccess::Deny, "*", "*"),
    ("AllowVnetOutBound", 65000, Direction::Outbound, RuleAccess::Allow, "VirtualNetwork", "VirtualNetwork"),
    ("AllowInternetOutBound", 65001, Direction::Outbound, RuleAccess::Allow, "*", "Internet"),
    ("DenyAllOutBound", 65500, Direction::Outbound, RuleAccess::Deny, "*", "*"),
];

impl Inventory {
    /// Adds the security groups, and names them in the documents of what they stand before.
    pub(crate) fn add_security_groups(&mut self, scenario: &Scenario) {
        for group in &scenario.network_security_groups {
            let Some(subscription) = scenario.subscription(&group.place) else { continue };
            let place = format!("/subscriptions/{}/resourceGroups/{}", subscription.id, group.place.group);
            let id = format!("{place}/providers/{SECURITY_GROUPS}/{}", group.name);
            let subnets: Vec<String> = group.subnet_ids(&subscription.id).collect();
            let interfaces: Vec<String> = group
                .machines
                .iter()
                .map(|name| format!("{place}/providers/Microsoft.Network/networkInterfaces/{name}-nic"))
                .collect();
            for resource in &mut self.resources {
                let is_before = |one: &String| one.eq_ignore_ascii_case(&resource.id);
                if subnets.iter().chain(&interfaces).any(is_before) {
                    guarded_by(&mut resource.document, &id);
                }
                // A network shows its subnets.
                let shown =
                    resource.document.pointer_mut("/properties/subnets").and_then(Value::as_array_mut);
                for subnet in shown.into_iter().flatten() {
                    let shown_id = subnet.get("id").and_then(Value::as_str).unwrap_or_default();
                    if subnets.iter().any(|one| one.eq_ignore_ascii_case(shown_id)) {
                        guarded_by(subnet, &id);
                    }
                }
            }
            self.resources.push(document(&id, group, &subnets, &interfaces));
            let mut rules = group.rules.clone();
            rules.extend(DEFAULT_RULES.into_iter().map(default_rule));
            rules.sort_by_key(|rule| rule.priority);
            self.guards.push(Guard { before: [subnets, interfaces].concat(), rules });
        }
    }

    /// Whether the security groups between a Bastion host and a machine let a connection to this port pass: that of the
    /// host's subnet, that of the machine's, and the machine's own.
    pub(crate) fn lets_through(&self, host: &Host, machine: &Machine, port: u16) -> bool {
        let bastions = format!("{}/subnets/AzureBastionSubnet", host.vnet_id);
        let subnet = format!("{}/subnets/{}", machine.vnet_id, machine.subnet);
        let from = self.prefix_of(&bastions).map_or(Ipv4Addr::UNSPECIFIED, |prefix| prefix.network());
        let ways = [
            (&bastions, Direction::Outbound),
            (&subnet, Direction::Inbound),
            (&machine.nic_id, Direction::Inbound),
        ];
        ways.into_iter().all(|(place, direction)| {
            let guards = self
                .guards
                .iter()
                .filter(|guard| guard.before.iter().any(|one| one.eq_ignore_ascii_case(place)));
            guards.into_iter().all(|guard| guard.lets_through(direction, from, machine.private_ip, port))
        })
    }

    fn prefix_of(&self, subnet: &str) -> Option<Ipv4Net> {
        let prefix = self.resource(subnet)?.document.pointer("/properties/addressPrefix")?.as_str()?;
        prefix.parse().ok()
    }
}

impl Guard {
    fn lets_through(&self, direction: Direction, from: Ipv4Addr, to: Ipv4Addr, port: u16) -> bool {
        let fits = |rule: &&SecurityRule| {
            rule.direction == direction
                && (rule.protocol == "*" || rule.protocol.eq_ignore_ascii_case("tcp"))
                && stands_for(&rule.source, from)
                && stands_for(&rule.destination, to)
                && holds(&rule.port, port)
        };
        self.rules.iter().find(fits).is_some_and(|rule| rule.access == RuleAccess::Allow)
    }
}

/// Whether a word of a rule stands for an address of a virtual network.
fn stands_for(word: &str, address: Ipv4Addr) -> bool {
    match word {
        "*" | "VirtualNetwork" => true,
        _ => match (word.parse::<Ipv4Net>(), word.parse::<Ipv4Addr>()) {
            (Ok(prefix), _) => prefix.contains(&address),
            (_, Ok(one)) => one == address,
            _ => false,
        },
    }
}

fn holds(range: &str, port: u16) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    range == "*"
        || matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
}

fn default_rule(rule: (&str, u16, Direction, RuleAccess, &str, &str)) -> SecurityRule {
    let (name, priority, direction, access, source, destination) = rule;
    SecurityRule {
        name: name.into(),
        priority,
        direction,
        access,
        protocol: "*".into(),
        source: source.into(),
        destination: destination.into(),
        port: "*".into(),
    }
}

fn guarded_by(document: &mut Value, id: &str) {
    if let Some(properties) = document.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("networkSecurityGroup".into(), json!({"id": id}));
    }
}

fn document(id: &str, group: &NetworkSecurityGroup, subnets: &[String], interfaces: &[String]) -> Resource {
    let rule = |kind: &str, rule: &SecurityRule| {
        json!({
            "name": rule.name, "id": format!("{id}/{kind}/{}", rule.name),
            "type": format!("{SECURITY_GROUPS}/{kind}"),
            "properties": {
                "provisioningState": "Succeeded", "protocol": rule.protocol,
                "sourcePortRange": "*", "destinationPortRange": rule.port,
                "sourceAddressPrefix": rule.source, "destinationAddressPrefix": rule.destination,
                "access": format!("{:?}", rule.access), "priority": rule.priority,
                "direction": format!("{:?}", rule.direction),
                "sourcePortRanges": [], "destinationPortRanges": [],
                "sourceAddressPrefixes": [], "destinationAddressPrefixes": [],
            },
        })
    };
    let own: Vec<Value> = group.rules.iter().map(|one| rule("securityRules", one)).collect();
    let defaults: Vec<Value> =
        DEFAULT_RULES.into_iter().map(|one| rule("defaultSecurityRules", &default_rule(one))).collect();
    let references = |ids: &[String]| ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>();
    Resource {
        document: json!({
            "name": group.name, "id": id, "type": SECURITY_GROUPS, "location": group.place.location,
            "properties": {
                "provisioningState": "Succeeded", "securityRules": own, "defaultSecurityRules": defaults,
                "subnets": references(subnets), "networkInterfaces": references(interfaces),
            },
        }),
        id: id.to_owned(),
        instance_view: None,
    }
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

    #[test]
    fn the_first_rule_that_fits_decides() {
        #[track_caller]
        fn check(table: &str, open: &[u16], closed: &[u16]) {
            let inventory = inventory(&format!("[[network_security_groups]]\nname = \"n\"\n{table}\n"));
            let machine = inventory.machines.iter().find(|machine| machine.name == "web-01").unwrap();
            let through = |port: u16| inventory.lets_through(&inventory.hosts[0], machine, port);
            for port in open {
                assert!(through(*port), "{port}: {table}");
            }
            for port in closed {
                assert!(!through(*port), "{port}: {table}");
            }
        }
        let rules = "rules = [{ name = \"a\", priority = 200, access = \"Deny\" }, \
                     { name = \"b\", priority = 100, access = \"Allow\", port = \"20-22\" }]";
        check(rules, &[22, 7], &[]);
        check(&format!("machines = [\"web-01\"]\n{rules}"), &[20, 22], &[7, 23]);
        check(&format!("subnets = [\"demo/demo-vnet/default\"]\n{rules}"), &[22], &[7]);
        check("machines = [\"web-01\"]", &[22, 7], &[]);
        let from = |source: &str| {
            format!(
                "machines = [\"web-01\"]\n\
                 rules = [{{ name = \"a\", priority = 100, access = \"Deny\", source = \"{source}\" }}]"
            )
        };
        check(&from("10.0.255.192/26"), &[], &[22]);
        check(&from("10.0.1.0/24"), &[22], &[]);
        check(&from("Internet"), &[22], &[]);
        let out = "subnets = [\"demo/demo-vnet/AzureBastionSubnet\"]\n\
                   rules = [{ name = \"a\", priority = 100, access = \"Deny\", direction = \"Outbound\", port = \"7\" }]";
        check(out, &[22], &[7]);
    }

    #[test]
    fn documents_name_each_other() {
        let inventory = inventory(
            "[[network_security_groups]]\nname = \"n\"\nsubnets = [\"demo-vnet/default\"]\nmachines = [\"web-01\"]\n",
        );
        let base = "/subscriptions/22222222-2222-4222-8222-222222222222/resourceGroups/demo/providers/Microsoft.Network";
        let group = format!("{base}/networkSecurityGroups/n");
        for place in ["virtualNetworks/demo-vnet/subnets/default", "networkInterfaces/web-01-nic"] {
            let document = &inventory.resource(&format!("{base}/{place}")).unwrap().document;
            assert_eq!(document["properties"]["networkSecurityGroup"]["id"], group);
        }
        let network = &inventory.resource(&format!("{base}/virtualNetworks/demo-vnet")).unwrap().document;
        assert_eq!(network["properties"]["subnets"][0]["properties"]["networkSecurityGroup"]["id"], group);
        let document = &inventory.resource(&group).unwrap().document;
        assert_eq!(document["properties"]["defaultSecurityRules"].as_array().unwrap().len(), 6);
        assert_eq!(document["properties"]["networkInterfaces"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn groups_stand_before_what_is_there() {
        #[track_caller]
        fn check(table: &str, expected: &str) {
            let text = format!("[[network_security_groups]]\nname = \"n\"\n{table}\n");
            let said = Scenario::parse(&text).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
        check("subnets = [\"demo-vnet/nope\"]", "subnets/nope");
        check("machines = [\"nope\"]", "`nope`");
        check("machines = [\"web-01\", \"WEB-01\"]", "is there twice");
        let rule = "{ name = \"a\", priority = 100, access = \"Deny\" }";
        check(&format!("rules = [{rule}, {rule}]"), "is there twice");
        check("rules = [{ name = \"a\", priority = 1, access = \"Maybe\" }]", "Maybe");
    }
}
