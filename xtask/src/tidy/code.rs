//! The rules for Rust files, whichever crate they are in.
//!
//! Most of them forbid words, and are lines of one table with a bad sample each. The rest has a
//! function each.

use super::Finding;
use super::source::Source;

pub(super) fn check(sources: &[Source], findings: &mut Vec<Finding>) {
    for source in sources {
        for rule in FORBIDDEN {
            rule.check(source, findings);
        }
        for rule in [opening, length, error_enums, bool_parameters, sleeping_tests] {
            rule(source, findings);
        }
    }
}

/// Words that must not stand in code.
pub(super) struct Forbidden {
    pub rule: &'static str,
    pub words: &'static [&'static str],
    /// Paths begin with one of these, or any path does when there is none.
    pub within: &'static [&'static str],
    /// Paths that begin with one of these are let through.
    pub except: &'static [&'static str],
    pub tests: Tests,
    pub mend: &'static str,
    /// A line that breaks the rule, for the rule's own test.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by tests only"))]
    pub sample: &'static str,
}

/// What a rule has to say about tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tests {
    AsEverything,
    LetThrough,
}

impl Forbidden {
    pub(super) fn check(&self, source: &Source, findings: &mut Vec<Finding>) {
        let begins = |starts: &[&str]| starts.iter().any(|start| source.path.starts_with(start));
        if (!self.within.is_empty() && !begins(self.within)) || begins(self.except) {
            return;
        }
        for word in self.words {
            for line in source.lines_with(word) {
                if self.tests == Tests::AsEverything || !source.is_test(line) {
                    findings.push(Finding::new(&source.path, line, self.rule, self.mend));
                }
            }
        }
    }
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        rule: "no ignored tests",
        words: &["#[ignore"],
        within: &[],
        except: &[],
        tests: Tests::AsEverything,
        mend: "mend the test, or delete it and open an issue",
        sample: "#[ignore = \"flaky\"]",
    },
    Forbidden {
        rule: "nothing unfinished",
        words: &["todo!", "unimplemented!"],
        within: &[],
        except: &[],
        tests: Tests::AsEverything,
        mend: "write it, or return an error that says what is not there yet",
        sample: "fn later() { todo!() }",
    },
    Forbidden {
        rule: "no `allow`",
        words: &["#[allow(", "#![allow("],
        within: &[],
        except: &[],
        tests: Tests::AsEverything,
        mend: "`#[expect(lint, reason = \"…\")]`: it tells when it is no longer needed",
        sample: "#![allow(dead_code)]",
    },
    Forbidden {
        rule: "every task has an owner",
        words: &["tokio::spawn(", "task::spawn("],
        within: &[],
        except: &[],
        tests: Tests::LetThrough,
        mend: "spawn on a `JoinSet` or a `TaskTracker` that somebody waits for",
        sample: "let task = tokio::spawn(async {});",
    },
];

/// Every file says first what it holds and what it leaves out.
fn opening(source: &Source, findings: &mut Vec<Finding>) {
    if !source.text.starts_with("//! ") {
        let mend = "begin with `//!`: what the file holds, what it leaves out";
        findings.push(Finding::new(&source.path, 1, "every file opens with `//!`", mend));
    }
}

/// A file that can't be read in one sitting is two files.
fn length(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if lines > LINES {
        let mend = format!("it has {lines}: split it where its subject divides");
        findings.push(Finding::new(&source.path, lines, "at most 800 lines a file", mend));
    }
}

const LINES: usize = 800;

/// Callers must be ready for failures that are not known yet.
fn error_enums(source: &Source, findings: &mut Vec<Finding>) {
    let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = line.strip_prefix("pub enum ").and_then(|rest| rest.split([' ', '<', '{']).next())
        else {
            continue;
        };
        if !name.ends_with("Error") || source.is_test(index + 1) {
            continue;
        }
        // The attributes above; comments between them are blank lines here.
        let attributes = lines.iter().take(index).rev().take_while(|line| !line.ends_with(['}', ';', '{']));
        if !attributes.into_iter().any(|line| line.contains("#[non_exhaustive]")) {
            let mend = "add `#[non_exhaustive]`";
            findings.push(Finding::new(&source.path, index + 1, "error enums are non-exhaustive", mend));
        }
    }
}

/// `connect(true, false)` tells its reader nothing.
fn bool_parameters(source: &Source, findings: &mut Vec<Finding>) {
    for start in ["pub fn ", "pub async fn ", "pub const fn "] {
        for (at, _) in source.code.match_indices(start) {
            let (before, rest) = source.code.split_at_checked(at).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let takes_bool = parameters(rest)
                .iter()
                .any(|parameter| parameter.split_once(':').is_some_and(|(_, kind)| kind.trim() == "bool"));
            if takes_bool && !source.is_test(line) {
                let mend = "an enum with two names, or two functions";
                findings.push(Finding::new(
                    &source.path,
                    line,
                    "no `bool` parameters in public functions",
                    mend,
                ));
            }
        }
    }
}

