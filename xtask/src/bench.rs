//! `cargo xtask bench`: what a connection costs, always against something else in the same run on the same machine,
//! and whether that reaches what we set ourselves. Here are its command line, what it builds and installs, and the
//! order of things; what is measured is in `rows`, how it is told in `report`.

mod delay;
mod descriptor;
mod load;
mod plot;
mod report;
mod rows;
mod stage;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use self::report::Report;
use self::rows::{ROWS, Row};
use self::stage::Stage;
use crate::cargo;
use crate::needs::{self, Need};
use crate::sys::Interrupts;

/// Everything was measured, and not everything reached.
#[derive(Debug)]
pub(crate) struct Missed(usize);

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} figures are not reached", self.0)
    }
}

impl std::error::Error for Missed {}

/// Measures the rows that are named, or all, and tells; with all of them and without `--quick`, `BENCHMARKS.md` and
/// the pictures in `docs/bench` are written anew. Fails with [`Missed`] when a figure is not reached.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut effort = rows::Effort::FULL;
    let mut wanted = Vec::new();
    for &argument in arguments {
        if argument == "--quick" {
            effort = rows::Effort::QUICK;
        } else if let Some(row) = ROWS.iter().find(|row| row.name == argument) {
            wanted.push(row);
        } else {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            bail!("no such row: {argument}; there are {}", names.join(", "));
        }
    }
    let everything = wanted.is_empty();
    if everything {
        wanted.extend(ROWS);
    }
    let root = cargo::root()?;
    let release = prepare(&root, &wanted)?;
    allow_many_files()?;
    let interrupts = Interrupts::watch()?;
    let stage = Stage::new(release, interrupts)?;
    let mut report = Report::new();
    for row in wanted {
        eprintln!("{}: {}", row.name, row.about);
        (row.measure)(&stage, effort, &mut report).with_context(|| format!("in row {}", row.name))?;
        stage.interrupts.check()?;
    }
    print!("\n{}", report.table());
    if everything && effort == rows::Effort::FULL {
        report.write(&root)?;
    } else {
        eprintln!("BENCHMARKS.md is left as it is: it is written by a run of all rows without --quick");
    }
    match report.missed() {
        0 => Ok(()),
        missed => Err(Missed(missed).into()),
    }
}

/// Builds each program by itself, as it is shipped: built together they would share their features.
fn prepare(root: &Path, wanted: &[&Row]) -> Result<std::path::PathBuf> {
    let target = cargo::programs()?.parent().context("this program is not in a target folder")?.to_path_buf();
    let wants = |name: &str| wanted.iter().any(|row| row.name == name);
    let emulator = wants("far").then_some(&["bastide-emulator", "--bins"][..]);
    let ours =
        [&["bastide-cli", "--bins"][..], &["xtask", "--features", "bench-peer", "--bin", "bench-peer"]];
    for package in ours.into_iter().chain(emulator) {
        cargo::run(cargo::command(
            root,
            &[&["build", "--release", "--locked", "--package"][..], package].concat(),
        ))?;
    }
    if wants("descriptor") {
        needs::provide(root, C)?;
        cargo::run(cargo::command(root, descriptor::BUILD))?;
    }
    if wants("strangers") {
        needs::provide(root, STRANGERS)?;
        let tools = target.join("tools");
        if !tools.join("bin/websocat").exists() {
            let (tools, build) = (tools.to_string_lossy().into_owned(), tools.join("build"));
            let build = build.to_string_lossy().into_owned();
            cargo::run(cargo::command(
                root,
                &["install", "websocat", "--version", WEBSOCAT, "--root", &tools, "--target-dir", &build],
            ))?;
        }
    }
    Ok(target.join("release"))
}

const C: &[Need] = &[needs::need("cc", "gcc")];
const STRANGERS: &[Need] =
    &[needs::need("stunnel4", "stunnel4"), needs::need("haproxy", "haproxy"), needs::need("socat", "socat")];
/// The last one that is not an alpha.
const WEBSOCAT: &str = "^1.14";

/// A thousand connections are two thousand descriptors in every program, which inherit the limit.
pub(crate) fn allow_many_files() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}
