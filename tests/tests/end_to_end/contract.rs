//! The command line's contract (cli.md), for those who script against it: what goes to which stream in which words,
//! JSON events, exit codes of endings, forms of flags. It leaves out refusals (`refusals`).

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Outcome, Program, Running, Stranger, Tunnel};
use rustix::process::Signal;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const ECHO: &str = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 7";

/// Sends a line and reads it back.
#[track_caller]
fn echo(stream: &mut (impl Read + Write)) {
    stream.write_all(b"hello\n").unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello\n");
}

/// The events on a program's standard output, each of which has a name and a time.
#[track_caller]
fn events(stdout: &str) -> Vec<Value> {
    let read = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["event"].is_string(), "{line}");
        let time = OffsetDateTime::parse(event["time"].as_str().unwrap_or_default(), &Rfc3339);
        assert!(time.is_ok(), "{time:?}: {line}");
        event
    };
    stdout.lines().map(read).collect()
}

/// Events as `name field field`, fields in the order of the alphabet, without the time.
fn shapes(events: &[Value]) -> Vec<String> {
    let shape = |event: &Value| {
        let fields =
            event.as_object().unwrap().keys().filter(|name| !matches!(name.as_str(), "event" | "time"));
        let fields: BTreeSet<_> = fields.map(String::as_str).collect();
        let words: Vec<_> = event["event"].as_str().into_iter().chain(fields).collect();
        words.join(" ")
    };
    events.iter().map(shape).collect()
}

