//! `bastide scp`, `sftp` and `rsync` with the user's own programs and a real `sshd`, by each way to sign in. It leaves
//! out these programs without us in front of them (`proxy_command`, `ssh_config`).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bastide_tests::{Lab, Program};

use crate::aad_sshd;
use crate::site::Site;

/// Bytes that no buffer's size divides.
fn content() -> Vec<u8> {
    (0..1_100_001u32).map(|at| (at % 251) as u8).collect()
}

/// The command with the key, up to the program's words.
fn with_key(site: &Site, command: &str) -> Program {
    let line =
        format!("{command} --name bastion --resource-group demo --auth-type ssh-key --target-resource-id");
    let program = site.lab.bastide(&line).arg(site.target());
    program.args(["--username", &site.sshd.user(), "--ssh-key"]).arg(site.sshd.key()).arg("--")
}

fn vm(path: &Path) -> String {
    format!("vm:{}", path.display())
}

#[test]
fn files_go_up_and_down() {
    let site = Site::new();
    let home = site.lab.home();
    let sent = content();
    let file = site.lab.file("sent", &sent);
    let same = |name: &str| assert!(std::fs::read(home.join(name)).unwrap() == sent, "{name} differs");

    with_key(&site, "scp")
        .args(["-q", "-F", "none"])
        .arg(&file)
        .arg(vm(&home.join("up")))
        .run()
        .expect_code(0);
    // By the VM's name, and with the protocol before OpenSSH 9.0.
    let up = format!("BOX:{}", home.join("up").display());
    with_key(&site, "scp").args(["-q", "-O", "-F", "none", &up]).arg(home.join("down")).run().expect_code(0);
    same("up");
    same("down");

    let place = home.display();
    let batch = format!("put {place}/sent {place}/sftp-up\nget {place}/sftp-up {place}/sftp-down\n");
    with_key(&site, "sftp").args(["-q", "-F", "none", "-b", "-"]).input(batch).run().expect_code(0);
    same("sftp-up");
    same("sftp-down");
    let batch = site.lab.file("batch", format!("get {place}/up {place}/batch-down\n"));
    with_key(&site, "sftp").args(["-q", "-F", "none", "-b"]).arg(batch).arg("vm").run().expect_code(0);
    same("batch-down");

    let user = site.sshd.user();
    let to = format!("{user}@vm:{}", home.join("rsync-up").display());
    with_key(&site, "rsync").arg("-a").arg(&file).arg(&to).run().expect_code(0);
    with_key(&site, "rsync")
        .arg("-a")
        .arg(vm(&home.join("up")))
        .arg(home.join("rsync-down"))
        .run()
        .expect_code(0);
    same("rsync-up");
    same("rsync-down");
    assert_eq!((site.lab.transcript().mints(), site.lab.transcript().releases()), (6, 6));
}

