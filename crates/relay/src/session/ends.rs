//! How a session notices that it is over, by close frames, pings, deadlines and failures, and that nothing is
//! lost then. By bytes typed from RFC 6455 and fed instants.

use super::tests::{Bench, CLOSE_1000, HELLO, OPTIONS, closed};
use super::*;

#[test]
fn data_before_a_close_frame_is_delivered_and_the_close_echoed() {
    let check = |close: &[u8], end: End, echo: &[u8]| {
        let mut bench = Bench::new(OPTIONS);
        let mut bytes = HELLO.to_vec();
        bytes.extend(HELLO);
        bytes.extend(close);
        bytes.extend(HELLO);
        bench.wire(0.0, &bytes);
        assert!(!bench.session.reads_on());
        bench.write_wire(usize::MAX);
        assert_eq!(bench.end(), None, "not delivered yet");
        bench.write_local(0.0);
        assert_eq!(bench.end(), Some(end));
        assert_eq!(bench.local, b"hellohello", "what is behind a close frame is nothing");
        assert_eq!(bench.controls(), [(8, echo)]);
    };
    check(CLOSE_1000, closed(1000), &[0x03, 0xe8]);
    check(&[0x88, 0x00], closed(1005), &[]);
    let reason = End::Closed { code: 1011, reason: "node down".into() };
    check(b"\x88\x0b\x03\xf3node down", reason, &[0x03, 0xf3]);
    // 1006 never is on the wire (RFC 6455 §7.4.1); where it is, it is at least not sent back.
    check(&[0x88, 0x02, 0x03, 0xee], closed(1006), &[]);
}

#[test]
fn a_close_frame_ends_the_frame_that_is_half_written() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, &[5; 60_000]);
    bench.write_wire(5000);
    bench.wire(0.1, CLOSE_1000);
    bench.flush(0.1);
    assert_eq!(bench.end(), Some(closed(1000)));
    assert_eq!(bench.sent().len(), 2 * 4096, "whole frames, and none that was not begun");
    assert_eq!(bench.controls(), [(8, &[0x03, 0xe8][..])]);
    assert!(bench.partial.is_empty());
}

#[test]
fn a_service_that_closes_and_reads_no_more_is_left() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, &[5; 60_000]);
    bench.write_wire(5000);
    bench.wire(1.0, CLOSE_1000);
    assert_eq!((bench.end(), bench.deadline()), (None, Some(6.0)));
    bench.tick(6.0);
    assert_eq!(bench.end(), Some(closed(1000)));
}

#[test]
fn a_ping_is_answered_although_data_waits() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, &[5; 64 * 1024]);
    bench.write_wire(100);
    bench.wire(0.1, &[0x89, 0x04, 1, 2, 3, 4]);
    bench.wire(0.1, &[0x82, 0x01, b'x', 0x89, 0x00, 0x8a, 0x00]);
    bench.flush(0.1);
    assert_eq!(bench.controls(), [(10, &[1, 2, 3, 4][..]), (10, &[][..])]);
    assert_eq!(bench.sent().len(), 64 * 1024);
    assert_eq!(bench.local, b"x");
}

#[test]
fn pings_follow_their_schedule() {
    let mut bench = Bench::new(OPTIONS);
    assert_eq!(bench.deadline(), Some(30.0));
    bench.tick(29.9);
    assert_eq!(bench.write_wire(usize::MAX), 0);
    bench.say(10.0, b"a frame of ours");
    bench.flush(10.0);
    assert_eq!(bench.deadline(), Some(40.0));
    bench.wire(15.0, &[0x89, 0x00]);
    bench.flush(15.0);
    assert_eq!(bench.deadline(), Some(45.0), "any frame counts");
    bench.tick(45.0);
    bench.flush(45.0);
    assert_eq!(bench.controls(), [(10, &[][..]), (9, &[][..])]);
    assert_eq!(bench.deadline(), Some(65.0));
    bench.say(50.0, b"what we send does not answer it");
    bench.flush(50.0);
    assert_eq!(bench.deadline(), Some(65.0));
    bench.wire(64.0, &[0x8a, 0x00]);
    assert_eq!(bench.deadline(), Some(94.0));
    bench.tick(94.0);
    bench.flush(94.0);
    bench.wire(95.0, HELLO);
    bench.flush(95.0);
    assert_eq!(bench.deadline(), Some(125.0), "data is as good as a pong");
    bench.tick(125.0);
    bench.flush(125.0);
    bench.tick(144.9);
    assert_eq!(bench.end(), None);
    bench.tick(145.0);
    assert_eq!(bench.end(), Some(End::Dead));
    assert_eq!(bench.controls().iter().filter(|(opcode, _)| *opcode == 9).count(), 3);

    let never = Bench::new(SessionOptions { ping: Ping::Never, ..OPTIONS });
    assert_eq!(never.deadline(), None);
}

