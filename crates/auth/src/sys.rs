//! What differs by platform: ending a child together with the processes that it started, where state is kept, and who
//! may read it. It leaves out everything else.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use tokio::process::{Child, Command};

use crate::Environment;

/// The folder for what a program keeps between its runs; `None` without a home.
pub fn state_folder(environment: &Environment) -> Option<PathBuf> {
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    Some(imp::state(absolute)?.join("bastide"))
}

/// Whether it is worth asking for a keyring.
pub(crate) fn may_have_keyring(environment: &Environment) -> bool {
    imp::may_have_keyring(environment)
}

/// A folder, and those above it, that only the user may look into.
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    imp::create_private_folder(path)
}

/// Opens a file, or makes it so that only the user may read it. What it holds stays.
pub(crate) fn create_private_file(path: &Path) -> io::Result<File> {
    imp::create_private_file(path)
}

/// Makes sure that a rename in a folder is on the disk.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    imp::sync_folder(path)
}

/// The folder in which the Azure Arc agent puts its keys, as the Azure SDKs know it.
pub(crate) fn arc_tokens(environment: &Environment) -> PathBuf {
    imp::arc_tokens(environment)
}

/// Owner and mode of a file, where the system has such things.
pub(crate) fn owner_and_mode(metadata: &Metadata) -> Option<(u32, u32)> {
    imp::owner_and_mode(metadata)
}

/// The user's own number, where the system has such things.
pub(crate) fn user() -> u32 {
    imp::user()
}

/// A shell that runs a line of the user's.
pub(crate) fn shell(line: &str) -> Command {
    imp::shell(line)
}

/// Starts a child that dies with the returned guard, unless [`Guard::disarm`] is called first.
pub(crate) fn spawn(mut command: Command) -> io::Result<(Child, Guard)> {
    command.kill_on_drop(true);
    imp::isolate(&mut command);
    let child = command.spawn()?;
    let guard = Guard(imp::group(&child));
    Ok((child, guard))
}

/// Kills the child's process group when it is dropped; it has to be disarmed once the child was waited for.
pub(crate) struct Guard(Option<imp::Group>);

impl Guard {
    /// The child has ended by itself: its number may soon be somebody else's.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            imp::kill(group);
        }
    }
}

#[cfg(unix)]
mod imp {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
    use std::path::{Path, PathBuf};

    use rustix::process::{Pid, Signal, kill_process_group};
    use tokio::process::{Child, Command};

    use crate::Environment;

    pub(super) fn state(absolute: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
        absolute("XDG_STATE_HOME").or_else(|| {
            let home = absolute("HOME")?;
            Some(if cfg!(target_os = "macos") {
                home.join("Library/Application Support")
            } else {
                home.join(".local/state")
            })
        })
    }

    /// A Secret Service needs a session bus, whose address is in one of two places (D-Bus Specification, "Well-known
    /// Message Bus Instances"; sd-bus(3)).
    pub(super) fn may_have_keyring(environment: &Environment) -> bool {
        let socket = || Some(Path::new(environment.get("XDG_RUNTIME_DIR")?).join("bus").exists());
        cfg!(target_os = "macos")
            || environment.get("DBUS_SESSION_BUS_ADDRESS").is_some()
            || socket().unwrap_or_default()
    }

    pub(super) fn create_private_folder(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    pub(super) fn create_private_file(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    pub(super) fn arc_tokens(_: &Environment) -> PathBuf {
        "/var/opt/azcmagent/tokens".into()
    }

    pub(super) fn owner_and_mode(metadata: &Metadata) -> Option<(u32, u32)> {
        Some((metadata.uid(), metadata.mode()))
    }

    pub(super) fn user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    pub(super) fn shell(line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        command
    }

    pub(super) type Group = Pid;

    /// A group of its own: `az` is a shell script that starts Python, under a shell that azure_identity starts.
    pub(super) fn isolate(command: &mut Command) {
        command.process_group(0);
    }

    pub(super) fn group(child: &Child) -> Option<Group> {
        Pid::from_raw(i32::try_from(child.id()?).ok()?)
    }

    pub(super) fn kill(group: Group) {
        // It fails when everybody in it has gone, which is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// A group needs a job object and with it unsafe code: here only the shell is killed, by tokio.
#[cfg(not(unix))]
mod imp {
    use std::fs::{self, File, Metadata, OpenOptions};
    use std::io;
    use std::path::{Path, PathBuf};

    use tokio::process::{Child, Command};

    use crate::Environment;

    pub(super) fn state(absolute: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
        absolute("LOCALAPPDATA")
    }

    pub(super) fn may_have_keyring(_: &Environment) -> bool {
        true
    }

    /// What is below the user's own folder is the user's.
    pub(super) fn create_private_folder(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    pub(super) fn create_private_file(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(false).open(path)
    }

    /// NTFS writes names down by itself.
    pub(super) fn sync_folder(_: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn arc_tokens(environment: &Environment) -> PathBuf {
        let data = environment.get("ProgramData").unwrap_or("C:\\ProgramData");
        Path::new(data).join("AzureConnectedMachineAgent").join("Tokens")
    }

    /// Access lists: what is below a folder of the user's or of the administrators' is theirs.
    pub(super) fn owner_and_mode(_: &Metadata) -> Option<(u32, u32)> {
        None
    }

    pub(super) fn user() -> u32 {
        0
    }

    pub(super) fn shell(line: &str) -> Command {
        let mut command = Command::new("cmd");
        command.args(["/C", line]);
        command
    }

    pub(super) enum Group {}

    pub(super) fn isolate(_: &mut Command) {}

    pub(super) fn group(_: &Child) -> Option<Group> {
        None
    }

    pub(super) fn kill(group: Group) {
        match group {}
    }
}
