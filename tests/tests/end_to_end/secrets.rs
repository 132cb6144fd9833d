//! That no secret leaves the process by another way than the wire: nothing of it in anything that is printed, however
//! much is asked for, nor in the arguments of a process, which every user of the machine can read.

use std::io::{Read, Write};

use bastide_tests::{Lab, Outcome, Program, Running, Tinyproxy, Tunnel};
use rustix::process::Signal;

/// What nobody may see: the client's secret, any token of Entra ID (the beginning of every JWT, RFC 7519 §3.1), paths
/// that hold a token of the data plane, the proxy's password, plain and as RFC 7617 sends it.
fn secrets(lab: &Lab) -> Vec<String> {
    let known = [
        "eyJ",
        "webtunnelv2/",
        "omni/webtunnel/",
        "api/tokens/",
        Tinyproxy::PASSWORD,
        "bWU6cHIweHktczNjcmV0",
    ];
    known.into_iter().map(str::to_owned).chain([lab.env("AZURE_CLIENT_SECRET")]).collect()
}

#[track_caller]
fn shows_none(lab: &Lab, what: &str, text: &str) {
    for secret in secrets(lab) {
        assert!(!text.contains(&secret), "'{secret}' is in {what}: {text}");
    }
}

#[track_caller]
fn outcome_shows_none(lab: &Lab, outcome: &Outcome) {
    shows_none(lab, "standard output", &outcome.text());
    shows_none(lab, "standard error", &outcome.stderr);
    assert!(outcome.stderr.contains("DEBUG"), "-vv says nothing: {outcome}");
}

/// The arguments of a process and of all that it has started.
fn arguments_below(id: u32) -> String {
    let read =
        |path: String| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    let mut all = read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = read(format!("{}/children", task.path().display())).unwrap_or_default();
        for child in children.split_whitespace() {
            all.push('\n');
            all.push_str(&arguments_below(child.parse().unwrap()));
        }
    }
    all
}

#[track_caller]
fn arguments_show_none(lab: &Lab, running: &Running, expected: &str) {
    let arguments = arguments_below(running.id());
    assert!(arguments.contains(expected), "'{expected}' does not run: {arguments}");
    shows_none(lab, "the arguments of a process", &arguments);
}

/// Through a proxy with a password, told by the environment, which only the user can read.
fn talkative(lab: &Lab, proxy: &Tinyproxy, line: &str) -> Program {
    lab.bastide(line).arg("-vv").env("HTTPS_PROXY", proxy.url())
}

#[test]
fn a_tunnel_with_everything_said() {
    let (lab, proxy) = (Lab::new(), Tinyproxy::start());
    for port in ["7", "81"] {
        let line = format!("tunnel -n bastion -g demo --target-resource-id {{vm}} --resource-port {port}");
        let tunnel = Tunnel::start(talkative(&lab, &proxy, &line));
        let mut stream = tunnel.connect();
        stream.write_all(b"hello").unwrap();
        // Echoed or refused.
        let _ = stream.read(&mut [0; 5]);
        arguments_show_none(&lab, tunnel.running(), "tunnel");
        outcome_shows_none(&lab, &tunnel.interrupt());
    }
}

#[test]
fn a_connection_through_a_data_pod_with_everything_said() {
    // The proxy's resolver knows nothing of names below `localhost`.
    let lab = Lab::new();
    let line = "proxy -n developer -g demo --target-resource-id {vm} --resource-port 81 -vv --retries 1";
    outcome_shows_none(&lab, &lab.bastide(line).run().expect_code(22));
}

#[test]
fn one_connection_with_everything_said() {
    let (lab, proxy) = (Lab::new(), Tinyproxy::start());
    let line = "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 7 -o json";
    let mut running = talkative(&lab, &proxy, line).start();
    let (mut stdin, mut stdout) = running.pipes();
    stdin.write_all(b"hello").unwrap();
    stdout.read_exact(&mut [0; 5]).unwrap();
    arguments_show_none(&lab, &running, "proxy");
    running.signal(Signal::INT);
    outcome_shows_none(&lab, &running.finish().expect_code(130));
}

#[test]
fn a_session_with_everything_said() {
    let (lab, proxy) = (Lab::new(), Tinyproxy::start());
    let key = lab.key().display().to_string();
    let line =
        format!("ssh -n bastion -g demo {{vm}} --auth-type ssh-key --username azureuser --ssh-key {key}");
    // With and without a connection that outlives the command, which then lives in a process of its own.
    for shared in ["ControlMaster=no", "ControlMaster=auto"] {
        let control = format!("ControlPath={}/master-%C", lab.home().display());
        let program = talkative(&lab, &proxy, &line).args([
            "--",
            "-o",
            shared,
            "-o",
            "ControlPersist=1",
            "-o",
            &control,
            "echo hello; cat",
        ]);
        let mut running = program.start();
        let (stdin, mut stdout) = running.pipes();
        let mut hello = [0; 6];
        stdout.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello\n");
        arguments_show_none(&lab, &running, "ssh -o ProxyCommand=");
        drop(stdin);
        outcome_shows_none(&lab, &running.finish().expect_code(0));
        lab.wait_for_releases();
    }
}

#[test]
fn failures_with_everything_said() {
    let (lab, proxy) = (Lab::new(), Tinyproxy::start());
    let line = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 22 --retries 0";
    let check = |program: Program, code: i32| {
        let outcome = program.run().expect_code(code);
        outcome_shows_none(&lab, &outcome);
        assert!(!outcome.stderr.contains("wr0ng"), "{outcome}");
    };
    check(talkative(&lab, &proxy, line).env("AZURE_CLIENT_SECRET", "wr0ng-s3cret"), 10);
    check(talkative(&lab, &proxy, line).env("HTTPS_PROXY", proxy.url_for("me:wr0ng@")), 20);
    check(talkative(&lab, &proxy, &line.replace("{vm}", &lab.vm("no-such-vm"))), 21);
    check(talkative(&lab, &proxy, &line.replace("-n bastion", "-n nowhere")), 13);
}
