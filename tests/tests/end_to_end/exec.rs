//! `bastide exec`: a program with a tunnel of its own. Its words and variables, its streams, its status, signals, and
//! time limits. It leaves out what tunnels do (`contract`), and other people's clients (`peers`).

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;

use bastide_tests::{Lab, Program};
use rustix::process::Signal;

fn lab() -> Lab {
    Lab::with_box(r#"7 = "echo", 81 = "refuse""#)
}

/// `bastide exec` up to the program's words.
fn exec(lab: &Lab, flags: &str) -> Program {
    let line = "exec --name bastion --resource-group demo --resource-port 7 --target-resource-id";
    lab.bastide(line).arg(lab.vm("box")).words(flags).arg("--")
}

#[test]
fn the_program_reaches_the_port_by_words_and_variables() {
    let lab = lab();
    let script = r#"exec 3<>"/dev/tcp/$1/$2" && echo "through $1" >&3 && read -r answer <&3 && echo "$answer, $3"
        test "$BASTIDE_HOST:$BASTIDE_PORT" = "$1:$2""#;
    let outcome =
        exec(&lab, "").args(["bash", "-c", script, "me", "{host}", "{port}", "{{port}} {user}"]).run();
    let outcome = outcome.expect_code(0);
    assert_eq!(outcome.text(), "through 127.0.0.1, {port} {user}\n");
    // The terminal is the program's.
    assert_eq!(outcome.stderr, "");
    // The connection has used the mint that proved the tunnel.
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
}

#[test]
fn input_and_status_are_the_programs() {
    let lab = lab();
    let input: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    let outcome = exec(&lab, "").args(["sh", "-c", "cat; exit 7"]).input(input.clone()).run();
    assert!(outcome.expect_code(7).stdout == input);
    exec(&lab, "").args(["sh", "-c", "kill -KILL $$"]).run().expect_code(137);
    exec(&lab, "").args(["sh", "-c", "kill -TERM $$"]).run().expect_code(143);
    // A mint that nobody used is given back, too.
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (3, 3));
}

#[test]
fn a_program_that_cannot_be_run_is_told_before_anything_is_opened() {
    let lab = lab();
    let script = lab.file("script", "#!/no/such/interpreter\n");
    let run = |word: &str| exec(&lab, "").arg(word).run();
    let outcome = run("no-such-program").expect_code(127);
    outcome.expect_stderr("error: there is no 'no-such-program' in PATH").expect_stderr("hint: ");
    run("./no-such-program").expect_code(127).expect_stderr("there is no program './no-such-program'");
    let outcome = run("./script").expect_code(126);
    outcome.expect_stderr("'./script' cannot be run").expect_stderr("chmod +x");
    run("/tmp").expect_code(126);
    assert_eq!(lab.transcript().mints(), 0);
    // What only the kernel finds out.
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = run("./script").expect_code(127);
    outcome.expect_stderr("'./script' cannot be started").expect_stderr("its first line");
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
    let outcome = lab.bastide("exec {vm} -o json --resource-port 7 -- no-such-program").run();
    let event: serde_json::Value =
        serde_json::from_str(outcome.expect_code(127).stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&event["event"], &event["code"]), (&"error".into(), &127.into()));
}

#[test]
fn a_tunnel_that_does_not_work_starts_no_program() {
    let lab = lab();
    let line =
        "exec -n bastion -g demo --target-resource-id /subscriptions/s --resource-port 7 -- touch started";
    lab.bastide(line).run().expect_code(2);
    let line = "exec -n nowhere -g demo --resource-port 7 --target-resource-id";
    lab.bastide(line).arg(lab.vm("box")).words("-- touch started").run().expect_code(13);
    let line = "exec -n bastion -g demo -L ./only.sock:7 --target-resource-id";
    let outcome = lab.bastide(line).arg(lab.vm("box")).words("-- touch started").run().expect_code(2);
    outcome.expect_stderr("name it with --resource-port PORT");
    assert!(!lab.home().join("started").exists());
    assert_eq!(lab.transcript().mints(), 0);
}

