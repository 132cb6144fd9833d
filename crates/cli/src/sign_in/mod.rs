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
