//! What stands between a Bastion host and a VM: virtual networks and their peering, security groups and their rules. It
//! leaves out who may read them (`azure`) and how rules are judged (`bastide-arm`).

use std::time::Duration;

use bastide_arm::{Direction, Flow, NetworkInterface, Ruling, SecurityGroup, Subnet};
use bastide_core::{Fault, ResourceId};
use tokio::time::Instant;

use super::azure::Examination;
use super::{Finding, Link};
use crate::Host;

impl Examination<'_, '_> {
    /// protocol.md §2: a VM in a peered network needs Reader on that network too.
    pub(super) async fn network(&mut self, interface: Option<&NetworkInterface>, host: &Host) {
        let network_of = |subnet: &Option<ResourceId>| subnet.as_ref().and_then(ResourceId::parent);
        let vms = interface.and_then(|interface| network_of(&interface.subnet));
        let (Some(vms), Some(bastions)) = (vms, network_of(&host.description().subnet)) else {
            let why = "the virtual networks of the VM and of the Bastion host are not both known";
            return self.report.add(Finding::skipped(Link::Vnet, why));
        };
        if vms == bastions {
            let says = format!("'{}', which is the Bastion host's own", vms.name());
            return self.report.add(Finding::ok(Link::Vnet, Duration::ZERO, says));
        }
        let started = Instant::now();
        let network = match self.client.arm.virtual_network(&vms).await {
            Ok(network) => network,
            Err(error) => return self.unread(Link::Vnet, started, &vms, error).await,
        };
        let (took, both) = (started.elapsed(), format!("'{}' and '{}'", vms.name(), bastions.name()));
        let peer = format!(
            "az network vnet peering create --name to-{} --vnet-name {} --resource-group {} --subscription {} \
             --remote-vnet {bastions} --allow-vnet-access; and the same from the other side",
            bastions.name(),
            vms.name(),
            vms.group(),
            vms.subscription()
        );
        self.report.add(match network.peering_with(&bastions) {
            Some(state) if state.eq_ignore_ascii_case("connected") => {
                Finding::ok(Link::Vnet, took, format!("{both} are peered"))
            }
            Some(state) => {
                let says = format!("the peering of {both} is in the state '{state}'");
                Finding::broken(Link::Vnet, took, Fault::Settings, says).with_fix(peer)
            }
            None => {
                let says = format!("{both} are not peered");
                Finding::broken(Link::Vnet, took, Fault::Settings, says).with_fix(peer)
            }
        });
    }

    /// Both subnets and the interface can have a group, and each of them has to let the connection pass.
    pub(super) async fn security_groups(&mut self, interface: Option<&NetworkInterface>, host: &Host) {
        let Some(interface) = interface else { return };
        let started = Instant::now();
        let (near, far) = tokio::join!(
            self.subnet(host.description().subnet.as_ref()),
            self.subnet(interface.subnet.as_ref())
        );
        let mut unread: Vec<String> =
            [&near, &far].into_iter().filter_map(|one| one.as_ref().err().cloned()).collect();
        let (near, far) = (near.ok().flatten(), far.ok().flatten());
        let from = near.as_ref().map(|subnet| subnet.prefixes.clone()).unwrap_or_default();
        let to: Vec<_> = interface.address.map(Into::into).into_iter().collect();
        let group_of =
            |subnet: &Option<Subnet>| subnet.as_ref().and_then(|subnet| subnet.security_group.clone());
        let groups = [
            (group_of(&near), Direction::Outbound),
            (group_of(&far), Direction::Inbound),
            (interface.security_group.clone(), Direction::Inbound),
        ];
        let mut passed = Vec::new();
        for (id, direction) in groups {
            let Some(id) = id else { continue };
            let group = match self.client.arm.security_group(&id).await {
                Ok(group) => group,
                Err(error) => {
                    unread.push(error.to_string());
                    continue;
                }
            };
            let flow = Flow {
                direction,
                from: &from,
                to: &to,
                to_groups: &interface.application_groups,
                port: self.patient.port,
            };
            match group.rule(flow) {
                Ruling::Allowed => passed.push(format!("'{}'", id.name())),
                Ruling::Unclear { rule } => {
                    unread.push(format!(
                        "'{}' may drop it: that depends on what rule '{rule}' stands for",
                        id.name()
                    ));
                }
                Ruling::Denied { rule, priority } => {
                    let says = format!(
                        "the network security group '{}' drops connections from Bastion to port {} (rule '{rule}', \
                         priority {priority})",
                        id.name(),
                        self.patient.port
                    );
                    let finding = Finding::broken(Link::SecurityGroups, started.elapsed(), Fault::Vm, says);
                    let fix = allow(&group, flow, priority);
                    return self.report.add(finding.with_fix(fix));
                }
            }
        }
        let took = started.elapsed();
        let port = self.patient.port;
        self.report.add(match (unread.is_empty(), passed.is_empty()) {
            (false, _) => {
                let says = format!("nobody can say whether port {port} is open: {}", unread.join("; "));
                Finding::warning(Link::SecurityGroups, took, says)
            }
            (true, true) => {
                let says = format!("no network security group stands before port {port}");
                Finding::ok(Link::SecurityGroups, took, says)
            }
            (true, false) => Finding::ok(
                Link::SecurityGroups,
                took,
                format!("port {port} is open in {}", passed.join(", ")),
            ),
        });
    }

    /// The subnet; nothing for none, and in words why one can't be read.
    async fn subnet(&self, id: Option<&ResourceId>) -> Result<Option<Subnet>, String> {
        match id {
            Some(id) => self.client.arm.subnet(id).await.map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }
}

/// The line that opens the port before the rule that closes it.
fn allow(group: &SecurityGroup, flow: Flow<'_>, priority: u32) -> String {
    let (direction, number) = (flow.direction, group.free_priority_before(flow.direction, priority));
    let number = number.map_or_else(|| "PRIORITY".into(), |number| number.to_string());
    let (direction, places) = match direction {
        Direction::Inbound => {
            let from: Vec<String> = flow.from.iter().map(ToString::to_string).collect();
            let from = if from.is_empty() { "VirtualNetwork".into() } else { from.join(" ") };
            ("Inbound", format!("--source-address-prefixes {from}"))
        }
        Direction::Outbound => ("Outbound", "--destination-address-prefixes VirtualNetwork".into()),
    };
    let id = &group.id;
    format!(
        "az network nsg rule create --nsg-name {} --resource-group {} --subscription {} --name AllowBastion{port} \
         --priority {number} --direction {direction} --access Allow --protocol Tcp {places} \
         --destination-port-ranges {port}",
        id.name(),
        id.group(),
        id.subscription(),
        port = flow.port,
    )
}
