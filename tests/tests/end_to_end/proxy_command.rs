//! OpenSSH's programs and rsync over `ProxyCommand bastide proxy …` and through `bastide tunnel`: files both ways,
//! jumps, and what happens when `ssh` goes away. It leaves out `bastide ssh`.

use std::path::Path;

use bastide_tests::Program;

use crate::site::Site;

/// Bytes with every value and no period that a buffer has; a MiB and a bit.
fn content(seed: u32) -> Vec<u8> {
    let mut state = seed;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(1_100_001).collect()
}

/// Copies a file up and down again by each of OpenSSH's programs, which `program` makes ready for a host.
fn copies(site: &Site, host: &str, program: &dyn Fn(&str) -> Program) {
    let home = site.lab.home();
    let sent = content(7);
    let file = site.lab.file("sent", &sent);
    let at_vm = |name: &str| format!("{host}:{}", home.join(name).display());

    program("scp").arg("-q").arg(&file).arg(at_vm("scp-up")).run().expect_code(0);
    program("scp").arg("-q").arg(at_vm("scp-up")).arg(home.join("scp-down")).run().expect_code(0);
    // The protocol before OpenSSH 9.0, by exec instead of the sftp subsystem.
    program("scp").args(["-q", "-O"]).arg(&file).arg(at_vm("rcp-up")).run().expect_code(0);

    let place = home.display();
    let batch = format!("put {place}/sent {place}/sftp-up\nget {place}/sftp-up {place}/sftp-down\n");
    program("sftp").args(["-q", "-b", "-", host]).input(batch).run().expect_code(0);

    for name in ["scp-up", "scp-down", "rcp-up", "sftp-up", "sftp-down"] {
        assert!(std::fs::read(home.join(name)).unwrap() == sent, "{name} differs");
    }
}

#[test]
fn scp_and_sftp_through_the_proxy() {
    let site = Site::new();
    let config = site.proxy_config();
    copies(&site, "box", &|name| site.plain(name, &config));
    site.lab.wait_for_releases();
    assert_eq!(site.lab.transcript().mints(), 4);
}

#[test]
fn scp_and_sftp_through_a_tunnel() {
    let site = Site::new();
    let tunnel = site.lab.tunnel(&site.target(), 22);
    let config = site.config(&format!("Host 127.0.0.1\n  HostKeyAlias box\n  Port {}\n", tunnel.port()));
    copies(&site, "127.0.0.1", &|name| site.plain(name, &config));
    tunnel.interrupt();
    assert_eq!(site.lab.transcript().mints(), 4);
}

#[test]
fn rsync_both_ways_and_nothing_twice() {
    let site = Site::new();
    let config = site.config("");
    let home = site.lab.home();
    for (name, content) in [("a", content(1)), ("b", content(2)), ("empty", Vec::new())] {
        std::fs::create_dir_all(home.join("tree/deep")).unwrap();
        std::fs::write(home.join("tree/deep").join(name), content).unwrap();
    }
    // rsync splits the command at spaces and keeps what is in quotes together.
    let shell = format!("ssh -F {} -o 'ProxyCommand={}'", config.display(), site.proxy_command());
    let rsync = |from: &str, to: &str| {
        let program = site.lab.program("rsync").args(["--archive", "--itemize-changes", "-e", &shell]);
        program.args([from, to]).run().expect_code(0).text()
    };
    let (local, back) = (format!("{}/tree/", home.display()), format!("{}/back/", home.display()));
    let at_vm = format!("box:{}/at-vm/", home.display());

    assert_eq!(rsync(&local, &at_vm).matches("<f+++++++++").count(), 3);
    assert_eq!(rsync(&local, &at_vm), "");
    assert_eq!(rsync(&at_vm, &back).matches(">f+++++++++").count(), 3);
    assert_eq!(rsync(&at_vm, &back), "");
    site.lab.program("diff").args(["-r", &local, &back]).run().expect_code(0);

    // A few changed bytes travel alone.
    let changed = home.join("tree/deep/a");
    let mut bytes = std::fs::read(&changed).unwrap();
    bytes[500_000] ^= 0xff;
    std::fs::write(&changed, &bytes).unwrap();
    rsync(&local, &at_vm);
    assert!(std::fs::read(home.join("at-vm/deep/a")).unwrap() == bytes);
    site.lab.wait_for_releases();
}

#[test]
fn a_jump_goes_on_from_the_vm() {
    let site = Site::new();
    // A second host, which only the VM reaches.
    let other = bastide_tests::Sshd::start();
    let config = site.config(&format!(
        "Host box\n  ProxyCommand {}\nHost other\n  HostName 127.0.0.1\n  HostKeyAlias other\n  Port {}\n  \
         IdentityFile {}\n  UserKnownHostsFile {}\n  StrictHostKeyChecking accept-new\n",
        site.proxy_command(),
        other.port(),
        other.key().display(),
        site.lab.home().join("known_others").display(),
    ));
    let outcome = site.plain("ssh", &config).args(["-J", "box", "other", "echo from afar; exit 6"]).run();
    assert_eq!(outcome.expect_code(6).text(), "from afar\n");
    site.lab.wait_for_releases();
    assert_eq!(site.lab.transcript().mints(), 1);
}

#[test]
fn a_git_repository_is_cloned_and_pushed_to() {
    let site = Site::new();
    let config = site.proxy_config();
    let home = site.lab.home();
    let git = |folder: &Path, words: &str| {
        let ssh = format!("ssh -F {}", config.display());
        let program = site.lab.program("git").folder(folder).env("GIT_SSH_COMMAND", ssh);
        let program = program.args(["-c", "user.name=A", "-c", "user.email=a@example.com"]);
        program.words(words).run().expect_code(0)
    };
    git(home, "init --quiet --bare --initial-branch main at-vm.git");
    git(home, &format!("clone --quiet box:{}/at-vm.git clone", home.display()));
    let clone = home.join("clone");
    std::fs::write(clone.join("file"), content(3)).unwrap();
    git(&clone, "add file");
    git(&clone, "commit --quiet --message one");
    git(&clone, "push --quiet origin HEAD:main");
    let outcome = git(home, "--git-dir at-vm.git log --format=%s main");
    assert_eq!(outcome.text(), "one\n");
    site.lab.wait_for_releases();
}

#[test]
fn a_refused_port_is_explained_by_the_proxy() {
    let site = Site::new();
    let config = site.proxy_config();
    let outcome = site.plain("ssh", &config).args(["-p", "81", "box", "true"]).run();
    outcome.expect_code(255).expect_stderr("error: port 81 of 'box' was closed before anything came back");
    site.lab.wait_for_releases();
}
