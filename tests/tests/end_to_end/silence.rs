//! How connections end that nobody closed: the service falls silent, breaks, or says goodbye for itself; and what the
//! user is told. It leaves out ends before the first byte.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bastide_emulator::faults::{At, Direction, Ending, Fault};
use bastide_tests::{Lab, Running};
use rustix::process::Signal;
use serde_json::Value;

const ECHO: &str = "-n bastion -g demo --target-resource-id {vm} --resource-port 7";

/// A connection over which one line has gone to the VM and back.
#[track_caller]
fn echoed(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"hello\n").unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello\n");
    stream
}

fn port(event: &Value) -> u16 {
    event["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

/// Everything that fits on the way to a VM that does not read.
fn fill(stream: &mut TcpStream) {
    // So long without room: the buffers on the way are full.
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    loop {
        if let Err(error) = stream.write(&[0; 64 * 1024]) {
            return assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        }
    }
}

/// The local program sees an end; whether it is a FIN or a reset is not said here.
fn drain(mut stream: TcpStream) {
    while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
}

/// The `closed` events of so many connections, by their numbers.
fn closed(running: &mut Running, count: usize) -> Vec<Value> {
    let mut events: Vec<Value> = (0..count).map(|_| running.event("closed")).collect();
    events.sort_by_key(|event| event["id"].as_u64());
    events
}

/// azure-cli issue 28367: connections that die without a word. Beside them live two to a VM that does not read, one
/// with all buffers full, and one whose bytes TCP has acknowledged.
#[test]
fn r28367_silent_death_is_told_from_a_pause() {
    let lab = Lab::new();
    let mut running = lab.bastide("tunnel").words(&lab_line("-L 0:82 -o json", &lab)).start();
    let (echo, unread) = (port(&running.event("ready")), port(&running.event("ready")));
    let mut full = TcpStream::connect(("127.0.0.1", unread)).unwrap();
    running.event("opened");
    fill(&mut full);
    let mut some = TcpStream::connect(("127.0.0.1", unread)).unwrap();
    running.event("opened");
    some.write_all(&[0; 400 * 1024]).unwrap();
    let at = At::Vm(6);
    let mut dying = Vec::new();
    for fault in [
        Fault::Silence { at, direction: Direction::Both },
        Fault::Silence { at, direction: Direction::ToClient },
        Fault::Silence { at, direction: Direction::ToVm },
        Fault::PingIgnored,
    ] {
        lab.emulator().set_faults([fault]);
        dying.push(echoed(echo));
    }
    lab.emulator().set_faults(Vec::<Fault>::new());
    let peers: Vec<String> = dying.iter().map(|stream| stream.local_addr().unwrap().to_string()).collect();
    for (number, event) in (3..).zip(closed(&mut running, 4)) {
        assert_eq!(event["id"], number, "{event}");
        assert_eq!(event["reason"], "the service stopped answering");
        assert_eq!((&event["sent"], &event["received"]), (&6.into(), &6.into()), "{event}");
    }
    dying.into_iter().for_each(drain);
    running.signal(Signal::INT);
    let stopped = closed(&mut running, 2);
    for (number, event) in (1..).zip(&stopped) {
        assert_eq!(event["id"], number, "{event}");
        assert_eq!(event["reason"], "the tunnel was stopped", "a pause is no death");
    }
    let outcome = running.finish().expect_code(130);
    for (number, peer) in (3..).zip(peers) {
        let told = format!("warning: connection {number} from {peer} ended at 20");
        let line = outcome.stderr.lines().find(|line| line.starts_with(&told));
        let line = line.unwrap_or_else(|| panic!("no '{told}' in {outcome}"));
        assert!(line.contains("Z: the service stopped answering, after "), "{line}");
        assert!(line.ends_with(" s, 6 bytes sent, 6 received"), "{line}");
    }
    assert_eq!(outcome.stderr.matches("warning: connection").count(), 4, "{outcome}");
}

fn lab_line(more: &str, lab: &Lab) -> String {
    format!("{} {more}", ECHO.replace("{vm}", &lab.vm("web-01")))
}

/// protocol.md §4: some say that pings cause resets.
#[test]
fn a_ping_that_ends_a_connection_is_the_last() {
    let lab = Lab::new();
    lab.emulator().set_faults([Fault::PingReset]);
    let mut running = lab.bastide("tunnel").words(&lab_line("-o json", &lab)).start();
    let port = port(&running.event("ready"));
    let stream = echoed(port);
    let closed = running.event("closed");
    assert_eq!(closed["reason"], "the connection to the service broke: connection reset");
    running.stderr_line("no more pings to this host");
    drain(stream);
    drop(echoed(port));
    running.event("closed");
    running.signal(Signal::INT);
    let outcome = running.finish().expect_code(130);
    assert_eq!(outcome.stderr.matches("no more pings").count(), 1, "said once: {outcome}");
}

#[test]
fn ends_after_the_first_byte() {
    let lab = Lab::new();
    let check = |how: Ending, code: i32, reason: Option<&str>| {
        lab.emulator().set_faults([Fault::Ending { how, at: At::Vm(6) }]);
        let mut running = lab.bastide("proxy").words(&lab_line("-o json", &lab)).start();
        let (mut stdin, mut stdout) = running.pipes();
        stdin.write_all(b"hello\n").unwrap();
        let mut back = Vec::new();
        stdout.read_to_end(&mut back).unwrap();
        // Half a frame is delivered as far as it came.
        let half = if how == Ending::Truncated { 10 } else { 0 };
        assert_eq!(back, [&b"hello\n"[..], &vec![0; half]].concat(), "{how:?}: first it is delivered");
        drop(stdin);
        let outcome = running.finish().expect_code(code);
        let warnings: Vec<&str> =
            outcome.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
        match (reason, warnings.as_slice()) {
            (None, []) => {}
            (Some(reason), [line]) => {
                assert!(line.starts_with("warning: connection 1 from stdio ended at 20"), "{line}");
                assert!(line.contains(reason), "{how:?}: {line}");
                assert!(line.ends_with(&format!(" s, 6 bytes sent, {} received", 6 + half)), "{line}");
            }
            _ => panic!("{how:?}: {outcome}"),
        }
        assert!(outcome.stderr.contains("\"event\":\"closed\""), "{outcome}");
        lab.wait_for_releases();
    };
    // The ordinary ways in which a VM goes away.
    check(Ending::Close(1000), 0, None);
    check(Ending::CloseNotify, 0, None);
    check(Ending::Fin, 0, None);
    for code in [1001, 1011, 1012, 1013] {
        check(Ending::Close(code), 21, Some(&format!("closed by the service (code {code})")));
    }
    check(Ending::Truncated, 20, Some("the service's bytes end within a frame"));
    check(Ending::Garbage, 20, Some("the connection to the service broke: "));
    // Each was one attempt with one token.
    assert_eq!((lab.transcript().mints(), lab.transcript().upgrades()), (9, 9));
    // A reset may take the bytes before it along, which makes it one before the first byte: then there are two.
    check(Ending::Reset, 20, Some("the connection to the service broke: connection reset"));
}
