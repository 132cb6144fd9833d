//! Host keys of `bastide ssh`: kept by the VM's identity in a file of our own, whatever the way to the VM was. It
//! leaves out OpenSSH's own files, which are the user's.

use std::path::PathBuf;

use bastide_tests::{GROUP, Lab, SUBSCRIPTION};

use crate::site::Site;

/// What OpenSSH calls the VM `box`: its identity, not an address.
fn identity() -> String {
    format!("box.vm.{GROUP}.{SUBSCRIPTION}")
}

fn known_hosts(lab: &Lab) -> PathBuf {
    lab.home().join(".local/state/bastide/known_hosts")
}

#[test]
fn a_new_key_is_kept_and_a_changed_one_refused() {
    let site = Site::new();
    site.ssh().arg("true").run().expect_code(0);
    let kept = std::fs::read_to_string(known_hosts(&site.lab)).unwrap();
    assert!(kept.starts_with(&format!("{} ssh-ed25519 ", identity())), "{kept}");
    assert_eq!(kept.lines().count(), 1, "{kept}");
    site.ssh().arg("true").run().expect_code(0);

    site.sshd.change_host_key();
    let outcome = site.ssh().arg("echo in").run().expect_code(255);
    assert_eq!(outcome.text(), "");
    let outcome = outcome.expect_stderr("REMOTE HOST IDENTIFICATION HAS CHANGED").expect_stderr(&identity());
    assert!(!outcome.stderr.contains("127.0.0.1"), "{outcome}");
    assert_eq!(std::fs::read_to_string(known_hosts(&site.lab)).unwrap(), kept);

    // Who knows that the VM was set up anew removes the old key as for any other host.
    let keygen =
        site.lab.program("ssh-keygen").args(["-q", "-R", &identity(), "-f"]).arg(known_hosts(&site.lab));
    keygen.run().expect_code(0);
    site.ssh().arg("true").run().expect_code(0);
}

#[test]
fn strict_takes_known_keys_only() {
    let site = Site::new();
    let strict = || {
        let program =
            site.session().args(["--auth-type", "ssh-key", "--host-key-check", "strict", "--ssh-key"]);
        program.arg(site.sshd.key()).args(["--", "-F", "none", "true"])
    };
    let outcome = strict().run().expect_code(255);
    outcome.expect_stderr(&format!("host key is known for {}", identity()));
    site.ssh().arg("true").run().expect_code(0);
    strict().run().expect_code(0);
}

#[test]
fn off_takes_any_key_and_keeps_none() {
    let site = Site::new();
    let off = || {
        let program = site.session().args(["--auth-type", "ssh-key", "--host-key-check", "off", "--ssh-key"]);
        program.arg(site.sshd.key()).args(["--", "-F", "none", "true"])
    };
    off().run().expect_code(0);
    site.sshd.change_host_key();
    off().run().expect_code(0);
    assert!(!known_hosts(&site.lab).exists());
}

#[test]
fn two_vms_of_one_name_are_two_hosts() {
    let lab = Lab::with_twins();
    let other = lab.vm("box").replace("/demo/", "/other/");
    for target in [lab.vm("box"), other] {
        lab.ssh(&target, "true").expect_code(0);
    }
    // Debian's configuration hashes the names.
    for host in [identity(), format!("box.vm.other.{SUBSCRIPTION}")] {
        let search = lab.program("ssh-keygen").args(["-F", &host, "-f"]).arg(known_hosts(&lab)).run();
        search.expect_code(0);
    }
    let kept = std::fs::read_to_string(known_hosts(&lab)).unwrap();
    assert_eq!(kept.lines().count(), 2, "{kept}");
}
