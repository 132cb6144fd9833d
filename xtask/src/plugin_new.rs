//! `cargo xtask plugin-new NAME`: a sign-in plugin that builds as it is, in C or Rust, for an author to fill in. It
//! leaves out the contract, which is `docs/plugins.md`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// Writes the skeleton into a new folder of that name, here.
pub(crate) fn run(order: &[&str]) -> Result<()> {
    let (name, language) = match order {
        [name] | [name, "--language", "c"] | ["--language", "c", name] => (*name, Language::C),
        [name, "--language", "rust"] | ["--language", "rust", name] => (*name, Language::Rust),
        _ => bail!("usage: cargo xtask plugin-new NAME [--language c|rust]"),
    };
    let here = std::env::current_dir().context("the current folder is not there")?;
    let line = write(&cargo::root()?, &here, name, language)?;
    eprintln!("{name} is written; build it with\n\n    cd {name} && {line}\n\nand see docs/plugins.md");
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    C,
    Rust,
}

/// The line that builds it, in its folder.
fn write(root: &Path, into: &Path, name: &str, language: Language) -> Result<&'static str> {
    let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
    ensure!(is_name, "'{name}' is no name for a plugin: take small letters, digits and -");
    let folder = into.join(name);
    ensure!(!folder.exists(), "'{}' is there already", folder.display());
    let abi = root.join("crates/plugin-abi");
    let place = abi.to_str().context("the path of this repository is not UTF-8")?.replace('\\', "/");
    let fill = |text: &str| text.replace("@NAME@", name).replace("@ABI@", &place);
    let (files, line) = match language {
        Language::C => {
            let header = std::fs::read_to_string(abi.join("include/bastide_plugin.h"))?;
            let files =
                vec![("bastide_plugin.h", header), ("plugin.c", fill(C)), ("README.md", fill(C_README))];
            (files, "cc -shared -fPIC -o plugin.so plugin.c")
        }
        Language::Rust => {
            let files = vec![
                ("Cargo.toml", fill(RUST_MANIFEST)),
                ("src/lib.rs", fill(RUST)),
                ("README.md", fill(RUST_README)),
            ];
            (files, "cargo build --release")
        }
    };
    for (path, text) in files {
        let path = folder.join(path);
        let above = path.parent().context("a file is in a folder")?;
        std::fs::create_dir_all(above).with_context(|| format!("cannot make '{}'", above.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write '{}'", path.display()))?;
    }
    Ok(line)
}

const C: &str = include_str!("../templates/plugin.c");
const C_README: &str = include_str!("../templates/c.md");
const RUST: &str = include_str!("../templates/plugin.rs.in");
const RUST_MANIFEST: &str = include_str!("../templates/plugin.toml");
const RUST_README: &str = include_str!("../templates/rust.md");

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::cargo::root;

    #[test]
    fn a_skeleton_in_c_builds_as_it_is() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let line = write(&root()?, folder.path(), "my-vault", Language::C)?;
        let mut words = line.split(' ');
        let output = Command::new(words.next().unwrap())
            .args(words)
            .args(["-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror"])
            .current_dir(folder.path().join("my-vault"))
            .output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(write(&root()?, folder.path(), "my-vault", Language::C).is_err(), "nothing is overwritten");
        Ok(())
    }

    #[test]
    fn a_skeleton_in_rust_builds_as_it_is() -> Result<()> {
        let folder = tempfile::tempdir()?;
        write(&root()?, folder.path(), "my-vault", Language::Rust)?;
        let output = Command::new(env!("CARGO"))
            .args(["check", "--offline", "--quiet"])
            .env("CARGO_TARGET_DIR", folder.path().join("target"))
            .env("RUSTFLAGS", "-D warnings")
            .current_dir(folder.path().join("my-vault"))
            .output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    #[test]
    fn names_are_names() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for name in ["", "../up", "My", "a b", "-a", "1a"] {
            assert!(write(&root()?, folder.path(), name, Language::C).is_err(), "{name}");
        }
        Ok(())
    }
}
