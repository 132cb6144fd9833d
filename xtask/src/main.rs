//! `cargo xtask`: the tasks of this repository that are more than one cargo command.
//!
//! Here are the command line and the exit status. What each task does is in `demo`, `check` (tests
//! and CI), `tidy`, `headers`, `public_api`, `picture`, `plugin_new`, `fuzz`, `soak`, `bench` and `dist`.

#[cfg(target_os = "linux")]
mod bench;
mod cargo;
mod check;
mod demo;
#[cfg(target_os = "linux")]
mod dist;
mod environment;
#[cfg(target_os = "linux")]
mod fuzz;
mod headers;
mod needs;
#[cfg(target_os = "linux")]
mod packages;
mod picture;
mod plugin_new;
mod public_api;
#[cfg(unix)]
mod python;
mod reference;
mod shell;
#[cfg(target_os = "linux")]
mod soak;
mod steps;
mod sys;
mod tidy;

use std::process::ExitCode;

use crate::sys::Interrupted;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let in_its_place = public_api::as_rustdoc(&arguments);
    #[cfg(target_os = "linux")]
    let in_its_place = in_its_place.or_else(|| fuzz::as_compiler(&arguments));
    if let Some(ended) = in_its_place {
        return match ended {
            Ok(status) if status.success() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // As a shell reports a program that SIGINT ended.
            if error.is::<Interrupted>() {
                return ExitCode::from(130);
            }
            #[cfg(target_os = "linux")]
            if error.is::<bench::Missed>() {
                return ExitCode::from(NOT_REACHED);
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    cargo::this_program()?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["demo"] => demo::run(),
        ["test"] => check::test(),
        ["test", "--", filter @ ..] => check::tests_alone(filter, None),
        #[cfg(target_os = "linux")]
        ["test", "--packages", folder] => check::tests_alone(check::OF_PACKAGES, Some(folder.as_ref())),
        #[cfg(target_os = "linux")]
        ["test", "--packages", folder, "--", filter @ ..] => {
            check::tests_alone(filter, Some(folder.as_ref()))
        }
        ["ci"] => check::ci(),
        ["tidy"] => tidy::run(),
        #[cfg(target_os = "linux")]
        ["fuzz", order @ ..] => fuzz::run(order),
        #[cfg(target_os = "linux")]
        ["soak", order @ ..] => soak::run(order),
        #[cfg(target_os = "linux")]
        ["bench", rows @ ..] => bench::run(rows),
        #[cfg(target_os = "linux")]
        ["dist", order @ ..] => dist::run(order),
        ["headers"] => headers::run(),
        ["public-api"] => public_api::run(),
        ["picture"] => picture::run(),
        ["plugin-new", order @ ..] => plugin_new::run(order),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => anyhow::bail!("no such task: {}\n\n{USAGE}", words.join(" ")),
    }
}

/// Everything was measured and something is too slow: not the same as a failure to measure.
#[cfg(target_os = "linux")]
const NOT_REACHED: u8 = 3;

const USAGE: &str = "\
Usage: cargo xtask TASK

  demo            an SSH session and a file copy through an Azure of its own; leaves nothing behind
  test            everything that must hold before a change is merged: tidy, fmt, clippy, doc,
                  tests, fuzz, demo; first looks for the programs that the tests work with (as root it
                  installs them, otherwise it prints the command)
  test -- ARGS    only the tests, with ARGS handed to `cargo test` (a package, a name, --nocapture)
  test --packages FOLDER [-- ARGS]
                  only the tests of what users have, with the programs and libraries that `dist` has
                  put into FOLDER, on Linux
  ci              `test`, then licences, bans and sources by cargo-deny
  tidy            the rules of the house that a machine can check
  headers         writes bastide_plugin.h from crates/plugin-abi, bastide.h and its page from crates/ffi
  picture         docs/session.svg: a terminal session, run for real with what `cargo build` has made
  public-api      writes crates/client/public-api.txt, which `test` compares
  plugin-new NAME a sign-in plugin to begin with, in a new folder NAME. --language c|rust
  dist            packages for a release, into dist/, on Linux: archive, .deb, wheel, bill of materials,
                  sums. --target TRIPLE, --out DIR, --quick: a first look, --record: keep the sizes.
                  --verify: all of it twice, then on a fresh Debian
  fuzz [TARGET…]  libFuzzer against each parser, on Linux. --seconds N: for so long each, 10 when
                  left out. --input FILE: one target, one input
  soak            half an hour of a hundred connections in bad weather, on Linux, every byte checked.
                  --minutes N, --connections N, --seed N (of an earlier run)
  bench [ROW…]    what a connection costs against plain TLS and against other programs, on Linux; all
                  rows write BENCHMARKS.md. Exit code 3: measured, and not all reached. --quick: a
                  first look. Rows: up, down, strangers, far, descriptor, latency,
                  fairness, setup, memory, start, size
";
