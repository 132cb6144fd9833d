//! Windows: Ctrl-C, standard input and output by threads, no file modes.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use bastide::{Environment, Secret};

use tokio::io::{AsyncRead, AsyncWrite};

/// Ctrl-C.
pub(crate) struct StopSignals;

impl StopSignals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// There is none here.
    pub(crate) fn but_hang_up() -> io::Result<Self> {
        Self::new()
    }

    /// The number of the next one, as on Unix. Cancel safe.
    pub(crate) async fn next(&mut self) -> u8 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            // Without a console there is nobody to press it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// A byte stream to read from.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// A byte stream to write to.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Standard input.
pub(crate) fn stdin() -> io::Result<Reader> {
    Ok(Box::new(tokio::io::stdin()))
}

/// Standard output.
pub(crate) fn stdout() -> io::Result<Writer> {
    Ok(Box::new(tokio::io::stdout()))
}

/// A library brings its own idea of descriptor 1 here, which is not ours to change.
pub(crate) fn keep_stdout() -> io::Result<()> {
    Ok(())
}

/// Nothing was changed.
pub(crate) fn settle_stdout() {}

/// Standard output for lines.
pub(crate) fn stdout_lines() -> Box<dyn io::Write> {
    Box::new(io::stdout().lock())
}

/// Our standard output, for a child.
pub(crate) fn stdout_for_child() -> io::Result<Stdio> {
    Ok(Stdio::inherit())
}

/// Whether what is typed is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    On,
    Off,
}

/// Not yet.
pub(crate) async fn ask_on_terminal(_question: String, _echo: Echo) -> io::Result<Secret> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Where this user's settings are.
pub(crate) fn configuration_folder(environment: &Environment) -> Option<PathBuf> {
    let roaming = environment.get("APPDATA").map(PathBuf::from).filter(|path| path.is_absolute());
    roaming.map(|folder| folder.join("bastide"))
}

/// OpenSSH checks access lists itself.
pub(crate) fn readers_beside_owner(_: &Metadata) -> u32 {
    0
}

/// Where this user's state is kept.
pub(crate) fn state_folder() -> Option<PathBuf> {
    let local = std::env::var_os("LOCALAPPDATA").map(PathBuf::from).filter(|path| path.is_absolute());
    local.map(|local| local.join("bastide"))
}

/// Where answers of Azure are kept that may be lost.
pub(crate) fn places_folder() -> Option<PathBuf> {
    state_folder().map(|folder| folder.join("places"))
}

/// There is no such limit.
pub(crate) fn raise_descriptor_limit() {}

/// A child's status.
pub(crate) fn exit_of(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// Ctrl-C reaches the whole console group by itself.
pub(crate) fn pass_signal(_: u32, _: u8) {}

/// Whether a file is there; its name says whether it can be run.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.is_file()
}

/// Ctrl-C, which a program that we run gets by itself.
pub(crate) struct PassedSignals;

impl PassedSignals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// There are none.
    pub(crate) fn add_others(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Never: it is caught, so that we live as long as the program.
    pub(crate) async fn next(&mut self) -> u8 {
        while tokio::signal::ctrl_c().await.is_ok() {}
        std::future::pending().await
    }
}

/// A folder, with the access list of the one that it is in.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// A folder that goes away with this value; the temporary folder is the user's own.
#[derive(Debug)]
pub(crate) struct PrivateFolder(tempfile::TempDir);

impl PrivateFolder {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A fresh private folder.
pub(crate) fn private_folder() -> io::Result<PrivateFolder> {
    tempfile::Builder::new().prefix("bastide-session-").tempdir().map(PrivateFolder)
}

/// It would take a library to know.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    None
}

/// Likewise.
pub(crate) fn stdout_columns() -> Option<usize> {
    None
}

/// Whether a browser that is started here would be seen.
pub(crate) fn has_display() -> bool {
    true
}

/// A word in two, before the byte at `index`; none where it is shorter, or no text.
pub(crate) fn split(word: &OsStr, index: usize) -> Option<(&OsStr, &OsStr)> {
    let (before, behind) = word.to_str()?.split_at_checked(index)?;
    Some((before.as_ref(), behind.as_ref()))
}

/// The access list comes from the folder.
pub(crate) fn make_alike(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

/// What stands for a folder where it is locked.
pub(crate) fn lockable(folder: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).open(folder.join(".lock"))
}

/// The terminal's closing has another form here, and nothing reads a file anew.
pub(crate) struct HangUps;

impl HangUps {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Never.
    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}

/// No signal here has the number.
pub(crate) const HANG_UP: u8 = 1;

/// A word in quotes for `CreateProcess` and cmd.exe, which know double ones alone; no path holds one.
pub(crate) fn shell_quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('"', "\\\""))
}

/// There is none.
pub(crate) mod systemd {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use bastide::Inherited;

    pub(crate) fn ready() {}

    pub(crate) fn reloading() {}

    pub(crate) fn stopping() {}

    pub(crate) fn status(_words: &str) {}

    pub(crate) fn alive() {}

    pub(crate) fn watchdog() -> Option<Duration> {
        None
    }

    pub(crate) fn sockets(_names: Option<&str>) -> BTreeMap<String, Vec<Inherited>> {
        BTreeMap::new()
    }
}
