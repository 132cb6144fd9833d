//! Answers of Resource Graph that are kept for the next run, so that a VM is found by its name without asking: a file
//! for each, in a folder that all processes of one user share. A file appears whole, under its name, or not at all, so
//! that processes at one time lose nothing. It holds names and ids, and no secret. It leaves out asking, and whether an
//! answer still holds.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bastide_arm::{Topology, Wanted};
use bastide_core::{ResourceId, Target};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys;

/// A Bastion host and the VM behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bastion: ResourceId,
    pub(crate) target: Target,
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Places {
    folder: PathBuf,
}

/// One answer, kept or not yet.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    path: PathBuf,
    folder: Arc<Places>,
    key: String,
    /// The VM as the user spells it now.
    wanted: Wanted,
}

/// Names that are known without asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownNames {
    /// VMs, and instances of scale sets.
    pub machines: BTreeSet<String>,
    /// Bastion hosts.
    pub bastions: BTreeSet<String>,
    /// Resource groups of Bastion hosts.
    pub groups: BTreeSet<String>,
}

impl KnownNames {
    /// Those that are kept in `folder`, which is that of [`crate::Settings::cache`], for whatever cloud and user.
    pub fn read(folder: &Path) -> Self {
        let mut names = Self::default();
        let mut places = Vec::new();
        for path in entries(folder).unwrap_or_default().into_iter().filter(|path| is_kept(path)) {
            if let Ok(listed) = read::<Listed>(&path) {
                names.machines.extend(listed.machines);
                names.bastions.extend(listed.bastions);
                names.groups.extend(listed.groups);
            } else if let Ok(entry) = read::<Entry>(&path) {
                places.extend(entry.place());
            }
        }
        for place in places {
            names.add_host(&place.bastion);
            // Spelt as somebody has typed it.
            let name = place.target.display_name();
            let is_known = names.machines.iter().any(|known| known.eq_ignore_ascii_case(&name));
            if !is_known && matches!(place.target, Target::Resource(_)) {
                names.machines.insert(name);
            }
        }
        names
    }

    fn add_host(&mut self, id: &ResourceId) {
        self.bastions.insert(id.name().to_owned());
        self.groups.insert(id.group().to_owned());
    }
}

/// An answer to one question, as a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Everything that the answer hangs on; names of files are too short for it.
    key: String,
    /// A resource id.
    bastion: String,
    /// A resource id, or an address.
    target: String,
}

/// All names that somebody may read, as a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    key: String,
    machines: BTreeSet<String>,
    bastions: BTreeSet<String>,
    groups: BTreeSet<String>,
}

/// An answer holds for so long: a day's work asks once, and a second VM of a name is noticed on the next day.
const HOLDS: Duration = Duration::from_hours(24);

/// Files that are kept at most; the oldest go. More VMs than a person works with.
const MOST_KEPT: usize = 512;

/// A longer file is none of ours; 100,000 names of 64 letters are shorter.
const LONGEST: u64 = 8 * 1024 * 1024;

impl Places {
    /// In `folder`, which is made when there is something to keep.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The answer to what `key` says, for a VM that is called as `wanted` spells it.
    pub(crate) fn kept(self: &Arc<Self>, key: &str, wanted: &Wanted) -> Kept {
        let key = key.to_lowercase();
        Kept { path: self.path(&key), folder: Arc::clone(self), key, wanted: wanted.clone() }
    }

    /// Keeps the names of all that `realm` sees.
    pub(crate) fn keep_names(&self, realm: &str, topology: &Topology) {
        let mut names = KnownNames::default();
        topology.hosts().iter().for_each(|host| names.add_host(&host.description.id));
        let key = format!("names\n{}", realm.to_lowercase());
        let listed = Listed {
            machines: topology.machines().iter().map(|machine| machine.id.display_name()).collect(),
            bastions: names.bastions,
            groups: names.groups,
            key,
        };
        self.write(&self.path(&listed.key), &listed);
    }

