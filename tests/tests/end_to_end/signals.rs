//! Being told to stop: every token comes back, the status says which signal it was, and nobody is left behind. It
//! leaves out time limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use bastide_tests::Lab;
use rustix::process::Signal;

use crate::site::Site;

/// Connections that have carried a byte each way.
fn open(tunnel: &bastide_tests::Tunnel, count: usize) -> Vec<TcpStream> {
    let mut streams: Vec<_> = (0..count).map(|_| tunnel.connect()).collect();
    for stream in &mut streams {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    streams
}

#[test]
fn a_tunnel_with_open_connections() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let lab = Lab::with_box(r#"7 = "echo""#);
        let tunnel = lab.tunnel(&lab.vm("box"), 7);
        let streams = open(&tunnel, 5);
        let port = tunnel.port();
        tunnel.running().signal(signal);
        for mut stream in streams {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        tunnel.finish().expect_code(code);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it listens on");
        assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (5, 5));
    }
}

#[test]
fn a_tunnel_that_nobody_used_gives_its_proof_back() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    lab.tunnel(&lab.vm("box"), 7).interrupt();
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
}

/// A local program that does not read what the VM has sent holds the end up, for some seconds. The second Ctrl-C
/// does not wait for it: the last word, "stopped", is not said.
#[test]
fn the_second_ctrl_c_ends_at_once() {
    let mut lab = Lab::with_box(r#"19 = "produce""#);
    // What is cut off does not give its token back.
    lab.forgive();
    let target = lab.vm("box");
    let words = "tunnel -o json --name bastion --resource-group demo --resource-port 19 --target-resource-id";
    let mut tunnel = lab.bastide(words).arg(target).start();
    let ready = tunnel.event("ready");
    let mut stream = TcpStream::connect(ready["address"].as_str().unwrap()).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    tunnel.signal(Signal::INT);
    // The first one has arrived: the WebSocket is being closed.
    lab.wait_for(|transcript| {
        transcript.tunnels().any(|tunnel| tunnel.frames.close > 0 || tunnel.end.is_some())
    });
    tunnel.signal(Signal::INT);
    let outcome = tunnel.finish().expect_code(130);
    assert!(!outcome.text().contains("stopped"), "{outcome}");
    drop(stream);
}

#[test]
fn a_proxy_is_told_by_openssh() {
    for (signal, code) in [(Signal::HUP, 129), (Signal::TERM, 143), (Signal::INT, 130)] {
        let lab = Lab::with_box(r#"7 = "echo""#);
        let words = "proxy --name bastion --resource-group demo --resource-port 7 --target-resource-id";
        let mut proxy = lab.bastide(words).arg(lab.vm("box")).start();
        let (mut stdin, mut stdout) = proxy.pipes();
        stdin.write_all(b"x").unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        proxy.signal(signal);
        proxy.finish().expect_code(code);
        // Its input was open to the end.
        drop(stdin);
        assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
    }
}

#[test]
fn a_proxy_ends_with_its_input() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let words = "proxy --name bastion --resource-group demo --resource-port 7 --target-resource-id";
    let outcome = lab.bastide(words).arg(lab.vm("box")).input("all of it").run().expect_code(0);
    assert_eq!(outcome.text(), "all of it");
}

#[test]
fn a_session_takes_openssh_with_it() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let site = Site::new();
        let mut session = site.ssh().arg("echo ready; cat").start();
        let (stdin, stdout) = session.pipes();
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        session.signal(signal);
        // OpenSSH has the other end of it, too.
        assert_eq!(stdout.read(&mut [0]).unwrap(), 0);
        drop(stdin);
        session.finish().expect_code(code);
        assert_eq!((site.lab.transcript().mints(), site.lab.transcript().releases()), (1, 1));
    }
}

/// The parent is gone without a word; OpenSSH sees its connection end, and so nothing runs on.
#[test]
fn a_session_whose_parent_is_killed_ends() {
    let mut site = Site::new();
    // Nobody is left who could give the token back.
    site.lab.forgive();
    let mut session = site.ssh().arg("echo ready; cat").start();
    let (stdin, stdout) = session.pipes();
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    session.signal(Signal::KILL);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    drop(stdin);
    assert_eq!(session.finish().code(), 137);
}
