//! What survives the process: the user's own sign-in and access tokens that are slow to get, in the system's keyring
//! or in one file of mode 0600. It leaves out what the tokens are good for; and it keeps nothing of providers that
//! find their secrets anew each time.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fmt, fs};

use bastide_core::{AccessToken, AuthError, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::keyring::{SystemKeyring, Vault};
use crate::{Environment, sys};

/// The place for sign-ins. A cheap handle: clones mean the same place.
///
/// Processes that use one place at the same time neither corrupt it (a write replaces the file as a whole) nor lose
/// a refresh token that the other got (who renews one holds a lock meanwhile).
#[derive(Clone)]
pub struct Store(Arc<Place>);

/// Where a sign-in is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nowhere: it ends with the process.
    InMemory,
    /// In the keyring: Secret Service, Keychain or Credential Manager.
    InKeyring,
    /// In a file that nobody else can read.
    InFile(PathBuf),
}

impl fmt::Display for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::InMemory => formatter.write_str("in memory until this process ends"),
            Kept::InKeyring => formatter.write_str("in the system's keyring"),
            Kept::InFile(path) => {
                write!(formatter, "in {}, which only you can read: there is no keyring", path.display())
            }
        }
    }
}

impl Store {
    /// Keeps everything in memory (`--no-cache`).
    pub fn in_memory() -> Self {
        Self(Arc::new(Place::Memory(Arc::default())))
    }

    /// The place of the user whose environment this is: the keyring where there is one, else the file `sign-in.json`
    /// in `bastide` below `XDG_STATE_HOME` (XDG Base Directory Specification), or what other systems have for it. In
    /// memory for who has no home.
    pub fn of_user(environment: &Environment) -> Self {
        match sys::state_folder(environment) {
            Some(folder) => {
                let vault = SystemKeyring::find(environment, &folder);
                Self::in_folder(folder, vault.map(|vault| Arc::new(vault) as Arc<dyn Vault>))
            }
            None => Self::in_memory(),
        }
    }

    pub(crate) fn in_folder(folder: PathBuf, vault: Option<Arc<dyn Vault>>) -> Self {
        Self(Arc::new(Place::Disk(Disk { folder, vault })))
    }

    /// Forgets everything, and says whose sign-ins they were.
    ///
    /// Cancel safe in that all of it is there or gone.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn clear(&self) -> Result<Vec<String>, AuthError> {
        if let Place::Disk(disk) = &*self.0
            && !disk.path().exists()
        {
            return Ok(Vec::new());
        }
        let locked = self.lock().await?;
        let users = locked.contents.accounts.iter().map(|account| account.username.clone()).collect();
        locked.clear().await?;
        Ok(users)
    }

    /// What is there now; another process may change it at any time.
    pub(crate) async fn read(&self) -> Result<Contents, AuthError> {
        match &*self.0 {
            Place::Memory(contents) => Ok(contents.lock().await.clone()),
            Place::Disk(disk) => Ok(disk.load().await?.1),
        }
    }

    /// What is there, with nobody else changing it while the answer lives.
    ///
    /// Cancel safe. Waits up to [`LOCK_LIMIT`] for another process.
    pub(crate) async fn lock(&self) -> Result<Locked, AuthError> {
        match &*self.0 {
            Place::Memory(contents) => {
                let guard = Arc::clone(contents).lock_owned().await;
                Ok(Locked { contents: guard.clone(), hold: Hold::Memory(guard) })
            }
            Place::Disk(disk) => {
                let lock = disk.lock().await?;
                let (found, contents) = match disk.load().await {
                    // Who locks it is about to replace or remove it: neither signing in anew nor signing out may
                    // stumble over what is no good to anybody.
                    Err(AuthError::Store { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
                        Default::default()
                    }
                    Err(error) if disk.is_in_keyring() => {
                        tracing::debug!(%error, "it is taken for empty");
                        Default::default()
                    }
                    loaded => loaded?,
                };
                Ok(Locked { contents, hold: Hold::Disk { disk: disk.clone(), found, _lock: lock } })
            }
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Place::Memory(_) => formatter.write_str("Store(memory)"),
            Place::Disk(disk) => formatter.debug_tuple("Store").field(&disk.folder).finish(),
        }
    }
}

