//! Connections that OpenSSH shares and that outlive the `bastide ssh` that opened them: `ControlMaster`,
//! `ControlPersist`, `-f`. It leaves out sessions of one process.

use std::path::{Path, PathBuf};

use bastide_emulator::Transcript;
use bastide_tests::{Lab, Program};

use crate::site::Site;

/// The user's configuration; should a test fail, its master ends by itself.
fn config(lab: &Lab, path: &str) -> PathBuf {
    let path = lab.home().join(path).display().to_string();
    lab.file(
        "user_config",
        format!("Host *\n  ControlMaster auto\n  ControlPersist 60\n  ControlPath {path}\n"),
    )
}

/// `bastide ssh` with the user's configuration.
fn ssh(site: &Site, config: &Path) -> Program {
    site.ssh().arg("-F").arg(config)
}

fn open_tunnels(transcript: &Transcript) -> usize {
    transcript.tunnels().filter(|tunnel| tunnel.end.is_none()).count()
}

#[test]
fn a_second_session_reuses_the_master_which_lives_on_until_it_is_told_to_go() {
    let site = Site::new();
    let config = config(&site.lab, "master-%C");
    let outcome = ssh(&site, &config).arg("echo one").run().expect_code(0);
    assert_eq!(outcome.text(), "one\n");
    // `bastide ssh` has returned, the master is there.
    assert_eq!(open_tunnels(&site.lab.transcript()), 1);
    ssh(&site, &config).args(["-O", "check"]).run().expect_code(0).expect_stderr("Master running");

    let outcome = ssh(&site, &config).arg("echo two; exit 4").run().expect_code(4);
    assert_eq!(outcome.text(), "two\n");
    assert_eq!(site.lab.transcript().mints(), 1);
    assert_eq!(site.lab.transcript().releases(), 0);

    ssh(&site, &config).args(["-O", "exit"]).run().expect_code(0);
    site.lab.wait_for_releases();
    assert_eq!(site.lab.transcript().mints(), 1);
    ssh(&site, &config).args(["-O", "check"]).run().expect_code(255);
}

#[test]
fn a_session_sent_to_the_background_keeps_its_connection() {
    let site = Site::new();
    let go = site.lab.home().join("go");
    let done = site.lab.home().join("done");
    let make = site.lab.program("mkfifo").arg(&go).arg(&done).run();
    make.expect_code(0);
    // -f: ssh goes to the background just before the command runs, and `bastide ssh` returns. ssh keeps standard error,
    // whose end the test would wait for.
    let line = format!(
        "exec bastide ssh --name bastion --resource-group demo --target-resource-id '{}' --username '{}' \
         --ssh-key '{}' -- -F none -f \"read line < '{}'; echo \\$line > '{}'\" > /dev/null 2>&1",
        site.target(),
        site.sshd.user(),
        site.sshd.key().display(),
        go.display(),
        done.display(),
    );
    site.lab.program("sh").args(["-c", &line]).run().expect_code(0);
    assert_eq!(open_tunnels(&site.lab.transcript()), 1);
    let talk = format!("echo still there > '{}'; cat '{}'", go.display(), done.display());
    let outcome = site.lab.program("sh").args(["-c", &talk]).run().expect_code(0);
    assert_eq!(outcome.text(), "still there\n");
    site.lab.wait_for_releases();
    assert_eq!(site.lab.transcript().mints(), 1);
}

#[test]
fn two_vms_of_one_name_do_not_share_a_master() {
    let lab = Lab::with_twins();
    let config = config(&lab, "master-%r@%h:%p");
    let ssh = |target: &str, words: &[&str]| {
        let program =
            lab.bastide("ssh --name bastion --resource-group demo --username azureuser --target-resource-id");
        program.arg(target).arg("--ssh-key").arg(lab.key()).args(["--", "-F"]).arg(&config).args(words).run()
    };
    let targets = [lab.vm("box"), lab.vm("box").replace("/demo/", "/other/")];
    for target in &targets {
        ssh(target, &["true"]).expect_code(0);
    }
    let transcript = lab.transcript();
    let reached: Vec<_> = transcript.sessions.values().map(|session| &session.resource).collect();
    assert_eq!(reached, targets.iter().collect::<Vec<_>>());
    for target in &targets {
        ssh(target, &["-O", "exit"]).expect_code(0);
    }
    lab.wait_for_releases();
}
