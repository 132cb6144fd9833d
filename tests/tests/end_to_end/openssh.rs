//! `bastide ssh` with the user's own OpenSSH client and a real `sshd`: what comes through of a session. It leaves
//! out host keys, shared connections, and OpenSSH with `bastide proxy`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use bastide_tests::{Lab, Service, free_port};

use crate::site::Site;

/// A command that says when the session, and with it every forwarding, is there, and lasts as long as its input.
const HOLD: &str = "echo ready; cat";

#[test]
fn exit_status_and_streams_come_through() {
    let site = Site::new();
    let outcome =
        site.ssh().arg("echo out; echo err >&2; exit 7").run().expect_code(7).expect_stderr("err\n");
    assert_eq!(outcome.text(), "out\n");
    assert!(!outcome.stderr.contains("out"), "{outcome}");
    site.ssh().arg("true").run().expect_code(0);
    // A signal that ends the command is 255 to OpenSSH, and so it is here.
    site.ssh().arg("kill -KILL $$").run().expect_code(255);
    assert_eq!(site.lab.transcript().mints(), 3);
}

#[test]
fn standard_input_reaches_the_command_byte_for_byte() {
    let site = Site::new();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let outcome = site.ssh().arg("cat").input(bytes.clone()).run().expect_code(0);
    assert!(outcome.stdout == bytes, "{} bytes came back", outcome.stdout.len());
    // A command that never reads its input is no reason to wait for it.
    site.ssh().arg("exit 3").input(bytes).run().expect_code(3);
}

#[test]
fn a_terminal_is_asked_for_by_tt() {
    let site = Site::new();
    let outcome = site.ssh().args(["-tt", "tty; exit 5"]).run().expect_code(5);
    assert!(outcome.text().starts_with("/dev/pts/"), "{outcome}");
    let outcome = site.ssh().arg("tty").run().expect_code(1);
    assert_eq!(outcome.text(), "not a tty\n");
}

#[test]
fn a_key_of_the_users_agent_signs_in() {
    let site = Site::new();
    let key = site.sshd.key();
    let target = site.target();
    let user = site.sshd.user();
    let line = format!(
        "ssh-add -q '{}' && exec bastide ssh --name bastion --resource-group demo --target-resource-id '{target}' \
         --auth-type ssh-key --username '{user}' -- -F none 'echo in'",
        key.display()
    );
    // ssh-agent(1) ends with the command that it runs.
    let outcome = site.lab.program("ssh-agent").args(["sh", "-c", &line]).run().expect_code(0);
    assert_eq!(outcome.text(), "in\n");
    // Without the agent there is no key.
    let outcome = site.session().args(["--auth-type", "ssh-key", "--", "-F", "none", "true"]).run();
    outcome.expect_code(255).expect_stderr("Permission denied");
}

#[test]
fn local_forwarding_reaches_a_service_behind_the_vm() {
    let site = Site::new();
    let echo = Service::echo();
    let socket = site.lab.home().join("forward.sock");
    let forward = format!("{}:127.0.0.1:{}", socket.display(), echo.port());
    let mut session = site.ssh().args(["-o", "ExitOnForwardFailure=yes", "-L", &forward, HOLD]).start();
    let (stdin, stdout) = session.pipes();
    ready(stdout);
    for word in ["one", "two"] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        assert_eq!(says(&mut stream, word.as_bytes()), word.as_bytes());
    }
    drop(stdin);
    session.finish().expect_code(0);
    // All of it went over one connection of the VM's.
    assert_eq!(site.lab.transcript().mints(), 1);
}

#[test]
fn dynamic_forwarding_reaches_a_service_behind_the_vm() {
    let site = Site::new();
    let echo = Service::echo();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut session = site.ssh().args(["-o", "ExitOnForwardFailure=yes", "-D", &listen, HOLD]).start();
    let (stdin, stdout) = session.pipes();
    ready(stdout);
    let mut stream = TcpStream::connect(&listen).unwrap();
    // RFC 1928 §3 to §6: version 5, no authentication; CONNECT to an IPv4 address.
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [5, 0]);
    let [high, low] = echo.port().to_be_bytes();
    stream.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [5, 0]);
    assert_eq!(says(&mut stream, b"through socks"), b"through socks");
    drop((stream, stdin));
    session.finish().expect_code(0);
}

#[test]
fn remote_forwarding_comes_back() {
    let site = Site::new();
    let echo = Service::echo();
    let socket = site.lab.home().join("remote.sock");
    let forward = format!("{}:127.0.0.1:{}", socket.display(), echo.port());
    let mut session = site.ssh().args(["-o", "ExitOnForwardFailure=yes", "-R", &forward, HOLD]).start();
    let (stdin, stdout) = session.pipes();
    ready(stdout);
    let mut stream = UnixStream::connect(&socket).unwrap();
    assert_eq!(says(&mut stream, b"backwards"), b"backwards");
    drop((stream, stdin));
    session.finish().expect_code(0);
}

#[test]
fn twenty_sessions_at_once() {
    const SESSIONS: usize = 20;
    let site = Site::new();
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| site.ssh().arg(HOLD).start()).collect();
    let mut pipes: Vec<_> = sessions
        .iter_mut()
        .map(|session| {
            let (stdin, stdout) = session.pipes();
            (stdin, ready(stdout))
        })
        .collect();
    let open = site.lab.transcript().tunnels().filter(|tunnel| tunnel.end.is_none()).count();
    assert_eq!(open, SESSIONS);
    for (number, (stdin, _)) in pipes.iter_mut().enumerate() {
        writeln!(stdin, "session {number}").unwrap();
    }
    for (number, (stdin, mut stdout)) in pipes.into_iter().enumerate() {
        drop(stdin);
        let mut said = String::new();
        stdout.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("session {number}\n"));
    }
    for session in sessions {
        session.finish().expect_code(0);
    }
    assert_eq!(site.lab.transcript().mints(), SESSIONS);
}

#[test]
fn a_port_that_refuses_is_explained() {
    let lab = Lab::with_box(r#"22 = "refuse""#);
    let outcome = lab
        .bastide("ssh --name bastion --resource-group demo --retries 1 --target-resource-id")
        .arg(lab.vm("box"))
        .args(["--", "-F", "none", "true"])
        .run();
    outcome
        .expect_code(255)
        .expect_stderr("error: port 22 of 'box' was closed before anything came back")
        .expect_stderr("hint: most likely nothing listens on port 22 of the VM");
}

#[test]
fn a_jump_has_no_place_in_bastide_ssh() {
    let site = Site::new();
    let outcome = site.session().args(["--", "-J", "elsewhere", "true"]).run();
    outcome.expect_code(2).expect_stderr("hint: to go on from the VM to another host");
    assert_eq!(site.lab.transcript().mints(), 0);
}

/// Waits for the first line of [`HOLD`]; what follows it stays in the reader.
fn ready<R: Read>(stdout: R) -> BufReader<R> {
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    stdout
}

/// Sends bytes to something that echoes, and what it sends back of them.
fn says(stream: &mut (impl Read + Write), bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    back
}