/// What TCP says of a connection with data of ours in its queue.
fn tcp(waiting: u32, unanswered: u32, quiet: u64) -> Option<Standing> {
    Some(Standing { waiting, unanswered, quiet: Duration::from_secs(quiet) })
}

#[test]
fn a_vm_that_does_not_read_is_not_dead() {
    // The kernel takes no more, and the service answers TCP's probes: for a day.
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, &[5; 60_000]);
    bench.write_wire(5000);
    bench.tcp = tcp(2_000_000, 1, 3);
    for look in 0..4320 {
        let time = 30.0 + 20.0 * f64::from(look);
        assert_eq!(bench.deadline(), Some(time));
        bench.tick(time);
        assert_eq!(bench.end(), None, "at {time}");
    }
    bench.tcp = tcp(0, 0, 3);
    bench.flush(86_400.0);
    assert_eq!(bench.controls(), [], "no ping behind data that did not leave");
    bench.tick(86_430.0);
    bench.flush(86_430.0);
    assert_eq!(bench.controls(), [(9, &[][..])]);

    // We have written everything, and the kernel still has it.
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, b"x");
    bench.flush(0.0);
    bench.tcp = tcp(1, 2, 100);
    bench.tick(30.0);
    bench.flush(30.0);
    assert_eq!((bench.controls().len(), bench.deadline()), (0, Some(50.0)));
    bench.tcp = tcp(1, 30, 49);
    bench.tick(50.0);
    assert_eq!(bench.end(), None, "it has answered not long ago");
}

#[test]
fn a_dead_connection_is_found_behind_our_own_data() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, &[5; 60_000]);
    bench.write_wire(5000);
    bench.tcp = tcp(2_000_000, 7, 30);
    bench.tick(30.0);
    assert_eq!((bench.end(), bench.deadline()), (None, Some(50.0)));
    bench.tcp = tcp(2_000_000, 8, 50);
    bench.tick(50.0);
    assert_eq!(bench.end(), Some(End::Dead));

    // The ping itself is what nobody acknowledges, behind much data.
    let mut bench = upload(OPTIONS, 3);
    bench.tick(30.0);
    bench.flush(30.0);
    bench.tcp = tcp(6, 6, 50);
    bench.tick(50.0);
    assert_eq!(bench.end(), Some(End::Dead));
}

/// A bench whose local side has sent so many batches of 64 KiB.
fn upload(options: SessionOptions, batches: usize) -> Bench {
    let mut bench = Bench::new(options);
    for _ in 0..batches {
        bench.say(0.0, &[5; 64 * 1024]);
        bench.flush(0.0);
    }
    bench
}

#[test]
fn a_ping_behind_data_that_the_service_holds_has_more_time() {
    // TCP has acknowledged everything, which says nothing about the VM.
    let mut bench = upload(OPTIONS, 2);
    bench.tcp = tcp(0, 0, 0);
    bench.tick(30.0);
    bench.flush(30.0);
    for look in 1..45 {
        let time = 30.0 + 20.0 * f64::from(look);
        assert_eq!(bench.deadline(), Some(time));
        bench.tick(time);
        assert_eq!(bench.end(), None, "at {time}");
    }
    bench.tick(930.0);
    assert_eq!(bench.end(), Some(End::Dead), "a quarter of an hour is enough");
    assert_eq!(bench.controls(), [(9, &[][..])], "one ping at most is out");

    // What was answered is behind it no more.
    let mut bench = upload(OPTIONS, 2);
    bench.tick(30.0);
    bench.flush(30.0);
    bench.wire(31.0, &[0x8a, 0x00]);
    bench.tick(61.0);
    bench.flush(61.0);
    bench.tick(81.0);
    assert_eq!(bench.end(), Some(End::Dead));

    // Data from the VM is life, and little proof that it reads; a pong that nobody asked for is none.
    let mut bench = upload(OPTIONS, 3);
    bench.wire(1.0, &[0x8a, 0x00]);
    bench.wire(2.0, HELLO);
    bench.flush(2.0);
    bench.tick(32.0);
    bench.flush(32.0);
    bench.tick(52.0);
    assert_eq!(bench.end(), None);
    // Who takes turns has answered for what was sent before.
    let mut bench = Bench::new(OPTIONS);
    for _ in 0..500 {
        bench.say(0.0, &[5; 1500]);
        bench.flush(0.0);
        bench.wire(0.0, HELLO);
    }
    bench.say(0.0, &[5; 1500]);
    bench.flush(0.0);
    bench.tick(30.0);
    bench.flush(30.0);
    bench.tick(50.0);
    assert_eq!(bench.end(), Some(End::Dead));
    // So much surely has room.
    let mut bench = upload(OPTIONS, 1);
    bench.tick(30.0);
    bench.flush(30.0);
    bench.tick(50.0);
    assert_eq!(bench.end(), Some(End::Dead));
}

