//! A small Azure for one machine: Entra ID, ARM and the data plane of Azure Bastion on one TLS port,
//! with virtual machines behind it. Programs that speak to Azure Bastion can be tried and tested
//! against it without an account, and against its faults ([`faults`]). It shares no code with the client that lives beside it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bastide_emulator::{Emulator, Options};
//!
//! let emulator = Emulator::start(Options { state: "state".into(), ..Options::default() }).await?;
//! for (name, value) in emulator.env() {
//!     println!("{name}={value}");
//! }
//! // … run something against it …
//! assert_eq!(emulator.violations(), []);
//! emulator.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod arm;
mod azure;
mod certificates;
mod control;
mod data_plane;
mod entra;
pub mod faults;
mod graph;
mod http;
mod identity;
mod inventory;
mod key_vault;
mod networks;
mod oidc;
mod principals;
mod rules;
pub mod scenario;
mod security;
mod server;
mod services;
mod socket;
pub mod ssh;
mod state;
mod surroundings;
mod sys;
pub mod transcript;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::azure::Azure;
use crate::faults::{Order, Standing};
use crate::inventory::Inventory;
use crate::principals::Keys;
use crate::scenario::Outcome;
use crate::state::State;

pub use entra::{DeviceCode, DeviceError, RefreshEnd};
pub use rules::{FrameFault, Violation, violations};
pub use scenario::Scenario;
pub use services::pattern;
pub use surroundings::Surroundings;
pub use sys::stop_signal;
pub use transcript::Transcript;

/// What an emulator is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// State folder; made if need be, and used by one emulator at a time.
    pub state: PathBuf,
    /// What the small Azure holds.
    pub scenario: Scenario,
    /// Address to listen on. Anything but loopback lets other machines in, who then can use every
    /// virtual machine that they know the password of.
    pub bind: IpAddr,
    /// Port to listen on, 0 for any free one.
    pub port: u16,
}

impl Default for Options {
    /// `bastide-emulator` below `XDG_STATE_HOME` (XDG Base Directory Specification 0.8), the built-in
    /// scenario, any free port of 127.0.0.1.
    fn default() -> Options {
        Options {
            state: state::default_folder(),
            scenario: Scenario::default(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
        }
    }
}

/// A running emulator. Dropping it ends it at once; [`Emulator::shutdown`] ends it well.
pub struct Emulator {
    azure: Arc<Azure>,
    state: State,
    address: SocketAddr,
    env: Vec<(String, String)>,
    server: JoinSet<()>,
    _stop_when_dropped: DropGuard,
}

impl Emulator {
    /// Starts one in the caller's tokio runtime. It is ready when this returns: the port accepts, and the
    /// state folder says how to reach it. Cancel safe: nothing runs until it returns.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(options: Options) -> Result<Emulator, Error> {
        options.scenario.check()?;
        let bind = SocketAddr::new(options.bind, options.port);
        let listening = |source| Error::Listen { address: bind, source };
        let listener = TcpListener::bind(bind).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        // The managed identity endpoints, which are plain HTTP in Azure too, and never leave the machine.
        let plain = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let failing = |source| Error::Listen { address: plain, source };
        let plain = TcpListener::bind(plain).await.map_err(failing)?;
        let plain_port = plain.local_addr().map_err(failing)?.port();
        let faults = options.scenario.faults.clone();
        // Reads files and makes keys.
        let prepared = tokio::task::spawn_blocking(move || prepare(&options, address.port(), plain_port));
        let (state, azure, tls, env) = prepared.await.map_err(|_| Error::Interrupted)??;

        azure.misbehave(faults);
        let azure = Arc::new(azure);
        let mut server = JoinSet::new();
        let ports = server::Ports { tls: listener, plain };
        server.spawn(server::serve(Arc::clone(&azure), ports, TlsAcceptor::from(Arc::new(tls))));
        let stop = azure.stop.clone().drop_guard();
        Ok(Emulator { azure, state, address, env, server, _stop_when_dropped: stop })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `https://localhost:PORT`: ARM, the authority and the default Bastion host.
    pub fn url(&self) -> &str {
        &self.azure.url
    }

