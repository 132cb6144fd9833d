//! What a tunnel keeps ready for its next connection: an open TLS connection, and with `--prefetch` tokens. The
//! transcript tells what it saved; that it may have gone stale tells nobody. It leaves out time.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use bastide_emulator::faults::Fault;
use bastide_emulator::transcript::{Kind, Transcript};
use bastide_tests::{Lab, Running};
use rustix::process::Signal;

/// A tunnel to port 7 of `box`, which echoes, and its address.
fn tunnel(lab: &Lab, flags: &str) -> (Running, String) {
    let words = "tunnel -o json --name bastion --resource-group demo --resource-port 7 --target-resource-id";
    let mut running = lab.bastide(words).arg(lab.vm("box")).words(flags).start();
    let ready = running.event("ready");
    (running, ready["address"].as_str().unwrap().to_owned())
}

/// A connection that has carried a byte each way.
fn open(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// Ends it by Ctrl-C; nobody was told of an attempt that failed.
#[track_caller]
fn stop(running: Running) {
    running.signal(Signal::INT);
    let outcome = running.finish().expect_code(130);
    assert!(!outcome.text().contains("\"retry\""), "{outcome}");
}

fn of_kind(transcript: &Transcript, kind: Kind) -> Vec<u64> {
    let requests = transcript.requests.iter().filter(|request| request.kind == kind);
    requests.map(|request| request.connection).collect()
}

/// Whether a connection is open on which nothing was asked yet.
fn has_spare(transcript: &Transcript) -> bool {
    let used: BTreeSet<_> = transcript.requests.iter().map(|request| request.connection).collect();
    transcript.connections > used.len() as u64
}

#[test]
fn an_upgrade_finds_a_connection_open() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let (running, address) = tunnel(&lab, "");
    let mut found = 0;
    for _ in 0..4 {
        lab.wait_for(has_spare);
        // The one before has been given back: nothing else opens a connection.
        lab.wait_for(|transcript| transcript.releases() == transcript.upgrades());
        // Connections are numbered when they are accepted.
        let before = lab.transcript().connections + lab.transcript().failed_handshakes;
        drop(open(&address));
        // Over what was there before it came? A busy client may count its spare a moment later than the service; then
        // the next connection finds it.
        let upgrades = of_kind(&lab.transcript(), Kind::Upgrade);
        found += usize::from(*upgrades.last().unwrap() <= before);
    }
    assert!(found >= 1, "{:#?}", lab.transcript().requests);
    let transcript = lab.transcript();
    let mints: BTreeSet<_> = of_kind(&transcript, Kind::Mint).into_iter().collect();
    assert!(mints.len() < 4, "kept alive: {mints:?}");
    assert_eq!((transcript.mints(), transcript.upgrades()), (4, 4));
    stop(running);
}

#[test]
fn a_connection_that_the_service_closed_is_not_missed() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let (running, address) = tunnel(&lab, "");
    for round in 1..=3 {
        drop(open(&address));
        lab.wait_for(|transcript| transcript.releases() == round);
        // The kept-alive one, and the spare one if it is open by now: both ways are taken.
        let before = lab.transcript().connections;
        lab.emulator().hang_up();
        lab.wait_for(|transcript| transcript.closed >= before);
    }
    drop(open(&address));
    assert_eq!(lab.transcript().upgrades(), 4);
    stop(running);
}

#[test]
fn tokens_minted_ahead_are_used_replaced_and_given_back() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let (running, address) = tunnel(&lab, "--prefetch 2");
    lab.wait_for(|transcript| transcript.mints() == 2);
    let streams = [open(&address), open(&address), open(&address)];
    // One for each connection, and two for the next ones.
    lab.wait_for(|transcript| transcript.mints() >= 5);
    let transcript = lab.transcript();
    let used = transcript.sessions.values().filter(|session| session.tunnel.is_some()).count();
    assert_eq!((used, transcript.mints(), transcript.releases()), (3, 5, 0));
    assert!(transcript.sessions[&1].tunnel.is_some(), "the oldest goes first");
    drop(streams);
    stop(running);
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (5, 5));
}

#[test]
fn a_ctrl_c_while_a_token_is_minted_ahead() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let (running, address) = tunnel(&lab, "--prefetch 3");
    lab.wait_for(|transcript| transcript.mints() == 3);
    lab.emulator().set_faults([Fault::Hold { on: Kind::Mint.into() }]);
    let stream = open(&address);
    lab.wait_for(|transcript| transcript.struck("hold") == 1);
    running.signal(Signal::INT);
    // Its WebSocket is closed: the stop is under way.
    lab.wait_for(|transcript| transcript.tunnels().all(|tunnel| tunnel.end.is_some()));
    lab.emulator().set_faults([] as [Fault; 0]);
    running.finish().expect_code(130);
    drop(stream);
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (4, 4));
}
