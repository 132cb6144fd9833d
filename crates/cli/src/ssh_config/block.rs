//! One VM in the words of ssh_config(5): the settings of `bastide ssh`, with a `ProxyCommand` that names Bastion host and
//! VM by their ids, so that nothing has to be looked up when ssh is started. It leaves out the file (`own_file`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bastide::{Certificate, Plan};

use crate::arguments::{self, AuthType, Global};
use crate::certificate::{Folder, Renewal};
use crate::exit::Failure;
use crate::openssh::{self, Aid, IdentityAid, IdentityPlace, Way};
use crate::report::Reporter;
use crate::setup::{self, Found};
use crate::ssh;
use crate::stable_hash::stable_hash;

/// A VM's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// What is typed behind `ssh`.
    pub(super) name: String,
    /// Which VM it is ([`Plan::host_key_alias`]).
    pub(super) vm: String,
    /// The command line that it came from, for making it anew.
    pub(super) words: Vec<String>,
    /// Its lines.
    pub(super) text: String,
}

/// Whether certificates may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certificates {
    /// Nothing is written: it is only about the words.
    Shown,
    /// They are, so that the first ssh finds one.
    Written,
}

/// Finds the VM and describes the way to it. `ssh_folder` is where certificates go.
pub(super) async fn make(
    global: &Global,
    wanted: &arguments::SshConfig,
    words: Vec<String>,
    certificates: Certificates,
    ssh_folder: &Path,
    reporter: &Reporter,
) -> Result<Block, Failure> {
    check(global, &wanted.sign_in)?;
    let found = setup::find(global, &wanted.place, &wanted.behaviour, reporter).await?;
    let plan = setup::plan(&found, wanted.sign_in.resource_port, reporter)?;
    let name = name(wanted, &plan)?;
    let program = OsString::from(lasting_program()?);

    let mut command = vec![program.clone()];
    let global =
        &Global { ca_bundle: global.ca_bundle.iter().map(|file| absolute(file)).collect(), ..global.clone() };
    let global = &Global { config: global.config.as_deref().map(absolute), ..global.clone() };
    command.extend(setup::proxy_arguments(global, &found.place(), &wanted.behaviour));
    let mut way = line(without_defaults(command))?;
    way.push(" --resource-port %p");

    let mut aid = Aid::default();
    let mut renewal = None;
    if wanted.sign_in.auth_type == Some(AuthType::Aad) {
        let tenant = found.host().tenant().or(global.tenant.as_deref());
        let flags = setup::sign_in_arguments(global, tenant);
        let folder = ssh_folder.join("bastide").join(who(&flags));
        let certificate = certificate(&found, &folder, certificates).await?;
        aid.user = Some(certificate.user().to_owned());
        let mut command =
            vec![program, "ssh-cert".into(), "--if-needed".into(), "--write".into(), folder.clone().into()];
        command.extend(flags);
        renewal = Some(line(without_defaults(command))?);
        aid.identity = Some(IdentityAid {
            place: IdentityPlace::Files(folder),
            algorithms: openssh::CERTIFICATE_ALGORITHMS.to_owned(),
        });
    }

    let known_hosts = ssh::known_hosts(&wanted.sign_in)?;
    let vm = openssh::Identity {
        host_name: openssh::connection_name(plan.target_name(), plan.host_key_alias()),
        host_key_alias: plan.host_key_alias(),
        known_hosts: &known_hosts,
    };
    let sign_in = arguments::SignIn {
        ssh_key: wanted.sign_in.ssh_key.as_deref().map(absolute),
        ..wanted.sign_in.clone()
    };
    let mut settings = openssh::settings(&sign_in, &Way::Carry(way), &vm, &aid);
    if plan.port() != SSH_PORT {
        settings.insert(0, ("Port", plan.port().to_string().into()));
    }
    let mut text = String::new();
    if let Some(renewal) = renewal {
        // The first value counts: without a certificate, nothing is opened.
        let renewal = renewal.to_string_lossy().into_owned();
        if renewal.contains(['"', '\\']) || renewal.contains("''") {
            return Err(Failure::usage(
                "a path or a command with a quote in it cannot stand in ~/.ssh/config for --auth-type AAD",
                "use paths without; BASTIDE_EXEC_CREDENTIAL or the configuration file hold the command",
            ));
        }
        text.push_str(&format!("Match originalhost {name} !exec \"{renewal}\"\n    ProxyCommand false\n"));
    }
    text.push_str(&format!("Host {name}\n"));
    for (setting, value) in &settings {
        text.push_str(&format!("    {setting} {}\n", value.to_string_lossy()));
    }
    Ok(Block { name, vm: plan.host_key_alias().to_owned(), words, text })
}

/// RFC 4253 §4.1, and what ssh takes where no `Port` is set.
const SSH_PORT: u16 = 22;

