//! `cargo xtask tidy`: the rules of the house that a machine can check.
//!
//! Each rule is a small function from what it reads to findings, with a table of bad samples as its
//! test. `code` has the rules for every Rust file, `house` those for the crates and the arrows
//! between them, `manifests` and `documents` those for the other files. Whatever rustc, clippy or
//! cargo-deny can say is left to them.

mod code;
mod documents;
mod house;
mod manifests;
mod source;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cargo;

use source::Source;

/// Reads the whole repository and fails when a rule is broken.
pub(crate) fn run() -> Result<()> {
    let root = cargo::root()?;
    let files = read(&root)?;
    let packages = cargo::packages(&root)?;
    let sources = Source::all(&files);

    let mut findings = Vec::new();
    code::check(&sources, &mut findings);
    house::check(&packages, &sources, &files, &mut findings);
    manifests::check(&packages, &sources, &files, &mut findings);
    documents::check(&packages, &files, &mut findings);

    findings.sort();
    findings.dedup();
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("tidy: 1 finding"),
        count => bail!("tidy: {count} findings"),
    }
}

/// A broken rule: where, which, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    rule: &'static str,
    mend: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, mend: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, rule, mend: mend.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} — {}", self.path, self.line, self.rule, self.mend)
    }
}

/// A text file of the repository.
#[derive(Debug, Clone)]
struct File {
    /// Below the root, with `/` between names.
    path: String,
    text: String,
}

/// The first file of that path.
fn file<'a>(files: &'a [File], path: &str) -> Option<&'a File> {
    files.iter().find(|file| file.path == path)
}

fn read(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    read_folder(root, root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<File>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let is_package = path == root.join(PACKAGES);
            if !is_package && !NOT_OURS.contains(&&*entry.file_name().to_string_lossy()) {
                read_folder(root, &path, files)?;
            }
        } else if kind.is_file() {
            // What is not text has no lines to judge.
            if let Ok(text) = String::from_utf8(std::fs::read(&path)?) {
                files.push(File { path: cargo::slashed(path.strip_prefix(root)?), text });
            }
        }
    }
    Ok(())
}

/// Folders that hold what git and cargo made, and what a fuzz target reads byte for byte.
const NOT_OURS: &[&str] = &[".git", "target", "seeds"];

/// What `cargo xtask dist` makes, below the root.
const PACKAGES: &str = "dist";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_what_and_how_to_mend() {
        let finding = Finding::new("src/lib.rs", 7, "no ignored tests", "mend the test");
        assert_eq!(finding.to_string(), "src/lib.rs:7: no ignored tests — mend the test");
    }

    #[test]
    fn reads_text_and_leaves_out_what_cargo_made() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for (path, bytes) in [
            ("src/a.rs", &b"//! A\n"[..]),
            ("target/b.rs", b""),
            ("c.png", &[0xff, 0xfe]),
            (".ci/run", b"x\n"),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().context("no parent")?)?;
            std::fs::write(path, bytes)?;
        }
        let paths: Vec<String> = read(folder.path())?.into_iter().map(|file| file.path).collect();
        assert_eq!(paths, [".ci/run", "src/a.rs"]);
        Ok(())
    }
}
