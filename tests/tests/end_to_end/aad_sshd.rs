//! `bastide ssh --auth-type AAD` to a real `sshd` that trusts Entra ID's authority (`TrustedUserCAKeys`): with every
//! habit that a user's configuration may have, and which files are opened for writing meanwhile. It leaves out who is
//! refused (`aad`).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use bastide_tests::{Lab, Program, Running, Sshd};

use crate::aad::{log_in, personal};

/// A VM whose server takes nothing but certificates of the emulator's authority, for the user who runs the test: it
/// is the name of a person and of the service principal of the scenario.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) sshd: Sshd,
}

/// Says what the server has accepted (`ExposeAuthInfo` of sshd_config(5)).
pub(crate) const HOW: &str = "cat \"$SSH_USER_AUTH\"";

/// A command that says when the session is there, and lasts as long as its input.
pub(crate) const HOLD: &str = "echo ready; cat";

impl Site {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With further settings of the sign-in (see `scenario.example.toml` of the emulator).
    pub(crate) fn with(settings: &str) -> Self {
        let sshd = Self::sshd();
        let person = sshd.user();
        let site = Self::of(sshd, &person, settings);
        site.sshd.trust(&site.lab.emulator().state().join("ca.pub"));
        site
    }

    fn sshd() -> Sshd {
        // With the user's own agent full of keys, the server loses its patience at the second wrong one.
        Sshd::start_with("ExposeAuthInfo yes\nMaxAuthTries 2")
    }

    /// For a person and a service principal of this name, with a server that does not trust the authority yet.
    fn of(sshd: Sshd, name: &str, settings: &str) -> Self {
        let port = sshd.port();
        let lab = Lab::with(&format!(
            "[sign_in]\ndevice_code_interval_seconds = 0\ndevice_code_approved_by = \"{name}\"\n{settings}\n\
             [[users]]\nupn = \"{name}\"\nobject_id = \"33333333-3333-4333-8333-333333333333\"\n\
             tenant = \"emulator.example\"\n\
             [[service_principals]]\nclient_id = \"{name}\"\nobject_id = \"55555555-5555-4555-8555-555555555555\"\n\
             tenant = \"emulator.example\"\n\
             [[virtual_machines]]\nname = \"box\"\nprivate_ip = \"10.0.0.4\"\n\
             ports = {{ 22 = \"127.0.0.1:{port}\" }}\n"
        ));
        Self { lab, sshd }
    }

    /// The words of a session, up to what is meant for OpenSSH.
    pub(crate) fn line(&self) -> String {
        format!("ssh -n bastion -g demo --auth-type AAD --target-resource-id {}", self.lab.vm("box"))
    }

    pub(crate) fn ssh(&self) -> Program {
        self.lab.bastide(&self.line())
    }

    /// `command`, a line for the shell, with an agent that holds four keys of the user's, which the server does not
    /// know: files `keys/k1` and so on.
    pub(crate) fn with_agent(&self, command: &str) -> Program {
        let keys = self.lab.home().join("keys");
        let line = format!(
            "mkdir '{0}' && for n in 1 2 3 4; do ssh-keygen -q -t ed25519 -N '' -C mine-$n -f '{0}/k'$n && \
             ssh-add -q '{0}/k'$n || exit 99; done; {command}",
            keys.display()
        );
        // ssh-agent(1) ends with the command that it runs.
        self.lab.program("ssh-agent").args(["sh", "-c", &line])
    }
}

/// Waits for the first line of [`HOLD`]; the session ends with what is returned.
pub(crate) fn hold(session: &mut Running) -> impl Sized + use<> {
    let (stdin, stdout) = session.pipes();
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (stdin, stdout)
}

#[test]
fn a_person_and_an_application_get_in() {
    let site = Site::new();
    log_in(&site.lab);
    for program in [personal(site.ssh()), site.ssh().args(["--credential", "client-secret"])] {
        let outcome = program.args(["--", "-F", "none", HOW]).run().expect_code(0);
        assert!(outcome.text().starts_with("publickey ssh-rsa-cert-v01@openssh.com "), "{outcome}");
    }
    assert_eq!(site.lab.transcript().issued("ssh_certificate"), 2);
    // With IP connect, too.
    let line = "ssh -n bastion -g demo --auth-type AAD --target-ip-address 10.0.0.4 -- -F none";
    let outcome = site.lab.bastide(line).arg(HOW).run().expect_code(0);
    assert!(outcome.text().starts_with("publickey ssh-rsa-cert-v01@openssh.com "), "{outcome}");
}

