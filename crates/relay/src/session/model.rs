//! The session against a reference that knows only streams of bytes: whatever is done in whatever order and
//! however it is cut, the local side gets exactly a prefix of what the VM sent, the wire carries exactly a
//! prefix of what the local side sent, and once both are over so is the session.

use super::*;

/// One attempt's life: frames of at most `max_frame` bytes, `steps` in their order, and `last`, which has to end
/// it. Panics when the session is not what the streams say.
pub(crate) fn live(max_frame: u16, steps: &[Step], last: &Last) {
    let options =
        SessionOptions { max_frame, first_byte: None, ping: Ping::WhenIdle, linger: Duration::from_secs(10) };
    let now = crate::any_instant();
    let mut model = Model {
        session: Session::new(options, [5; 32], Replay::default(), now),
        now,
        on_the_way: Vec::new(),
        vm: Vec::new(),
        got: Vec::new(),
        said: Vec::new(),
        partial: Vec::new(),
        frames: Vec::new(),
        finished: false,
    };
    for step in steps {
        model.step(step);
    }
    let alive = model.session.end().is_none() && model.session.reads_on();
    model.last(last);
    if alive && matches!(last, Last::Close(_) | Last::Eof | Last::Deaf | Last::LocalFin) {
        assert!(model.got == model.vm, "everything that came is delivered");
    }
    if alive && matches!(last, Last::Eof | Last::LocalFin) && !model.session.was_ended_by_ping() {
        let sent = model.frames.iter().filter(|(opcode, _)| *opcode == 2).map(|(_, payload)| payload.len());
        assert!(sent.sum::<usize>() == model.said.len(), "everything that was said is sent");
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// The local side sends so many bytes, if asked.
    Say(usize),
    /// The VM's bytes come in a frame of this first byte.
    Frame(u8, usize),
    /// A ping, with so much payload, or a pong.
    Ping(usize),
    Pong,
    /// So much of what the service has sent arrives.
    Arrive(usize),
    /// So much of what we have for it leaves.
    Leave(usize),
    /// The local side takes so much.
    Take(usize),
    /// Seconds pass.
    Pass(u64),
    Finish,
}

/// What ends it.
#[derive(Debug, Clone)]
pub(crate) enum Last {
    Close(u16),
    Eof,
    Reset,
    Deaf,
    Malformed,
    LocalBroken,
    LocalFin,
    Stop,
}

/// What a correct session would know, without any protocol: four streams.
struct Model {
    session: Session,
    now: Instant,
    /// Sent by the service and not arrived.
    on_the_way: Vec<u8>,
    /// What the VM has said, and what the local side has got of it.
    vm: Vec<u8>,
    got: Vec<u8>,
    /// What the local side has said, and the frames that the service has got of it.
    said: Vec<u8>,
    partial: Vec<u8>,
    frames: Vec<(u8, Vec<u8>)>,
    finished: bool,
}

impl Model {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Say(count) if self.session.wants_local() && !self.finished => {
                let bytes: Vec<u8> = (self.said.len()..).map(|i| (i % 251) as u8).take(count).collect();
                let mut rest = bytes.as_slice();
                for slot in &mut self.session.local_slots() {
                    let now = rest.len().min(slot.len());
                    slot[..now].copy_from_slice(&rest[..now]);
                    rest = &rest[now..];
                }
                let taken = count - rest.len();
                self.said.extend_from_slice(&bytes[..taken]);
                self.session.from_local(taken, self.now);
            }
            Step::Frame(first, count) => {
                let bytes: Vec<u8> = (self.vm.len()..).map(|i| (i % 241) as u8).take(count).collect();
                self.on_the_way.push(first);
                match count {
                    0..126 => self.on_the_way.push(count as u8),
                    126..65_536 => {
                        self.on_the_way.push(126);
                        self.on_the_way.extend((count as u16).to_be_bytes());
                    }
                    _ => {
                        self.on_the_way.push(127);
                        self.on_the_way.extend((count as u64).to_be_bytes());
                    }
                }
                self.on_the_way.extend(&bytes);
                self.vm.extend(bytes);
            }
            Step::Ping(count) => {
                self.on_the_way.extend([0x89, count as u8]);
                self.on_the_way.extend(vec![9; count]);
            }
            Step::Pong => self.on_the_way.extend([0x8a, 0]),
            Step::Arrive(count) if self.session.wants_wire() => {
                let space = self.session.wire_space();
                let count = count.min(space.len()).min(self.on_the_way.len());
                if count > 0 {
                    space[..count].copy_from_slice(&self.on_the_way[..count]);
                    self.on_the_way.drain(..count);
                    self.session.from_wire(count, self.now);
                }
            }
            Step::Leave(count) => {
                let pending = self.session.to_wire();
                let count = count.min(pending.len());
                self.partial.extend_from_slice(&pending[..count]);
                self.session.wrote_wire(count);
                decode(&mut self.partial, &mut self.frames);
            }
            Step::Take(count) => {
                let payload: Vec<u8> =
                    self.session.to_local().iter().flat_map(|slice| slice.to_vec()).take(count).collect();
                if !payload.is_empty() {
                    self.session.wrote_local(payload.len(), self.now);
                }
                self.got.extend(payload);
            }
            Step::Pass(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.tick();
            }
            Step::Finish if self.session.wants_local() && !self.finished => {
                self.finished = true;
                self.session.local_eof(self.now);
            }
            Step::Say(_) | Step::Arrive(_) | Step::Finish => {}
        }
        self.check();
    }

    fn tick(&mut self) {
        // A ping, the FIN's time and the first byte's may all be due.
        for _ in 0..3 {
            self.session.tick(self.now, || None);
            if self.session.end().is_some() || self.session.deadline().is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("a busy loop");
    }

    fn check(&mut self) {
        assert!(self.vm.starts_with(&self.got), "the local side gets what the VM said");
        let data = self.frames.iter().filter(|(opcode, _)| *opcode == 2);
        assert!(data.clone().all(|(_, payload)| !payload.is_empty()));
        let sent: Vec<u8> = data.flat_map(|(_, payload)| payload.clone()).collect();
        assert!(self.said.starts_with(&sent), "the service gets what the local side said");
        let closes = self.frames.iter().filter(|(opcode, _)| *opcode == 8).count();
        assert!(closes <= 1, "one close frame");
        if closes == 1 {
            let behind = self.frames.iter().skip_while(|(opcode, _)| *opcode != 8);
            assert!(behind.clone().all(|(opcode, _)| *opcode >= 8), "no data behind it");
        }
        if self.session.heard() != Heard::Something {
            assert!(self.session.replay.bytes == self.said, "everything can be sent again");
        }
        assert!(self.session.inbox.memory() <= 3 * 1024 * 1024, "{}", self.session.inbox.memory());
    }

    /// Both sides take and give what they have until nothing moves.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let before = (self.on_the_way.len(), self.got.len(), self.partial.len() + self.frames.len());
            for step in [Step::Arrive(1 << 20), Step::Take(1 << 20), Step::Leave(1 << 20)] {
                self.step(&step);
            }
            let after = (self.on_the_way.len(), self.got.len(), self.partial.len() + self.frames.len());
            if before == after && self.session.to_wire().is_empty() {
                return;
            }
        }
        panic!("it never settles");
    }

    fn last(&mut self, last: &Last) {
        match last {
            Last::Close(code) => {
                self.on_the_way.extend([0x88, 2]);
                self.on_the_way.extend(code.to_be_bytes());
            }
            Last::Malformed => self.on_the_way.extend([0xff, 0xff]),
            Last::Eof => {
                self.settle();
                self.session.wire_eof(self.now);
            }
            Last::Reset => self.session.wire_broken("reset".into(), self.now),
            Last::Deaf => {
                self.session.wire_deaf("reset".into(), self.now);
                self.settle();
                self.session.wire_eof(self.now);
            }
            Last::LocalBroken => self.session.local_broken(End::LocalBroken("reset".into()), self.now),
            Last::LocalFin => {
                self.settle();
                self.step(&Step::Finish);
            }
            Last::Stop => self.session.stop(self.now),
        }
        self.settle();
        // Whoever does not answer is left after a bounded number of deadlines: looks at a half-closed local side, and
        // at a ping behind much data.
        for _ in 0..64 {
            if self.session.end().is_some() {
                return;
            }
            self.now = self.session.deadline().expect("something ends it");
            self.tick();
            self.settle();
        }
        panic!("{last:?} never ends it");
    }
}

