//! The programs of a measurement: the far end, and the clients that lead to it, each on a port of loopback, in a
//! home of their own. What they are put through is in `load` and `rows`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::environment::Home;
use crate::sys::{self, Interrupts};

/// Everything that runs for the whole of a measurement.
pub(super) struct Stage {
    pub(super) interrupts: Interrupts,
    home: Home,
    release: PathBuf,
    far: Program,
    ports: HashMap<String, u16>,
}

/// A client under measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// `bastide tunnel`, to the far end's Azure.
    Bastide,
    /// The plain TLS copy over rustls' buffered interface.
    Buffered,
    /// The plain TLS copy over rustls' unbuffered interface.
    Unbuffered,
    Websocat,
    Stunnel,
    Haproxy,
    Socat,
}

/// A port on loopback and the process behind it, which is killed when this value goes.
pub(super) struct Client {
    pub(super) port: u16,
    program: Program,
}

struct Program(Child);

/// The two programs from which the limit is taken.
pub(super) const COPIES: &[Kind] = &[Kind::Buffered, Kind::Unbuffered];
/// What can be had for the nearest job.
pub(super) const STRANGERS: &[Kind] = &[Kind::Websocat, Kind::Stunnel, Kind::Haproxy, Kind::Socat];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Bastide => "bastide",
            Kind::Buffered => "TLS copy (buffered)",
            Kind::Unbuffered => "TLS copy (unbuffered)",
            Kind::Websocat => "websocat",
            Kind::Stunnel => "stunnel4",
            Kind::Haproxy => "haproxy",
            Kind::Socat => "socat",
        }
    }
}

impl Stage {
    /// Starts the far end. `release` is the folder of the optimised programs.
    pub(super) fn new(release: PathBuf, interrupts: Interrupts) -> Result<Stage> {
        let home = Home::new()?;
        let mut command = Command::new(release.join("bench-peer"));
        command.arg("far").arg(home.path());
        let (far, line) = start(command, &home, |line| Some(line.to_owned()))?;
        let ports = serde_json::from_str(&line).context("the far end did not say its ports")?;
        Ok(Stage { interrupts, home, release, far, ports })
    }

    /// Starts a client that leads to a service of the far end.
    pub(super) fn client(&self, kind: Kind, service: u16) -> Result<Client> {
        let plain = self.port(&service.to_string())?;
        match kind {
            Kind::Bastide => self.bastide(&self.azure(self.port("azure")?), service),
            Kind::Buffered => self.copy("buffered", plain),
            Kind::Unbuffered => self.copy("unbuffered", plain),
            stranger => self.stranger(stranger, service, plain),
        }
    }