#[test]
fn a_machine_without_the_extension_is_explained() {
    let sshd = Site::sshd();
    let person = sshd.user();
    let site = Site::of(sshd, &person, "");
    let outcome = site.ssh().args(["--", "-F", "none", "true"]).run().expect_code(255);
    outcome.expect_stderr("Permission denied").expect_stderr("it needs the extension AADSSHLoginForLinux");
}

#[test]
fn a_person_whom_the_machine_does_not_know_is_explained() {
    let site = Site::of(Site::sshd(), "bob@emulator.example", "");
    site.sshd.trust(&site.lab.emulator().state().join("ca.pub"));
    let outcome = site.ssh().args(["--", "-F", "none", "true"]).run().expect_code(255);
    outcome
        .expect_stderr("Permission denied")
        .expect_stderr("the VM did not take the certificate of bob@emulator.example")
        .expect_stderr("'Virtual Machine User Login'");
}

#[test]
fn a_configuration_full_of_keys_is_no_obstacle() {
    let site = Site::new();
    let config = site.lab.file(
        "config",
        format!(
            "Host *\n  IdentitiesOnly yes\n  IdentityFile {0}/keys/k1\n  IdentityFile {0}/keys/k2\n  \
             CertificateFile {0}/keys/none-cert.pub\n  PreferredAuthentications password,publickey\n  \
             PubkeyAcceptedAlgorithms ssh-ed25519\n  User somebody\n  IdentityAgent none\n",
            site.lab.home().display()
        ),
    );
    let line = format!("exec bastide {} -- -F '{}' '{HOW}'", site.line(), config.display());
    let outcome = site.with_agent(&line).run().expect_code(0);
    assert!(outcome.text().starts_with("publickey ssh-rsa-cert-v01@openssh.com "), "{outcome}");
}

#[test]
fn a_forwarded_agent_shows_the_users_keys_and_not_ours() {
    let site = Site::new();
    // With a signature by a key of the user's, made on the VM.
    let line = format!(
        "exec bastide {} -- -F none -A 'ssh-add -L; ssh-add -T {}/keys/k1.pub && echo signed'",
        site.line(),
        site.lab.home().display()
    );
    let outcome = site.with_agent(&line).run().expect_code(0);
    let text = outcome.text();
    for number in 1..=4 {
        assert!(text.contains(&format!("mine-{number}\n")), "{outcome}");
    }
    assert!(!text.contains("cert") && text.ends_with("signed\n"), "{outcome}");
    // Without an agent of the user's there is none to forward.
    let outcome = site.ssh().args(["--", "-F", "none", "-A", "ssh-add -L"]).run().expect_code(1);
    assert!(!outcome.text().contains("ssh-rsa"), "{outcome}");
}

#[test]
fn files_are_copied_over_a_shared_connection() {
    let site = Site::new();
    let lab = &site.lab;
    let master = lab.home().join("master").display().to_string();
    let mut session = site.ssh().args(["--", "-F", "none", "-M", "-S", &master, HOLD]).start();
    let pipes = hold(&mut session);
    let file = lab.file("one", "over the master");
    let control = format!("ControlPath={master}");
    let (two, three) = (lab.home().join("two"), lab.home().join("three"));
    let remote = |path: &std::path::Path| format!("anything:{}", path.display());
    // Should the master not be there, there is no other way either.
    let scp = lab.program("scp").args(["-q", "-F", "none", "-o", &control, "-o", "ProxyCommand=false"]);
    scp.arg(&file).arg(remote(&two)).run().expect_code(0);
    let copied = lab.home().join("copied");
    let batch = lab.file("batch", format!("get {} {}\n", two.display(), copied.display()));
    let sftp =
        lab.program("sftp").args(["-q", "-F", "none", "-o", &control, "-o", "ProxyCommand=false", "-b"]);
    sftp.arg(&batch).arg("anything").run().expect_code(0);
    assert_eq!(std::fs::read(copied).unwrap(), b"over the master");
    let shell = format!("ssh -F none -o {control} -o ProxyCommand=false");
    let rsync = lab.program("rsync").args(["-a", "-e", &shell]);
    rsync.arg(remote(&two)).arg(&three).run().expect_code(0);
    assert_eq!(std::fs::read(three).unwrap(), b"over the master");
    let second = site.ssh().args(["--", "-F", "none", "-S", &master, "echo second"]).run().expect_code(0);
    assert_eq!(second.text(), "second\n");
    drop(pipes);
    session.finish().expect_code(0);
    let transcript = lab.transcript();
    // The second session has a certificate at hand before OpenSSH finds that it needs none.
    assert_eq!((transcript.mints(), transcript.issued("ssh_certificate")), (1, 2));
}

