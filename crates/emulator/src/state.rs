//! The state folder: what outlives a run (CA, keys, secrets, homes of the VMs) and what tells
//! others how to reach this run (`port`, `ca.pem`, `env.sh`). Every file is written atomically and
//! readable by its owner only. What the files mean is decided elsewhere.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::scenario::Secret;
use crate::sys;

/// A state folder in use by this process.
#[derive(Debug)]
pub(crate) struct State {
    folder: PathBuf,
    /// Held for as long as the emulator runs: two in one folder would overwrite each other.
    _lock: File,
}

impl State {
    /// Makes the folder if need be and takes it for this process.
    pub(crate) fn open(folder: &Path) -> Result<State, Error> {
        let fault = |source| Error::Folder { path: folder.to_owned(), source };
        sys::private_folder(folder).map_err(fault)?;
        let folder = folder.canonicalize().map_err(fault)?;
        let lock = sys::private_file(&folder.join("lock")).map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => Ok(State { folder, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse { path: folder }),
            Err(std::fs::TryLockError::Error(source)) => Err(Error::Folder { path: folder, source }),
        }
    }

    /// The folder itself, absolute.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of a file or folder in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a private folder in it.
    pub(crate) fn subfolder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path(name);
        sys::private_folder(&path).map_err(|source| Error::Folder { path: path.clone(), source })?;
        Ok(path)
    }

    /// Replaces a file as a whole: a reader sees the old or the new content, never a part.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<(), Error> {
        let path = self.path(name);
        let write = || -> io::Result<()> {
            // A temporary file is readable by its owner only, and stays so under its new name.
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(content.as_bytes())?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|source| Error::File { path: path.clone(), source })
    }

    /// Opens a file in it for writing, empty.
    pub(crate) fn create(&self, name: &str) -> Result<File, Error> {
        let path = self.path(name);
        sys::private_file(&path).map_err(|source| Error::File { path, source })
    }

    /// Content of a file, made by `make` at the first time and kept.
    pub(crate) fn kept(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<String, Error>,
    ) -> Result<String, Error> {
        let path = self.path(name);
        match std::fs::read_to_string(&path) {
            Ok(content) => Ok(content),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                let content = make()?;
                self.write(name, &content)?;
                Ok(content)
            }
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// A random secret that is kept in a file. A fixed default would be known to every user of the machine.
    pub(crate) fn secret(&self, name: &str) -> Result<Secret, Error> {
        let kept = self.kept(name, || Ok(format!("{}\n", random_text())))?;
        Ok(Secret::from(kept.trim()))
    }
}

/// 244 random bits as 64 hexadecimal digits: nobody guesses it.
pub(crate) fn random_text() -> String {
    let part = || uuid::Uuid::new_v4().simple().to_string();
    format!("{}{}", part(), part())
}

/// Where the state goes when nobody says: `bastide-emulator` below `XDG_STATE_HOME`, which is
/// `~/.local/state` when unset (XDG Base Directory Specification 0.8).
pub(crate) fn default_folder() -> PathBuf {
    let base = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir);
    base.join("bastide-emulator")
}

/// What is wrong with a state folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It can't be made or entered.
    #[error("using state folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in it can't be read or written.
    #[error("using {} of the state folder", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another emulator runs in it.
    #[error("state folder {} is in use by another emulator", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_secrets_and_refuses_a_second_user() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let first = state.secret("secret").unwrap();
        assert_eq!(first.expose().len(), 64);
        assert_eq!(state.secret("secret").unwrap(), first);
        assert!(matches!(State::open(folder.path()), Err(Error::InUse { .. })));
        drop(state);
        assert_eq!(State::open(folder.path()).unwrap().secret("secret").unwrap(), first);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("new")).unwrap();
        state.write("file", "x").unwrap();
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path("file")), 0o600);
        assert_eq!(mode(state.folder().to_owned()), 0o700);
    }
}
