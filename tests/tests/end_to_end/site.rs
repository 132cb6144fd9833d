//! A VM with a real OpenSSH server, and the commands that lead there: what the tests with OpenSSH share. It leaves
//! out the tests.

use std::path::PathBuf;

use bastide_tests::{Lab, Program, Sshd};

/// An emulator with one VM, `box`, whose port 22 is a real `sshd`.
pub(crate) struct Site {
    // The lab goes first, and gives its verdict while the server still runs.
    pub(crate) lab: Lab,
    pub(crate) sshd: Sshd,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with_config("")
    }

    /// With further lines of sshd_config(5).
    pub(crate) fn with_config(config: &str) -> Self {
        let sshd = Sshd::start_with(config);
        let lab = Lab::with_box(&format!("22 = \"127.0.0.1:{}\", 81 = \"refuse\"", sshd.port()));
        Self { lab, sshd }
    }

    /// The id of the VM.
    pub(crate) fn target(&self) -> String {
        self.lab.vm("box")
    }

    /// `bastide ssh` to the VM without a way to sign in.
    pub(crate) fn session(&self) -> Program {
        self.lab.bastide("ssh --name bastion --resource-group demo --target-resource-id").args([
            self.target(),
            "--username".into(),
            self.sshd.user(),
        ])
    }

    /// `bastide ssh` with the key, up to what is meant for OpenSSH: which is to read no configuration but what the
    /// test names.
    pub(crate) fn ssh(&self) -> Program {
        self.session()
            .args(["--auth-type", "ssh-key", "--ssh-key"])
            .arg(self.sshd.key())
            .args(["--", "-F", "none"])
    }

    /// `bastide proxy` to the VM, as a line of ssh_config(5).
    pub(crate) fn proxy_command(&self) -> String {
        format!(
            "bastide proxy --name bastion --resource-group demo --target-resource-id {} --resource-port %p",
            self.target()
        )
    }

    /// A configuration for plain OpenSSH, with a way to sign in to the VM. OpenSSH takes the user's home from
    /// passwd(5), not from `HOME`, so that the file has to be named by `-F`.
    pub(crate) fn config(&self, hosts: &str) -> PathBuf {
        let known_hosts = self.lab.home().join("known_hosts");
        let common = format!(
            "Host *\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  StrictHostKeyChecking accept-new\n  \
             UserKnownHostsFile {}\n",
            self.sshd.user(),
            self.sshd.key().display(),
            known_hosts.display(),
        );
        self.lab.file("config", format!("{hosts}\n{common}"))
    }

    /// The configuration in which `box` is reached by `ProxyCommand`.
    pub(crate) fn proxy_config(&self) -> PathBuf {
        self.config(&format!("Host box\n  ProxyCommand {}\n", self.proxy_command()))
    }

    /// Plain OpenSSH's `program` with a configuration.
    pub(crate) fn plain(&self, program: &str, config: &std::path::Path) -> Program {
        self.lab.program(program).arg("-F").arg(config)
    }
}
