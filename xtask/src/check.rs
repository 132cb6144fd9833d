//! `cargo xtask test` and `cargo xtask ci`: what must hold before a change is merged.
//!
//! The order is that of patience: what fails fast comes first. Compilation is the price of it all,
//! and is paid once for checking (clippy and doc share it) and once for running (tests and demo
//! share it, because one `cargo build` makes both with the same features).

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::environment::Home;
use crate::steps::Steps;
use crate::sys::Interrupts;
use crate::{cargo, demo, needs, public_api, tidy};

/// Everything.
pub(crate) fn test() -> Result<()> {
    let root = cargo::root()?;
    summed_up(|steps| everything(&root, steps))
}

/// Only the tests that a filter lets through; with the packages of a folder, or with those of what is built.
pub(crate) fn tests_alone(filter: &[&str], packages: Option<&Path>) -> Result<()> {
    let root = cargo::root()?;
    summed_up(|steps| {
        steps.take("needs", || needs::provide(&root, needs::TESTS))?;
        tests(&root, steps, filter, packages)
    })
}

/// The tests that use packages.
#[cfg(target_os = "linux")]
pub(crate) const OF_PACKAGES: &[&str] = &["--test", "end_to_end", "--test", "ffi"];

/// [`test()`], then what changes only when the dependencies do.
pub(crate) fn ci() -> Result<()> {
    let root = cargo::root()?;
    summed_up(|steps| {
        everything(&root, steps)?;
        steps.take("deny", || deny(&root))
    })
}

fn summed_up(task: impl FnOnce(&mut Steps) -> Result<()>) -> Result<()> {
    // Ctrl-C ends what runs, and then this, by way of what it has to remove.
    let interrupts = Interrupts::watch()?;
    let mut steps = Steps::default();
    let result = task(&mut steps);
    eprint!("\n{}", steps.summary());
    interrupts.check()?;
    result
}

fn everything(root: &Path, steps: &mut Steps) -> Result<()> {
    steps.take("needs", || {
        needs::provide(root, needs::TESTS)?;
        needs::require_components(root)
    })?;
    steps.take("tidy", tidy::run)?;
    steps.take("fmt", || cargo::run(cargo::command(root, &["fmt", "--all", "--check"])))?;
    steps.take("clippy", || {
        cargo::run(cargo::command(
            root,
            &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ))
    })?;
    steps.take("doc", || public_api::check(root))?;
    tests(root, steps, &[], None)?;
    #[cfg(target_os = "linux")]
    steps.take("fuzz", || crate::fuzz::run(&[]))?;
    steps.take("demo", demo::with_programs_that_are_built)
}

fn tests(root: &Path, steps: &mut Steps, filter: &[&str], shipped: Option<&Path>) -> Result<()> {
    // All of it: what the end-to-end tests use is packed from it.
    steps.take("build", || {
        cargo::run(cargo::command(root, &["build", "--locked", "--workspace", "--all-targets"]))
    })?;
    #[cfg(unix)]
    steps.take("python", || crate::python::provide(root))?;
    #[cfg(target_os = "linux")]
    let packages = steps.take("packages", || crate::packages::provide(root, shipped))?;
    steps.take("tests", || {
        let home = Home::new()?;
        let mut test = cargo::command(root, &["test", "--locked", "--offline"]);
        test.args(filter);
        home.apply(&mut test);
        #[cfg(target_os = "linux")]
        test.env("BASTIDE_TESTS_PACKAGES", &packages);
        cargo::run(test)?;
        home.remove()
    })
}

fn deny(root: &Path) -> Result<()> {
    const CHECK: &[&str] =
        &["deny", "--locked", "--offline", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    if cargo::command(root, &["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return cargo::run(cargo::command(root, CHECK));
    }
    let tools = root.join("target").join("tools");
    let programs = tools.join("bin");
    if !programs.join(format!("cargo-deny{}", std::env::consts::EXE_SUFFIX)).is_file() {
        eprintln!("cargo-deny is not installed: building it into target/tools, which takes some minutes");
        let folder = tools.to_str().context("the path of this repository is not UTF-8")?;
        cargo::run(cargo::command(root, &["install", "--locked", "--root", folder, "cargo-deny"]))?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Ok(path) = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path))) else {
        bail!("the path of this repository can't stand in PATH");
    };
    let mut check = cargo::command(root, CHECK);
    check.env("PATH", path);
    cargo::run(check)
}
