//! Networks that are left through an HTTP proxy, Debian's tinyproxy: that everything takes it, what is said when it
//! refuses, and what goes around it. It leaves out the proxy's protocol (the tests of `bastide-net`).

use std::net::TcpListener;

use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Program, Tinyproxy, Tunnel};

const TUNNEL: &str = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 7";

fn ssh(lab: &Lab) -> Program {
    let line = "ssh -n bastion -g demo {vm} --auth-type ssh-key --username azureuser --ssh-key";
    lab.bastide(line).arg(lab.key()).words("-- echo hello")
}

/// An address at which no proxy listens.
fn nowhere() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

/// Sign-in, ARM, mint, WebSocket and release were all there, and the proxy made each connection that the emulator
/// saw.
#[track_caller]
fn everything_went_through(proxy: Tinyproxy, lab: &Lab) {
    let transcript = lab.transcript();
    for kind in [Kind::Discovery, Kind::Token, Kind::Arm, Kind::Mint, Kind::Upgrade, Kind::Release] {
        assert!(transcript.count(kind) > 0, "{kind:?}");
    }
    assert!(transcript.connections > 1);
    let made = u64::try_from(proxy.finish()).unwrap();
    // A connection that was dialled ahead and not needed may have been cut within its handshake.
    lab.wait_for(|transcript| transcript.connections + transcript.failed_handshakes == made);
}

#[test]
fn nothing_goes_around_the_proxy() {
    let check = |set: &dyn Fn(Program, &str) -> Program| {
        let (lab, proxy) = (Lab::new(), Tinyproxy::start());
        assert_eq!(set(ssh(&lab), &proxy.url()).run().expect_code(0).text(), "hello\n");
        everything_went_through(proxy, &lab);
    };
    check(&|program, url| program.env("HTTPS_PROXY", url));
    check(&|program, url| program.env("https_proxy", url).env("NO_PROXY", "example.com"));
    check(&|program, url| program.env("ALL_PROXY", url));
    // The flag wins over the variables.
    let flagged = |lab: &Lab, url: &str| {
        let line = TUNNEL.replace("tunnel", &format!("--proxy {url} tunnel"));
        Tunnel::start(lab.bastide(&line).env("HTTPS_PROXY", nowhere()))
    };
    let (lab, proxy) = (Lab::new(), Tinyproxy::start());
    let tunnel = flagged(&lab, &proxy.url());
    use std::io::{Read, Write};
    for mut stream in [tunnel.connect(), tunnel.connect()] {
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    tunnel.interrupt();
    everything_went_through(proxy, &lab);
}

#[test]
fn what_no_proxy_leaves_out() {
    let check = |no_proxy: &str, code: i32| {
        let lab = Lab::new();
        ssh(&lab).env("HTTPS_PROXY", nowhere()).env("NO_PROXY", no_proxy).run().expect_code(code);
        ssh(&lab).words("").env("no_proxy", no_proxy).env("https_proxy", nowhere()).run().expect_code(code);
    };
    check("localhost", 0);
    check("example.com, .localhost", 0);
    check("*", 0);
    check("127.0.0.1,example.com", 20);
    let lab = Lab::new();
    let line = format!("{TUNNEL} --timeout 1 --proxy {}", nowhere());
    lab.bastide(&line).env("NO_PROXY", "localhost").run().expect_code(124);
}

#[test]
fn a_proxy_that_refuses() {
    let lab = Lab::new();
    let proxy = Tinyproxy::start();
    let check = |program: Program, code: i32, says: &[&str]| {
        let outcome = program.run().expect_code(code);
        for words in says {
            assert!(outcome.stderr.contains(words), "no '{words}': {outcome}");
        }
        assert!(!outcome.stderr.contains("wr0ng") && outcome.stdout.is_empty(), "{outcome}");
    };
    let through = |credentials: &str| lab.bastide(TUNNEL).env("HTTPS_PROXY", proxy.url_for(credentials));
    check(
        through(""),
        20,
        &[
            "caused by: the proxy 127.0.0.1:",
            " asks for a user name and password",
            "hint: put them into the proxy's URL",
        ],
    );
    check(
        through("me:wr0ng@"),
        20,
        &["does not accept the configured user name and password", "hint: put them into the proxy's URL"],
    );
    check(lab.bastide(TUNNEL).env("HTTPS_PROXY", nowhere()), 20, &["refused the connection", "hint: "]);
    check(
        lab.bastide(TUNNEL).env("HTTPS_PROXY", "http://me:wr0ng^@localhost:1"),
        2,
        &["the proxy address of HTTPS_PROXY cannot be used", "percent-encoded"],
    );
    check(
        lab.bastide(TUNNEL).env("ALL_PROXY", "socks5://127.0.0.1:1080"),
        20,
        &["SOCKS proxies are not spoken"],
    );
    assert_eq!(lab.transcript().connections, 0);
}
