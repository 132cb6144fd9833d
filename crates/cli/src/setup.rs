//! From arguments and environment to a client, a plan and a relay: what `ssh`, `tunnel` and `proxy` share. It
//! leaves out what each does with them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bastide::{
    Bastion, Client, CloudChoice, Environment, Fault, Host, Keepalive, NetworkOptions, Plan, Prompt,
    ProxyRules, Relay, RelayOptions, ResourceId, RetryPolicy, Settings, StopCause, Store, Target,
    TcpKeepalive, TunnelOptions, Wanted, Words,
};

use bastide::plugin::Asker;
use tokio::time::Instant;

pub(crate) use bastide::FirstWord;

use crate::arguments::{self, Behaviour, Global, Place};
use crate::asking::Terminal;
use crate::exit::{Exit, Failure};
use crate::login::Page;
use crate::report::Reporter;
use crate::sys;

/// A client as the flags and the environment describe it.
async fn client(
    global: &Global,
    place: &Place,
    behaviour: &Behaviour,
    reporter: &Reporter,
) -> Result<Client, Failure> {
    Ok(Client::new(settings(global, place, behaviour, reporter)?).await?)
}

/// What a client is told by the flags and the environment.
pub(crate) fn settings(
    global: &Global,
    place: &Place,
    behaviour: &Behaviour,
    reporter: &Reporter,
) -> Result<Settings, Failure> {
    of_environment(global, behaviour.keepalive, place.subscription.clone(), Attendance::Person, reporter)
}

/// Whether there is somebody who could be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attendance {
    Person,
    Nobody,
}

/// A client for what concerns no Bastion host.
pub(crate) async fn signing_in(
    global: &Global,
    attendance: Attendance,
    reporter: &Reporter,
) -> Result<Client, Failure> {
    let settings = of_environment(global, arguments::Keepalive::Ping, None, attendance, reporter)?;
    Ok(Client::new(settings).await?)
}

/// A client, and the Bastion host that the flags name, or that reaches the VM that they name.
pub(crate) async fn host(
    global: &Global,
    place: &Place,
    reporter: &Reporter,
) -> Result<(Client, Host), Failure> {
    let named = Bastion::parse(place.name.as_deref(), place.resource_group.as_deref());
    let names_a_vm = place.target.is_some() || place.target_resource_id.is_some();
    let words = names_a_vm.then(|| words(global, place)).transpose()?;
    let settings = of_environment(
        global,
        arguments::Keepalive::Ping,
        place.subscription.clone(),
        Attendance::Person,
        reporter,
    )?;
    let looking = async {
        let client = Client::new(settings).await?;
        let host = match (named, words) {
            (Err(_), Some(words)) => client.find(&words).await?.host,
            (named, _) => client.named_host(&named?).await?,
        };
        Ok((client, host))
    };
    reporter.while_waiting("Signing in and looking for the Bastion host …", looking).await
}

/// Where sign-ins are kept.
pub(crate) fn store(global: &Global, environment: &Environment) -> Store {
    if global.no_cache { Store::in_memory() } else { Store::of_user(environment) }
}

/// Where the places of VMs are kept.
fn places(global: &Global) -> Option<PathBuf> {
    if global.no_cache { None } else { sys::places_folder() }
}

fn of_environment(
    global: &Global,
    keepalive: arguments::Keepalive,
    subscription: Option<String>,
    attendance: Attendance,
    reporter: &Reporter,
) -> Result<Settings, Failure> {
    let environment = Environment::of_process();
    let network = network(global, keepalive, &environment)?;
    let is_attended = attendance == Attendance::Person;
    let plugins = global.configuration.plugins.clone();
    if !plugins.is_empty() {
        // Plugins are code of others, which may print.
        sys::keep_stdout().map_err(Failure::system("standard output cannot be kept from plugins"))?;
    }
    Ok(Settings {
        network,
        cloud: CloudChoice::parse(&global.cloud)?,
        credential: global.credential.clone(),
        provider: None,
        tenant: global.tenant.clone(),
        client_id: global.client_id.clone(),
        subscription,
        store: store(global, &environment),
        exec_command: global.exec_command.clone(),
        prompt: is_attended.then(|| Arc::new(Page::new(reporter)) as Arc<dyn Prompt>),
        plugins,
        asker: is_attended.then(|| Arc::new(Terminal::new(reporter)) as Arc<dyn Asker>),
        environment,
        ledger: sys::state_folder().map(|folder| folder.join("ledger")),
        dues: global.dues.clone(),
        cache: places(global),
    })
}

