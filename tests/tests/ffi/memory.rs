//! Memory, as AddressSanitizer, its leak checker and valgrind see it. It leaves out what the programs do.

use bastide_tests::{Outcome, Program};

use crate::kit::Kit;

/// Nothing of what these programs call trouble.
fn expect_clean(outcome: &Outcome) {
    for trouble in
        ["AddressSanitizer", "LeakSanitizer", "runtime error", "Invalid ", "uninitialised", "definitely lost"]
    {
        assert!(!outcome.stderr.contains(trouble), "{outcome}");
    }
}

#[test]
fn addresssanitizer_finds_nothing() {
    let kit = Kit::new();
    let compile =
        |source: &str| kit.compile(source, &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    for (source, port) in [
        ("misuse.c", 7),
        ("connect.c", 22),
        ("events.c", 22),
        ("events.c", 81),
        ("echo.cpp", 7),
        ("guest.c", 7),
        ("closing.c", 82),
        ("doctor.c", 22),
    ] {
        expect_clean(&kit.for_port(&compile(source), port).run().expect_code(0));
    }
    let credential = compile("credential.c");
    expect_clean(&kit.for_port(&credential, 7).env("TOKEN", kit.token()).run().expect_code(0));
    let many = compile("many.c");
    expect_clean(&kit.for_port(&many, 7).env("COUNT", "10").run().expect_code(0));
}

#[test]
fn valgrind_finds_nothing() {
    let kit = Kit::new();
    let valgrind = |source: &str| -> Program {
        kit.lab
            .program("valgrind")
            .words(
                "--quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite --num-callers=30",
            )
            .words("--errors-for-leak-kinds=definite --fair-sched=yes")
            .arg(kit.compile(source, &[]))
    };
    expect_clean(&valgrind("misuse.c").args(kit.options(7)).run().expect_code(0));
    expect_clean(&valgrind("connect.c").args(kit.options(22)).run().expect_code(0));
    let outcome = valgrind("many.c").env("COUNT", "5").args(kit.options(7)).run().expect_code(0);
    assert!(outcome.text().ends_with("0 leaked\n"), "{outcome}");
    expect_clean(&outcome);
}