impl Default for Store {
    /// In memory.
    fn default() -> Self {
        Self::in_memory()
    }
}

/// Everything that is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// At most one for each sign-in service.
    #[serde(default)]
    pub(crate) accounts: Vec<KeptAccount>,
    #[serde(default)]
    tokens: Vec<KeptToken>,
}

/// Somebody who has signed in with a device code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeptAccount {
    /// The sign-in service's address.
    pub(crate) authority: String,
    /// The tenant that was signed in to.
    pub(crate) tenant: String,
    /// The application that the refresh token was given to.
    pub(crate) client_id: String,
    /// For people: usually a mail address.
    pub(crate) username: String,
    /// Who it is, for keys: the object id where it is known.
    pub(crate) id: String,
    #[serde(with = "plain")]
    pub(crate) refresh_token: Secret,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptToken {
    key: String,
    #[serde(with = "plain")]
    secret: Secret,
    /// Seconds since 1970.
    expires_on: u64,
}

impl Contents {
    pub(crate) fn account(&self, authority: &str) -> Option<&KeptAccount> {
        self.accounts.iter().find(|account| account.authority == authority)
    }

    /// In place of whoever was signed in there, whose tokens go too.
    pub(crate) fn set_account(&mut self, account: KeptAccount) {
        if let Some(old) = self.account(&account.authority)
            && old.id != account.id
        {
            let prefix = token_prefix(old);
            self.tokens.retain(|token| !token.key.starts_with(&prefix));
        }
        self.accounts.retain(|old| old.authority != account.authority);
        self.accounts.push(account);
    }

    /// The token of this key, if it is good for at least [`LEAST_LEFT`].
    pub(crate) fn token(&self, key: &str, now: SystemTime) -> Option<AccessToken> {
        let token = self.tokens.iter().find(|token| token.key == key)?;
        let expires_on = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(token.expires_on))?;
        (expires_on > now + LEAST_LEFT).then(|| AccessToken { secret: token.secret.clone(), expires_on })
    }

    pub(crate) fn set_token(&mut self, key: String, token: &AccessToken) {
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = seconds(SystemTime::now());
        self.tokens.retain(|kept| kept.key != key && kept.expires_on > now);
        if self.tokens.len() >= TOKEN_LIMIT {
            self.tokens.remove(0);
        }
        let (secret, expires_on) = (token.secret.clone(), seconds(token.expires_on));
        self.tokens.push(KeptToken { key, secret, expires_on });
    }
}

/// With what the keys of an account's tokens begin.
pub(crate) fn token_prefix(account: &KeptAccount) -> String {
    format!("device-code {} {} {} ", account.authority, account.client_id, account.id)
}

/// A kept token with less than this left is not taken: what [`crate::CacheOptions::refresh_ahead`] would renew at
/// once.
const LEAST_LEFT: Duration = Duration::from_secs(5 * 60);

/// One for each tenant and scope in use: a handful.
const TOKEN_LIMIT: usize = 32;

/// Longer than one renewal takes ([`bastide_net::Options::answer_timeout`], 30 s).
const LOCK_LIMIT: Duration = Duration::from_secs(40);

/// The pause between two looks at a lock that another process holds: nobody notices it, and it costs nothing.
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// How long the keyring may take: it answers in milliseconds, or asks the user to unlock it.
const KEYRING_LIMIT: Duration = Duration::from_secs(10);

/// The contents with a lock on them.
pub(crate) struct Locked {
    pub(crate) contents: Contents,
    hold: Hold,
}

enum Hold {
    Memory(tokio::sync::OwnedMutexGuard<Contents>),
    Disk { disk: Disk, found: Option<Kept>, _lock: File },
}

impl Locked {
    /// Writes the contents down.
    pub(crate) async fn save(mut self) -> Result<Kept, AuthError> {
        match &mut self.hold {
            Hold::Memory(guard) => {
                **guard = self.contents;
                Ok(Kept::InMemory)
            }
            Hold::Disk { disk, found, .. } => disk.save(found.take(), self.contents).await,
        }
    }