    fn path(&self, key: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        hasher.write(key.as_bytes());
        self.folder.join(format!("{:016x}.json", hasher.finish()))
    }

    /// Without it the next run asks again, so that nobody needs to hear of a failure.
    fn write(&self, path: &Path, entry: &impl Serialize) {
        if let Err(error) = self.try_write(path, entry) {
            tracing::debug!(path = %path.display(), %error, "an answer cannot be kept");
        }
    }

    fn try_write(&self, path: &Path, entry: &impl Serialize) -> io::Result<()> {
        sys::create_private_folder(&self.folder)?;
        self.make_room()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // No two threads of one process write one answer in one nanosecond.
        let unborn = self.folder.join(format!(".{}-{:x}", std::process::id(), now.as_nanos()));
        let mut file = sys::create_private(&unborn)?;
        let written = file.write_all(&serde_json::to_vec(entry)?).and_then(|()| fs::rename(&unborn, path));
        written.inspect_err(|_| remove(&unborn))
    }

    /// Removes what is too old, what is too much, and what was left in the middle of being written.
    fn make_room(&self) -> io::Result<()> {
        let mut there: Vec<(SystemTime, PathBuf)> = entries(&self.folder)?
            .into_iter()
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        there.sort();
        let surplus = (there.len() + 1).saturating_sub(MOST_KEPT);
        for (number, (modified, path)) in there.into_iter().enumerate() {
            if number < surplus || !holds(modified) {
                remove(&path);
            }
        }
        Ok(())
    }
}

impl Kept {
    /// What was kept, if it still holds.
    pub(crate) fn place(&self) -> Option<Place> {
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok()?;
        let entry: Entry = holds(modified).then(|| read(&self.path).ok()).flatten()?;
        let place = entry.place().filter(|_| entry.key == self.key)?;
        let target = match (&self.wanted, place.target) {
            (Wanted::Target(target), _) => target.clone(),
            (Wanted::Name(name), Target::Resource(id)) => Target::Resource(bastide_arm::spelt(&id, name)),
            (Wanted::Name(_), Target::Address(_)) => return None,
        };
        Some(Place { target, ..place })
    }

    pub(crate) fn keep(&self, place: &Place) {
        let (bastion, target) = (place.bastion.to_string(), place.target.to_string());
        self.folder.write(&self.path, &Entry { key: self.key.clone(), bastion, target });
    }

    /// It does not lead there any more.
    pub(crate) fn forget(&self) {
        remove(&self.path);
    }
}

impl Entry {
    fn place(&self) -> Option<Place> {
        let target = match self.target.starts_with('/') {
            true => Target::Resource(ResourceId::parse(&self.target).ok()?),
            false => Target::address(&self.target).ok()?,
        };
        Some(Place { bastion: ResourceId::parse(&self.bastion).ok()?, target })
    }
}

/// A clock that was set back makes an answer young, not old.
fn holds(modified: SystemTime) -> bool {
    modified.elapsed().unwrap_or_default() < HOLDS
}

