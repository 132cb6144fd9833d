//! How each duty is checked: the fault strikes once, strikes always, and is gone again, under one running
//! `bastide tunnel`; then always under a `bastide proxy --retries 0`, whose exit code is the last word. It leaves out
//! which fault has which duty.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bastide_emulator::faults::{At, Ending, Fault, Order};
use bastide_emulator::pattern;
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Program, Running};
use rustix::process::Signal;
use serde_json::Value;

use super::duty::{Duty, Last, Stage, duty, parse, stage};

/// Turns a connection that hangs into a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ports of `web-01`.
const SSH: u16 = 22;
const ECHO: u16 = 7;
const PRODUCE: u16 = 19;

pub(super) fn check(order: &str) {
    let fault = parse(order);
    let lab = Lab::new();
    match (stage(&fault), duty(&fault)) {
        (_, Duty::Elsewhere(_)) => {}
        (Stage::Start, duty) => at_the_start(&lab, &fault, &duty),
        (Stage::Release, duty) => at_a_release(&lab, &fault, &duty),
        (Stage::Connection, duty) => at_a_connection(&lab, order, &fault, &duty),
    }
}

/// A `bastide tunnel` with one further attempt, that tells what happens.
pub(super) struct Course {
    pub(super) running: Running,
    address: String,
    port: u16,
}

/// What one connection came to.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// What the local program got from the VM.
    pub(super) heard: Vec<u8>,
    /// The reasons of the attempts that failed and were followed by another.
    pub(super) retries: Vec<String>,
    pub(super) closed: Value,
    /// The error that it ended with, if one did.
    pub(super) error: Option<Value>,
}

impl Course {
    pub(super) fn start(lab: &Lab, bastion: &str, port: u16, flags: &str) -> Self {
        let line = format!(
            "tunnel -n {bastion} -g demo --target-resource-id {{vm}} --resource-port {port} -o json {flags}"
        );
        let mut running = lab.bastide(&line).start();
        let address = running.event("ready")["address"].as_str().unwrap().to_owned();
        Self { running, address, port }
    }

    /// One connection: says hello, or waits for who speaks first, and leaves when it has the answer.
    pub(super) fn talk(&mut self) -> Story {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if self.port == ECHO {
            stream.write_all(b"hello").unwrap();
        }
        let mut story = Story::default();
        let wanted = match self.port {
            ECHO => b"hello".len(),
            SSH => b"SSH-2.0-".len(),
            _ => usize::MAX,
        };
        read(&mut stream, wanted, &mut story.heard);
        drop(stream);
        loop {
            let event = self.running.next_event().unwrap();
            match event["event"].as_str().unwrap() {
                "retry" => story.retries.push(event["reason"].as_str().unwrap().to_owned()),
                "closed" => {
                    story.closed = event;
                    let reason = story.closed["reason"].as_str().unwrap().to_owned();
                    if story.heard.is_empty() && !reason.starts_with("closed by the local side") {
                        story.error = Some(self.running.event("error"));
                    }
                    return story;
                }
                _ => {}
            }
        }
    }

    /// As above, and everything came as it should.
    #[track_caller]
    pub(super) fn talk_well(&mut self) -> Story {
        let story = self.talk();
        let answer: &[u8] = if self.port == SSH { b"SSH-2.0-" } else { b"hello" };
        assert_eq!(story.heard, answer, "{story:?}");
        assert_eq!(story.error, None, "{story:?}");
        if self.port == ECHO {
            let sums = (&story.closed["sent"], &story.closed["received"]);
            assert_eq!(sums, (&5.into(), &5.into()), "exactly once: {story:?}");
        }
        story
    }

    /// Ctrl-C; everything but `leaked` tokens was given back.
    pub(super) fn stop(mut self, leaked: u64) {
        self.running.signal(Signal::INT);
        assert_eq!(self.running.event("stopped")["leaked"], leaked);
        self.running.finish().expect_code(130);
    }
}