    async fn clear(mut self) -> Result<(), AuthError> {
        match &mut self.hold {
            Hold::Memory(guard) => {
                **guard = Contents::default();
                Ok(())
            }
            Hold::Disk { disk, .. } => disk.clear().await,
        }
    }
}

enum Place {
    Memory(Arc<tokio::sync::Mutex<Contents>>),
    Disk(Disk),
}

#[derive(Clone)]
struct Disk {
    folder: PathBuf,
    vault: Option<Arc<dyn Vault>>,
}

/// The file: the contents, or the word that they are in the keyring, so that nobody asks it in vain.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kept_in", rename_all = "lowercase")]
enum Document {
    Keyring,
    File(Contents),
}

impl Disk {
    fn path(&self) -> PathBuf {
        self.folder.join("sign-in.json")
    }

    async fn load(&self) -> Result<(Option<Kept>, Contents), AuthError> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, Contents::default())),
            Err(error) => return Err(failed(&path, error)),
        };
        match serde_json::from_slice(&text) {
            Ok(Document::File(contents)) => Ok((Some(Kept::InFile(path)), contents)),
            Ok(Document::Keyring) => {
                let text = self.in_keyring(|vault| vault.get()).await?;
                let contents = match text {
                    Some(text) => serde_json::from_slice(&text).map_err(|_| unreadable(&path))?,
                    None => Contents::default(),
                };
                Ok((Some(Kept::InKeyring), contents))
            }
            Err(_) => Err(unreadable(&path)),
        }
    }

    async fn save(&self, found: Option<Kept>, contents: Contents) -> Result<Kept, AuthError> {
        if self.vault.is_some() && !matches!(found, Some(Kept::InFile(_))) {
            let text = json(&contents);
            match self.in_keyring(move |vault| vault.set(&text)).await {
                Ok(()) => {
                    if found.is_none() {
                        self.write(&json(&Document::Keyring)).await?;
                    }
                    return Ok(Kept::InKeyring);
                }
                Err(error) if found.is_some() => return Err(error),
                Err(error) => tracing::debug!(%error, "the keyring can't be used"),
            }
        }
        self.write(&json(&Document::File(contents))).await?;
        Ok(Kept::InFile(self.path()))
    }

    /// Whether the file says that the contents are in the keyring.
    fn is_in_keyring(&self) -> bool {
        let text = fs::read(self.path()).map(Zeroizing::new).unwrap_or_default();
        matches!(serde_json::from_slice(&text), Ok(Document::Keyring))
    }

    async fn clear(&self) -> Result<(), AuthError> {
        // Where they are in the file by now, older ones may still be in a keyring that could not be used then.
        match self.in_keyring(|vault| vault.delete()).await {
            Err(error) if self.is_in_keyring() => return Err(error),
            Err(error) => tracing::debug!(%error, "the keyring can't be used"),
            Ok(()) => {}
        }
        // The lock stays: who removes it takes it from others who wait for it.
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&self.path(), error)),
            _ => Ok(()),
        }
    }

    async fn write(&self, text: &Zeroizing<Vec<u8>>) -> Result<(), AuthError> {
        let (folder, path, text) = (self.folder.clone(), self.path(), text.clone());
        let written = tokio::task::spawn_blocking(move || replace(&folder, &path, &text)).await;
        written
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| failed(&self.path(), error))
    }

    async fn lock(&self) -> Result<File, AuthError> {
        let path = self.folder.join("sign-in.lock");
        sys::create_private_folder(&self.folder).map_err(|error| failed(&self.folder, error))?;
        let file = sys::create_private_file(&path).map_err(|error| failed(&path, error))?;
        let waiting = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                    Err(TryLockError::Error(error)) => return Err(failed(&path, error)),
                }
            }
        };
        match tokio::time::timeout(LOCK_LIMIT, waiting).await {
            Ok(outcome) => outcome.map(|()| file),
            Err(_) => Err(failed(&path, io::Error::other("another process holds it for too long"))),
        }
    }

    /// On a thread that is left behind when the keyring hangs.
    async fn in_keyring<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Vault) -> Result<T, String> + Send + 'static,
    ) -> Result<T, AuthError> {
        let failed = |reason: String| AuthError::Store {
            place: "the system's keyring".into(),
            source: Arc::new(io::Error::other(reason)),
        };
        let Some(vault) = self.vault.clone() else { return Err(failed("there is none".into())) };
        let work = tokio::task::spawn_blocking(move || work(&*vault));
        match tokio::time::timeout(KEYRING_LIMIT, work).await {
            Ok(Ok(outcome)) => outcome.map_err(failed),
            Ok(Err(_)) => Err(failed("its library has failed".into())),
            Err(_) => Err(failed(format!("no answer within {} s", KEYRING_LIMIT.as_secs()))),
        }
    }
}

