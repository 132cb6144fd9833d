//! `bastide rdp`: the user's own RDP client on a VM's desktop, through a tunnel of ours or through the Bastion host's
//! RDP gateway (protocol.md §6). It leaves out the tunnel (`tunnel`), and what clients want to be told (`client`).

mod client;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;

use bastide::{Endpoint, Plan, RdpFile, RdpSignIn, StopCause};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::arguments::{Desktop, DesktopAuthType, Global, LocalSide, Rdp};
use crate::exit::{Exit, Failure};
use crate::files::{self, Mode};
use crate::report::Reporter;
use crate::setup::{FirstWord, Found};
use crate::signals::Signals;
use crate::stable_hash::stable_hash;
use crate::tunnel::{Order, Ready};
use crate::{program, setup, sys, tunnel};

use client::{Absent, Client, Life, Road};

/// Shows the desktop, or writes the file by which others do.
pub(crate) fn run(global: &Global, rdp: &Rdp, reporter: &Reporter) -> Result<Exit, Failure> {
    let wish = Wish::of(&rdp.desktop)?;
    let editor = if rdp.desktop.configure { Some(Editor::of_user()?) } else { None };
    let reader = match &rdp.desktop.save {
        Some(file) => Reader::Saved(check_place(file)?),
        None => Reader::of_display(&rdp.client_args, wish)?,
    };
    // A desktop comes over one or two connections: a second thread would only cost wake-ups.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let session = Session { rdp, reader, editor, reporter };
    setup::block_on(runtime, global, session.run(global, wish))
}

/// Which way the user wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Tunnel,
    Gateway(RdpSignIn),
    /// Through the gateway where there is one: what the reference client does on Windows.
    GatewayIfThere,
}

impl Wish {
    fn of(desktop: &Desktop) -> Result<Self, Failure> {
        let entra = desktop.auth_type == Some(DesktopAuthType::Aad) || desktop.enable_mfa == Some(true);
        if entra && desktop.auth_type == Some(DesktopAuthType::Password) {
            return Err(Failure::usage(
                "--enable-mfa means Entra ID, and --auth-type says password",
                "leave one of them out",
            ));
        }
        match (entra, desktop.disable_gateway) {
            (true, Some(true)) => Err(Failure::usage(
                "Entra ID over RDP goes through the Bastion host's RDP gateway, and --disable-gateway is given",
                "leave --disable-gateway out; or sign in by password, without --enable-mfa and --auth-type AAD",
            )),
            (true, _) => Ok(Wish::Gateway(RdpSignIn::Entra)),
            (false, Some(true)) => Ok(Wish::Tunnel),
            (false, Some(false)) => Ok(Wish::Gateway(RdpSignIn::Password)),
            (false, None) if cfg!(windows) => Ok(Wish::GatewayIfThere),
            (false, None) => Ok(Wish::Tunnel),
        }
    }

    /// How somebody signs in through the gateway, if that is the way.
    fn gateway(self, plan: &Plan) -> Option<RdpSignIn> {
        match self {
            Wish::Tunnel => None,
            Wish::Gateway(sign_in) => Some(sign_in),
            Wish::GatewayIfThere => {
                Some(RdpSignIn::Password).filter(|sign_in| plan.rdp_file_path(*sign_in).is_ok())
            }
        }
    }
}

/// Who gets the file.
enum Reader<'a> {
    /// The user's RDP client, with further words of the user's.
    Client(Client, &'a [OsString]),
    /// Nobody yet: it is written here.
    Saved(&'a Path),
    /// Nobody: the user is told how to connect.
    Nobody(Absent),
}

impl<'a> Reader<'a> {
    fn of_display(client_args: &'a [OsString], wish: Wish) -> Result<Self, Failure> {
        match Client::find() {
            Ok(client) => Ok(Reader::Client(client, client_args)),
            // Only a tunnel is of use to who connects by hand.
            Err(absent) if client_args.is_empty() && !matches!(wish, Wish::Gateway(_)) => {
                Ok(Reader::Nobody(absent))
            }
            Err(absent) => Err(Failure::usage(
                absent.reason(),
                "install one (Debian: apt-get install freerdp3-x11, and freerdp2-x11 before version 13), or write a file for \
                 one elsewhere with --save FILE.rdp",
            )),
        }
    }
}

struct Session<'a> {
    rdp: &'a Rdp,
    reader: Reader<'a>,
    editor: Option<Editor>,
    reporter: &'a Reporter,
}

