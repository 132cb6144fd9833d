//! Exit codes and errors (cli.md, "Exit codes"). It leaves out how errors are printed, and the numbers of faults, which
//! the library has.

use std::fmt;
use std::process::ExitCode;

use bastide::Fault;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Something failed.
    Failed(Fault),
    /// Stopped by a signal, after everything was released.
    Signal(u8),
    /// What a child process returned.
    Child(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed(fault) => fault.code(),
            // As shells do: 130 for SIGINT, 143 for SIGTERM.
            Exit::Signal(number) => number.saturating_add(128),
            Exit::Child(status) => status,
        }
    }
}

impl From<Fault> for Exit {
    fn from(fault: Fault) -> Self {
        Exit::Failed(fault)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// An error of this program: from the library, or about something that only a command line has.
#[derive(Debug)]
pub(crate) enum Failure {
    /// From the library.
    Client(bastide::Error),
    /// Wrong use, or something that is missing on this machine.
    Usage {
        /// What failed.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A program of the user's cannot be run.
    Command {
        /// What failed.
        message: String,
        /// What to do.
        hint: String,
        /// By which number shells say so.
        status: u8,
    },
    /// The one connection of a command was cut.
    Cut {
        /// How.
        end: bastide::End,
        /// By whom.
        fault: Fault,
    },
    /// The operating system let us down.
    System {
        /// What failed.
        message: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Failure {
    /// Whose fault it is.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Failure::Client(error) => error.fault(),
            Failure::Usage { .. } | Failure::Command { .. } => Fault::Usage,
            Failure::Cut { fault, .. } => *fault,
            Failure::System { .. } => Fault::Ours,
        }
    }

    /// How the process ends by it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Command { status, .. } => Exit::Child(*status),
            other => other.fault().into(),
        }
    }

    /// What to do next.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Failure::Client(error) => error.hint(),
            Failure::Usage { hint, .. } | Failure::Command { hint, .. } => Some(hint.clone()),
            Failure::Cut { fault: Fault::Ours, .. } => Some(
                "check where standard input and output lead: a full disk, a folder, a closed terminal".into(),
            ),
            Failure::Cut { .. } => {
                Some("run it again; if it stays, `bastide doctor` looks for what is broken".into())
            }
            Failure::System { .. } => None,
        }
    }

    /// The service's id of the request that failed.
    pub(crate) fn request_id(&self) -> Option<&str> {
        match self {
            Failure::Client(error) => error.request_id(),
            Failure::Usage { .. }
            | Failure::Command { .. }
            | Failure::Cut { .. }
            | Failure::System { .. } => None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Usage { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn system(message: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        |source| Failure::System { message: message.into(), source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Client(error) => error.fmt(formatter),
            Failure::Cut { end, .. } => write!(formatter, "bytes may be missing: {end}"),
            Failure::Usage { message, .. }
            | Failure::Command { message, .. }
            | Failure::System { message, .. } => formatter.write_str(message),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Client(error) => error.source(),
            Failure::Usage { .. } | Failure::Command { .. } | Failure::Cut { .. } => None,
            Failure::System { source, .. } => Some(source),
        }
    }
}

impl<E: Into<bastide::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Client(error.into())
    }
}
