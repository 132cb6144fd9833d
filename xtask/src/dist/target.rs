//! For which machines packages are made, and whether this one can. It leaves out how.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// A kind of machine that programs run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// As rustc has it.
    pub triple: &'static str,
    /// As GNU has it, which is also the name of Debian's folder for libraries.
    pub gnu: &'static str,
    /// As Debian has it.
    pub debian: &'static str,
    /// As Python has it.
    pub python: &'static str,
    /// Programs for it run on this machine.
    pub is_host: bool,
}

/// What deny.toml names and Debian has. Elsewhere there are no packages yet, and `cargo install` works.
const KNOWN: &[[&str; 4]] = &[
    ["x86_64-unknown-linux-gnu", "x86_64-linux-gnu", "amd64", "x86_64"],
    ["aarch64-unknown-linux-gnu", "aarch64-linux-gnu", "arm64", "aarch64"],
];

impl Target {
    /// The target of that triple, or this machine's, if there is everything to build for it.
    pub(super) fn named(triple: Option<&str>) -> Result<Target> {
        let host = Toolchain::look()?.host;
        let target = Target::known(triple.unwrap_or(&host), &host)?;
        target.is_installed()?;
        Ok(target)
    }

    fn known(triple: &str, host: &str) -> Result<Target> {
        let found = KNOWN.iter().find(|[name, ..]| *name == triple);
        let Some(&[triple, gnu, debian, python]) = found else {
            let all: Vec<&str> = KNOWN.iter().map(|[name, ..]| *name).collect();
            bail!("there are no packages for {triple}, only for {}", all.join(" and "));
        };
        Ok(Target { triple, gnu, debian, python, is_host: triple == host })
    }

    /// Whether the toolchains of Rust and of C are there.
    fn is_installed(&self) -> Result<()> {
        let mut ask = rustc();
        ask.args(["--print", "target-libdir", "--target", self.triple]);
        let folder = cargo::output(ask)?;
        ensure!(
            Path::new(folder.trim()).is_dir(),
            "Rust's standard library for {0} is missing; install it with `rustup target add {0}`",
            self.triple
        );
        let compiler = self.tool("gcc");
        ensure!(
            Command::new(&compiler).arg("--version").output().is_ok_and(|output| output.status.success()),
            "the C compiler for {} is missing; install `{compiler}`, on Debian with `apt-get install gcc{}`",
            self.triple,
            if self.is_host { String::new() } else { format!("-{}", self.gnu) },
        );
        Ok(())
    }

    /// A program of the C toolchain for this target.
    pub(super) fn tool(&self, name: &str) -> String {
        if self.is_host { name.to_owned() } else { format!("{}-{name}", self.gnu) }
    }

    /// The end of an environment variable that is for this target.
    pub(super) fn variable(&self) -> String {
        self.triple.replace('-', "_")
    }
}

/// What rustc says of itself.
pub(super) struct Toolchain {
    pub host: String,
    /// The commit that it was built from, by which paths of the standard library begin.
    pub commit: String,
    /// `rustc 1.95.0 (…)`.
    pub version: String,
}

impl Toolchain {
    pub(super) fn look() -> Result<Toolchain> {
        let mut ask = rustc();
        ask.arg("-vV");
        Toolchain::read(&cargo::output(ask)?)
    }

    fn read(text: &str) -> Result<Toolchain> {
        let line = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.map(str::to_owned).with_context(|| format!("rustc does not say its {name}"))
        };
        let version = text.lines().next().unwrap_or_default().to_owned();
        Ok(Toolchain { host: line("host")?, commit: line("commit-hash")?, version })
    }
}

/// The compiler that cargo starts, too.
pub(super) fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_known_or_named() -> Result<()> {
        let host = "x86_64-unknown-linux-gnu";
        let native = Target::known(host, host)?;
        assert!(native.is_host && native.tool("strip") == "strip");
        let cross = Target::known("aarch64-unknown-linux-gnu", host)?;
        assert_eq!((cross.tool("strip").as_str(), cross.debian), ("aarch64-linux-gnu-strip", "arm64"));
        let error = Target::known("sparc-sun-solaris", host).unwrap_err().to_string();
        assert!(
            error.starts_with("there are no packages for sparc-sun-solaris, only for x86_64-"),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_brings_it() {
        let mut target = Target::known("aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu").unwrap();
        // One that no toolchain has a library for.
        target.triple = "riscv32i-unknown-none-elf";
        let error = target.is_installed().unwrap_err().to_string();
        assert!(error.ends_with("`rustup target add riscv32i-unknown-none-elf`"), "{error}");
    }

    #[test]
    fn reads_what_rustc_says() -> Result<()> {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 598\nhost: x86_64-a\n";
        let toolchain = Toolchain::read(text)?;
        assert_eq!((toolchain.host.as_str(), toolchain.commit.as_str()), ("x86_64-a", "598"));
        assert!(toolchain.version.starts_with("rustc 1.95.0"));
        assert!(Toolchain::read("rustc 1.95.0\n").is_err());
        Ok(())
    }
}
