//! Agent and password on private Unix sockets. It leaves out what is asked on them (`bastide::Agent`, `askpass`).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bastide::plugin::SignInRequest;
use bastide::{Agent, Certificate, Plan, Progress, Secret, Target, VmSignIn};
use tokio_util::sync::CancellationToken;

use crate::arguments::{self, AuthType};
use crate::askpass::{self, Askpass};
use crate::exit::{Exit, Failure};
use crate::openssh::{Aid, CERTIFICATE_ALGORITHMS, IdentityAid, IdentityPlace, KnownPassword};
use crate::report::Reporter;
use crate::setup::Found;
use crate::sign_in::Answers;
use crate::sys::{self, PrivateFolder};

/// What serves OpenSSH while the session is being opened.
#[derive(Debug, Default)]
pub(crate) struct SignIn {
    aid: Aid,
    agent: Option<Agent>,
    askpass: Option<Askpass>,
    /// Who it is that the agent signs in, for an explanation.
    identity: Option<Who>,
    /// Where the sockets are; goes away with this value.
    folder: Option<PrivateFolder>,
}

#[derive(Debug)]
enum Who {
    Entra { user: String },
    Plugin { name: String },
}

/// The password that is to come from standard input, before anything else reads that.
pub(crate) fn password(sign_in: &arguments::SignIn) -> Result<Option<Secret>, Failure> {
    sign_in.password_stdin.then(askpass::from_stdin).transpose()
}

impl SignIn {
    /// Gets a certificate where Entra ID is asked for, or asks a plugin, and opens the sockets that OpenSSH will ask.
    ///
    /// Cancel safe.
    pub(crate) async fn prepare(
        sign_in: &arguments::SignIn,
        password: Option<Secret>,
        answers: Answers,
        (found, plan): (&Found, &Plan),
        reporter: &Reporter,
    ) -> Result<Self, Failure> {
        let mut prepared = Self::default();
        if let Some(password) = password {
            prepared.serve_password(password, answers)?;
            return Ok(prepared);
        }
        match &sign_in.auth_type {
            Some(AuthType::Aad) => {
                let identity = found.client.entra_identity(Some(found.host())).await?;
                let certificate = identity.certificate().await?;
                warn_of(&certificate, sign_in, reporter);
                let user = certificate.user().to_owned();
                prepared.aid.user = Some(user.clone());
                prepared.identity = Some(Who::Entra { user });
                prepared
                    .serve_identity(VmSignIn::Entra(Box::new(identity)), CERTIFICATE_ALGORITHMS.to_owned())?;
            }
            Some(AuthType::Plugin(name)) => {
                let request = SignInRequest {
                    vm: plan.target_name().to_owned(),
                    resource_id: match found.target() {
                        Target::Resource(id) => Some(id.to_string()),
                        Target::Address(_) => None,
                    },
                    user: sign_in.username.clone(),
                };
                let answer = found.client.plugin_sign_in(name, &request).await?;
                prepared.aid.user = answer.user;
                prepared.identity = Some(Who::Plugin { name: name.clone() });
                if let Some(password) = answer.password {
                    prepared.serve_password(password, answers)?;
                }
                if let Some(identity) = answer.identity {
                    let algorithms = identity.algorithms();
                    if algorithms.is_empty() {
                        return Err(Failure::usage(
                            format!("plugin '{name}' offers a key of a kind that SSH servers do not take"),
                            "it has to be an RSA, ECDSA or Ed25519 key; report this to the author of the plugin",
                        ));
                    }
                    prepared.serve_identity(VmSignIn::Plugin(identity), algorithms.join(","))?;
                }
            }
            Some(AuthType::SshKey | AuthType::Password) | None => {}
        }
        Ok(prepared)
    }

