//! Being told to stop: every token comes back, the status says which signal it was, and nobody is left behind. It
//! leaves out time limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use bastide_emulator::faults::{At, Body, Direction, Fault};
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Running, Service};
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

/// As paramiko's `ProxyCommand` ends it: one signal is not waited for before the next.
#[test]
fn a_proxy_that_is_told_twice_in_one_breath_gives_its_token_back() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let mut proxy = lab.bastide(PROXY).arg(lab.vm("box")).start();
    let (mut stdin, mut stdout) = proxy.pipes();
    stdin.write_all(b"x").unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    proxy.signal(Signal::TERM);
    proxy.signal(Signal::HUP);
    let code = proxy.finish().code();
    assert!([143, 129].contains(&code), "{code}");
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
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

const PROXY: &str = "proxy --name bastion --resource-group demo --resource-port 7 --target-resource-id";

/// A `bastide proxy` that has come as far as a request that is held.
fn held(lab: &Lab, kind: Kind) -> Running {
    lab.emulator().set_faults([Fault::Hold { on: kind.into() }]);
    let proxy = lab.bastide(PROXY).arg(lab.vm("box")).start();
    lab.wait_for(|transcript| transcript.struck("hold") == 1);
    proxy
}

/// A `bastide proxy` whose connection is over, and whose release is held.
fn releasing(lab: &Lab) -> Running {
    lab.emulator().set_faults([Fault::Hold { on: Kind::Release.into() }]);
    let mut proxy = lab.bastide(PROXY).arg(lab.vm("box")).start();
    drop(proxy.pipes());
    lab.wait_for(|transcript| transcript.struck("hold") == 1);
    proxy
}

fn let_go(lab: &Lab) {
    lab.emulator().set_faults(Vec::<Fault>::new());
}

fn ledger(lab: &Lab) -> usize {
    std::fs::read_dir(lab.home().join(".local/state/bastide/ledger")).map_or(0, Iterator::count)
}

#[test]
fn while_signing_in_looking_up_minting_or_upgrading() {
    for (kind, mints) in [(Kind::Token, 0), (Kind::Arm, 0), (Kind::Mint, 1), (Kind::Upgrade, 1)] {
        for (signal, code) in [(Signal::INT, 130), (Signal::HUP, 129)] {
            let lab = Lab::with_box(r#"7 = "echo""#);
            let mut proxy = held(&lab, kind);
            proxy.signal(signal);
            if kind == Kind::Mint {
                // What is minted all the same is given back: only then the process ends.
                let_go(&lab);
            }
            assert_eq!(proxy.wait().code(), Some(code), "{kind:?}");
            assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (mints, mints), "{kind:?}");
            assert_eq!(ledger(&lab), 0, "{kind:?}");
            assert_eq!(proxy.finish().stderr, "");
        }
    }
}

#[test]
fn a_tunnel_that_is_not_ready_yet() {
    for kind in [Kind::Token, Kind::Mint] {
        let lab = Lab::with_box(r#"7 = "echo""#);
        lab.emulator().set_faults([Fault::Hold { on: kind.into() }]);
        let words = "tunnel --name bastion --resource-group demo --resource-port 7 --target-resource-id";
        let tunnel = lab.bastide(words).arg(lab.vm("box")).start();
        lab.wait_for(|transcript| transcript.struck("hold") == 1);
        tunnel.signal(Signal::INT);
        if kind == Kind::Mint {
            let_go(&lab);
        }
        tunnel.finish().expect_code(130);
        assert_eq!(lab.transcript().mints(), lab.transcript().releases());
        assert_eq!(ledger(&lab), 0);
    }
}

/// The first forwarding's proof has been minted when the second one's is refused.
#[test]
fn a_tunnel_that_cannot_be_opened_whole_gives_back_what_it_has() {
    let lab = Lab::with_box(r#"7 = "echo", 9 = "swallow""#);
    // A field that nobody needs is left out of the first answer, so that the refusal strikes the second.
    let first = Fault::MissingField { on: Kind::Mint.into(), field: "dataSource".into() };
    let second = Fault::Status {
        on: Kind::Mint.into(),
        status: 403,
        body: Body::Json,
        message: "not you".into(),
        retry_after: None,
    };
    lab.emulator().set_faults([first.times(1), second.into()]);
    let words = "tunnel --name bastion --resource-group demo --resource-port 7 -L 0:9 --target-resource-id";
    lab.bastide(words).arg(lab.vm("box")).run().expect_code(11).expect_stderr("not you");
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
    assert_eq!(ledger(&lab), 0);
}

/// A CONNECT proxy (RFC 9110 §9.3.6) that says when it has stopped answering, once `stuck` is set.
fn web_proxy(stuck: &Arc<AtomicBool>) -> (Service, Receiver<()>) {
    let (sender, asked) = channel();
    let sender = std::sync::Mutex::new(sender);
    let stuck = Arc::clone(stuck);
    let service = Service::start(move |mut near| {
        let mut head = BufReader::new(near.try_clone().unwrap());
        let mut request = String::new();
        head.read_line(&mut request).unwrap();
        let mut line = String::new();
        while head.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        if stuck.load(Ordering::SeqCst) {
            sender.lock().unwrap().send(()).unwrap();
            drop(near.read_to_end(&mut Vec::new()));
            return;
        }
        let mut far = TcpStream::connect(request.split(' ').nth(1).unwrap()).unwrap();
        near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let up = std::thread::spawn(move || {
            drop(std::io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Write));
        });
        drop(std::io::copy(&mut far, &mut near));
        drop(near.shutdown(Shutdown::Both));
        up.join().unwrap();
    });
    (service, asked)
}

#[test]
fn while_dialling() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let stuck = Arc::default();
    let (proxy, asked) = web_proxy(&stuck);
    let words = "tunnel --name bastion --resource-group demo --resource-port 7 --target-resource-id";
    let tunnel = lab
        .bastide(words)
        .arg(lab.vm("box"))
        .env("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port()));
    let tunnel = bastide_tests::Tunnel::start(tunnel);
    stuck.store(true, Ordering::SeqCst);
    let stream = tunnel.connect();
    asked.recv().unwrap();
    tunnel.interrupt();
    drop(stream);
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
}

#[test]
fn while_the_vm_says_nothing_and_the_service_does_not_either() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    lab.emulator().set_faults([Fault::Silence { at: At::Upgrade, direction: Direction::Both }]);
    let mut proxy = lab.bastide(PROXY).arg(lab.vm("box")).start();
    let pipes = proxy.pipes();
    lab.wait_for(|transcript| transcript.upgrades() == 1);
    proxy.signal(Signal::INT);
    proxy.finish().expect_code(130);
    drop(pipes);
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
}

#[test]
fn while_the_token_is_being_given_back() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let mut proxy = releasing(&lab);
    proxy.signal(Signal::TERM);
    // It has been handled; the release may end now.
    proxy.stderr_line("Ctrl + C");
    let_go(&lab);
    assert_eq!(proxy.wait().code(), Some(143));
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));

    // A second Ctrl-C does not wait for it; the ledger keeps it for the next start.
    let lab = Lab::with_box(r#"7 = "echo""#);
    let mut proxy = releasing(&lab);
    proxy.signal(Signal::INT);
    // Handled one by one: the second is sent when the first has been.
    proxy.stderr_line("Ctrl + C");
    proxy.signal(Signal::INT);
    assert_eq!(proxy.wait().code(), Some(130));
    assert_eq!(ledger(&lab), 2);
    let_go(&lab);
    lab.bastide(PROXY).arg(lab.vm("box")).run().expect_code(0);
    assert_eq!(ledger(&lab), 0);
}
