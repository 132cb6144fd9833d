//! `bastide ssh-config --auth-type AAD`: plain OpenSSH with an Entra certificate that renews itself, at a real `sshd`. It
//! leaves out the blocks (`ssh_config`) and certificates that somebody asked for (`aad`).

use std::path::PathBuf;

use bastide_emulator::scenario::Outcome as SignIn;
use bastide_tests::{Lab, Outcome, Program};

use crate::aad::{log_in, personal};
use crate::aad_sshd::{HOW, Site};
use crate::ssh_config::Files;

/// A person who is signed in, with a block for the VM.
struct Desk {
    site: Site,
}

impl Desk {
    fn new(settings: &str) -> Self {
        let desk = Self { site: Site::with(settings) };
        log_in(&desk.site.lab);
        desk.write();
        desk
    }

    fn lab(&self) -> &Lab {
        &self.site.lab
    }

    fn write(&self) {
        let line = "ssh-config -n bastion -g demo --auth-type AAD --write --target-resource-id";
        personal(self.lab().bastide(line)).arg(self.lab().vm("box")).run().expect_code(0);
    }

    fn plain(&self, program: &str) -> Program {
        personal(self.lab().program(program)).arg("-F").arg(Files::of(self.lab()).config)
    }

    fn ssh(&self, words: &[&str]) -> Outcome {
        let outcome = self.plain("ssh").arg("box").args(words).run();
        self.lab().wait_for_releases();
        outcome
    }

    #[track_caller]
    fn gets_in(&self) -> Outcome {
        let outcome = self.ssh(&[HOW]).expect_code(0);
        assert!(outcome.text().starts_with("publickey ssh-rsa-cert-v01@openssh.com "), "{outcome}");
        outcome
    }

    /// The folder of key and certificate, of which there is one.
    fn folder(&self) -> PathBuf {
        let mut folders = std::fs::read_dir(self.lab().home().join(".ssh/bastide")).unwrap();
        let folder = folders.next().unwrap().unwrap().path();
        assert!(folders.next().is_none());
        folder
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder().join(name)).unwrap()
    }

    fn issued(&self) -> u64 {
        self.lab().transcript().issued("ssh_certificate")
    }
}

