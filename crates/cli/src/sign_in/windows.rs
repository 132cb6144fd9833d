//! Signing in to the VM on OpenSSH's behalf, where there are no Unix sockets: not yet. It leaves out keys and
//! passwords that OpenSSH asks for by itself.

use std::time::Duration;

use bastide::{Plan, Secret};

use crate::arguments::{self, AuthType};
use crate::exit::{Exit, Failure};
use crate::openssh::Aid;
use crate::report::Reporter;
use crate::setup::Found;
use crate::sign_in::Answers;

/// What serves OpenSSH while the session is being opened: nobody.
#[derive(Debug)]
pub(crate) struct SignIn(Aid);

/// The password that is to come from standard input, before anything else reads that.
pub(crate) fn password(sign_in: &arguments::SignIn) -> Result<Option<Secret>, Failure> {
    match sign_in.password_stdin {
        true => Err(Failure::usage(
            "--password-stdin works on Linux and macOS only",
            "leave it out, and ssh asks on the terminal",
        )),
        false => Ok(None),
    }
}

impl SignIn {
    /// Refuses what would need a socket.
    pub(crate) async fn prepare(
        sign_in: &arguments::SignIn,
        _password: Option<Secret>,
        _answers: Answers,
        _place: (&Found, &Plan),
        _reporter: &Reporter,
    ) -> Result<Self, Failure> {
        match sign_in.auth_type {
            Some(AuthType::Aad) => Err(Failure::usage(
                "--auth-type AAD works on Linux and macOS only",
                "`bastide ssh-cert --write DIR` writes key and certificate for ssh's -i and CertificateFile",
            )),
            Some(AuthType::Plugin(_)) => Err(Failure::usage(
                "--auth-type plugin works on Linux and macOS only",
                "leave it out, and ssh signs in by itself",
            )),
            _ => Ok(Self(Aid::default())),
        }
    }

    pub(crate) fn aid(&self) -> &Aid {
        &self.0
    }

    pub(crate) fn environment(&self, _command: &mut tokio::process::Command) {}

    /// Runs `session`.
    pub(crate) async fn during<T>(&self, session: impl Future<Output = T>) -> T {
        session.await
    }

    pub(crate) fn explain(&self, _exit: Exit, _lasted: Duration, _reporter: &Reporter) {}
}
