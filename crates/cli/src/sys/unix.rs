//! Unix: three stop signals, descriptors without threads and their limit, file modes, folders.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bastide::{Environment, Secret};

use rustix::fs::{Access, FileType, access, fstat};
use rustix::net::{AddressFamily, sockopt};
use rustix::process::{Pid, Resource, Rlimit, Signal, geteuid, getpgrp, getrlimit, kill_process, setrlimit};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixStream};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// Columns and rows of the terminal on standard error, if it is one.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stderr()).ok()?;
    Some((size.ws_col.into(), size.ws_row.into()))
}

/// Columns of the terminal on standard output, if it is one.
pub(crate) fn stdout_columns() -> Option<usize> {
    tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col.into()).filter(|columns| *columns > 0)
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
    hang_up: Option<SignalStream>,
}

impl StopSignals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { hang_up: Some(signal(SignalKind::hangup())?), ..Self::but_hang_up()? })
    }

    /// For who has another meaning for SIGHUP.
    pub(crate) fn but_hang_up() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: None,
        })
    }

    /// The number of the next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            () = next(self.hang_up.as_mut()) => HANG_UP,
        }
    }
}

async fn next(signals: Option<&mut SignalStream>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}

/// SIGHUP's number (signal(7)).
pub(crate) const HANG_UP: u8 = 1;

/// SIGHUP, where it does not mean to stop.
pub(crate) struct HangUps(SignalStream);

impl HangUps {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one. Cancel safe.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
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
    let (stdout, kept) = (io::stdout(), kept());
    let descriptor = kept.map_or_else(|| stdout.as_fd(), AsFd::as_fd);
    Ok(match kind(descriptor)? {
        Kind::Pipe(descriptor) => Box::new(pipe::Sender::from_owned_fd(descriptor)?),
        Kind::Unix(stream) => Box::new(stream),
        Kind::Tcp(stream) => Box::new(stream),
        Kind::Other => match kept {
            Some(kept) => Box::new(tokio::fs::File::from_std(File::from(kept.try_clone()?))),
            None => Box::new(tokio::io::stdout()),
        },
    })
}

/// What [`keep_stdout`] has put in place of standard output.
static KEPT: OnceLock<Kept> = OnceLock::new();

struct Kept {
    /// Standard output as it was before.
    stdout: OwnedFd,
    /// Ends when everything that strayed has been seen.
    strays: Mutex<Receiver<()>>,
}

fn kept() -> Option<&'static OwnedFd> {
    KEPT.get().map(|kept| &kept.stdout)
}

/// Takes standard output away from whoever writes to descriptor 1 by habit, such as a plugin that prints: it carries
/// data, and a stray line in it breaks a session. What comes there is thrown away, and a warning says so.
pub(crate) fn keep_stdout() -> io::Result<()> {
    if KEPT.get().is_some() {
        return Ok(());
    }
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    let (mut strays, descriptor) = io::pipe()?;
    let (done, end) = channel::<()>();
    if KEPT.set(Kept { stdout, strays: Mutex::new(end) }).is_err() {
        return Ok(());
    }
    rustix::stdio::dup2_stdout(&descriptor)?;
    drop(descriptor);
    // Ends with `settle_stdout`, or with the process.
    std::thread::Builder::new().name("stray output".into()).spawn(move || {
        let mut buffer = [0; 4096];
        let mut is_said = false;
        while strays.read(&mut buffer).is_ok_and(|length| length > 0) {
            if !is_said {
                tracing::warn!(
                    "a plugin writes to standard output, which carries data only: it is thrown away"
                );
                is_said = true;
            }
        }
        drop(done);
    })?;
    Ok(())
}

