//! Which VM and which Bastion host a user's words mean, out of all that Resource Graph shows; where they mean none or
//! several, an error that names the candidates. Pure. It leaves out what a Bastion host allows ([`Plan`]).

use bastide_core::{Fault, Plan, ResourceId, Target, TargetKind};

use super::query::instance;
use super::topology::{ListedHost, ListedMachine, NetworkKey, Topology, is_machine};

/// The far end of a connection, in a user's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A resource id, or a private address.
    Target(Target),
    /// A VM's name, or `SET_NUMBER` for an instance of a scale set.
    Name(String),
}

impl Wanted {
    /// Reads a resource id, a private address, or else a name.
    ///
    /// # Errors
    /// [`crate::Error::Words`] for a mistake in an id or an address, [`Unlocated::NoName`] for what no VM is called.
    pub fn parse(text: &str) -> Result<Self, crate::Error> {
        let text = text.trim();
        if text.starts_with('/') {
            return Ok(Self::Target(Target::Resource(ResourceId::parse(text)?)));
        }
        // What is made of numbers and dots, or of colons, is meant as an address.
        let is_address = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || text.contains(':');
        if is_address {
            return Ok(Self::Target(Target::address(text)?));
        }
        let is_of_a_name = |c: char| !c.is_whitespace() && !c.is_control() && !FORBIDDEN.contains(c);
        if text.chars().count() > LONGEST_NAME || !text.chars().all(is_of_a_name) {
            return Err(Unlocated::NoName { text: text.to_owned() }.into());
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// learn.microsoft.com, "Naming rules and restrictions for Azure resources", Microsoft.Compute.
const FORBIDDEN: &str = "\\/\"[]:|<>+=;,?*@&";
/// 64 for a VM; an instance's name is longer by `_` and its number.
const LONGEST_NAME: usize = 64 + 11;

/// Words to look for.
#[derive(Debug, Clone)]
pub struct Search {
    /// The VM.
    pub target: Wanted,
    /// The name of the Bastion host; then only the VM is looked for.
    pub bastion: Option<String>,
    /// The Bastion host's resource group.
    pub group: Option<String>,
    /// `--subscription`: by name or id.
    pub subscription: Option<String>,
}

/// What they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The VM, whose name is spelt as the user spelt it.
    pub target: Target,
    /// The Bastion host, unless the user has named it.
    pub host: Option<ResourceId>,
}

/// Why words mean nothing, or too much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unlocated {
    /// Neither a name nor anything else.
    #[error("'{text}' is neither the name of a VM nor a resource id nor a private address")]
    NoName {
        /// What was given.
        text: String,
    },
    /// No such VM.
    #[error("no VM is called '{name}' in the subscriptions that this sign-in may read")]
    NoMachine {
        /// The name.
        name: String,
        /// Names like it, the nearest first.
        near: Vec<String>,
    },
    /// Several VMs of the name.
    #[error("'{name}' is the name of {} VMs: {}", ids.len(), places(ids))]
    SeveralMachines {
        /// The name.
        name: String,
        /// The VMs.
        ids: Vec<ResourceId>,
    },
    /// The network of the target is not to be seen.
    #[error("the virtual network of '{target}' is not known: no network interface of it may be read")]
    NoNetwork {
        /// The VM.
        target: ResourceId,
    },
    /// No Bastion host there.
    #[error("no Bastion host{} reaches '{target}'", wanted(group.as_deref(), subscription.as_deref()))]
    NoHost {
        /// The VM's name, or the address.
        target: String,
        /// The group that was asked for.
        group: Option<String>,
        /// The subscription that was asked for.
        subscription: Option<String>,
        /// Those that do, elsewhere.
        others: Vec<ResourceId>,
    },
    /// Several Bastion hosts.
    #[error("'{target}' is reached by {} Bastion hosts: {}", ids.len(), named_places(ids))]
    SeveralHosts {
        /// The VM's name, or the address.
        target: String,
        /// The Bastion hosts.
        ids: Vec<ResourceId>,
    },
}

impl Unlocated {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Unlocated::NoName { .. } => "`bastide list vms` shows the names of VMs".into(),
            Unlocated::NoMachine { near, .. } if near.is_empty() => {
                "`bastide list vms` shows the VMs that may be read; one in another tenant needs --tenant, and one that \
                 was made a moment ago its id"
                    .into()
            }
            Unlocated::NoMachine { near, .. } => {
                let near: Vec<String> = near.iter().map(|name| format!("'{name}'")).collect();
                format!("is {} meant? `bastide list vms` shows all that may be read", near.join(" or "))
            }
            Unlocated::SeveralMachines { ids, .. } => {
                let apart = match subscriptions_differ(ids) {
                    true => "choose by --subscription, by the Bastion host (--name, --resource-group), or",
                    false => "choose by the Bastion host (--name, --resource-group), or",
                };
                let id = ids.first().map(ResourceId::as_str).unwrap_or_default();
                format!("{apart} name one by its id, such as --target-resource-id {id}")
            }
            Unlocated::NoNetwork { target } if !is_machine(target) => {
                "name the Bastion host with --name BASTION and --resource-group GROUP".into()
            }
            Unlocated::NoNetwork { .. } => {
                "Reader on the VM's network interface is needed, also for connecting; or name the Bastion host with \
                 --name BASTION and --resource-group GROUP"
                    .into()
            }
            Unlocated::NoHost { others, .. } => match others.first() {
                Some(_) => format!("there is {}", named_places(others)),
                None => "a Bastion host in its virtual network, or in one that is peered with it, is needed; one that \
                         may not be read is named with --name BASTION, --resource-group GROUP and --subscription"
                    .into(),
            },
            Unlocated::SeveralHosts { ids, .. } => ids.first().map_or_else(String::new, |id| {
                let subscription = match subscriptions_differ(ids) {
                    true => format!(" --subscription {}", id.subscription()),
                    false => String::new(),
                };
                format!("choose one, such as --name {} --resource-group {}{subscription}", id.name(), id.group())
            }),
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Unlocated::NoName { .. } | Unlocated::SeveralMachines { .. } | Unlocated::SeveralHosts { .. } => {
                Fault::Usage
            }
            Unlocated::NoMachine { .. } | Unlocated::NoHost { .. } => Fault::NotFound,
            Unlocated::NoNetwork { target } if !is_machine(target) => Fault::Usage,
            Unlocated::NoNetwork { .. } => Fault::Right,
        }
    }
}

