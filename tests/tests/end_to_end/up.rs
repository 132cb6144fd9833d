//! `bastide up`: several tunnels of a file, connected on first use, changed while they run, and what service managers and
//! monitors are told. It leaves out the table (`up_terminal`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use bastide_tests::{Lab, Running, free_port};
use rustix::process::Signal;
use serde_json::Value;

/// A file with a tunnel to the echo port of `web-01` for each name, on the port behind it.
fn write(file: &Path, tunnels: &[(&str, u16)], more: &str) {
    let mut text = format!("[defaults]\nname = 'bastion'\nresource-group = 'demo'\n{more}");
    for (name, port) in tunnels {
        text += &format!("[tunnels.{name}]\ntarget = 'web-01'\nresource-port = 7\nport = {port}\n");
    }
    std::fs::write(file, text).unwrap();
}

/// Events until one of this name and tunnel.
fn event(running: &mut Running, name: &str, tunnel: &str) -> Value {
    loop {
        let event = running.event(name);
        if event["tunnel"] == tunnel {
            return event;
        }
    }
}

#[track_caller]
fn echo(stream: &mut TcpStream) {
    stream.write_all(b"hello\n").unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello\n");
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

#[test]
fn tunnels_are_connected_on_first_use() {
    let lab = Lab::new();
    let (one, two) = (free_port(), free_port());
    let file = lab.home().join("bastide.toml");
    write(&file, &[("one", one), ("two", two)], "");
    let mut running = lab.bastide("up -o json").start();
    event(&mut running, "listening", "one");
    event(&mut running, "listening", "two");
    // Nobody has signed in, and nothing was asked for.
    assert_eq!((lab.transcript().token_requests(), lab.transcript().mints()), (0, 0));
    echo(&mut connect(one));
    event(&mut running, "ready", "one");
    assert_eq!(event(&mut running, "closed", "one")["received"], 6);
    assert_eq!(lab.transcript().mints(), 1);
    echo(&mut connect(two));
    event(&mut running, "ready", "two");
    running.signal(Signal::INT);
    running.finish().expect_code(130);
}

#[test]
fn a_new_file_leaves_alone_what_is_the_same_in_it() {
    let lab = Lab::new();
    let [same, gone, changed, moved, new] = [(); 5].map(|()| free_port());
    let file = lab.home().join("bastide.toml");
    write(&file, &[("same", same), ("gone", gone), ("changed", changed)], "");
    let mut running = lab.bastide("up -o json").start();
    event(&mut running, "listening", "gone");
    event(&mut running, "listening", "same");
    let mut stream = connect(same);
    echo(&mut stream);

    // A file that means nothing changes nothing.
    std::fs::write(&file, "[tunnel.same]\n").unwrap();
    running.signal(Signal::HUP);
    let error = running.event("error");
    assert!(error["message"].as_str().unwrap().contains("may not hold 'tunnel'"), "{error}");
    echo(&mut stream);
    echo(&mut connect(gone));

    write(&file, &[("same", same), ("changed", moved), ("new", new)], "");
    running.signal(Signal::HUP);
    let reloaded = running.event("reloaded");
    assert_eq!(reloaded["added"], serde_json::json!(["new"]));
    assert_eq!(reloaded["changed"], serde_json::json!(["changed"]));
    assert_eq!(reloaded["removed"], serde_json::json!(["gone"]));
    echo(&mut stream);
    echo(&mut connect(moved));
    echo(&mut connect(new));
    assert!(TcpStream::connect(("127.0.0.1", gone)).is_err());

    // In the same place, with other flags.
    write(&file, &[("same", same), ("changed", moved), ("new", new)], "retries = 1\n");
    running.signal(Signal::HUP);
    assert_eq!(running.event("reloaded")["changed"], serde_json::json!(["changed", "new", "same"]));
    echo(&mut connect(same));
    running.signal(Signal::TERM);
    running.finish().expect_code(143);
}

#[test]
fn a_vm_that_is_not_found_is_told_and_tried_again() {
    let lab = Lab::new();
    let port = free_port();
    let file = lab.file(
        "tunnels.toml",
        format!("[tunnels.lost]\ntarget = 'web-99'\nname = 'bastion'\nresource-group = 'demo'\nresource-port = 7\nport = {port}\n"),
    );
    let mut running = lab.bastide("up -o json --health 127.0.0.1:0").arg(&file).start();
    let health = running.event("health")["address"].as_str().unwrap().to_owned();
    event(&mut running, "listening", "lost");
    for _ in 0..2 {
        let mut stream = connect(port);
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
        let error = event(&mut running, "error", "lost");
        assert_eq!(error["code"], 13, "{error}");
    }
    let curl = |path: &str| {
        let url = format!("http://{health}{path}");
        lab.program("curl")
            .args(["-s", "-w", "%{http_code}", "--noproxy", "*", &url])
            .run()
            .expect_code(0)
            .text()
    };
    assert_eq!(curl("/healthz"), "ok\n200");
    assert_eq!(curl("/readyz"), "no way to the VM: lost\n503");
    let metrics = curl("/metrics");
    for line in [
        "bastide_tunnel_up{tunnel=\"lost\"} 0",
        "bastide_tunnel_connections_total{tunnel=\"lost\"} 2",
        "bastide_tunnel_errors_total{tunnel=\"lost\",code=\"13\"} 2",
    ] {
        assert!(metrics.lines().any(|told| told == line), "no {line}: {metrics}");
    }
    assert!(curl("/nothing").ends_with("404"));
    running.signal(Signal::INT);
    running.finish().expect_code(130);
}

#[test]
fn bytes_are_counted_while_they_move() {
    let lab = Lab::new();
    let port = free_port();
    let file = lab.home().join("bastide.toml");
    write(&file, &[("echo", port)], "");
    let mut running = lab.bastide("up -o json --health 127.0.0.1:0").start();
    let health = running.event("health")["address"].as_str().unwrap().to_owned();
    event(&mut running, "listening", "echo");
    let mut stream = connect(port);
    echo(&mut stream);
    let url = format!("http://{health}/metrics");
    let metrics = lab.program("curl").args(["-s", "--noproxy", "*", &url]).run().expect_code(0).text();
    for line in [
        "bastide_tunnel_connections{tunnel=\"echo\"} 1",
        "bastide_tunnel_bytes_total{tunnel=\"echo\",direction=\"sent\"} 6",
        "bastide_tunnel_bytes_total{tunnel=\"echo\",direction=\"received\"} 6",
        "bastide_tunnel_up{tunnel=\"echo\"} 1",
    ] {
        assert!(metrics.lines().any(|told| told == line), "no {line}: {metrics}");
    }
    drop(stream);
    running.signal(Signal::INT);
    running.finish().expect_code(130);
}

#[test]
fn mistakes_are_told_before_anything_is_opened() {
    let lab = Lab::new();
    let port = free_port();
    let check = |text: String, says: &str| {
        let file = lab.file("tunnels.toml", text);
        for flags in ["up --check", "up"] {
            lab.bastide(flags).arg(&file).run().expect_code(2).expect_stderr(says);
        }
    };
    check("[tunnels.a]\ntarget = 'x'\nresource-prot = 1\n".into(), "is 'resource-port' meant?");
    check(
        "[tunnels.a]\ntarget = 'x'\nresource-port = 1\nbind = '0.0.0.0'\n".into(),
        "can be reached from other machines",
    );
    let one = |name: &str| format!("[tunnels.{name}]\ntarget = 'x'\nresource-port = 1\nport = {port}\n");
    check(one("a") + &one("b"), "both want to listen on 127.0.0.1");
    lab.bastide("up").run().expect_code(2).expect_stderr("there is no file of tunnels");

    let file = lab.file("tunnels.toml", one("a"));
    lab.bastide("up --check").arg(&file).run().expect_code(0);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    lab.bastide("up").arg(&file).run().expect_code(2).expect_stderr("tunnel 'a': 127.0.0.1");
    assert_eq!(lab.transcript().token_requests(), 0);
}

#[test]
fn systemd_is_told_and_hands_over_its_sockets() {
    let lab = Lab::new();
    let file = lab.home().join("bastide.toml");
    write(&file, &[("echo", 0)], "");
    let path = lab.home().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let hear = |expected: &str| {
        let mut bytes = [0; 256];
        loop {
            let length = manager.recv(&mut bytes).unwrap_or_else(|error| panic!("no {expected}: {error}"));
            if String::from_utf8_lossy(&bytes[..length]).lines().any(|line| line.starts_with(expected)) {
                return;
            }
        }
    };
    // As systemd does it: the socket is descriptor 3, and the process is the one that is named.
    let script = "import os, socket, sys\n\
        s = socket.create_server(('127.0.0.1', 0))\n\
        print(s.getsockname()[1], flush=True)\n\
        os.dup2(s.fileno(), 3)\n\
        os.set_inheritable(3, True)\n\
        os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='echo')\n\
        os.execvp('bastide', ['bastide', 'up'])\n";
    let mut running = lab.program("python3").args(["-c", script]).env("NOTIFY_SOCKET", &path).start();
    let (_stdin, mut stdout) = running.pipes();
    let mut digits = [0; 8];
    let length = stdout.read(&mut digits).unwrap();
    let port = String::from_utf8_lossy(&digits[..length]).trim().parse().unwrap();
    hear("READY=1");
    echo(&mut connect(port));
    running.signal(Signal::HUP);
    hear("RELOADING=1");
    hear("READY=1");
    echo(&mut connect(port));
    running.signal(Signal::TERM);
    hear("STOPPING=1");
    assert_eq!(running.wait().code(), Some(143));
}
