//! Local programs that do not behave, and a machine that has run out: the tunnel goes on, its memory and descriptors
//! are bounded, and no token is left. It leaves out those who have no right to connect (`refusals`).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use bastide_emulator::faults::Fault;
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Program, Service, Tunnel, free_port};
use rustix::process::Signal;

const TUNNEL: &str = "tunnel --name bastion --resource-group demo --resource-port";

fn talk(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// `bastide tunnel` to a port of the box, under limits of prlimit(1).
fn limited(lab: &Lab, limits: &str, port: u16) -> Program {
    lab.program("prlimit")
        .words(limits)
        .arg("bastide")
        .words(TUNNEL)
        .arg(port.to_string())
        .args(["--target-resource-id", &lab.vm("box")])
}

fn descriptors(tunnel: &Tunnel) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", tunnel.running().id())).unwrap().count()
}

/// The most memory that a process has ever had, in KiB.
fn peak_memory(tunnel: &Tunnel) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tunnel.running().id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn without_descriptors_newcomers_wait_and_the_others_go_on() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let tunnel = Tunnel::start(limited(&lab, "--nofile=64:64", 7));
    let mut streams: Vec<_> = (0..40).map(|_| tunnel.connect()).collect();
    for stream in &mut streams {
        stream.write_all(b"x").unwrap();
    }
    // As they come, so they are served: whoever is done makes room for another.
    while let [first, rest @ ..] = streams.as_mut_slice() {
        first.read_exact(&mut [0]).unwrap();
        if let Some(second) = rest.first_mut() {
            second.read_exact(&mut [0]).unwrap();
            talk(first);
            talk(second);
            streams.remove(0);
        }
        streams.remove(0);
    }
    let outcome = tunnel.interrupt();
    assert_eq!(outcome.stderr.matches("as many connections are open").count(), 1, "{outcome}");
    assert!(!outcome.stderr.contains("error"), "{outcome}");
    assert_eq!(lab.transcript().upgrades(), 40);
}

#[test]
fn when_accept_fails_the_listener_says_so_once_and_tries_again() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    let mut before = tunnel.connect();
    talk(&mut before);
    let id = tunnel.running().id().to_string();
    let limit = |limits: &str| lab.program("prlimit").args(["--pid", &id]).arg(limits).run().expect_code(0);
    limit("--nofile=3:20000");
    let mut during = tunnel.connect();
    during.write_all(b"x").unwrap();
    let mut tunnel = tunnel;
    tunnel.stderr_line("cannot be accepted now");
    talk(&mut before);
    limit("--nofile=1024:20000");
    during.read_exact(&mut [0]).unwrap();
    let outcome = tunnel.interrupt();
    assert_eq!(outcome.stderr.matches("cannot be accepted now").count(), 1, "{outcome}");
}

#[test]
fn five_thousand_who_connect_and_vanish() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    talk(&mut tunnel.connect());
    for _ in 0..5000 {
        drop(tunnel.connect());
    }
    // They came in turn: this one is the last.
    talk(&mut tunnel.connect());
    lab.wait_for_releases();
    let (descriptors, memory) = (descriptors(&tunnel), peak_memory(&tunnel));
    assert!(descriptors < 64, "{descriptors} descriptors");
    assert!(memory < 100 * 1024, "{memory} KiB");
    let outcome = tunnel.interrupt();
    for word in ["WARN", "warning", "error"] {
        assert!(!outcome.stderr.contains(word), "{outcome}");
    }
    assert_eq!(lab.transcript().mints(), lab.transcript().releases());
}

