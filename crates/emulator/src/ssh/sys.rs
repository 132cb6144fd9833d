//! What differs by platform: terminals, process groups, shells, modes and positions of files.
//!
//! On Unix all of it; elsewhere commands run without a terminal and a file's mode is only "read-only".

use russh::Sig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;

pub(super) use self::platform::{
    Group, Terminal, apply_mode, attributes, command, exit, read_at, request_mode, shell, spawn, write_at,
};

/// A child and its streams.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) group: Group,
    pub(super) input: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) output: Box<dyn AsyncRead + Send + Unpin>,
    /// `None` with a terminal, which has one stream for both.
    pub(super) errors: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub(super) terminal: Option<Terminal>,
}

/// A terminal's size, in characters.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) columns: u16,
    pub(super) rows: u16,
}

/// How a child ended.
pub(super) enum Exit {
    Status(u32),
    Signal(Sig),
}

#[cfg(unix)]
mod platform {
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::os::unix::fs::FileExt as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::Path;
    use std::process::{ExitStatus, Stdio};

    use cap_std::fs::PermissionsExt as _;
    use cap_std::fs::{Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _, Permissions};
    use russh::Sig;
    use russh_sftp::protocol::FileAttributes;
    use rustix::process::{Pid, Signal, kill_process_group};
    use rustix::termios::{Winsize, tcsetwinsize};
    use tokio::process::Command;

    use super::{Exit, Process, Size};

    /// `/bin/sh -c line`, as sshd runs a command (sshd(8), "login process").
    pub(in super::super) fn command(line: &str) -> Command {
        let mut command = Command::new(SHELL);
        command.arg("-c").arg(line);
        command
    }

    /// The user's shell: bash as a login shell without the machine's own start files, or else `sh`. The
    /// prompt ends in `$` even for root, for it is the machine's user that is shown.
    pub(in super::super) fn shell(username: &str, hostname: &str) -> Command {
        if Path::new(BASH).exists() {
            let mut command = Command::new(BASH);
            command.arg0("-bash").args(["--noprofile", "--norc"]);
            command.env("SHELL", BASH).env("PS1", format!("{username}@{hostname}:\\w$ "));
            command
        } else {
            let mut command = Command::new(SHELL);
            command.env("SHELL", SHELL).env("PS1", format!("{username}@{hostname}$ "));
            command
        }
    }

    /// Starts `command` in a process group of its own, with a controlling terminal if a size is given.
    ///
    /// # Errors
    /// No terminal, no pipe, no process; or the program is missing.
    pub(in super::super) fn spawn(mut command: Command, terminal: Option<Size>) -> io::Result<Process> {
        command.kill_on_drop(true);
        let Some(size) = terminal else {
            command.process_group(0);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn()?;
            let taken = || io::Error::other("a pipe of the child is missing");
            return Ok(Process {
                group: Group::of(&child),
                input: Box::new(child.stdin.take().ok_or_else(taken)?),
                output: Box::new(child.stdout.take().ok_or_else(taken)?),
                errors: Some(Box::new(child.stderr.take().ok_or_else(taken)?)),
                terminal: None,
                child,
            });
        };
        let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
        let terminal = Terminal(pty.as_fd().try_clone_to_owned()?);
        terminal.resize(size)?;
        let child = pty_process::Command::from(command).spawn(pts).map_err(io::Error::other)?;
        let (output, input) = pty.into_split();
        Ok(Process {
            group: Group::of(&child),
            input: Box::new(input),
            output: Box::new(output),
            errors: None,
            terminal: Some(terminal),
            child,
        })
    }

    /// The controlling side of a child's terminal.
    pub(in super::super) struct Terminal(OwnedFd);

    impl Terminal {
        /// Tells the kernel, and by SIGWINCH the child, of a new size.
        pub(in super::super) fn resize(&self, size: Size) -> io::Result<()> {
            let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
            Ok(tcsetwinsize(&self.0, size)?)
        }
    }

    /// The process group that a child leads. To be used only until the child is waited for: afterwards
    /// the number may belong to somebody else.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Group(Option<Pid>);

    impl Group {
        fn of(child: &tokio::process::Child) -> Self {
            Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
        }

        /// Passes on a signal of RFC 4254 §6.9; one that is not in its list is ignored.
        pub(in super::super) fn signal(self, signal: &Sig) {
            let known = SIGNALS.iter().find(|(name, _)| same(name, signal));
            if let (Some(group), Some((_, signal))) = (self.0, known) {
                // The only failures: the group is gone, or has changed its user. Both mean "not ours".
                _ = kill_process_group(group, *signal);
            }
        }
    }

    /// The child's end in the words of RFC 4254 §6.10.
    pub(in super::super) fn exit(status: ExitStatus) -> Exit {
        let Some(number) = status.signal() else {
            // A status that is not a signal is 0 to 255 (wait(2)).
            return Exit::Status(status.code().and_then(|code| u32::try_from(code).ok()).unwrap_or(255));
        };
        let known = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
        Exit::Signal(known.map_or_else(|| Sig::Custom(format!("{number}@bastide")), |(name, _)| name.clone()))
    }