impl Topology {
    /// What a search means; its subscription is an id by now.
    pub(super) fn locate(&self, search: &Search) -> Result<Located, Unlocated> {
        let (target, networks) = match &search.target {
            Wanted::Name(name) => {
                let machine = self.machine(name, search)?;
                (Target::Resource(spelt(&machine.id, name)), machine.networks)
            }
            Wanted::Target(Target::Resource(id)) => {
                (Target::Resource(id.clone()), self.networks_of_machine(id))
            }
            Wanted::Target(Target::Address(address)) => {
                (Target::Address(*address), self.networks_of(*address))
            }
        };
        if search.bastion.is_some() {
            return Ok(Located { target, host: None });
        }
        if let (true, Target::Resource(id)) = (networks.is_empty(), &target) {
            return Err(Unlocated::NoNetwork { target: id.clone() });
        }
        let host = self.host(&target, &networks, search)?;
        Ok(Located { target, host: Some(host) })
    }

    /// The VM of a name. Of several, those that the other words fit.
    fn machine(&self, name: &str, search: &Search) -> Result<ListedMachine, Unlocated> {
        let mut found: Vec<ListedMachine> = self
            .machines
            .iter()
            .filter(|machine| machine.id.display_name().eq_ignore_ascii_case(name))
            .cloned()
            .collect();
        if let Some((set, number)) = instance(name) {
            let sets = self.scale_sets.iter().filter(|(id, _)| id.name().eq_ignore_ascii_case(set));
            found.extend(sets.filter_map(|(id, networks)| {
                let id = ResourceId::parse(&format!("{id}/virtualMachines/{number}")).ok()?;
                (id.kind() == TargetKind::ScaleSetInstance).then(|| ListedMachine {
                    id,
                    power: crate::PowerState::Unknown,
                    location: String::new(),
                    addresses: Vec::new(),
                    networks: networks.clone(),
                })
            }));
        }
        if found.is_empty() {
            return Err(Unlocated::NoMachine { name: name.to_owned(), near: Vec::new() });
        }
        if let Some(subscription) = &search.subscription {
            keep_if_any(&mut found, |one| one.id.subscription().eq_ignore_ascii_case(subscription));
        }
        if search.bastion.is_some() || search.group.is_some() || search.subscription.is_some() {
            keep_if_any(&mut found, |one| self.hosts_of(one).any(|host| search.fits(&host.description.id)));
        }
        match found.pop() {
            Some(only) if found.is_empty() => Ok(only),
            last => {
                found.extend(last);
                let ids = found.into_iter().map(|machine| machine.id).collect();
                Err(Unlocated::SeveralMachines { name: name.to_owned(), ids })
            }
        }
    }

    fn networks_of_machine(&self, id: &ResourceId) -> Vec<NetworkKey> {
        let machine = self.machines.iter().find(|machine| machine.id == *id).map(|one| &one.networks);
        let set = || {
            let above = ResourceId::parse(id.as_str().rsplitn(3, '/').last()?).ok()?;
            self.scale_sets.iter().find(|(known, _)| *known == above).map(|(_, networks)| networks)
        };
        machine.or_else(set).cloned().unwrap_or_default()
    }

