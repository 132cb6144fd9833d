//! The kinds of Bastion hosts and of targets that a connection may have: which way it takes for each (protocol.md §2,
//! §3, §5). It leaves out hosts that refuse (`refusals`).

use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Tunnel};

/// Signs in to `target` through `host` and says hello.
#[track_caller]
fn says_hello(lab: &Lab, host: &str, target: &str) {
    let line = format!("ssh -n {host} -g demo {target} --auth-type ssh-key --username azureuser --ssh-key");
    let outcome = lab.bastide(&line).arg(lab.key()).words("-- echo hello").run().expect_code(0);
    assert_eq!(outcome.text(), "hello\n", "{outcome}");
}

#[test]
fn every_sku_that_has_native_clients() {
    let check = |host: &str, is_pod: bool| {
        let lab = Lab::new();
        says_hello(&lab, host, "{vm}");
        let transcript = lab.transcript();
        assert_eq!(transcript.count(Kind::Connection), usize::from(is_pod), "{host}");
        let session = &transcript.sessions[&1];
        assert_eq!((session.bastion.as_str(), session.pod, session.port), (host, is_pod, 22));
        assert!(session.resource.eq_ignore_ascii_case(&lab.vm("web-01")), "{session:?}");
        let upgrade = transcript.requests.iter().find(|request| request.kind == Kind::Upgrade).unwrap();
        let path = if is_pod { "/omni/webtunnel/{1}" } else { "/webtunnelv2/{1}" };
        assert_eq!((upgrade.path.as_str(), upgrade.node.is_some()), (path, !is_pod), "{host}");
    };
    check("bastion", false);
    check("premium", false);
    check("developer", true);
    check("quickconnect", true);
}

#[test]
fn every_kind_of_target() {
    let check = |target: &str, resource: &str| {
        let lab = Lab::new();
        says_hello(&lab, "bastion", target);
        let session = &lab.transcript().sessions[&1];
        assert!(session.resource.ends_with(resource), "{session:?}");
    };
    let lab = Lab::new();
    check("{vm}", "/virtualMachines/web-01");
    check(&lab.instance("workers", 1), "/virtualMachineScaleSets/workers/virtualMachines/1");
    check("--target-ip-address 10.0.0.4", "/Microsoft.Network/bh-hostConnect/10.0.0.4");
    check("10.0.0.11", "/Microsoft.Network/bh-hostConnect/10.0.0.11");
}

/// A data pod serves one connection after the other, each with a token of its own.
#[test]
fn a_tunnel_through_a_data_pod() {
    use std::io::{Read, Write};
    let lab = Lab::new();
    let line = "tunnel -n developer -g demo --target-resource-id {vm} --resource-port 7";
    let tunnel = Tunnel::start(lab.bastide(line));
    let mut streams = [tunnel.connect(), tunnel.connect(), tunnel.connect()];
    for stream in &mut streams {
        stream.write_all(b"hello").unwrap();
    }
    for stream in &mut streams {
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
    }
    tunnel.interrupt();
    let transcript = lab.transcript();
    assert_eq!((transcript.mints(), transcript.upgrades(), transcript.releases()), (3, 3, 3));
    assert!(transcript.sessions.values().all(|session| session.pod));
}
