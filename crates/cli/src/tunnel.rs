//! `bastide tunnel`: local endpoints that lead to ports of a VM (cli.md, "Output"), which `bastide exec` opens too. It
//! leaves out listening and carrying.

use std::net::SocketAddr;

use bastide::{
    Endpoint, Forward, PROOF_KEPT, PeerPolicy, Relay, RelayOptions, StopCause, Stopped, Tunnel, TunnelOptions,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::arguments::{self, Behaviour, Global, LocalSide, Place};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::setup::{self, FirstWord, Found};
use crate::signals::Signals;
use crate::sys;

/// Opens the tunnel and serves until a signal or a time limit.
pub(crate) fn run(global: &Global, tunnel: arguments::Tunnel, reporter: &Reporter) -> Result<Exit, Failure> {
    sys::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    setup::block_on(runtime, global, serve(global, tunnel, reporter))
}

async fn serve(global: &Global, arguments: arguments::Tunnel, reporter: &Reporter) -> Result<Exit, Failure> {
    let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
    let order = Order {
        place: &arguments.place,
        local: &arguments.local,
        behaviour: &arguments.behaviour,
        prefetch: arguments.prefetch,
        say: Reporter::say,
    };
    let by_signal = || signals.received().map_or(Exit::Done, Exit::Signal);
    let Some(ready) = order.open(global, &signals.stop(), reporter).await? else { return Ok(by_signal()) };
    reporter.say("Ctrl + C to close");
    let cause = ready.serve(signals.stop(), reporter).await;
    Ok(setup::limit_reached(cause, reporter).unwrap_or_else(by_signal))
}

/// A tunnel as it is wanted.
pub(crate) struct Order<'a> {
    pub(crate) place: &'a Place,
    pub(crate) local: &'a LocalSide,
    pub(crate) behaviour: &'a Behaviour,
    pub(crate) prefetch: u8,
    /// How a person hears of it.
    pub(crate) say: fn(&Reporter, &str),
}

/// A tunnel whose every forwarding has been proved by a mint. Nobody is served yet.
pub(crate) struct Ready {
    forwards: Vec<Forward>,
    options: TunnelOptions,
}

impl Order<'_> {
    /// The local address of the first forwarding that has a port, as it is asked for.
    pub(crate) fn first_port(&self) -> Result<Option<SocketAddr>, Failure> {
        Ok(wanted(self.local)?.iter().find_map(|(endpoint, _)| match endpoint {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Unix(_) => None,
        }))
    }

    /// Opens every endpoint, and proves each by a mint. None when `stop` came first. What was minted for a tunnel that
    /// does not come about is given back.
    pub(crate) async fn open(
        &self,
        global: &Global,
        stop: &CancellationToken,
        reporter: &Reporter,
    ) -> Result<Option<Ready>, Failure> {
        // What is wrong with the words is told before anything is sent.
        wanted(self.local)?;
        let mut found = tokio::select! {
            found = setup::find(global, self.place, self.behaviour, reporter) => found?,
            () = stop.cancelled() => {
                report_stopped(0, reporter);
                return Ok(None);
            }
        };
        self.open_on(&mut found, stop, reporter).await
    }

    /// The same where Bastion host and VM are known.
    pub(crate) async fn open_on(
        &self,
        found: &mut Found,
        stop: &CancellationToken,
        reporter: &Reporter,
    ) -> Result<Option<Ready>, Failure> {
        let wanted = wanted(self.local)?;
        let mut relays = Vec::new();
        let opened = tokio::select! {
            opened = self.prove(found, &wanted, reporter, &mut relays) => Some(opened),
            () = stop.cancelled() => None,
        };
        match opened {
            Some(Ok(forwards)) => Ok(Some(Ready { forwards, options: self.options() })),
            Some(Err(failure)) => {
                warn_of_leaks(setup::give_back(&relays).await, reporter);
                Err(failure)
            }
            None => {
                report_stopped(setup::give_back(&relays).await, reporter);
                Ok(None)
            }
        }
    }

    /// The relays whose way is open are in `relays` whatever happens.
    async fn prove(
        &self,
        found: &mut Found,
        wanted: &[(Endpoint, u16)],
        reporter: &Reporter,
        relays: &mut Vec<Relay>,
    ) -> Result<Vec<Forward>, Failure> {
        let mut forwards = Vec::new();
        for (endpoint, port) in wanted {
            let prefetch = usize::from(self.prefetch);
            let options = setup::relay_options(self.behaviour, FirstWord::on(*port));
            let options = RelayOptions { prefetch, ..options };
            let relay = setup::relay(found, *port, options, reporter).await?;
            relays.push(relay.clone());
            let forward = Forward::open(endpoint, relay.clone()).await?;
            reporter.event("listening", json!({"address": forward.endpoint().to_string()}));
            (self.say)(reporter, &format!("Opening tunnel on {}", words(forward.endpoint())));
            if !forward.endpoint().is_local() {
                reporter.warn(&format!("{} can be reached from other machines", forward.endpoint()));
            }
            forwards.push((forward, relay));
        }
        for (forward, relay) in &forwards {
            reporter.while_waiting(setup::WAITING, relay.prepare(PROOF_KEPT)).await?;
            reporter.event("ready", json!({"address": forward.endpoint().to_string()}));
            let place = words(forward.endpoint()).replacen(": ", " ", 1);
            (self.say)(reporter, &format!("Tunnel is ready, connect on {place}"));
        }
        Ok(forwards.into_iter().map(|(forward, _)| forward).collect())
    }

    fn options(&self) -> TunnelOptions {
        let peers = if self.local.allow_other_users { PeerPolicy::Anyone } else { PeerPolicy::SameUser };
        TunnelOptions { peers, ..setup::tunnel_options(self.behaviour) }
    }
}