fn network(
    global: &Global,
    keepalive: arguments::Keepalive,
    environment: &Environment,
) -> Result<NetworkOptions, Failure> {
    let mut ca_bundles = global.ca_bundle.clone();
    // The variables that the Azure CLI and OpenSSL read (cli.md).
    for variable in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"] {
        ca_bundles.extend(environment.get(variable).map(PathBuf::from));
    }
    let proxy = match &global.proxy {
        Some(url) => {
            let no_proxy = environment.get("NO_PROXY").or_else(|| environment.get("no_proxy"));
            ProxyRules::from_url(url, no_proxy.unwrap_or_default())?
        }
        None => ProxyRules::from_environment()?,
    };
    let keepalive = match keepalive {
        arguments::Keepalive::Ping | arguments::Keepalive::Tcp => Some(TcpKeepalive::default()),
        arguments::Keepalive::Off => None,
    };
    Ok(NetworkOptions { ca_bundles, proxy, keepalive, ..NetworkOptions::default() })
}

/// What the words of the command line lead to.
pub(crate) struct Found {
    /// Azure, as who signs in sees it.
    pub(crate) client: Client,
    found: bastide::Found,
}

impl Found {
    /// The Bastion host.
    pub(crate) fn host(&self) -> &Host {
        &self.found.host
    }

    /// The VM.
    pub(crate) fn target(&self) -> &Target {
        &self.found.target
    }

    /// The place by its ids, for another process, which then has nothing to look for.
    pub(crate) fn place(&self) -> Place {
        let (id, address) = match self.target() {
            Target::Resource(id) => (Some(id.to_string()), None),
            Target::Address(address) => (None, Some(address.to_string())),
        };
        Place {
            target: None,
            name: Some(self.host().description().id.to_string()),
            resource_group: None,
            target_resource_id: id,
            target_ip_address: address,
            // Ids hold their own.
            subscription: None,
        }
    }
}

/// Signs in and finds the Bastion host and the VM that the flags name. What is wrong with the words is told before
/// anything is sent.
pub(crate) async fn find(
    global: &Global,
    place: &Place,
    behaviour: &Behaviour,
    reporter: &Reporter,
) -> Result<Found, Failure> {
    let words = words(global, place)?;
    let looking = async {
        let client = client(global, place, behaviour, reporter).await?;
        let found = client.find(&words).await?;
        Ok(Found { client, found })
    };
    reporter.while_waiting("Signing in and looking for the Bastion host …", looking).await
}

/// A relay to a port of what was found, or, where an earlier run's answer leads nowhere, of what is found now; what the
/// user should know of it is said.
pub(crate) async fn relay(
    found: &mut Found,
    resource_port: u16,
    options: RelayOptions,
    reporter: &Reporter,
) -> Result<Relay, Failure> {
    let reaching = found.client.reach(&mut found.found, resource_port, options, reporter.observer());
    let relay = reporter.while_waiting(WAITING, reaching).await?;
    advise(relay.plan(), reporter);
    Ok(relay)
}

/// Said while the first token is being minted.
pub(crate) const WAITING: &str = "Waiting for the Bastion host …";

/// How `found` opens a port of the VM; what the user should know of it is said.
pub(crate) fn plan(found: &Found, resource_port: u16, reporter: &Reporter) -> Result<Plan, Failure> {
    let plan = found.host().plan(found.target(), resource_port)?;
    advise(&plan, reporter);
    Ok(plan)
}

fn advise(plan: &Plan, reporter: &Reporter) {
    if let Some(advice) = plan.advice() {
        reporter.warn(advice);
    }
}

/// What the flags, and the names of the configuration, say of a VM and its Bastion host.
pub(crate) fn words(global: &Global, place: &Place) -> Result<Words, Failure> {
    let named = place.target.as_deref().map(|target| global.configuration.flags.stands_for(target));
    let target = match (named, &place.target_resource_id, &place.target_ip_address) {
        (_, Some(id), _) => Wanted::Target(Target::Resource(ResourceId::parse(id)?)),
        (_, _, Some(address)) => Wanted::Target(Target::address(address)?),
        (Some(target), None, None) if !target.trim().is_empty() => Wanted::parse(target)?,
        (_, None, None) => {
            return Err(Failure::usage(
                "no VM is named",
                "name it, or give --target-resource-id ID or --target-ip-address IP; `bastide list vms` shows names",
            ));
        }
    };
    Ok(Words::new(target, place.name.as_deref(), place.resource_group.as_deref()))
}

/// How connections behave.
pub(crate) fn relay_options(behaviour: &Behaviour, first_word: FirstWord) -> RelayOptions {
    let connect_timeout = Duration::from_secs(behaviour.connect_timeout);
    RelayOptions {
        max_frame: behaviour.max_frame,
        keepalive: match behaviour.keepalive {
            arguments::Keepalive::Ping => Keepalive::Ping,
            arguments::Keepalive::Tcp | arguments::Keepalive::Off => Keepalive::Tcp,
        },
        connect_timeout,
        retry: RetryPolicy {
            retries: behaviour.retries,
            longest_asked: connect_timeout,
            ..RetryPolicy::default()
        },
        first_byte: first_word.within(connect_timeout),
        ..RelayOptions::default()
    }
}