/// Refuses what a file cannot hold.
fn check(global: &Global, sign_in: &arguments::SignIn) -> Result<(), Failure> {
    openssh::check_sign_in(sign_in)?;
    if sign_in.password_stdin {
        return Err(Failure::usage("a password has no place in ~/.ssh/config", "leave --password-stdin out"));
    }
    if let Some(AuthType::Plugin(name)) = &sign_in.auth_type {
        return Err(Failure::usage(
            format!("plain ssh cannot ask the plugin '{name}'"),
            "use `bastide ssh`, `scp`, `sftp` and `rsync` with it",
        ));
    }
    if global.proxy.is_some() {
        return Err(Failure::usage(
            "--proxy has no place in ~/.ssh/config",
            "set HTTPS_PROXY, or `proxy` in the configuration file",
        ));
    }
    Ok(())
}

/// The word of the command line, where it is a name; else the VM's.
fn name(wanted: &arguments::SshConfig, plan: &Plan) -> Result<String, Failure> {
    let typed = wanted.place.target.as_deref().filter(|target| !target.contains('/'));
    let name = wanted.alias.as_deref().or(typed).unwrap_or(plan.target_name());
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(is_plain) {
        return Err(Failure::usage(
            format!("'{name}' cannot be the name of a host in ~/.ssh/config"),
            "choose one with --alias NAME; letters, digits, - _ and . make a name",
        ));
    }
    Ok(name.to_owned())
}

async fn certificate(
    found: &Found,
    folder: &Path,
    certificates: Certificates,
) -> Result<Certificate, Failure> {
    if certificates == Certificates::Shown {
        return Ok(found.client.entra_identity(Some(found.host())).await?.certificate().await?);
    }
    let folder = Folder::new(folder);
    let _alone = folder.lock().await?;
    match folder.read().filter(|kept| kept.is_fresh()) {
        Some(kept) => Ok(kept.certificate),
        None => folder.renew(&found.client, Some(found.host()), Renewal::KeyInUse).await,
    }
}

/// A folder's name for whoever these flags sign in: VMs of one tenant share a certificate.
fn who(flags: &[OsString]) -> String {
    let bytes = flags.iter().flat_map(|flag| flag.as_encoded_bytes().iter().copied().chain([0]));
    format!("{:016x}", stable_hash(bytes))
}

/// Without flags that say what holds anyhow.
fn without_defaults(words: Vec<OsString>) -> Vec<OsString> {
    let definition = arguments::definition();
    let proxy = definition.find_subcommand("proxy");
    let is_default = |flag: &str, value: &OsString| {
        let known =
            definition.get_arguments().chain(proxy.into_iter().flat_map(clap::Command::get_arguments));
        known
            .filter(|arg| arg.get_long() == flag.strip_prefix("--"))
            .any(|arg| arg.get_default_values().iter().any(|default| default.as_os_str() == value))
    };
    let mut kept = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let says_nothing = |value: &OsString| word.to_str().is_some_and(|flag| is_default(flag, value));
        if words.next_if(says_nothing).is_none() {
            kept.push(word);
        }
    }
    kept
}

/// A command in one line of the file.
fn line(command: Vec<OsString>) -> Result<OsString, Failure> {
    let line = openssh::shell_line(&command);
    if line.to_string_lossy().chars().any(char::is_control) {
        return Err(Failure::usage(
            "a line's end or another control character has no place in ~/.ssh/config",
            "leave it out of the flags",
        ));
    }
    Ok(line)
}

/// Our own program by the path in `PATH`, which outlives an update that the path behind its links may not.
fn lasting_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(Failure::system("the path of this program is unknown"))?;
    let name = own.file_name().unwrap_or_default();
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_same = |path: &PathBuf| path.is_absolute() && path.canonicalize().is_ok_and(|path| path == own);
    Ok(std::env::split_paths(&folders).map(|folder| folder.join(name)).find(is_same).unwrap_or(own))
}

/// ssh is started in any folder. What begins with `~` it expands itself.
fn absolute(path: &Path) -> PathBuf {
    match path.starts_with("~") {
        true => path.to_owned(),
        false => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_anyhow_is_left_out() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let given =
            "b proxy --cloud AzureCloud --retries 4 --retries 5 --keepalive ping --name ping --no-cache";
        assert_eq!(without_defaults(words(given)), words("b proxy --retries 5 --name ping --no-cache"));
    }

    #[test]
    fn who_signs_in_has_a_folder() {
        let flags = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(who(&flags("--tenant a")), who(&flags("--tenant a")));
        assert_ne!(who(&flags("--tenant a")), who(&flags("--tenant b")));
        assert_ne!(who(&flags("ab c")), who(&flags("a bc")));
    }
}
