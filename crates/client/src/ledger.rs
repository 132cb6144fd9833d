//! The tokens that this process owes the service, as files: what a `kill -9` leaves behind, the next start finds and
//! gives back. It leaves out giving back (`bastide-relay`).
//!
//! One file for each token, `PROCESS.NUMBER`, made at the mint and removed at the release; and while a process has any,
//! a file `PROCESS.owner` that it holds a lock on. The kernel lets go of the lock however the process ends, so that
//! "nobody holds it" means "whoever wrote this is gone". Many processes need no turn with each other: nobody writes
//! where another does, and what a dead one left is taken over by `rename`, which one taker alone gets done.
//!
//! Nothing waits for a disk: a power cut may take a line with it, whose token then ends at the service's idle time-out.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bastide_net::Origin;
use bastide_relay::{Debt, Entry, Ledger};
use serde::{Deserialize, Serialize};

use crate::sys;

/// A ledger in a folder that many processes share.
#[derive(Debug)]
pub(crate) struct LedgerFolder {
    folder: PathBuf,
    page: Mutex<Option<Page>>,
    /// Whether it was said that nothing can be written.
    complained: AtomicBool,
}

/// What this process has in the folder, from its first debt until it owes nothing.
#[derive(Debug)]
struct Page {
    /// The first part of the names of all its files.
    name: String,
    /// Holds the lock.
    _owner: File,
    /// The number of the newest entry.
    newest: u64,
    /// Entries that are not struck out.
    owed: usize,
}

/// A token that a process left behind which is gone: it counts as a session of its host until it is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind {
    /// Names it in the ledger.
    pub id: String,
    /// Who minted it: host, and port where it is not that of HTTPS.
    pub host: String,
    /// When.
    pub minted: SystemTime,
}

/// What is kept of a token: enough to give it back, and nothing that opens anything.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    host: String,
    auth_token: String,
    node_id: String,
    /// Seconds since 1970.
    minted: u64,
}

/// What is older is forgotten. The service's own time-out is not known (protocol.md §4); a day is longer than any
/// session that it has been seen to keep, and short enough not to ask a host for ever that is no more.
const KEPT: Duration = Duration::from_hours(24);

/// Entries taken over at one start: as many connections as one process can have had.
const MOST_INHERITED: usize = 4096;

/// Tokens have hundreds of bytes; a longer file is none of ours.
const LONGEST_LINE: u64 = 64 * 1024;

/// Ends the name of the file that tells whether a process lives.
const OWNER: &str = "owner";

