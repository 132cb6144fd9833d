//! Writing files that others read at any moment: whole or not at all, through links, as private as they were. It leaves
//! out what is in them.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::sys;

/// Who may read a file that is replaced. A new one only its owner can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Its owner, whatever was before.
    Private,
    /// Who could before; the owner stays, too.
    Kept,
}

/// Puts `content` in the place of a file. A link stays, and its target is replaced.
pub(crate) fn replace(path: &Path, content: &[u8], mode: Mode) -> io::Result<()> {
    let path = behind_links(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    match std::fs::metadata(&path) {
        Ok(before) if mode == Mode::Kept => sys::make_alike(file.as_file(), &before)?,
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(())
}

/// Keeps other processes of ours from changing a folder's files until what is returned is dropped; an error when one of
/// them does not come to an end. Cancel safe.
pub(crate) async fn lock(folder: &Path, within: Duration) -> io::Result<File> {
    let lock = sys::lockable(folder)?;
    let locking = async {
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => sleep(LOCK_AGAIN_AFTER).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    };
    match timeout(within, locking).await {
        Ok(locked) => locked.map(|()| lock),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "another bastide holds it")),
    }
}

/// Files are written in less, and a sign-in takes some tenths of a second.
const LOCK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Links that are followed, one behind the other: Linux's own bound (`MAXSYMLINKS`, path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Where a path leads in the end, whether something is there or not.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let is_link = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink());
        if !is_link {
            return Ok(path);
        }
        let target = std::fs::read_link(&path)?;
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(io::Error::other("too many links lead from one to the next"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_and_modes_stay() {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("dotfiles/config"), folder.path().join("config"));
        std::fs::create_dir(folder.path().join("dotfiles")).unwrap();
        symlink("middle", &link).unwrap();
        symlink("dotfiles/config", folder.path().join("middle")).unwrap();
        // A link to nothing is a place for something.
        replace(&link, b"one", Mode::Kept).unwrap();
        assert_eq!((std::fs::read(&target).unwrap().as_slice(), mode(&target)), (&b"one"[..], 0o600));
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).unwrap();
        replace(&link, b"two", Mode::Kept).unwrap();
        assert_eq!((std::fs::read(&link).unwrap().as_slice(), mode(&target)), (&b"two"[..], 0o644));
        replace(&link, b"three", Mode::Private).unwrap();
        assert_eq!((std::fs::read(&link).unwrap().as_slice(), mode(&target)), (&b"three"[..], 0o600));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_cannot_be_written_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        symlink("two", &one).unwrap();
        symlink("one", &two).unwrap();
        assert!(replace(&one, b"x", Mode::Kept).is_err());
        assert!(replace(&folder.path().join("no/folder"), b"x", Mode::Kept).is_err());
        assert!(replace(folder.path(), b"x", Mode::Kept).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