/// The way to the VM, open.
enum Way {
    Tunnel(Ready),
    /// The service's gateway, which the RDP client opens itself.
    Gateway,
}

impl Session<'_> {
    async fn run(&self, global: &Global, wish: Wish) -> Result<Exit, Failure> {
        let failed = Failure::system("signals cannot be received");
        let signals = Signals::listen(self.reporter).map_err(failed)?;
        if wish == Wish::Gateway(RdpSignIn::Entra)
            && let Reader::Client(client, _) = &self.reader
            && !client.knows_entra().await
        {
            return Err(no_entra(client));
        }
        let (place, behaviour) = (&self.rdp.place, &self.rdp.behaviour);
        let stop = signals.stop();
        let mut found = tokio::select! {
            found = setup::find(global, place, behaviour, self.reporter) => found?,
            () = stop.cancelled() => return Ok(by_signal(&signals)),
        };
        let plan = |found: &Found| found.host().plan(found.target(), self.rdp.desktop.resource_port);
        let opened = match wish.gateway(&plan(&found)?) {
            Some(sign_in) => self.fetch(&mut found, sign_in, &stop).await?.map(|file| (Way::Gateway, file)),
            None => self.open_tunnel(&mut found, &stop).await?.map(|ready| {
                let way = Way::Tunnel(ready);
                let file = RdpFile::of_tunnel(way.port().unwrap_or_default());
                (way, file)
            }),
        };
        let Some((way, file)) = opened else { return Ok(by_signal(&signals)) };
        // Only now it is certain which VM it is.
        let plan = plan(&found)?;
        let file = match &self.rdp.desktop.username {
            Some(user) => file.with_user(user),
            None => file,
        };
        match &self.reader {
            Reader::Client(client, further) => self.show(client, further, &plan, way, &file, &signals).await,
            Reader::Saved(path) => {
                let saved = self.save(&file, path, &signals).await;
                let words = match &way {
                    Way::Tunnel(_) => "it works as long as this tunnel is open",
                    Way::Gateway => "whoever has it can connect until the token in it ends",
                };
                if saved.is_ok() {
                    self.reporter.say(&format!("Saved {}: {words}", path.display()));
                }
                self.keep_open(way, saved, &signals).await
            }
            Reader::Nobody(absent) => {
                self.reporter.warn(&absent.reason());
                if let Some(port) = way.port() {
                    let words = format!("Connect with any RDP client of this machine to localhost:{port}");
                    self.reporter.say(&words);
                }
                self.keep_open(way, Ok(()), &signals).await
            }
        }
    }

    /// The file of the Bastion host's RDP gateway; none when `stop` came first.
    async fn fetch(
        &self,
        found: &mut Found,
        sign_in: RdpSignIn,
        stop: &CancellationToken,
    ) -> Result<Option<RdpFile>, Failure> {
        // Before anything is minted.
        found.host().plan(found.target(), self.rdp.desktop.resource_port)?.rdp_file_path(sign_in)?;
        let mut relays = Vec::new();
        let fetching = async {
            let options = setup::relay_options(&self.rdp.behaviour, FirstWord::Either);
            let port = self.rdp.desktop.resource_port;
            let relay = setup::relay(found, port, options, self.reporter).await?;
            relays.push(relay.clone());
            Ok(self.reporter.while_waiting(setup::WAITING, relay.rdp_file(sign_in)).await?)
        };
        let fetched = tokio::select! {
            fetched = fetching => Some(fetched),
            () = stop.cancelled() => None,
        };
        // A place that an earlier run has found was proved by a mint.
        tunnel::warn_of_leaks(setup::give_back(&relays).await, self.reporter);
        fetched.transpose()
    }

    /// A tunnel at the local port that was asked for, or at one that stays the same for the VM, since RDP clients keep
    /// what they know of a machine by its port, too.
    async fn open_tunnel(
        &self,
        found: &mut Found,
        stop: &CancellationToken,
    ) -> Result<Option<Ready>, Failure> {
        let ports = match self.rdp.desktop.port {
            Some(port) => vec![port],
            None => {
                let plan = found.host().plan(found.target(), self.rdp.desktop.resource_port)?;
                own_ports(plan.host_key_alias())
            }
        };
        let say = if matches!(self.reader, Reader::Client(..)) { Reporter::detail } else { Reporter::say };
        let mut taken = None;
        for port in ports {
            let local = LocalSide {
                resource_port: Some(self.rdp.desktop.resource_port),
                port: Some(port),
                forward: Vec::new(),
                bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
                allow_other_users: false,
            };
            let order = Order {
                place: &self.rdp.place,
                local: &local,
                behaviour: &self.rdp.behaviour,
                prefetch: 0,
                say,
            };
            match order.open_on(found, stop, self.reporter).await {
                Err(Failure::Client(error @ bastide::Error::EndpointTaken { .. })) => taken = Some(error),
                opened => return opened,
            }
        }
        // The last of several is any free one, so that only one that was asked for can be refused.
        taken.map_or(Ok(None), |error| Err(error.into()))
    }

    /// Runs the client, and ends with it.
    async fn show(
        &self,
        client: &Client,
        further: &[OsString],
        plan: &Plan,
        way: Way,
        file: &RdpFile,
        signals: &Signals,
    ) -> Result<Exit, Failure> {
        let folder = sys::private_folder().map_err(Failure::system("no private folder can be made"))?;
        let path = folder.path().join(format!("{}.rdp", file_name(plan.target_name())));
        let identity = file_name(plan.host_key_alias());
        let road = match way.port() {
            Some(port) => Road::Tunnel { port, identity: &identity },
            None => Road::Gateway,
        };
        let starting = async {
            self.save(file, &path, signals).await?;
            let mut command = client.command(plan.target_name(), road, &path, further);
            // What it says is none of our data.
            command.stdout(Stdio::from(std::io::stderr()));
            command.spawn().map_err(Failure::system(format!("{} cannot be started", client.name())))
        };
        let mut child = match starting.await {
            Ok(child) => child,
            Err(failure) => return self.keep_open(way, Err(failure), signals).await,
        };
        let stop = CancellationToken::new();
        let mut carried = pin!(way.carry(stop.clone(), self.reporter));
        let showing = async {
            let exit = program::wait(&mut child, signals).await?;
            if client.life() == Life::Session || exit != Exit::Child(0) {
                let ours = client.exit(exit);
                if ours != exit && ours != Exit::Done {
                    self.reporter.warn(&format!("{} ended with status {}", client.name(), exit.code()));
                }
                return Ok(ours);
            }
            self.reporter
                .say(&format!("{} has taken over; Ctrl + C when the session is over", client.name()));
            signals.stop().cancelled_owned().await;
            Ok(by_signal(signals))
        };
        tokio::select! {
            exit = showing => {
                stop.cancel();
                carried.await;
                exit
            }
            cause = &mut carried => {
                program::end(&mut child, TERMINATE).await?;
                Ok(setup::limit_reached(cause, self.reporter).unwrap_or(Exit::Done))
            }
        }
    }

    /// Keeps a tunnel open until a signal or a time limit, or ends it at once where something has failed.
    async fn keep_open(
        &self,
        way: Way,
        so_far: Result<(), Failure>,
        signals: &Signals,
    ) -> Result<Exit, Failure> {
        let stop = signals.stop();
        match (&way, &so_far) {
            (Way::Gateway, _) | (_, Err(_)) => stop.cancel(),
            (Way::Tunnel(_), Ok(())) => self.reporter.say("Ctrl + C to close"),
        }
        let cause = way.carry(stop, self.reporter).await;
        so_far?;
        Ok(setup::limit_reached(cause, self.reporter).unwrap_or_else(|| by_signal(signals)))
    }

    /// Writes the file for its reader alone, and has the user edit it where that is asked for.
    async fn save(&self, file: &RdpFile, path: &Path, signals: &Signals) -> Result<(), Failure> {
        let failed = Failure::system(format!("'{}' cannot be written", path.display()));
        files::replace(path, file.expose().as_bytes(), Mode::Private).map_err(failed)?;
        match &self.editor {
            Some(editor) => editor.edit(path, signals).await,
            None => Ok(()),
        }
    }
}

