//! Windows: Ctrl-C, standard input and output by threads, no file modes.

use std::fs::Metadata;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use bastide::{Environment, Secret};

use tokio::io::{AsyncRead, AsyncWrite};

/// Ctrl-C.
pub(crate) struct StopSignals;

impl StopSignals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
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
pub(crate) fn terminate(_: u32, _: u8) {}

/// A folder, with the access list of the one that it is in.
pub(crate) fn make_private_folder(path: &std::path::Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
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
