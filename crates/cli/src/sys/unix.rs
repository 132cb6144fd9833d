//! Unix: three stop signals, descriptors without threads, file modes.

use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::fs::{FileType, fstat};
use rustix::net::{AddressFamily, sockopt};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::tcgetwinsize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixStream};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// Columns and rows of the terminal on standard error, if it is one.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stderr()).ok()?;
    Some((size.ws_col.into(), size.ws_row.into()))
}

/// Whether a browser that is started here would be seen.
pub(crate) fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || set("WAYLAND_DISPLAY") || set("DISPLAY")
}

/// SIGINT, SIGTERM and SIGHUP.
pub(crate) struct StopSignals {
    interrupt: SignalStream,
    terminate: SignalStream,
    hang_up: SignalStream,
}

impl StopSignals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hang_up.recv() => 1,
        }
    }
}

/// A byte stream to read from.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// A byte stream to write to.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Standard input: a pipe or socket without a thread in between, anything else with one.
pub(crate) fn stdin() -> io::Result<Reader> {
    let stdin = io::stdin();
    Ok(match kind(stdin.as_fd())? {
        Kind::Pipe(descriptor) => Box::new(pipe::Receiver::from_owned_fd(descriptor)?),
        Kind::Unix(stream) => Box::new(stream),
        Kind::Tcp(stream) => Box::new(stream),
        Kind::Other => Box::new(tokio::io::stdin()),
    })
}

/// Standard output, likewise.
pub(crate) fn stdout() -> io::Result<Writer> {
    let stdout = io::stdout();
    Ok(match kind(stdout.as_fd())? {
        Kind::Pipe(descriptor) => Box::new(pipe::Sender::from_owned_fd(descriptor)?),
        Kind::Unix(stream) => Box::new(stream),
        Kind::Tcp(stream) => Box::new(stream),
        Kind::Other => Box::new(tokio::io::stdout()),
    })
}

/// Standard input without a buffer, so that not a byte too much is read.
pub(crate) fn unbuffered_stdin() -> io::Result<std::fs::File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

enum Kind {
    Pipe(OwnedFd),
    Unix(UnixStream),
    Tcp(TcpStream),
    Other,
}

fn kind(descriptor: BorrowedFd<'_>) -> io::Result<Kind> {
    let file_type = FileType::from_raw_mode(fstat(descriptor)?.st_mode);
    Ok(match file_type {
        FileType::Fifo => Kind::Pipe(descriptor.try_clone_to_owned()?),
        FileType::Socket => {
            let domain = sockopt::socket_domain(descriptor);
            let owned = descriptor.try_clone_to_owned()?;
            match domain {
                Ok(AddressFamily::UNIX) => {
                    let stream = std::os::unix::net::UnixStream::from(owned);
                    stream.set_nonblocking(true)?;
                    Kind::Unix(UnixStream::from_std(stream)?)
                }
                Ok(AddressFamily::INET | AddressFamily::INET6) => {
                    let stream = std::net::TcpStream::from(owned);
                    stream.set_nonblocking(true)?;
                    Kind::Tcp(TcpStream::from_std(stream)?)
                }
                _ => Kind::Other,
            }
        }
        _ => Kind::Other,
    })
}

/// The mode bits of group and others, which OpenSSH does not accept on a private key.
pub(crate) fn readers_beside_owner(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o077
}

/// A fresh folder that only its owner can enter, in memory where the system has such a place.
pub(crate) fn private_folder() -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("bastide-").permissions(std::fs::Permissions::from_mode(0o700));
    // A socket's path has 108 bytes (unix(7)); the runtime folder is short, $TMPDIR need not be.
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => builder.tempdir_in(folder).or_else(|_| builder.tempdir()),
        _ => builder.tempdir(),
    }
}

/// A folder that only its owner can enter, unless it is there already.
pub(crate) fn make_private_folder(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A child's status as a shell reports it: 128 and the signal's number when one ended it.
pub(crate) fn exit_of(status: ExitStatus) -> u8 {
    let number = status.code().unwrap_or_else(|| status.signal().map_or(255, |signal| signal + 128));
    u8::try_from(number).unwrap_or(255)
}

/// Asks a child to end, with the signal that asked us.
pub(crate) fn terminate(child: u32, signal: u8) {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let signal = match signal {
        1 => Signal::HUP,
        2 => Signal::INT,
        _ => Signal::TERM,
    };
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, signal)
    {
        tracing::debug!(%error, "the child could not be signalled");
    }
}