#[test]
fn a_machine_that_wakes_pings_at_once() {
    let mut bench = Bench::new(OPTIONS);
    bench.wire(0.0, HELLO);
    bench.flush(0.0);
    bench.session.woke(bench.at(7.0));
    // Whoever types first does not put the question off.
    bench.say(7.0, b"x");
    bench.flush(7.0);
    assert_eq!(bench.deadline(), Some(7.0));
    bench.tick(7.0);
    bench.flush(7.0);
    assert_eq!(bench.controls(), [(9, &[][..])]);
    // A second sleep changes nothing: one ping at most is out.
    bench.session.woke(bench.at(12.0));
    assert_eq!(bench.deadline(), Some(27.0));
    bench.tick(27.0);
    assert_eq!(bench.end(), Some(End::Dead));

    // What died meanwhile did not die of our ping.
    let mut bench = Bench::new(OPTIONS);
    bench.session.woke(bench.at(7.0));
    bench.tick(7.0);
    bench.flush(7.0);
    bench.session.wire_broken("reset".into(), bench.at(7.1));
    assert!(bench.end().is_some() && !bench.session.was_ended_by_ping());

    // A frame that came meanwhile is life.
    let mut bench = Bench::new(OPTIONS);
    bench.session.woke(bench.at(7.0));
    bench.wire(7.0, HELLO);
    bench.flush(7.0);
    assert_eq!(bench.deadline(), Some(37.0));

    let mut never = Bench::new(SessionOptions { ping: Ping::Never, ..OPTIONS });
    never.session.woke(never.at(7.0));
    assert_eq!(never.deadline(), None);
}

#[test]
fn pings_that_do_harm_end_everywhere() {
    let mut bench = Bench::new(OPTIONS);
    bench.tick(30.0);
    bench.flush(30.0);
    bench.session.forbid_pings();
    assert_eq!(bench.deadline(), None, "nor is the one that is out waited for");
    bench.session.woke(bench.at(40.0));
    assert_eq!(bench.deadline(), None);
}

#[test]
fn what_the_vm_may_have_done_is_known() {
    let heard = |write: usize, finish: bool, last: &dyn Fn(&mut Bench)| {
        let mut bench = Bench::new(OPTIONS);
        bench.say(0.0, b"do it once");
        let all = bench.write_wire(write) < write;
        if finish && all {
            bench.eof(0.1);
        } else if finish {
            bench.session.local_eof(bench.at(0.1));
        }
        last(&mut bench);
        bench.flush(0.3);
        assert!(bench.end().is_some());
        bench.session.heard()
    };
    let eof = |bench: &mut Bench| bench.session.wire_eof(bench.at(0.2));
    let close = |bench: &mut Bench| bench.wire(0.2, CLOSE_1000);
    let ping_and_close = |bench: &mut Bench| bench.wire(0.2, &[0x89, 0, 0x88, 0]);
    for last in [&eof as &dyn Fn(&mut Bench), &close, &ping_and_close] {
        assert_eq!(heard(usize::MAX, true, last), Heard::NoAnswer);
        assert_eq!(heard(usize::MAX, false, last), Heard::Nothing, "the local side may have more to say");
        assert_eq!(heard(7, true, last), Heard::Nothing, "not all of it has left");
    }
    // Nothing said, nothing done.
    let mut bench = Bench::new(OPTIONS);
    bench.eof(0.0);
    bench.wire(0.1, CLOSE_1000);
    assert_eq!(bench.session.heard(), Heard::Nothing);
}

