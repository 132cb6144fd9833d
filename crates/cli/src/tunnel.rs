//! `bastide tunnel`: local endpoints that lead to ports of a VM (cli.md, "Output"). It leaves out listening and
//! carrying.

use std::net::SocketAddr;

use bastide::{Endpoint, Forward, PeerPolicy, Relay, RelayOptions, Stopped, Tunnel, TunnelOptions};
use serde_json::json;

use crate::arguments::{self, Global};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::setup::{self, FirstWord};
use crate::signals::Signals;
use crate::sys;

/// Opens the tunnel and serves until a signal or a time limit.
pub(crate) fn run(global: &Global, tunnel: arguments::Tunnel, reporter: &Reporter) -> Result<Exit, Failure> {
    sys::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    setup::block_on(runtime, serve(global, tunnel, reporter))
}

async fn serve(global: &Global, arguments: arguments::Tunnel, reporter: &Reporter) -> Result<Exit, Failure> {
    let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
    let stop = signals.stop();
    let wanted = wanted(&arguments)?;
    let mut relays = Vec::new();
    let opened = tokio::select! {
        opened = open(global, &arguments, &wanted, reporter, &mut relays) => Some(opened),
        () = stop.cancelled() => None,
    };
    let forwards = match opened {
        Some(Ok(forwards)) => forwards,
        // What was minted for those that could be opened, or is being minted, goes back.
        Some(Err(failure)) => {
            warn_of_leaks(setup::give_back(&relays).await, reporter);
            return Err(failure);
        }
        None => {
            report_stopped(setup::give_back(&relays).await, reporter);
            return Ok(signals.received().map_or(Exit::Done, Exit::Signal));
        }
    };
    let options = TunnelOptions {
        peers: if arguments.local.allow_other_users { PeerPolicy::Anyone } else { PeerPolicy::SameUser },
        ..setup::tunnel_options(&arguments.behaviour)
    };
    let Stopped { cause, leaked } = Tunnel::new(forwards, options).run(stop).await;
    report_stopped(leaked, reporter);
    Ok(setup::limit_reached(cause, reporter)
        .unwrap_or_else(|| signals.received().map_or(Exit::Done, Exit::Signal)))
}

fn report_stopped(leaked: u64, reporter: &Reporter) {
    reporter.event("stopped", json!({"leaked": leaked}));
    warn_of_leaks(leaked, reporter);
}

fn warn_of_leaks(leaked: u64, reporter: &Reporter) {
    if leaked > 0 {
        reporter.warn(&format!(
            "{leaked} tokens could not be given back; the next bastide tries again, and the service ends them by itself"
        ));
    }
}

/// The endpoints asked for, and the VM's port behind each.
fn wanted(arguments: &arguments::Tunnel) -> Result<Vec<(Endpoint, u16)>, Failure> {
    let first = arguments.local.resource_port.map(|resource_port| {
        let address = SocketAddr::new(arguments.local.bind, arguments.local.port.unwrap_or(0));
        (Endpoint::Tcp(address), resource_port)
    });
    let further =
        arguments.local.forward.iter().map(|spec| (spec.endpoint(arguments.local.bind), spec.remote_port));
    let all: Vec<_> = first.into_iter().chain(further).collect();
    if all.is_empty() {
        return Err(Failure::usage("no port of the VM is named", "name it with --resource-port PORT"));
    }
    match all.iter().find(|(endpoint, _)| !endpoint.is_local()) {
        Some((endpoint, _)) if !arguments.local.allow_other_users => Err(Failure::usage(
            format!("{endpoint} can be reached from other machines"),
            "everybody there could use the tunnel: if that is meant, say --allow-other-users",
        )),
        _ => Ok(all),
    }
}

/// Opens every endpoint, and proves each by a mint. The relays that it has made are in `relays` whatever happens.
async fn open(
    global: &Global,
    arguments: &arguments::Tunnel,
    wanted: &[(Endpoint, u16)],
    reporter: &Reporter,
    relays: &mut Vec<Relay>,
) -> Result<Vec<Forward>, Failure> {
    let mut found = setup::find(global, &arguments.place, &arguments.behaviour, reporter).await?;
    let mut forwards = Vec::new();
    for (endpoint, port) in wanted {
        let prefetch = usize::from(arguments.prefetch);
        let options = setup::relay_options(&arguments.behaviour, FirstWord::on(*port));
        let options = RelayOptions { prefetch, ..options };
        let (_, relay) = setup::relay(&mut found, *port, options, reporter).await?;
        relays.push(relay.clone());
        let forward = Forward::open(endpoint, relay.clone()).await?;
        reporter.event("listening", json!({"address": forward.endpoint().to_string()}));
        reporter.say(&format!("Opening tunnel on {}", words(forward.endpoint())));
        if !forward.endpoint().is_local() {
            reporter.warn(&format!("{} can be reached from other machines", forward.endpoint()));
        }
        forwards.push((forward, relay));
    }
    for (forward, relay) in &forwards {
        reporter.while_waiting(setup::WAITING, relay.prepare(setup::PROOF_KEPT)).await?;
        reporter.event("ready", json!({"address": forward.endpoint().to_string()}));
        reporter.say(&format!(
            "Tunnel is ready, connect on {}",
            words(forward.endpoint()).replacen(": ", " ", 1)
        ));
    }
    reporter.say("Ctrl + C to close");
    Ok(forwards.into_iter().map(|(forward, _)| forward).collect())
}

/// As the reference client words it, for scripts that look for it: `port: N`.
fn words(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp(address) => format!("port: {}", address.port()),
        Endpoint::Unix(path) => format!("socket: {}", path.display()),
    }
}