/// All of it or nothing, on the disk when this returns (rename(2), fsync(2)).
fn replace(folder: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    // Of mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sys::sync_folder(folder)
}

fn json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // It holds nothing but text and numbers, which JSON can say; an empty file reads as unreadable.
    Zeroizing::new(serde_json::to_vec(value).unwrap_or_default())
}

fn failed(path: &Path, source: io::Error) -> AuthError {
    AuthError::Store { place: path.display().to_string(), source: Arc::new(source) }
}

/// The parser's words stay out: they quote what they read.
fn unreadable(path: &Path) -> AuthError {
    failed(path, io::Error::new(io::ErrorKind::InvalidData, "not what bastide writes there"))
}

/// A secret in the one place that may hold it.
mod plain {
    use bastide_core::Secret;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn account(id: &str) -> KeptAccount {
        KeptAccount {
            authority: "https://login".into(),
            tenant: "t".into(),
            client_id: "c".into(),
            username: format!("{id}@example.org"),
            id: id.into(),
            refresh_token: Secret::new(format!("refresh of {id}")),
        }
    }

    fn token(text: &str, left: Duration) -> AccessToken {
        AccessToken { secret: Secret::new(text), expires_on: SystemTime::now() + left }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[derive(Default)]
    struct FakeVault {
        held: Mutex<Option<Vec<u8>>>,
        broken: Mutex<Option<String>>,
    }

    impl FakeVault {
        fn check(&self) -> Result<(), String> {
            self.broken.lock().unwrap().clone().map_or(Ok(()), Err)
        }
    }

    impl Vault for FakeVault {
        fn get(&self) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
            self.check()?;
            Ok(self.held.lock().unwrap().clone().map(Zeroizing::new))
        }

        fn set(&self, secret: &[u8]) -> Result<(), String> {
            self.check()?;
            *self.held.lock().unwrap() = Some(secret.to_vec());
            Ok(())
        }

        fn delete(&self) -> Result<(), String> {
            self.check()?;
            *self.held.lock().unwrap() = None;
            Ok(())
        }
    }

    async fn keep(store: &Store, id: &str) -> Kept {
        let mut locked = store.lock().await.unwrap();
        locked.contents.set_account(account(id));
        locked.save().await.unwrap()
    }

