//! All tunnels of a file: opened together, stopped one by one, and changed while they run. It leaves out the file, and
//! telling of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;

use bastide::{
    Dues, Environment, Forward, Inherited, PeerPolicy, Relay, RelayOptions, Seats, StopCause, Stopped,
    Tunnel, TunnelOptions,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::status::{Phase, Status};
use crate::arguments::{self, Command, Global, Words};
use crate::exit::Failure;
use crate::report::Reporter;
use crate::setup::{self, FirstWord};
use crate::tunnel;

/// What runs.
pub(super) struct Fleet {
    environment: Environment,
    /// Flags of `up` that every tunnel has.
    globals: Vec<String>,
    dues: Dues,
    reporter: Reporter,
    running: BTreeMap<String, Running>,
    /// Ends with the name of the tunnel.
    tasks: JoinSet<(String, Stopped)>,
    leaked: u64,
    /// One room for the connections of all.
    seats: Seats,
}

struct Running {
    words: Vec<String>,
    status: Arc<Status>,
    stop: CancellationToken,
}

/// A tunnel whose listeners are open; nobody is served yet.
struct Prepared {
    name: String,
    words: Vec<String>,
    forwards: Vec<Forward>,
    options: TunnelOptions,
    status: Arc<Status>,
}

/// What a new file has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) added: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
    /// Those that had to wait for the place of another one, and then did not get it.
    pub(super) failed: Vec<String>,
}