#[test]
fn a_connection_that_outlives_the_command_needs_no_agent_any_more() {
    let site = Site::new();
    let config = site.lab.file(
        "config",
        format!(
            "Host *\n  ControlMaster auto\n  ControlPersist 60\n  ControlPath {}/master-%C\n",
            site.lab.home().display()
        ),
    );
    let ssh = |words: &[&str]| site.ssh().args(["--", "-F"]).arg(&config).args(words).run();
    for word in ["one", "two"] {
        let outcome = ssh(&[&format!("echo {word}")]).expect_code(0);
        assert_eq!(outcome.text(), format!("{word}\n"));
    }
    assert_eq!(site.lab.transcript().mints(), 1);
    ssh(&["-O", "exit"]).expect_code(0);
    site.lab.wait_for_releases();
}

/// What strace(1) has seen of the files of a session: calls that open, make or rename files, and what is written.
struct Trace(String);

impl Trace {
    /// The paths that were opened for writing or made, without what is no file of a disk.
    fn written(&self) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        for line in self.0.lines().filter(|line| !line.contains(" = -1 ")) {
            let call = line.split_once('(').map_or("", |(call, _)| call);
            let call = call.rsplit(' ').next().unwrap();
            let makes = match call {
                "open" | "openat" | "openat2" => {
                    ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TMPFILE"].iter().any(|flag| line.contains(flag))
                }
                "creat" | "memfd_create" | "rename" | "renameat" | "renameat2" | "link" | "linkat" => true,
                "symlink" | "symlinkat" | "mknod" | "mknodat" => true,
                _ => false,
            };
            if makes {
                let names = line.split('"').skip(1).step_by(2);
                paths.extend(names.filter(|name| !name.starts_with("/dev/")).map(str::to_owned));
            }
        }
        paths
    }
}

#[test]
fn no_file_holds_a_key_at_any_time() {
    let site = Site::new();
    log_in(&site.lab);
    let log = site.lab.home().join("strace");
    let bastide = site.line();
    let program = site.lab.program("strace");
    let program = program.args(["-f", "-s", "100000", "-y", "-o"]).arg(&log);
    let program = program.args(["-e", "trace=%file,memfd_create,write,writev,pwrite64,sendfile", "bastide"]);
    let outcome = personal(program).words(&bastide).args(["--", "-F", "none", HOW]).run().expect_code(0);
    assert!(outcome.text().starts_with("publickey ssh-rsa-cert"), "{outcome}");
    let trace = Trace(std::fs::read_to_string(&log).unwrap());
    std::fs::remove_file(&log).unwrap();
    let home = site.lab.home().display().to_string();
    let written = trace.written();
    assert!(!written.is_empty());
    for path in &written {
        let below = path.strip_prefix(&home).unwrap_or_else(|| panic!("'{path}' is not in the user's home"));
        assert!(below.starts_with("/.local/state/bastide/"), "{below}");
    }
    // Nothing that is written to a file is a key: in PEM, as OpenSSH's own form, or as a certificate.
    for line in trace.0.lines().filter(|line| line.contains("write") && line.contains("</")) {
        for mark in ["PRIVATE KEY", "openssh-key-v1", "ssh-rsa-cert", "AAAAHHNzaC1yc2EtY2VydC"] {
            let target = line.split_once("</").map_or("", |(_, path)| path);
            assert!(!line.contains(mark) || target.starts_with("dev/"), "{line}");
        }
    }
}