impl LedgerFolder {
    /// A ledger in `folder`, which is made when there is something to write.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, page: Mutex::new(None), complained: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Page>> {
        // Nothing that holds the lock can panic.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what `write` puts under the path that it is given.
    fn add(&self, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Entry> {
        let mut held = self.lock();
        let page = match held.take() {
            Some(page) => page,
            None => Page::open(&self.folder)?,
        };
        let page = held.insert(page);
        page.newest += 1;
        let written = write(&self.folder.join(format!("{}.{}", page.name, page.newest)));
        let entry = Entry(page.newest);
        page.owed += usize::from(written.is_ok());
        Self::close_if_settled(&self.folder, &mut held);
        written.map(|()| entry)
    }

    /// The lock's file goes before the lock does: whoever has seen its name finds it gone, and not free.
    fn close_if_settled(folder: &Path, held: &mut Option<Page>) {
        if let Some(page) = held.take_if(|page| page.owed == 0) {
            remove(&folder.join(format!("{}.{OWNER}", page.name)));
        }
    }

    fn complain(&self, what: &str, error: &io::Error) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            let folder = self.folder.display();
            tracing::info!(%folder, %error, "{what}: after a crash, tokens would stay until the service ends them");
        }
    }

    /// What processes that are gone have left, without touching it.
    pub(crate) fn left_behind(&self) -> Vec<LeftBehind> {
        let (names, own) = (names(&self.folder).unwrap_or_default(), self.own());
        let mut left = Vec::new();
        for owner in owners(&names, own.as_deref()) {
            let Owner::Gone(_lock) = self.owner(owner) else { continue };
            let entries = entries(&names, owner).filter_map(|name| {
                let (debt, minted) = read(&self.folder.join(name)).ok()?;
                Some(LeftBehind { id: name.clone(), host: debt.host.authority(), minted })
            });
            left.extend(entries);
        }
        left
    }

    /// Takes over the one entry of this name, if it is one that was left behind.
    pub(crate) fn take_one(&self, id: &str) -> Option<(Entry, Debt)> {
        let (names, own) = (names(&self.folder).unwrap_or_default(), self.own());
        let owner = owners(&names, own.as_deref())
            .into_iter()
            .find(|owner| entries(&names, owner).any(|name| name == id))?;
        let Owner::Gone(_lock) = self.owner(owner) else { return None };
        let path = self.folder.join(id);
        let (debt, _) = read(&path).ok()?;
        let entry = self.add(|new| fs::rename(&path, new)).ok()?;
        if entries(&names, owner).count() == 1 {
            remove(&self.folder.join(format!("{owner}.{OWNER}")));
        }
        Some((entry, debt))
    }

    /// The first part of the names of this process's own files.
    fn own(&self) -> Option<String> {
        self.lock().as_ref().map(|page| page.name.clone())
    }

    /// Whether a process lives; of one that does not, nobody else takes anything over meanwhile.
    fn owner(&self, owner: &str) -> Owner {
        let path = self.folder.join(format!("{owner}.{OWNER}"));
        // For writing: NFS locks nothing else for one alone (flock(2)).
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => match file.try_lock() {
                Ok(()) => Owner::Gone(Some(file)),
                Err(TryLockError::WouldBlock) => Owner::Lives,
                Err(TryLockError::Error(error)) => {
                    self.complain("the ledger cannot be locked", &error);
                    Owner::Lives
                }
            },
            // Its owner has settled everything, or somebody was interrupted here: what can be renamed is nobody's.
            Err(error) if error.kind() == ErrorKind::NotFound => Owner::Gone(None),
            Err(error) => {
                self.complain("the ledger cannot be read", &error);
                Owner::Lives
            }
        }
    }

    /// Takes over what `owner` left, if nobody else does.
    fn take_over(&self, owner: &str, names: &BTreeSet<String>, taken: &mut Vec<(Entry, Debt)>) {
        let Owner::Gone(lock) = self.owner(owner) else { return };
        for name in entries(names, owner) {
            let path = self.folder.join(name);
            match read(&path) {
                Ok((debt, _)) if taken.len() < MOST_INHERITED => match self.add(|own| fs::rename(&path, own))
                {
                    Ok(entry) => taken.push((entry, debt)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return self.complain("the ledger cannot be written", &error),
                },
                // The rest waits for another start.
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "an entry of the ledger is dropped");
                    remove(&path);
                }
            }
        }
        remove(&self.folder.join(format!("{owner}.{OWNER}")));
        drop(lock);
    }
}

impl Ledger for LedgerFolder {
    fn record(&self, debt: &Debt) -> Option<Entry> {
        self.add(|path| write(path, debt))
            .inspect_err(|error| self.complain("the ledger cannot be written", error))
            .ok()
    }

    fn strike_out(&self, entry: Entry) {
        let mut held = self.lock();
        let Some(page) = held.as_mut() else { return };
        remove(&self.folder.join(format!("{}.{}", page.name, entry.0)));
        page.owed = page.owed.saturating_sub(1);
        Self::close_if_settled(&self.folder, &mut held);
    }

    fn inherit(&self) -> Vec<(Entry, Debt)> {
        let names = match names(&self.folder) {
            Ok(names) => names,
            // Nobody has ever owed anything.
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                self.complain("the ledger cannot be read", &error);
                return Vec::new();
            }
        };
        let own = self.own();
        let mut taken = Vec::new();
        for owner in owners(&names, own.as_deref()) {
            self.take_over(owner, &names, &mut taken);
        }
        for unborn in names.iter().filter(|name| name.starts_with('.')) {
            remove_if_old(&self.folder.join(unborn));
        }
        taken
    }
}

impl Page {
    /// The owner's file appears under its name when it is locked already: nobody finds it free.
    fn open(folder: &Path) -> io::Result<Self> {
        sys::create_private_folder(folder)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // No two processes of one id at one time, no two pages of one process in one nanosecond.
        let name = format!("{}-{:x}", std::process::id(), now.as_nanos());
        let unborn = folder.join(format!(".{name}"));
        let owner = sys::create_private(&unborn)?;
        let locked = owner.try_lock().map_err(io::Error::from);
        match locked.and_then(|()| fs::rename(&unborn, folder.join(format!("{name}.{OWNER}")))) {
            Ok(()) => Ok(Self { name, _owner: owner, newest: 0, owed: 0 }),
            Err(error) => {
                remove(&unborn);
                Err(error)
            }
        }
    }
}

