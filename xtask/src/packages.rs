//! What the tests use of `dist`, in `target/packages`: `prefix` is the archive as it unpacks, and `python` is what pip
//! makes of the wheel. It leaves out what is in them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{cargo, dist, python};

/// Makes the folder, of the packages in the folder `shipped`, or of what a build of the workspace has just made.
pub(crate) fn provide(root: &Path, shipped: Option<&Path>) -> Result<PathBuf> {
    let folder = root.join("target").join("packages");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let prefix = folder.join("prefix");
    let wheel = match shipped {
        Some(packages) => {
            let archive = only(packages, ".tar.zst")?;
            std::fs::create_dir(&prefix).with_context(|| format!("cannot make {}", prefix.display()))?;
            let mut unpack = std::process::Command::new("tar");
            unpack.args(["--zstd", "--strip-components=1", "--extract", "--file"]).arg(archive);
            unpack.arg("--directory").arg(&prefix);
            cargo::run(unpack)?;
            only(packages, ".whl")?
        }
        None => dist::of_what_is_built(root, &prefix, &folder)?,
    };
    let mut install = python::pip(root);
    install.args(["install", "--quiet", "--no-index", "--no-deps", "--target"]).arg(folder.join("python"));
    cargo::run({
        install.arg(wheel);
        install
    })?;
    Ok(folder)
}

/// The one file of a folder whose name ends so.
pub(crate) fn only(folder: &Path, end: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    ensure!(found.len() == 1, "in {} there are {} files *{end}, and not one", folder.display(), found.len());
    found.pop().context("there is one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_releases_in_a_folder_are_not_guessed_about() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let wheel = folder.path().join("a-1.whl");
        std::fs::write(&wheel, "")?;
        assert_eq!(only(folder.path(), ".whl")?, wheel);
        std::fs::write(folder.path().join("a-2.whl"), "")?;
        assert!(only(folder.path(), ".whl").is_err() && only(folder.path(), ".zst").is_err());
        Ok(())
    }
}
