//! Questions to Resource Graph, in its part of KQL
//! (learn.microsoft.com/azure/governance/resource-graph/concepts/query-language). Rows are filtered and trimmed there and
//! joined here (`topology`): one query may join or unite few tables, and none of what is needed lies in more than one.
//! It leaves out asking.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use bastide_core::{ResourceId, TargetKind};

/// The VM of this name, or the scale set whose instance has it, and everything that leads there.
pub(super) fn for_name(name: &str) -> String {
    let behind = literal(&format!("/virtualmachines/{name}"));
    let name_is = |name: &str| format!("name =~ {}", literal(name));
    let mut wanted = vec![
        HOSTS.to_owned(),
        PEERED_NETWORKS.to_owned(),
        format!("type =~ {VIRTUAL_MACHINE} and {}", name_is(name)),
        format!("type =~ {INTERFACE} and tostring(properties.virtualMachine.id) endswith {behind}"),
    ];
    if let Some((set, _)) = instance(name) {
        wanted.push(format!("type =~ {SCALE_SET} and {}", name_is(set)));
    }
    select("resources", &wanted)
}

/// The network interfaces of this VM, or the scale set of this instance, and everything that leads there.
pub(super) fn for_machine(id: &ResourceId) -> String {
    let own = match id.kind() {
        TargetKind::ScaleSetInstance => {
            let set = id.as_str().rsplitn(3, '/').last().unwrap_or_default();
            format!("type =~ {SCALE_SET} and id =~ {}", literal(set))
        }
        _ => {
            let machine = literal(id.as_str());
            format!("type =~ {INTERFACE} and tostring(properties.virtualMachine.id) =~ {machine}")
        }
    };
    select("resources", &[HOSTS.to_owned(), PEERED_NETWORKS.to_owned(), own])
}

/// The interface with this address, all networks, of which some hold it, and the Bastion hosts.
pub(super) fn for_address(address: Ipv4Addr) -> String {
    let own = literal(&format!("\"{address}\""));
    let interface = format!("type =~ {INTERFACE} and tostring(properties.ipConfigurations) contains {own}");
    select("resources", &[HOSTS.to_owned(), format!("type =~ {NETWORK}"), interface])
}

/// The names of all VMs.
pub(super) fn machines() -> String {
    format!("resources\n| where type =~ {VIRTUAL_MACHINE}\n| project id, type\n| order by id asc")
}

/// All VMs and all Bastion hosts.
pub(super) fn everything() -> String {
    let kind = |kind: &str| format!("type =~ {kind}");
    select(
        "resources",
        &[HOSTS.to_owned(), PEERED_NETWORKS.to_owned(), kind(VIRTUAL_MACHINE), kind(INTERFACE)],
    )
}

/// All instances of scale sets, which have a table of their own.
pub(super) fn instances() -> String {
    let own = format!("type =~ {INSTANCE}");
    select("computeresources", &[own, format!("type =~ {INSTANCE_INTERFACE}")])
}

/// `SET_NUMBER`, as the portal names an instance of a scale set.
pub(super) fn instance(name: &str) -> Option<(&str, &str)> {
    let (set, number) = name.rsplit_once('_')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !set.is_empty()).then_some((set, number))
}

const VIRTUAL_MACHINE: &str = "'microsoft.compute/virtualmachines'";
const SCALE_SET: &str = "'microsoft.compute/virtualmachinescalesets'";
const INSTANCE: &str = "'microsoft.compute/virtualmachinescalesets/virtualmachines'";
const INTERFACE: &str = "'microsoft.network/networkinterfaces'";
const INSTANCE_INTERFACE: &str =
    "'microsoft.compute/virtualmachinescalesets/virtualmachines/networkinterfaces'";
const NETWORK: &str = "'microsoft.network/virtualnetworks'";

const HOSTS: &str = "type =~ 'microsoft.network/bastionhosts'";
/// Others lead nowhere, and there are many.
const PEERED_NETWORKS: &str =
    "type =~ 'microsoft.network/virtualnetworks' and array_length(properties.virtualNetworkPeerings) > 0";

