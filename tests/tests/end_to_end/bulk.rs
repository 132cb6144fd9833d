//! Much, many and slow: gigabytes, hundreds of connections, sides that finish early and sides that do not read. It
//! leaves out speed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use bastide_emulator::pattern;
use bastide_tests::{Lab, Service, Tunnel};
use rustix::process::Signal;

use crate::site::Site;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Bytes that a stalled connection may take in all buffers on its way: the relay's are below 1 MiB, the emulator's
/// too, and the kernel lets each of the sockets between them grow to 6 MiB and 4 MiB (tcp(7), `tcp_rmem`, `tcp_wmem`).
const STALLED: u64 = 64 * MIB;

/// Long enough that every offset modulo the pattern's period starts a block.
fn block() -> Vec<u8> {
    (0..MIB + 251).map(pattern).collect()
}

/// The part of the pattern of this length from this offset on; at most a MiB.
fn part(block: &[u8], offset: u64, length: usize) -> &[u8] {
    let from = usize::try_from(offset % 251).unwrap();
    &block[from..from + length]
}

/// Sends so many bytes of the pattern.
fn send_pattern(stream: &mut impl Write, bytes: u64) {
    let block = block();
    let mut offset = 0;
    while offset < bytes {
        let length = usize::try_from((bytes - offset).min(64 * 1024)).unwrap();
        stream.write_all(part(&block, offset, length)).unwrap();
        offset += length as u64;
    }
}

/// Receives so many bytes, every one of which has to be the pattern's from `offset` on.
fn expect_pattern(stream: &mut impl Read, offset: u64, bytes: u64) {
    let block = block();
    let mut buffer = vec![0; 256 * 1024];
    let mut at = offset;
    while at < offset + bytes {
        let most = usize::try_from((offset + bytes - at).min(buffer.len() as u64)).unwrap();
        let count = stream.read(&mut buffer[..most]).unwrap();
        assert!(count > 0, "it ended after {at} bytes");
        assert!(buffer[..count] == *part(&block, at, count), "bytes differ behind {at}");
        at += count as u64;
    }
}

/// Nothing more, and no error.
fn expect_end(stream: &mut impl Read) {
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

/// The most memory that a process ever had, in bytes (proc(5)).
#[cfg(target_os = "linux")]
fn peak_memory(tunnel: &Tunnel) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tunnel.running().id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A VM, `box`, one of whose ports is a service of the test's own.
fn lab_with(service: &Service) -> Lab {
    Lab::with_box(&format!("1 = \"127.0.0.1:{}\"", service.port()))
}

#[test]
fn a_gibibyte_up_and_down_through_a_tunnel() {
    // The VM takes a gibibyte and says so, then sends one.
    let service = Service::start(|mut stream| {
        expect_pattern(&mut stream, 0, GIB);
        stream.write_all(b"taken").unwrap();
        send_pattern(&mut stream, GIB);
    });
    let lab = lab_with(&service);
    let tunnel = lab.tunnel(&lab.vm("box"), 1);
    let mut stream = tunnel.connect();
    send_pattern(&mut stream, GIB);
    let mut said = [0; 5];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"taken");
    expect_pattern(&mut stream, 0, GIB);
    expect_end(&mut stream);
    drop(stream);
    #[cfg(target_os = "linux")]
    assert!(peak_memory(&tunnel) < 64 * MIB, "{} MiB", peak_memory(&tunnel) / MIB);
    tunnel.interrupt();
    let transcript = lab.transcript();
    let sums = transcript.tunnels().next().unwrap();
    assert_eq!((sums.sent, sums.received), (GIB, GIB + 5));
    // Full frames, but for those at the edge of a batch.
    assert!(sums.frames.binary < GIB / 4096 * 5 / 4, "{} frames", sums.frames.binary);
}

#[test]
fn a_gibibyte_up_and_down_through_openssh() {
    let site = Site::new();
    // No two parts of it are equal; both ends can make it.
    let make = format!("seq 1 1000000000 | head -c {GIB}");
    let expected =
        site.lab.program("sh").args(["-c", &format!("{make} | sha256sum")]).run().expect_code(0).text();
    let ssh = format!(
        "bastide ssh --name bastion --resource-group demo --target-resource-id '{}' --username '{}' --ssh-key '{}' -- \
         -F none",
        site.target(),
        site.sshd.user(),
        site.sshd.key().display()
    );
    for line in [format!("{make} | {ssh} sha256sum"), format!("{ssh} '{make}' | sha256sum")] {
        let outcome = site.lab.program("sh").args(["-c", &line]).run().expect_code(0);
        assert_eq!(outcome.text(), expected, "{line}: {outcome}");
    }
    // The shell's status was sha256sum's: the tokens tell whether both sessions ended well.
    site.lab.wait_for_releases();
}

#[test]
fn two_hundred_connections_at_once() {
    const CONNECTIONS: u64 = 200;
    let lab = Lab::with_box(r#"7 = "echo""#);
    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| tunnel.connect()).collect();
    let message = |number: u64| -> Vec<u8> { (0..50_000).map(|at| pattern(number * 31 + at * 7)).collect() };
    for (number, stream) in (0..).zip(&mut streams) {
        stream.write_all(&message(number)).unwrap();
    }
    for (number, stream) in (0..).zip(&mut streams) {
        let mut back = vec![0; 50_000];
        stream.read_exact(&mut back).unwrap();
        assert!(back == message(number), "connection {number} got another's bytes");
    }
    let transcript = lab.transcript();
    assert_eq!(transcript.tunnels().filter(|tunnel| tunnel.end.is_none()).count() as u64, CONNECTIONS);
    // All of them are open when the tunnel is told to stop.
    tunnel.running().signal(Signal::INT);
    for mut stream in streams {
        expect_end(&mut stream);
    }
    tunnel.finish().expect_code(130);
    assert_eq!(lab.transcript().mints() as u64, CONNECTIONS);
}

