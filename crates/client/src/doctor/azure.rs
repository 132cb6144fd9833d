//! What Azure Resource Manager knows about a connection: who asks, what may be read, what the Bastion host allows, and
//! whether the VM runs. It leaves out what stands between the two (`between`) and the data plane.

use std::time::Duration;

use bastide_arm::{Located, NetworkInterface, PowerState, Unlocated, VirtualMachine, Wanted};
use bastide_core::{Fault, ResourceId, Target, TargetKind};
use bastide_net::Origin;
use tokio::time::{Instant, timeout};

use super::{Finding, Link, Patient, Place, Report, way};
use crate::sessions::counted;
use crate::{Bastion, Caller, Client, Error, Host, Words};

/// Walks the links that Azure Resource Manager knows; the Bastion host and the VM, if they were found.
pub(super) async fn examine(client: &Client, patient: &Patient, report: &mut Report<'_>) -> Option<Place> {
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
    let (target, bastion) = examination.words().await?;
    let machine = examination.machine(&target).await;
    let interface = examination.interface(machine.as_ref()).await;
    if examination.report.is_past(Link::Bastion) {
        return None;
    }
    let host = examination.bastion(bastion, &target).await?;
    examination.network(interface.as_ref(), &host).await;
    examination.settings(&host, &target);
    examination.sessions(&host).await;
    examination.power(machine.as_ref());
    examination.security_groups(interface.as_ref(), &host).await;
    Some(Place { host, target })
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

/// The links under way.
pub(super) struct Examination<'a, 'b> {
    pub(super) client: &'a Client,
    pub(super) patient: &'a Patient,
    caller: Caller,
    pub(super) report: &'a mut Report<'b>,
}

/// What somebody needs to know of the sessions of a Bastion host, and to end one.
const LIST_SESSIONS: &str = "Microsoft.Network/bastionHosts/getActiveSessions/action";

/// A question about sessions is a long-running operation, which nobody waits for who only wants to be warned.
const SESSIONS_WITHIN: Duration = Duration::from_secs(20);

impl Examination<'_, '_> {
    /// What the words mean: the VM, and the Bastion host or why there is none. Before it stands a subscription whose
    /// tenant takes the token.
    async fn words(&mut self) -> Option<(Target, Result<Bastion, Error>)> {
        let started = Instant::now();
        let located = self.locate().await;
        let (bastion, target) = match &located {
            Ok((target, bastion)) => (bastion.as_ref().ok(), Some(target)),
            Err(Error::Arm(bastide_arm::Error::Unlocated(_))) => (None, None),
            Err(_) => {
                self.fail(Link::Tenant, started, located.err()?).await;
                return None;
            }
        };
        let named = bastion.map(|bastion| bastion.name.as_str());
        self.tenant(self.client.first_subscription(named, target)).await?;
        match located {
            Ok(located) => Some(located),
            Err(error) => {
                self.fail(Link::Vm, started, error).await;
                None
            }
        }
    }

    /// Asks Resource Graph where words are not clear by themselves. Where it knows no Bastion host, it may know the VM.
    async fn locate(&self) -> Result<(Target, Result<Bastion, Error>), Error> {
        let words = &self.patient.words;
        let named =
            || Bastion { name: words.bastion.clone().unwrap_or_default(), group: words.group.clone() };
        if let (Wanted::Target(target), Some(_)) = (&words.target, &words.bastion) {
            return Ok((target.clone(), Ok(named())));
        }
        let error = match self.client.locate(words).await {
            Ok(Located { target, host: Some(id) }) => {
                return Ok((target, Ok(Bastion { name: id.to_string(), group: None })));
            }
            Ok(Located { target, host: None }) => return Ok((target, Ok(named()))),
            Err(error) => error,
        };
        let is_host = matches!(
            error,
            Error::Arm(bastide_arm::Error::Unlocated(
                Unlocated::NoNetwork { .. } | Unlocated::NoHost { .. } | Unlocated::SeveralHosts { .. }
            ))
        );
        match &words.target {
            _ if !is_host => Err(error),
            Wanted::Target(target) => Ok((target.clone(), Err(error))),
            Wanted::Name(_) => {
                // With any name of a Bastion host, the VM alone is looked for.
                let machine = Words { bastion: Some(String::new()), ..words.clone() };
                Ok((self.client.locate(&machine).await?.target, Err(error)))
            }
        }
    }

    async fn tenant(&mut self, words: Option<String>) -> Option<()> {
        let started = Instant::now();
        let Some(words) = words else {
            let says = "no subscription is named, and Azure Resource Manager takes the token";
            self.report.add(Finding::ok(Link::Tenant, started.elapsed(), says));
            return Some(());
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

    async fn machine(&mut self, target: &Target) -> Option<VirtualMachine> {
        let id = match target {
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

    async fn bastion(&mut self, bastion: Result<Bastion, Error>, target: &Target) -> Option<Host> {
        let started = Instant::now();
        let found = match bastion {
            Ok(bastion) => self.client.bastion_host(&bastion, target).await,
            // It is looked for by the VM's network, which the NIC's link has told to be unknown.
            Err(_) if self.report.broken().is_some() => return None,
            Err(error) => Err(error),
        };
        match found {
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

    fn settings(&mut self, host: &Host, target: &Target) {
        let description = host.description();
        match host.plan(target, self.patient.port) {
            Ok(plan) => {
                let ways = match target {
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
        let Some(units) = description.scale_units.filter(|_| !description.sku.has_data_pod()) else {
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
                    let says =
                        format!("{} sessions on {}", sessions.list.len(), counted(units, "scale unit"));
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

    /// Reports what can't be read: because the right is missing, if that is so.
    pub(super) async fn unread(
        &mut self,
        link: Link,
        started: Instant,
        id: &ResourceId,
        error: bastide_arm::Error,
    ) {
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