    fn serve_password(&mut self, password: Secret, answers: Answers) -> Result<(), Failure> {
        let askpass = Askpass::open(self.folder()?, password, answers)
            .map_err(Failure::system("the socket for the password cannot be opened"))?;
        self.askpass = Some(askpass);
        self.aid.password = Some(KnownPassword);
        Ok(())
    }

    fn serve_identity(&mut self, identity: VmSignIn, algorithms: String) -> Result<(), Failure> {
        let agent = Agent::open(self.folder()?, identity, users_agent())
            .map_err(Failure::system("the SSH agent's socket cannot be opened"))?;
        let place = IdentityPlace::Agent(agent.path().to_owned());
        self.aid.identity = Some(IdentityAid { place, algorithms });
        self.agent = Some(agent);
        Ok(())
    }

    fn folder(&mut self) -> Result<&Path, Failure> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => sys::private_folder().map_err(Failure::system("no private folder can be made"))?,
        };
        Ok(self.folder.insert(folder).path())
    }

    pub(crate) fn aid(&self) -> &Aid {
        &self.aid
    }

    /// Has OpenSSH's questions answered.
    pub(crate) fn environment(&self, command: &mut tokio::process::Command) {
        if let Some(askpass) = &self.askpass {
            command.envs(askpass.environment());
        }
    }

    /// Runs `session`, and answers OpenSSH's questions meanwhile.
    pub(crate) async fn during<T>(&self, session: impl Future<Output = T>) -> T {
        let for_ever = CancellationToken::new();
        let signing = async {
            if let Some(agent) = &self.agent {
                agent.run(&for_ever).await;
            }
            // Who serves does so until the session is over.
            std::future::pending().await
        };
        let telling = async {
            if let Some(askpass) = &self.askpass {
                askpass.run().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            done = session => done,
            never = signing => never,
            never = telling => never,
        }
    }

    /// Why OpenSSH may have failed, where we have seen more than it has said. `lasted` is how long it ran.
    pub(crate) fn explain(&self, exit: Exit, lasted: Duration, reporter: &Reporter) {
        // 255 is OpenSSH's own failure (ssh(1), EXIT STATUS).
        let (Some(agent), Some(who), Exit::Child(255)) = (&self.agent, &self.identity, exit) else { return };
        let condition = match agent.progress() {
            Progress::Offered => "",
            // Who has signed may have got in: a command on the VM ends with 255 as well, and so do lost connections.
            Progress::Signed if lasted < REFUSED_WITHIN => "if that was 'Permission denied': ",
            Progress::Signed | Progress::Idle => return,
        };
        match who {
            Who::Entra { user } => {
                reporter.hint(&format!(
                    "{condition}the VM did not take the certificate of {user}: it needs the extension \
                     AADSSHLoginForLinux, the user one of the roles 'Virtual Machine Administrator Login' and 'Virtual \
                     Machine User Login' on the VM, and the VM's clock has to be right"
                ));
                // The user principal name of an account whose home is another tenant (Entra B2B).
                if user.contains("#ext#") {
                    reporter.hint(&format!(
                        "{user} is a guest in this tenant: the VM may take members only, and the role has to be given \
                         to the guest account"
                    ));
                }
            }
            Who::Plugin { name } => reporter.hint(&format!(
                "{condition}the VM did not take the key that plugin '{name}' offers: its public half has to be among \
                 the VM's authorized_keys for this user, or the certificate's authority among those that the VM trusts"
            )),
        }
    }
}

/// A server waits for a sign-in for two minutes at most (`LoginGraceTime` of sshd_config(5)): whoever has been there for
/// longer got in.
const REFUSED_WITHIN: Duration = Duration::from_secs(120);

/// What a user would wonder about later.
fn warn_of(certificate: &Certificate, sign_in: &arguments::SignIn, reporter: &Reporter) {
    let user = certificate.user();
    if let Some(named) = sign_in.username.as_ref().filter(|named| !named.eq_ignore_ascii_case(user)) {
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

/// For everything that our agent does not do itself.
fn users_agent() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from)
}