/// What is needed of each kind: whole `properties` of a network name every address in it.
const COLUMNS: [&str; 16] = [
    // Without the id there are no further pages.
    "id",
    "type",
    "location",
    "sku",
    "machine = tostring(properties.virtualMachine.id)",
    "ipConfigurations = properties.ipConfigurations",
    "virtualNetwork = tostring(properties.virtualNetwork.id)",
    "peerings = properties.virtualNetworkPeerings",
    "addressPrefixes = properties.addressSpace.addressPrefixes",
    "interfaces = properties.virtualMachineProfile.networkProfile.networkInterfaceConfigurations",
    "power = tostring(properties.extended.instanceView.powerState.code)",
    "dnsName = tostring(properties.dnsName)",
    "enableTunneling = properties.enableTunneling",
    "enableIpConnect = properties.enableIpConnect",
    "enableSessionRecording = properties.enableSessionRecording",
    "provisioningState = tostring(properties.provisioningState)",
];

fn select(table: &str, wanted: &[String]) -> String {
    let wanted = wanted.iter().map(|one| format!("({one})")).collect::<Vec<_>>().join("\n    or ");
    // In one order, so that pages fit together and messages stay the same.
    format!("{table}\n| where {wanted}\n| project {}\n| order by id asc", COLUMNS.join(", "))
}

/// A word as a string literal: `\` escapes the quote and itself
/// (learn.microsoft.com/azure/data-explorer/kusto/query/scalar-data-types/string).
fn literal(word: &str) -> String {
    let mut text = String::from("'");
    for character in word.chars() {
        match character {
            '\'' | '\\' => text.extend(['\\', character]),
            control if control.is_control() => {
                let mut units = [0; 2];
                for unit in control.encode_utf16(&mut units) {
                    // Writing into a text does not fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_stay_words() {
        #[track_caller]
        fn check(word: &str, expected: &str) {
            assert_eq!(literal(word), expected);
        }
        check("web-01", "'web-01'");
        check("it's", r"'it\'s'");
        check(r#"a"b"#, r#"'a"b'"#);
        check(r"a\", r"'a\\'");
        check(r"a\' or 1 == 1 //", r"'a\\\' or 1 == 1 //'");
        check("a\nb\u{85}", r"'a\u000ab\u0085'");
        check("Ä", "'Ä'");
    }

    proptest! {
        /// However a word ends, the literal ends behind it and not before.
        #[test]
        fn nothing_leaves_its_literal(word in r#"[a'"\\\n|\]]{0,20}"#) {
            let text = literal(&word);
            let inner = text.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
            let mut characters = inner.chars();
            while let Some(character) = characters.next() {
                prop_assert!(character != '\'' && !character.is_control(), "{text}");
                if character == '\\' {
                    prop_assert!(matches!(characters.next(), Some('\'' | '\\' | 'u')), "{text}");
                }
            }
        }
    }

    #[test]
    fn names_of_instances() {
        assert_eq!(instance("workers_12"), Some(("workers", "12")));
        assert_eq!(instance("a_b_0"), Some(("a_b", "0")));
        for name in ["workers", "workers_", "_1", "workers_1a", "workers-1"] {
            assert_eq!(instance(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_asked() {
        let query = for_name("workers_1");
        for part in [
            "resources\n| where (type =~ 'microsoft.network/bastionhosts')\n    or (",
            "(type =~ 'microsoft.compute/virtualmachines' and name =~ 'workers_1')",
            "tostring(properties.virtualMachine.id) endswith '/virtualmachines/workers_1')",
            "(type =~ 'microsoft.compute/virtualmachinescalesets' and name =~ 'workers')",
            "| project id, type,",
        ] {
            assert!(query.contains(part), "{part} is not in {query}");
        }
        assert!(!for_name("web-01").contains("scalesets"));
        let set = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/w";
        let id = ResourceId::parse(&format!("{set}/virtualMachines/3")).unwrap();
        assert!(for_machine(&id).contains(&format!("id =~ '{set}'")));
    }
}