impl Way {
    /// The local port of a tunnel.
    fn port(&self) -> Option<u16> {
        match self {
            Way::Tunnel(ready) => ready.endpoints().find_map(tcp_port),
            Way::Gateway => None,
        }
    }

    /// Carries what goes this way until `stop` or a time limit.
    async fn carry(self, stop: CancellationToken, reporter: &Reporter) -> StopCause {
        match self {
            Way::Tunnel(ready) => ready.serve(stop, reporter).await,
            Way::Gateway => {
                stop.cancelled().await;
                StopCause::Asked
            }
        }
    }
}

fn by_signal(signals: &Signals) -> Exit {
    signals.received().map_or(Exit::Done, Exit::Signal)
}

/// SIGTERM.
const TERMINATE: u8 = 15;

/// The user's own editor of text.
struct Editor(OsString);

impl Editor {
    fn of_user() -> Result<Self, Failure> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match set("VISUAL").or_else(|| set("EDITOR")) {
            Some(editor) => Ok(Self(editor)),
            None if cfg!(windows) => Ok(Self("mstsc /edit".into())),
            None => Err(Failure::usage(
                "there is no editor for --configure",
                "name one in VISUAL or EDITOR; or write the file with --save FILE.rdp, and open it in your RDP client",
            )),
        }
    }

    /// Waits until the user has closed it.
    async fn edit(&self, path: &Path, signals: &Signals) -> Result<(), Failure> {
        // It may have arguments, as git's may.
        let words = self.0.to_string_lossy();
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        let shown = self.0.display();
        let failed = || Failure::system(format!("the editor '{shown}' cannot be started"));
        let mut child = command.args(words).arg(path).kill_on_drop(true).spawn().map_err(failed())?;
        match program::wait(&mut child, signals).await? {
            Exit::Child(0) => Ok(()),
            exit => Err(Failure::usage(
                format!("the editor '{shown}' ended with status {}, so nothing was connected", exit.code()),
                "leave it as it is left after saving",
            )),
        }
    }
}