#[track_caller]
fn port_of(address: &Value) -> u16 {
    let address = address.as_str().unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Whatever it wrote before, it ends so after the signal.
#[track_caller]
fn end(running: Running, signal: Signal, code: i32) -> Outcome {
    running.signal(signal);
    running.finish().expect_code(code)
}

#[test]
fn three_lines_for_a_person_and_none_for_a_program() {
    let lab = Lab::new();
    let tunnel = Tunnel::start(lab.bastide(ECHO));
    let port = tunnel.port();
    echo(&mut tunnel.connect());
    let outcome = tunnel.interrupt();
    assert_eq!(
        outcome.stderr,
        format!(
            "Opening tunnel on port: {port}\nTunnel is ready, connect on port {port}\nCtrl + C to close\n"
        )
    );
    assert!(outcome.stdout.is_empty(), "{outcome}");
}

#[test]
fn the_port_that_was_asked_for() {
    let lab = Lab::new();
    let port = bastide_tests::free_port();
    let tunnel = Tunnel::start(lab.bastide(ECHO).words(&format!("--port {port}")));
    assert_eq!(tunnel.port(), port);
    tunnel.interrupt();
}

#[test]
fn events_of_a_tunnel() {
    let lab = Lab::new();
    let mut running = lab.bastide(ECHO).words("-o json").start();
    let listening = running.event("listening");
    let ready = running.event("ready");
    assert_eq!(listening["address"], ready["address"]);
    let mut stream = TcpStream::connect(("127.0.0.1", port_of(&ready["address"]))).unwrap();
    let opened = running.event("opened");
    assert_eq!(opened["id"], 1);
    assert_eq!(opened["peer"], stream.local_addr().unwrap().to_string());
    echo(&mut stream);
    drop(stream);
    let closed = running.event("closed");
    assert_eq!((&closed["id"], &closed["sent"], &closed["received"]), (&1.into(), &6.into(), &6.into()));
    assert_eq!(closed["reason"], "closed by the local side");
    assert!(closed["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{closed}");
    assert_eq!(running.event("released")["id"], 1);
    let outcome = end(running, Signal::TERM, 143);
    assert_eq!(outcome.stderr, "");
    let left = events(&outcome.text());
    assert_eq!(shapes(&left), ["stopped leaked"]);
    assert_eq!(left[0]["leaked"], 0);
}

#[test]
fn events_and_their_fields() {
    let lab = Lab::new();
    let running = lab.bastide(ECHO).words("-o json --timeout 1").run().expect_code(124);
    assert_eq!(running.stderr, "");
    let expected = ["listening address", "ready address", "released id", "stopped leaked"].map(str::to_owned);
    assert_eq!(shapes(&events(&running.text())), expected);
}

#[test]
fn events_of_a_port_that_the_vm_refuses() {
    let lab = Lab::new();
    let line = ECHO.replace("--resource-port 7", "--resource-port 81 --retries 1 -o json");
    let mut running = lab.bastide(&line).start();
    let port = port_of(&running.event("ready")["address"]);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // The local program sees the end of it.
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    let closed = running.event("closed");
    assert!(closed["reason"].as_str().unwrap().contains("port 81 of 'web-01' was closed"), "{closed}");
    let error = running.event("error");
    assert_eq!(shapes(std::slice::from_ref(&error)), ["error code hint message"]);
    assert_eq!(error["code"], 22);
    assert!(error["hint"].as_str().unwrap().contains("nothing listens on port 81"), "{error}");
    // The tunnel itself lives on.
    end(running, Signal::INT, 130);
}

#[test]
fn an_error_is_an_event_too() {
    let lab = Lab::new();
    let outcome = lab.bastide(&ECHO.replace("bastion", "basic")).words("-o json").run().expect_code(12);
    let events = events(&outcome.text());
    assert_eq!(shapes(&events), ["error code hint message"]);
    assert_eq!(events[0]["code"], 12);
    assert!(events[0]["message"].as_str().unwrap().contains("Basic SKU"), "{outcome}");
    assert!(outcome.stderr.starts_with("error: "), "{outcome}");
}

/// One lease is minted to prove that the tunnel works. It serves the first connection, or is given back.
#[test]
fn the_lease_of_the_proof() {
    let lab = Lab::new();
    let tunnel = Tunnel::start(lab.bastide(ECHO));
    assert_eq!((lab.transcript().mints(), lab.transcript().upgrades()), (1, 0));
    for mints in [1, 2] {
        echo(&mut tunnel.connect());
        assert_eq!(lab.transcript().mints(), mints);
    }
    tunnel.interrupt();
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (2, 2));

    let mut running = lab.bastide(ECHO).words("-o json").start();
    running.event("ready");
    let outcome = end(running, Signal::TERM, 143);
    let events = events(&outcome.text());
    assert_eq!(shapes(&events), ["released id", "stopped leaked"]);
    assert_eq!(events[0]["id"], 0);
}

#[test]
fn limits_that_the_user_set() {
    let lab = Lab::new();
    let check = |line: &str, says: &str| {
        lab.bastide(line).run().expect_code(124).expect_stderr(says);
        lab.wait_for_releases();
    };
    check(&format!("{ECHO} --timeout 1"), "The tunnel's time is over (--timeout)");
    check(&format!("{ECHO} --idle-timeout 1"), "idle for too long (--idle-timeout)");
    let ssh = "-g demo --username azureuser --auth-type ssh-key";
    let silent = "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 9";
    for limit in ["--timeout 1", "--idle-timeout 1"] {
        // Standard input stays open.
        let mut running = lab.bastide(&format!("{silent} {limit}")).start();
        assert_eq!(running.wait().code(), Some(124), "{limit}");
        let line = format!(
            "ssh -n bastion {ssh} --target-resource-id {{vm}} {limit} --ssh-key {}",
            lab.key().display()
        );
        lab.bastide(&line).words("-- sleep 100").run().expect_code(124);
    }
}

#[test]
fn several_forwardings_and_a_unix_socket() {
    let lab = Lab::new();
    let socket = lab.home().join("echo.sock");
    let line = format!(
        "tunnel -n bastion -g demo --target-resource-id {{vm}} --resource-port 7 -L 0:7 -L 127.0.0.2:0:7 -L {}:7 -o json",
        socket.display()
    );
    let mut running = lab.bastide(&line).start();
    let addresses: Vec<String> =
        (0..4).map(|_| running.event("ready")["address"].as_str().unwrap().to_owned()).collect();
    assert!(addresses[2].starts_with("127.0.0.2:"), "{addresses:?}");
    assert_eq!(addresses[3], socket.display().to_string());
    for address in &addresses[..3] {
        echo(&mut TcpStream::connect(address).unwrap());
    }
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o600);
    echo(&mut UnixStream::connect(&socket).unwrap());
    end(running, Signal::INT, 130);
    assert!(!socket.exists());
    assert_eq!(lab.transcript().upgrades(), 4);
}

#[test]
fn addresses_that_others_can_reach() {
    let lab = Lab::new();
    for far in ["--bind 0.0.0.0", "--bind ::", "-L *:0:7", "-L 0.0.0.0:0:7"] {
        lab.bastide(ECHO)
            .words(far)
            .run()
            .expect_code(2)
            .expect_stderr("can be reached from other machines")
            .expect_stderr("--allow-other-users");
    }
    assert_eq!(lab.transcript().count(Kind::Mint), 0);
    // All of 127.0.0.0/8 is this machine.
    let mut running = lab.bastide(ECHO).words("--bind 127.0.0.3 -o json").start();
    let address = running.event("ready")["address"].as_str().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.3:"), "{address}");
    echo(&mut TcpStream::connect(address).unwrap());
    end(running, Signal::INT, 130);
}

