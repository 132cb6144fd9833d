//! The session's way from the first byte to the local side's FIN, by bytes typed from RFC 6455 and fed instants.
//! It leaves out the other ends and pings (`ends`), and random operations (`model`).

use super::model::decode;
use super::*;

/// How a session is driven in these tests: both sides take everything at once unless a test says otherwise.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) start: Instant,
    /// Frames that the service got: opcode and payload.
    pub(super) frames: Vec<(u8, Vec<u8>)>,
    /// Wire bytes that do not make a whole frame yet.
    pub(super) partial: Vec<u8>,
    pub(super) local: Vec<u8>,
    /// What TCP says when asked.
    pub(super) tcp: Option<Standing>,
}

pub(super) const OPTIONS: SessionOptions = SessionOptions {
    max_frame: 4096,
    first_byte: None,
    ping: Ping::WhenIdle,
    linger: Duration::from_secs(10),
};

pub(super) const HELLO: &[u8] = &[0x82, 0x05, b'h', b'e', b'l', b'l', b'o'];
pub(super) const CLOSE_1000: &[u8] = &[0x88, 0x02, 0x03, 0xe8];
pub(super) const CLOSE_1011: &[u8] = &[0x88, 0x02, 0x03, 0xf3];

impl Bench {
    pub(super) fn new(options: SessionOptions) -> Self {
        Self::again(options, Replay::default())
    }

    pub(super) fn again(options: SessionOptions, replay: Replay) -> Self {
        let start = crate::any_instant();
        let session = Session::new(options, [3; 32], replay, start);
        Self { session, start, frames: Vec::new(), partial: Vec::new(), local: Vec::new(), tcp: None }
    }

    /// So many seconds after the start.
    pub(super) fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    pub(super) fn wire(&mut self, seconds: f64, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.session.reads_on() {
            let space = self.session.wire_space();
            let count = rest.len().min(space.len());
            assert!(count > 0, "no room although the local side takes everything");
            space[..count].copy_from_slice(&rest[..count]);
            self.session.from_wire(count, self.start + Duration::from_secs_f64(seconds));
            rest = &rest[count..];
        }
    }

    pub(super) fn say(&mut self, seconds: f64, bytes: &[u8]) {
        assert!(self.session.wants_local());
        let mut rest = bytes;
        for slot in &mut self.session.local_slots() {
            let count = rest.len().min(slot.len());
            slot[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
        }
        assert!(rest.is_empty(), "more than one batch");
        self.session.from_local(bytes.len(), self.at(seconds));
    }

    pub(super) fn eof(&mut self, seconds: f64) {
        assert!(self.session.wants_local());
        self.session.local_eof(self.at(seconds));
    }

    /// The service takes at most `count` bytes; how many there were.
    pub(super) fn write_wire(&mut self, count: usize) -> usize {
        let mut written = 0;
        while written < count && !self.session.to_wire().is_empty() {
            let pending = self.session.to_wire();
            let now = pending.len().min(count - written);
            self.partial.extend_from_slice(&pending[..now]);
            self.session.wrote_wire(now);
            written += now;
        }
        decode(&mut self.partial, &mut self.frames);
        written
    }

    pub(super) fn write_local(&mut self, seconds: f64) {
        while self.session.has_local() {
            let payload: Vec<u8> = self.session.to_local().iter().flat_map(|slice| slice.to_vec()).collect();
            self.session.wrote_local(payload.len(), self.at(seconds));
            self.local.extend(payload);
        }
    }

    /// Both sides take what there is.
    pub(super) fn flush(&mut self, seconds: f64) {
        self.write_wire(usize::MAX);
        self.write_local(seconds);
    }

    pub(super) fn tick(&mut self, seconds: f64) {
        let now = self.at(seconds);
        self.session.tick(now, || self.tcp);
        if self.session.end().is_none() {
            assert!(self.session.deadline().is_none_or(|deadline| deadline > now), "a busy loop");
        }
    }

    /// Seconds from the start to the deadline.
    pub(super) fn deadline(&self) -> Option<f64> {
        self.session.deadline().map(|deadline| (deadline - self.start).as_secs_f64())
    }

    pub(super) fn end(&mut self) -> Option<End> {
        self.session.end().cloned()
    }

    /// Payload of the data frames that the service got.
    pub(super) fn sent(&self) -> Vec<u8> {
        self.frames
            .iter()
            .filter(|(opcode, _)| *opcode == 2)
            .flat_map(|(_, payload)| payload.clone())
            .collect()
    }

    /// The control frames that the service got.
    pub(super) fn controls(&self) -> Vec<(u8, &[u8])> {
        let controls = self.frames.iter().filter(|(opcode, _)| *opcode >= 8);
        controls.map(|(opcode, payload)| (*opcode, payload.as_slice())).collect()
    }
}

pub(super) fn closed(code: u16) -> End {
    End::Closed { code, reason: String::new() }
}

#[test]
fn bytes_go_both_ways() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, b"ssh-client");
    assert!(!bench.session.wants_local(), "one batch at a time");
    assert_eq!(bench.session.heard(), Heard::Nothing);
    bench.wire(0.1, HELLO);
    assert!(!bench.session.wants_wire(), "not before the local side has taken it");
    bench.flush(0.1);
    assert_eq!((bench.sent().as_slice(), bench.local.as_slice()), (&b"ssh-client"[..], &b"hello"[..]));
    assert!(bench.session.wants_wire() && bench.session.wants_local());
    assert_eq!((bench.session.sent(), bench.session.received()), (10, 5));
    assert_eq!(bench.session.heard(), Heard::Something);
    assert_eq!(bench.session.into_replay().bytes, b"", "nothing is kept once the VM was heard");
}

