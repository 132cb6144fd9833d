//! What needs more than one fault or more than one connection: access tokens that end, waits that the service asks for,
//! a VM that says nothing or is off. It leaves out the single faults, which are in the table (`duty`).

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use bastide_emulator::faults::{Fault, Order};
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Tunnel};

use super::checks::Course;
use super::duty::parse;

const NONE: [Order; 0] = [];

/// The listener outlives its access token; those who find out at once ask once.
#[test]
fn two_hundred_connections_across_the_end_of_a_token() {
    let lab = Lab::new();
    let tunnel = lab.tunnel(&lab.vm("web-01"), 7);
    let before = lab.transcript().token_requests();
    lab.emulator().set_faults([Fault::ExpiredTokens]);
    let mut streams: Vec<_> = (0..200).map(|_| tunnel.connect()).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        write!(stream, "{number:5}").unwrap();
    }
    for (number, mut stream) in streams.into_iter().enumerate() {
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, format!("{number:5}").as_bytes());
    }
    assert_eq!(lab.transcript().token_requests(), before + 1, "one for all of them");
    tunnel.interrupt();
}

/// Tokens of three seconds are renewed while the listener lives, and no connection notices.
#[test]
fn tokens_that_are_renewed_ahead_of_time() {
    let lab = Lab::with("[settings]\ntoken_lifetime_seconds = 3\n");
    let mut course = Course::start(&lab, "bastion", 7, "");
    let first = lab.transcript().token_requests();
    let mut connections = 0;
    while lab.transcript().token_requests() < first + 2 {
        course.talk_well();
        connections += 1;
        assert!(connections < 100_000, "never renewed");
    }
    let transcript = lab.transcript();
    assert_eq!(transcript.count_status(Kind::Mint, 401), 0, "ahead of time");
    course.stop(0);
}

/// `Retry-After` on a mint: a second, a date, nonsense, an hour.
#[test]
fn waits_that_the_service_asks_for() {
    let lab = Lab::new();
    let mut course = Course::start(&lab, "bastion", 7, "--retries 1");
    course.talk_well();
    let past = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    for wait in ["1".to_owned(), past, "soon".to_owned()] {
        let order = format!("status:on=mint,status=503,retry_after={wait}");
        lab.emulator().set_faults([parse(&order).times(1)]);
        let story = course.talk_well();
        assert_eq!(story.retries.len(), 1, "{wait}: {story:?}");
    }
    let in_an_hour = http_date(SystemTime::now() + Duration::from_secs(3590));
    for wait in ["3600".to_owned(), in_an_hour] {
        let order = format!("status:on=mint,status=429,retry_after={wait},message=Slow down");
        lab.emulator().set_faults([parse(&order)]);
        let mints = lab.transcript().count(Kind::Mint);
        let story = course.talk();
        let error = story.error.as_ref().unwrap();
        assert_eq!((&error["code"], story.retries.len()), (&21.into(), 0), "{story:?}");
        assert!(error["message"].as_str().unwrap().contains("status 429, \"Slow down\""), "{story:?}");
        assert!(error["hint"].as_str().unwrap().contains("try again in an hour"), "{story:?}");
        assert_eq!(lab.transcript().count(Kind::Mint), mints + 1, "not a second try");
    }
    lab.emulator().set_faults(NONE);
    course.talk_well();
    course.stop(0);
}

/// The same from Entra ID and ARM, which have their own bound.
#[test]
fn waits_that_entra_id_and_arm_ask_for() {
    let lab = Lab::new();
    for (on, says) in [
        ("token", "client-secret got no token: localhost answered 429"),
        ("arm", "too many requests"),
        ("discovery", "too many requests"),
    ] {
        lab.emulator().set_faults([parse(&format!("status:on={on},status=429,retry_after=3600"))]);
        let struck = lab.transcript().struck("status");
        lab.bastide("tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 22")
            .run()
            .expect_code(21)
            .expect_stderr(says)
            .expect_stderr("hint: try again in an hour");
        assert_eq!(lab.transcript().struck("status"), struck + 1);
        lab.emulator().set_faults([parse(&format!("status:on={on},status=503,retry_after=1")).times(1)]);
        let (target, port) = (lab.vm("web-01"), 7);
        lab.tunnel(&target, port).interrupt();
    }
}

fn http_date(time: SystemTime) -> String {
    let form = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    time::OffsetDateTime::from(time).format(&form).unwrap()
}

/// SSH servers speak first: a connection that says nothing is opened anew, and given up in the end.
#[test]
fn ssh_over_a_connection_that_says_nothing() {
    let lab = Lab::new();
    let line = "ssh -n bastion -g demo --target-resource-id {vm} --auth-type ssh-key --username azureuser \
                --connect-timeout 4 --retries 1 --ssh-key";
    let ssh = || lab.bastide(line).arg(lab.key()).words("-- echo hello");
    lab.emulator().set_faults([parse("silence").times(1)]);
    let outcome = ssh().run().expect_code(0);
    assert_eq!(outcome.text(), "hello\n");
    lab.emulator().set_faults([parse("silence")]);
    ssh().run().expect_code(255).expect_stderr("nothing came back from the VM");
}

#[test]
fn a_vm_that_is_off() {
    let lab = Lab::new();
    let off = lab.vm("off-01");
    let line =
        |command: &str| format!("{command} -n bastion -g demo --target-resource-id {off} --resource-port 22");
    lab.bastide(&line("proxy"))
        .run()
        .expect_code(13)
        .expect_stderr("error: the VM 'off-01' is deallocated")
        .expect_stderr(&format!("hint: start it: az vm start --ids {off}"));
    lab.bastide(&line("ssh")).run().expect_code(255).expect_stderr("the VM 'off-01' is deallocated");
    // A crowd costs one question.
    let before = lab.transcript().count(Kind::Arm);
    let tunnel = Tunnel::start(lab.bastide(&line("tunnel")));
    let mut streams: Vec<_> = (0..20).map(|_| tunnel.connect()).collect();
    for stream in &mut streams {
        // End or reset, it is over.
        let _ = stream.read(&mut [0]);
    }
    drop(streams);
    let outcome = tunnel.interrupt();
    assert_eq!(outcome.stderr.matches("error: the VM 'off-01' is deallocated").count(), 20, "{outcome}");
    // One for the Bastion host, one for the VM.
    assert_eq!(lab.transcript().count(Kind::Arm), before + 2);
}

/// Who may not read the VM hears what he would have heard.
#[test]
fn a_vm_whose_state_nobody_tells() {
    let lab = Lab::new();
    for fault in ["status:on=arm,status=403,path=virtualMachines", "half:on=arm,path=virtualMachines"] {
        lab.emulator().set_faults([parse(fault)]);
        let off = lab.vm("off-01");
        let line = format!("proxy -n bastion -g demo --target-resource-id {off} --resource-port 22");
        lab.bastide(&line).run().expect_code(22).expect_stderr("port 22 of 'off-01' was closed");
    }
}