    /// `http://127.0.0.1:PORT`: the managed identity endpoints, without TLS as in Azure.
    pub fn identity_url(&self) -> &str {
        &self.azure.plain_url
    }

    /// The state folder, absolute.
    pub fn state(&self) -> &Path {
        self.state.folder()
    }

    /// The certificate of its authority, in the state folder.
    pub fn ca_file(&self) -> PathBuf {
        self.state.path(certificates::CA_FILE)
    }

    /// Environment variables that point bastide and the Azure SDKs at it, as in `env.sh`. Secrets of the
    /// emulator are among them.
    pub fn env(&self) -> Vec<(String, String)> {
        self.env.clone()
    }

    /// Environment variables of a place that a program may run in, besides those of [`Emulator::env`]. Secrets
    /// are among them.
    pub fn surroundings(&self, place: Surroundings) -> Vec<(String, String)> {
        surroundings::environment(&self.azure, &self.state, place)
    }

    /// Device codes that wait for a decision. [`Emulator::wait_for`] tells when there is one: then
    /// `transcript.issued("device_code_requested")` has grown.
    pub fn device_codes(&self) -> Vec<DeviceCode> {
        self.azure.sign_ins.waiting()
    }

    /// Approves a device code as a user, as the page would. A user whose sign-in fails can be named too: the
    /// program is told when it asks for its token.
    ///
    /// # Errors
    /// No such code waits, or no such user is in the tenant.
    pub fn approve_device_code(&self, user_code: &str, upn: &str) -> Result<(), DeviceError> {
        self.azure.approve(user_code, upn)
    }

    /// Refuses a device code, as the page would.
    ///
    /// # Errors
    /// No such code waits.
    pub fn decline_device_code(&self, user_code: &str) -> Result<(), DeviceError> {
        self.azure.sign_ins.decline(user_code)
    }

    /// Lets all device codes expire, at once.
    pub fn expire_device_codes(&self) {
        self.azure.sign_ins.expire_device_codes();
    }

    /// Answers the next question of every program that waits for a device code with `slow_down`, as a busy service
    /// may (RFC 8628 section 3.5).
    pub fn slow_down_device_codes(&self) {
        self.azure.sign_ins.slow_down_device_codes();
    }

    /// No access token that was issued before is accepted any more, as if it had expired.
    pub fn expire_access_tokens(&self) {
        self.azure.issuer.expire_all();
    }

    /// No refresh token that was issued before is accepted any more.
    pub fn end_refresh_tokens(&self, end: RefreshEnd) {
        self.azure.sign_ins.end_refresh_tokens(end);
    }

    /// From now on the sign-in of a user comes to this, whatever the scenario says.
    pub fn set_outcome(&self, upn: &str, outcome: Outcome) {
        self.azure.sign_ins.set_outcome(upn, outcome);
    }

    /// From now on SSH certificates are that old when they are signed: they begin earlier, and end earlier.
    pub fn age_ssh_certificates(&self, seconds: u64) {
        self.azure.sign_ins.age_certificates(seconds);
    }

    /// ARM and the data plane demand that tokens carry these claims, in the JSON of a `claims` parameter; nothing when none.
    pub fn demand_claims(&self, claims: Option<&str>) {
        self.azure.sign_ins.demand(claims.map(str::to_owned));
    }

    /// A copy of everything that it saw.
    pub fn transcript(&self) -> Transcript {
        self.azure.recorder.snapshot()
    }

    /// Every rule of a good client that what it saw breaks.
    pub fn violations(&self) -> Vec<Violation> {
        violations(&self.azure.recorder.read())
    }