#[test]
fn signals_are_the_programs_business() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1] {
        let lab = lab();
        let number = signal.as_raw();
        let script =
            format!("trap 'echo caught; exit 9' {number}; echo ready; while :; do read -r line; done");
        let mut running = exec(&lab, "").args(["bash", "-c", &script]).start();
        let (stdin, stdout) = running.pipes();
        let mut lines = BufReader::new(stdout).lines().map(|line| line.unwrap());
        assert_eq!(lines.next().unwrap(), "ready");
        running.signal(signal);
        assert_eq!(lines.next().unwrap(), "caught", "signal {number}");
        running.finish().expect_code(9);
        drop(stdin);
        assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
    }
}

#[test]
fn a_program_without_an_opinion_ends_by_the_signal() {
    let lab = lab();
    let mut running = exec(&lab, "").args(["sh", "-c", "echo ready; exec cat"]).start();
    let (stdin, mut stdout) = running.pipes();
    stdout.read_exact(&mut [0; 6]).unwrap();
    running.signal(Signal::TERM);
    running.finish().expect_code(143);
    drop(stdin);
    // It has no other one who would end it.
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
}

#[test]
fn a_signal_while_the_tunnel_is_being_opened_starts_no_program() {
    use bastide_emulator::faults::Fault;
    use bastide_emulator::transcript::Kind;

    let lab = lab();
    lab.emulator().set_faults([Fault::Hold { on: Kind::Arm.into() }]);
    let running = exec(&lab, "").args(["touch", "started"]).start();
    lab.wait_for(|transcript| transcript.struck("hold") == 1);
    running.signal(Signal::INT);
    running.finish().expect_code(130);
    assert!(!lab.home().join("started").exists());
}

#[test]
fn the_tunnels_time_is_the_programs_time() {
    let lab = lab();
    for flag in ["--timeout", "--idle-timeout"] {
        let mut running =
            exec(&lab, &format!("{flag} 1")).args(["bash", "-c", "trap 'exit 3' TERM; read -r line"]).start();
        let (stdin, stdout) = running.pipes();
        running.finish().expect_code(124).expect_stderr(flag);
        drop((stdin, stdout));
    }
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (2, 2));
}

#[test]
fn events_go_to_standard_error() {
    let lab = lab();
    let script = r#"exec 3<>"/dev/tcp/$BASTIDE_HOST/$BASTIDE_PORT" && echo hello >&3 && head -n 1 <&3"#;
    let outcome = exec(&lab, "-o json -L ./further.sock:7").args(["bash", "-c", script]).run().expect_code(0);
    assert_eq!(outcome.text(), "hello\n");
    let names: Vec<String> = outcome
        .stderr
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].to_string())
        .collect();
    for name in ["listening", "ready", "opened", "closed", "released", "stopped"] {
        assert!(names.contains(&format!("\"{name}\"")), "{name}: {outcome}");
    }
}

#[test]
fn several_connections_at_once() {
    let lab = lab();
    let script = r#"for n in 3 4 5; do eval "exec $n<>/dev/tcp/{host}/{port}"; done
        for n in 5 4 3; do eval "echo line-$n >&$n; read -r answer <&$n"; echo "$answer"; done"#;
    let outcome = exec(&lab, "").args(["bash", "-c", script]).run().expect_code(0);
    assert_eq!(outcome.text(), "line-5\nline-4\nline-3\n");
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (3, 3));
}

#[test]
fn ctrl_c_reaches_the_program_once() {
    let lab = lab();
    // script(1) gives them a terminal. The program counts, and ends by itself at the end of its input.
    let script = "count=0; trap 'count=$((count+1)); echo caught' INT; echo ready; \
                  while IFS= read -r line || [ $? -gt 128 ]; do [ \"$line\" = end ] && break; done; echo \"counted $count\"";
    let script = lab.file("count.sh", script);
    let line = format!(
        "exec bastide exec -n bastion -g demo --resource-port 7 --target-resource-id {} -- bash {}",
        lab.vm("box"),
        script.display()
    );
    let mut running = lab.program("script").args(["-qec", &line, "/dev/null"]).start();
    let (mut keys, screen) = running.pipes();
    let mut lines = BufReader::new(screen).lines().map(|line| line.unwrap());
    let mut next =
        |text: &str| lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("no '{text}'"));
    next("ready");
    keys.write_all(b"\x03").unwrap();
    next("caught");
    keys.write_all(b"end\n").unwrap();
    next("counted 1");
    assert_eq!(running.wait().code(), Some(0));
}
