//! `bastide rdp`: what RDP clients are given, how long the way to the VM is open, what is written, and what is refused.
//! The clients here are scripts; a real one, on a real desktop, is in `rdp_desktop`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bastide_emulator::faults::{Fault, Order};
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Program, Running};
use rustix::process::Signal;

use crate::refusals::check;

/// Writes down what it was given, sends a line through the tunnel, and ends as `STATUS` says.
const TALKS: &str = r#"
printf '%s\n' "$@" > argv; cp "$1" seen.rdp; stat -c %a "$1" > mode
for word in "$@"; do case $word in /v:*) address=${word#/v:};; esac; done
if [ "$address" ]; then
    exec 3<>"/dev/tcp/${address%:*}/${address#*:}" && echo hello >&3 && read -r answer <&3 && echo "$answer" > answer
fi
echo "a client's noise"
exit ${STATUS:-0}"#;

/// Says that it is there, and stays.
const STAYS: &str = r#"trap 'exit 0' TERM; echo "here" >&2; while :; do read -r line; done"#;

/// Puts scripts of these names where nothing else is.
fn install(lab: &Lab, scripts: &[(&str, &str)]) {
    let folder = lab.home().join("bin");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, script) in scripts {
        let path = folder.join(name);
        let script = format!("#!/bin/bash\nPATH=/usr/bin:/bin; cd \"$HOME\"\n{script}\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// `bastide rdp` on the echo of `web-01`, with a display and the scripts alone.
fn rdp(lab: &Lab, flags: &str) -> Program {
    let line = format!("rdp --name bastion --resource-group demo --resource-port 7 {flags}");
    lab.bastide(&line).env("PATH", lab.home().join("bin")).env("DISPLAY", ":9")
}

fn read(lab: &Lab, name: &str) -> String {
    std::fs::read_to_string(lab.home().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The port in a file for a tunnel, whose lines are those of protocol.md §6.
#[track_caller]
fn port_in(file: &str, more: &str) -> u16 {
    let port: u16 =
        file.split_once("full address:s:localhost:").unwrap().1.lines().next().unwrap().parse().unwrap();
    let expected = format!(
        "full address:s:localhost:{port}\r\nalternate full address:s:localhost:{port}\r\nuse multimon:i:0\r\n{more}"
    );
    assert_eq!(file, expected);
    port
}

/// Somebody connects to a port of this machine, and is heard.
fn echo(port: u16) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

fn saved(running: &mut Running, lab: &Lab, name: &str, more: &str) -> u16 {
    running.stderr_line(&format!("Saved {name}: it works as long as this tunnel is open"));
    running.stderr_line("Ctrl + C to close");
    port_in(&read(lab, name), more)
}

#[test]
fn a_client_has_a_tunnel_for_as_long_as_it_runs() {
    let lab = Lab::new();
    install(&lab, &[("xfreerdp", TALKS), ("remmina", "exit 9")]);
    let outcome = rdp(&lab, "--username CORP\\ada {vm} -- /f /size:800x600").run().expect_code(0);
    // What it says is no data of ours.
    assert!(outcome.stdout.is_empty() && outcome.stderr.contains("a client's noise"), "{outcome}");
    let file = read(&lab, "seen.rdp");
    let port = port_in(&file, "username:s:CORP\\ada\r\n");
    let argv = read(&lab, "argv");
    let words: Vec<&str> = argv.lines().collect();
    let identity = "web-01.vm.demo.22222222-2222-4222-8222-222222222222";
    let (tunnel, certificate) = (format!("/v:127.0.0.1:{port}"), format!("/cert:tofu,name:{identity}"));
    assert!(words[0].ends_with("/web-01.rdp"), "{argv}");
    assert_eq!(words[1..], ["/t:web-01", &tunnel, &certificate, "/f", "/size:800x600"]);
    // Nobody else could read it, and it is gone.
    assert_eq!((read(&lab, "mode").as_str(), Path::new(words[0]).exists()), ("600\n", false));
    assert_eq!(read(&lab, "answer"), "hello\n");
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    // The connection has used the mint that proved the tunnel.
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (1, 1));
}

#[test]
fn a_name_is_enough() {
    let lab = Lab::new();
    install(&lab, &[("xfreerdp", TALKS)]);
    let rdp = |flags: &str| {
        let program = lab.bastide(&format!("rdp web-01 -n bastion -g demo --resource-port 7 {flags}"));
        program.env("PATH", lab.home().join("bin")).env("DISPLAY", ":9")
    };
    rdp("").run().expect_code(0);
    assert_eq!(read(&lab, "answer"), "hello\n");
    // Where an earlier run has found the VM, a mint proves the place; it is given back.
    rdp("--disable-gateway false").run().expect_code(0);
    assert!(read(&lab, "seen.rdp").contains("gatewayaccesstoken:s:"));
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (2, 2));
}

#[test]
fn a_session_that_is_over_is_no_failure() {
    let lab = Lab::new();
    install(&lab, &[("xfreerdp", TALKS)]);
    // XF_EXIT_CODE: disconnected, logged off, left by the user.
    for status in ["1", "2", "11"] {
        rdp(&lab, "{vm}").env("STATUS", status).run().expect_code(0);
    }
    // A certificate that has changed, a wrong password: 143 and 130 would be signals.
    for status in ["143", "132"] {
        let outcome = rdp(&lab, "{vm}").env("STATUS", status).run().expect_code(255);
        outcome.expect_stderr(&format!("warning: xfreerdp ended with status {status}\n"));
    }
}

#[test]
fn the_first_client_that_is_there_is_taken() {
    let lab = Lab::new();
    let names = ["remmina", "sdl-freerdp", "sdl-freerdp3", "xfreerdp", "xfreerdp3"];
    for name in names {
        install(&lab, &[(name, &format!("echo started {name} >&2; exit 9"))]);
        let outcome = rdp(&lab, "{vm}").run().expect_stderr(&format!("started {name}\n"));
        outcome.expect_code(if name == "remmina" { 9 } else { 255 });
    }
    // A file that cannot be run is no client.
    std::fs::set_permissions(lab.home().join("bin/xfreerdp3"), std::fs::Permissions::from_mode(0o644))
        .unwrap();
    rdp(&lab, "{vm}").run().expect_code(255).expect_stderr("started xfreerdp\n");
}

/// Remmina gives a file to the Remmina that runs already, and ends.
#[test]
fn who_hands_over_leaves_the_tunnel_open() {
    let lab = Lab::new();
    install(&lab, &[("remmina", "printf '%s\\n' \"$@\" > argv; cp \"$2\" seen.rdp; exit 0")]);
    let mut running = rdp(&lab, "{vm}").start();
    running.stderr_line("remmina has taken over; Ctrl + C when the session is over");
    let argv = read(&lab, "argv");
    let [flag, file] = argv.lines().collect::<Vec<_>>()[..] else { panic!("{argv}") };
    assert!(flag == "-c" && Path::new(file).exists(), "{argv}");
    echo(port_in(&read(&lab, "seen.rdp"), ""));
    running.signal(Signal::INT);
    running.finish().expect_code(130);
    assert!(!Path::new(file).exists());
}

#[test]
fn without_a_client_the_user_is_told_how_to_connect() {
    let lab = Lab::new();
    install(&lab, &[]);
    for (display, reason) in [
        (":9", "there is no RDP client in PATH (xfreerdp3, xfreerdp, sdl-freerdp3, sdl-freerdp, remmina)"),
        ("", "there is no display to show a desktop on"),
    ] {
        let mut running = rdp(&lab, "{vm}").env("DISPLAY", display).start();
        running.stderr_line(reason);
        let line = running.stderr_line("Connect with any RDP client of this machine to localhost:");
        running.stderr_line("Ctrl + C to close");
        echo(line.rsplit(':').next().unwrap().parse().unwrap());
        running.signal(Signal::TERM);
        running.finish().expect_code(143);
    }
    // Words for a client, and a gateway that only a client can use.
    check(rdp(&lab, "{vm} -- /f"), 2, "there is no RDP client in PATH", "--save");
    check(
        rdp(&lab, "{vm} --disable-gateway false"),
        2,
        "there is no RDP client in PATH",
        "apt-get install freerdp3-x11",
    );
    assert_eq!(lab.transcript().count(Kind::RdpFile), 0);
}

#[test]
fn a_file_for_a_tunnel_is_good_for_the_next_one_too() {
    let lab = Lab::new();
    // A client that is there does not matter.
    install(&lab, &[("xfreerdp", "exit 9")]);
    let start = || rdp(&lab, "{vm} --save web.rdp --username ada").start();
    let mut first = start();
    let port = saved(&mut first, &lab, "web.rdp", "username:s:ada\r\n");
    assert_eq!(mode(&lab.home().join("web.rdp")), 0o600);
    echo(port);
    // A second session with the same VM has a port of its own.
    let mut second = start();
    assert_ne!(saved(&mut second, &lab, "web.rdp", "username:s:ada\r\n"), port);
    for running in [first, second] {
        running.signal(Signal::INT);
        running.finish().expect_code(130);
    }
    let mut third = start();
    assert_eq!(saved(&mut third, &lab, "web.rdp", "username:s:ada\r\n"), port);
    third.signal(Signal::INT);
    third.finish().expect_code(130);
    // It is the user's now.
    assert!(lab.home().join("web.rdp").exists());
}

#[test]
fn a_port_that_is_asked_for_is_the_one() {
    let lab = Lab::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let asked = || rdp(&lab, &format!("{{vm}} --save web.rdp --port {port}"));
    check(asked(), 2, &format!("127.0.0.1:{port}"), "");
    drop(taken);
    let mut running = asked().start();
    assert_eq!(saved(&mut running, &lab, "web.rdp", ""), port);
    running.signal(Signal::INT);
    running.finish().expect_code(130);
    let mut running = rdp(&lab, "{vm} --save web.rdp --port 0 -o json").start();
    let address = running.event("ready")["address"].as_str().unwrap().to_owned();
    echo(address.rsplit(':').next().unwrap().parse().unwrap());
    running.signal(Signal::INT);
    running.finish().expect_code(130);
}

#[test]
fn the_gateways_file_goes_to_the_client() {
    let lab = Lab::new();
    install(&lab, &[("xfreerdp", TALKS)]);
    let outcome = rdp(&lab, "{vm} --disable-gateway false --username ada -vvv -- /f").run().expect_code(0);
    let file = read(&lab, "seen.rdp");
    let secret = file.split_once("gatewayaccesstoken:s:").unwrap().1.lines().next().unwrap();
    assert!(lab.emulator().secrets().iter().any(|known| known == secret));
    assert!(
        file.contains("full address:s:10.0.0.4:7\r\n") && file.ends_with("\r\nusername:s:ada\r\n"),
        "{file}"
    );
    // The gateway's certificate is not one to be taken at first sight.
    let argv = read(&lab, "argv");
    assert_eq!(argv.lines().skip(1).collect::<Vec<_>>(), ["/t:web-01", "/f"]);
    assert!(!argv.contains(secret) && !outcome.stderr.contains(secret), "{outcome}");
    assert!(!Path::new(argv.lines().next().unwrap()).exists());
    assert_eq!((lab.transcript().mints(), lab.transcript().count_status(Kind::RdpFile, 200)), (0, 1));
}

#[test]
fn the_gateways_file_is_saved_and_that_is_all() {
    let lab = Lab::new();
    install(&lab, &[]);
    std::fs::write(lab.home().join("web.rdp"), "before").unwrap();
    std::fs::set_permissions(lab.home().join("web.rdp"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let line = "network bastion rdp --name bastion --resource-group demo --target-resource-id {vm} \
                --auth-type AaD --enable-mfa True --disable-gateway False --save web.rdp";
    let outcome = lab.bastide(line).run().expect_code(0);
    outcome.expect_stderr("Saved web.rdp: whoever has it can connect until the token in it ends");
    let file = read(&lab, "web.rdp");
    assert!(
        file.contains("full address:s:10.0.0.4:3389\r\n") && file.contains("enablerdsaadauth:i:1\r\n"),
        "{file}"
    );
    assert_eq!(mode(&lab.home().join("web.rdp")), 0o600);
    assert_eq!(lab.transcript().mints(), 0);
}

#[test]
fn entra_needs_a_client_that_knows_it() {
    let lab = Lab::new();
    let builds = |flag: &str| {
        format!("[ \"$1\" = /buildconfig ] && echo 'Build configuration: WITH_AAD={flag}' && exit 0\n{TALKS}")
    };
    for (name, script) in
        [("xfreerdp", builds("OFF")), ("remmina", "exit 0".into()), ("xfreerdp", "exit 1".into())]
    {
        std::fs::remove_dir_all(lab.home().join("bin")).unwrap_or_default();
        install(&lab, &[(name, &script)]);
        let says = format!("{name} cannot sign in with Entra ID");
        check(rdp(&lab, "{vm} --enable-mfa"), 2, &says, "--save FILE.rdp");
        check(rdp(&lab, "{vm} --auth-type aad"), 2, &says, "FreeRDP can from version 3 on");
    }
    assert_eq!(lab.transcript().count(Kind::Arm), 0);
    install(&lab, &[("xfreerdp3", &builds("ON"))]);
    rdp(&lab, "{vm} --enable-mfa").run().expect_code(0);
    assert!(read(&lab, "seen.rdp").contains("enablerdsaadauth:i:1\r\n"));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let lab = Lab::new();
    install(&lab, &[("xfreerdp3", "[ \"$1\" = /buildconfig ] && echo WITH_AAD=ON; exit 9")]);
    let usage = |flags: &str, says: &str, hint: &str| check(rdp(&lab, flags), 2, says, hint);
    usage(
        "{vm} --enable-mfa --disable-gateway",
        "Entra ID over RDP goes through",
        "leave --disable-gateway out",
    );
    usage(
        "{vm} --auth-type AAD --disable-gateway TRUE",
        "Entra ID over RDP goes through",
        "sign in by password",
    );
    usage("{vm} --enable-mfa --auth-type password", "--enable-mfa means Entra ID", "leave one of them out");
    usage(
        "{vm} --save no/such/folder/web.rdp",
        "'no/such/folder/web.rdp' cannot be written",
        "a folder that is there",
    );
    usage("{vm} --configure", "there is no editor for --configure", "VISUAL or EDITOR");
    assert_eq!(lab.transcript().count(Kind::Arm), 0);

    let settings = |line: &str, says: &str, hint: &str| {
        let program = lab.bastide(&format!("rdp -g demo {line}")).env("PATH", lab.home().join("bin"));
        check(program.env("DISPLAY", ":9"), 12, says, hint);
    };
    let by_address = "by the IP address 10.0.0.4 Bastion opens a tunnel alone";
    settings("-n bastion 10.0.0.4 --enable-mfa", by_address, "name the VM with --target-resource-id");
    settings("-n bastion 10.0.0.4 --disable-gateway false", by_address, "over the tunnel");
    let pod = "the Bastion host 'developer' opens a tunnel alone";
    settings("-n developer {vm} --enable-mfa", pod, "--sku Standard");
    settings(
        "-n quickconnect {vm} --disable-gateway no",
        "'quickconnect' opens a tunnel alone",
        "over the tunnel",
    );
    settings("-n basic {vm}", "is of the Basic SKU", "--sku Standard");
    settings("-n bastion 10.0.0.4 --resource-port 3390", "port 3390 cannot be opened by IP address", "");
    assert_eq!((lab.transcript().mints(), lab.transcript().count(Kind::RdpFile)), (0, 0));
}

/// By address, and with a host that has data pods, there is a tunnel all the same.
#[test]
fn a_tunnel_where_there_is_no_gateway() {
    let lab = Lab::with_box(r#"3389 = "echo""#);
    install(&lab, &[("xfreerdp", TALKS)]);
    for line in ["-n bastion 10.0.0.4", "-n developer --target-resource-id"] {
        let mut program = lab.bastide(&format!("rdp -g demo {line}"));
        if line.ends_with("-id") {
            program = program.arg(lab.vm("box"));
        }
        program.env("PATH", lab.home().join("bin")).env("DISPLAY", ":9").run().expect_code(0);
        assert_eq!(read(&lab, "answer"), "hello\n");
        std::fs::remove_file(lab.home().join("answer")).unwrap();
    }
}

#[test]
fn the_service_is_asked_again_where_that_may_help() {
    let lab = Lab::new();
    let saved = || rdp(&lab, "{vm} --disable-gateway false --save web.rdp --retries 2 --connect-timeout 5");
    let order = |text: &str| lab.emulator().set_faults([text.parse::<Order>().unwrap()]);
    for once in
        ["status:on=rdp_file,status=503,times=2", "half:on=rdp_file,times=1", "reset:on=rdp_file,times=1"]
    {
        order(once);
        saved().run().expect_code(0);
        assert!(lab.transcript().struck(once.split(':').next().unwrap()) > 0, "{once}");
    }
    lab.emulator().set_faults([Fault::ExpiredTokens]);
    saved().run().expect_code(0);
    for (stays, code, says, hint) in [
        ("status:on=rdp_file,status=401", 10, "status 401", "sign in again, with the tenant"),
        (
            "status:on=rdp_file,status=403,message=No",
            11,
            "an RDP file for port 7 of 'web-01': status 403, \"No\"",
            "Reader",
        ),
        ("status:on=rdp_file,status=404", 13, "status 404", ""),
        ("status:on=rdp_file,status=500", 21, "status 500, \"Unexpected internal error\"", "no Reader role"),
        ("status:on=rdp_file,status=502,body=html", 21, "status 502, \"502 Bad Gateway", "support request"),
        ("reset:on=rdp_file", 20, "cannot be reached", ""),
        ("hold:on=rdp_file", 124, "no connection to 'web-01' within 5 s", "--connect-timeout"),
    ] {
        order(stays);
        if hint.is_empty() {
            saved().run().expect_code(code).expect_stderr(says);
        } else {
            check(saved(), code, says, hint);
        }
    }
}

/// The file can be edited before it is used; an editor that fails connects nobody.
#[test]
fn the_file_is_edited_first() {
    let lab = Lab::new();
    install(
        &lab,
        &[("xfreerdp", TALKS), ("edit", "[ \"$1\" = -w ] || exit 3; printf 'audiomode:i:2\\r\\n' >> \"$2\"")],
    );
    rdp(&lab, "{vm} --configure").env("EDITOR", "edit -w").run().expect_code(0);
    port_in(&read(&lab, "seen.rdp"), "audiomode:i:2\r\n");
    rdp(&lab, "{vm} --configure --disable-gateway f --save web.rdp")
        .env("VISUAL", "edit -w")
        .run()
        .expect_code(0);
    assert!(read(&lab, "web.rdp").ends_with("audiomode:i:2\r\n"));
    std::fs::remove_file(lab.home().join("argv")).unwrap();
    let outcome = rdp(&lab, "{vm} --configure").env("EDITOR", "edit").run().expect_code(2);
    outcome.expect_stderr("the editor 'edit' ended with status 3, so nothing was connected");
    assert!(!lab.home().join("argv").exists());
}

#[test]
fn signals_and_time_limits_end_the_client() {
    let lab = Lab::new();
    install(&lab, &[("xfreerdp", STAYS)]);
    for flags in ["{vm}", "{vm} --disable-gateway false"] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let mut running = rdp(&lab, flags).start();
            running.stderr_line("here");
            // A shell's job has SIGINT from the terminal; this one gets it passed on, and has a moment to follow.
            running.signal(signal);
            running.finish().expect_code(code);
        }
    }
    rdp(&lab, "{vm} --timeout 1")
        .run()
        .expect_code(124)
        .expect_stderr("The tunnel's time is over (--timeout)");
    assert_eq!(lab.transcript().mints(), lab.transcript().releases());
}