    /// Sessions that were minted and not yet released.
    pub fn sessions(&self) -> Vec<transcript::Session> {
        self.azure.recorder.read().unreleased().cloned().collect()
    }

    /// Tokens of the data plane and device codes that it has handed out and still knows, which no transcript shows:
    /// for tests that look for them where they should not be.
    pub fn secrets(&self) -> Vec<String> {
        [self.azure.sessions.secrets(), self.azure.sign_ins.secrets()].concat()
    }

    /// Waits until the transcript meets a condition, which is asked at every change: so that a test needs
    /// no sleep. Cancel safe; the caller sets the time limit. The condition looks at the transcript under its
    /// lock, so it must not ask the emulator for anything else.
    pub async fn wait_for(&self, condition: impl FnMut(&Transcript) -> bool) {
        self.azure.recorder.wait_for(condition).await;
    }

    /// Orders faults in place of all that were ordered before, and lets go of what those held. Without any,
    /// the emulator behaves.
    pub fn set_faults(&self, orders: impl IntoIterator<Item = impl Into<Order>>) {
        self.azure.misbehave(orders.into_iter().map(Into::into).collect());
    }

    /// The orders that stand, and how often each has struck.
    pub fn faults(&self) -> Vec<Standing> {
        self.azure.faults.standing()
    }

    /// Closes every connection on which no request is under way, and every other one behind its answer; tunnels
    /// stay. [`Transcript::closed`] tells when it is done.
    pub fn hang_up(&self) {
        self.azure.hang_up.send_replace(());
    }

    /// Forgets the transcript, but for sessions that are open or not released.
    pub fn reset(&self) {
        self.azure.recorder.reset();
    }

