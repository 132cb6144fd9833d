//! `bastide ssh-config`: what it prints and writes, and what it leaves alone. It leaves out the strangers who use it
//! (`strangers`), and Entra ID (`ssh_config_aad`).

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bastide_tests::{Lab, Outcome, Program};

use crate::site::Site;

/// The files of the user's.
pub(crate) struct Files {
    pub(crate) config: PathBuf,
    pub(crate) own: PathBuf,
}

impl Files {
    pub(crate) fn of(lab: &Lab) -> Self {
        let folder = lab.home().join(".ssh");
        Self { config: folder.join("config"), own: folder.join("bastide.config") }
    }

    fn include(&self) -> String {
        format!("Include \"{}\"\n", self.own.display())
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// `bastide ssh-config` for the VM, with its key.
fn ssh_config(site: &Site) -> Program {
    let line = "ssh-config -n bastion -g demo --auth-type ssh-key --target-resource-id";
    let program = site.lab.bastide(line).arg(site.target());
    program.args(["--username", &site.sshd.user(), "--ssh-key"]).arg(site.sshd.key())
}

fn ssh(site: &Site, words: &[&str]) -> Outcome {
    site.plain("ssh", &Files::of(&site.lab).config).args(words).run()
}

#[test]
fn a_block_is_printed_and_nothing_written() {
    let site = Site::new();
    let outcome = ssh_config(&site).run().expect_code(0);
    let text = outcome.text();
    assert!(text.starts_with("Host box\n    ProxyCommand /"), "{text}");
    let hub = site
        .target()
        .replace("Microsoft.Compute/virtualMachines/box", "Microsoft.Network/bastionHosts/bastion");
    for line in [
        format!("bastide proxy --name {hub} --target-resource-id {} ", site.target()),
        " --resource-port %p\n".into(),
        "\n    HostKeyAlias box.vm.demo.22222222-2222-4222-8222-222222222222\n".into(),
        "\n    StrictHostKeyChecking accept-new\n".into(),
        format!("\n    User \"{}\"\n", site.sshd.user()),
        format!("\n    IdentityFile \"{}\"\n", site.sshd.key().display()),
    ] {
        assert!(text.contains(&line), "'{line}': {text}");
    }
    assert!(!text.contains("--retries"), "what holds anyhow is not said: {text}");
    assert!(!site.lab.home().join(".ssh").exists());
    // It is one that OpenSSH takes.
    let config = site.lab.file("printed", &text);
    site.plain("ssh", &config).args(["box", "exit 7"]).run().expect_code(7);
    // The same host key file as `bastide ssh`, and the same name in it.
    let known = read(&site.lab.home().join(".local/state/bastide/known_hosts"));
    site.ssh().arg("true").run().expect_code(0);
    assert_eq!(read(&site.lab.home().join(".local/state/bastide/known_hosts")), known);

    let outcome = ssh_config(&site).args(["-o", "json", "--alias", "other", "--resource-port", "81"]).run();
    let event = outcome.expect_code(0).events().remove(0);
    assert_eq!((&event["event"], &event["name"]), (&"host".into(), &"other".into()));
    assert!(event["block"].as_str().unwrap().starts_with("Host other\n    Port 81\n"), "{event}");
    site.lab.wait_for_releases();
}

#[test]
fn files_are_made_and_used() {
    let site = Site::new();
    let files = Files::of(&site.lab);
    let outcome = ssh_config(&site).arg("--write").run().expect_code(0);
    outcome.expect_stderr("box is in ").expect_stderr("try `ssh box`");
    assert_eq!(read(&files.config), files.include());
    assert_eq!(
        (mode(files.config.parent().unwrap()), mode(&files.config), mode(&files.own)),
        (0o700, 0o600, 0o600)
    );
    let outcome = ssh(&site, &["box", "echo in; exit 3"]).expect_code(3);
    assert_eq!(outcome.text(), "in\n");
    // Again, with another setting: the block is replaced, and the user's file stays.
    let first = read(&files.own);
    ssh_config(&site).args(["--write", "--retries", "1"]).run().expect_code(0);
    let second = read(&files.own);
    assert!(second.contains(" --retries 1 ") && second.matches("Host box").count() == 1, "{second}");
    assert_eq!(read(&files.config), files.include());
    // And by itself, from what the file says of its blocks.
    site.lab.bastide("ssh-config --write").run().expect_code(0).expect_stderr("box is in ");
    assert_eq!(read(&files.own), second);
    ssh_config(&site).arg("--write").run().expect_code(0);
    assert_eq!(read(&files.own), first);
    ssh(&site, &["box", "true"]).expect_code(0);
    site.lab.bastide("ssh-config --remove box").run().expect_code(0).expect_stderr("box is gone from ");
    assert!(!read(&files.own).contains("Host box"));
    assert_eq!(read(&files.config), files.include());
    assert_eq!(std::fs::read_dir(files.config.parent().unwrap()).unwrap().count(), 2);
    site.lab.wait_for_releases();
}

#[test]
fn what_the_user_wrote_stays_byte_for_byte() {
    let site = Site::new();
    let files = Files::of(&site.lab);
    let dotfiles = site.lab.home().join("dotfiles");
    std::fs::create_dir_all(&dotfiles).unwrap();
    std::fs::create_dir_all(files.config.parent().unwrap()).unwrap();
    let mine =
        b"# caf\xe9\r\nHost box\r\n  LogLevel ERROR\r\n\r\n\tHost *\n  ServerAliveInterval 7".as_slice();
    std::fs::write(dotfiles.join("ssh"), mine).unwrap();
    std::fs::set_permissions(dotfiles.join("ssh"), std::fs::Permissions::from_mode(0o644)).unwrap();
    symlink("../dotfiles/ssh", &files.config).unwrap();
    for _ in 0..2 {
        ssh_config(&site).arg("--write").run().expect_code(0);
    }
    let expected = [files.include().trim_end().as_bytes(), b"\r\n", mine].concat();
    assert_eq!(std::fs::read(dotfiles.join("ssh")).unwrap(), expected);
    assert_eq!((mode(&dotfiles.join("ssh")), mode(&files.own)), (0o644, 0o600));
    assert!(std::fs::symlink_metadata(&files.config).unwrap().is_symlink());
    // What is ours does not spill over to what follows.
    let shown = ssh(&site, &["-G", "elsewhere"]).expect_code(0).text();
    assert!(shown.contains("serveraliveinterval 7\n") && !shown.contains("proxycommand"), "{shown}");
    let shown = ssh(&site, &["-G", "box"]).expect_code(0).text();
    assert!(shown.contains("loglevel ERROR\n") && shown.contains("serveraliveinterval 7\n"), "{shown}");
    // A line that the user has moved is not added again.
    let moved = "Host *\n  ServerAliveInterval 7\n  include bastide.config\n";
    std::fs::write(dotfiles.join("ssh"), moved).unwrap();
    ssh_config(&site).arg("--write").run().expect_code(0);
    assert_eq!(read(&files.config), moved);
}

#[test]
fn a_file_that_somebody_has_changed_is_left_alone() {
    let site = Site::new();
    let files = Files::of(&site.lab);
    ssh_config(&site).arg("--write").run().expect_code(0);
    let changed = format!("{}    LogLevel DEBUG\n", read(&files.own));
    for text in [changed.as_str(), "Host box\n", ""] {
        std::fs::write(&files.own, text).unwrap();
        for program in [ssh_config(&site).arg("--write"), site.lab.bastide("ssh-config --write")] {
            let outcome = program.run().expect_code(2);
            outcome
                .expect_stderr("is not as bastide has written it")
                .expect_stderr("hint: move what was changed");
        }
        site.lab.bastide("ssh-config --remove box").run().expect_code(2);
        assert_eq!(read(&files.own), text);
    }
    std::fs::remove_file(&files.own).unwrap();
    ssh_config(&site).arg("--write").run().expect_code(0);
    // A user's file that cannot be written: the line to write is told.
    std::fs::remove_file(&files.config).unwrap();
    std::fs::create_dir(&files.config).unwrap();
    let outcome = ssh_config(&site).arg("--write").run().expect_code(2);
    outcome.expect_stderr(&format!("write `{}` at its top yourself", files.include().trim_end()));
}

#[test]
fn several_vms_have_a_block_each() {
    let lab = Lab::with_twins();
    let files = Files::of(&lab);
    let folder = lab.home().join(".config/bastide");
    std::fs::create_dir_all(&folder).unwrap();
    let (box_1, box_2) = (lab.vm("box"), lab.vm("box").replace("/demo/", "/other/"));
    let configuration = format!(
        "[defaults]\nname = 'bastion'\nresource-group = 'demo'\nssh-key = '{}'\n\
         [hosts.first]\ntarget = '{box_1}'\nusername = 'azureuser'\n\
         [hosts.second]\ntarget = '{box_2}'\nusername = 'azureuser'\nretries = 2\n",
        lab.key().display()
    );
    std::fs::write(folder.join("config.toml"), configuration).unwrap();
    lab.bastide("ssh-config --write first second").run().expect_code(0);
    for (name, vm) in [("first", &box_1), ("second", &box_2)] {
        lab.program("ssh").arg("-F").arg(&files.config).args([name, "true"]).run().expect_code(0);
        lab.wait_for_releases();
        let transcript = lab.transcript();
        assert!(transcript.sessions.values().any(|session| session.resource == *vm), "{name}");
    }
    let own = read(&files.own);
    let (first, second) = own.split_once("Host second").unwrap();
    assert!(!first.contains("--retries 2") && second.contains("--retries 2"), "{own}");
    // One name is one VM, whatever is meant by it later.
    let line = "ssh-config --write --alias first --target-resource-id";
    let outcome = lab.bastide(line).arg(&box_2).run().expect_code(2);
    outcome.expect_stderr("first is the name of another VM already").expect_stderr("--remove first");
    let outcome = lab.bastide("ssh-config --write").args([&box_1, &box_2]).run().expect_code(2);
    outcome.expect_stderr("box is the name of another VM already");
    let outcome = lab.bastide("ssh-config --write --alias x first second").run().expect_code(2);
    outcome.expect_stderr("--alias names one VM");
    lab.bastide("ssh-config --write --alias 'x*' first").run().expect_code(2).expect_stderr("--alias NAME");
    assert_eq!(read(&files.own), own);
    // What cannot be made anew stays, and is told.
    std::fs::write(folder.join("config.toml"), "[defaults]\n").unwrap();
    let outcome = lab.bastide("ssh-config --write").run().expect_code(13);
    outcome.expect_stderr("the block of first stays as it was").expect_stderr("the block of second");
    assert_eq!(read(&files.own), own);
    lab.bastide("ssh-config --remove third").run().expect_code(2).expect_stderr("there are first, second");
    lab.bastide("ssh-config --remove second").run().expect_code(0);
    assert!(read(&files.own).contains("Host first") && !read(&files.own).contains("Host second"));
}

#[test]
fn ten_runs_at_once_lose_nothing() {
    let site = Site::new();
    let files = Files::of(&site.lab);
    let names: Vec<String> = (0..10).map(|number| format!("box-{number}")).collect();
    let running: Vec<_> =
        names.iter().map(|name| ssh_config(&site).args(["--write", "--alias", name]).start()).collect();
    for running in running {
        running.finish().expect_code(0);
    }
    let own = read(&files.own);
    for name in &names {
        assert!(own.contains(&format!("\nHost {name}\n")), "{name}: {own}");
    }
    assert_eq!(read(&files.config), files.include());
    site.lab.bastide("ssh-config --write").run().expect_code(0);
    assert_eq!(read(&files.own), own);
}

#[test]
fn paths_with_spaces_and_signs() {
    let site = Site::new();
    let home = site.lab.home().join("a 100% 'home'");
    std::fs::create_dir(&home).unwrap();
    std::fs::copy(site.sshd.key(), home.join("my key")).unwrap();
    let line = "ssh-config --write -n bastion -g demo --ssh-key ./my --target-resource-id";
    // Relative to where it is said.
    let program = site.lab.bastide(&line.replace("--ssh-key ./my ", "")).arg(site.target());
    let program = program.args(["--ssh-key", "my key", "--username", &site.sshd.user()]).folder(&home);
    program.env("HOME", &home).run().expect_code(0);
    let config = home.join(".ssh/config");
    let outcome = site.plain("ssh", &config).env("HOME", &home).args(["box", "echo in"]).run().expect_code(0);
    assert_eq!(outcome.text(), "in\n");
    assert!(home.join(".local/state/bastide/known_hosts").is_file());
    site.lab.wait_for_releases();
}

#[test]
fn what_a_file_cannot_hold_is_refused() {
    let site = Site::new();
    let refused = |flags: &[&str], said: &str| {
        let line = "ssh-config --write -n bastion -g demo --target-resource-id";
        site.lab.bastide(line).arg(site.target()).args(flags).run().expect_code(2).expect_stderr(said);
    };
    refused(&["--password-stdin"], "a password has no place");
    refused(&["--auth-type", "plugin:x"], "plain ssh cannot ask the plugin 'x'");
    refused(&["--proxy", "http://me:secret@localhost:1"], "--proxy has no place");
    refused(&["--alias", "a b"], "cannot be the name of a host");
    refused(&["--exec-command", "a\nb"], "control character");
    site.lab.bastide("ssh-config -n bastion -g demo").run().expect_code(2).expect_stderr("no VM is named");
    assert!(!site.lab.home().join(".ssh").exists());
}
