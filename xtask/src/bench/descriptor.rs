//! The row `descriptor`: what the library for C carries over a descriptor, against the CLI's tunnel with the same
//! program in front of it. The program is `descriptor.c`.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::plot::number;
use super::report::{Figure, Reach, Report};
use super::rows::{Effort, PRODUCE_16, SWALLOW, counted, quartiles};
use super::stage::{Environment, Kind, Stage};
use crate::cargo;

/// How the library is built: as it is shipped, without one for Rust beside it.
pub(super) const BUILD: &[&str] =
    &["rustc", "--release", "--locked", "--package", "bastide-ffi", "--lib", "--crate-type", "cdylib"];

pub(super) fn measure(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let bench = Bench::new(stage)?;
    for (direction, service) in [("up", SWALLOW), ("down", PRODUCE_16)] {
        let tunnel = stage.client(Kind::Bastide, service)?;
        let loopback = [format!("loopback={}", tunnel.port)];
        let options = bench.environment.options(service);
        for connections in [1, 16] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..effort.rounds {
                let rate = |words: &[String]| bench.rate(direction, connections, effort, words);
                ours.push(rate(&options)?);
                theirs.push(rate(&loopback)?);
                stage.interrupts.check()?;
            }
            let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
            let [low, median, high] = quartiles(ratios);
            let middle = |all: Vec<f64>| number(quartiles(all)[1]);
            report.add(Figure {
                name: format!("throughput from C, {direction}, {}", counted(connections)),
                value: median,
                unit: "",
                reach: Some(Reach::AtLeast(0.95)),
                detail: format!(
                    "{} over the library's descriptors against {} MB/s over the tunnel; quartiles {} to {}",
                    middle(ours),
                    middle(theirs),
                    number(low),
                    number(high)
                ),
            });
        }
    }
    Ok(())
}

struct Bench<'a> {
    stage: &'a Stage,
    program: PathBuf,
    environment: Environment,
}

impl<'a> Bench<'a> {
    /// Installs the library in the stage's home, under its own name, and compiles the program for it.
    fn new(stage: &'a Stage) -> Result<Self> {
        let (root, folder) = (cargo::root()?, stage.home().join("c"));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for name in ["libbastide.so", "libbastide.so.0"] {
            symlink(stage.release().join("libbastide_ffi.so"), folder.join(name))
                .with_context(|| format!("cannot make {name}"))?;
        }
        let program = folder.join("descriptor");
        let mut compile = Command::new("cc");
        compile.args([
            "-std=c11",
            "-D_POSIX_C_SOURCE=200809L",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pthread",
        ]);
        // Beside the header what the programs of the tests share.
        for folder in ["crates/ffi/include", "tests/tests/ffi/programs"] {
            compile.arg("-I").arg(root.join(folder));
        }
        compile.arg("-o").arg(&program);
        compile.arg(root.join("xtask/src/bench/descriptor.c"));
        compile.arg(format!("-Wl,-rpath,{}", folder.display())).arg("-L").arg(&folder).arg("-lbastide");
        cargo::output(compile)?;
        Ok(Self { stage, program, environment: stage.azure(stage.port("azure")?) })
    }

    /// 10⁶ bytes a second.
    fn rate(&self, direction: &str, connections: usize, effort: Effort, words: &[String]) -> Result<f64> {
        let mut command = self.stage.command(&self.program);
        self.environment.apply(&mut command);
        command
            .args([direction, &connections.to_string(), &effort.window.as_millis().to_string()])
            .args(words);
        let said = cargo::output(command)?;
        said.trim().parse().with_context(|| format!("'{said}' is no rate"))
    }
}