    /// Stops accepting, ends every connection with a Close frame or a close_notify, waits for that, at most
    /// ten seconds, and tells what was seen in all. Cancelled half-way, it ends everything at once.
    pub async fn shutdown(mut self) -> Transcript {
        self.azure.stop.cancel();
        while self.server.join_next().await.is_some() {}
        self.transcript()
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Emulator")
            .field("address", &self.address)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Why an emulator does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The scenario.
    #[error(transparent)]
    Scenario(#[from] scenario::Error),
    /// The state folder.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The port.
    #[error("listening on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// The key that signs tokens.
    #[error(transparent)]
    Issuer(#[from] entra::Error),
    /// A key of a key vault.
    #[error(transparent)]
    KeyVault(#[from] key_vault::Error),
    /// The services of the virtual machines.
    #[error(transparent)]
    Services(#[from] services::Error),
    /// The runtime was shut down meanwhile.
    #[error("the runtime was shut down")]
    Interrupted,
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Scenario(_) => Some("`bastide-emulator --print-scenario` shows a documented example".into()),
            Error::State(state::Error::InUse { .. }) => {
                Some("stop the other emulator, or choose another folder with --state".into())
            }
            Error::State(_) => Some("choose another folder with --state".into()),
            Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("choose another port with --port, or 0 for any free one".into())
            }
            Error::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("choose a port from 1024 upwards with --port, or 0 for any free one".into())
            }
            Error::Certificates(certificates::Error::Authority(_)) | Error::Issuer(entra::Error::Key(_)) => {
                Some("remove the state folder: its keys are made anew, and clients have to trust the new ca.pem".into())
            }
            _ => None,
        }
    }
}

type Prepared = (State, Azure, rustls::ServerConfig, Vec<(String, String)>);

fn prepare(options: &Options, port: u16, plain_port: u16) -> Result<Prepared, Error> {
    let state = State::open(&options.state)?;
    let scenario = &options.scenario;
    let url = format!("https://localhost:{port}");
    let keys = Keys {
        client_secret: state.secret("client-secret")?,
        certificate: certificates::client_certificate(&state)?,
        url: url.clone(),
    };
    let sign_ins = entra::SignIns::new(scenario.sign_in.clone(), &state)?;
    let password = match &scenario.settings.vm_password {
        Some(password) => password.clone(),
        None => state.secret("vm-password")?,
    };
    let client_key = state.path(CLIENT_KEY);
    if !client_key.exists() {
        ssh::generate_client_key(&client_key).map_err(services::Error::from)?;
    }
    let public_key = state.kept(&format!("{CLIENT_KEY}.pub"), || Ok(String::new()))?;

    let inventory = Inventory::new(scenario, port, &keys);
    let names = inventory.hosts.iter().flat_map(|host| [Some(host.dns_name.clone()), host.pod_name.clone()]);
    let tls = certificates::server_config(&state, &names.flatten().collect::<Vec<_>>())?;
    let stop = CancellationToken::new();
    let username = &scenario.settings.vm_username;
    let services = services::Services::new(
        &inventory,
        &state,
        username,
        &password,
        &public_key,
        &sign_ins.authority,
        stop.clone(),
    )?;
    let azure = Azure {
        url,
        plain_url: format!("http://127.0.0.1:{plain_port}"),
        sign_ins,
        identity: identity::IdentitySecrets::new(&state)?,
        job_token: state.secret("job-token")?,
        settings: scenario.settings.clone(),
        issuer: entra::Issuer::new(&state)?,
        recorder: transcript::Recorder::new(state.create("transcript.jsonl")?),
        sessions: data_plane::Sessions::default(),
        operations: arm::Operations::default(),
        faults: faults::Faults::default(),
        key_vaults: key_vault::KeyVaults::new(scenario, port, &state)?,
        inventory,
        services,
        hang_up: tokio::sync::watch::Sender::new(()),
        stop,
    };
    let mut env = environment(&azure, &state);
    env.push(("BASTIDE_EMULATOR_VM_USERNAME".into(), username.clone()));
    env.push(("BASTIDE_EMULATOR_VM_PASSWORD".into(), password.expose().to_owned()));
    state.write("port", &format!("{port}\n"))?;
    state.write("env.sh", &shell(&env))?;
    surroundings::write(&azure, &state)?;
    Ok((state, azure, tls, env))
}

/// Private key that every built-in SSH server accepts; `.pub` beside it.
const CLIENT_KEY: &str = "id_ed25519";

fn environment(azure: &Azure, state: &State) -> Vec<(String, String)> {
    let url = &azure.url;
    let ca_file = state.path(certificates::CA_FILE).display().to_string();
    let mut env = vec![
        ("BASTIDE_CLOUD", url.clone()),
        ("BASTIDE_IMDS_ENDPOINT", azure.plain_url.clone()),
        ("SSL_CERT_FILE", ca_file.clone()),
        ("REQUESTS_CA_BUNDLE", ca_file.clone()),
        ("WEBSOCKET_CLIENT_CA_BUNDLE", ca_file),
        ("AZURE_AUTHORITY_HOST", url.clone()),
        ("BASTIDE_EMULATOR_STATE", state.folder().display().to_string()),
    ];
    if let Some(vault) = azure.key_vaults.first_url() {
        env.push(("BASTIDE_EMULATOR_KEY_VAULT", vault.to_owned()));
    }
    if let Some(subscription) = azure.inventory.subscriptions.first() {
        env.push(("AZURE_SUBSCRIPTION_ID", subscription.id.clone()));
    }
    if let Some(first) = azure.inventory.principals.first()
        && let Some((principal, credentials)) = azure.inventory.application(&first.tenant, &first.name)
    {
        env.push(("AZURE_TENANT_ID", principal.tenant.clone()));
        env.push(("AZURE_CLIENT_ID", principal.name.clone()));
        env.push(("AZURE_CLIENT_SECRET", credentials.client_secret.expose().to_owned()));
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Lines for a POSIX shell, values in single quotes.
fn shell(env: &[(String, String)]) -> String {
    env.iter().map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_shell_quotes() {
        assert_eq!(shell(&[("A".into(), "it's".into())]), "export A='it'\\''s'\n");
    }
}
