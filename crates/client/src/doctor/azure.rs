//! What Azure Resource Manager knows about a connection: who asks, what may be read, what the Bastion host allows,
//! whether the VM runs, and which security groups stand between the two. It leaves out the data plane.

use std::time::Duration;

use bastide_arm::{
    Direction, Flow, NetworkInterface, PowerState, Ruling, SecurityGroup, Subnet, VirtualMachine,
};
use bastide_core::{Fault, ResourceId, Target, TargetKind};
use bastide_net::Origin;
use tokio::time::{Instant, timeout};

use super::{Finding, Link, Patient, Report, way};
use crate::{Caller, Client, Error, Host};

/// Walks the links that Azure Resource Manager knows; the Bastion host, if it was found.
pub(super) async fn examine(client: &Client, patient: &Patient, report: &mut Report<'_>) -> Option<Host> {
    let started = Instant::now();
    let caller = match client.caller().await {
        Ok(caller) => caller,
        Err(error) => {
            blame(client, Finding::failed(Link::SignIn, started.elapsed(), &error), &error, report).await;
            return None;
        }
    };
    report.hidden.clone_from(&caller.identity.user);
    report.add(Finding::ok(Link::SignIn, started.elapsed(), signed_in(&caller)));
    let mut examination = Examination { client, patient, caller, report };
    examination.tenant().await?;
    let machine = examination.machine().await;
    let interface = examination.interface(machine.as_ref()).await;
    if examination.report.is_past(Link::Bastion) {
        return None;
    }
    let host = examination.bastion().await?;
    examination.network(interface.as_ref(), &host).await;
    examination.settings(&host);
    examination.sessions(&host).await;
    examination.power(machine.as_ref());
    examination.security_groups(interface.as_ref(), &host).await;
    Some(host)
}

/// Of whom the token is, without the name of a person.
fn signed_in(caller: &Caller) -> String {
    let Caller { identity, source, .. } = caller;
    let known = |id: &Option<String>| id.clone().unwrap_or_else(|| "unknown".into());
    format!("by {source}, object {} of tenant {}", known(&identity.object_id), known(&identity.tenant))
}

/// Reports a failed link, or the network that has made it fail.
async fn blame(client: &Client, finding: Finding, error: &Error, report: &mut Report<'_>) {
    let asked = match error {
        Error::SignIn(_) | Error::Arm(bastide_arm::Error::SignIn { .. }) => &client.setup.authority,
        _ => &client.arm.cloud().arm,
    };
    let asked = Origin::parse(asked).ok();
    way::blame(&client.network, asked.as_ref(), finding, report).await;
}

struct Examination<'a, 'b> {
    client: &'a Client,
    patient: &'a Patient,
    caller: Caller,
    report: &'a mut Report<'b>,
}

/// What somebody needs to know of the sessions of a Bastion host, and to end one.
const LIST_SESSIONS: &str = "Microsoft.Network/bastionHosts/getActiveSessions/action";

/// A question about sessions is a long-running operation, which nobody waits for who only wants to be warned.
const SESSIONS_WITHIN: Duration = Duration::from_secs(20);

impl Examination<'_, '_> {
    /// A subscription whose tenant takes the token: the Bastion host's, or the first that it is looked for in.
    async fn tenant(&mut self) -> Option<()> {
        let started = Instant::now();
        let words = self.client.first_subscription(&self.patient.bastion, &self.patient.target);
        let Some(words) = words else {
            let error = Error::Arm(bastide_arm::Error::NoSubscription);
            self.report.add(Finding::failed(Link::Tenant, started.elapsed(), &error));
            return None;
        };
        let says = match self.client.arm.subscription(&words).await {
            Ok(found) => match &found.tenant {
                Some(tenant) => format!("subscription {} of tenant {tenant}", found.id),
                None => format!("subscription {}", found.id),
            },
            // The token is good; what it is good for is the next links' business.
            Err(bastide_arm::Error::Forbidden { .. }) => {
                format!("subscription {words}, which may not be read itself")
            }
            Err(error) => {
                self.fail(Link::Tenant, started, error.into()).await;
                return None;
            }
        };
        self.report.add(Finding::ok(Link::Tenant, started.elapsed(), says));
        Some(())
    }

    async fn machine(&mut self) -> Option<VirtualMachine> {
        let id = match &self.patient.target {
            Target::Resource(id) if is_machine(id) => id,
            Target::Resource(id) => return self.no_machine(format!("'{}' is not a VM", id.display_name())),
            Target::Address(address) => {
                return self.no_machine(format!("{address} does not say which VM it belongs to"));
            }
        };
        let started = Instant::now();
        match self.client.arm.virtual_machine(id).await {
            Ok(machine) => {
                self.report.add(Finding::ok(Link::Vm, started.elapsed(), id.as_str()));
                Some(machine)
            }
            Err(error) => {
                self.unread(Link::Vm, started, id, error).await;
                None
            }
        }
    }

    /// The target stays a stranger, and all that hangs on it.
    fn no_machine(&mut self, why: String) -> Option<VirtualMachine> {
        self.report.add(Finding::skipped(Link::Vm, format!("not tried: {why}")));
        self.report.unknown = Some(why);
        None
    }

