//! A Rust file as the rules see it: its code without comments and texts, and which lines are tests.
//!
//! This is a lexer for comments and literals and nothing more: a rule that would need types or
//! names resolved belongs to clippy.

use std::collections::BTreeSet;
use std::ops::Range;

use super::File;

/// A Rust file.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Below the root, with `/` between names.
    pub path: String,
    pub text: String,
    /// The text with blanks for what stands in comments and in string and character literals. Line
    /// numbers are those of the text.
    pub code: String,
    /// The whole file is compiled for tests only.
    is_test: bool,
    /// Lines, counted from 0, that are compiled for tests only.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// All Rust files, each knowing whether another one declares it as `#[cfg(test)] mod`.
    pub(super) fn all(files: &[File]) -> Vec<Source> {
        let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
        let mut sources: Vec<Source> = rust.map(|file| Source::new(&file.path, &file.text)).collect();
        let declared: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            let module = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
            if declared.iter().any(|test| is_at_or_below(module, test)) {
                source.is_test = true;
            }
        }
        sources
    }

    pub(super) fn new(path: &str, text: &str) -> Source {
        let code = code_of(text);
        let tests = test_items(&code);
        Source { path: path.to_owned(), text: text.to_owned(), code, is_test: is_test_path(path), tests }
    }

    /// Is the line, counted from 1, compiled for tests only?
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.is_test || self.tests.iter().any(|lines| lines.contains(&line.saturating_sub(1)))
    }

    /// The lines, counted from 1, on which `word` stands in code: not in a comment, not in a text,
    /// and not as the end of a longer name.
    pub(super) fn lines_with(&self, word: &str) -> Vec<usize> {
        let lines = self.code.lines().enumerate();
        lines.filter(|(_, line)| has_word(line, word)).map(|(index, _)| index + 1).collect()
    }

    /// Paths without `.rs` of the modules that this file declares for tests only.
    fn test_modules(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let (folder, stem) = path.rsplit_once('/').unwrap_or(("", path));
        let base = if matches!(stem, "mod" | "lib" | "main") { folder } else { path };
        let lines: Vec<&str> = self.code.lines().map(str::trim).collect();
        let declarations = lines.iter().enumerate().filter(|(index, _)| self.is_test(index + 1));
        declarations
            .filter_map(|(_, line)| line.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name.trim()))
            .filter(|name| name.chars().all(is_word))
            .map(|name| format!("{base}/{name}"))
            .collect()
    }
}

/// Whole files that are tests, by cargo's convention and ours.
fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "fuzz"))
}

fn is_at_or_below(module: &str, test: &str) -> bool {
    module.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn has_word(line: &str, word: &str) -> bool {
    let starts_with_name = word.chars().next().is_some_and(is_word);
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !(starts_with_name && before.is_some_and(is_word))
    })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The lines of items under `#[cfg(test)]`, or a `cfg` that begins with `all(test`.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    for marker in ["#[cfg(test)]", "#[cfg(all(test"] {
        for (at, _) in code.match_indices(marker) {
            let before = code.get(..at).unwrap_or_default();
            let rest = code.get(at..).unwrap_or_default();
            let first = before.matches('\n').count();
            items.push(first..first + item_height(rest));
        }
    }
    items
}

/// How many lines an item takes that begins here: to its `;` or to the end of its braces.
fn item_height(code: &str) -> usize {
    let mut depth = 0_usize;
    let mut height = 1;
    for character in code.chars() {
        match character {
            '\n' => height += 1,
            '{' => depth += 1,
            '}' if depth <= 1 => break,
            '}' => depth -= 1,
            ';' if depth == 0 => break,
            _ => {}
        }
    }
    height
}

/// Replaces everything in comments and literals by blanks, line by line.
fn code_of(text: &str) -> String {
    let mut lexer = Lexer { rest: text.chars().collect::<Vec<_>>().into_iter(), code: String::new() };
    lexer.run();
    lexer.code
}

struct Lexer {
    rest: std::vec::IntoIter<char>,
    code: String,
}

impl Lexer {
    fn run(&mut self) {
        while let Some(character) = self.rest.next() {
            match (character, self.rest.as_slice()) {
                ('/', ['/', ..]) => {
                    self.blank(character);
                    while !matches!(self.rest.as_slice(), [] | ['\n', ..]) {
                        self.skip(1);
                    }
                }
                ('/', ['*', ..]) => {
                    self.blank(character);
                    self.skip(1);
                    self.block_comment();
                }
                ('"', _) => {
                    self.code.push('"');
                    self.escaped_until('"');
                }
                ('r', ['"', ..] | ['#', ..]) if self.can_start_literal() => self.raw(),
                // A character; otherwise a lifetime or a label.
                ('\'', ['\\', ..] | [_, '\'', ..]) => {
                    self.code.push('\'');
                    self.escaped_until('\'');
                }
                _ => self.code.push(character),
            }
        }
    }

