//! `bastide ssh`: the user's own OpenSSH client over a private socket of ours, so that there is no local port, one
//! sign-in, and no process between OpenSSH and the relay. It leaves out OpenSSH's arguments (`openssh`) and
//! carrying.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bastide::{Plan, Relay, Secret, Stopped};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::arguments::{self, Global, Place};
use crate::exit::{Exit, Failure};
use crate::openssh::{self, Way};
use crate::report::Reporter;
use crate::setup::FirstWord;
use crate::sign_in::{self, SignIn};
use crate::signals::Signals;
use crate::speaker::Stream;
use crate::{setup, sys};

/// Signs in and runs the session.
pub(crate) fn run(global: &Global, ssh: arguments::Ssh, reporter: &Reporter) -> Result<Exit, Failure> {
    let program = openssh::find("ssh")?;
    openssh::check_sign_in(&ssh)?;
    let password = sign_in::password(&ssh)?;
    // One connection: a second thread would only cost wake-ups.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let reporter = reporter.with_json_to(Stream::Stderr);
    setup::block_on(runtime, session(global, &ssh, password, &program, &reporter))
}

async fn session(
    global: &Global,
    ssh: &arguments::Ssh,
    password: Option<Secret>,
    program: &Path,
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
    let opening = async {
        let mut found = setup::find(global, &ssh.place, &ssh.behaviour, reporter).await?;
        let options = setup::relay_options(&ssh.behaviour, FirstWord::Vm);
        let (plan, relay) = setup::relay(&mut found, ssh.sign_in.resource_port, options, reporter).await?;
        let sign_in = SignIn::prepare(ssh, password, &found, &plan, reporter).await?;
        Ok::<_, Failure>((plan, relay, sign_in, found.place(&ssh.place)))
    };
    let (plan, relay, sign_in, place) = tokio::select! {
        opened = opening => opened?,
        () = signals.stop().cancelled_owned() => {
            return Ok(signals.received().map_or(Exit::Done, Exit::Signal));
        }
    };
    let session =
        Session { global, reporter, ssh, program, place, plan, known_hosts: known_hosts()?, sign_in };
    let running = async {
        match session.outlives_us().await {
            true => session.run_apart(&signals).await,
            false => session.run_here(relay, &signals).await,
        }
    };
    let started = Instant::now();
    let exit = session.sign_in.during(running).await?;
    session.sign_in.explain(exit, started.elapsed(), reporter);
    Ok(exit)
}

struct Session<'a> {
    global: &'a Global,
    reporter: &'a Reporter,
    ssh: &'a arguments::Ssh,
    program: &'a Path,
    /// What was found, by its ids.
    place: Place,
    plan: Plan,
    known_hosts: PathBuf,
    sign_in: SignIn,
}