/// The endpoints that are asked for, and the VM's port behind each.
pub(crate) fn wanted(local: &LocalSide) -> Result<Vec<(Endpoint, u16)>, Failure> {
    let first = local.resource_port.map(|resource_port| {
        let address = SocketAddr::new(local.bind, local.port.unwrap_or(0));
        (Endpoint::Tcp(address), resource_port)
    });
    let further = local.forward.iter().map(|spec| (spec.endpoint(local.bind), spec.remote_port));
    let all: Vec<_> = first.into_iter().chain(further).collect();
    if all.is_empty() {
        return Err(Failure::usage("no port of the VM is named", "name it with --resource-port PORT"));
    }
    match all.iter().find(|(endpoint, _)| !endpoint.is_local()) {
        Some((endpoint, _)) if !local.allow_other_users => Err(Failure::usage(
            format!("{endpoint} can be reached from other machines"),
            "everybody there could use the tunnel: if that is meant, say --allow-other-users",
        )),
        _ => Ok(all),
    }
}

impl Ready {
    /// Where it listens.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.forwards.iter().map(Forward::endpoint)
    }

    /// Serves until `stop` or a time limit, gives everything back, and says so.
    pub(crate) async fn serve(self, stop: CancellationToken, reporter: &Reporter) -> StopCause {
        let Stopped { cause, leaked } = Tunnel::new(self.forwards, self.options).run(stop).await;
        report_stopped(leaked, reporter);
        cause
    }
}

pub(crate) fn report_stopped(leaked: u64, reporter: &Reporter) {
    reporter.event("stopped", json!({"leaked": leaked}));
    warn_of_leaks(leaked, reporter);
}

/// Says how many tokens are still out, if any are.
pub(crate) fn warn_of_leaks(leaked: u64, reporter: &Reporter) {
    if leaked > 0 {
        reporter.warn(&format!(
            "{leaked} tokens could not be given back; the next bastide tries again, and the service ends them by itself"
        ));
    }
}

/// As the reference client words it, for scripts that look for it: `port: N`.
fn words(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp(address) => format!("port: {}", address.port()),
        Endpoint::Unix(path) => format!("socket: {}", path.display()),
    }
}