/// When a tunnel ends by itself.
pub(crate) fn tunnel_options(behaviour: &Behaviour) -> TunnelOptions {
    TunnelOptions {
        lifetime: behaviour.timeout.map(Duration::from_secs),
        idle: behaviour.idle_timeout.map(Duration::from_secs),
        ..TunnelOptions::default()
    }
}

/// Gives back what `relays` hold, all within the time that the end of a tunnel has; how many tokens were not given
/// back.
pub(crate) async fn give_back(relays: &[Relay]) -> u64 {
    let deadline = Instant::now() + TunnelOptions::default().grace;
    let mut leaked = 0;
    for relay in relays {
        leaked += relay.close(deadline.saturating_duration_since(Instant::now())).await;
    }
    leaked
}

/// Says that a limit of the user's has ended the tunnel, if one has, and how the process then ends.
pub(crate) fn limit_reached(cause: StopCause, reporter: &Reporter) -> Option<Exit> {
    let words = match cause {
        StopCause::Asked => return None,
        StopCause::Lifetime => "The tunnel's time is over (--timeout)",
        StopCause::Idle => "The tunnel was idle for too long (--idle-timeout)",
    };
    reporter.say(words);
    Some(Exit::Failed(Fault::Timeout))
}

/// The arguments of the `bastide proxy` that carries what these flags describe; without `--resource-port`, which is the
/// caller's.
pub(crate) fn proxy_arguments(global: &Global, place: &Place, behaviour: &Behaviour) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["proxy".into()];
    let mut flag = |name: &str, value: OsString| words.extend([name.into(), value]);
    for (name, value) in [
        ("--name", &place.name),
        ("--resource-group", &place.resource_group),
        ("--target-resource-id", &place.target_resource_id),
        ("--target-ip-address", &place.target_ip_address),
        ("--subscription", &place.subscription),
    ] {
        if let Some(value) = value {
            flag(name, value.into());
        }
    }
    for (name, value) in [("--timeout", behaviour.timeout), ("--idle-timeout", behaviour.idle_timeout)] {
        if let Some(seconds) = value {
            flag(name, seconds.to_string().into());
        }
    }
    flag("--keepalive", behaviour.keepalive.to_string().into());
    flag("--max-frame", behaviour.max_frame.to_string().into());
    flag("--connect-timeout", behaviour.connect_timeout.to_string().into());
    flag("--retries", behaviour.retries.to_string().into());
    words.extend(sign_in_arguments(global, global.tenant.as_deref()));
    words.extend(place.target.as_ref().map(OsString::from));
    words
}

/// The flags by which another `bastide` signs in to Azure as this one; without `--proxy`, whose password is for nobody's
/// process list.
pub(crate) fn sign_in_arguments(global: &Global, tenant: Option<&str>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: OsString| words.extend([name.into(), value]);
    flag("--cloud", (&global.cloud).into());
    flag("--credential", global.credential.to_string().into());
    for (name, value) in [
        ("--tenant", tenant),
        ("--client-id", global.client_id.as_deref()),
        ("--exec-command", global.exec_command.as_deref()),
        ("--profile", global.profile.as_deref()),
    ] {
        if let Some(value) = value {
            flag(name, value.into());
        }
    }
    if let Some(file) = &global.config {
        flag("--config", file.into());
    }
    for file in &global.ca_bundle {
        flag("--ca-bundle", file.into());
    }
    if global.no_cache {
        words.push("--no-cache".into());
    }
    words
}

/// Runs a command on a runtime that does not outlive it: a thread that hangs in a name look-up or reads a terminal is
/// left behind. However the command has ended, what it still owes the service is given back before.
pub(crate) fn block_on<T>(
    runtime: std::io::Result<tokio::runtime::Runtime>,
    global: &Global,
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = runtime.map_err(Failure::system("the runtime cannot be started"))?;
    let result = runtime.block_on(command);
    runtime.block_on(async {
        // Who wants it to end now does not wait; the ledger has what is left.
        let Ok(mut signals) = sys::StopSignals::new() else { return };
        tokio::select! {
            _ = global.dues.settle(SETTLE_WITHIN) => {}
            _ = signals.next() => {}
        }
    });
    runtime.shutdown_background();
    result
}

/// A healthy service takes no longer to take a token back (peers.md F31, "about 3 s"); a command that has a tunnel has
/// given it more time already.
const SETTLE_WITHIN: Duration = Duration::from_secs(3);