/// Waits for the warning about what has strayed, if something has. What comes later goes nowhere: a library's buffers
/// are written when the process ends.
pub(crate) fn settle_stdout() {
    let Some(kept) = KEPT.get() else { return };
    let nowhere = File::options().write(true).open("/dev/null");
    if nowhere.is_ok_and(|nowhere| rustix::stdio::dup2_stdout(nowhere).is_ok()) {
        let strays = kept.strays.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else's process may still hold the other end.
        let _: Result<(), RecvTimeoutError> = strays.recv_timeout(SETTLE_WITHIN);
    }
}

/// What is in a pipe is read in no time; as long as a plugin may take to close.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);

/// Standard output for lines.
pub(crate) fn stdout_lines() -> Box<dyn io::Write> {
    match kept().map(OwnedFd::try_clone) {
        Some(Ok(kept)) => Box::new(File::from(kept)),
        _ => Box::new(io::stdout().lock()),
    }
}

/// Our standard output, for a child.
pub(crate) fn stdout_for_child() -> io::Result<Stdio> {
    kept().map_or_else(|| Ok(Stdio::inherit()), |kept| Ok(kept.try_clone()?.into()))
}

/// Whether what is typed is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    On,
    Off,
}

/// A line from the terminal of the session, whatever standard input is. Cancel safe: the terminal is as it was; a
/// thread is left behind that would read one more line.
pub(crate) async fn ask_on_terminal(question: String, echo: Echo) -> io::Result<Secret> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let reading = terminal.try_clone()?;
    let quiet = (echo == Echo::Off).then(|| Quiet::new(&terminal)).transpose()?;
    let line = tokio::task::spawn_blocking(move || {
        let mut reading = reading;
        reading.write_all(question.as_bytes())?;
        let mut line = zeroize::Zeroizing::new(String::new());
        io::BufReader::new(&reading).read_line(&mut line)?;
        Ok::<_, io::Error>(Secret::new(line.as_str()))
    });
    let line = line.await.map_err(io::Error::other)?;
    if let Some(quiet) = quiet {
        drop(quiet);
        // The user's own Enter was not seen.
        (&terminal).write_all(b"\n")?;
    }
    line
}

/// A terminal that shows nothing that is typed, until this is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal cannot be set back: `stty sane` does it");
        }
    }
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

/// Where this user's state is kept (XDG Base Directory Specification): it outlives a restart of the machine, unlike
/// `XDG_RUNTIME_DIR`.
pub(crate) fn state_folder() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local").join("state")));
    state.map(|state| state.join("bastide"))
}

/// Where answers of Azure are kept that may be lost (XDG Base Directory Specification).
pub(crate) fn places_folder() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("bastide").join("places"))
}

/// Where this user's settings are (XDG Base Directory Specification).
pub(crate) fn configuration_folder(environment: &Environment) -> Option<PathBuf> {
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    folder.map(|folder| folder.join("bastide"))
}

/// Raises the soft limit of descriptors, which is 1,024 on most systems for the sake of programs that call select(2).
/// Not for a process that starts others: they would inherit it.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Some(limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS)));
    if limit.current.is_some() && limit.current < wanted {
        let raised = Rlimit { current: wanted, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files cannot be raised");
        }
    }
}

/// Enough for some three thousand connections; macOS takes no more (`OPEN_MAX`, setrlimit(2)).
const DESCRIPTORS: u64 = 10_240;

/// A folder that only its owner can enter, and that goes away with this value; where the process is killed before, with
/// the next such folder that anybody of this user makes.
#[derive(Debug)]
pub(crate) struct PrivateFolder {
    folder: TempDir,
    /// Locked while its owner lives.
    _lock: File,
}

impl PrivateFolder {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// How names of private folders begin: nobody else's folder is called that, since what is abandoned is removed.
const PREFIX: &str = "bastide-session-";

/// A fresh private folder, in memory where the system has such a place.
pub(crate) fn private_folder() -> io::Result<PrivateFolder> {
    // A socket's path has 108 bytes (unix(7)); the runtime folder is short, $TMPDIR need not be.
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let private = |above: &Path| -> io::Result<PrivateFolder> {
        remove_abandoned(above);
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).permissions(std::fs::Permissions::from_mode(0o700));
        let folder = builder.tempdir_in(above)?;
        // Before anything is put into it: an empty one is nobody's business.
        let lock = File::open(folder.path())?;
        lock.try_lock()?;
        Ok(PrivateFolder { folder, _lock: lock })
    };
    match runtime.map(|runtime| private(&runtime)) {
        Some(Ok(folder)) => Ok(folder),
        _ => private(&std::env::temp_dir()),
    }
}