#[test]
fn five_hundred_connections_one_after_the_other() {
    let lab = Lab::with_box(r#"7 = "echo""#);
    let tunnel = lab.tunnel(&lab.vm("box"), 7);
    for number in 0..500u32 {
        let mut stream = tunnel.connect();
        stream.write_all(&number.to_be_bytes()).unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, number.to_be_bytes());
    }
    tunnel.interrupt();
    assert_eq!(lab.transcript().mints(), 500);
}

#[test]
fn an_answer_arrives_after_the_local_half_close() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    // The VM knows the end of a request by its length, and takes its time to answer.
    let service = Service::start(move |mut stream| {
        expect_pattern(&mut stream, 0, 100_000);
        wait.lock().unwrap().recv().unwrap();
        send_pattern(&mut stream, 3 * MIB);
    });
    let lab = lab_with(&service);
    let tunnel = lab.tunnel(&lab.vm("box"), 1);
    let mut stream = tunnel.connect();
    send_pattern(&mut stream, 100_000);
    stream.shutdown(Shutdown::Write).unwrap();
    // Only now the answer begins.
    go.send(()).unwrap();
    expect_pattern(&mut stream, 0, 3 * MIB);
    expect_end(&mut stream);
    tunnel.interrupt();
}

#[test]
fn the_end_of_the_vm_is_seen_at_once_with_everything_before_it() {
    let service = Service::start(|mut stream| send_pattern(&mut stream, 5 * MIB));
    let lab = lab_with(&service);
    let tunnel = lab.tunnel(&lab.vm("box"), 1);
    let mut stream = tunnel.connect();
    // The local side says nothing and closes nothing: what it sees is the VM's doing.
    expect_pattern(&mut stream, 0, 5 * MIB);
    expect_end(&mut stream);
    // The token does not wait for the local side either.
    lab.wait_for(|transcript| transcript.releases() == 1);
    drop(stream);
    tunnel.interrupt();
}

#[test]
fn a_local_side_that_does_not_read_holds_the_vm_back() {
    let lab = Lab::with_box(r#"19 = "produce""#);
    let tunnel = lab.tunnel(&lab.vm("box"), 19);
    let mut stalled = tunnel.connect();
    expect_pattern(&mut stalled, 0, 1);
    // Without back-pressure it would get as much as another that reads.
    let mut eager = tunnel.connect();
    expect_pattern(&mut eager, 0, 256 * MIB);
    drop(eager);
    let taken = lab.transcript().tunnels().next().unwrap().received;
    assert!(taken < STALLED, "{taken} bytes were taken for somebody who does not read");
    #[cfg(target_os = "linux")]
    assert!(peak_memory(&tunnel) < 64 * MIB, "{} MiB", peak_memory(&tunnel) / MIB);
    // Nothing of it is lost, and it goes on.
    expect_pattern(&mut stalled, 1, 2 * STALLED);
    drop(stalled);
    tunnel.interrupt();
}

#[test]
fn a_vm_that_does_not_read_holds_the_local_side_back() {
    let lab = Lab::with_box(r#"82 = "silent", 9 = "swallow""#);
    let stalled = lab.tunnel(&lab.vm("box"), 82);
    let eager = lab.tunnel(&lab.vm("box"), 9);
    let stream = stalled.connect();
    let taken = Arc::new(AtomicU64::new(0));
    let writer = {
        let (mut stream, taken) = (stream.try_clone().unwrap(), Arc::clone(&taken));
        std::thread::spawn(move || {
            let bytes = vec![7; 64 * 1024];
            while let Ok(count) = stream.write(&bytes) {
                taken.fetch_add(count as u64, Ordering::SeqCst);
            }
        })
    };
    send_pattern(&mut eager.connect(), 256 * MIB);
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken < STALLED, "{taken} bytes were taken for a VM that does not read");
    stream.shutdown(Shutdown::Both).unwrap();
    writer.join().unwrap();
    eager.interrupt();
    // What the VM never takes does not keep the tunnel from ending.
    stalled.interrupt();
}

#[test]
fn a_local_reset_gives_the_token_back() {
    let lab = Lab::with_box(r#"19 = "produce""#);
    let tunnel = lab.tunnel(&lab.vm("box"), 19);
    let mut stream = tunnel.connect();
    expect_pattern(&mut stream, 0, MIB);
    // Closing with unread bytes resets the connection (RFC 1122 §4.2.2.13).
    drop(stream);
    lab.wait_for(|transcript| transcript.releases() == 1);
    // The tunnel goes on.
    expect_pattern(&mut tunnel.connect(), 0, MIB);
    tunnel.interrupt();
    assert_eq!(lab.transcript().mints(), 2);
}

/// Both directions at once, each with its own speed: neither waits for the other.
#[test]
fn both_directions_at_once() {
    let service = Service::start(|mut stream: TcpStream| {
        let mut back = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || send_pattern(&mut back, 64 * MIB));
            expect_pattern(&mut stream, 0, 64 * MIB);
        });
    });
    let lab = lab_with(&service);
    let tunnel = lab.tunnel(&lab.vm("box"), 1);
    let mut stream = tunnel.connect();
    let mut out = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || send_pattern(&mut out, 64 * MIB));
        expect_pattern(&mut stream, 0, 64 * MIB);
    });
    expect_end(&mut stream);
    drop(stream);
    tunnel.interrupt();
}
