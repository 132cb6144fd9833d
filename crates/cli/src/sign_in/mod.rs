//! Signing in to the VM on OpenSSH's behalf: an agent with an Entra identity, or a password from standard input. It
//! leaves out keys and passwords that OpenSSH asks for by itself.

#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{SignIn, password};
#[cfg(not(unix))]
pub(crate) use windows::{SignIn, password};

/// How often a password that is known is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// There is one connection: a second question means that the answer was wrong.
    Once,
    /// There may be many, each of which asks once (`NumberOfPasswordPrompts`).
    ForEachConnection,
}