/// Removes what this user's killed processes have left.
fn remove_abandoned(above: &Path) {
    let Ok(entries) = std::fs::read_dir(above) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()))
    {
        // Of the folder itself: a link is never followed.
        let ours = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
        let path = entry.path();
        let is_used = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut inside| inside.next().is_some());
        if ours
            && is_used(&path)
            && File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok())
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::debug!(path = %path.display(), %error, "an abandoned folder cannot be removed");
        }
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

/// Sends a signal to a child.
pub(crate) fn pass_signal(child: u32, number: u8) {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number.into()))
        && let Err(error) = kill_process(pid, signal)
    {
        tracing::debug!(%error, "the child could not be signalled");
    }
}

/// Whether a file is there that this user may run.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// Signals to us that are meant for a program that we run in the user's place.
pub(crate) struct PassedSignals(Vec<(SignalStream, Signal)>);

impl PassedSignals {
    /// Those by which we, too, are told to stop.
    pub(crate) fn new() -> io::Result<Self> {
        let mut signals = Self(Vec::new());
        signals.add(&[Signal::HUP, Signal::INT, Signal::TERM])?;
        Ok(signals)
    }

    /// From now on those, too, that mean nothing to us.
    pub(crate) fn add_others(&mut self) -> io::Result<()> {
        self.add(&[Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH])
    }

    fn add(&mut self, signals: &[Signal]) -> io::Result<()> {
        for number in signals {
            self.0.push((signal(SignalKind::from_raw(number.as_raw()))?, *number));
        }
        Ok(())
    }

    /// The number of the next one that the program has not got by itself. Cancel safe.
    pub(crate) async fn next(&mut self) -> u8 {
        loop {
            let signal = std::future::poll_fn(|context| {
                let mut arrived =
                    self.0.iter_mut().filter_map(|(stream, signal)| match stream.poll_recv(context) {
                        Poll::Ready(_) => Some(*signal),
                        Poll::Pending => None,
                    });
                arrived.next().map_or(Poll::Pending, Poll::Ready)
            });
            let signal = signal.await;
            // A terminal sends these to everybody in the foreground (termios(3)): a second one would be one too many.
            let by_terminal = matches!(signal, Signal::INT | Signal::QUIT | Signal::WINCH);
            if !(by_terminal && is_in_foreground()) {
                return u8::try_from(signal.as_raw()).unwrap_or_default();
            }
        }
    }
}

/// Whether the keys of a terminal reach this process group.
fn is_in_foreground() -> bool {
    let terminal = File::open("/dev/tty");
    terminal.is_ok_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
}

/// A word in two, before the byte at `index`; none where it is shorter.
pub(crate) fn split(word: &OsStr, index: usize) -> Option<(&OsStr, &OsStr)> {
    let (before, behind) = word.as_bytes().split_at_checked(index)?;
    Some((OsStr::from_bytes(before), OsStr::from_bytes(behind)))
}

/// Gives a file the mode and the owner of another one.
pub(crate) fn make_alike(file: &File, other: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (other.uid(), other.gid()) {
        std::os::unix::fs::fchown(file, Some(other.uid()), Some(other.gid()))?;
    }
    file.set_permissions(other.permissions())
}

/// What stands for a folder where it is locked (flock(2)).
pub(crate) fn lockable(folder: &Path) -> io::Result<File> {
    File::open(folder)
}

/// A word in quotes for the user's shell (POSIX, 2.2.2).
pub(crate) fn shell_quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
