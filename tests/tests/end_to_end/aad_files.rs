//! Plain OpenSSH with an Entra certificate in files (`bastide ssh-cert --write`), over `bastide proxy`, to a real `sshd`:
//! `ssh`, `scp`, `sftp` and `rsync`, which know nothing of us but what is in their configuration. It leaves out the
//! files themselves (`aad`).

use std::path::{Path, PathBuf};

use bastide_tests::Program;

use crate::aad::{log_in, personal};
use crate::aad_sshd::{HOW, Site};

/// A person with a certificate in files, and a configuration that leads to the VM with it.
struct Desk {
    site: Site,
    config: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let site = Site::new();
        let lab = &site.lab;
        log_in(lab);
        let folder = lab.home().join("entra");
        personal(lab.bastide("ssh-cert --write")).arg(&folder).run().expect_code(0);
        let config = lab.file(
            "config",
            format!(
                "Host box\n  ProxyCommand bastide proxy -n bastion -g demo --target-resource-id {} --resource-port %p\n  \
                 User {}\n  IdentityFile {}/id_rsa\n  IdentitiesOnly yes\n  StrictHostKeyChecking accept-new\n  \
                 UserKnownHostsFile {}\n",
                lab.vm("box"),
                site.sshd.user(),
                folder.display(),
                lab.home().join("known_hosts").display(),
            ),
        );
        Self { site, config }
    }

    fn plain(&self, program: &str) -> Program {
        personal(self.site.lab.program(program)).arg("-F").arg(&self.config)
    }
}

fn remote(path: &Path) -> String {
    format!("box:{}", path.display())
}

#[test]
fn strangers_sign_in_and_copy_with_it() {
    let desk = Desk::new();
    let lab = &desk.site.lab;
    let outcome = desk.plain("ssh").args(["box", HOW]).run().expect_code(0);
    assert!(outcome.text().starts_with("publickey ssh-rsa-cert-v01@openssh.com "), "{outcome}");

    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let file = lab.file("one", &bytes);
    let (two, three, four) = (lab.home().join("two"), lab.home().join("three"), lab.home().join("four"));
    desk.plain("scp").arg("-q").arg(&file).arg(remote(&two)).run().expect_code(0);
    let batch = lab.file("batch", format!("get {} {}\n", two.display(), three.display()));
    desk.plain("sftp").args(["-q", "-b"]).arg(&batch).arg("box").run().expect_code(0);
    let shell = format!("ssh -F {}", desk.config.display());
    let rsync = personal(lab.program("rsync")).args(["-a", "-e", &shell]);
    rsync.arg(remote(&three)).arg(&four).run().expect_code(0);
    assert!(std::fs::read(four).unwrap() == bytes);

    let transcript = lab.transcript();
    assert_eq!((transcript.mints(), transcript.issued("ssh_certificate")), (4, 1));
}