#[test]
fn plain_programs_share_one_certificate() {
    let desk = Desk::new("");
    let home = desk.lab().home();
    desk.gets_in();
    let file = desk.lab().file("one", "one");
    let at_vm = |name: &str| format!("box:{}", home.join(name).display());
    desk.plain("scp").arg("-q").arg(&file).arg(at_vm("two")).run().expect_code(0);
    let shell = format!("ssh -F {}", Files::of(desk.lab()).config.display());
    let rsync = personal(desk.lab().program("rsync")).args(["-a", "-e", &shell]);
    rsync.arg(at_vm("two")).arg(home.join("three")).run().expect_code(0);
    assert_eq!(std::fs::read(home.join("three")).unwrap(), b"one");
    desk.lab().wait_for_releases();
    assert_eq!((desk.issued(), desk.lab().transcript().mints()), (1, 3));
    for name in ["id_rsa", "id_rsa.pub", "id_rsa-cert.pub"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(desk.folder().join(name)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // The certificate is offered once.
    let outcome = desk.ssh(&["-v", "true"]).expect_code(0);
    assert_eq!(outcome.stderr.matches("Offering public key").count(), 1, "{outcome}");
}

#[test]
fn missing_broken_and_ended_ones_are_made_anew() {
    let desk = Desk::new("");
    for name in ["id_rsa", "id_rsa-cert.pub"] {
        for text in ["", "nonsense"] {
            // An empty file is no key of anybody's, and is in nobody's way.
            if name == "id_rsa" && !text.is_empty() {
                continue;
            }
            let issued = desk.issued();
            std::fs::write(desk.folder().join(name), text).unwrap();
            if name == "id_rsa" {
                std::fs::remove_file(desk.folder().join(name)).unwrap();
            }
            desk.gets_in();
            assert_eq!(desk.issued(), issued + 1, "{name} '{text}'");
        }
    }
    // A key and a certificate that do not belong to each other.
    let other = desk.file("id_rsa");
    std::fs::remove_dir_all(desk.folder()).unwrap();
    desk.gets_in();
    std::fs::write(desk.folder().join("id_rsa"), other).unwrap();
    let issued = desk.issued();
    desk.gets_in();
    assert_eq!(desk.issued(), issued + 1);
}

#[test]
fn a_certificate_near_its_end_is_renewed_for_the_key_that_is_there() {
    let desk = Desk::new("");
    let fresh = desk.file("id_rsa-cert.pub");
    let key = desk.file("id_rsa");
    // What the emulator signs now begins some time ago, as one that was made then.
    desk.lab().emulator().age_ssh_certificates(3600 * 9 / 10);
    std::fs::remove_file(desk.folder().join("id_rsa-cert.pub")).unwrap();
    desk.gets_in();
    let (old_key, old) = (desk.file("id_rsa"), desk.file("id_rsa-cert.pub"));
    assert_ne!(old_key, key);
    desk.lab().emulator().age_ssh_certificates(0);
    let issued = desk.issued();
    desk.gets_in();
    assert_eq!(desk.issued(), issued + 1);
    assert_ne!(desk.file("id_rsa-cert.pub"), old);
    // Whoever has read the old pair can still sign in with what is there.
    assert_eq!(desk.file("id_rsa"), old_key);
    assert_ne!(fresh, old);
    desk.gets_in();
    assert_eq!(desk.issued(), issued + 1);
}

#[test]
fn many_at_once_make_one_pair() {
    let desk = Desk::new("");
    std::fs::remove_dir_all(desk.folder()).unwrap();
    let issued = desk.issued();
    let running: Vec<_> = (0..8).map(|_| desk.plain("ssh").args(["box", HOW]).start()).collect();
    for running in running {
        let outcome = running.finish().expect_code(0);
        assert!(outcome.text().starts_with("publickey ssh-rsa-cert-v01@openssh.com "), "{outcome}");
    }
    assert_eq!(desk.issued(), issued + 1);
    assert_eq!(std::fs::read_dir(desk.folder()).unwrap().count(), 3);
    desk.lab().wait_for_releases();
}

#[test]
fn who_cannot_sign_in_is_told_and_nothing_is_opened() {
    let desk = Desk::new("");
    std::fs::remove_dir_all(desk.folder()).unwrap();
    let person = desk.site.sshd.user();
    desk.lab().emulator().set_outcome(&person, SignIn::ConditionalAccess);
    let outcome = desk.ssh(&["true"]).expect_code(255);
    outcome.expect_stderr("error: ").expect_stderr("a conditional access policy of the tenant");
    assert_eq!(desk.lab().transcript().mints(), 0);
    // One that has not ended is good enough; that it could not be renewed is told.
    desk.lab().emulator().set_outcome(&person, SignIn::Granted);
    desk.lab().emulator().age_ssh_certificates(3600 * 9 / 10);
    desk.gets_in();
    desk.lab().emulator().set_outcome(&person, SignIn::ConditionalAccess);
    let outcome = desk.plain("ssh").args(["box", HOW]).run();
    outcome.expect_stderr("could not be renewed");
    // Nobody is asked for a code who would have to type it somewhere.
    std::fs::remove_dir_all(desk.folder()).unwrap();
    personal(desk.lab().bastide("logout")).run().expect_code(0);
    let outcome = desk.ssh(&["-o", "BatchMode=no", "true"]).expect_code(255);
    let outcome = outcome.expect_stderr("error: ").expect_stderr("hint: ");
    assert!(!outcome.stderr.contains("enter the code"), "{outcome}");
    desk.lab().wait_for_releases();
}

#[test]
fn a_key_of_the_users_own_is_never_written_over() {
    let desk = Desk::new("");
    let mine = "-----BEGIN OPENSSH PRIVATE KEY-----\nmine\n";
    std::fs::write(desk.folder().join("id_rsa"), mine).unwrap();
    desk.ssh(&["true"]).expect_code(255).expect_stderr("is not a key of bastide's, and stays");
    let line = "ssh-cert --write";
    personal(desk.lab().bastide(line))
        .arg(desk.folder())
        .run()
        .expect_code(2)
        .expect_stderr("name another folder");
    assert_eq!(desk.file("id_rsa"), mine.as_bytes());
}