    /// `bastide tunnel` in that environment.
    pub(super) fn bastide(&self, environment: &Environment, service: u16) -> Result<Client> {
        let mut command = Command::new(self.release.join("bastide"));
        command.arg("tunnel").args(environment.options(service).map(|option| format!("--{option}")));
        command.args(["--port", "0", "-o", "json"]);
        let (program, port) = start_in(command, &self.home, environment, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            if event.get("event")?.as_str()? != "ready" {
                return None;
            }
            event.get("address")?.as_str()?.rsplit_once(':')?.1.parse().ok()
        })?;
        Ok(Client { port, program })
    }

    /// The environment that points `bastide` at the far end's Azure behind that port.
    pub(super) fn azure(&self, port: u16) -> Environment {
        let url = format!("https://localhost:{port}");
        let file = self.authority().display().to_string();
        Environment(
            [
                ("BASTIDE_CLOUD", url.as_str()),
                ("AZURE_AUTHORITY_HOST", &url),
                ("SSL_CERT_FILE", &file),
                ("AZURE_SUBSCRIPTION_ID", "22222222-2222-4222-8222-222222222222"),
                ("AZURE_TENANT_ID", "11111111-1111-4111-8111-111111111111"),
                ("AZURE_CLIENT_ID", "44444444-4444-4444-8444-444444444444"),
                ("AZURE_CLIENT_SECRET", "bench"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        )
    }

    /// Starts the emulator; its process and the environment that points `bastide` at it.
    pub(super) fn emulator(&self) -> Result<(Client, Environment)> {
        let mut command = Command::new(self.release.join("bastide-emulator"));
        let state = self.home.path().join("azure");
        command.arg("--state").arg(&state).args(["-o", "json"]);
        let (program, port) = start(command, &self.home, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            u16::try_from(event.get("port")?.as_u64()?).ok()
        })?;
        let text =
            std::fs::read_to_string(state.join("env.sh")).context("cannot read the emulator's env.sh")?;
        let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let environment = Environment(
            lines.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect(),
        );
        Ok((Client { port, program }, environment))
    }

    /// A program of ours by its name, or another one by its path, in this home.
    pub(super) fn command(&self, name: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.release.join(name));
        self.home.apply(&mut command);
        command
    }

    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(super) fn release(&self) -> &Path {
        &self.release
    }

    /// The certificate that vouches for the far end.
    pub(super) fn authority(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    /// The port of the far end's Azure (`azure`) or of a service over plain TLS (its number).
    pub(super) fn port(&self, service: &str) -> Result<u16> {
        self.ports.get(service).copied().with_context(|| format!("the far end has no service {service}"))
    }

    pub(super) fn far(&self) -> u32 {
        self.far.0.id()
    }

    fn copy(&self, api: &str, target: u16) -> Result<Client> {
        let mut command = Command::new(self.release.join("bench-peer"));
        command.args(["copy", api]).arg(self.authority()).arg(format!("127.0.0.1:{target}"));
        let (program, port) = start(command, &self.home, |line| line.parse().ok())?;
        Ok(Client { port, program })
    }

    /// Each as its manual has it for speed: no verification (one handshake is not what is measured), 64 KiB
    /// buffers where there is a choice.
    fn stranger(&self, kind: Kind, service: u16, plain: u16) -> Result<Client> {
        let port = free_port()?;
        let file = self.home.path().join(format!("{port}.conf"));
        let mut command;
        match kind {
            Kind::Websocat => {
                let root = self.release.parent().context("the target folder has no parent")?;
                command = Command::new(root.join("tools/bin/websocat"));
                let azure = self.port("azure")?;
                command
                    .args(["--binary", "-k", "-B", "65536"])
                    .arg(format!("tcp-l:127.0.0.1:{port}"))
                    .arg(format!("wss://localhost:{azure}/webtunnelv2/{service}"));
            }
            Kind::Stunnel => {
                let text = format!(
                    "foreground = yes\npid =\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
                     [bench]\nclient = yes\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{plain}\n"
                );
                std::fs::write(&file, text).context("cannot write stunnel's configuration")?;
                command = Command::new("stunnel4");
                command.arg(&file);
            }
            Kind::Haproxy => {
                let text = format!(
                    "global\n  tune.bufsize 65536\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
                     timeout server 60s\nlisten bench\n  bind 127.0.0.1:{port}\n  \
                     server far 127.0.0.1:{plain} ssl verify none\n"
                );
                std::fs::write(&file, text).context("cannot write haproxy's configuration")?;
                command = Command::new("/usr/sbin/haproxy");
                command.arg("-db").arg("-f").arg(&file);
            }
            Kind::Socat => {
                command = Command::new("socat");
                command
                    .args(["-b", "65536"])
                    .arg(format!("TCP-LISTEN:{port},reuseaddr,fork,bind=127.0.0.1,nodelay"))
                    .arg(format!("OPENSSL:127.0.0.1:{plain},verify=0,nodelay"));
            }
            Kind::Bastide | Kind::Buffered | Kind::Unbuffered => bail!("{} is no stranger", kind.name()),
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.home.apply(&mut command);
        let name = kind.name();
        sys::detach(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let client = Client { port, program: Program(child) };
        client.wait_for_port().with_context(|| format!("{name} does not listen"))?;
        Ok(client)
    }
}

impl Client {
    pub(super) fn pid(&self) -> u32 {
        self.program.0.id()
    }

    /// These programs don't say when they listen. Looked up, not tried: a connection would count.
    fn wait_for_port(&self) -> Result<()> {
        let wanted = format!("0100007F:{:04X} 00000000:0000 0A", self.port);
        for _ in 0..200 {
            let table = std::fs::read_to_string("/proc/net/tcp").context("cannot read /proc/net/tcp")?;
            if table.contains(&wanted) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        bail!("nobody listens on port {}", self.port)
    }
}

/// Variables that lead `bastide` to an Azure.
#[derive(Clone)]
pub(super) struct Environment(Vec<(String, String)>);

impl Environment {
    pub(super) fn apply(&self, command: &mut Command) {
        command.envs(self.0.iter().map(|(name, value)| (name, value)));
    }

    /// What a client is told of a service of the far end: options of the library, and flags of the command line without
    /// their dashes.
    pub(super) fn options(&self, service: u16) -> [String; 5] {
        [
            "name=bastion".to_owned(),
            "resource-group=demo".to_owned(),
            "credential=client-secret".to_owned(),
            format!("target-resource-id={}", self.machine()),
            format!("resource-port={service}"),
        ]
    }

    fn machine(&self) -> String {
        let subscription =
            self.0.iter().find(|(name, _)| name == "AZURE_SUBSCRIPTION_ID").map(|(_, value)| value.as_str());
        format!(
            "/subscriptions/{}/resourceGroups/demo/providers/Microsoft.Compute/virtualMachines/web-01",
            subscription.unwrap_or_default()
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // With its children: socat forks. The group is its own, and the process is not yet waited for.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

fn start<T>(command: Command, home: &Home, said: impl FnMut(&str) -> Option<T>) -> Result<(Program, T)> {
    start_in(command, home, &Environment(Vec::new()), said)
}

/// Starts a program and waits for the line on which it says what is wanted.
fn start_in<T>(
    mut command: Command,
    home: &Home,
    environment: &Environment,
    mut said: impl FnMut(&str) -> Option<T>,
) -> Result<(Program, T)> {
    home.apply(&mut command);
    environment.apply(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    sys::detach(&mut command);
    let name = command.get_program().to_string_lossy().into_owned();
    let mut program = Program(command.spawn().with_context(|| format!("cannot start {name}"))?);
    let mut out = BufReader::new(program.0.stdout.take().context("no standard output")?);
    let mut line = String::new();
    loop {
        line.clear();
        if out.read_line(&mut line).with_context(|| format!("{name} says nothing"))? == 0 {
            bail!("{name} ended before it was ready");
        }
        if let Some(value) = said(line.trim_end()) {
            // What it says later must not make it wait. Ends with the program.
            drop(std::thread::spawn(move || drop(out.read_to_end(&mut Vec::new()))));
            return Ok((program, value));
        }
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    Ok(listener.local_addr().context("cannot tell the port")?.port())
}