#[test]
fn every_end_before_the_first_byte_keeps_the_local_bytes() {
    let page =
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html><title>Tomcat</title></html>";
    let http = |status| End::ProxyRefused { status };
    let within = || End::Broken("the service's bytes end within a frame".into());
    let mut table: Vec<(&[u8], End)> = vec![
        (b"", End::Eof),
        (CLOSE_1011, closed(1011)),
        (&[0x88, 0x02, 0x03, 0xe9], closed(1001)),
        (&[0x88, 0x00], closed(1005)),
        // A ping is the service, not the VM.
        (&[0x89, 0x00], End::Eof),
        (&[0x82, 0x05], within()),
        (&[0xc2, 0x00], End::Malformed("a frame with reserved bits set (section 5.2)")),
    ];
    // The connection may end behind every byte of the page.
    for cut in 1..=page.len() {
        table.push((
            &page[..cut],
            match cut {
                0..7 => within(),
                7..12 => http(None),
                _ => http(Some(400)),
            },
        ));
    }
    for (bytes, expected) in table {
        for size in [1, 5, 1000] {
            let mut bench = Bench::new(OPTIONS);
            bench.say(0.0, b"SSH-2.0-OpenSSH\r\n");
            bench.write_wire(7);
            for piece in bytes.chunks(size) {
                bench.wire(0.1, piece);
            }
            bench.flush(0.1);
            if bench.end().is_none() {
                bench.session.wire_eof(bench.at(0.2));
            }
            assert_eq!(bench.end(), Some(expected.clone()), "{bytes:x?} by {size}");
            assert_eq!(bench.session.heard(), Heard::Nothing);

            let mut again = Bench::again(OPTIONS, bench.session.into_replay());
            assert!(!again.session.wants_local(), "first what the VM has not got");
            again.flush(0.0);
            assert_eq!(again.sent(), b"SSH-2.0-OpenSSH\r\n");
            again.say(0.1, b"more");
            again.flush(0.1);
            assert_eq!(again.sent(), b"SSH-2.0-OpenSSH\r\nmore");
            // A third attempt gets all of it.
            again.session.wire_eof(again.at(0.2));
            assert_eq!(again.end(), Some(End::Eof));
            let mut third = Bench::again(OPTIONS, again.session.into_replay());
            third.flush(0.0);
            assert_eq!(third.sent(), b"SSH-2.0-OpenSSH\r\nmore");
        }
    }
}

#[test]
fn nothing_is_replayed_once_the_vm_was_heard() {
    for first in [&[0x82, 0x01, b'x'][..], &[0x81, 0x01, b'x'], &[0x02, 0x01, b'x'], &[0x82, 0x05, b'x']] {
        let mut bench = Bench::new(OPTIONS);
        bench.say(0.0, b"bytes");
        bench.wire(0.1, first);
        bench.session.wire_eof(bench.at(0.2));
        bench.flush(0.2);
        assert!(bench.end().is_some());
        assert_eq!(bench.local, b"x");
        assert_eq!(bench.session.heard(), Heard::Something);
        assert_eq!(bench.session.into_replay().bytes, b"");
    }
}

#[test]
fn the_vm_may_speak_while_the_replay_is_half_sent() {
    let replay = Replay { bytes: (0..200_000u32).map(|i| (i % 253) as u8).collect(), finished: false };
    let expected = replay.bytes.clone();
    let mut bench = Bench::again(OPTIONS, replay);
    bench.write_wire(70_000);
    bench.wire(0.1, HELLO);
    bench.write_local(0.1);
    assert!(!bench.session.wants_local());
    bench.flush(0.1);
    assert!(bench.sent() == expected);
    assert!(bench.session.replay.bytes.capacity() == 0, "it is kept no longer");
    bench.say(0.2, b"tail");
    bench.flush(0.2);
    assert_eq!(bench.sent()[200_000..], *b"tail");
    assert_eq!(bench.session.sent(), 200_004);
}