#[test]
fn those_who_never_read_or_never_write_hold_nobody_up() {
    let lab = Lab::with_box(r#"7 = "echo", 19 = "produce""#);
    let two = format!("{TUNNEL} 7 -L 0:19 -o json --target-resource-id {}", lab.vm("box"));
    let mut tunnel = lab.bastide(&two).start();
    let [echo, produce] = [(), ()].map(|()| tunnel.event("ready")["address"].as_str().unwrap().to_owned());
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut never_reads = TcpStream::connect(&produce).unwrap();
        never_reads.read_exact(&mut [0]).unwrap();
        idle.push(never_reads);
        idle.push(TcpStream::connect(&echo).unwrap());
    }
    talk(&mut TcpStream::connect(&echo).unwrap());
    lab.wait_for(|transcript| transcript.upgrades() == 41);
    tunnel.signal(Signal::INT);
    // The rest of the events says how each ended.
    let outcome = tunnel.finish().expect_code(130);
    assert_eq!(outcome.text().matches(r#""event":"closed""#).count(), 41, "{outcome}");
    assert!(outcome.text().contains(r#""leaked":0"#), "{outcome}");
    drop(idle);
}

#[test]
fn nothing_is_opened_for_who_has_gone_meanwhile() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let socket = lab.home().join("echo.sock");
    let words = format!("{TUNNEL} 7 -L {}:7 --target-resource-id {}", socket.display(), lab.vm("box"));
    let tunnel = Tunnel::start(lab.bastide(&words));
    let proofs = lab.transcript().mints();
    lab.emulator().set_faults([Fault::Hold { on: Kind::Upgrade.into() }]);
    let stream = tunnel.connect();
    let other = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    lab.wait_for(|transcript| transcript.struck("hold") == 2);
    drop((stream, other));
    // The upgrades are still held.
    lab.wait_for(|transcript| transcript.releases() == proofs);
    lab.emulator().set_faults(Vec::<Fault>::new());
    talk(&mut tunnel.connect());
    let outcome = tunnel.interrupt();
    assert!(!outcome.stderr.contains("WARN") && !outcome.stderr.contains("connection 1"), "{outcome}");
}

#[test]
fn what_was_said_before_leaving_still_arrives() {
    let (sender, arrived) = channel();
    let sender = Mutex::new(sender);
    let service = Service::start(move |mut stream| {
        let mut words = String::new();
        // The WebSocket's end is the connection's.
        drop(stream.read_to_string(&mut words));
        sender.lock().unwrap().send(words).unwrap();
    });
    let lab = Lab::with_box(&format!("514 = \"127.0.0.1:{}\"", service.port()));
    let tunnel = lab.tunnel(&lab.vm("box"), 514);
    lab.emulator().set_faults([Fault::Hold { on: Kind::Upgrade.into() }]);
    let mut stream = tunnel.connect();
    // The tunnel knows whose connection it is.
    lab.wait_for(|transcript| transcript.struck("hold") == 1);
    stream.write_all(b"fire and forget").unwrap();
    drop(stream);
    lab.emulator().set_faults(Vec::<Fault>::new());
    assert_eq!(arrived.recv().unwrap(), "fire and forget");
    lab.wait_for_releases();
    tunnel.interrupt();
}

/// So many connections make far more events than a pipe and the queue hold.
#[test]
fn a_reader_of_events_that_stops_reading_holds_nobody_up() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let mut tunnel = lab.bastide(TUNNEL).words("7 -o json --target-resource-id").arg(lab.vm("box")).start();
    let address = tunnel.event("ready")["address"].as_str().unwrap().to_owned();
    for _ in 0..900 {
        talk(&mut TcpStream::connect(&address).unwrap());
    }
    lab.wait_for_releases();
    // Somebody reads again, and hears of what is missing.
    let dropped = tunnel.event("dropped");
    assert!(dropped["count"].as_u64().unwrap() > 0, "{dropped}");
    tunnel.signal(Signal::INT);
    let outcome = tunnel.finish().expect_code(130);
    assert!(outcome.text().contains(r#""event":"stopped""#), "{outcome}");
}

#[test]
fn a_reader_of_events_that_goes_away_ends_nothing() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let port = free_port().to_string();
    let words = format!("{TUNNEL} 7 --port {port} -o json --target-resource-id");
    let mut tunnel = lab.bastide(&words).arg(lab.vm("box")).start();
    tunnel.event("ready");
    drop(tunnel.pipes());
    for _ in 0..3 {
        talk(&mut TcpStream::connect(format!("127.0.0.1:{port}")).unwrap());
    }
    tunnel.signal(Signal::INT);
    let outcome = tunnel.finish().expect_code(130);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_proxy_whose_reader_goes_away_ends() {
    let lab = Lab::with_box(r#"19 = "produce""#);
    let words = "proxy --name bastion --resource-group demo --resource-port 19 --target-resource-id";
    let mut proxy = lab.bastide(words).arg(lab.vm("box")).start();
    let (stdin, mut stdout) = proxy.pipes();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    let outcome = proxy.finish().expect_code(0);
    assert_eq!(outcome.stderr, "");
    drop(stdin);
    assert_eq!(lab.transcript().releases(), 1);
}

#[test]
fn an_ordinary_end_is_not_worth_a_word() {
    let lab = Lab::with_box(r#"7 = "echo", 81 = "refuse""#);
    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    talk(&mut tunnel.connect());
    let mut reset = tunnel.connect();
    talk(&mut reset);
    rustix::net::sockopt::set_socket_linger(&reset, Some(std::time::Duration::ZERO)).unwrap();
    drop(reset);
    lab.wait_for(|transcript| transcript.releases() == 2);
    assert!(!tunnel.interrupt().stderr.contains("connection"));

    // An end that nobody has asked for is.
    use bastide_emulator::faults::{At, Ending};
    let mut tunnel = lab.tunnel(&lab.vm("box"), 7);
    let mut stream = tunnel.connect();
    talk(&mut stream);
    lab.emulator().set_faults([Fault::Ending { how: Ending::Reset, at: At::Now }]);
    let ended = stream.read(&mut [0]);
    assert!(matches!(&ended, Ok(0)) || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    let line = tunnel.stderr_line("connection 1 from ");
    assert!(line.contains("1 bytes sent, 1 received"), "{line}");
    tunnel.interrupt();
}
