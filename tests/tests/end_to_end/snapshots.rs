//! What people read, word for word: each `-h` and `--help`, and an error for each row of the table of exit codes (cli.md).
//! `UPDATE_EXPECT=1` writes the files anew; a difference in them is a change of the contract.

use std::path::PathBuf;

use bastide_emulator::faults::{Body, Fault};
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Outcome, Program};
use expect_test::ExpectFile;
use rustix::process::Signal;

fn file(folder: &str, name: &str) -> ExpectFile {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("snapshots").join(folder);
    expect_test::expect_file![path.join(format!("{name}.txt"))]
}

#[test]
fn every_help_page() {
    let lab = Lab::new();
    let pages = |words: &str| {
        let page = |flag: &str| {
            let text = lab.bastide(words).arg(flag).run().expect_code(0).text();
            // Blanks at the ends of lines are clap's.
            text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>()
        };
        let (short, long) = (page("-h"), page("--help"));
        (short.clone(), format!("$ bastide {words} -h\n{short}\n$ bastide {words} --help\n{long}"))
    };
    let (overview, page) = pages("");
    file("help", "bastide").assert_eq(&page.replace("bastide  -", "bastide -"));
    let commands = overview.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().unwrap();
        file("help", name).assert_eq(&pages(name).1);
    }
}

/// What differs from run to run.
fn plain(lab: &Lab, outcome: &Outcome) -> String {
    let mut text = outcome.stderr.replace(&*lab.home().to_string_lossy(), "HOME");
    text = text.replace(&*lab.emulator().state().to_string_lossy(), "STATE");
    let port = lab.env("BASTIDE_CLOUD").rsplit(':').next().unwrap().to_owned();
    text = text.replace(&port, "PORT");
    let line = |line: &str| {
        let id = ["request id: ", "request id ", "correlation id ", "valid from "]
            .iter()
            .find(|words| line.contains(**words));
        match id.and_then(|words| line.split_once(*words).map(|(before, _)| (before, words))) {
            Some((before, words)) => format!("{before}{words}…\n"),
            None => format!("{line}\n"),
        }
    };
    let text: String = text.lines().map(line).collect();
    let shown = if outcome.stdout.is_empty() { "" } else { "standard output is not empty\n" };
    format!("{text}{shown}exit code {}\n", outcome.code())
}

const AT: &str = "-n bastion -g demo --target-resource-id {vm}";

#[test]
fn an_error_for_each_exit_code() {
    let lab = Lab::new();
    let check = |name: &str, program: Program| {
        file("errors", name).assert_eq(&plain(&lab, &program.run()));
    };
    let tunnel = |more: &str| lab.bastide(&format!("tunnel {AT} --resource-port 7 {more}"));
    let on_host = |host: &str| lab.bastide(&format!("tunnel {AT} --resource-port 7 -n {host}"));

    check("1-a-full-disk", lab.program("bash").args(["-c", "bastide config show > /dev/full"]));
    let ssh = lab.bastide(&format!("ssh {AT}"));
    check("2-no-place-for-host-keys", ssh.env("XDG_STATE_HOME", lab.file("taken", "")));
    check("2-no-vm", lab.bastide("tunnel -n bastion -g demo --resource-port 22"));
    check("2-unknown-flag", tunnel("--resource-prot 22"));
    check("2-unknown-value", tunnel("--keepalive sometimes"));
    check("10-wrong-secret", tunnel("--no-cache").env("AZURE_CLIENT_SECRET", "wrong"));
    check("10-no-azure-cli", tunnel("--no-cache --credential azure-cli").env("PATH", lab.home()));
    check("12-basic-sku", on_host("basic"));
    check("12-tunneling-off", on_host("no-tunneling"));
    check("12-session-recording", on_host("recording"));
    check("12-ip-connect-off", lab.bastide("tunnel -n no-ip-connect -g demo 10.0.0.4 --resource-port 22"));
    check("13-no-such-bastion", on_host("nowhere"));
    check("13-no-such-subscription", lab.bastide("proxy -n bastion -g demo 10.0.0.4 --subscription nowhere"));
    let off = lab.vm("off-01");
    check("13-the-vm-is-off", lab.bastide("proxy -n bastion -g demo --target-resource-id").arg(off));
    check(
        "20-unknown-authority",
        tunnel("--no-cache").env_remove("SSL_CERT_FILE").env_remove("REQUESTS_CA_BUNDLE"),
    );
    check(
        "20-no-proxy-there",
        tunnel("--no-cache --proxy http://127.0.0.1:9").env_remove("NO_PROXY").env_remove("no_proxy"),
    );
    check("22-the-port-is-closed", lab.bastide(&format!("proxy {AT} --resource-port 81")));
}

#[test]
fn a_missing_right_and_a_sick_service() {
    let mut lab = Lab::with(
        "[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\n\
         object_id = \"55555555-5555-4555-8555-555555555555\"\ntenant = \"emulator.example\"\nroles = []\n",
    );
    let outcome = lab.bastide(&format!("tunnel {AT} --resource-port 7")).run();
    file("errors", "11-no-reader").assert_eq(&plain(&lab, &outcome));
    lab.forgive();
    drop(lab);

    let lab = Lab::new();
    let status = |status, body| Fault::Status {
        on: Kind::Mint.into(),
        status,
        body,
        message: "Unexpected internal error".into(),
        retry_after: None,
    };
    for (name, fault) in
        [("21-unavailable", status(503, Body::Html)), ("21-catch-all", status(500, Body::Json))]
    {
        lab.emulator().set_faults([fault]);
        let outcome = lab.bastide(&format!("proxy {AT} --resource-port 7 --retries 0")).run();
        file("errors", name).assert_eq(&plain(&lab, &outcome));
    }
    lab.emulator().set_faults(Vec::<Fault>::new());
}

#[test]
fn ends_that_the_user_asked_for() {
    let lab = Lab::new();
    let line = format!("tunnel {AT} --resource-port 7 --port 0");
    let outcome = lab.bastide(&format!("{line} --timeout 1")).run();
    let local = |text: String| {
        let line = |line: &str| match line.rsplit_once(' ') {
            Some((before, port)) if before.contains("port") && port.parse::<u16>().is_ok() => {
                format!("{before} PORT\n")
            }
            _ => format!("{line}\n"),
        };
        text.lines().map(line).collect::<String>()
    };
    file("errors", "124-timeout").assert_eq(&local(plain(&lab, &outcome)));
    for (name, signal) in [("130-sigint", Signal::INT), ("143-sigterm", Signal::TERM)] {
        let mut running = lab.bastide(&line).start();
        running.stderr_line("Ctrl + C to close");
        running.signal(signal);
        file("errors", name).assert_eq(&local(plain(&lab, &running.finish())));
    }
}