#[test]
fn whoever_sends_much_before_hearing_anything_gets_one_attempt_and_no_stall() {
    let mut bench = Bench::new(SessionOptions { first_byte: Some(Duration::from_secs(20)), ..OPTIONS });
    let batch = vec![7; 64 * 1024];
    for number in 1..=4 {
        bench.say(0.0, &batch);
        bench.flush(0.0);
        assert_eq!(bench.session.heard(), Heard::Nothing, "{number}");
    }
    bench.say(0.0, b"x");
    bench.flush(0.0);
    assert_eq!(bench.session.heard(), Heard::Something);
    assert_eq!(bench.session.replay.bytes.capacity(), 0);
    assert_eq!(bench.deadline(), Some(30.0), "only the ping is left");
    assert_eq!(bench.sent().len(), 4 * batch.len() + 1);
}

#[test]
fn a_local_side_that_is_gone_is_not_waited_for() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, b"GET /");
    bench.flush(0.0);
    bench.eof(1.0);
    assert!(bench.session.wants_look() && !bench.session.wants_look(), "once");
    for (look, next) in [(1.05, 1.15), (1.15, 1.35), (1.35, 1.75)] {
        assert_eq!(bench.deadline(), Some(look));
        bench.tick(look);
        assert!(bench.session.wants_look());
        assert_eq!((bench.deadline(), bench.end()), (Some(next), None));
    }
    let now = bench.at(1.35);
    bench.session.local_gone(now);
    bench.flush(1.35);
    bench.wire(1.4, &[0x88, 0x02, 0x03, 0xe8]);
    assert_eq!(bench.end(), Some(End::LocalClosed));
}

#[test]
fn a_local_fin_lets_the_answer_come_back() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, b"GET /");
    bench.flush(0.0);
    bench.eof(1.0);
    assert!(!bench.session.wants_local());
    // The looks have a test of their own.
    bench.session.look = Look::default();
    assert_eq!((bench.write_wire(1), bench.deadline()), (0, Some(11.0)), "no close frame yet");
    bench.wire(9.0, HELLO);
    bench.flush(9.0);
    bench.tick(11.0);
    assert_eq!((bench.end(), bench.deadline()), (None, Some(19.0)), "the answer renews the time");
    bench.tick(19.0);
    bench.flush(19.0);
    assert_eq!(bench.controls(), [(8, &[0x03, 0xe8][..])]);
    assert_eq!(bench.end(), None, "the service's last bytes may be on the way");
    bench.wire(19.1, HELLO);
    bench.wire(19.2, CLOSE_1000);
    assert_eq!(bench.end(), None, "not delivered yet");
    bench.flush(19.2);
    assert_eq!(bench.end(), Some(End::LocalClosed));
    assert_eq!(bench.local, b"hellohello");
    assert_eq!(bench.controls().len(), 1, "one close frame is enough");
}

#[test]
fn a_service_that_does_not_answer_our_close_frame_is_left() {
    let mut bench = Bench::new(OPTIONS);
    bench.eof(0.0);
    bench.tick(10.0);
    bench.flush(10.0);
    assert_eq!(bench.deadline(), Some(15.0));
    bench.wire(14.0, HELLO);
    bench.flush(14.0);
    assert_eq!(bench.deadline(), Some(19.0), "data that is still coming is waited for");
    bench.tick(19.0);
    assert_eq!(bench.end(), Some(End::LocalClosed));
}

#[test]
fn a_fin_before_the_first_byte_is_replayed_too() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, b"one line");
    bench.flush(0.0);
    bench.eof(0.0);
    bench.wire(0.1, CLOSE_1011);
    bench.flush(0.1);
    assert_eq!(bench.end(), Some(closed(1011)));
    let mut again = Bench::again(OPTIONS, bench.session.into_replay());
    again.flush(0.0);
    assert!(!again.session.wants_local(), "there is nothing behind a FIN");
    assert_eq!(again.sent(), b"one line");
    again.wire(1.0, HELLO);
    again.flush(1.0);
    assert_eq!(again.deadline(), Some(11.0));
    again.tick(11.0);
    again.flush(11.0);
    again.wire(11.0, CLOSE_1000);
    assert_eq!((again.end(), again.local.as_slice()), (Some(End::LocalClosed), &b"hello"[..]));
}

#[test]
fn the_vms_silence_counts_only_when_it_has_everything() {
    let replay = Replay { bytes: vec![1; 100_000], finished: true };
    let mut bench = Bench::again(SessionOptions { ping: Ping::Never, ..OPTIONS }, replay);
    bench.write_wire(10);
    bench.tick(10.0);
    assert_eq!((bench.end(), bench.deadline()), (None, Some(20.0)));
    bench.flush(12.0);
    assert_eq!(bench.sent().len(), 100_000);
    bench.tick(20.0);
    bench.flush(20.0);
    assert_eq!(bench.controls(), [(8, &[0x03, 0xe8][..])]);
}