/// Whoever wrote entries.
enum Owner {
    Lives,
    /// With the lock on its file, where there is one.
    Gone(Option<File>),
}

/// Processes that have files there, but for one's own.
fn owners<'a>(names: &'a BTreeSet<String>, own: Option<&str>) -> BTreeSet<&'a str> {
    let all = names.iter().filter_map(|name| name.split_once('.')).map(|(owner, _)| owner);
    all.filter(|owner| !owner.is_empty() && Some(*owner) != own).collect()
}

/// The entries of one process.
fn entries<'a>(names: &'a BTreeSet<String>, owner: &'a str) -> impl Iterator<Item = &'a String> {
    let of_owner = move |name: &&String| {
        let rest = name.strip_prefix(owner).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|rest| rest != OWNER)
    };
    names.iter().filter(of_owner)
}

/// The files of a folder by name.
fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// One `write`: whoever is killed has written all or nothing.
fn write(path: &Path, debt: &Debt) -> io::Result<()> {
    let minted = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let line = Line {
        host: debt.host.to_string(),
        auth_token: debt.auth_token.expose().to_owned(),
        node_id: debt.node_id.clone(),
        minted,
    };
    let bytes = serde_json::to_vec(&line)?;
    sys::create_private(path)?.write_all(&bytes).inspect_err(|_| remove(path))
}

/// A token and when it was minted. What is too old, or not a line of ours, is an error that is not `NotFound`.
fn read(path: &Path) -> io::Result<(Debt, SystemTime)> {
    let invalid = |reason: &str| io::Error::new(ErrorKind::InvalidData, reason.to_owned());
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST_LINE).read_to_end(&mut bytes)?;
    // The message of serde_json could show the token.
    let line: Line = serde_json::from_slice(&bytes).map_err(|_| invalid("not an entry"))?;
    let minted = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(line.minted));
    // A clock that was set back makes an entry young, not old.
    let minted = minted.filter(|minted| minted.elapsed().unwrap_or_default() < KEPT);
    let minted = minted.ok_or_else(|| invalid("too old"))?;
    let authority = line.host.strip_prefix("https://").ok_or_else(|| invalid("not an https host"))?;
    let host = Origin::https(authority).map_err(|_| invalid("not a host"))?;
    Ok((Debt { host, auth_token: line.auth_token.into(), node_id: line.node_id }, minted))
}