impl Session<'_> {
    /// Whether OpenSSH leaves a process behind that goes on using the connection (`ControlPersist`, `-f`): asked of
    /// OpenSSH itself, which alone knows all of the user's configuration.
    async fn outlives_us(&self) -> bool {
        let mut arguments: Vec<OsString> = vec!["-G".into()];
        arguments.extend(self.arguments(&Way::Carry(vec!["true".into()])));
        let output = Command::new(self.program).args(arguments).stdin(Stdio::null()).output().await;
        // An ssh that can't be asked will say itself what it dislikes.
        output.is_ok_and(|output| openssh::lives_on(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The connection lives in this process, and OpenSSH gets it over a private socket.
    #[cfg(unix)]
    async fn run_here(&self, relay: Relay, signals: &Signals) -> Result<Exit, Failure> {
        use bastide::{Endpoint, Forward, Tunnel};

        let folder = sys::private_folder().map_err(Failure::system("no private folder can be made"))?;
        let socket = folder.path().join("session");
        let forward = Forward::open(&Endpoint::Unix(socket.clone()), relay).await?;
        let options = setup::tunnel_options(&self.ssh.behaviour);
        let stop = CancellationToken::new();
        let mut tunnel = std::pin::pin!(Tunnel::new(vec![forward], options).run(stop.clone()));
        let way = Way::HandOver(vec![own_program()?, "hand-over".into(), socket.into()]);
        let mut child = self.spawn(&way)?;
        let mut ended = std::pin::pin!(wait(&mut child, signals));
        let (exit, Stopped { cause, .. }) = tokio::select! {
            exit = &mut ended => {
                stop.cancel();
                (exit, tunnel.await)
            }
            // OpenSSH sees the connection end and follows.
            stopped = &mut tunnel => (ended.await, stopped),
        };
        let exit = exit?;
        // OpenSSH may be the faster one to end after a time limit: the reason is still the limit.
        Ok(setup::limit_reached(cause, self.reporter).unwrap_or(exit))
    }

    /// Without descriptor passing the connection lives in a process of its own.
    #[cfg(not(unix))]
    async fn run_here(&self, _relay: Relay, signals: &Signals) -> Result<Exit, Failure> {
        self.run_apart(signals).await
    }

    /// The connection lives in a `bastide proxy`, which ends with OpenSSH's last process.
    async fn run_apart(&self, signals: &Signals) -> Result<Exit, Failure> {
        let mut command = vec![own_program()?];
        command.extend(setup::proxy_arguments(
            self.global,
            &self.place,
            &self.ssh.behaviour,
            self.ssh.sign_in.resource_port,
        ));
        let mut child = self.spawn(&Way::Carry(command))?;
        wait(&mut child, signals).await
    }

    fn spawn(&self, way: &Way) -> Result<Child, Failure> {
        let mut command = Command::new(self.program);
        command.args(self.arguments(way)).kill_on_drop(true);
        self.sign_in.environment(&mut command);
        if let Some(proxy) = &self.global.proxy {
            command.env("HTTPS_PROXY", proxy);
        }
        let failed = || Failure::system("ssh cannot be started");
        command.stdout(sys::stdout_for_child().map_err(failed())?);
        command.spawn().map_err(failed())
    }

    fn arguments(&self, way: &Way) -> Vec<OsString> {
        let (host, alias) = (self.plan.target_name(), self.plan.host_key_alias());
        openssh::arguments(self.ssh, way, host, alias, &self.known_hosts, self.sign_in.aid())
    }
}

/// Waits for OpenSSH; a signal to us is passed on to it.
async fn wait(child: &mut Child, signals: &Signals) -> Result<Exit, Failure> {
    let failed = || Failure::system("ssh cannot be waited for");
    tokio::select! {
        status = child.wait() => return Ok(Exit::Child(sys::exit_of(status.map_err(failed())?))),
        () = signals.stop().cancelled_owned() => {}
    }
    let signal = signals.received().unwrap_or_default();
    if let Some(id) = child.id() {
        sys::terminate(id, signal);
    }
    if timeout(CHILD_GRACE, child.wait()).await.is_err() {
        child.kill().await.map_err(failed())?;
    }
    Ok(Exit::Signal(signal))
}

/// How long OpenSSH may take to end after a signal: as long as our own end may take
/// (`bastide::TunnelOptions::grace`).
const CHILD_GRACE: Duration = Duration::from_secs(10);

/// Our own program, for OpenSSH to call.
fn own_program() -> Result<OsString, Failure> {
    let program = std::env::current_exe().map_err(Failure::system("the path of this program is unknown"))?;
    Ok(program.into())
}

/// The host keys of VMs, by the VMs' identities, in a file of our own.
fn known_hosts() -> Result<PathBuf, Failure> {
    let Some(folder) = sys::state_folder() else {
        return Err(Failure::usage("there is no home folder to keep host keys in", "set HOME"));
    };
    std::fs::create_dir_all(&folder)
        .map_err(Failure::system(format!("the folder '{}' cannot be made", folder.display())))?;
    Ok(folder.join("known_hosts"))
}