#[test]
fn a_local_side_that_pauses_is_not_a_dead_service() {
    let mut bench = Bench::new(OPTIONS);
    bench.tick(30.0);
    bench.flush(30.0);
    // The answer to the ping stands behind data that nobody takes for an hour.
    bench.wire(31.0, HELLO);
    assert_eq!(bench.deadline(), None);
    bench.tick(3600.0);
    bench.write_local(3600.0);
    assert_eq!((bench.end(), bench.deadline()), (None, Some(3630.0)));

    bench.tick(3630.0);
    bench.wire(3631.0, &HELLO[..4]);
    bench.session.awaiting_pong = Some(Awaited::new(PONG_WITHIN, bench.at(3631.0)));
    bench.write_local(9999.0);
    assert_eq!(bench.deadline(), Some(10_019.0), "the service has its time from when we listen again");
}

#[test]
fn a_ping_is_blamed_only_for_what_it_may_have_done() {
    let check = |expected: bool, seconds: f64, what: &dyn Fn(&mut Session, Instant)| {
        let mut bench = Bench::new(OPTIONS);
        bench.tick(30.0);
        bench.flush(30.0);
        let at = bench.at(seconds);
        what(&mut bench.session, at);
        bench.flush(seconds);
        bench.tick(seconds + 10.0);
        assert!(bench.end().is_some());
        assert_eq!(bench.session.was_ended_by_ping(), expected, "{:?} at {seconds}", bench.end());
    };
    check(true, 31.9, &|session, at| session.wire_eof(at));
    check(true, 31.9, &|session, at| session.wire_broken("reset".into(), at));
    check(true, 30.1, &|session, at| session.wire_deaf("reset".into(), at));
    check(false, 32.0, &|session, at| session.wire_eof(at));
    check(false, 30.5, &|session, at| session.local_broken(End::LocalBroken("reset".into()), at));
    check(false, 30.5, &|session, at| session.stop(at));
}

#[test]
fn a_vm_that_has_to_speak_first_is_not_waited_for_in_vain() {
    let options = SessionOptions { first_byte: Some(Duration::from_secs(20)), ..OPTIONS };
    let mut bench = Bench::new(options.clone());
    bench.say(1.0, b"SSH-2.0-client");
    bench.wire(2.0, &[0x89, 0x00]);
    bench.flush(2.0);
    assert_eq!(bench.deadline(), Some(20.0), "a ping is not the VM");
    bench.tick(20.0);
    bench.flush(20.0);
    assert_eq!(bench.end(), Some(End::Silent));
    assert_eq!(bench.controls(), [(10, &[][..]), (8, &[0x03, 0xe8][..])]);
    assert_eq!(bench.session.heard(), Heard::Nothing);
    assert_eq!(bench.session.into_replay().bytes, b"SSH-2.0-client");

    let mut bench = Bench::new(options);
    bench.wire(19.0, HELLO);
    bench.flush(19.0);
    bench.tick(20.0);
    assert_eq!((bench.end(), bench.deadline()), (None, Some(49.0)));
}

#[test]
fn a_stop_says_goodbye_and_does_not_wait_for_ever() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, b"last words");
    bench.session.stop(bench.at(1.0));
    bench.session.stop(bench.at(2.0));
    assert!(!bench.session.wants_local() && !bench.session.wants_wire());
    bench.flush(1.0);
    assert_eq!(bench.end(), Some(End::Stopped));
    assert_eq!((bench.sent().as_slice(), bench.controls().len()), (&b"last words"[..], 1));

    // A service that takes nothing, a local side that takes nothing, and both.
    for (wire, local) in [(false, true), (true, false), (false, false)] {
        let mut bench = Bench::new(OPTIONS);
        bench.wire(0.0, HELLO);
        bench.session.stop(bench.at(1.0));
        if wire {
            bench.write_wire(usize::MAX);
        }
        if local {
            bench.write_local(1.0);
        }
        assert_eq!((bench.end(), bench.deadline()), (None, Some(6.0)));
        bench.session.stop(bench.at(5.0));
        bench.tick(6.0);
        assert_eq!(bench.end(), Some(End::Stopped));
    }

    // The connection was over already; only a slow local side was waited for.
    let mut bench = Bench::new(OPTIONS);
    bench.wire(0.0, HELLO);
    bench.session.wire_eof(bench.at(0.1));
    bench.session.stop(bench.at(1.0));
    bench.tick(6.0);
    assert_eq!(bench.end(), Some(End::Eof), "the first reason is the reason");
}

