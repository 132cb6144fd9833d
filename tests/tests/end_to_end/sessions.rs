//! `bastide sessions`: what is open on a Bastion host, what crashes have left behind, and ending either. It leaves out
//! how the next start gives back what was left behind (`ledger`).

use std::io::{Read, Write};
use std::net::TcpStream;

use bastide_emulator::transcript::End;
use bastide_tests::{Lab, Outcome, SUBSCRIPTION, Tunnel};
use rustix::process::Signal;
use serde_json::Value;

const LIST: &str = "sessions list -n bastion -g demo";

/// Somebody who may do this to Bastion hosts besides reading.
fn lab(actions: &str, settings: &str) -> Lab {
    Lab::with(&format!(
        "[settings]\n{settings}\n[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\n\
         object_id = \"55555555-5555-4555-8555-555555555555\"\ntenant = \"emulator.example\"\n\
         roles = [{{ scope = \"/\", actions = [\"*/read\", \"{actions}\"] }}]\n"
    ))
}

fn able() -> Lab {
    lab("Microsoft.Network/bastionHosts/*/action", "")
}

/// A connection that has carried a byte each way.
fn talk(mut stream: TcpStream) -> TcpStream {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

#[track_caller]
fn events(outcome: &Outcome, name: &str) -> Vec<Value> {
    let all = outcome.text();
    let all = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["event"] == name).collect()
}

