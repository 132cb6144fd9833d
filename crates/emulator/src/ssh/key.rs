//! Key files: the server's own key, made when it is missing, and key pairs for clients.
//!
//! Keys are Ed25519 in OpenSSH's format (PROTOCOL.key), without a passphrase: they belong to a laptop's
//! emulator. Who may sign in with which key is decided in `sign_in`.

use std::fs;
use std::io::{self, Write as _};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::{Algorithm, LineEnding};

use super::Error;

/// Writes a new Ed25519 key pair: the private key to `path` (mode 0600), the public one to `path` with
/// `.pub` added. Both replace what is there, each atomically.
///
/// # Errors
/// A file cannot be written.
pub fn generate_client_key(path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    let key = new_key()?;
    write(path, private_text(&key)?.as_bytes(), Existing::Replace)?;
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let line = public_line(&key)? + "\n";
    write(Path::new(&public), line.as_bytes(), Existing::Replace)
}

/// The key in `path`, made there when the file is missing. Of several processes that make it at the same
/// time one wins, and all return its key.
pub(super) fn host_key(path: &Path) -> Result<PrivateKey, Error> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    let text = private_text(&new_key()?)?;
    match write(path, text.as_bytes(), Existing::Keep) {
        Err(Error::WriteKey { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
        written => written?,
    }
    read(path)?.ok_or_else(|| Error::ReadKey { path: path.into(), source: io::ErrorKind::NotFound.into() })
}

/// One line as in `known_hosts` and `authorized_keys`: type, base64, no line end.
pub(super) fn public_line(key: &PrivateKey) -> Result<String, Error> {
    key.public_key().to_openssh().map_err(Error::EncodeKey)
}

fn new_key() -> Result<PrivateKey, Error> {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(Error::EncodeKey)
}

fn private_text(key: &PrivateKey) -> Result<impl Deref<Target = String> + use<>, Error> {
    key.to_openssh(LineEnding::LF).map_err(Error::EncodeKey)
}

fn read(path: &Path) -> Result<Option<PrivateKey>, Error> {
    match fs::read(path) {
        Ok(text) => PrivateKey::from_openssh(text)
            .map(Some)
            .map_err(|source| Error::ParseKey { path: path.into(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::ReadKey { path: path.into(), source }),
    }
}

/// What to do with a file that is already there.
enum Existing {
    Keep,
    Replace,
}

/// Writes by way of a temporary file of mode 0600 in the same folder: nobody ever sees half a key.
fn write(path: &Path, content: &[u8], existing: Existing) -> Result<(), Error> {
    let failed = |source| Error::WriteKey { path: PathBuf::from(path), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    let persisted = match existing {
        Existing::Keep => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    persisted.map(drop).map_err(|error| failed(error.error))
}

#[cfg(test)]
mod tests {
    use super::{generate_client_key, host_key, public_line};

    #[test]
    fn a_host_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host_key");
        let first = public_line(&host_key(&path).unwrap()).unwrap();
        assert!(first.starts_with("ssh-ed25519 AAAA"), "{first}");
        assert_eq!(public_line(&host_key(&path).unwrap()).unwrap(), first);
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_private() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        for (path, write) in [("host", false), ("client", true)].map(|(n, w)| (folder.path().join(n), w)) {
            if write {
                generate_client_key(&path).unwrap();
            } else {
                drop(host_key(&path).unwrap());
            }
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        }
        assert!(folder.path().join("client.pub").exists());
    }
}