    #[tokio::test]
    async fn a_file_keeps_it_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("bastide");
        let store = Store::in_folder(path.clone(), None);
        assert!(store.read().await.unwrap().accounts.is_empty());
        assert!(!path.exists(), "a look leaves nothing behind");
        assert_eq!(keep(&store, "a").await, Kept::InFile(path.join("sign-in.json")));
        let again = Store::in_folder(path.clone(), None).read().await.unwrap();
        let kept = again.account("https://login").unwrap();
        assert_eq!((kept.id.as_str(), kept.refresh_token.expose()), ("a", "refresh of a"));
        assert!(!format!("{again:?}").contains("refresh of"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(&path.join("sign-in.json"))), (0o700, 0o600));
        }
        assert_eq!(store.clear().await.unwrap(), ["a@example.org"]);
        assert_eq!(store.clear().await.unwrap(), Vec::<String>::new());
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["sign-in.lock"]);
    }

    #[tokio::test]
    async fn the_keyring_is_preferred_and_leaves_no_secret_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(FakeVault::default());
        let store = Store::in_folder(folder.path().into(), Some(Arc::clone(&vault) as Arc<dyn Vault>));
        assert_eq!(keep(&store, "a").await, Kept::InKeyring);
        assert_eq!(
            fs::read_to_string(folder.path().join("sign-in.json")).unwrap(),
            r#"{"kept_in":"keyring"}"#
        );
        assert!(store.read().await.unwrap().account("https://login").is_some());
        *vault.broken.lock().unwrap() = Some("locked".into());
        let error = store.read().await.unwrap_err();
        assert_eq!(error.to_string(), "the sign-in kept in the system's keyring cannot be used");
        *vault.broken.lock().unwrap() = None;
        store.clear().await.unwrap();
        assert!(vault.held.lock().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_keyring_that_fails_from_the_start_makes_way_for_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(FakeVault::default());
        *vault.broken.lock().unwrap() = Some("no session".into());
        let store = Store::in_folder(folder.path().into(), Some(vault as Arc<dyn Vault>));
        assert!(matches!(keep(&store, "a").await, Kept::InFile(_)));
        assert!(store.read().await.unwrap().account("https://login").is_some());
    }

    #[tokio::test]
    async fn a_keyring_that_has_gone_does_not_stop_a_new_sign_in() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(FakeVault::default());
        let store = Store::in_folder(folder.path().into(), Some(Arc::clone(&vault) as Arc<dyn Vault>));
        assert_eq!(keep(&store, "a").await, Kept::InKeyring);
        *vault.broken.lock().unwrap() = Some("no session".into());
        // Signing out must not say that it is done while it is not.
        let error = store.clear().await.unwrap_err();
        assert_eq!(error.to_string(), "the sign-in kept in the system's keyring cannot be used");
        let elsewhere = Store::in_folder(folder.path().into(), None);
        assert!(elsewhere.clear().await.is_err());
        assert!(matches!(keep(&elsewhere, "b").await, Kept::InFile(_)));
        assert_eq!(elsewhere.read().await.unwrap().accounts[0].id, "b");
        // And takes all of it, once it can.
        *vault.broken.lock().unwrap() = None;
        assert_eq!(store.clear().await.unwrap(), ["b@example.org"]);
        assert!(vault.held.lock().unwrap().is_none());
    }

    #[tokio::test]
    async fn nobody_loses_what_another_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..20 {
            let store = Store::in_folder(folder.path().into(), None);
            tasks.spawn(async move {
                let mut locked = store.lock().await.unwrap();
                locked.contents.set_token(format!("key {number}"), &token("x", HOUR));
                locked.save().await.unwrap();
            });
        }
        tasks.join_all().await;
        let contents = Store::in_folder(folder.path().into(), None).read().await.unwrap();
        for number in 0..20 {
            assert!(contents.token(&format!("key {number}"), SystemTime::now()).is_some(), "{number}");
        }
    }

    #[tokio::test]
    async fn what_is_not_ours_is_refused_without_quoting_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sign-in.json"), r#"{"kept_in":"file","accounts":"hunter2"}"#).unwrap();
        let error = Store::in_folder(folder.path().into(), None).read().await.unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn tokens_end_and_belong_to_somebody() {
        let mut contents = Contents::default();
        contents.set_account(account("a"));
        let key = format!("{}t s", token_prefix(&account("a")));
        contents.set_token(key.clone(), &token("one", HOUR));
        contents.set_token("azure-cli x".into(), &token("two", HOUR));
        let now = SystemTime::now();
        assert_eq!(contents.token(&key, now).unwrap().secret.expose(), "one");
        assert!(contents.token(&key, now + Duration::from_secs(3400)).is_none(), "too little left");
        contents.set_account(account("a"));
        assert!(contents.token(&key, now).is_some(), "the same user again");
        contents.set_account(account("b"));
        assert!(contents.token(&key, now).is_none(), "another user's");
        assert!(contents.token("azure-cli x", now).is_some());
        for number in 0..100 {
            contents.set_token(format!("{number}"), &token("x", HOUR));
        }
        assert_eq!(contents.tokens.len(), TOKEN_LIMIT);
    }
}