fn ids(lab: &Lab) -> Vec<String> {
    let outcome = lab.bastide(LIST).words("-o json").run().expect_code(0);
    events(&outcome, "session").iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn open_sessions_are_listed() {
    // As the live service has them, later and in pages, and at once.
    for settings in ["", "sessions_at_once = true"] {
        let lab = lab("Microsoft.Network/bastionHosts/getActiveSessions/action", settings);
        let outcome = lab.bastide(LIST).run().expect_code(0).expect_stderr("No sessions are open");
        assert!(outcome.stdout.is_empty(), "{outcome}");

        let tunnel = lab.tunnel(&lab.vm("web-01"), 7);
        let streams: Vec<_> = (0..5).map(|_| talk(tunnel.connect())).collect();
        let outcome = lab.bastide("sessions -n bastion -g demo").run().expect_code(0);
        let text = outcome.text();
        assert_eq!(text.lines().count(), 6, "{outcome}");
        assert!(text.starts_with("ID ") && text.contains("SSH") && text.contains("web-01"), "{outcome}");
        assert!(!outcome.stderr.contains("near its limit"), "{outcome}");

        let outcome = lab.bastide(LIST).words("-o json").run().expect_code(0);
        let sessions = events(&outcome, "session");
        assert_eq!(sessions.len(), 5);
        assert_eq!(sessions[0]["target"], lab.vm("web-01"));
        assert_eq!(
            (sessions[0]["address"].as_str(), sessions[0]["left_behind"].as_bool()),
            (Some("10.0.0.4"), Some(false))
        );
        drop(streams);
        tunnel.interrupt();
        assert!(ids(&lab).is_empty());
    }
}

#[test]
fn a_vm_names_its_bastion_host() {
    let lab = Lab::with(
        "[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\n\
         object_id = \"55555555-5555-4555-8555-555555555555\"\ntenant = \"emulator.example\"\n\
         roles = [{ scope = \"/\", actions = [\"*/read\", \"Microsoft.Network/bastionHosts/*/action\"] }]\n\
         [[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\n",
    );
    let tunnel = lab.tunnel(&lab.vm("web-01"), 7);
    let stream = talk(tunnel.connect());
    let mut id = String::new();
    for line in ["sessions list web-01", "sessions list {vm}", "sessions --target-resource-id {vm}"] {
        let outcome = lab.bastide(line).words("-o json").run().expect_code(0);
        let sessions = events(&outcome, "session");
        assert_eq!(sessions.len(), 1, "{outcome}");
        id = sessions[0]["id"].as_str().unwrap().to_owned();
    }
    lab.bastide(&format!("sessions close {id} --target-resource-id {{vm}}")).run().expect_code(0);
    drop(stream);
    tunnel.interrupt();
}

#[test]
fn a_session_that_is_closed_ends_its_tunnel() {
    let lab = able();
    let tunnel = lab.tunnel(&lab.vm("web-01"), 7);
    let mut streams: Vec<_> = (0..2).map(|_| talk(tunnel.connect())).collect();
    let all = ids(&lab);
    assert_eq!(all.len(), 2);
    let line = format!("sessions close -n bastion -g demo {}", all[0]);
    let outcome =
        lab.bastide(&line).run().expect_code(0).expect_stderr(&format!("Session {} is disconnected", all[0]));
    assert!(outcome.stdout.is_empty(), "{outcome}");
    lab.wait_for(|transcript| transcript.tunnels().any(|tunnel| tunnel.end == Some(End::Disconnected)));
    // One of the two has ended, the other lives.
    let ended = streams.iter_mut().filter_map(|stream| {
        let _ = stream.write_all(b"x");
        (stream.read(&mut [0]).unwrap_or(0) == 0).then_some(())
    });
    assert_eq!(ended.count(), 1);
    assert_eq!(ids(&lab), [all[1].clone()]);

    let outcome = lab.bastide(&line).words("-o json").run().expect_code(13);
    assert!(outcome.stderr.contains("not found!"), "{outcome}");
    assert_eq!(events(&outcome, "error")[0]["code"], 13);
    let both = format!("sessions -n bastion -g demo close {} {}", all[0], all[1]);
    let outcome = lab.bastide(&both).words("-o json").run().expect_code(13);
    assert_eq!(events(&outcome, "session_closed")[0]["id"], all[1]);
    assert!(ids(&lab).is_empty());
    drop(streams);
    tunnel.interrupt();
}

#[test]
fn what_a_crash_left_behind_is_listed_and_given_back() {
    let lab = able();
    let tunnel = lab.tunnel(&lab.vm("web-01"), 7);
    let streams: Vec<_> = (0..2).map(|_| talk(tunnel.connect())).collect();
    tunnel.running().signal(Signal::KILL);
    assert_eq!(tunnel.finish().code(), 137);
    drop(streams);
    lab.wait_for(|transcript| transcript.tunnels().all(|tunnel| tunnel.end.is_some()));

    // The service counts them, too.
    let outcome = lab.bastide(LIST).words("-o json").run().expect_code(0);
    let sessions = events(&outcome, "session");
    let left: Vec<&str> = sessions
        .iter()
        .filter(|session| session["left_behind"] == true)
        .map(|session| session["id"].as_str().unwrap())
        .collect();
    assert_eq!((sessions.len(), left.len()), (4, 2), "{outcome}");
    for secret in lab.emulator().secrets() {
        assert!(!outcome.text().contains(&secret), "{outcome}");
    }
    assert_eq!(lab.transcript().releases(), 0, "looking gives nothing back");
    let outcome = lab.bastide(LIST).run().expect_code(0);
    assert_eq!(outcome.text().matches("(left behind by a crash)").count(), 2, "{outcome}");

    // No Bastion host has to be named for it.
    let outcome = lab.bastide(&format!("sessions close {}", left[0])).run().expect_code(0);
    assert!(outcome.stderr.contains("is given back"), "{outcome}");
    assert_eq!(lab.transcript().releases(), 1);
    assert_eq!(ids(&lab).len(), 2);
    lab.bastide(&format!("sessions close {}", left[1])).run().expect_code(0);
    assert!(ids(&lab).is_empty());
    assert_eq!(lab.transcript().releases(), 2);
}

#[test]
fn a_host_that_is_nearly_full() {
    let lab = Lab::with(
        "[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\n\
         object_id = \"55555555-5555-4555-8555-555555555555\"\ntenant = \"emulator.example\"\n\
         roles = [{ scope = \"/\", actions = [\"*/read\", \"Microsoft.Network/bastionHosts/*/action\"] }]\n\
         [[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\nscale_units = 1\n",
    );
    let line = "tunnel -n bastion -g demo --target-resource-id";
    let tunnel =
        Tunnel::start(lab.bastide(line).arg(lab.vm("win-01")).words("--resource-port 3389 --prefetch 16"));
    lab.wait_for(|transcript| transcript.mints() >= 16);
    let says = "the Bastion host 'bastion' is near its limit: 0 SSH and 16 RDP sessions on 1 scale unit,";
    let outcome = lab.bastide(LIST).run().expect_code(0).expect_stderr(says);
    let fix = "az network bastion update --name bastion --resource-group demo --scale-units 2";
    assert!(outcome.stderr.lines().any(|line| line.starts_with("hint: ") && line.contains(fix)), "{outcome}");
    let outcome = lab.bastide(LIST).words("-o json").run().expect_code(0);
    assert_eq!(events(&outcome, "crowding")[0]["units_needed"], 2);
    tunnel.interrupt();
}

#[test]
fn rights_and_hosts_that_are_missing() {
    let check = |lab: &Lab, line: &str, code: i32, says: &str, hint: &str| {
        let outcome = lab.bastide(line).run().expect_code(code);
        assert!(outcome.stderr.contains(says), "no '{says}': {outcome}");
        assert!(
            outcome.stderr.lines().any(|line| line.starts_with("hint: ") && line.contains(hint)),
            "{outcome}"
        );
        assert!(outcome.stdout.is_empty(), "{outcome}");
    };
    let reader = Lab::new();
    let fix = format!(
        "az role assignment create --assignee 55555555-5555-4555-8555-555555555555 --role 'Network Contributor' --scope \
         /subscriptions/{SUBSCRIPTION}/resourceGroups/demo/providers/Microsoft.Network/bastionHosts/bastion"
    );
    check(&reader, LIST, 11, "Microsoft.Network/bastionHosts/getActiveSessions/action", &fix);
    let lister = lab("Microsoft.Network/bastionHosts/getActiveSessions/action", "");
    let close = "sessions close -n bastion -g demo some-id";
    check(&lister, close, 11, "Microsoft.Network/bastionHosts/disconnectActiveSessions/action", &fix);
    check(&lister, "sessions -n nowhere -g demo", 13, "Bastion host 'nowhere'", "--resource-group");
    check(&lister, "sessions -g demo", 2, "no Bastion host is named", "--name");
}
