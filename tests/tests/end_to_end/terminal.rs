//! An interactive session in a terminal that is one: tmux draws it, types into it and resizes it. It leaves out
//! sessions without a person in front of them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use bastide_emulator::faults::Fault;
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Program};

use crate::site::Site;

/// A tmux server of its own with one window. Gone when dropped.
pub(crate) struct Terminal<'a> {
    lab: &'a Lab,
    socket: PathBuf,
}

impl<'a> Terminal<'a> {
    /// A window of 80 by 24 that runs `command`.
    pub(crate) fn open(lab: &'a Lab, command: &str) -> Self {
        let terminal = Self { lab, socket: lab.home().join("tmux") };
        let size = ["-x", "80", "-y", "24"];
        terminal.tmux().args(["new-session", "-d"]).args(size).arg(command).run().expect_code(0);
        terminal
    }

    /// Types keys, by tmux's names of them.
    pub(crate) fn types(&self, keys: &[&str]) {
        self.tmux().arg("send-keys").args(keys).run().expect_code(0);
    }

    pub(crate) fn resize(&self, columns: &str, rows: &str) {
        self.tmux().args(["resize-window", "-x", columns, "-y", rows]).run().expect_code(0);
    }

    /// What is on the screen now.
    pub(crate) fn screen(&self) -> String {
        self.tmux().args(["capture-pane", "-p"]).run().expect_code(0).text()
    }

    /// Writes everything that the window is told into a pipe, too.
    pub(crate) fn copy_to(&self, pipe: &Path) {
        self.tmux().args(["pipe-pane", &format!("exec cat > '{}'", pipe.display())]).run().expect_code(0);
    }

    fn tmux(&self) -> Program {
        self.lab.program("tmux").arg("-S").arg(&self.socket).args(["-f", "/dev/null"])
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // It ends by itself with its last window.
        drop(self.tmux().arg("kill-server").run());
    }
}

/// What a program in the terminal says past the screen, which would have to be watched: a named pipe.
struct Notes(PathBuf);

impl Notes {
    fn new(lab: &Lab) -> Self {
        let path = lab.home().join("notes");
        lab.program("mkfifo").arg(&path).run().expect_code(0);
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Waits for the next writer, and what it has to say.
    fn next(&self, lab: &Lab) -> String {
        lab.program("cat").arg(&self.0).run().expect_code(0).text().trim().to_owned()
    }
}

#[test]
fn a_shell_in_a_terminal() {
    let site = Site::new();
    let lab = &site.lab;
    let notes = Notes::new(lab);
    let note = notes.path().display();
    let key = site.sshd.key();
    let command = format!(
        "bastide ssh --name bastion --resource-group demo --target-resource-id '{}' --auth-type ssh-key --username '{}' \
         --ssh-key '{}' -- -F none; {{ echo \"status $?\"; stty -a; }} > '{note}'",
        site.target(),
        site.sshd.user(),
        key.display(),
    );
    let terminal = Terminal::open(lab, &command);

    // A terminal of the size of the window.
    terminal.types(&["exec sh", "Enter"]);
    terminal.types(&[&format!("{{ tty; stty size; }} > '{note}'"), "Enter"]);
    let said = notes.next(lab);
    assert!(said.starts_with("/dev/pts/") && said.ends_with("\n24 80"), "{said}");

    // It follows the window.
    terminal.types(&[
        &format!("until [ \"$(stty size)\" = '30 100' ]; do :; done; echo resized > '{note}'"),
        "Enter",
    ]);
    terminal.resize("100", "30");
    assert_eq!(notes.next(lab), "resized");

    // Ctrl-C belongs to the program on the VM.
    let wait = format!("trap 'echo interrupted > \"{note}\"' INT; echo ready > '{note}'; read line");
    terminal.types(&[&wait, "Enter"]);
    assert_eq!(notes.next(lab), "ready");
    terminal.types(&["C-c"]);
    assert_eq!(notes.next(lab), "interrupted");

    // The status comes through, and the terminal is as it was.
    terminal.types(&["exit 7", "Enter"]);
    let said = notes.next(lab);
    assert!(said.starts_with("status 7\n"), "{said}");
    for mode in ["icanon", "echo", "isig", "opost"] {
        assert!(said.split_whitespace().any(|word| word == mode), "{mode}: {said}");
    }
    assert_eq!(lab.transcript().mints(), 1);
}

#[test]
fn the_escape_character_ends_the_session() {
    let site = Site::new();
    let lab = &site.lab;
    let notes = Notes::new(lab);
    let note = notes.path().display();
    let command = format!(
        "bastide ssh --name bastion --resource-group demo --target-resource-id '{}' --auth-type ssh-key --username '{}' \
         --ssh-key '{}' -- -F none; echo \"status $?\" > '{note}'",
        site.target(),
        site.sshd.user(),
        site.sshd.key().display(),
    );
    let terminal = Terminal::open(lab, &command);
    terminal.types(&["exec sh", "Enter"]);
    terminal.types(&[&format!("echo ready > '{note}'"), "Enter"]);
    assert_eq!(notes.next(lab), "ready");
    terminal.types(&["Enter", "~", "."]);
    assert_eq!(notes.next(lab), "status 255");
}

#[test]
fn what_takes_long_is_told_to_a_terminal() {
    let lab = Lab::new();
    lab.emulator().set_faults([Fault::Hold { on: Kind::Arm.into() }]);
    let line = format!("bastide tunnel {} -n bastion -g demo --resource-port 7", lab.vm("web-01"));
    // script(1) gives it a terminal, and passes on what it says there.
    let mut running = lab.program("script").args(["-qec", &line, "/dev/null"]).start();
    let (mut keys, screen) = running.pipes();
    let mut lines = BufReader::new(screen).lines().map(|line| line.unwrap());
    let mut next =
        |text: &str| lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("no '{text}'"));
    next("looking for the Bastion host");
    lab.emulator().set_faults(Vec::<Fault>::new());
    next("Ctrl + C to close");
    keys.write_all(b"\x03").unwrap();
    assert_eq!(running.wait().code(), Some(130));
}
