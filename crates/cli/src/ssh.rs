//! `bastide ssh`, `scp`, `sftp` and `rsync`: the user's own programs over a private socket of ours, so that there is no
//! local port, one sign-in, and no process between OpenSSH and the relay. It leaves out OpenSSH's settings (`openssh`),
//! the words for programs that copy files (`transfer`), and carrying.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use bastide::{Plan, Relay, Secret, Stopped};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::arguments::{self, Behaviour, Global, HostKeyCheck, Place};
use crate::exit::{Exit, Failure};
use crate::openssh::{self, Identity, Way};
use crate::report::Reporter;
use crate::setup::FirstWord;
use crate::sign_in::{self, Answers, SignIn};
use crate::signals::Signals;
use crate::transfer::{self, Names, Tool};
use crate::{program, setup, sys};

/// Signs in and runs a session.
pub(crate) fn run(global: &Global, ssh: &arguments::Ssh, reporter: &Reporter) -> Result<Exit, Failure> {
    let job = Job {
        tool: None,
        place: &ssh.place,
        sign_in: &ssh.sign_in,
        behaviour: &ssh.behaviour,
        words: &ssh.ssh_args,
    };
    job.run(global, reporter)
}

/// Signs in and copies files.
pub(crate) fn copy(
    global: &Global,
    tool: Tool,
    transfer: &arguments::Transfer,
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    let job = Job {
        tool: Some(tool),
        place: &transfer.place,
        sign_in: &transfer.sign_in,
        behaviour: &transfer.behaviour,
        words: &transfer.args,
    };
    job.run(global, reporter)
}

/// What is to be run, and how it gets to the VM.
struct Job<'a> {
    /// A program that calls ssh in its turn; none for ssh itself.
    tool: Option<Tool>,
    place: &'a Place,
    sign_in: &'a arguments::SignIn,
    behaviour: &'a Behaviour,
    /// For the program.
    words: &'a [OsString],
}

impl Job<'_> {
    fn run(&self, global: &Global, reporter: &Reporter) -> Result<Exit, Failure> {
        let ssh = openssh::find("ssh")?;
        let program = match self.tool {
            Some(tool) => openssh::find(tool.name())?,
            None => ssh.clone(),
        };
        openssh::check_sign_in(self.sign_in)?;
        // It is another flag of rsync's.
        if self.tool != Some(Tool::Rsync) {
            openssh::check_no_jump(self.tool.map_or("ssh", Tool::name), self.words)?;
        }
        let password = sign_in::password(self.sign_in)?;
        // Few connections: a second thread would only cost wake-ups.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        setup::block_on(runtime, global, self.sign_in_and_run(global, password, (&program, &ssh), reporter))
    }

    async fn sign_in_and_run(
        &self,
        global: &Global,
        password: Option<Secret>,
        (program, ssh): (&Path, &Path),
        reporter: &Reporter,
    ) -> Result<Exit, Failure> {
        let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
        let answers = if self.tool.is_some() { Answers::ForEachConnection } else { Answers::Once };
        let opening = async {
            let mut found = setup::find(global, self.place, self.behaviour, reporter).await?;
            let options = setup::relay_options(self.behaviour, FirstWord::Vm);
            let relay = setup::relay(&mut found, self.sign_in.resource_port, options, reporter).await?;
            let plan = relay.plan().clone();
            let sign_in = SignIn::prepare(self.sign_in, password, answers, (&found, &plan), reporter).await?;
            Ok::<_, Failure>((plan, relay, sign_in, found.place()))
        };
        let (plan, relay, sign_in, place) = tokio::select! {
            opened = opening => opened?,
            () = signals.stop().cancelled_owned() => {
                return Ok(signals.received().map_or(Exit::Done, Exit::Signal));
            }
        };
        let known_hosts = known_hosts(self.sign_in)?;
        let session =
            Session { global, reporter, job: self, program, ssh, place, plan, known_hosts, sign_in };
        let running = async {
            match session.outlives_us().await {
                true => {
                    // What proved the way would wait for a connection that another process opens.
                    drop(relay);
                    session.run_apart(&signals).await
                }
                false => session.run_here(relay, &signals).await,
            }
        };
        let started = Instant::now();
        let exit = session.sign_in.during(running).await?;
        session.sign_in.explain(exit, started.elapsed(), reporter);
        Ok(exit)
    }
}

struct Session<'a> {
    global: &'a Global,
    reporter: &'a Reporter,
    job: &'a Job<'a>,
    program: &'a Path,
    ssh: &'a Path,
    /// What was found, by its ids.
    place: Place,
    plan: Plan,
    known_hosts: PathBuf,
    sign_in: SignIn,
}