    /// The Bastion host for a target. Of several, those that can carry a native client at all.
    fn host(
        &self,
        target: &Target,
        networks: &[NetworkKey],
        search: &Search,
    ) -> Result<ResourceId, Unlocated> {
        let all: Vec<&ListedHost> = self.hosts.iter().filter(|host| self.reaches(host, networks)).collect();
        let mut fitting: Vec<&ListedHost> =
            all.iter().copied().filter(|host| search.fits(&host.description.id)).collect();
        keep_if_any(&mut fitting, |host| Plan::new(&host.description, target, ANY_PORT).is_ok());
        let ids = |hosts: &[&ListedHost]| hosts.iter().map(|host| host.description.id.clone()).collect();
        match fitting.as_slice() {
            [only] => Ok(only.description.id.clone()),
            [] => Err(Unlocated::NoHost {
                target: target.display_name(),
                group: search.group.clone(),
                subscription: search.subscription.clone(),
                others: ids(&all),
            }),
            several => Err(Unlocated::SeveralHosts { target: target.display_name(), ids: ids(several) }),
        }
    }
}

/// One that every Bastion host opens: ports are the plan's business later.
const ANY_PORT: u16 = 22;

impl Search {
    /// Whether a Bastion host is one of those that are asked for.
    fn fits(&self, id: &ResourceId) -> bool {
        let is = |wanted: &Option<String>, value: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted.trim().eq_ignore_ascii_case(value))
        };
        let named = match self.bastion.as_deref().map(str::trim) {
            Some(whole) if whole.starts_with('/') => return whole.eq_ignore_ascii_case(id.as_str()),
            _ => is(&self.bastion, id.name()),
        };
        named && is(&self.group, id.group()) && is(&self.subscription, id.subscription())
    }
}

/// Names like one that nothing has, the nearest first.
pub(super) fn near(name: &str, topology: &Topology) -> Vec<String> {
    let name = name.to_lowercase();
    let mut near: Vec<(usize, String)> = Vec::new();
    for known in topology.machines.iter().map(|machine| machine.id.display_name()) {
        let lower = known.to_lowercase();
        let distance = strsim::damerau_levenshtein(&name, &lower);
        let is_part = name.len() >= SHORTEST_PART && lower.contains(&name);
        if (distance <= (name.len() / 3).clamp(1, NEAR) || is_part)
            && !near.iter().any(|(_, one)| *one == known)
        {
            near.push((distance, known));
        }
    }
    near.sort();
    near.into_iter().map(|(_, known)| known).take(MOST_NEAR).collect()
}

/// Letters that a slip of the fingers changes; a third of a short name, or everything would be like it.
const NEAR: usize = 3;
/// A part of a name that says something.
const SHORTEST_PART: usize = 3;
/// Names that a hint can hold.
const MOST_NEAR: usize = 3;

fn keep_if_any<T>(list: &mut Vec<T>, keep: impl Fn(&T) -> bool) {
    if list.len() > 1 && list.iter().any(&keep) {
        list.retain(keep);
    }
}

/// The id of a VM that is called `name` in any case, with the name as the user has written it: `Host` lines of
/// ssh_config(5) match that. An id of any other stays as it is.
pub fn spelt(id: &ResourceId, name: &str) -> ResourceId {
    let text = id.as_str();
    let respelt = match (id.kind(), instance(name)) {
        (TargetKind::ScaleSetInstance, Some((set, _))) => {
            let mut segments: Vec<&str> = text.split('/').collect();
            let place = segments.len().checked_sub(3).and_then(|at| segments.get_mut(at));
            place.map(|place| *place = set).map(|()| segments.join("/"))
        }
        _ => text.rsplit_once('/').map(|(above, _)| format!("{above}/{name}")),
    };
    respelt
        .and_then(|text| ResourceId::parse(&text).ok())
        .filter(|new| new == id)
        .unwrap_or_else(|| id.clone())
}

fn subscriptions_differ(ids: &[ResourceId]) -> bool {
    ids.windows(2).any(|pair| match pair {
        [one, other] => !one.subscription().eq_ignore_ascii_case(other.subscription()),
        _ => false,
    })
}

/// Where they are: by their groups, and by their subscriptions where those differ.
fn places(ids: &[ResourceId]) -> String {
    listed(ids, |_| String::new())
}

fn named_places(ids: &[ResourceId]) -> String {
    listed(ids, |id| format!("'{}' ", id.name()))
}

fn listed(ids: &[ResourceId], name: impl Fn(&ResourceId) -> String) -> String {
    let differ = subscriptions_differ(ids);
    let place = |id: &ResourceId| {
        let subscription =
            if differ { format!(" of subscription {}", id.subscription()) } else { String::new() };
        format!("{}in resource group '{}'{subscription}", name(id), id.group())
    };
    let mut places: Vec<String> = ids.iter().take(MOST_LISTED).map(place).collect();
    if let Some(more) = ids.len().checked_sub(MOST_LISTED).filter(|more| *more > 0) {
        places.push(format!("and {more} more"));
    }
    places.join(", ")
}

/// Candidates that a message can hold.
const MOST_LISTED: usize = 10;

fn wanted(group: Option<&str>, subscription: Option<&str>) -> String {
    let group = group.map_or_else(String::new, |group| format!(" in resource group '{group}'"));
    subscription.map_or(group.clone(), |subscription| format!("{group} of subscription {subscription}"))
}
