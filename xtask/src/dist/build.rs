//! The programs and libraries that are shipped, compiled so that the folder, the user and the day leave no trace.
//! It leaves out what becomes of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Release;
use super::target::{Target, Toolchain, rustc};
use crate::cargo;

/// How much the compiler is to think.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speed {
    /// As the profile `release` says.
    #[default]
    Shipped,
    /// For a look at the packages: minutes less, megabytes more.
    Quick,
}

/// What was compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Built {
    pub client: PathBuf,
    pub emulator: PathBuf,
    /// `libbastide.so`, whatever its name is as long as it is here.
    pub shared: PathBuf,
    /// `libbastide.a`, the same.
    pub archive: PathBuf,
    pub keyvault: PathBuf,
}

impl Built {
    /// The files of a folder in which cargo has built all of it.
    pub(super) fn within(folder: &Path) -> Built {
        Built {
            client: folder.join("bastide"),
            emulator: folder.join("bastide-emulator"),
            shared: folder.join("libbastide_ffi.so"),
            archive: folder.join("libbastide_ffi.a"),
            keyvault: folder.join("libbastide_keyvault.so"),
        }
    }
}

/// Each is built by itself, as it is shipped: built together they would share their features, and the client would get
/// what only the emulator may have (deny.toml, `rsa`). `cargo rustc` leaves out the library for Rust: beside it there
/// is no link-time optimisation.
const BUILDS: &[&[&str]] = &[
    &["build", "--package", "bastide-cli", "--bins"],
    &["build", "--package", "bastide-emulator", "--bins"],
    &["rustc", "--package", "bastide-ffi", "--lib", "--crate-type", "cdylib,staticlib"],
    &["build", "--package", "bastide-keyvault", "--lib"],
];

/// Builds everything, in a target folder of its own: its flags are nobody else's.
pub(super) fn all(release: &Release) -> Result<Built> {
    let folder = cargo::programs()?.parent().context("this program is not in a target folder")?.join("dist");
    for arguments in BUILDS {
        let mut command = cargo::command(&release.root, arguments);
        command.args(["--release", "--locked"]);
        reproducible(&mut command, &release.root, &folder, &release.target, release.epoch)?;
        if release.speed == Speed::Quick {
            command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        }
        cargo::run(command)?;
    }
    Ok(Built::within(&folder.join(release.target.triple).join("release")))
}

/// Makes of a cargo command one whose output depends on the sources and the toolchain only.
pub(super) fn reproducible(
    command: &mut Command,
    root: &Path,
    folder: &Path,
    target: &Target,
    epoch: u64,
) -> Result<()> {
    let places = places(root, folder)?;
    let remap = |option: &str| -> Vec<String> {
        places.iter().map(|(from, to)| format!("{option}={}={to}", from.display())).collect()
    };
    command.args(["--target", target.triple]).arg("--target-dir").arg(folder);
    // What a user has set would be in the programs.
    for name in ["CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    // 0x1f separates words, so that blanks in paths do no harm.
    command.env("CARGO_ENCODED_RUSTFLAGS", remap("--remap-path-prefix").join("\x1f"));
    let variable = target.variable();
    for language in ["CFLAGS", "CXXFLAGS"] {
        command.env(format!("{language}_{variable}"), remap("-ffile-prefix-map").join(" "));
    }
    command.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("CARGO_INCREMENTAL", "0").env("LC_ALL", "C");
    if !target.is_host {
        let linker = format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase());
        command.env(linker, target.tool("gcc"));
    }
    Ok(())
}

/// Folders whose paths are in panics and assertions, and what stands there instead. Of two that fit, rustc and gcc take
/// the last one.
fn places(root: &Path, folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let mut ask = rustc();
    ask.args(["--print", "sysroot"]);
    let library = Path::new(cargo::output(ask)?.trim()).join("lib/rustlib/src/rust");
    Ok(vec![
        (root.to_owned(), "/bastide".to_owned()),
        (home.context("neither CARGO_HOME nor HOME is set")?, "/cargo".to_owned()),
        (folder.to_owned(), "/target".to_owned()),
        // As the standard library itself was compiled: with its sources installed rustc would name them.
        (library, format!("/rustc/{}", Toolchain::look()?.commit)),
    ])
}

/// Removes what a debugger would read, of a program or of each member of an archive.
pub(super) fn strip(target: &Target, from: &Path, to: &Path, what: Symbols) -> Result<()> {
    let mut command = Command::new(target.tool("strip"));
    command.arg("--enable-deterministic-archives").arg(match what {
        Symbols::Debug => "--strip-debug",
        Symbols::Unneeded => "--strip-unneeded",
    });
    command.arg("-o").arg(to).arg(from);
    cargo::output(command)?;
    Ok(())
}

/// What [`strip`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbols {
    /// What a linker has no use for.
    Debug,
    /// What a loader has no use for either.
    Unneeded,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library whose code names its own file, and whose build script knows where it is.
    const MANIFEST: &str = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
        [lib]\ncrate-type = [\"cdylib\"]\n[profile.release]\nlto = \"fat\"\nstrip = true\n[workspace]\n";
    const BUILD: &str = "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    \
        std::fs::write(out + \"/made.rs\", \"pub fn made() -> &'static str { file!() }\").unwrap();\n}\n";
    const LIBRARY: &str = "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n\
        #[unsafe(no_mangle)]\npub extern \"C\" fn tiny(at: usize) -> u8 { made().as_bytes()[at] }\n";

    #[test]
    fn two_folders_give_the_same_bytes() -> Result<()> {
        let above = tempfile::tempdir()?;
        let target = Target::named(None)?;
        let mut made = Vec::new();
        for name in ["a", "another-folder"] {
            let root = above.path().join(name);
            std::fs::create_dir_all(root.join("src"))?;
            for (file, text) in [("Cargo.toml", MANIFEST), ("build.rs", BUILD), ("src/lib.rs", LIBRARY)] {
                std::fs::write(root.join(file), text)?;
            }
            let folder = root.join("target");
            let mut command = cargo::command(&root, &["build", "--release", "--offline", "--quiet"]);
            reproducible(&mut command, &root, &folder, &target, 1)?;
            cargo::run(command)?;
            made.push(std::fs::read(folder.join(target.triple).join("release/libtiny.so"))?);
        }
        assert!(made[0] == made[1], "the folder is in the library");
        let text = String::from_utf8_lossy(&made[0]).into_owned();
        assert!(text.contains("/target/") && !text.contains(&*above.path().to_string_lossy()));
        Ok(())
    }
}
