//! `cargo xtask`: the tasks of this repository that are more than one cargo command.
//!
//! Here are the command line and the exit status. What each task does is in `demo`, `check` (tests
//! and CI) and `tidy`; releases are not made here.

mod cargo;
mod check;
mod demo;
mod environment;
mod needs;
mod shell;
mod steps;
mod sys;
mod tidy;

use std::process::ExitCode;

use crate::sys::Interrupted;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // As a shell reports a program that SIGINT ended.
            if error.is::<Interrupted>() { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["demo"] => demo::run(),
        ["test"] => check::test(&[]),
        ["test", "--", filter @ ..] => check::test(filter),
        ["ci"] => check::ci(),
        ["tidy"] => tidy::run(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => anyhow::bail!("no such task: {}\n\n{USAGE}", words.join(" ")),
    }
}

const USAGE: &str = "\
Usage: cargo xtask TASK

  demo            an SSH session and a file copy through an Azure of its own; leaves nothing behind
  test            everything that must hold before a change is merged: tidy, fmt, clippy, doc,
                  tests, demo; first looks for the programs that the tests work with (as root it
                  installs them, otherwise it prints the command)
  test -- ARGS    only the tests, with ARGS handed to `cargo test` (a package, a name, --nocapture)
  ci              `test`, then licences, bans and sources by cargo-deny
  tidy            the rules of the house that a machine can check
";
