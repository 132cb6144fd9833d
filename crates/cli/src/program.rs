//! Programs of others that we start: finding them, waiting for them, and ending them. It leaves out what they are
//! started for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Child;
use tokio::time::timeout;

use crate::exit::{Exit, Failure};
use crate::signals::Signals;
use crate::sys;

/// Why a program cannot be started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// There is no such file.
    Missing,
    /// There is, but it can't be run.
    NotExecutable(PathBuf),
}

/// Finds a program as shells do: a word with a `/` is a path, any other one is looked for in `PATH`.
///
/// # Errors
/// [`Unfit`].
pub(crate) fn find(word: &OsStr) -> Result<PathBuf, Unfit> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    find_in(word, std::env::split_paths(&folders))
}

fn find_in(word: &OsStr, folders: impl Iterator<Item = PathBuf>) -> Result<PathBuf, Unfit> {
    let named = Path::new(word);
    let is_path = named.components().count() > 1 || named.is_absolute() || named.has_root();
    let with_suffix = |path: PathBuf| match path.extension() {
        None => path.with_extension(std::env::consts::EXE_EXTENSION),
        Some(_) => path,
    };
    let mut unfit = Unfit::Missing;
    let candidates: Box<dyn Iterator<Item = PathBuf>> = match is_path {
        true => Box::new(std::iter::once(named.to_owned())),
        false => Box::new(folders.map(|folder| folder.join(named))),
    };
    for path in candidates.map(with_suffix) {
        if sys::is_executable(&path) {
            return Ok(path);
        }
        // One that can be run may come later; a folder of that name in PATH is nobody's program.
        if unfit == Unfit::Missing && (path.is_file() || is_path && path.exists()) {
            unfit = Unfit::NotExecutable(path);
        }
    }
    Err(unfit)
}

/// Waits for a child whose end is ours; a signal to us is passed on to it, and is then the reason.
pub(crate) async fn wait(child: &mut Child, signals: &Signals) -> Result<Exit, Failure> {
    tokio::select! {
        status = child.wait() => return exit_of(status),
        () = signals.stop().cancelled_owned() => {}
    }
    let signal = signals.received().unwrap_or_default();
    end(child, signal).await?;
    Ok(Exit::Signal(signal))
}

/// Asks a child to end by this signal; one that does not is killed.
pub(crate) async fn end(child: &mut Child, signal: u8) -> Result<(), Failure> {
    if let Some(id) = child.id() {
        sys::pass_signal(id, signal);
    }
    if timeout(GRACE, child.wait()).await.is_err() {
        child.kill().await.map_err(Failure::system("the program cannot be ended"))?;
    }
    Ok(())
}

/// How it ended.
pub(crate) fn exit_of(status: std::io::Result<std::process::ExitStatus>) -> Result<Exit, Failure> {
    let status = status.map_err(Failure::system("the program cannot be waited for"))?;
    Ok(Exit::Child(sys::exit_of(status)))
}

/// How long a child may take to end after a signal: as long as our own end may take
/// (`bastide::TunnelOptions::grace`).
const GRACE: Duration = Duration::from_secs(10);

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_are_found_as_shells_do() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |folder: &tempfile::TempDir, name: &str, mode| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let plain = make(&first, "both", 0o644);
        let both = make(&second, "both", 0o755);
        let lonely = make(&second, "lonely", 0o644);
        std::fs::create_dir(first.path().join("folder")).unwrap();
        let find = |word: &str| {
            let folders = [&first, &second].map(|folder| folder.path().to_owned());
            find_in(OsStr::new(word), folders.into_iter())
        };
        assert_eq!(find("both"), Ok(both.clone()));
        assert_eq!(find("lonely"), Err(Unfit::NotExecutable(lonely)));
        assert_eq!(find("folder"), Err(Unfit::Missing));
        assert_eq!(find("nowhere"), Err(Unfit::Missing));
        // A path is that path and no other.
        assert_eq!(find(both.to_str().unwrap()), Ok(both));
        assert_eq!(find(plain.to_str().unwrap()), Err(Unfit::NotExecutable(plain)));
        assert_eq!(find("./both"), Err(Unfit::Missing));
        let folder = first.path().join("folder");
        assert_eq!(find(folder.to_str().unwrap()), Err(Unfit::NotExecutable(folder)));
    }
}