impl Session<'_> {
    /// Whether OpenSSH leaves a process behind that goes on using the connection (`ControlPersist`, `-f`): asked of
    /// OpenSSH itself, which alone knows all of the user's configuration. A tool's ssh never does, see
    /// [`Session::words`].
    async fn outlives_us(&self) -> bool {
        if self.job.tool.is_some() {
            return false;
        }
        let Ok(words) = self.words(&Way::Carry("true".into())) else { return false };
        let mut command = Command::new(self.program);
        let output = command.arg("-G").args(words).stdin(Stdio::null()).output().await;
        // An ssh that can't be asked will say itself what it dislikes.
        output.is_ok_and(|output| openssh::lives_on(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The connections live in this process, and OpenSSH gets them over a private socket.
    #[cfg(unix)]
    async fn run_here(&self, relay: Relay, signals: &Signals) -> Result<Exit, Failure> {
        use bastide::{Endpoint, Forward, Tunnel};

        let folder = sys::private_folder().map_err(Failure::system("no private folder can be made"))?;
        let socket = folder.path().join("session");
        let mut command = vec![own_program()?, "hand-over".into(), socket.clone().into()];
        if self.job.tool.is_some() {
            command.extend(["--only".into(), self.connection_name(self.plan.target_name()).into()]);
        }
        let mut line = openssh::shell_line(&command);
        line.push(if self.job.tool.is_some() { " '%h'" } else { "" });
        let words = self.words(&Way::HandOver(line))?;
        let forward = Forward::open(&Endpoint::Unix(socket), relay).await?;
        let options = setup::tunnel_options(self.job.behaviour);
        let stop = CancellationToken::new();
        let mut tunnel = std::pin::pin!(Tunnel::new(vec![forward], options).run(stop.clone()));
        let mut child = self.spawn(words)?;
        let mut ended = std::pin::pin!(program::wait(&mut child, signals));
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
        command.extend(setup::proxy_arguments(self.global, &self.place, self.job.behaviour));
        command.extend(["--resource-port".into(), self.job.sign_in.resource_port.to_string().into()]);
        let words = self.words(&Way::Carry(openssh::shell_line(&command)))?;
        let mut child = self.spawn(words)?;
        program::wait(&mut child, signals).await
    }

    fn spawn(&self, words: Vec<OsString>) -> Result<Child, Failure> {
        let mut command = Command::new(self.program);
        command.args(words).kill_on_drop(true);
        self.sign_in.environment(&mut command);
        if let Some(proxy) = &self.global.proxy {
            command.env("HTTPS_PROXY", proxy);
        }
        let failed = || Failure::system(format!("'{}' cannot be started", self.program.display()));
        command.stdout(sys::stdout_for_child().map_err(failed())?);
        command.spawn().map_err(failed())
    }

    fn words(&self, way: &Way) -> Result<Vec<OsString>, Failure> {
        let host = self.plan.target_name();
        // A tool's words may name other hosts, too: each gets a name of its own, and only the VM's one is let through
        // (`hand_over`).
        let named = if self.job.tool.is_some() { "%h" } else { host };
        let vm = Identity {
            host_name: self.connection_name(named),
            host_key_alias: self.plan.host_key_alias(),
            known_hosts: &self.known_hosts,
        };
        let settings = openssh::settings(self.job.sign_in, way, &vm, self.sign_in.aid());
        let mut options = openssh::options(&settings);
        let Some(tool) = self.job.tool else {
            options.push(host.into());
            options.extend(self.job.words.iter().cloned());
            return Ok(options);
        };
        // A master that is there is used; one that this ssh became would end with the files.
        options.extend(["-o".into(), "ControlMaster=no".into()]);
        let names = Names { host, typed: self.job.place.target.as_deref() };
        transfer::words(tool, self.job.words, &names, options, self.ssh)
    }

    fn connection_name(&self, host: &str) -> String {
        openssh::connection_name(host, self.plan.host_key_alias())
    }
}

/// Our own program, for OpenSSH to call.
pub(crate) fn own_program() -> Result<OsString, Failure> {
    let program = std::env::current_exe().map_err(Failure::system("the path of this program is unknown"))?;
    Ok(program.into())
}

/// The host keys of VMs, by the VMs' identities, in a file of our own; of no use where they are not checked.
pub(crate) fn known_hosts(sign_in: &arguments::SignIn) -> Result<PathBuf, Failure> {
    let hint =
        "set HOME or XDG_STATE_HOME to a folder that can be written, or check none (--host-key-check off)";
    let file = sys::state_folder().map(|folder| folder.join("known_hosts"));
    if sign_in.host_key_check == HostKeyCheck::Off {
        return Ok(file.unwrap_or_default());
    }
    let Some((file, folder)) = file.as_deref().and_then(|file| Some((file, file.parent()?))) else {
        return Err(Failure::usage("there is no home folder to keep host keys in", hint));
    };
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::usage(
            format!("the folder '{}' for host keys cannot be made: {error}", folder.display()),
            hint,
        )
    })?;
    Ok(file.to_owned())
}
