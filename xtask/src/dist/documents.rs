//! What is written at the time of the packages and not by hand: man pages, completions, notices, the bill of materials,
//! and the kit for authors of plugins. It leaves out where each of them goes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

use super::build::Built;
use super::layout::Layout;
use super::target::rustc;
use super::{Release, closure, notices, sbom};
use crate::cargo;
use crate::environment::Home;

/// Texts that are made.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    /// Man pages by their names.
    pub manual: Vec<(String, Vec<u8>)>,
    /// Scripts by their shells.
    pub completions: Vec<(&'static str, Vec<u8>)>,
    pub notices: String,
    /// The notices that Rust's standard library comes with, as HTML.
    pub standard_library: PathBuf,
    pub sbom: Vec<u8>,
    /// The kit for authors of plugins.
    pub kit: Layout,
}

/// Those that `bastide completions` knows.
const SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell", "elvish"];

impl Documents {
    /// Asks the programs, which were built for this machine or are replaced by some that are.
    pub(super) fn new(release: &Release, built: &Built) -> Result<Documents> {
        let (client, emulator) = if release.target.is_host {
            (built.client.clone(), built.emulator.clone())
        } else {
            let arguments =
                ["build", "--locked", "--bins", "--package", "bastide-cli", "--package", "bastide-emulator"];
            cargo::run(cargo::command(&release.root, &arguments))?;
            let ours = Built::within(&cargo::programs()?);
            (ours.client, ours.emulator)
        };
        let crates = closure::shipped(&release.root, &release.target)?;
        Ok(Documents {
            manual: manual(&client, &emulator)?,
            completions: SHELLS
                .iter()
                .map(|shell| Ok((*shell, ask(&client, &["completions", shell])?.into_bytes())))
                .collect::<Result<_>>()?,
            notices: notices::write(&crates)?,
            standard_library: standard_library()?,
            sbom: sbom::write(release, &crates)?,
            kit: kit(release)?,
        })
    }
}

fn ask(client: &Path, arguments: &[&str]) -> Result<String> {
    let home = Home::new()?;
    let mut command = Command::new(client);
    home.apply(&mut command);
    command.args(arguments);
    cargo::output(command)
}

fn manual(client: &Path, emulator: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    ask(client, &["man", "--write", &folder.path().to_string_lossy()])?;
    let pages = std::fs::read_dir(folder.path())?.map(|entry| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?))
    });
    let of_emulator = ask(emulator, &["--print-manual"])?.into_bytes();
    pages.chain([Ok(("bastide-emulator.1".to_owned(), of_emulator))]).collect()
}

fn standard_library() -> Result<PathBuf> {
    let mut command = rustc();
    command.args(["--print", "sysroot"]);
    let path = Path::new(cargo::output(command)?.trim()).join("share/doc/rust/COPYRIGHT-library.html");
    ensure!(path.is_file(), "Rust has come without {}: install it by rustup", path.display());
    Ok(path)
}

/// The header, the example, the crate for authors in Rust, and the contract.
fn kit(release: &Release) -> Result<Layout> {
    let from = |path: &str| release.root.join(path);
    let mut kit = Layout::default();
    kit.text("README.md", KIT);
    kit.file("plugins.md", &from("docs/plugins.md"));
    kit.file("include/bastide_plugin.h", &from("crates/plugin-abi/include/bastide_plugin.h"));
    kit.file("example-c/example.c", &from("plugins/example-c/example.c"));
    let readme = std::fs::read_to_string(from("plugins/example-c/README.md"))?;
    ensure!(readme.contains(INCLUDED), "plugins/example-c/README.md does not say `{INCLUDED}`");
    kit.text("example-c/README.md", readme.replace(INCLUDED, "-I ../include"));
    kit.below("bastide-plugin-abi", &plugin_crate(release)?);
    Ok(kit)
}

const INCLUDED: &str = "-I ../../crates/plugin-abi/include";

const KIT: &str = "\
# Sign-in plugins for bastide

`plugins.md` is the contract. Authors in C begin with `example-c` and `include/bastide_plugin.h`; authors in Rust with the
crate `bastide-plugin-abi`, by its path:

    [dependencies]
    bastide-plugin-abi = { path = \"…/bastide-plugin-abi\" }
";

/// The crate as cargo would publish it: it stands by itself.
fn plugin_crate(release: &Release) -> Result<Layout> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let arguments =
        ["package", "--package", NAME, "--no-verify", "--allow-dirty", "--locked", "--offline", "--quiet"];
    let mut command = cargo::command(&release.root, &arguments);
    command.arg("--target-dir").arg(folder.path());
    cargo::output(command)?;
    let top = format!("{NAME}-{}", release.version);
    let packed = std::fs::read(folder.path().join("package").join(format!("{top}.crate")))?;
    let mut files = Layout::default();
    for entry in tar::Archive::new(GzDecoder::new(packed.as_slice())).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.strip_prefix(&top)?.to_path_buf();
        let path = cargo::slashed(&path);
        if !NOT_FOR_AUTHORS.contains(&path.as_str()) {
            let mut bytes = Vec::new();
            std::io::copy(&mut entry, &mut bytes)?;
            files.text(path, bytes);
        }
    }
    Ok(files)
}

const NAME: &str = "bastide-plugin-abi";
/// What cargo adds.
const NOT_FOR_AUTHORS: &[&str] = &[".cargo_vcs_info.json", "Cargo.lock", "Cargo.toml.orig"];