#[test]
fn a_broken_local_side_takes_nothing_and_tells_the_service() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, b"sent");
    bench.wire(0.0, HELLO);
    bench.session.local_broken(End::LocalBroken("connection reset".into()), bench.at(0.1));
    assert!(!bench.session.has_local() && !bench.session.wants_wire());
    bench.flush(0.1);
    assert_eq!(bench.end(), Some(End::LocalBroken("connection reset".into())));
    assert_eq!((bench.sent().as_slice(), bench.controls()), (&b"sent"[..], vec![(8, &[0x03, 0xe8][..])]));

    // While the rest of a closed connection is being delivered.
    let mut bench = Bench::new(OPTIONS);
    bench.wire(0.0, HELLO);
    bench.wire(0.0, CLOSE_1000);
    bench.session.local_broken(End::LocalBroken("connection reset".into()), bench.at(0.1));
    assert_eq!(bench.end(), Some(closed(1000)));
}

#[test]
fn what_came_before_a_failed_write_is_delivered() {
    let mut bench = Bench::new(OPTIONS);
    bench.say(0.0, b"lost");
    bench.session.wire_deaf("connection reset".into(), bench.at(0.1));
    assert!(bench.session.wants_wire() && !bench.session.wants_local());
    for second in 1..20 {
        bench.wire(f64::from(second), HELLO);
        assert!(!bench.session.wants_wire());
        // Longer than the service gets for its close frame, but it is the local side that is slow.
        bench.tick(f64::from(second) + 0.5);
        bench.write_local(f64::from(second) + 0.9);
    }
    bench.wire(20.0, &[0x89, 0x00]);
    assert!(bench.session.to_wire().is_empty());
    bench.session.wire_eof(bench.at(20.0));
    assert_eq!(bench.end(), Some(End::Broken("connection reset".into())));
    assert_eq!(bench.local.len(), 19 * 5);

    let mut bench = Bench::new(OPTIONS);
    bench.wire(0.0, HELLO);
    bench.session.wire_deaf("reset".into(), bench.at(0.1));
    for time in [5.1, 10.1, 15.1] {
        bench.tick(time);
        assert_eq!(bench.end(), None, "the local side is slow, the service is not to blame");
    }
    bench.write_local(16.0);
    bench.tick(20.1);
    assert_eq!(bench.end(), Some(End::Broken("reset".into())), "nothing more came");

    // Nothing can come any more behind a close frame.
    let mut bench = Bench::new(OPTIONS);
    bench.wire(0.0, CLOSE_1000);
    bench.session.wire_deaf("reset".into(), bench.at(0.1));
    assert_eq!(bench.end(), Some(closed(1000)));
}

#[test]
fn a_slow_local_side_gets_everything_after_the_end() {
    let mut bench = Bench::new(OPTIONS);
    bench.wire(0.0, HELLO);
    bench.session.wire_eof(bench.at(0.1));
    for time in [1.0, 100.0, 10_000.0] {
        bench.tick(time);
        assert_eq!((bench.end(), bench.deadline()), (None, None));
    }
    bench.session.wrote_local(2, bench.at(10_001.0));
    assert_eq!(bench.end(), None);
    bench.write_local(10_002.0);
    assert_eq!((bench.end(), bench.local.as_slice()), (Some(End::Eof), &b"llo"[..]));
}

#[test]
fn what_breaks_the_protocol_is_told_so() {
    let mut bench = Bench::new(OPTIONS);
    bench.wire(0.0, HELLO);
    bench.wire(0.0, &[0x82, 0x81, 1, 2, 3, 4, 5]);
    bench.flush(0.0);
    assert_eq!(bench.end(), Some(End::Malformed("a masked frame from the service (section 5.1)")));
    assert_eq!(bench.local, b"hello");
    assert_eq!(bench.controls(), [(8, &[0x03, 0xea][..])]);
}

#[test]
fn early_bytes_are_the_first() {
    let mut bench = Bench::new(OPTIONS);
    bench.session.from_early(b"", bench.at(0.0));
    assert_eq!(bench.session.heard(), Heard::Nothing);
    bench.session.from_early(&HELLO[..4], bench.at(0.0));
    bench.wire(0.1, &HELLO[4..]);
    bench.flush(0.1);
    assert_eq!(bench.local, b"hello");

    let mut long = vec![0x82, 0x7f, 0, 0, 0, 0, 0, 8, 0, 0];
    long.extend(vec![9; 512 * 1024]);
    let mut bench = Bench::new(OPTIONS);
    bench.session.from_early(&long, bench.at(0.0));
    bench.flush(0.0);
    bench.wire(0.1, HELLO);
    bench.flush(0.1);
    assert_eq!(bench.local.len(), 512 * 1024 + 5);

    let mut bench = Bench::new(OPTIONS);
    bench.session.from_early(b"HTTP/1.1 400 Bad Request\r\n\r\n", bench.at(0.0));
    assert_eq!(bench.end(), Some(End::ProxyRefused { status: Some(400) }));
}
