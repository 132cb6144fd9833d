//! A Python environment of the tests' own, in `target/python`: clients that others write in Python. It leaves out who
//! uses it (`bastide_tests::python`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::cargo;

/// What is to be in it, in pip's own form.
const REQUIREMENTS: &str = "tests/python-requirements.txt";

/// Makes the environment, or brings it up to date; with the user's own environment, as cargo's downloads.
pub(crate) fn provide(root: &Path) -> Result<()> {
    let wanted = std::fs::read_to_string(root.join(REQUIREMENTS)).context(REQUIREMENTS)?;
    let (folder, python) = (folder(root), program(root));
    // Written last: what broke off is done again.
    let stamp = folder.join("requirements.txt");
    let works = || {
        let mut command = Command::new(&python);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if std::fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) && works() {
        return Ok(());
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&folder);
    cargo::run(make).context("python3 and its venv are needed (Debian: apt-get install python3-venv)")?;
    let mut install = pip(root);
    install.args(["install", "--quiet", "--requirement"]).arg(root.join(REQUIREMENTS));
    cargo::run(install)?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// The environment's installer.
pub(crate) fn pip(root: &Path) -> Command {
    let mut pip = Command::new(program(root));
    pip.args(["-m", "pip", "--disable-pip-version-check"]);
    pip
}

fn program(root: &Path) -> PathBuf {
    folder(root).join("bin").join("python3")
}

fn folder(root: &Path) -> PathBuf {
    root.join("target").join("python")
}