/// The folder is looked for now, and not when a tunnel is open.
fn check_place(file: &Path) -> Result<&Path, Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match folder.is_dir() && !file.is_dir() {
        true => Ok(file),
        false => Err(Failure::usage(
            format!("'{}' cannot be written", file.display()),
            "--save wants a file in a folder that is there",
        )),
    }
}

fn no_entra(client: &Client) -> Failure {
    Failure::usage(
        format!("{} cannot sign in with Entra ID", client.name()),
        "FreeRDP can from version 3 on, where it was built with it (xfreerdp3 /buildconfig says WITH_AAD=ON), and Windows \
         can: --save FILE.rdp writes the file for one elsewhere; or sign in by password",
    )
}

fn tcp_port(endpoint: &Endpoint) -> Option<u16> {
    match endpoint {
        Endpoint::Tcp(address) => Some(address.port()),
        Endpoint::Unix(_) => None,
    }
}

/// Local ports for a VM of this identity, in the order in which they are tried: some that are the same each time, then
/// any free one.
fn own_ports(identity: &str) -> Vec<u16> {
    let start = stable_hash(identity.bytes()) % OWN_PORTS;
    let nth = |n| u16::try_from(FIRST_OWN_PORT + (start + n) % OWN_PORTS).unwrap_or_default();
    (0..SESSIONS_OF_ONE_VM).map(nth).chain([0]).collect()
}

/// Ports that no system gives out by itself: below Linux's 32,768 (`ip_local_port_range`) and the 49,152 of others.
const FIRST_OWN_PORT: u64 = 20_000;
const OWN_PORTS: u64 = 12_768;

/// Windows lets two people in at once without licences; others that have the port by chance count, too.
const SESSIONS_OF_ONE_VM: u64 = 4;

/// A name that is one in a file's name, and one word in a list with commas.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_with_their_vm() {
        // 0xaf63dc4c8601ec8c is the hash of "a" (RFC 9923).
        let of_a = u16::try_from(20_000 + 0xaf63_dc4c_8601_ec8c_u64 % 12_768).unwrap();
        assert_eq!(own_ports("a"), [of_a, of_a + 1, of_a + 2, of_a + 3, 0]);
        for identity in ["", "web-01.vm.g.s", "web-02.vm.g.s"] {
            assert!(own_ports(identity).iter().all(|port| *port == 0 || (20_000..32_768).contains(port)));
        }
    }

    #[test]
    fn names_are_fit_for_files() {
        assert_eq!(file_name("web-01.vm.my(group)_1.s"), "web-01.vm.my_group__1.s");
        assert_eq!(file_name("../a,b/ü"), ".._a_b__");
    }
}