    /// From behind the opening `/*` to behind its `*/`; they nest.
    fn block_comment(&mut self) {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.rest.as_slice() {
                [] => return,
                ['*', '/', ..] => {
                    depth -= 1;
                    self.skip(2);
                }
                ['/', '*', ..] => {
                    depth += 1;
                    self.skip(2);
                }
                _ => self.skip(1),
            }
        }
    }

    fn escaped_until(&mut self, end: char) {
        while let Some(character) = self.rest.next() {
            if character == end {
                self.code.push(end);
                return;
            }
            self.blank(character);
            if character == '\\' {
                self.skip(1);
            }
        }
    }

    /// From behind the `r`: `#`s, a quote, anything, a quote and as many `#`s. Or a raw name.
    fn raw(&mut self) {
        self.code.push('r');
        let hashes = self.rest.as_slice().iter().take_while(|c| **c == '#').count();
        if self.rest.as_slice().get(hashes) != Some(&'"') {
            return;
        }
        self.skip(hashes + 1);
        while let Some(character) = self.rest.next() {
            self.blank(character);
            let closes = self.rest.as_slice().iter().take(hashes).filter(|c| **c == '#').count() == hashes;
            if character == '"' && closes {
                self.skip(hashes);
                return;
            }
        }
    }

    /// Not the last letter of a name; `br` and `cr` begin literals too.
    fn can_start_literal(&self) -> bool {
        let mut before = self.code.chars().rev();
        match before.next() {
            Some('b' | 'c') => !before.next().is_some_and(is_word),
            Some(character) => !is_word(character),
            None => true,
        }
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(character) = self.rest.next() {
                self.blank(character);
            }
        }
    }

    fn blank(&mut self, character: char) {
        self.code.push(if character == '\n' { '\n' } else { ' ' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_comments_and_literals() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d\n */ e", "a               \n    e"),
            (r#"f("x \" y", z)"#, r#"f("      ", z)"#),
            (r##"f(r#"x " y"#, z)"##, "f(r         , z)"),
            (r#"br"x" + 1"#, "br    + 1"),
            ("let c = '\"'; // '", "let c = ' ';     "),
            (r"let c = '\''; d", "let c = '  '; d"),
            ("fn a<'b>(c: &'b str) {}", "fn a<'b>(c: &'b str) {}"),
            ("r#type r#match", "r#type r#match"),
            ("\"two\nlines\" end", "\"   \n     \" end"),
        ] {
            assert_eq!(code_of(text), code, "{text}");
        }
    }

    #[test]
    fn finds_words_in_code_only() {
        let source =
            Source::new("a.rs", "tokio::spawn(x);\nmy_tokio::spawn(x);\n// tokio::spawn(\n\"tokio::spawn(\"");
        assert_eq!(source.lines_with("tokio::spawn("), [1]);
    }

    #[test]
    fn knows_which_lines_are_tests() {
        let text = "fn a() {}\n#[cfg(test)]\nuse b::{c, d};\nfn e() {}\n#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\nfn g() {}\n";
        let source = Source::new("crates/x/src/a.rs", text);
        let tests: Vec<usize> = (1..=10).filter(|line| source.is_test(*line)).collect();
        assert_eq!(tests, [2, 3, 5, 6, 7, 8, 9]);
        assert!(Source::new("crates/x/tests/it.rs", "fn a() {}").is_test(1));
        assert!(Source::new("crates/x/src/y/tests.rs", "fn a() {}").is_test(1));
    }

    #[test]
    fn follows_test_modules_into_their_files() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let sources = Source::all(&[
            file("crates/x/src/lib.rs", "mod real;\n#[cfg(test)]\nmod peer;\n"),
            file("crates/x/src/peer.rs", "fn a() {}"),
            file("crates/x/src/peer/wire.rs", "fn a() {}"),
            file("crates/x/src/real.rs", "#[cfg(all(test, unix))]\npub(crate) mod model;\n"),
            file("crates/x/src/real/model.rs", "fn a() {}"),
        ]);
        let tests: Vec<bool> = sources.iter().map(|source| source.is_test(1)).collect();
        assert_eq!(tests, [false, true, true, true, true]);
        assert!(!sources[0].is_test(1) && sources[0].is_test(3));
    }
}