/// A file without a name of its own: somebody was killed between two lines of [`Page::open`], or is just there.
fn remove_if_old(path: &Path) {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    if modified.is_ok_and(|modified| modified.elapsed().unwrap_or_default() >= KEPT) {
        remove(path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "a file of the ledger could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn debt(token: &str) -> Debt {
        Debt {
            host: Origin::https("bst-1.bastion.azure.com").unwrap(),
            auth_token: token.to_owned().into(),
            node_id: "node-1".into(),
        }
    }

    fn tokens(taken: &[(Entry, Debt)]) -> Vec<&str> {
        taken.iter().map(|(_, debt)| debt.auth_token.expose()).collect()
    }

    fn left(folder: &TempDir) -> Vec<String> {
        names(folder.path()).unwrap().into_iter().collect()
    }

    /// What a process of its own would leave when it is killed.
    fn crash(folder: &TempDir, owned: &[&str]) {
        let ledger = LedgerFolder::new(folder.path().into());
        for token in owned {
            ledger.record(&debt(token)).unwrap();
        }
        // Dropping closes the file, and with it goes the lock, as at the end of a process.
        drop(ledger);
    }

    #[test]
    fn what_is_given_back_leaves_no_file() {
        let folder = TempDir::new().unwrap();
        let ledger = LedgerFolder::new(folder.path().join("ledger"));
        assert!(ledger.inherit().is_empty());
        for _ in 0..2 {
            let entries = [ledger.record(&debt("a")).unwrap(), ledger.record(&debt("b")).unwrap()];
            assert_eq!(names(&folder.path().join("ledger")).unwrap().len(), 3);
            entries.into_iter().for_each(|entry| ledger.strike_out(entry));
            assert!(names(&folder.path().join("ledger")).unwrap().is_empty());
        }
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TempDir::new().unwrap();
        let ledger = LedgerFolder::new(folder.path().join("state/ledger"));
        ledger.record(&debt("a")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&ledger.folder), 0o700);
        for name in names(&ledger.folder).unwrap() {
            assert_eq!(mode(&ledger.folder.join(name)), 0o600);
        }
    }

    #[test]
    fn the_living_keep_theirs_and_the_dead_leave_it() {
        let folder = TempDir::new().unwrap();
        let living = LedgerFolder::new(folder.path().into());
        let mine = living.record(&debt("living")).unwrap();
        crash(&folder, &["one", "two"]);
        let heir = LedgerFolder::new(folder.path().into());
        let taken = heir.inherit();
        assert_eq!(tokens(&taken), ["one", "two"]);
        // A second start finds nothing: the first one lives.
        let late = LedgerFolder::new(folder.path().into());
        assert!(late.inherit().is_empty());
        // One could not be given back, and the heir ends: it is the next one's.
        heir.strike_out(taken[0].0);
        drop(heir);
        let taken = late.inherit();
        assert_eq!(tokens(&taken), ["two"]);
        late.strike_out(taken[0].0);
        living.strike_out(mine);
        assert!(left(&folder).is_empty());
    }

    #[test]
    fn what_was_left_behind_can_be_looked_at_and_taken_one_by_one() {
        let folder = TempDir::new().unwrap();
        let living = LedgerFolder::new(folder.path().into());
        let mine = living.record(&debt("living")).unwrap();
        crash(&folder, &["one", "two"]);
        let heir = LedgerFolder::new(folder.path().into());
        for _ in 0..2 {
            let left = heir.left_behind();
            assert_eq!(left.len(), 2, "{left:?}");
            assert_eq!(left[0].host, "bst-1.bastion.azure.com");
            assert!(left[0].minted.elapsed().unwrap() < KEPT);
        }
        let ids: Vec<_> = heir.left_behind().into_iter().map(|left| left.id).collect();
        let own = format!("{}.{}", living.own().unwrap(), mine.0);
        for id in ["", "x", "../x", "1-a.1", &own] {
            assert!(heir.take_one(id).is_none(), "{id}");
        }
        let (entry, two) = heir.take_one(&ids[1]).unwrap();
        assert_eq!(two.auth_token.expose(), "two");
        assert!(heir.take_one(&ids[1]).is_none());
        heir.strike_out(entry);
        assert_eq!(heir.left_behind().len(), 1);
        let (entry, one) = heir.take_one(&ids[0]).unwrap();
        assert_eq!(one.auth_token.expose(), "one");
        heir.strike_out(entry);
        living.strike_out(mine);
        assert!(left(&folder).is_empty());
        assert!(heir.left_behind().is_empty());
    }

    #[test]
    fn takers_at_one_time_get_each_token_once() {
        let folder = TempDir::new().unwrap();
        for _ in 0..8 {
            crash(&folder, &["a", "b", "c", "d"]);
        }
        let takers: Vec<_> = (0..4).map(|_| LedgerFolder::new(folder.path().into())).collect();
        let count: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = takers.iter().map(|taker| scope.spawn(|| taker.inherit().len())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(count, 32);
    }

    #[test]
    fn what_is_not_an_entry_goes() {
        let folder = TempDir::new().unwrap();
        let minted = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let line = |host: &str, minted: u64| {
            format!(r#"{{"host":"{host}","authToken":"a","nodeId":"n","minted":{minted}}}"#)
        };
        let lines = [
            String::new(),
            "{".into(),
            "\0\u{1}".repeat(40_000),
            line("https://host", 1),
            line("https://host", u64::MAX),
            line("http://host", minted),
            line("https://host/path", minted),
        ];
        for (number, text) in lines.iter().enumerate() {
            fs::write(folder.path().join(format!("1-a.{number}")), text).unwrap();
        }
        fs::write(folder.path().join("1-a.owner"), "?").unwrap();
        fs::write(folder.path().join("2-b.7"), line("https://host:8443", minted)).unwrap();
        let heir = LedgerFolder::new(folder.path().into());
        let taken = heir.inherit();
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert_eq!(taken[0].1.host.to_string(), "https://host:8443");
        heir.strike_out(taken[0].0);
        assert!(left(&folder).is_empty());
    }

    #[test]
    fn without_a_place_to_write_nothing_is_recorded() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let ledger = LedgerFolder::new(folder.path().join("file/ledger"));
        assert!(ledger.inherit().is_empty());
        assert!(ledger.record(&debt("a")).is_none());
        ledger.strike_out(Entry(1));
    }
}
