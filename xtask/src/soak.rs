//! `cargo xtask soak`: a hundred connections at a time through the real `bastide tunnel`, for half an hour, in bad
//! weather. What runs and what has to hold is in `soak/driver`, a program of its own: only it needs the emulator.

use anyhow::{Context, Result, bail};

use crate::environment::Home;
use crate::sys::Interrupts;
use crate::{bench, cargo};

/// Builds both programs as they are shipped and runs the soak. `--minutes N`, `--connections N`, `--seed N`, and `--debug`
/// for the programs that the last `cargo build` has made.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut minutes = "30";
    let mut connections = "100";
    let mut seed = None;
    let mut profile = &["--release"][..];
    let mut words = arguments.iter().copied();
    while let Some(word) = words.next() {
        let mut number = || {
            let number = words.next().filter(|text| text.parse::<u64>().is_ok_and(|number| number > 0));
            number.with_context(|| format!("{word} needs a number"))
        };
        match word {
            "--minutes" => minutes = number()?,
            "--connections" => connections = number()?,
            "--seed" => seed = Some(number()?),
            "--debug" => profile = &[],
            _ => bail!("soak knows --minutes, --connections, --seed and --debug, not {word}"),
        }
    }
    let root = cargo::root()?;
    for package in [&["bastide-cli", "--bins"][..], &["xtask", "--features", "soak", "--bin", "soak-driver"]]
    {
        cargo::run(cargo::command(
            &root,
            &[&["build", "--locked"][..], profile, &["--package"], package].concat(),
        ))?;
    }
    let target = cargo::programs()?.parent().context("this program is not in a target folder")?.to_path_buf();
    let programs = target.join(if profile.is_empty() { "debug" } else { "release" });
    bench::allow_many_files()?;
    let interrupts = Interrupts::watch()?;
    let home = Home::new()?;
    let mut driver = std::process::Command::new(programs.join("soak-driver"));
    home.apply(&mut driver);
    driver.arg(programs.join("bastide")).args([minutes, connections]).args(seed);
    driver.env("SOAK_LOG", target.join("soak.log"));
    let status = driver.status().context("cannot start the soak")?;
    interrupts.check()?;
    if !status.success() {
        bail!("the soak failed ({status}); what bastide said is in {}", target.join("soak.log").display());
    }
    home.remove()
}
