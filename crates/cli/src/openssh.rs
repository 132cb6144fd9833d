//! The settings of the user's own OpenSSH client (ssh_config(5)): what it is given so that it goes through Bastion,
//! checks host keys by the VM's identity, and leaves everything else to the user. It leaves out running it, and files.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::arguments::{AuthType, HostKeyCheck, SignIn};
use crate::exit::Failure;
use crate::stable_hash::stable_hash;
use crate::{program, sys};

/// How OpenSSH reaches the VM: the value of `ProxyCommand`, see [`shell_line`].
pub(crate) enum Way {
    /// A command that connects to a private socket and hands the connection over.
    HandOver(OsString),
    /// A command that carries the bytes itself and may outlive us.
    Carry(OsString),
}

/// What we sign in with on OpenSSH's behalf.
#[derive(Debug, Default)]
pub(crate) struct Aid {
    /// The user on the VM; without one it is OpenSSH's business.
    pub(crate) user: Option<String>,
    /// What is offered to the VM, and nothing else is.
    pub(crate) identity: Option<IdentityAid>,
    /// A program of ours knows the password (`askpass`).
    pub(crate) password: Option<KnownPassword>,
}

/// There is a password, which OpenSSH will ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownPassword;

/// An identity that we have made.
#[derive(Debug)]
pub(crate) struct IdentityAid {
    /// Who has it.
    pub(crate) place: IdentityPlace,
    /// By which algorithms it signs in, as a list with commas.
    pub(crate) algorithms: String,
}

/// Who has an identity.
#[derive(Debug)]
pub(crate) enum IdentityPlace {
    /// An agent of ours, which listens here.
    Agent(PathBuf),
    /// The files of `ssh-cert` in a folder.
    Files(PathBuf),
}

/// Signatures for a certificate of an RSA key (RFC 8332; PROTOCOL.certkeys of OpenSSH).
pub(crate) const CERTIFICATE_ALGORITHMS: &str =
    "rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com";

/// The program's path.
///
/// # Errors
/// Usage, when there is none.
pub(crate) fn find(program: &str) -> Result<PathBuf, Failure> {
    program::find(program.as_ref()).map_err(|_| {
        Failure::usage(
            format!("there is no {program} in PATH"),
            format!("install it (Debian: apt-get install {})", package(program)),
        )
    })
}

/// Debian's package of a program.
fn package(program: &str) -> &str {
    if program == "rsync" { program } else { "openssh-client" }
}

/// Checks what can be checked of the sign-in before anything is sent.
///
/// # Errors
/// Usage, for each thing that OpenSSH would stumble over later.
pub(crate) fn check_sign_in(sign_in: &SignIn) -> Result<(), Failure> {
    match (&sign_in.auth_type, &sign_in.ssh_key) {
        (Some(AuthType::Password | AuthType::Aad | AuthType::Plugin(_)), Some(_)) => {
            return Err(Failure::usage(
                "--ssh-key goes with --auth-type ssh-key only",
                "leave one of them out",
            ));
        }
        (_, Some(key)) => check_key(key)?,
        (_, None) => {}
    }
    if sign_in.password_stdin && !matches!(sign_in.auth_type, None | Some(AuthType::Password)) {
        return Err(Failure::usage(
            "--password-stdin goes with --auth-type password only",
            "leave one of them out",
        ));
    }
    Ok(())
}