#[test]
fn names_with_spaces_quotes_and_no_text() {
    let site = Site::new();
    let home = site.lab.home();
    let odd = std::ffi::OsStr::from_bytes(b"it's \"100%\" \xff\xfe");
    std::fs::write(home.join(odd), "odd").unwrap();
    let mut to = std::ffi::OsString::from("vm:");
    std::fs::create_dir(home.join("up")).unwrap();
    to.push(home.join("up").join(odd));
    with_key(&site, "scp").args(["-q", "-F", "none"]).arg(odd).arg(&to).run().expect_code(0);
    with_key(&site, "scp").args(["-q", "-F", "none"]).arg(&to).arg("down").run().expect_code(0);
    assert_eq!(std::fs::read(home.join("down")).unwrap(), b"odd");
    // A key, and so a state folder, whose path needs every kind of quoting.
    let folder = home.join("it's a \"100%\" folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(site.sshd.key(), folder.join("key")).unwrap();
    let line = "rsync -n bastion -g demo --auth-type ssh-key --target-resource-id";
    let program =
        site.lab.bastide(line).arg(site.target()).args(["--username", &site.sshd.user(), "--ssh-key"]);
    let program = program.arg(folder.join("key")).env("XDG_STATE_HOME", folder.join("state"));
    program.args(["--", "-a", "down"]).arg(vm(&home.join("again"))).run().expect_code(0);
    assert_eq!(std::fs::read(home.join("again")).unwrap(), b"odd");
    assert!(folder.join("state/bastide/known_hosts").is_file());
}

#[test]
fn one_copy_may_need_several_connections() {
    let site = Site::new();
    let home = site.lab.home();
    for name in ["one", "two"] {
        site.lab.file(name, name);
    }
    std::fs::create_dir(home.join("down")).unwrap();
    let scp = with_key(&site, "scp").args(["-q", "-F", "none"]);
    let scp = scp.arg(vm(&home.join("one"))).arg(vm(&home.join("two"))).arg(home.join("down"));
    scp.run().expect_code(0);
    assert_eq!(std::fs::read(home.join("down/two")).unwrap(), b"two");
    // From the VM to itself, through this machine.
    let scp = with_key(&site, "scp").args(["-q", "-3", "-F", "none"]);
    scp.arg(vm(&home.join("one"))).arg(vm(&home.join("three"))).run().expect_code(0);
    assert_eq!(std::fs::read(home.join("three")).unwrap(), b"one");
    assert_eq!((site.lab.transcript().mints(), site.lab.transcript().releases()), (4, 4));
}

#[test]
fn another_host_is_never_taken_for_the_vm() {
    let site = Site::new();
    let home = site.lab.home();
    site.lab.file("one", "one");
    let other = format!("other:{}", home.join("leaked").display());
    let scp = with_key(&site, "scp").args(["-q", "-3", "-F", "none"]).arg(vm(&home.join("one"))).arg(&other);
    let outcome = scp.run();
    assert_ne!(outcome.code(), 0, "{outcome}");
    let outcome = outcome.expect_stderr("'other' is not the VM, and nothing was sent to it");
    outcome.expect_stderr("ssh-config --write");
    assert!(!home.join("leaked").exists());
    // Without a word for the VM there is nothing to do, and nothing is opened.
    let before = site.lab.transcript().mints();
    for command in ["scp", "rsync"] {
        let outcome = with_key(&site, command).arg("one").arg(&other).run().expect_code(2);
        outcome.expect_stderr(&format!("none of the words for {command} names the VM"));
    }
    let outcome = with_key(&site, "rsync").args(["-ae", "ssh", "one", "vm:two"]).run().expect_code(2);
    outcome.expect_stderr("rsync's -e has no place here");
    let outcome = with_key(&site, "scp").args(["-J", "other", "one", "vm:two"]).run().expect_code(2);
    outcome.expect_stderr("scp's -J has no place here");
    assert_eq!(site.lab.transcript().mints(), before);
}

#[test]
fn failures_are_the_programs_own() {
    let site = Site::new();
    let none = vm(&site.lab.home().join("none"));
    let outcome = with_key(&site, "scp").args(["-q", "-F", "none", &none, "."]).run().expect_code(1);
    outcome.expect_stderr("No such file");
    // rsync's number for a partial transfer.
    with_key(&site, "rsync").args([&none, "."]).run().expect_code(23);
    let line = "-n bastion -g demo --auth-type ssh-key --resource-port 81 --retries 1 --target-resource-id";
    // rsync has a number of its own, if it hears of the end before that of ssh.
    for (command, words, codes) in [
        ("scp", "-F none one vm:two", &[255][..]),
        ("sftp", "-F none", &[255]),
        ("rsync", "one vm:two", &[255, 12]),
    ] {
        site.lab.file("one", "one");
        let program =
            site.lab.bastide(&format!("{command} {line}")).arg(site.target()).arg("--").words(words);
        let outcome = program.run();
        assert!(codes.contains(&outcome.code()), "{outcome}");
        outcome.expect_stderr("error: port 81 of 'box' was closed before anything came back");
    }
}

#[test]
fn a_password_is_told_to_every_connection() {
    let lab = Lab::new();
    let line = "scp -n bastion -g demo --auth-type password --username azureuser --password-stdin \
                --target-resource-id {vm} -- -q -3 -F none vm:one vm:two";
    std::fs::create_dir_all(lab.vm_home("web-01")).unwrap();
    std::fs::write(lab.vm_home("web-01").join("one"), "one").unwrap();
    let password = lab.env("BASTIDE_EMULATOR_VM_PASSWORD");
    lab.bastide(line).input(format!("{password}\n")).run().expect_code(0);
    assert_eq!(std::fs::read(lab.vm_home("web-01").join("two")).unwrap(), b"one");
    // What follows the password is the program's.
    let line = "sftp -n bastion -g demo --username azureuser --password-stdin --target-resource-id {vm} -- -F none -b -";
    let input = format!("{password}\nget two three\n");
    lab.bastide(line).input(input).run().expect_code(0);
    assert_eq!(std::fs::read(lab.home().join("three")).unwrap(), b"one");
    let outcome = lab.bastide(line).input("wr0ng\nget two four\n").run().expect_code(255);
    assert!(!outcome.expect_stderr("Permission denied").stderr.contains("wr0ng"));
}

#[test]
fn entra_id_signs_in() {
    let site = aad_sshd::Site::new();
    let lab = &site.lab;
    let home = lab.home();
    let sent = content();
    let file = lab.file("sent", &sent);
    let command = |name: &str| {
        let line = format!("{name} -n bastion -g demo --auth-type AAD --target-resource-id");
        lab.bastide(&line).arg(lab.vm("box")).arg("--")
    };
    command("scp").args(["-q", "-F", "none"]).arg(&file).arg(vm(&home.join("one"))).run().expect_code(0);
    let batch = format!("get {0}/one {0}/two\n", home.display());
    command("sftp").args(["-q", "-F", "none", "-b", "-"]).input(batch).run().expect_code(0);
    command("rsync").arg("-a").arg(vm(&home.join("two"))).arg(home.join("three")).run().expect_code(0);
    let scp = command("scp").args(["-q", "-3", "-F", "none"]).arg(vm(&home.join("three")));
    scp.arg(vm(&home.join("four"))).run().expect_code(0);
    assert!(std::fs::read(home.join("four")).unwrap() == sent);
    // One certificate for each command, whatever the number of its connections.
    assert_eq!((lab.transcript().mints(), lab.transcript().issued("ssh_certificate")), (5, 4));
}

#[test]
fn a_master_that_is_there_is_used() {
    let site = Site::new();
    let path = site.lab.home().join("master-%C").display().to_string();
    let config = site.lab.file(
        "user_config",
        format!("Host *\n  ControlMaster auto\n  ControlPersist 60\n  ControlPath {path}\n"),
    );
    let ssh = |words: &[&str]| site.ssh().arg("-F").arg(&config).args(words).run();
    let scp = || {
        let scp = with_key(&site, "scp").arg("-qF").arg(&config).arg(site.sshd.key());
        scp.arg(vm(&site.lab.home().join("copy"))).run().expect_code(0)
    };
    // Alone it leaves nothing behind.
    scp();
    assert_eq!((site.lab.transcript().mints(), site.lab.transcript().releases()), (1, 1));
    ssh(&["true"]).expect_code(0);
    scp();
    assert_eq!(site.lab.transcript().mints(), 2);
    ssh(&["-O", "exit"]).expect_code(0);
    site.lab.wait_for_releases();
}