    async fn interface(&mut self, machine: Option<&VirtualMachine>) -> Option<NetworkInterface> {
        let id = machine?.network_interfaces.first()?;
        let started = Instant::now();
        match self.client.arm.network_interface(id).await {
            Ok(interface) => {
                self.report.add(Finding::ok(Link::Nic, started.elapsed(), id.as_str()));
                Some(interface)
            }
            Err(error) => {
                self.unread(Link::Nic, started, id, error).await;
                None
            }
        }
    }

    async fn bastion(&mut self) -> Option<Host> {
        let started = Instant::now();
        match self.client.bastion_host(&self.patient.bastion, &self.patient.target).await {
            Ok(host) => {
                let says = host.description().id.as_str();
                self.report.add(Finding::ok(Link::Bastion, started.elapsed(), says));
                Some(host)
            }
            Err(error) => {
                self.fail(Link::Bastion, started, error).await;
                None
            }
        }
    }

    /// protocol.md §2: a VM in a peered network needs Reader on that network too.
    async fn network(&mut self, interface: Option<&NetworkInterface>, host: &Host) {
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

    fn settings(&mut self, host: &Host) {
        let description = host.description();
        match host.plan(&self.patient.target, self.patient.port) {
            Ok(plan) => {
                let ways = match self.patient.target {
                    Target::Resource(_) => "native clients are allowed",
                    Target::Address(_) => "native clients and connections by address are allowed",
                };
                let says = format!("{} SKU, {ways}", description.sku.name());
                self.report.add(match plan.advice() {
                    Some(advice) => Finding::warning(Link::Settings, Duration::ZERO, advice),
                    None => Finding::ok(Link::Settings, Duration::ZERO, says),
                });
            }
            Err(error) => self.report.add(Finding::failed(Link::Settings, Duration::ZERO, &error)),
        }
    }

    async fn sessions(&mut self, host: &Host) {
        let description = host.description();
        let Some(units) = description.scale_units.filter(|_| description.subnet.is_some()) else {
            return self
                .report
                .add(Finding::skipped(Link::Sessions, "a shared host does not tell its sessions"));
        };
        let started = Instant::now();
        match self.client.arm.permissions(&description.id).await {
            Ok(permissions) if permissions.allow(LIST_SESSIONS) => {}
            _ => {
                let why = format!("the right {LIST_SESSIONS} is missing, which nothing else needs");
                return self.report.add(Finding::skipped(Link::Sessions, why));
            }
        }
        let listed = timeout(SESSIONS_WITHIN, self.client.sessions(host)).await;
        let took = started.elapsed();
        self.report.add(match listed {
            Err(_) => {
                let why = format!("no list of sessions within {} s", SESSIONS_WITHIN.as_secs());
                Finding::skipped(Link::Sessions, why)
            }
            Ok(Err(error)) => {
                Finding { status: super::Status::Warning, ..Finding::failed(Link::Sessions, took, &error) }
            }
            Ok(Ok(sessions)) => match sessions.crowding() {
                Some(crowding) => {
                    Finding::warning(Link::Sessions, took, crowding.to_string()).with_fix(crowding.hint())
                }
                None => {
                    let says = format!("{} sessions on {units} scale units", sessions.list.len());
                    Finding::ok(Link::Sessions, took, says)
                }
            },
        });
    }

    fn power(&mut self, machine: Option<&VirtualMachine>) {
        let Some(machine) = machine else { return };
        let took = Duration::ZERO;
        self.report.add(match &machine.power {
            PowerState::Running => Finding::ok(Link::Power, took, "the VM runs"),
            PowerState::Unknown => {
                Finding::warning(Link::Power, took, "Azure does not say whether the VM runs")
            }
            PowerState::Off(state) => {
                let id = Box::new(machine.id.clone());
                let error = bastide_relay::Error::VmOff {
                    target: machine.id.display_name(),
                    state: state.clone(),
                    id,
                };
                Finding::failed(Link::Power, took, &error.into())
            }
        });
    }

    /// Both subnets and the interface can have a group, and each of them has to let the connection pass.
    async fn security_groups(&mut self, interface: Option<&NetworkInterface>, host: &Host) {
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

    /// Reports what can't be read: because the right is missing, if that is so.
    async fn unread(&mut self, link: Link, started: Instant, id: &ResourceId, error: bastide_arm::Error) {
        let action = format!("{}/read", id.resource_type());
        let permissions = self.client.arm.permissions(id).await;
        let is_missing = match (&error, &permissions) {
            (bastide_arm::Error::Forbidden { .. }, _) | (_, Err(bastide_arm::Error::Forbidden { .. })) => {
                true
            }
            (_, Ok(permissions)) => !permissions.allow(&action),
            (_, Err(_)) => false,
        };
        if !is_missing {
            return self.fail(link, started, error.into()).await;
        }
        let assignee = self.caller.identity.object_id.as_deref().unwrap_or("OBJECT_ID");
        let finding = Finding::broken(
            link,
            started.elapsed(),
            Fault::Right,
            format!("the right {action} on {id} is missing"),
        );
        let fix = format!("az role assignment create --role Reader --assignee {assignee} --scope {id}");
        self.report.add(finding.with_fix(fix));
    }

    async fn fail(&mut self, link: Link, started: Instant, error: Error) {
        let finding = Finding::failed(link, started.elapsed(), &error);
        blame(self.client, finding, &error, self.report).await;
    }
}

fn is_machine(id: &ResourceId) -> bool {
    matches!(id.kind(), TargetKind::VirtualMachine | TargetKind::ScaleSetInstance)
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
