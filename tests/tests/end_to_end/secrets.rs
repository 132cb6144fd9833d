//! That no secret leaves the process by another way than the wire: nothing of it in anything that is printed, however
//! much is asked for, nor in the arguments and variables of a process, nor in a file outside the store.

use std::io::{Read, Write};
use std::path::Path;

use bastide_emulator::Surroundings;
use bastide_tests::{Lab, Outcome, Program, Running, Tinyproxy, Tunnel};
use rustix::process::Signal;

use crate::aad::personal;

/// What nobody may see: the client's secret, the VM's password, any token of Entra ID (the beginning of every JWT, RFC
/// 7519 §3.1), the refresh token in the store, the tokens of the data plane that were handed out and paths that hold
/// one, device codes, private keys, the proxy's password, plain and as RFC 7617 sends it.
fn secrets(lab: &Lab) -> Vec<String> {
    let known = [
        "eyJ",
        "webtunnelv2/",
        "omni/webtunnel/",
        "api/tokens/",
        Tinyproxy::PASSWORD,
        "bWU6cHIweHktczNjcmV0",
        "PRIVATE KEY",
        // "openssh-key-v1", OpenSSH's own form (PROTOCOL.key), in base64.
        "b3BlbnNzaC1rZXktdj",
    ];
    let own = ["AZURE_CLIENT_SECRET", "BASTIDE_EMULATOR_VM_PASSWORD"].map(|name| lab.env(name));
    let handed_out = lab.emulator().secrets();
    known.into_iter().map(str::to_owned).chain(own).chain(handed_out).chain(refresh_token(lab)).collect()
}

/// The refresh token in the store, which changes with every use.
fn refresh_token(lab: &Lab) -> Option<String> {
    let store = std::fs::read(lab.home().join(STORE)).ok()?;
    let store: serde_json::Value = serde_json::from_slice(&store).unwrap();
    let token = store.pointer("/accounts/0/refresh_token")?.as_str().unwrap();
    assert!(token.len() > 16, "a refresh token is long");
    Some(token.to_owned())
}

const STORE: &str = ".local/state/bastide/sign-in.json";

#[track_caller]
fn shows_none(lab: &Lab, what: &str, text: &str) {
    for secret in secrets(lab) {
        assert!(!text.contains(&secret), "'{secret}' is in {what}: {text}");
    }
}

#[track_caller]
fn outcome_shows_none(lab: &Lab, outcome: &Outcome) {
    streams_show_none(lab, outcome);
    assert!(outcome.stderr.contains("TRACE"), "-vvv says nothing: {outcome}");
}

#[track_caller]
fn streams_show_none(lab: &Lab, outcome: &Outcome) {
    shows_none(lab, "standard output", &outcome.text());
    shows_none(lab, "standard error", &outcome.stderr);
}

/// The files of a process's folder in proc(5) with these names, and of all that it has started.
fn below(id: u32, names: &[&str]) -> String {
    let read =
        |path: String| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    let mut all = String::new();
    for name in names {
        all.push_str(&read(format!("/proc/{id}/{name}")).unwrap_or_default());
        all.push('\n');
    }
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = read(format!("{}/children", task.path().display())).unwrap_or_default();
        for child in children.split_whitespace() {
            all.push_str(&below(child.parse().unwrap(), names));
        }
    }
    all
}

/// Arguments and variables of a process and of all that it has started.
pub(crate) fn shown_below(id: u32) -> String {
    below(id, &["cmdline", "environ"])
}

/// No file in a folder, or further below, holds a secret; the stores are passed over.
#[track_caller]
fn files_show_none(lab: &Lab, folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_store = path.ends_with(STORE);
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            files_show_none(lab, &path);
        } else if kind.is_file() && !is_store {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            shows_none(lab, &path.display().to_string(), &text);
        }
    }
}

#[track_caller]
fn arguments_show_none(lab: &Lab, running: &Running, expected: &str) {
    let arguments = below(running.id(), &["cmdline"]);
    assert!(arguments.contains(expected), "'{expected}' does not run: {arguments}");
    shows_none(lab, "the arguments of a process", &arguments);
}