impl Fleet {
    pub(super) fn new(globals: Vec<String>, dues: &Dues, reporter: &Reporter) -> Self {
        Self {
            environment: Environment::of_process(),
            globals,
            dues: dues.clone(),
            reporter: reporter.clone(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            leaked: 0,
            seats: Seats::default(),
        }
    }

    /// Whether each of them means something; what `up --check` asks.
    pub(super) fn check(&self, wanted: &BTreeMap<String, Vec<String>>) -> Result<(), Failure> {
        let mut taken = BTreeMap::new();
        for (name, words) in wanted {
            let (_, arguments) = self.parse(name, words)?;
            for (endpoint, _) in tunnel::wanted(&arguments.local)? {
                let text = endpoint.to_string();
                if text.ends_with(":0") {
                    continue;
                }
                if let Some(other) = taken.insert(text, name) {
                    return Err(Failure::usage(
                        format!("'{other}' and '{name}' both want to listen on {endpoint}"),
                        "give one of them another port",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Makes what runs what `wanted` says. What is the same in both keeps its listeners and connections; what is gone or
    /// different is stopped, its connections with it. Sockets of `inherited` are taken by the tunnels of their names.
    ///
    /// # Errors
    /// When a new tunnel can't listen; then everything is as it was. One whose place is free only when another one has
    /// stopped can't be tried before: if that fails, it is among the [`Changes::failed`].
    ///
    /// Not cancel safe: what has stopped has stopped. [`Fleet::close`] ends the rest.
    pub(super) async fn apply(
        &mut self,
        wanted: BTreeMap<String, Vec<String>>,
        inherited: &mut BTreeMap<String, Vec<Inherited>>,
    ) -> Result<Changes, Failure> {
        self.check(&wanted)?;
        let mut changes = Changes::default();
        for (name, running) in &self.running {
            match wanted.get(name) {
                None => changes.removed.push(name.clone()),
                Some(words) if *words != running.words => changes.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        let going: BTreeSet<String> = changes.removed.iter().chain(&changes.changed).cloned().collect();
        let held: BTreeSet<String> = going.iter().flat_map(|name| self.listens_on(name)).collect();
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for (name, words) in wanted {
            if self.running.contains_key(&name) && !going.contains(&name) {
                continue;
            }
            if !self.running.contains_key(&name) {
                changes.added.push(name.clone());
            }
            let (_, arguments) = self.parse(&name, &words)?;
            // Its place is free when the one before it is gone.
            let waits = tunnel::wanted(&arguments.local)?
                .iter()
                .any(|(endpoint, _)| held.contains(&endpoint.to_string()));
            if waits { later.push((name, words)) } else { now.push((name, words)) }
        }
        let mut prepared = Vec::new();
        for (name, words) in now {
            let sockets = inherited.remove(&name).unwrap_or_default();
            prepared.push(self.prepare(name, words, sockets).await?);
        }
        self.stop(&going).await;
        for (name, words) in later {
            match self.prepare(name.clone(), words, Vec::new()).await {
                Ok(tunnel) => prepared.push(tunnel),
                Err(failure) => {
                    self.reporter.for_tunnel(&name, None).failure(&failure);
                    changes.added.retain(|added| *added != name);
                    changes.changed.retain(|changed| *changed != name);
                    changes.failed.push(name);
                }
            }
        }
        for tunnel in prepared {
            self.run(tunnel);
        }
        Ok(changes)
    }

    /// What there is to tell of each.
    pub(super) fn statuses(&self) -> BTreeMap<String, Arc<Status>> {
        self.running.iter().map(|(name, running)| (name.clone(), Arc::clone(&running.status))).collect()
    }

    /// Waits until a time limit of the user's ends one of them; none when no one is left. Cancel safe.
    pub(super) async fn ended(&mut self) -> Option<()> {
        let Ok((name, stopped)) = self.tasks.join_next().await? else { return Some(()) };
        self.leaked += stopped.leaked;
        let reporter = self.reporter.for_tunnel(&name, None);
        setup::limit_reached(stopped.cause, &reporter);
        if let Some(running) = self.running.get(&name).filter(|_| stopped.cause != StopCause::Asked) {
            running.status.set(Phase::Ended);
        }
        Some(())
    }

    /// Ends all of them; how many tokens were not given back.
    pub(super) async fn close(mut self) -> u64 {
        for running in self.running.values() {
            running.stop.cancel();
        }
        while let Some(ended) = self.tasks.join_next().await {
            self.leaked += ended.map_or(0, |(_, stopped)| stopped.leaked);
        }
        self.leaked
    }

    async fn stop(&mut self, names: &BTreeSet<String>) {
        for name in names {
            if let Some(running) = self.running.remove(name) {
                running.stop.cancel();
            }
        }
        let mut left = names.clone();
        let mut others = Vec::new();
        while !left.is_empty() {
            match self.tasks.join_next().await {
                Some(Ok((name, stopped))) => {
                    self.leaked += stopped.leaked;
                    if !left.remove(&name) {
                        others.push(name);
                    }
                }
                Some(Err(_)) => {}
                // Those that a time limit has ended before.
                None => break,
            }
        }
        for name in others {
            if let Some(running) = self.running.get(&name) {
                running.status.set(Phase::Ended);
            }
        }
    }

    fn listens_on(&self, name: &str) -> Vec<String> {
        let endpoints = self.running.get(name).map(|running| &running.status.endpoints);
        endpoints.into_iter().flatten().map(ToString::to_string).collect()
    }

    /// The flags of a tunnel, those of the user's configuration among them.
    fn parse(&self, name: &str, words: &[String]) -> Result<(Global, arguments::Tunnel), Failure> {
        let line = [OsString::from("bastide")].into_iter().chain(self.globals.iter().map(OsString::from));
        let line = line.chain([OsString::from("tunnel")]).chain(words.iter().map(OsString::from));
        match Words::new(line.collect()).configured(&self.environment) {
            Ok((Command::Tunnel(tunnel), global)) => {
                Ok((Global { dues: self.dues.clone(), ..global }, tunnel))
            }
            Ok(_) => Err(Failure::usage(format!("'{name}' is no tunnel"), "see `bastide up --help`")),
            Err(failure) => {
                Err(Failure::usage(format!("tunnel '{name}': {failure}"), failure.hint().unwrap_or_default()))
            }
        }
    }

    async fn prepare(
        &self,
        name: String,
        words: Vec<String>,
        inherited: Vec<Inherited>,
    ) -> Result<Prepared, Failure> {
        let (global, arguments) = self.parse(&name, &words)?;
        let endpoints = tunnel::wanted(&arguments.local)?;
        let peers = if arguments.local.allow_other_users { PeerPolicy::Anyone } else { PeerPolicy::SameUser };
        let seats = self.seats.clone();
        let options = TunnelOptions { peers, seats, ..setup::tunnel_options(&arguments.behaviour) };
        let way = Arc::new(Way { global, arguments, reporter: self.reporter.clone(), name: name.clone() });
        let telling = Arc::new(std::sync::OnceLock::<Arc<Status>>::new());
        let mut forwards = Vec::new();
        let mut sockets = inherited.into_iter();
        for (endpoint, port) in endpoints {
            let (way, telling) = (Arc::clone(&way), Arc::clone(&telling));
            let open = move || {
                let (way, status) = (Arc::clone(&way), telling.get().cloned());
                async move { way.open(port, status?).await }
            };
            let forward = match sockets.next() {
                Some(socket) => Forward::inherited(socket, open),
                None => Forward::lazily(&endpoint, open).await,
            };
            let forward = forward.map_err(|error| named(&name, error))?;
            // A socket that was handed over may be open to everybody.
            if !forward.endpoint().is_local() && peers == PeerPolicy::SameUser {
                return Err(Failure::usage(
                    format!("tunnel '{name}': {} can be reached from other machines", forward.endpoint()),
                    "everybody there could use the tunnel: if that is meant, say allow-other-users = true",
                ));
            }
            forwards.push(forward);
        }
        let status = Arc::new(Status::new(
            forwards.iter().map(|forward| forward.endpoint().clone()).collect(),
            forwards.iter().map(Forward::meter).collect(),
        ));
        // The first time; nobody is served before.
        telling.get_or_init(|| Arc::clone(&status));
        Ok(Prepared { name, words, forwards, options, status })
    }

    fn run(&mut self, prepared: Prepared) {
        let Prepared { name, words, forwards, options, status } = prepared;
        let reporter = self.reporter.for_tunnel(&name, None);
        for endpoint in &status.endpoints {
            reporter.event("listening", json!({"address": endpoint.to_string()}));
            reporter.progress(&format!("listening on {endpoint}"));
            if !endpoint.is_local() {
                reporter.warn(&format!("{endpoint} can be reached from other machines"));
            }
        }
        let stop = CancellationToken::new();
        let tunnel = Tunnel::new(forwards, options);
        let (token, label) = (stop.clone(), name.clone());
        self.tasks.spawn(async move { (label, tunnel.run(token).await) });
        self.running.insert(name, Running { words, status, stop });
    }
}

fn named(name: &str, error: bastide::Error) -> Failure {
    let hint = error.hint().unwrap_or_default();
    Failure::usage(format!("tunnel '{name}': {error}"), hint)
}

/// How a tunnel gets to its VM.
struct Way {
    global: Global,
    arguments: arguments::Tunnel,
    reporter: Reporter,
    name: String,
}

impl Way {
    /// Signs in, looks for the VM, and tells how that went.
    async fn open(&self, port: u16, status: Arc<Status>) -> Option<Relay> {
        let heard = Arc::clone(&status);
        let reporter = self.reporter.for_tunnel(&self.name, Some(Arc::new(move |event| heard.hear(event))));
        status.set(Phase::Connecting);
        reporter.progress("connecting");
        let arguments = &self.arguments;
        let finding = async {
            let mut found =
                setup::find(&self.global, &arguments.place, &arguments.behaviour, &reporter).await?;
            let options = setup::relay_options(&arguments.behaviour, FirstWord::on(port));
            let options = RelayOptions { prefetch: usize::from(arguments.prefetch), ..options };
            setup::relay(&mut found, port, options, &reporter).await
        };
        match finding.await {
            Ok(relay) => {
                status.set(Phase::Ready);
                reporter.event("ready", json!({"port": port}));
                reporter.progress("ready");
                Some(relay)
            }
            Err(failure) => {
                status.failed(&failure);
                reporter.failure(&failure);
                None
            }
        }
    }
}