    /// Mode, owner, size and times of a file, for the sftp server.
    pub(in super::super) fn attributes(metadata: &Metadata) -> FileAttributes {
        let seconds = |time: i64| u32::try_from(time).unwrap_or(u32::MAX);
        FileAttributes {
            size: Some(metadata.size()),
            uid: Some(metadata.uid()),
            gid: Some(metadata.gid()),
            permissions: Some(metadata.mode()),
            atime: Some(seconds(metadata.atime())),
            mtime: Some(seconds(metadata.mtime())),
            ..FileAttributes::default()
        }
    }

    /// The mode that a file is created with, as far as the process's umask lets it.
    pub(in super::super) fn request_mode(options: &mut OpenOptions, mode: u32) {
        options.mode(mode & MODE_BITS);
    }

    /// `permissions` with the bits of `mode`.
    pub(in super::super) fn apply_mode(permissions: &mut Permissions, mode: u32) {
        permissions.set_mode(mode & MODE_BITS);
    }

    /// Reads at `offset`, without moving a position that other requests share.
    pub(in super::super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    /// Writes all of `data` at `offset`.
    pub(in super::super) fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(data, offset)
    }

    fn same(name: &Sig, other: &Sig) -> bool {
        std::mem::discriminant(name) == std::mem::discriminant(other) && !matches!(other, Sig::Custom(_))
    }

    const SHELL: &str = "/bin/sh";
    const BASH: &str = "/bin/bash";

    /// All bits of chmod(2); the file's type does not belong to them.
    const MODE_BITS: u32 = 0o7777;

    /// The signals of RFC 4254 §6.10 by their names.
    const SIGNALS: [(Sig, Signal); 12] = [
        (Sig::ABRT, Signal::ABORT),
        (Sig::ALRM, Signal::ALARM),
        (Sig::FPE, Signal::FPE),
        (Sig::HUP, Signal::HUP),
        (Sig::ILL, Signal::ILL),
        (Sig::INT, Signal::INT),
        (Sig::KILL, Signal::KILL),
        (Sig::PIPE, Signal::PIPE),
        (Sig::QUIT, Signal::QUIT),
        (Sig::SEGV, Signal::SEGV),
        (Sig::TERM, Signal::TERM),
        (Sig::USR1, Signal::USR1),
    ];
}

#[cfg(windows)]
mod platform {
    use std::fs::File;
    use std::io;
    use std::os::windows::fs::FileExt as _;
    use std::process::{ExitStatus, Stdio};
    use std::time::UNIX_EPOCH;

    use cap_std::fs::{Metadata, OpenOptions, Permissions};
    use russh::Sig;
    use russh_sftp::protocol::{FileAttributes, FileMode};
    use tokio::process::Command;

    use super::{Exit, Process, Size};

    pub(in super::super) fn command(line: &str) -> Command {
        let mut command = Command::new("cmd.exe");
        command.arg("/C").arg(line);
        command
    }

    pub(in super::super) fn shell(_username: &str, _hostname: &str) -> Command {
        Command::new("cmd.exe")
    }

    pub(in super::super) fn spawn(mut command: Command, terminal: Option<Size>) -> io::Result<Process> {
        if terminal.is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        command.kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let taken = || io::Error::other("a pipe of the child is missing");
        Ok(Process {
            group: Group,
            input: Box::new(child.stdin.take().ok_or_else(taken)?),
            output: Box::new(child.stdout.take().ok_or_else(taken)?),
            errors: Some(Box::new(child.stderr.take().ok_or_else(taken)?)),
            terminal: None,
            child,
        })
    }

    pub(in super::super) enum Terminal {}

    impl Terminal {
        pub(in super::super) fn resize(&self, _size: Size) -> io::Result<()> {
            match *self {}
        }
    }

    #[derive(Clone, Copy)]
    pub(in super::super) struct Group;

    impl Group {
        pub(in super::super) fn signal(self, _signal: &Sig) {}
    }

    pub(in super::super) fn exit(status: ExitStatus) -> Exit {
        Exit::Status(status.code().map_or(255, i32::cast_unsigned))
    }

    pub(in super::super) fn attributes(metadata: &Metadata) -> FileAttributes {
        let seconds = |time: io::Result<cap_std::time::SystemTime>| {
            let since = time.ok()?.into_std().duration_since(UNIX_EPOCH).ok()?;
            u32::try_from(since.as_secs()).ok()
        };
        let kind = if metadata.is_dir() { FileMode::DIR } else { FileMode::REG };
        let mode = if metadata.permissions().readonly() { 0o555 } else { 0o755 };
        FileAttributes {
            size: Some(metadata.len()),
            permissions: Some(kind.bits() | mode),
            atime: seconds(metadata.accessed()),
            mtime: seconds(metadata.modified()),
            ..FileAttributes::default()
        }
    }

    pub(in super::super) fn request_mode(_options: &mut OpenOptions, _mode: u32) {}

    pub(in super::super) fn apply_mode(permissions: &mut Permissions, mode: u32) {
        permissions.set_readonly(mode & 0o200 == 0);
    }

    pub(in super::super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(in super::super) fn write_at(file: &File, mut data: &[u8], mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            let written = file.seek_write(data, offset)?;
            data = data.get(written..).unwrap_or_default();
            offset = offset.saturating_add(written as u64);
        }
        Ok(())
    }
}
