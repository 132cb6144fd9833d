//! `cargo xtask public-api`: everything public in the package `bastide`, a line for each item, in a file that is
//! committed, so that a change of it is seen. `cargo xtask test` compares. It leaves out what the items are for; that is
//! in their documentation.
//!
//! The list is made of rustdoc's JSON, which the stable compiler writes only when told that it is another one. That is
//! done for one run of rustdoc: this program is cargo's rustdoc meanwhile, and nothing is compiled once more.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// Where the list is, below the root.
const LIST: &str = "crates/client/public-api.txt";
const SOURCE: &str = "crates/client/src/lib.rs";

/// Writes the list anew.
pub(crate) fn run() -> Result<()> {
    let root = cargo::root()?;
    std::fs::write(root.join(LIST), document(&root)?).with_context(|| format!("cannot write {LIST}"))?;
    eprintln!("{LIST} is written");
    Ok(())
}

/// Documents the workspace, and compares what is public with the list.
pub(crate) fn check(root: &Path) -> Result<()> {
    let now = document(root)?;
    let committed = std::fs::read_to_string(root.join(LIST)).unwrap_or_default();
    let changes = changes(&committed, &now);
    ensure!(
        changes.is_empty(),
        "what is public in the package `bastide` has changed; if that is meant, `cargo xtask public-api` and commit \
         {LIST}\n{}",
        changes.join("\n")
    );
    Ok(())
}

/// Lines that came and went.
fn changes(before: &str, after: &str) -> Vec<String> {
    let is_in = |line: &str, text: &str| text.lines().any(|other| other == line);
    let went = before.lines().filter(|line| !is_in(line, after)).map(|line| format!("- {line}"));
    let came = after.lines().filter(|line| !is_in(line, before)).map(|line| format!("+ {line}"));
    went.chain(came).collect()
}

/// Writes the documentation of the whole workspace, without a warning, and returns the list.
fn document(root: &Path) -> Result<String> {
    let programs = cargo::programs()?;
    let target = programs.parent().context("this program is not in a target folder")?;
    // What is up to date would not be documented, and not listed.
    let page = target.join("doc/bastide/index.html");
    if page.exists() {
        std::fs::remove_file(&page).with_context(|| format!("cannot remove {}", page.display()))?;
    }
    let out = target.join("public-api");
    let mut command = cargo::command(root, &["doc", "--locked", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command.env(REAL, std::env::var_os(RUSTDOC).unwrap_or_else(|| "rustdoc".into()));
    command.env(RUSTDOC, cargo::this_program()?).env(OUT, &out);
    cargo::run(command)?;
    list(&out.join("bastide.json"))
}

const RUSTDOC: &str = "RUSTDOC";
/// The program in whose place this one is, and where it writes JSON.
const REAL: &str = "BASTIDE_XTASK_RUSTDOC";
const OUT: &str = "BASTIDE_XTASK_JSON";

/// When cargo has started this program in rustdoc's place: how that went. See the module's text.
pub(crate) fn as_rustdoc(arguments: &[String]) -> Option<Result<ExitStatus>> {
    let (real, out) = (std::env::var_os(REAL)?, std::env::var_os(OUT)?);
    let is_this =
        cargo::this_program().is_ok_and(|this| std::env::var_os(RUSTDOC).is_some_and(|name| name == this));
    is_this.then(|| {
        let rustdoc = |arguments: &[String]| {
            let mut command = Command::new(&real);
            command.args(arguments);
            command
        };
        let status = rustdoc(arguments).status().context("cannot start rustdoc")?;
        if !status.success() || !arguments.iter().any(|word| word == SOURCE) {
            return Ok(status);
        }
        let arguments = elsewhere(arguments, Path::new(&out));
        let mut command = rustdoc(&arguments);
        command.args(["-Zunstable-options", "--output-format=json"]).env("RUSTC_BOOTSTRAP", "1");
        // cargo has read everything that is to be said.
        command.stdout(Stdio::null()).status().context("cannot start rustdoc")
    })
}

/// The same words with another folder for the output.
fn elsewhere(arguments: &[String], out: &Path) -> Vec<String> {
    let mut words = arguments.to_vec();
    for pair in 1..words.len() {
        if words.get(pair - 1).is_some_and(|word| word == "-o" || word == "--out-dir")
            && let Some(folder) = words.get_mut(pair)
        {
            *folder = out.to_string_lossy().into_owned();
        }
    }
    words
}

fn list(json: &PathBuf) -> Result<String> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context("the crate public-api reads what the rustdoc of Rust 1.95 writes: take that, or a newer public-api")?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_what_came_and_what_went() {
        assert_eq!(changes("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
        assert!(changes("a\n", "a\n").is_empty());
    }

    #[test]
    fn only_the_folder_is_another_one() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            elsewhere(&words("--crate-name a -o b --cfg -o"), Path::new("c")),
            words("--crate-name a -o c --cfg -o")
        );
    }

    #[test]
    fn is_no_rustdoc_by_itself() {
        assert!(as_rustdoc(&["--version".into()]).is_none());
    }
}
