//! The command line of the user's own OpenSSH client (ssh(1), ssh_config(5)): what it is given so that it goes
//! through Bastion, checks host keys by the VM's identity, and leaves everything else to the user. It leaves out
//! running it.

use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::arguments::{AuthType, HostKeyCheck, Ssh};
use crate::exit::Failure;
use crate::sys;

/// How OpenSSH reaches the VM.
pub(crate) enum Way {
    /// A command that connects to a private socket and hands the connection over.
    HandOver(Vec<OsString>),
    /// A command that carries the bytes itself and may outlive us.
    Carry(Vec<OsString>),
}

/// What we sign in with on OpenSSH's behalf.
#[derive(Debug, Default)]
pub(crate) struct Aid {
    /// The user on the VM; without one it is OpenSSH's business.
    pub(crate) user: Option<String>,
    /// An agent of ours that holds an identity.
    pub(crate) agent: Option<AgentAid>,
    /// A program of ours knows the password (`askpass`).
    pub(crate) password: Option<KnownPassword>,
}

/// There is a password, which OpenSSH will ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownPassword;

/// An agent of ours.
#[derive(Debug)]
pub(crate) struct AgentAid {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// By which algorithms its identity signs in, as a list with commas.
    pub(crate) algorithms: String,
}

/// Signatures for a certificate of an RSA key (RFC 8332; PROTOCOL.certkeys of OpenSSH).
pub(crate) const CERTIFICATE_ALGORITHMS: &str =
    "rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com";

/// The program's path.
///
/// # Errors
/// Usage, when there is none.
pub(crate) fn find(program: &str) -> Result<PathBuf, Failure> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program).with_extension(std::env::consts::EXE_EXTENSION))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Failure::usage(
                format!("there is no {program} in PATH"),
                "install the OpenSSH client (Debian: apt-get install openssh-client)",
            )
        })
}

/// Checks what can be checked of the sign-in before anything is sent.
///
/// # Errors
/// Usage, for each thing that OpenSSH would stumble over later.
pub(crate) fn check_sign_in(ssh: &Ssh) -> Result<(), Failure> {
    match (&ssh.sign_in.auth_type, &ssh.sign_in.ssh_key) {
        (Some(AuthType::Password | AuthType::Aad | AuthType::Plugin(_)), Some(_)) => {
            return Err(Failure::usage(
                "--ssh-key goes with --auth-type ssh-key only",
                "leave one of them out",
            ));
        }
        (_, Some(key)) => check_key(key)?,
        (_, None) => {}
    }
    if ssh.sign_in.password_stdin && !matches!(ssh.sign_in.auth_type, None | Some(AuthType::Password)) {
        return Err(Failure::usage(
            "--password-stdin goes with --auth-type password only",
            "leave one of them out",
        ));
    }
    if let Some(word) = ssh.ssh_args.iter().take_while(|word| is_option(word)).find(|word| is_jump(word)) {
        return Err(Failure::usage(
            format!(
                "ssh's {} has no place here: the way to the VM is the Bastion host",
                word.to_string_lossy()
            ),
            "to go on from the VM to another host, put the VM into ~/.ssh/config with `ProxyCommand bastide \
             proxy …` (see bastide proxy --help) and run `ssh -J VM HOST`",
        ));
    }
    Ok(())
}

/// OpenSSH refuses private keys that others can read, in the middle of the session.
fn check_key(key: &Path) -> Result<(), Failure> {
    let shown = key.display();
    let unreadable = |error: std::io::Error| {
        Failure::usage(
            format!("the key file '{shown}' cannot be read: {error}"),
            "give the private key's path to --ssh-key",
        )
    };
    let mut file = std::fs::File::open(key).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Failure::usage(
            format!("'{shown}' is a folder"),
            "give the private key's path to --ssh-key",
        ));
    }
    let mut start = [0; 4];
    // A public key names one that the agent holds; anybody may read it.
    let is_public =
        file.read_exact(&mut start).is_ok() && matches!(&start, b"ssh-" | b"ecds" | b"sk-s" | b"sk-e");
    if !is_public && sys::readers_beside_owner(&metadata) != 0 {
        return Err(Failure::usage(
            format!("the private key '{shown}' can be read by others, and OpenSSH does not take such a key"),
            format!("chmod 600 '{shown}'"),
        ));
    }
    Ok(())
}