/// The parameters of a function whose text begins with `pub … fn`.
fn parameters(function: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    // Angle brackets before the list, and all brackets within it.
    let (mut angles, mut depth, mut last) = (0_i32, 0_i32, ' ');
    for character in function.chars() {
        match character {
            '<' => angles += 1,
            '>' if last != '-' => angles -= 1,
            _ => {}
        }
        let inside = depth > 0;
        if angles == 0 || inside {
            match character {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            }
        }
        if inside && depth == 0 {
            break;
        }
        if inside && depth == 1 && character == ',' && angles == 0 {
            found.push(String::new());
        } else if inside && let Some(parameter) = found.last_mut() {
            parameter.push(character);
        }
        last = character;
    }
    found
}

/// A test that sleeps is slow on a fast machine and wrong on a slow one. Paused time is no time.
fn sleeping_tests(source: &Source, findings: &mut Vec<Finding>) {
    let is_paused = source.code.contains("start_paused") || source.code.contains("time::pause(");
    for line in source.lines_with("sleep(") {
        let text = source.code.lines().nth(line - 1).unwrap_or_default();
        if source.is_test(line) && (!is_paused || text.contains("thread::sleep(")) {
            let mend = "wait for what is to happen, or feed the time (`start_paused`)";
            findings.push(Finding::new(&source.path, line, "no sleeping in tests", mend));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let mut findings = Vec::new();
        check(
            &Source::all(&[super::super::File { path: path.to_owned(), text: text.to_owned() }]),
            &mut findings,
        );
        findings.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn forbidden_words_are_found_in_code_and_nowhere_else() {
        for rule in FORBIDDEN {
            let bad = format!("//! A file.\n{}\n", rule.sample);
            assert_eq!(rules("crates/x/src/lib.rs", &bad), [rule.rule]);
            let comment = format!("//! A file.\n// {}\nconst A: &str = {:?};\n", rule.sample, rule.sample);
            assert_eq!(rules("crates/x/src/lib.rs", &comment), [] as [&str; 0]);
        }
    }

    #[test]
    fn bad_files() {
        let long = format!("//! A file.\n{}", "\n".repeat(800));
        for (text, rule) in [
            ("fn a() {}\n", "every file opens with `//!`"),
            ("// A file.\n//! A file.\n", "every file opens with `//!`"),
            (long.as_str(), "at most 800 lines a file"),
            ("//! A.\npub enum Error {\n    A,\n}\n", "error enums are non-exhaustive"),
            (
                "//! A.\n#[non_exhaustive]\npub struct A {}\n/// B.\n#[derive(Debug)]\npub enum MintError { A }\n",
                "error enums are non-exhaustive",
            ),
            ("//! A.\npub fn open(port: u16, loud: bool) {}\n", "no `bool` parameters in public functions"),
            (
                "//! A.\npub async fn open<F: Fn(u8) -> u8>(\n    f: F,\n    loud: bool,\n) {}\n",
                "no `bool` parameters in public functions",
            ),
            (
                "//! A.\n#[cfg(test)]\nmod tests {\n    fn a() { std::thread::sleep(b); }\n}\n",
                "no sleeping in tests",
            ),
            (
                "//! A.\n#[cfg(test)]\nmod tests {\n    fn a() { start_paused; thread::sleep(b); }\n}\n",
                "no sleeping in tests",
            ),
        ] {
            assert_eq!(rules("crates/x/src/lib.rs", text), [rule], "{text}");
        }
    }

    #[test]
    fn good_files() {
        let full = format!("//! A file.\n{}", "\n".repeat(799));
        for text in [
            full.as_str(),
            "//! A.\n/// B.\n#[derive(Debug)]\n// Why.\n#[non_exhaustive]\npub enum Error {\n    A,\n}\n",
            "//! A.\npub enum Terror { A }\nenum Error { A }\n",
            "//! A.\npub fn is_open(port: u16) -> bool {}\nfn own(loud: bool) {}\npub struct A { pub loud: bool }\n",
            "//! A.\npub fn each(f: impl Fn(bool) -> bool, g: Vec<(u8, bool)>) {}\n",
            "//! A.\nfn a() { sleep(b); }\n",
            "//! A.\n#[cfg(test)]\nmod tests {\n    #[tokio::test(start_paused = true)]\n    fn a() { time::sleep(b); tokio::spawn(c); }\n}\n",
        ] {
            assert_eq!(rules("crates/x/src/lib.rs", text), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn splits_parameters() {
        for (function, list) in [
            ("pub fn a()", vec![""]),
            ("pub fn a(b: u8, c: [u8; 2]) -> (d, e)", vec!["b: u8", " c: [u8; 2]"]),
            ("pub fn a<B: Fn(u8, u8) -> u8>(c: Map<d, e>, f: (g, h)) {", vec!["c: Map<d, e>", " f: (g, h)"]),
        ] {
            assert_eq!(parameters(function), list, "{function}");
        }
    }
}