/// Through a proxy with a password, told by the environment, which only the user can read.
fn talkative(lab: &Lab, proxy: &Tinyproxy, line: &str) -> Program {
    lab.bastide(line).arg("-vvv").env("HTTPS_PROXY", proxy.url())
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
    let line = "proxy -n developer -g demo --target-resource-id {vm} --resource-port 81 -vvv --retries 1";
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

/// Holds a session open, and looks at everything that it shows.
#[track_caller]
fn session_shows_none(lab: &Lab, program: Program, first_line: &str) -> Outcome {
    // The user's own variables are no doing of ours: without them, the others can be told.
    let program = personal(program).env_remove("BASTIDE_EMULATOR_VM_PASSWORD");
    let mut running = program.arg("echo hello; cat").start();
    let (mut stdin, mut stdout) = running.pipes();
    stdin.write_all(first_line.as_bytes()).unwrap();
    let mut hello = [0; 6];
    stdout.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello\n");
    let shown = shown_below(running.id());
    assert!(shown.contains("ProxyCommand="), "{shown}");
    shows_none(lab, "the arguments and variables of a process", &shown);
    drop(stdin);
    let outcome = running.finish().expect_code(0);
    outcome_shows_none(lab, &outcome);
    files_show_none(lab, lab.home());
    outcome
}

#[test]
fn a_persons_sign_in_and_session_with_everything_said() {
    let lab = Lab::with("[sign_in]\ndevice_code_interval_seconds = 0\n");
    let login = personal(lab.bastide("login --no-browser -vvv -o json"));
    // The emulator's environment has it for the tests' sake.
    let mut login = login.env_remove("BASTIDE_EMULATOR_VM_PASSWORD").start();
    let code = login.event("code");
    // While it stands, the emulator knows it.
    let device_codes = lab.emulator().secrets();
    assert_eq!(device_codes.len(), 1);
    let shown = shown_below(login.id());
    shows_none(&lab, "the arguments and variables of a process", &shown);
    lab.emulator().approve_device_code(code["code"].as_str().unwrap(), "ada@emulator.example").unwrap();
    let outcome = login.finish().expect_code(0);
    outcome_shows_none(&lab, &outcome);
    assert!(!outcome.text().contains(&device_codes[0]) && !outcome.stderr.contains(&device_codes[0]));
    files_show_none(&lab, lab.home());
    // What the store holds it keeps to itself.
    let store = lab.home().join(STORE);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&store).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(std::fs::read_to_string(&store).unwrap().contains("eyJ"));

    let first = refresh_token(&lab).unwrap();
    let line = "ssh -n bastion -g demo --auth-type AAD --target-resource-id {vm} -vvv -- -F none";
    let outcome = session_shows_none(&lab, lab.bastide(line), "");
    // The certificate was asked for with the refresh token, and brought its successor.
    assert_ne!(refresh_token(&lab).unwrap(), first);
    assert!(!outcome.stderr.contains(&first), "{outcome}");
    for line in ["account -vvv", "account -vvv -o json", "logout -vvv"] {
        // Some of them have little to say.
        streams_show_none(&lab, &personal(lab.bastide(line)).run().expect_code(0));
    }
    files_show_none(&lab, lab.home());
}

#[test]
fn a_session_by_password_with_everything_said() {
    let lab = crate::aad::lab_of("ada@emulator.example", "");
    crate::aad::log_in(&lab);
    let line = "ssh -n bastion -g demo --password-stdin --username azureuser --target-resource-id {vm} -vvv -- -F none";
    let first_line = format!("{}\n", lab.env("BASTIDE_EMULATOR_VM_PASSWORD"));
    session_shows_none(&lab, lab.bastide(line), &first_line);
}

#[test]
fn a_refused_sign_in_with_everything_said() {
    let lab = crate::aad::lab_of("ada@emulator.example", "");
    crate::aad::log_in(&lab);
    lab.emulator().end_refresh_tokens(bastide_emulator::RefreshEnd::Revoked);
    let line = "ssh -n bastion -g demo --auth-type AAD --target-resource-id {vm} -vvv";
    outcome_shows_none(&lab, &personal(lab.bastide(line)).run().expect_code(10));
}

#[test]
fn a_key_in_files_with_everything_said() {
    let lab = crate::aad::lab_of("ada@emulator.example", "");
    crate::aad::log_in(&lab);
    let folder = lab.home().join("entra");
    let program = personal(lab.bastide("ssh-cert -vvv -o json --write")).arg(&folder);
    outcome_shows_none(&lab, &program.run().expect_code(0));
    // That is where it belongs, and nowhere else.
    std::fs::remove_dir_all(&folder).unwrap();
    files_show_none(&lab, lab.home());
}

#[test]
fn sign_ins_of_programs_with_everything_said() {
    let lab = Lab::new();
    let check = |program: Program, planted: &[String]| {
        let outcome = program.run().expect_code(0);
        outcome_shows_none(&lab, &outcome);
        for secret in planted {
            let shown = outcome.text().contains(secret) || outcome.stderr.contains(secret);
            assert!(!secret.is_empty() && !shown, "'{secret}' is in {outcome}");
        }
        files_show_none(&lab, lab.home());
    };
    let bare = |line: &str| crate::identity::bare(lab.bastide(line)).env("PATH", "/usr/bin:/bin");
    for place in Surroundings::ALL {
        let variables = lab.emulator().surroundings(place);
        let is_secret =
            |name: &str| ["HEADER", "ACCESSTOKEN", "REQUEST_TOKEN"].iter().any(|end| name.ends_with(end));
        let mut planted: Vec<String> =
            variables.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone()).collect();
        if let Some((_, path)) = variables.iter().find(|(name, _)| name == "AZURE_CLIENT_CERTIFICATE_PATH") {
            // The key's lines of base64 (RFC 7468): each would be too much.
            let pem = std::fs::read_to_string(path).unwrap();
            let (_, key) = pem.split_once("PRIVATE KEY-----").unwrap();
            planted.extend(key.lines().skip(1).take_while(|line| !line.starts_with('-')).map(str::to_owned));
        }
        let program =
            variables.iter().fold(bare("account -vvv"), |program, (name, value)| program.env(name, value));
        check(program, &planted);
    }
    let machine = bare("account -vvv --credential managed-identity");
    check(machine.env("BASTIDE_IMDS_ENDPOINT", lab.emulator().identity_url()), &[]);
    let secret = lab.env("AZURE_CLIENT_SECRET");
    check(lab.bastide("account -vvv --credential client-secret"), &[secret]);
    let prints = "echo 't0p-s3cret of the vault' >&2; echo '{\"access_token\": \"pr1nted-t0ken\", \"expires_on\": 4102444800}'";
    let exec = bare("account -vvv --credential exec --exec-command").arg(prints);
    check(exec, &["pr1nted-t0ken".to_owned(), "t0p-s3cret".to_owned()]);
}
