//! The environment in which tests and the demo run: nothing of the user's Azure, proxies or agents,
//! a home of its own, and no way to the outside by mistake.
//!
//! It is for the programs under test, not for cargo: downloads happen before, with the user's own
//! environment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Where nothing listens: a managed identity that is asked for by mistake fails at once instead of
/// asking the machine's own metadata service.
pub(crate) const NO_IMDS: &str = "https://localhost:9";

/// A temporary home, removed with everything in it when this value goes.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// Makes the folder and the ones below it that programs expect to be there.
    pub(crate) fn new() -> Result<Home> {
        let folder = tempfile::Builder::new()
            .prefix("bastide-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        for (_, below) in FOLDERS {
            private_folder(&folder.path().join(below))?;
        }
        Ok(Home { folder })
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `TMPDIR` of the programs that run in this home.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.path().join(TEMPORARY)
    }

    /// Lets `command` run in this home and nowhere else.
    pub(crate) fn apply(&self, command: &mut Command) {
        for name in std::env::vars_os().map(|(name, _)| name).filter(|name| is_scrubbed(name)) {
            command.env_remove(name);
        }
        for (name, folder) in toolchain() {
            command.env(name, folder);
        }
        command.env("HOME", self.path()).env("BASTIDE_IMDS_ENDPOINT", NO_IMDS);
        for (name, below) in FOLDERS {
            command.env(name, self.path().join(below));
        }
    }

    /// Removes the folder now, and says so when it can't be.
    pub(crate) fn remove(self) -> Result<()> {
        let path = self.path().to_path_buf();
        self.folder.close().with_context(|| format!("cannot remove {}", path.display()))
    }
}

const TEMPORARY: &str = "tmp";

/// The XDG base directories, and the folder for temporary files. Short names: a Unix socket's path
/// has room for 108 bytes (unix(7)).
const FOLDERS: &[(&str, &str)] = &[
    ("XDG_CONFIG_HOME", ".config"),
    ("XDG_CACHE_HOME", ".cache"),
    ("XDG_DATA_HOME", ".local/share"),
    ("XDG_STATE_HOME", ".local/state"),
    ("XDG_RUNTIME_DIR", "run"),
    ("TMPDIR", TEMPORARY),
];

/// Would it lead a program to the user's account, proxy, trust store or keys?
fn is_scrubbed(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    SCRUBBED_STARTS.iter().any(|start| name.starts_with(start))
        || name.ends_with("_PROXY")
        || SCRUBBED.contains(&name.as_str())
}

const SCRUBBED_STARTS: &[&str] = &["AZURE_", "BASTIDE_", "SSH_", "IDENTITY_", "IMDS_", "MSI_"];
const SCRUBBED: &[&str] =
    &["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE"];

/// rustup and cargo look for their folders below `HOME`, which is about to change.
fn toolchain() -> Vec<(&'static str, OsString)> {
    let Some(home) = std::env::var_os("HOME") else { return Vec::new() };
    [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")]
        .into_iter()
        .filter(|(name, _)| std::env::var_os(name).is_none())
        .map(|(name, folder)| (name, Path::new(&home).join(folder).into_os_string()))
        .collect()
}

fn private_folder(path: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).with_context(|| format!("cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrubs_what_leads_outside() {
        for name in [
            "AZURE_CLIENT_SECRET",
            "BASTIDE_CLOUD",
            "HTTPS_PROXY",
            "https_proxy",
            "no_proxy",
            "SSH_AUTH_SOCK",
        ] {
            assert!(is_scrubbed(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "LANG", "CARGO_HOME", "RUSTUP_TOOLCHAIN", "TERM"] {
            assert!(!is_scrubbed(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_home_is_private_and_goes_away() -> Result<()> {
        let home = Home::new()?;
        let path = home.path().to_path_buf();
        assert!(home.temporary().is_dir());
        let mut command = Command::new("true");
        home.apply(&mut command);
        let variable = |name: &str| {
            command
                .get_envs()
                .find(|(n, _)| *n == OsStr::new(name))
                .and_then(|(_, value)| value)
                .map(OsStr::to_owned)
        };
        assert_eq!(variable("HOME").as_deref(), Some(path.as_os_str()));
        assert_eq!(variable("BASTIDE_IMDS_ENDPOINT").as_deref(), Some(OsStr::new(NO_IMDS)));
        home.remove()?;
        assert!(!path.exists());
        Ok(())
    }
}
