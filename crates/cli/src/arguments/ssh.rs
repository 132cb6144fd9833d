//! Commands that sign in to a VM by SSH. It leaves out what signing in means (`sign_in`, `openssh`).

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Behaviour, Place};

#[derive(Debug, Args)]
pub(crate) struct Ssh {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) sign_in: SignIn,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// For ssh: options, or a command for the VM
    #[arg(last = true, value_name = "SSH-ARGS", help_heading = "Arguments")]
    pub(crate) ssh_args: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Transfer {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) sign_in: SignIn,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// For the program, where vm: or the VM's name stands for the VM
    #[arg(last = true, value_name = "ARGS", help_heading = "Arguments")]
    pub(crate) args: Vec<std::ffi::OsString>,
}

/// The heading of flags that only `ssh-config` has.
const BLOCKS: &str = "Blocks";

#[derive(Debug, Args)]
pub(crate) struct SshConfig {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Further VMs
    #[arg(value_name = "TARGET", help_heading = "Arguments")]
    pub(crate) more: Vec<String>,
    /// Write into ~/.ssh/bastide.config, which ~/.ssh/config then includes; without a VM, what is there is made anew
    #[arg(long, help_heading = BLOCKS)]
    pub(crate) write: bool,
    /// Remove the block of this name from ~/.ssh/bastide.config
    #[arg(long, value_name = "NAME", help_heading = BLOCKS, conflicts_with_all = ["target", "more", "write", "alias"])]
    pub(crate) remove: Vec<String>,
    /// What is to be typed behind ssh; left out: TARGET, or the VM's name
    #[arg(long, value_name = "NAME", help_heading = BLOCKS)]
    pub(crate) alias: Option<String>,
    #[command(flatten)]
    pub(crate) sign_in: SignIn,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
}

/// Who signs in to the VM, and to which port.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "SSH")]
pub(crate) struct SignIn {
    /// The VM's SSH port
    #[arg(long, value_name = "PORT", default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) resource_port: u16,
    /// How to sign in to the VM: ssh-key, password, AAD or plugin:NAME; left out: as OpenSSH does by itself
    #[arg(long, value_name = "TYPE")]
    pub(crate) auth_type: Option<AuthType>,
    /// The user on the VM
    #[arg(long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// The private key to sign in with
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_key: Option<PathBuf>,
    /// Read the password from the first line of standard input; the rest goes to the session
    #[arg(long, conflicts_with = "ssh_key")]
    pub(crate) password_stdin: bool,
    /// How the VM's host key is checked; known ones are kept by the VM's identity
    #[arg(long, value_enum, value_name = "HOW", default_value_t = HostKeyCheck::AcceptNew)]
    pub(crate) host_key_check: HostKeyCheck,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthType {
    /// A key file, or a key of the agent.
    SshKey,
    /// A password, for which ssh asks.
    Password,
    /// Entra ID.
    Aad,
    /// A plugin of this name in the configuration.
    Plugin(String),
}

impl std::str::FromStr for AuthType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.to_ascii_lowercase().as_str(), text.split_once(':')) {
            ("ssh-key", _) => Ok(AuthType::SshKey),
            ("password", _) => Ok(AuthType::Password),
            ("aad", _) => Ok(AuthType::Aad),
            (_, Some(("plugin", name))) if !name.is_empty() => Ok(AuthType::Plugin(name.to_owned())),
            _ => Err("it has to be one of ssh-key, password, AAD or plugin:NAME".into()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostKeyCheck {
    /// Only keys that are known
    Strict,
    /// New ones are kept, changed ones refused
    AcceptNew,
    /// Any
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct SshCert {
    /// The folder for id_rsa, id_rsa.pub and id_rsa-cert.pub; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) write: PathBuf,
    /// Only where the certificate there has less than a fifth of its life left; nobody is asked anything then
    #[arg(long)]
    pub(crate) if_needed: bool,
}
