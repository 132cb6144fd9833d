//! The programs of docs/languages.md, as they stand there, with the name of the emulator's VM for that of the reader. It
//! leaves out the one for Node, which is run by hand.

use crate::kit::{Kit, root, shipped};
use crate::python::script;

/// The program in a language.
fn program(language: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/languages.md")).unwrap();
    let start = format!("```{language}\n");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("nothing in {language}"));
    let (program, _) = rest.split_once("\n```\n").unwrap();
    program.replace("my-vm", "web-01") + "\n"
}

#[test]
fn c_and_c_plus_plus() {
    let kit = Kit::new();
    let run = |language: &str, name: &str| {
        let file = kit.lab.file(name, program(language));
        let program = kit.compile(file.to_str().unwrap(), &[]);
        let outcome = kit.lab.program(program).run().expect_code(0);
        assert_eq!(outcome.stderr, "");
        outcome.text()
    };
    assert!(run("c", "banner.c").starts_with("SSH-2.0-"));
    assert!(run("cpp", "port.cpp").starts_with("connect to port "));
}

#[test]
fn python() {
    let kit = Kit::new();
    let text = program("python") + "\nimport asyncio\nasyncio.run(banner())\n";
    let file = kit.lab.file("program.py", text);
    let outcome = script(&kit, "python3".as_ref(), file.to_str().unwrap()).run().expect_code(0);
    let text = outcome.text();
    assert_eq!(text.matches("SSH-2.0-").count(), 2, "{outcome}");
    assert!(text.contains("connect to port "), "{outcome}");
}

#[test]
fn go() {
    let kit = Kit::new();
    let file = kit.lab.file("main.go", program("go"));
    let libraries = shipped("prefix/lib");
    let go = kit.lab.program("go").args(["run"]).arg(file);
    // Neither modules nor toolchains are fetched.
    let go = go.env("GO111MODULE", "off").env("GOTOOLCHAIN", "local").env("GOPROXY", "off");
    let go = go.env("PKG_CONFIG_PATH", libraries.join("pkgconfig")).env("LD_LIBRARY_PATH", libraries);
    let outcome = go.run().expect_code(0);
    assert!(outcome.text().starts_with("SSH-2.0-"), "{outcome}");
}
