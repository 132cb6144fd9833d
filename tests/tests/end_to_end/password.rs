//! `bastide ssh --password-stdin`: the password reaches OpenSSH, and nobody else. It leaves out passwords that OpenSSH
//! asks for on a terminal (`terminal`).

use std::io::{Read, Write};

use bastide_tests::{Lab, Program};

fn ssh(lab: &Lab) -> Program {
    lab.bastide(
        "ssh -n bastion -g demo --auth-type password --username azureuser --password-stdin \
         --target-resource-id {vm} -- -F none",
    )
}

fn password(lab: &Lab) -> String {
    lab.env("BASTIDE_EMULATOR_VM_PASSWORD")
}

#[test]
fn the_first_line_is_the_password_and_the_rest_is_the_commands() {
    let lab = Lab::new();
    let rest: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    for end in ["\n", "\r\n"] {
        let input = [password(&lab).as_bytes(), end.as_bytes(), &rest].concat();
        let outcome = ssh(&lab).arg("cat").input(input).run().expect_code(0);
        assert!(outcome.stdout == rest, "{} bytes came back", outcome.stdout.len());
    }
    // Without a line's end, too.
    let outcome = ssh(&lab).arg("echo in").input(password(&lab)).run().expect_code(0);
    assert_eq!(outcome.text(), "in\n");
}

#[test]
fn a_wrong_password_ends_the_session_at_the_first_question() {
    let lab = Lab::new();
    let outcome = ssh(&lab).arg("true").input("wr0ng-one\nrest").run().expect_code(255);
    let outcome = outcome.expect_stderr("Permission denied");
    assert!(!outcome.stderr.contains("wr0ng"), "{outcome}");
    assert!(!outcome.stderr.contains("try again"), "{outcome}");
}

#[test]
fn what_is_no_password_is_wrong_use() {
    let lab = Lab::new();
    for (input, said) in [
        (Vec::new(), "there is no password on standard input"),
        (b"\nx".to_vec(), "there is no password on standard input"),
        (vec![b'a'; 5000], "the password on standard input is longer than 1023 bytes"),
        (b"\xff\xfe\n".to_vec(), "the password on standard input is no text"),
    ] {
        ssh(&lab).arg("true").input(input).run().expect_code(2).expect_stderr(said);
    }
    let line = "ssh -n bastion -g demo --auth-type AAD --password-stdin --target-resource-id {vm}";
    lab.bastide(line).input("x\n").run().expect_code(2).expect_stderr("--auth-type password only");
    assert_eq!(lab.transcript().mints(), 0);
}

#[test]
fn the_longest_password_is_taken_whole() {
    let long = "p".repeat(1023);
    let lab = Lab::with(&format!("[settings]\nvm_password = \"{long}\"\n"));
    let outcome = ssh(&lab).arg("echo in").input(format!("{long}\n")).run().expect_code(0);
    assert_eq!(outcome.text(), "in\n");
}

#[test]
fn no_process_shows_the_password() {
    let lab = Lab::new();
    let password = password(&lab);
    // The emulator's environment has it for the tests' sake.
    let mut session =
        ssh(&lab).env_remove("BASTIDE_EMULATOR_VM_PASSWORD").arg("-vvv").arg("echo in; cat").start();
    let (mut stdin, mut stdout) = session.pipes();
    stdin.write_all(format!("{password}\n").as_bytes()).unwrap();
    stdout.read_exact(&mut [0; 3]).unwrap();
    let shown = crate::secrets::shown_below(session.id());
    assert!(shown.contains("SSH_ASKPASS="), "{shown}");
    assert!(!shown.contains(&password), "{shown}");
    drop(stdin);
    let outcome = session.finish().expect_code(0);
    assert!(!outcome.stderr.contains(&password), "{outcome}");
}
