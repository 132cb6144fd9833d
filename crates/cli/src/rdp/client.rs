//! The user's own RDP client: which one is there, what it is told on its command line, and what its status means. It
//! leaves out running it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::exit::Exit;
use crate::{program, sys};

/// A program that shows desktops.
#[derive(Debug)]
pub(super) struct Client {
    kind: Kind,
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `xfreerdp` or `sdl-freerdp`, 2.0 or later.
    FreeRdp,
    Remmina,
    /// macOS's `open`, which knows who reads `.rdp` files.
    Open,
    /// Windows' own.
    Mstsc,
}

/// In the order in which they are looked for.
const KNOWN: &[(&str, Kind)] = if cfg!(windows) {
    &[("mstsc", Kind::Mstsc)]
} else if cfg!(target_os = "macos") {
    &[("open", Kind::Open)]
} else {
    &[
        ("xfreerdp3", Kind::FreeRdp),
        ("xfreerdp", Kind::FreeRdp),
        ("sdl-freerdp3", Kind::FreeRdp),
        ("sdl-freerdp", Kind::FreeRdp),
        ("remmina", Kind::Remmina),
    ]
};

/// The way that a client goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Road<'a> {
    /// Through a port of this machine; the VM's certificate is kept under this name.
    Tunnel { port: u16, identity: &'a str },
    /// Through the service's gateway, by what the file says.
    Gateway,
}

/// How a client lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// As long as the session.
    Session,
    /// It hands the session over to a process that is there already, or may do so.
    HandsOver,
}

/// Why no client is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// None of those that are known is in PATH.
    Program,
    /// Nothing could be shown.
    Display,
}

impl Absent {
    /// In words.
    pub(super) fn reason(self) -> String {
        match self {
            Absent::Program => {
                let names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
                format!("there is no RDP client in PATH ({})", names.join(", "))
            }
            Absent::Display => "there is no display to show a desktop on".into(),
        }
    }
}

impl Client {
    /// The first client that is there.
    ///
    /// # Errors
    /// [`Absent`].
    pub(super) fn find() -> Result<Self, Absent> {
        if !sys::has_display() {
            return Err(Absent::Display);
        }
        let found = |(name, kind): &(&str, Kind)| {
            let path = program::find(OsStr::new(name)).ok()?;
            Some(Self { kind: *kind, path })
        };
        KNOWN.iter().find_map(found).ok_or(Absent::Program)
    }

    /// How messages call it.
    pub(super) fn name(&self) -> String {
        self.path.file_stem().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Whether it can sign in with Entra ID. FreeRDP can from version 3 on, where it was built so. Cancel safe.
    pub(super) async fn knows_entra(&self) -> bool {
        match self.kind {
            Kind::Mstsc | Kind::Open => true,
            Kind::Remmina => false,
            Kind::FreeRdp => {
                let mut command = Command::new(&self.path);
                command.arg("/buildconfig").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
                let output = timeout(BUILD_CONFIG_WITHIN, command.output()).await;
                output.is_ok_and(|output| {
                    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("WITH_AAD=ON"))
                })
            }
        }
    }

    /// What starts it on a desktop of this name, by a file. `further` is the user's.
    pub(super) fn command(
        &self,
        desktop: &str,
        road: Road<'_>,
        file: &Path,
        further: &[OsString],
    ) -> Command {
        let mut command = Command::new(&self.path);
        match self.kind {
            Kind::FreeRdp => {
                command.arg(file).arg(format!("/t:{desktop}"));
                if let Road::Tunnel { port, identity } = road {
                    // Not by the name localhost: somebody else may have the port on ::1.
                    command.arg(format!("/v:127.0.0.1:{port}"));
                    // The first certificate is kept, and no other one taken for it. Not for the gateway, whose own
                    // certificate is one that everybody can check, and would be taken unchecked.
                    if !further.iter().any(|word| speaks_of_certificates(word)) {
                        command.arg(format!("/cert:tofu,name:{identity}"));
                    }
                }
                command.args(further);
            }
            Kind::Remmina => {
                command.arg("-c").arg(file).args(further);
            }
            Kind::Open | Kind::Mstsc => {
                command.args(further).arg(file);
            }
        }
        command.kill_on_drop(true);
        command
    }

    pub(super) fn life(&self) -> Life {
        match self.kind {
            Kind::FreeRdp | Kind::Mstsc => Life::Session,
            Kind::Remmina | Kind::Open => Life::HandsOver,
        }
    }

    /// How we end when it has ended so. FreeRDP's numbers mean other things than ours, which are those of signals, too:
    /// there is a session that is over, or one that failed, as ssh says it.
    pub(super) fn exit(&self, exit: Exit) -> Exit {
        match (self.kind, exit) {
            (Kind::FreeRdp, Exit::Child(status)) if FREERDP_OVER.contains(&status) => Exit::Done,
            (Kind::FreeRdp, Exit::Child(_)) => Exit::Child(255),
            _ => exit,
        }
    }
}

/// It prints a page; a session is waited for.
const BUILD_CONFIG_WITHIN: Duration = Duration::from_secs(10);

/// FreeRDP's status (`XF_EXIT_CODE` of its sources) when there was a session, and it was disconnected, logged off from,
/// idle for too long, taken over from elsewhere, or left by its user.
const FREERDP_OVER: [u8; 6] = [0, 1, 2, 3, 5, 11];

fn speaks_of_certificates(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| word.get(1..).is_some_and(|option| option.starts_with("cert")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: Kind, road: Road<'_>, further: &[&str]) -> Vec<String> {
        let client = Client { kind, path: "/usr/bin/xfreerdp3".into() };
        let further: Vec<OsString> = further.iter().map(OsString::from).collect();
        let command = client.command("web 01", road, Path::new("/run/w.rdp"), &further);
        command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn clients_are_told_where_to_connect() {
        let road = Road::Tunnel { port: 20_001, identity: "web-01.vm.g.s" };
        assert_eq!(
            words(Kind::FreeRdp, road, &["/f"]),
            ["/run/w.rdp", "/t:web 01", "/v:127.0.0.1:20001", "/cert:tofu,name:web-01.vm.g.s", "/f"]
        );
        for own in ["/cert:deny", "/cert-ignore", "-cert-tofu"] {
            assert_eq!(
                words(Kind::FreeRdp, road, &[own]),
                ["/run/w.rdp", "/t:web 01", "/v:127.0.0.1:20001", own]
            );
        }
        assert_eq!(words(Kind::FreeRdp, Road::Gateway, &["/f"]), ["/run/w.rdp", "/t:web 01", "/f"]);
        assert_eq!(words(Kind::Remmina, road, &[]), ["-c", "/run/w.rdp"]);
        assert_eq!(words(Kind::Mstsc, road, &["/f"]), ["/f", "/run/w.rdp"]);
    }

    #[test]
    fn a_session_that_is_over_is_no_failure() {
        let exit = |kind, status| Client { kind, path: "x".into() }.exit(Exit::Child(status)).code();
        assert_eq!([0, 1, 2, 3, 5, 11].map(|status| exit(Kind::FreeRdp, status)), [0; 6]);
        assert_eq!([4, 7, 10, 128, 131, 143].map(|status| exit(Kind::FreeRdp, status)), [255; 6]);
        assert_eq!(exit(Kind::Mstsc, 1), 1);
    }
}
