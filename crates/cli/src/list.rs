//! `bastide list`: the Bastion hosts and VMs that the caller can reach, as tables for people or lines of JSON for
//! programs. It leaves out finding them.

use bastide::{ListedHost, ListedMachine, PowerState, ResourceId, Topology, json_line};
use serde_json::{Value, json};

use crate::arguments::{Global, List, Listing, Output};
use crate::exit::{Exit, Failure};
use crate::report::{self, Reporter};
use crate::signals::Signals;
use crate::table::table;
use crate::{setup, sys};

/// Asks, and prints.
pub(crate) fn run(global: &Global, list: &List, reporter: &Reporter) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let topology = setup::block_on(runtime, global, async {
        let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
        let stop = signals.stop();
        let asking = async {
            let client = setup::signing_in(global, setup::Attendance::Person, reporter).await?;
            Ok::<_, Failure>(client.survey().await?)
        };
        tokio::select! {
            topology = reporter.while_waiting("Asking Azure …", asking) => topology.map(Ok),
            () = stop.cancelled() => Ok(Err(signals.received().map_or(Exit::Done, Exit::Signal))),
        }
    })?;
    let topology = match topology {
        Ok(topology) => topology,
        Err(exit) => return Ok(exit),
    };
    let is_wanted = |listing| list.what.is_none_or(|wanted| wanted == listing);
    let (hosts, machines) = (sorted_hosts(&topology), sorted_machines(&topology));
    let mut text = String::new();
    match global.output {
        Output::Json => {
            if is_wanted(Listing::Bastions) {
                hosts.iter().for_each(|host| text += &line("bastion", host_json(host)));
            }
            if is_wanted(Listing::Vms) {
                machines.iter().for_each(|machine| text += &line("vm", machine_json(&topology, machine)));
            }
        }
        Output::Text => {
            let width = sys::stdout_columns();
            if is_wanted(Listing::Bastions) {
                text += &hosts_table(&hosts, width);
            }
            if list.what.is_none() && !hosts.is_empty() && !machines.is_empty() {
                text.push('\n');
            }
            if is_wanted(Listing::Vms) {
                text += &machines_table(&topology, &machines, width);
            }
        }
    }
    if text.is_empty() {
        let what = match list.what {
            None => "Bastion host and no VM",
            Some(Listing::Bastions) => "Bastion host",
            Some(Listing::Vms) => "VM",
        };
        reporter.say(&format!("There is no {what} that this sign-in may read"));
    }
    report::print(text.as_bytes())
}

fn line(event: &str, fields: Value) -> String {
    json_line(event, fields) + "\n"
}

fn sorted_hosts(topology: &Topology) -> Vec<&ListedHost> {
    let mut hosts: Vec<_> = topology.hosts().iter().collect();
    hosts.sort_by_key(|host| order(&host.description.id));
    hosts
}

fn sorted_machines(topology: &Topology) -> Vec<&ListedMachine> {
    let mut machines: Vec<_> = topology.machines().iter().collect();
    machines.sort_by_key(|machine| order(&machine.id));
    machines
}

/// By name, as people look for it; instances of a set by their numbers.
fn order(id: &ResourceId) -> (String, u64, String) {
    let name = id.display_name().to_lowercase();
    let number = name.rsplit_once('_').and_then(|(_, number)| number.parse().ok());
    let stem = number.and_then(|_: u64| name.rsplit_once('_')).map_or(name.as_str(), |(stem, _)| stem);
    (stem.to_owned(), number.unwrap_or_default(), id.as_str().to_lowercase())
}

fn hosts_table(hosts: &[&ListedHost], width: Option<usize>) -> String {
    let features = |host: &ListedHost| {
        let settings = &host.description;
        let all = [
            (settings.is_tunneling_on(), "tunneling"),
            (settings.ip_connect, "ip-connect"),
            (settings.session_recording, "recording"),
        ];
        let on: Vec<&str> = all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        if on.is_empty() { "-".to_owned() } else { on.join(",") }
    };
    let rows = hosts.iter().map(|host| {
        let id = &host.description.id;
        let sku = host.description.sku.name();
        vec![
            id.name().into(),
            sku.into(),
            features(host),
            id.group().into(),
            host.location.clone(),
            id.subscription().into(),
        ]
    });
    table(["BASTION", "SKU", "FEATURES", "GROUP", "LOCATION", "SUBSCRIPTION"], rows, width)
}

fn machines_table(topology: &Topology, machines: &[&ListedMachine], width: Option<usize>) -> String {
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let rows = machines.iter().map(|machine| {
        let addresses: Vec<String> = machine.addresses.iter().map(ToString::to_string).collect();
        let hosts: Vec<&str> = topology.hosts_of(machine).map(|host| host.description.id.name()).collect();
        vec![
            machine.id.display_name(),
            power(machine).to_owned(),
            or_none(addresses.join(",")),
            or_none(hosts.join(",")),
            machine.id.group().to_owned(),
            machine.location.clone(),
            machine.id.subscription().to_owned(),
        ]
    });
    table(["VM", "POWER", "ADDRESS", "BASTION", "GROUP", "LOCATION", "SUBSCRIPTION"], rows, width)
}

fn power(machine: &ListedMachine) -> &str {
    match &machine.power {
        PowerState::Running => "running",
        PowerState::Off(state) => state,
        PowerState::Unknown => "unknown",
    }
}

fn host_json(host: &ListedHost) -> Value {
    let settings = &host.description;
    json!({
        "name": settings.id.name(), "id": settings.id.as_str(), "resource_group": settings.id.group(),
        "subscription": settings.id.subscription(), "location": host.location, "sku": settings.sku.name(),
        "tunneling": settings.is_tunneling_on(), "ip_connect": settings.ip_connect,
        "session_recording": settings.session_recording, "provisioning_state": settings.provisioning_state,
    })
}

fn machine_json(topology: &Topology, machine: &ListedMachine) -> Value {
    let bastions: Vec<&str> = topology.hosts_of(machine).map(|host| host.description.id.as_str()).collect();
    let addresses: Vec<String> = machine.addresses.iter().map(ToString::to_string).collect();
    json!({
        "name": machine.id.display_name(), "id": machine.id.as_str(), "resource_group": machine.id.group(),
        "subscription": machine.id.subscription(), "location": machine.location, "power": power(machine),
        "addresses": addresses, "bastions": bastions,
    })
}