/// Root can become somebody else, and so see how somebody else is received. Who is not root can only see that their
/// own processes are let in, which every other test does.
#[test]
fn other_users_of_this_machine() {
    let Some(stranger) = Stranger::new() else { return };
    let lab = Lab::new();
    let mut running = lab.bastide(ECHO).start();
    let line = running.stderr_line("Tunnel is ready");
    let port = line.rsplit(' ').next().unwrap().parse().unwrap();
    let refused = stranger.greet(port).run();
    assert!(refused.code() != 0 && refused.stdout.is_empty(), "{refused}");
    running.stderr_line("belongs to another user (uid 65534); --allow-other-users lets it in");
    assert_eq!(lab.transcript().upgrades(), 0);
    end(running, Signal::INT, 130);

    let tunnel = Tunnel::start(lab.bastide(ECHO).arg("--allow-other-users"));
    let served = stranger.greet(tunnel.port()).run().expect_code(0);
    assert_eq!(served.text(), "hello\n");
    tunnel.interrupt();
}

/// A VM whose port 20 says six bytes and closes: a connection that is over at once.
fn with_six_bytes() -> Lab {
    Lab::with(
        "[[virtual_machines]]\nname = \"web-01\"\nprivate_ip = \"10.0.0.4\"\nports = { 20 = \"produce:6\" }\n",
    )
}

/// `bastide proxy` that reads them.
#[track_caller]
fn reads_six_bytes(program: Program) -> Outcome {
    let outcome = program.run().expect_code(0);
    assert_eq!(outcome.stdout, [0, 1, 2, 3, 4, 5], "{outcome}");
    outcome
}

#[test]
fn forms_of_flags_and_commands() {
    let lab = with_six_bytes();
    let vm = lab.vm("web-01");
    for line in [
        "proxy --name bastion --resource-group demo --target-resource-id {vm} --resource-port 20",
        "proxy -n bastion -g demo --resource-port 20 {vm}",
        "proxy {vm} --name=bastion --resource-group=demo --resource-port=20",
        "proxy --na bastion --resource-g demo --target-r {vm} --resource-p 20",
        "network bastion proxy --name bastion --resource-group demo --target-resource-id {vm} --resource-port 20",
        "proxy -n bastion --target-resource-id {vm} --resource-port 20",
        "-q proxy -n BASTION -g DEMO --target-resource-id {vm} --resource-port 20",
        "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 20 --keepalive off --max-frame 128",
        "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 20 --connect-timeout 50 --retries 0",
    ] {
        let outcome = reads_six_bytes(lab.bastide(line));
        assert_eq!(outcome.stderr, "", "{line}");
    }
    // Resource ids are the same in any case.
    reads_six_bytes(
        lab.bastide("proxy -n bastion -g demo --resource-port 20")
            .arg(vm.to_uppercase().replace("/SUB", "/sub")),
    );
    // A prefix of two flags is none.
    lab.bastide("proxy -n bastion --resource x {vm}").run().expect_code(2).expect_stderr("--resource");
}

#[test]
fn json_beside_the_bytes_of_a_connection_goes_to_standard_error() {
    let lab = with_six_bytes();
    let line = "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 20 -o json";
    let outcome = reads_six_bytes(lab.bastide(line));
    let mut seen = shapes(&events(&outcome.stderr));
    seen.sort();
    let expected =
        ["closed id reason received seconds sent", "opened id peer", "released id", "stopped leaked"];
    assert_eq!(seen, expected);
}

#[test]
fn quiet_and_verbose() {
    let lab = Lab::new();
    let outcome = lab.bastide(ECHO).words("-q --timeout 1").run().expect_code(124);
    assert_eq!((outcome.stderr.as_str(), outcome.text().as_str()), ("", ""));
    let outcome = lab.bastide(&ECHO.replace("bastion", "basic")).words("-q").run().expect_code(12);
    assert!(outcome.stderr.starts_with("error: "), "{outcome}");

    let tunnel = Tunnel::start(lab.bastide(ECHO).arg("-v"));
    let mut stream = tunnel.connect();
    echo(&mut stream);
    let from = stream.local_addr().unwrap();
    drop(stream);
    lab.wait_for_releases();
    tunnel
        .interrupt()
        .expect_stderr(&format!("connection 1 from {from}"))
        .expect_stderr("connection 1: closed by the local side after ")
        .expect_stderr(" s, 6 bytes sent, 6 received");
    let outcome = lab.bastide(ECHO).words("-vv --timeout 1").run().expect_code(124);
    assert!(outcome.stderr.lines().count() > 5, "{outcome}");
}