/// Takes whole frames out of `bytes` as RFC 6455 §5.2 has them; panics on what a client may not send.
pub(super) fn decode(bytes: &mut Vec<u8>, frames: &mut Vec<(u8, Vec<u8>)>) {
    loop {
        let [first, second, rest @ ..] = bytes.as_slice() else { return };
        assert_eq!(first & 0xf0, 0x80, "FIN and no reserved bit");
        assert_eq!(second & 0x80, 0x80, "masked");
        let (length, rest) = match (second & 0x7f, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (126, _) => return,
            (127, _) => panic!("a frame above 65,535 bytes"),
            (short, rest) => (usize::from(short), rest),
        };
        if rest.len() < 4 + length {
            return;
        }
        let (mask, rest) = rest.split_at(4);
        let payload = rest[..length].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert!(first & 0x0f == 2 || first & 0x0f >= 8, "neither text nor continuation");
        frames.push((first & 0x0f, payload));
        let used = bytes.len() - (rest.len() - length);
        bytes.drain(..used);
    }
}

#[cfg(test)]
mod random {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Sizes around every boundary of the code, and any.
    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![
            4 => 1..20usize,
            2 => prop::sample::select(vec![124, 125, 126, 127, 4095, 4096, 4097, 65_535, 65_536, 65_537]),
            1 => 1..300_000usize,
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => size().prop_map(Step::Say),
            3 => (prop::sample::select(vec![0x82, 0x81, 0x02, 0x00, 0x80]), size())
                .prop_map(|(first, count)| Step::Frame(first, count)),
            1 => Just(Step::Frame(0x82, 0)),
            1 => (0..=125usize).prop_map(Step::Ping),
            1 => Just(Step::Pong),
            5 => size().prop_map(Step::Arrive),
            5 => size().prop_map(Step::Leave),
            4 => size().prop_map(Step::Take),
            1 => (0..25u64).prop_map(Step::Pass),
            1 => Just(Step::Finish),
        ]
    }

    fn last() -> impl Strategy<Value = Last> {
        prop_oneof![
            prop::sample::select(vec![1000, 1001, 1005, 1006, 1011, 4000]).prop_map(Last::Close),
            Just(Last::Eof),
            Just(Last::Reset),
            Just(Last::Deaf),
            Just(Last::Malformed),
            Just(Last::LocalBroken),
            Just(Last::LocalFin),
            Just(Last::Stop),
        ]
    }

    proptest! {
        // A failure is kept as a test of its own, not as a seed in a file.
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn whatever_happens(
            max_frame in prop::sample::select(vec![1, 5, 125, 126, 4096, 65_535]),
            steps in vec(step(), 0..60),
            last in last(),
        ) {
            live(max_frame, &steps, &last);
        }
    }
}
