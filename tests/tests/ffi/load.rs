//! Much and many: bytes in both directions at once, and connections by the thousand from several threads. It leaves out
//! speed.

use crate::kit::Kit;

#[test]
fn a_hundred_megabytes_each_way_are_the_same_bytes() {
    let kit = Kit::new();
    let outcome = kit.run("copy.c", 7);
    let text = outcome.text();
    let mut words = text.split_whitespace();
    let (sent, received) = (words.next().unwrap(), words.next().unwrap());
    assert_eq!(sent, received, "{outcome}");
    assert!(text.ends_with("104857600 104857600\n"), "{outcome}");
}

#[test]
fn a_thousand_connections_from_eight_threads_leave_nothing() {
    let kit = Kit::new();
    let outcome = kit.for_port(&kit.compile("many.c", &[]), 7).env("COUNT", "125").run().expect_code(0);
    assert_eq!(outcome.text(), "1000 connections, 5000 bytes there and 5000 back, 0 leaked\n", "{outcome}");
    assert_eq!(outcome.stderr, "");
    assert_eq!(kit.lab.transcript().mints(), 1000);
}
