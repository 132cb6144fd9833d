//! The library as a guest in a process: signals, standard streams, forks, several clients, callbacks. It leaves out what
//! connections carry.

use crate::kit::Kit;

#[test]
fn signals_and_streams_are_the_programs_own() {
    let kit = Kit::new();
    assert_eq!(kit.run("guest.c", 7).text(), "as before\n");
}

#[test]
fn a_forked_child_is_told_and_its_parent_goes_on() {
    let kit = Kit::new();
    assert_eq!(kit.run("forked.c", 7).text(), "the child has ended well\nthe parent goes on\n");
}

#[test]
fn closing_ends_who_waits() {
    let kit = Kit::new();
    assert_eq!(kit.run("closing.c", 82).text(), "everybody was told\n");
}