/// Reads up to so many bytes, or what there is before the end.
fn read(from: &mut impl Read, wanted: usize, into: &mut Vec<u8>) {
    let mut part = [0; 16 * 1024];
    while into.len() < wanted {
        let room = part.len().min(wanted - into.len());
        match from.read(&mut part[..room]) {
            Ok(0) => return,
            Ok(bytes) => into.extend(&part[..bytes]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn at_a_connection(lab: &Lab, order: &str, fault: &Fault, duty: &Duty) {
    let bastion = if order.contains("on=connection") { "developer" } else { "bastion" };
    let port = match (fault, duty) {
        (Fault::Silence { .. }, _) => SSH,
        (_, Duty::End(_)) => PRODUCE,
        _ => ECHO,
    };
    let flags = match fault {
        Fault::Hold { .. } => "--retries 1 --connect-timeout 2",
        // The first word is waited for half as long.
        Fault::Silence { .. } => "--retries 1 --connect-timeout 4",
        _ => "--retries 1",
    };
    // The first step of opening a connection.
    let step = if bastion == "developer" { Kind::Connection } else { Kind::Mint };
    let mut course = Course::start(lab, bastion, port, flags);
    if port != PRODUCE {
        // Uses up the lease that was minted to prove that the tunnel works.
        course.talk_well();
    }
    let emulator = lab.emulator();
    let asked = || match fault {
        // What is held is not written down before it is answered.
        Fault::Hold { .. } => usize::try_from(lab.transcript().struck(fault.name())).unwrap(),
        _ => lab.transcript().count(step),
    };
    let mut before = asked();
    let mut attempts = || {
        let now = asked();
        now - std::mem::replace(&mut before, now)
    };

    // An upgrade that gets no answer on a connection that was kept ready is made again without a word.
    let quietly = matches!(fault, Fault::Reset { on } | Fault::Half { on } if on.kind == Kind::Upgrade);

    emulator.set_faults([fault.clone().times(1)]);
    match duty {
        Duty::Nothing => {
            assert_eq!(course.talk_well().retries, [""; 0]);
            assert_eq!(attempts(), 1);
        }
        Duty::Again(reason, _) => {
            let story = course.talk_well();
            assert!(story.retries.len() == 1 || quietly && story.retries.is_empty(), "{story:?}");
            assert!(story.retries.iter().all(|retry| retry.contains(reason)), "{story:?}");
            assert_eq!(attempts(), 2, "a new token for each attempt");
        }
        Duty::SignInAgain(_) => {
            let tokens = lab.transcript().token_requests();
            assert_eq!(course.talk_well().retries, [""; 0]);
            assert_eq!((attempts(), lab.transcript().token_requests()), (2, tokens + 1));
        }
        Duty::Stop(last) | Duty::Wait(last) => {
            failed(&course.talk(), *last, 0);
            assert_eq!(attempts(), 1);
        }
        Duty::End(reason) => {
            let Fault::Ending { at, how } = fault else { panic!("{fault:?} ends nothing") };
            let whole = if let At::Vm(bytes) = at { *bytes } else { 0 };
            // Zeros, in the first half of a frame.
            let half = if let Ending::Truncated = how { 10 } else { 0 };
            let Story { heard, retries, closed, error } = course.talk();
            let expected = (0..whole).map(pattern).chain(std::iter::repeat_n(0, half));
            assert!(heard.iter().copied().eq(expected), "{} bytes, {closed}", heard.len());
            assert_eq!((&closed["received"], error), (&heard.len().into(), None), "{closed}");
            assert!(closed["reason"].as_str().unwrap().contains(reason), "{closed}");
            assert_eq!(retries, [""; 0], "never after the first byte: {closed}");
        }
        Duty::Release | Duty::Elsewhere(_) => panic!("no duty of a connection"),
    }

    emulator.set_faults([fault.clone()]);
    attempts();
    let last = match duty {
        Duty::Again(_, last) => {
            failed(&course.talk(), *last, 1);
            let made = attempts();
            assert!(made == 2 || quietly && made == 3, "{made}");
            Some(last)
        }
        Duty::SignInAgain(last) if *fault != Fault::ExpiredTokens => {
            failed(&course.talk(), *last, 0);
            assert_eq!(attempts(), 2, "once again and no more");
            Some(last)
        }
        Duty::Stop(last) | Duty::Wait(last) => Some(last),
        Duty::Nothing | Duty::SignInAgain(_) | Duty::End(_) | Duty::Release | Duty::Elsewhere(_) => None,
    };
    if let Some(last) = last {
        let flags = flags.replace("--retries 1", "--retries 0");
        let line =
            format!("proxy -n {bastion} -g demo --target-resource-id {{vm}} --resource-port {port} {flags}");
        attempts();
        proxy_fails(lab.bastide(&line), *last);
        assert_eq!(attempts(), if matches!(duty, Duty::SignInAgain(_)) { 2 } else { 1 });
    }

    // Whatever it was, the listener is still there.
    emulator.set_faults([] as [Order; 0]);
    if port != PRODUCE {
        assert_eq!(course.talk_well().retries, [""; 0]);
    }
    course.stop(0);
}

/// A connection without a byte from the VM, and its last word.
#[track_caller]
fn failed(story: &Story, Last(code, says, hint): Last, retries: usize) {
    assert!(story.heard.is_empty(), "{story:?}");
    assert_eq!(story.retries.len(), retries, "{story:?}");
    let error = story.error.as_ref().unwrap();
    assert_eq!(error["code"], code, "{story:?}");
    assert!(error["message"].as_str().unwrap().contains(says), "{story:?}");
    assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{story:?}");
}

/// A program whose standard input stays open, that gets `hello` back or ends.
fn converse(program: Program) -> (Vec<u8>, bastide_tests::Outcome) {
    let mut running = program.start();
    let (mut stdin, mut stdout) = running.pipes();
    // It may end before it reads.
    drop(stdin.write_all(b"hello"));
    let mut heard = Vec::new();
    read(&mut stdout, b"hello".len(), &mut heard);
    drop((stdin, stdout));
    (heard, running.finish())
}

#[track_caller]
fn proxy_fails(program: Program, Last(code, says, hint): Last) {
    let (heard, outcome) = converse(program);
    let outcome = outcome.expect_code(code.into()).expect_stderr(says).expect_stderr(hint);
    assert!(heard.is_empty() && outcome.stderr.contains("error: "), "{outcome}");
}

fn at_the_start(lab: &Lab, fault: &Fault, duty: &Duty) {
    // Whoever names a VM asks Resource Graph.
    let target = if kind(fault) == Some(Kind::Graph) { "web-01 --no-cache" } else { "{vm}" };
    let proxy = || lab.bastide(&format!("proxy -n bastion -g demo {target} --resource-port {ECHO}"));
    let emulator = lab.emulator();
    let works = || {
        let (heard, outcome) = converse(proxy());
        let outcome = outcome.expect_code(0);
        assert_eq!(heard, b"hello", "{outcome}");
    };
    let struck = || lab.transcript().struck(fault.name());

    emulator.set_faults([fault.clone().times(1)]);
    match duty {
        Duty::Again(..) | Duty::SignInAgain(_) => works(),
        Duty::Stop(last) => proxy_fails(proxy(), *last),
        Duty::Wait(_) => {
            // Slow, and then there after all.
            std::thread::scope(|scope| {
                scope.spawn(works);
                lab.wait_for(|transcript| transcript.struck(fault.name()) == 1);
                emulator.set_faults([] as [Order; 0]);
            });
        }
        other => panic!("no duty of a start: {other:?}"),
    }
    assert_eq!(struck(), 1);

    emulator.set_faults([fault.clone()]);
    let (Duty::Again(_, last) | Duty::SignInAgain(last) | Duty::Stop(last) | Duty::Wait(last)) = duty else {
        return;
    };
    proxy_fails(proxy(), *last);
    // Three tries at sign-in, four at ARM: as long as a user waits without a word.
    let tries = match duty {
        Duty::Again(..) if matches!(kind(fault), Some(Kind::Token)) => 3,
        Duty::Again(..) => 4,
        Duty::SignInAgain(_) => 2,
        _ => 1,
    };
    assert_eq!(struck(), 1 + tries);
    emulator.set_faults([] as [Order; 0]);
    works();
}

fn kind(fault: &Fault) -> Option<Kind> {
    match fault {
        Fault::Status { on, .. }
        | Fault::Half { on }
        | Fault::Hold { on }
        | Fault::Reset { on }
        | Fault::MissingField { on, .. } => Some(on.kind),
        _ => None,
    }
}

fn at_a_release(lab: &Lab, fault: &Fault, duty: &Duty) {
    let emulator = lab.emulator();
    let struck = |times| lab.wait_for(|transcript| transcript.struck(fault.name()) == times);
    let mut course = Course::start(lab, "bastion", ECHO, "");
    emulator.set_faults([fault.clone().times(1)]);
    course.talk_well();
    struck(1);
    if let Fault::Hold { .. } = fault {
        // Slow, and then done.
        emulator.set_faults([] as [Order; 0]);
    }
    assert_eq!(course.running.event("released")["id"], 1);

    emulator.set_faults([fault.clone()]);
    course.talk_well();
    let leaked = match (duty, fault) {
        (Duty::Nothing, _) => {
            struck(2);
            0
        }
        // Stopped in the first try: the wait at the end is bounded too.
        (_, Fault::Hold { .. }) => {
            struck(2);
            1
        }
        // Three tries, and no more.
        _ => {
            struck(4);
            1
        }
    };
    course.stop(leaked);
}