#[test]
fn colours() {
    let lab = Lab::new();
    let check = |flags: &str, coloured: bool| {
        let outcome = lab.bastide(&ECHO.replace("bastion", "basic")).words(flags).run().expect_code(12);
        assert_eq!(outcome.stderr.contains("\u{1b}["), coloured, "{flags}: {outcome}");
    };
    check("", false);
    check("--color auto", false);
    check("--color always", true);
    check("--color never", false);
    check("--color always -o json", true);
}

/// The flags that cli.md lists, as far as they belong to the command.
#[test]
fn help_names_every_flag() {
    let lab = Lab::new();
    let place = [
        "-n, --name <BASTION>",
        "-g, --resource-group <GROUP>",
        "--target-resource-id <ID>",
        "--target-ip-address <IP>",
        "--resource-port <PORT>",
        "--subscription <NAME|ID>",
        "[TARGET]",
    ];
    let behaviour = [
        "--timeout <SECONDS>",
        "--idle-timeout <SECONDS>",
        "--keepalive <KEEPALIVE>",
        "--max-frame <BYTES>",
        "--connect-timeout <SECONDS>",
        "--retries <N>",
    ];
    let global = [
        "--cloud <CLOUD>",
        "--tenant <ID>",
        "--credential <KIND>",
        "--client-id <ID>",
        "--ca-bundle <FILE>",
        "--proxy <URL>",
        "-o, --output <OUTPUT>",
        "-v, --verbose",
        "-q, --quiet",
        "--color <COLOR>",
    ];
    let check = |command: &str, own: &[&str]| {
        let outcome = lab.bastide(command).arg("--help").run().expect_code(0);
        let help = outcome.text();
        for flag in place.iter().chain(&behaviour).chain(&global).chain(own) {
            assert!(help.contains(flag), "{command} --help lacks '{flag}': {help}");
        }
        assert!(!help.contains(&lab.env("AZURE_CLIENT_SECRET")) && outcome.stderr.is_empty(), "{outcome}");
    };
    check("ssh", &["--auth-type <TYPE>", "--username <USER>", "--ssh-key <FILE>", "--host-key-check <HOW>"]);
    let ports = ["--port <PORT>", "-L, --forward <SPEC>", "--bind <ADDR>", "--allow-other-users"];
    check("tunnel", &[&ports[..], &["--prefetch <N>", "limit of sessions"]].concat());
    check("proxy", &[]);
    let outcome = lab.bastide("--help").run().expect_code(0);
    for command in ["ssh", "tunnel", "proxy"] {
        assert!(outcome.text().lines().any(|line| line.trim_start().starts_with(command)), "{outcome}");
    }
    let version = lab.bastide("--version").run().expect_code(0).text();
    assert!(version.starts_with("bastide 0."), "{version}");
}

#[test]
fn what_cannot_be_written_is_no_success() {
    let lab = Lab::new();
    let line = lab.file(
        "line",
        format!("exec bastide proxy -n bastion -g demo --target-resource-id {} \"$@\"", lab.vm("web-01")),
    );
    let full = |stream: &str| {
        let words = format!(". {} --resource-port 22 {stream} > /dev/full < /dev/null", line.display());
        lab.program("bash").args(["-c", &words])
    };
    let said = "error: bytes may be missing: the local side failed: No space left on device";
    full("").run().expect_code(1).expect_stderr(said).expect_stderr("hint: ");
    let events = full("-o json").run().expect_code(1);
    assert!(events.stderr.contains("\"code\":1,\"event\":\"error\""), "{events}");
}

#[test]
fn a_line_that_cannot_be_read_is_an_event_too() {
    let lab = Lab::new();
    let check = |line: &str, is_stdout: bool| {
        let outcome = lab.bastide(line).run().expect_code(2);
        let stream = if is_stdout { outcome.text() } else { outcome.stderr.clone() };
        let event = stream.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let event = event.unwrap_or_else(|| panic!("no event: {outcome}"));
        assert_eq!((&event["event"], &event["code"]), (&"error".into(), &2.into()), "{outcome}");
    };
    check("tunnel --nope -o json", true);
    check("completions klingon --output=json", true);
    check("proxy --resource-port abc -o json", false);
    assert_eq!(lab.bastide("tunnel --nope").run().expect_code(2).text(), "");
}
