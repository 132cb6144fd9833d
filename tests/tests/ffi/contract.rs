//! What the library promises whatever it is used for: which symbols it has, what it does with NULL and with handles that
//! are none, and which options there are. It leaves out what it is for.

use std::collections::BTreeSet;

use bastide_ffi::{KEYS, Scope};

use crate::kit::{Kit, root, shipped};

/// The functions that bastide.h declares.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(shipped("prefix/include/bastide.h")).unwrap();
    let code: Vec<&str> = header.lines().filter(|line| !line.starts_with(['/', ' '])).collect();
    let names = code.iter().filter_map(|line| {
        let name = line.split_once('(')?.0.rsplit([' ', '*']).next()?;
        name.starts_with("bastide_").then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn the_symbols_are_those_of_the_header_with_a_version() {
    let kit = Kit::new();
    let nm = kit
        .lab
        .program("nm")
        .words("-D --defined-only --with-symbol-versions")
        .arg(shipped("prefix/lib/libbastide.so.0"));
    let listed = nm.run().expect_code(0).text();
    let symbols: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let expected: BTreeSet<String> =
        declared().into_iter().map(|name| format!("{name}@@libbastide.so.0")).collect();
    // The version itself is a symbol without a place.
    let unexpected: Vec<_> = symbols.iter().filter(|name| !expected.contains(**name)).collect();
    assert!(unexpected.iter().all(|name| name.starts_with("libbastide.so.0")), "{unexpected:?}");
    assert!(expected.iter().all(|name| symbols.contains(name.as_str())), "{symbols:?}");
    let readelf = kit
        .lab
        .program("readelf")
        .words("-d")
        .arg(shipped("prefix/lib/libbastide.so.0"))
        .run()
        .expect_code(0);
    assert!(readelf.text().contains("Library soname: [libbastide.so.0]"), "{readelf}");
}

#[test]
fn null_and_handles_that_are_none_are_misuse() {
    let kit = Kit::new();
    let source = std::fs::read_to_string(root().join("tests/tests/ffi/programs/misuse.c")).unwrap();
    for name in declared() {
        assert!(source.contains(&format!("{name}(")), "misuse.c does not call {name}");
    }
    assert_eq!(kit.run("misuse.c", 7).text(), "nothing has crashed\n");
    assert_eq!(kit.lab.transcript().mints(), 0);
}

#[test]
fn options_are_the_flags_of_the_command_line() {
    let kit = Kit::new();
    let help = kit.lab.bastide("tunnel --help").env("COLUMNS", "200").run().expect_code(0).text();
    let flags: BTreeSet<&str> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|flag| flag.trim_end_matches('.'))
        .collect();
    for key in KEYS {
        let is_there = flags.contains(key.name) || (key.name == "target" && help.contains("[TARGET]"));
        assert!(is_there, "'{}' is no flag of `bastide tunnel`", key.name);
    }
    // And the other way round: what is left out, is left out on purpose.
    let known: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
    let missing: Vec<&str> = flags.difference(&known).copied().filter(|flag| !flag.is_empty()).collect();
    let on_purpose = ["color", "config", "help", "output", "profile", "quiet", "verbose"];
    assert!(missing.iter().all(|flag| on_purpose.contains(flag)), "no option for {missing:?}");
    let header = std::fs::read_to_string(shipped("prefix/include/bastide.h")).unwrap();
    assert!(KEYS.iter().all(|key| header.contains(&format!("`{}`", key.name))), "the header names them all");
    assert!(KEYS.iter().any(|key| key.scope == Scope::Client));
}