/// All arguments of ssh, for a VM of this name and host key identity.
pub(crate) fn arguments(
    ssh: &Ssh,
    way: &Way,
    host: &str,
    host_key_alias: &str,
    known_hosts: &Path,
    aid: &Aid,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: &OsStr| {
        let mut word = OsString::from(format!("{name}="));
        word.push(value);
        words.extend(["-o".into(), word]);
    };
    // The first value counts in OpenSSH, so that these win over the user's files.
    match way {
        Way::HandOver(command) => {
            option("ProxyCommand", &shell_words(command));
            option("ProxyUseFdpass", "yes".as_ref());
        }
        Way::Carry(command) => option("ProxyCommand", &shell_words(command)),
    }
    option("HostName", connection_name(host, host_key_alias).as_ref());
    match ssh.sign_in.host_key_check {
        HostKeyCheck::Off => {
            option("StrictHostKeyChecking", "no".as_ref());
            option("UserKnownHostsFile", "/dev/null".as_ref());
        }
        HostKeyCheck::Strict | HostKeyCheck::AcceptNew => {
            let strict =
                if ssh.sign_in.host_key_check == HostKeyCheck::Strict { "yes" } else { "accept-new" };
            option("StrictHostKeyChecking", strict.as_ref());
            option("HostKeyAlias", host_key_alias.as_ref());
            option("UserKnownHostsFile", &config_path(known_hosts));
        }
    }
    match ssh.sign_in.auth_type {
        // A named key is the key: further ones of the agent only use up the server's patience.
        Some(AuthType::SshKey) => {
            option("PreferredAuthentications", "publickey".as_ref());
            option("PasswordAuthentication", "no".as_ref());
            if ssh.sign_in.ssh_key.is_some() {
                option("IdentitiesOnly", "yes".as_ref());
            }
        }
        Some(AuthType::Password) if aid.password.is_none() => {
            option("PreferredAuthentications", "password,keyboard-interactive".as_ref());
            option("PubkeyAuthentication", "no".as_ref());
        }
        _ => {}
    }
    match (&aid.agent, aid.password) {
        (None, None) => {}
        (Some(_), None) => option("PreferredAuthentications", "publickey".as_ref()),
        (Some(_), Some(_)) => {
            option("PreferredAuthentications", "publickey,password,keyboard-interactive".as_ref());
        }
        (None, Some(_)) => {
            option("PreferredAuthentications", "password,keyboard-interactive".as_ref());
            option("PubkeyAuthentication", "no".as_ref());
        }
    }
    // Nothing but the identity is offered, and without the SHA-1 that servers refuse (protocol.md §7). The older of the
    // option's two names is known to all versions of OpenSSH.
    if let Some(agent) = &aid.agent {
        option("PubkeyAcceptedKeyTypes", agent.algorithms.as_ref());
        option("IdentitiesOnly", "no".as_ref());
        option("IdentityFile", "none".as_ref());
        option("CertificateFile", "none".as_ref());
        option("IdentityAgent", &config_path(&agent.socket));
    }
    // There is one answer, for one question.
    if aid.password.is_some() {
        option("NumberOfPasswordPrompts", "1".as_ref());
    }
    if let Some(key) = &ssh.sign_in.ssh_key {
        words.extend(["-i".into(), key.into()]);
    }
    if let Some(user) = aid.user.as_ref().or(ssh.sign_in.username.as_ref()) {
        words.extend(["-l".into(), user.into()]);
    }
    words.push(host.into());
    words.extend(ssh.ssh_args.iter().cloned());
    words
}

/// Whether the session goes on after this ssh has ended: `ControlPersist` and `-f` leave a process behind. `output`
/// is that of `ssh -G`.
pub(crate) fn lives_on(output: &str) -> bool {
    let value = |name: &str| {
        output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default().trim()
    };
    let master = matches!(value("controlmaster"), "auto" | "autoask" | "yes" | "ask" | "true");
    let persists = !matches!(value("controlpersist"), "" | "no" | "false");
    master && persists || value("forkafterauthentication") == "yes"
}

/// What `%h` and `%C` in the user's `ControlPath` stand for: not the VM's name alone, or two VMs of one name in
/// different groups would share a master, and with it one of the two VMs. Short, because a socket's path has 108 bytes
/// (unix(7)). `Host` lines still match the name.
fn connection_name(host: &str, host_key_alias: &str) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(host_key_alias.as_bytes());
    format!("{host}-{:016x}", hasher.finish())
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

fn is_jump(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-J")
}

/// A command for the user's shell, which OpenSSH expands `%` in first, and puts `exec` before.
fn shell_words(command: &[OsString]) -> OsString {
    let quoted: Vec<String> = command
        .iter()
        .map(|word| word.to_string_lossy())
        .map(|word| format!("'{}'", word.replace('%', "%%").replace('\'', r"'\''")))
        .collect();
    quoted.join(" ").into()
}

/// A path as an option of ssh_config(5): one word, nothing expanded.
fn config_path(path: &Path) -> OsString {
    format!("\"{}\"", path.to_string_lossy().replace('%', "%%").replace('"', "\\\"")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_shell_and_percent() {
        let command = ["/a b/bastide".into(), "it's".into(), "100%".into()];
        assert_eq!(shell_words(&command), r#"'/a b/bastide' 'it'\''s' '100%%'"#);
        assert_eq!(config_path(Path::new("/a b/known%hosts")), "\"/a b/known%%hosts\"");
    }

    #[test]
    fn sessions_that_live_on() {
        let check = |output: &str, expected| assert_eq!(lives_on(output), expected, "{output}");
        check("controlmaster false\ncontrolpersist no\nforkafterauthentication no\n", false);
        check("controlmaster auto\ncontrolpersist no\n", false);
        check("controlmaster false\ncontrolpersist yes\n", false);
        check("controlmaster auto\ncontrolpersist 600\n", true);
        check("controlmaster auto\ncontrolpersist yes\n", true);
        check("controlpersist no\nforkafterauthentication yes\n", true);
        check("", false);
    }
}
