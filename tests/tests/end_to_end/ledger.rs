//! What a `kill -9` leaves behind, and who tidies it up: the next `bastide` gives the tokens back. It leaves out ends
//! that the process lives to see (`signals`).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use bastide_tests::{Lab, Program, Tunnel};
use rustix::process::Signal;

use crate::site::Site;

/// Where the ledger is, below the home folder.
fn ledger(lab: &Lab) -> PathBuf {
    lab.home().join(".local/state/bastide/ledger")
}

/// The names of the files in a folder; none when it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A connection that has carried a byte each way.
fn talk(mut stream: TcpStream) -> TcpStream {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// One connection over `bastide proxy`.
fn proxy(lab: &Lab) -> Program {
    let words = "proxy --name bastion --resource-group demo --resource-port 7 --target-resource-id";
    lab.bastide(words).arg(lab.vm("box")).input("x")
}

fn kill(tunnel: Tunnel) {
    tunnel.running().signal(Signal::KILL);
    assert_eq!(tunnel.finish().code(), 137);
}

#[test]
fn the_next_tunnel_gives_back_what_a_killed_one_held() {
    let lab = Lab::with_box(r#"7 = "echo", 22 = "ssh""#);
    let two =
        format!("tunnel --name bastion --resource-group demo -L 0:22 --target-resource-id {}", lab.vm("box"));
    // The lease that proves port 22 is never used.
    let tunnel = Tunnel::start(lab.bastide(&two).words("--resource-port 7"));
    let streams: Vec<_> = (0..3).map(|_| talk(tunnel.connect())).collect();
    assert_eq!(lab.transcript().mints(), 4);
    assert_eq!(names(&ledger(&lab)).len(), 5, "a file for each, and the owner's");
    kill(tunnel);
    drop(streams);
    assert_eq!(lab.transcript().releases(), 0);

    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    lab.wait_for(|transcript| transcript.releases() == 4);
    let outcome = tunnel.interrupt();
    for word in ["ledger", "token", "WARN"] {
        assert!(!outcome.stderr.contains(word), "not worth a word: {outcome}");
    }
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (5, 5));
    assert_eq!(names(&ledger(&lab)), Vec::<String>::new());
}

#[test]
fn what_lives_is_left_alone() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let living = lab.tunnel(&lab.vm("box"), 7);
    let mut stream = talk(living.connect());
    let dying = lab.tunnel(&lab.vm("box"), 7);
    drop(talk(dying.connect()));
    lab.wait_for(|transcript| transcript.releases() == 1);
    let held = talk(dying.connect());
    kill(dying);
    drop(held);

    let next = lab.tunnel(&lab.vm("box"), 7);
    lab.wait_for(|transcript| transcript.releases() == 2);
    let transcript = lab.transcript();
    let first = transcript.sessions.values().next().unwrap();
    assert_eq!((first.released, first.is_open()), (0, true));
    stream = talk(stream);
    next.interrupt();
    drop(stream);
    living.interrupt();
    assert_eq!(names(&ledger(&lab)), Vec::<String>::new());
}

#[test]
fn what_cannot_be_given_back_waits_for_the_next_but_one() {
    use bastide_emulator::faults::{Body, Fault};
    use bastide_emulator::transcript::Kind;
    let lab = Lab::with_box(r#"7 = "echo""#);
    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    let stream = talk(tunnel.connect());
    kill(tunnel);
    drop(stream);

    let refusal = Fault::Status {
        on: Kind::Release.into(),
        status: 503,
        body: Body::Html,
        message: String::new(),
        retry_after: None,
    };
    lab.emulator().set_faults([refusal.times(1)]);
    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    lab.wait_for(|transcript| transcript.struck("status") == 1);
    drop(talk(tunnel.connect()));
    lab.wait_for(|transcript| transcript.releases() == 1);
    tunnel.interrupt();
    assert_eq!(names(&ledger(&lab)).len(), 2, "the inherited one is still owed");

    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    lab.wait_for(|transcript| transcript.releases() == 2);
    tunnel.interrupt();
    assert_eq!(names(&ledger(&lab)), Vec::<String>::new());
}

#[test]
fn a_ledger_of_rubbish_is_swept_without_a_word() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    std::fs::create_dir_all(ledger(&lab)).unwrap();
    let rubbish: [(&str, &[u8]); 5] = [
        ("1-a.owner", b"?"),
        ("1-a.1", b""),
        ("1-a.2", b"{\"host\":\"https://"),
        ("2-b.x", &[0xff; 100_000]),
        ("3-c.1", br#"{"host":"https://localhost:9","authToken":"a","nodeId":"n","minted":1}"#),
    ];
    for (name, content) in rubbish {
        std::fs::write(ledger(&lab).join(name), content).unwrap();
    }
    let outcome = proxy(&lab).run().expect_code(0);
    assert_eq!((outcome.text().as_str(), outcome.stderr.as_str()), ("x", ""));
    assert_eq!(names(&ledger(&lab)), Vec::<String>::new());
}

#[test]
fn a_home_that_cannot_be_written_is_no_error() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    lab.file(".local", "not a folder");
    let outcome = proxy(&lab).run().expect_code(0);
    assert_eq!((outcome.text().as_str(), outcome.stderr.as_str()), ("x", ""));
    let outcome = proxy(&lab).arg("-v").run().expect_code(0);
    assert_eq!(outcome.stderr.matches("after a crash, tokens would stay").count(), 1, "{outcome}");
    // No home at all, and a relative path, which the specification does not allow.
    let outcome = proxy(&lab).env_remove("HOME").env("XDG_STATE_HOME", "state").run().expect_code(0);
    assert_eq!(outcome.text(), "x");
    assert!(!lab.home().join("state").exists());
}

#[test]
fn the_next_session_removes_what_a_killed_one_left() {
    let site = Site::new();
    let mut session = site.ssh().arg("echo ready; cat").start();
    let (stdin, stdout) = session.pipes();
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut String::new()).unwrap();
    let living = || {
        let mut running = site.ssh().arg("echo ready; cat").start();
        let (stdin, stdout) = running.pipes();
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut String::new()).unwrap();
        (running, stdin, stdout)
    };
    session.signal(Signal::KILL);
    stdout.read_to_end(&mut Vec::new()).unwrap();
    drop(stdin);
    assert_eq!(session.finish().code(), 137);
    let folders = || names(site.lab.home()).into_iter().filter(|name| name.starts_with("bastide-")).count();
    assert_eq!(folders(), 1);

    let (running, stdin, stdout) = living();
    assert_eq!(folders(), 1, "the old one has gone, the new one is there");
    // A further session does not touch the living one's.
    site.ssh().arg("true").run().expect_code(0);
    assert_eq!(folders(), 1);
    drop((stdin, stdout));
    running.finish().expect_code(0);
    site.lab.wait_for_releases();
}