/// Refuses another way to the VM among the words for `program`.
///
/// # Errors
/// Usage.
pub(crate) fn check_no_jump(program: &str, words: &[OsString]) -> Result<(), Failure> {
    let Some(word) = words.iter().take_while(|word| is_option(word)).find(|word| is_jump(word)) else {
        return Ok(());
    };
    Err(Failure::usage(
        format!(
            "{program}'s {} has no place here: the way to the VM is the Bastion host",
            word.to_string_lossy()
        ),
        "to go on from the VM to another host, put the VM into ~/.ssh/config with `bastide ssh-config --write` and \
         run `ssh -J VM HOST`",
    ))
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

/// A line of ssh_config(5).
pub(crate) type Setting = (&'static str, OsString);

/// Who the VM is to OpenSSH.
pub(crate) struct Identity<'a> {
    /// What `HostName` says, see [`connection_name`].
    pub(crate) host_name: String,
    /// By what its host keys are known.
    pub(crate) host_key_alias: &'a str,
    /// The file in which they are.
    pub(crate) known_hosts: &'a Path,
}

/// What makes OpenSSH go this way to the VM, know it, and sign in there as it was asked for. The first value of a
/// setting counts in OpenSSH, so that these win over the user's files where they come first.
pub(crate) fn settings(sign_in: &SignIn, way: &Way, vm: &Identity<'_>, aid: &Aid) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut set = |name, value: &OsStr| settings.push((name, value.to_owned()));
    match way {
        Way::HandOver(command) => {
            set("ProxyCommand", command);
            set("ProxyUseFdpass", "yes".as_ref());
        }
        Way::Carry(command) => set("ProxyCommand", command),
    }
    set("HostName", vm.host_name.as_ref());
    match sign_in.host_key_check {
        HostKeyCheck::Off => {
            set("StrictHostKeyChecking", "no".as_ref());
            set("UserKnownHostsFile", "/dev/null".as_ref());
        }
        HostKeyCheck::Strict | HostKeyCheck::AcceptNew => {
            let strict = if sign_in.host_key_check == HostKeyCheck::Strict { "yes" } else { "accept-new" };
            set("StrictHostKeyChecking", strict.as_ref());
            set("HostKeyAlias", vm.host_key_alias.as_ref());
            set("UserKnownHostsFile", &quoted(vm.known_hosts));
        }
    }
    match sign_in.auth_type {
        // A named key is the key: further ones of the agent only use up the server's patience.
        Some(AuthType::SshKey) => {
            set("PreferredAuthentications", "publickey".as_ref());
            set("PasswordAuthentication", "no".as_ref());
            if sign_in.ssh_key.is_some() {
                set("IdentitiesOnly", "yes".as_ref());
            }
        }
        Some(AuthType::Password) if aid.password.is_none() => {
            set("PreferredAuthentications", "password,keyboard-interactive".as_ref());
            set("PubkeyAuthentication", "no".as_ref());
        }
        _ => {}
    }
    match (&aid.identity, aid.password) {
        (None, None) => {}
        (Some(_), None) => set("PreferredAuthentications", "publickey".as_ref()),
        (Some(_), Some(_)) => {
            set("PreferredAuthentications", "publickey,password,keyboard-interactive".as_ref());
        }
        (None, Some(_)) => {
            set("PreferredAuthentications", "password,keyboard-interactive".as_ref());
            set("PubkeyAuthentication", "no".as_ref());
        }
    }
    // Nothing but the identity is offered, and without the SHA-1 that servers refuse (protocol.md §7). The older of the
    // option's two names is known to all versions of OpenSSH.
    if let Some(identity) = &aid.identity {
        set("PubkeyAcceptedKeyTypes", identity.algorithms.as_ref());
        match &identity.place {
            IdentityPlace::Agent(socket) => {
                set("IdentitiesOnly", "no".as_ref());
                set("IdentityFile", "none".as_ref());
                set("CertificateFile", "none".as_ref());
                set("IdentityAgent", &quoted(socket));
            }
            IdentityPlace::Files(folder) => {
                set("IdentitiesOnly", "yes".as_ref());
                // ssh finds the certificate beside it. Named by `CertificateFile` it would look for the key among those
                // whose own algorithm is accepted.
                set("IdentityFile", &quoted(&folder.join("id_rsa")));
            }
        }
    }
    // There is one answer, for one question; `sftp -b` would have none asked.
    if aid.password.is_some() {
        set("BatchMode", "no".as_ref());
        set("NumberOfPasswordPrompts", "1".as_ref());
    }
    if let Some(key) = &sign_in.ssh_key {
        set("IdentityFile", &quoted(key));
    }
    if let Some(user) = aid.user.as_ref().or(sign_in.username.as_ref()) {
        set("User", format!("\"{}\"", user.replace('"', "\\\"")).as_ref());
    }
    settings
}

/// Settings as words of a command line.
pub(crate) fn options(settings: &[Setting]) -> Vec<OsString> {
    let option = |(name, value): &Setting| {
        let mut word = OsString::from(format!("{name}="));
        word.push(value);
        ["-o".into(), word]
    };
    settings.iter().flat_map(option).collect()
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
pub(crate) fn connection_name(host: &str, host_key_alias: &str) -> String {
    format!("{host}-{:016x}", stable_hash(host_key_alias.bytes()))
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

fn is_jump(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-J")
}

/// A command for the user's shell, which OpenSSH expands `%` in first, and puts `exec` before.
pub(crate) fn shell_line(command: &[OsString]) -> OsString {
    let words: Vec<String> = command.iter().map(|word| shell_word(&word.to_string_lossy())).collect();
    words.join(" ").into()
}

fn shell_word(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:,+@=".contains(letter);
    match word {
        plain if !plain.is_empty() && plain.chars().all(is_plain) => plain.to_owned(),
        other => sys::shell_quoted(&other.replace('%', "%%")),
    }
}

/// A path as a value of ssh_config(5): one word, nothing expanded.
pub(crate) fn quoted(path: &Path) -> OsString {
    format!("\"{}\"", path.to_string_lossy().replace('%', "%%").replace('"', "\\\"")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_shell_and_percent() {
        let command = ["/a b/bastide".into(), "it's".into(), "100%".into()];
        assert_eq!(shell_line(&command), r#"'/a b/bastide' 'it'\''s' '100%%'"#);
        let plain = ["/a/bastide".into(), "--name".into(), "".into(), "a=b".into(), "~x".into()];
        assert_eq!(shell_line(&plain), "/a/bastide --name '' a=b '~x'");
        assert_eq!(quoted(Path::new("/a b/known%hosts")), "\"/a b/known%%hosts\"");
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