fn is_kept(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("json"))
        && fs::metadata(path).and_then(|metadata| metadata.modified()).is_ok_and(holds)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "a kept answer could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const GROUP: &str = "/subscriptions/s/resourceGroups/g/providers";

    fn place(name: &str) -> Place {
        let id = |kind: &str, name: &str| ResourceId::parse(&format!("{GROUP}/{kind}/{name}")).unwrap();
        Place {
            bastion: id("Microsoft.Network/bastionHosts", "b"),
            target: Target::Resource(id("Microsoft.Compute/virtualMachines", name)),
        }
    }

    fn places(folder: &TempDir) -> Arc<Places> {
        Arc::new(Places::new(folder.path().join("a/places")))
    }

    fn named(name: &str) -> Wanted {
        Wanted::Name(name.into())
    }

    #[test]
    fn an_answer_is_kept_for_its_question() {
        let folder = TempDir::new().unwrap();
        let kept = places(&folder).kept("cloud\nme\nWeb-01", &named("Web-01"));
        assert_eq!(kept.place(), None);
        kept.keep(&place("web-01"));
        let spelt = |place: Place| place.target.display_name();
        assert_eq!(kept.place().map(spelt).as_deref(), Some("Web-01"));
        // Another process, and another spelling.
        let again = places(&folder).kept("CLOUD\nme\nWEB-01", &named("WEB-01")).place();
        assert_eq!(again.map(spelt).as_deref(), Some("WEB-01"));
        assert_eq!(places(&folder).kept("cloud\nyou\nweb-01", &named("web-01")).place(), None);
        let id = place("WEB-01").target;
        let by_id = places(&folder).kept("y", &Wanted::Target(id.clone()));
        by_id.keep(&place("web-01"));
        assert_eq!(by_id.place().map(spelt).as_deref(), Some("WEB-01"));
        let address = places(&folder).kept("x", &Wanted::parse("10.0.0.4").unwrap());
        address.keep(&Place { target: Target::address("10.0.0.4").unwrap(), ..place("x") });
        assert_eq!(address.place().unwrap().target.to_string(), "10.0.0.4");
        kept.forget();
        assert_eq!(kept.place(), None);
        kept.forget();
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TempDir::new().unwrap();
        let places = places(&folder);
        places.kept("x", &named("x")).keep(&place("x"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&places.folder), 0o700);
        let files = entries(&places.folder).unwrap();
        assert_eq!(files.iter().map(|path| mode(path)).collect::<Vec<_>>(), [0o600]);
    }

    #[test]
    fn what_is_not_an_answer_is_none() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder);
        let kept = places.kept("key", &named("x"));
        kept.keep(&place("x"));
        let whole = fs::read_to_string(&kept.path).unwrap();
        for text in [
            String::new(),
            "{".into(),
            whole.replace("\"key\":\"key\"", "\"key\":\"other\""),
            whole.replace("/subscriptions/s/", "/"),
            whole.replace('}', ",\"more\":1}"),
            whole.get(..whole.len() / 2).unwrap().into(),
        ] {
            fs::write(&kept.path, &text).unwrap();
            assert_eq!(kept.place(), None, "{text}");
        }
        fs::write(&kept.path, whole).unwrap();
        let old = SystemTime::now() - HOLDS;
        File::options().write(true).open(&kept.path).unwrap().set_modified(old).unwrap();
        assert_eq!(kept.place(), None);
        assert_eq!(KnownNames::read(&places.folder), KnownNames::default());
        // The next one that is kept cleans up.
        places.kept("other", &named("y")).keep(&place("y"));
        assert!(!kept.path.exists());
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder);
        for number in 0..MOST_KEPT + 20 {
            places.kept(&number.to_string(), &named("x")).keep(&place("x"));
        }
        assert!(entries(&places.folder).unwrap().len() <= MOST_KEPT);
        let last = (MOST_KEPT + 19).to_string();
        assert!(places.kept(&last, &named("x")).place().is_some());
    }

    #[test]
    fn many_at_one_time_lose_nothing() {
        let folder = TempDir::new().unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let folder = &folder;
                scope.spawn(move || {
                    for number in 0..20 {
                        let own = places(folder).kept(&format!("{worker} {number}"), &named("x"));
                        own.keep(&place(&format!("vm-{worker}-{number}")));
                        // One that all of them keep, and read, is whole at all times.
                        let shared = places(folder).kept("shared", &named("x"));
                        shared.keep(&place("x"));
                        assert!(shared.place().is_some());
                    }
                });
            }
        });
        let known = KnownNames::read(&places(&folder).folder);
        assert_eq!(known.machines.len(), 4 * 20 + 1);
        assert_eq!((known.bastions.first().map(String::as_str), known.groups.len()), (Some("b"), 1));
    }

    #[test]
    fn without_a_place_to_write_nothing_is_kept() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let kept = places(&folder).kept("x", &named("x"));
        kept.keep(&place("x"));
        assert_eq!(kept.place(), None);
        assert_eq!(KnownNames::read(folder.path()), KnownNames::default());
    }
}
