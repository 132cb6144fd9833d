//! Agent and password on private Unix sockets. It leaves out what is asked on them (`bastide::Agent`, `askpass`).

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bastide::{Agent, Certificate, Client, Host, Progress, Secret};
use tokio_util::sync::CancellationToken;

use crate::arguments::{AuthType, Ssh};
use crate::askpass::{self, Askpass};
use crate::exit::{Exit, Failure};
use crate::openssh::Aid;
use crate::report::Reporter;
use crate::sys::{self, PrivateFolder};

/// What serves OpenSSH while the session is being opened.
#[derive(Debug)]
pub(crate) struct SignIn {
    aid: Aid,
    servant: Servant,
    /// Where the sockets are; goes away with this value.
    _folder: Option<PrivateFolder>,
}

#[derive(Debug)]
enum Servant {
    Nobody,
    Agent(Agent),
    Askpass(Askpass),
}

/// The password that is to come from standard input, before anything else reads that.
pub(crate) fn password(ssh: &Ssh) -> Result<Option<Secret>, Failure> {
    ssh.sign_in.password_stdin.then(askpass::from_stdin).transpose()
}

impl SignIn {
    /// Gets a certificate where Entra ID is asked for, and opens the socket that OpenSSH will ask.
    ///
    /// Cancel safe.
    pub(crate) async fn prepare(
        ssh: &Ssh,
        password: Option<Secret>,
        client: &Client,
        host: &Host,
        reporter: &Reporter,
    ) -> Result<Self, Failure> {
        if let Some(password) = password {
            let folder = private_folder()?;
            let askpass = Askpass::open(folder.path(), password)
                .map_err(Failure::system("the socket for the password cannot be opened"))?;
            return Ok(Self {
                aid: Aid::Password,
                servant: Servant::Askpass(askpass),
                _folder: Some(folder),
            });
        }
        if ssh.sign_in.auth_type != Some(AuthType::Aad) {
            return Ok(Self { aid: Aid::Nothing, servant: Servant::Nobody, _folder: None });
        }
        let identity = client.entra_identity(Some(host)).await?;
        let certificate = identity.certificate().await?;
        warn_of(&certificate, ssh, reporter);
        let folder = private_folder()?;
        let agent = Agent::open(folder.path(), identity, users_agent())
            .map_err(Failure::system("the SSH agent's socket cannot be opened"))?;
        let aid = Aid::Agent { socket: agent.path().to_owned(), user: certificate.user().to_owned() };
        Ok(Self { aid, servant: Servant::Agent(agent), _folder: Some(folder) })
    }

    pub(crate) fn aid(&self) -> &Aid {
        &self.aid
    }

    /// Has OpenSSH's questions answered.
    pub(crate) fn environment(&self, command: &mut tokio::process::Command) {
        if let Servant::Askpass(askpass) = &self.servant {
            command.envs(askpass.environment());
        }
    }

    /// Runs `session`, and answers OpenSSH's questions meanwhile.
    pub(crate) async fn during<T>(&self, session: impl Future<Output = T>) -> T {
        let for_ever = CancellationToken::new();
        let serving = async {
            match &self.servant {
                Servant::Nobody => {}
                Servant::Agent(agent) => agent.run(&for_ever).await,
                Servant::Askpass(askpass) => askpass.run().await,
            }
            // Who serves does so until the session is over.
            std::future::pending().await
        };
        tokio::select! {
            done = session => done,
            never = serving => never,
        }
    }

    /// Why OpenSSH may have failed, where we have seen more than it has said. `lasted` is how long it ran.
    pub(crate) fn explain(&self, exit: Exit, lasted: Duration, reporter: &Reporter) {
        // 255 is OpenSSH's own failure (ssh(1), EXIT STATUS).
        let (Servant::Agent(agent), Aid::Agent { user, .. }, Exit::Child(255)) =
            (&self.servant, &self.aid, exit)
        else {
            return;
        };
        let condition = match agent.progress() {
            Progress::Offered => "",
            // Who has signed may have got in: a command on the VM ends with 255 as well, and so do lost connections.
            Progress::Signed if lasted < REFUSED_WITHIN => "if that was 'Permission denied': ",
            Progress::Signed | Progress::Idle => return,
        };
        reporter.hint(&format!(
            "{condition}the VM did not take the certificate of {user}: it needs the extension AADSSHLoginForLinux, the \
             user one of the roles 'Virtual Machine Administrator Login' and 'Virtual Machine User Login' on the VM, \
             and the VM's clock has to be right"
        ));
        // The user principal name of an account whose home is another tenant (Entra B2B).
        if user.contains("#ext#") {
            reporter.hint(&format!(
                "{user} is a guest in this tenant: the VM may take members only, and the role has to be given to the \
                 guest account"
            ));
        }
    }
}

/// A server waits for a sign-in for two minutes at most (`LoginGraceTime` of sshd_config(5)): whoever has been there for
/// longer got in.
const REFUSED_WITHIN: Duration = Duration::from_secs(120);

/// What a user would wonder about later.
fn warn_of(certificate: &Certificate, ssh: &Ssh, reporter: &Reporter) {
    let user = certificate.user();
    if let Some(named) = ssh.sign_in.username.as_ref().filter(|named| !named.eq_ignore_ascii_case(user)) {
        reporter.warn(&format!("--username {named} is left aside: Entra ID signs in as {user}"));
    }
    let now = SystemTime::now();
    if certificate.valid_until() <= now {
        reporter.warn("the certificate has ended already: the clock of this machine is fast, set it right");
    }
    if let Ok(early) = certificate.valid_from().duration_since(now) {
        reporter.warn(&format!(
            "the certificate is good only {} s from now: the clock of this machine is slow, set it right",
            early.as_secs() + 1
        ));
    }
}

fn private_folder() -> Result<PrivateFolder, Failure> {
    sys::private_folder().map_err(Failure::system("no private folder can be made"))
}

/// For everything that our agent does not do itself.
fn users_agent() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from)
}
