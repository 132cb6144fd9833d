//! The sign-in in a real keyring: gnome-keyring's Secret Service, on a session bus of its own. It leaves out the file
//! that there is without one (`device_code`).

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdin, ChildStdout};

use bastide_tests::{Lab, Outcome, Program, Running};

use crate::aad::{lab_of, personal};
use crate::sign_in::account;

/// A session bus with an unlocked keyring; both end when this is dropped.
struct Session {
    _bus: Running,
    _pipes: (ChildStdin, BufReader<ChildStdout>),
    address: String,
}

/// Makes the login keyring, unlocks it, tells the bus's address, and lasts as long as its input.
const SESSION: &str = "printf passw0rd | gnome-keyring-daemon --unlock --components=secrets > keyring.log 2>&1 && \
                       echo \"$DBUS_SESSION_BUS_ADDRESS\" && exec cat";

impl Session {
    fn start(lab: &Lab) -> Self {
        let program = lab.program("dbus-run-session").args(["--", "sh", "-c", SESSION]);
        let mut bus = program.env("XDG_RUNTIME_DIR", lab.home()).start();
        let (stdin, stdout) = bus.pipes();
        let mut stdout = BufReader::new(stdout);
        let mut address = String::new();
        stdout.read_line(&mut address).unwrap();
        assert!(address.starts_with("unix:"), "no session bus: {address:?}");
        Self { _bus: bus, _pipes: (stdin, stdout), address: address.trim().to_owned() }
    }

    fn program(&self, program: Program) -> Program {
        personal(program).env("DBUS_SESSION_BUS_ADDRESS", &self.address)
    }

    /// What the keyring holds of ours, its secrets included.
    fn held(&self, lab: &Lab) -> Outcome {
        self.program(lab.program("secret-tool")).words("search --all service bastide").run()
    }
}

const STORE: &str = ".local/state/bastide/sign-in.json";

#[test]
fn a_sign_in_is_kept_in_the_keyring_and_goes_with_logout() {
    let lab = lab_of("ada@emulator.example", "");
    let session = Session::start(&lab);
    let bastide = |line: &str| session.program(lab.bastide(line));
    bastide("login --no-browser").run().expect_code(0).expect_stderr("kept in the system's keyring");
    let held = session.held(&lab).expect_code(0);
    assert!(held.text().contains("refresh_token"), "{held}");
    // The file says where, and holds nothing.
    assert_eq!(std::fs::read_to_string(lab.home().join(STORE)).unwrap(), r#"{"kept_in":"keyring"}"#);
    assert_eq!(account(bastide("account"))["source"], "device-code");
    let ssh = "ssh -n bastion -g demo --auth-type AAD --target-resource-id {vm} -- -F none";
    assert_eq!(bastide(ssh).arg("echo in").run().expect_code(0).text(), "in\n");
    bastide("logout").run().expect_code(0).expect_stderr("Signed out: ada@emulator.example");
    let held = session.held(&lab);
    assert!(!held.text().contains("refresh_token") && !held.stderr.contains("refresh_token"), "{held}");
    assert!(!lab.home().join(STORE).exists());
    bastide("account").run().expect_code(10);
}

#[test]
fn a_keyring_that_has_gone_does_not_stop_a_new_sign_in() {
    let lab = lab_of("ada@emulator.example", "");
    let session = Session::start(&lab);
    session.program(lab.bastide("login --no-browser")).run().expect_code(0);
    drop(session);
    // As over SSH, where there is no session bus.
    let bastide = |line: &str| personal(lab.bastide(line));
    let outcome = bastide("account").run().expect_code(10);
    outcome
        .expect_stderr("the sign-in kept in the system's keyring cannot be used")
        .expect_stderr("`bastide login`");
    bastide("logout").run().expect_code(10).expect_stderr("the system's keyring cannot be used");
    bastide("login --no-browser").run().expect_code(0).expect_stderr("sign-in.json, which only you can read");
    assert_eq!(account(bastide("account"))["source"], "device-code");
    bastide("logout").run().expect_code(0).expect_stderr("Signed out: ada@emulator.example");
}
