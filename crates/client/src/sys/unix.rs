//! Unix sockets that only their owner can connect to, and whose file goes away with them; what is still to be had from
//! the other end of a connection; files and folders of one user; the limit of descriptors.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{RecvFlags, recv};
use rustix::process::{Resource, getrlimit};
use tokio::net::{UnixListener, UnixStream};

/// A listening Unix socket, of mode 0600 where it is our own.
#[derive(Debug)]
pub(crate) struct OwnedSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Whose file it is.
    file: SocketFile,
}

#[derive(Debug, PartialEq, Eq)]
enum SocketFile {
    Ours,
    Others,
}

impl OwnedSocket {
    /// Binds `path`. A socket that nobody listens on any more, as a crash leaves it, is replaced; anything else
    /// that is there is an error.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            result => result?,
        };
        let socket = Self { listener, path: path.to_owned(), file: SocketFile::Ours };
        // Linux checks the file's mode at every connect. Until this line the umask alone guards it, and nobody
        // accepts before it.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(socket)
    }

    /// One that somebody else has bound. Must be called within a runtime.
    pub(crate) fn inherited(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        let path = listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path, file: SocketFile::Others })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

/// Whether the other end has sent something that was not read.
pub(crate) fn has_unread(stream: impl AsFd) -> bool {
    let mut byte = [0];
    recv(stream, byte.as_mut_slice(), RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(_, count)| count > 0)
}

/// Makes a file that only its owner can read.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a folder, and those above it, that only their owner can enter.
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Open files and sockets that this process may have (getrlimit(2), `RLIMIT_NOFILE`); none: any number.
pub(crate) fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        if self.file == SocketFile::Others {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_connect_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let socket = OwnedSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(OwnedSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_crash_left_is_replaced_but_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(OwnedSocket::bind(&path).unwrap());
        fs::write(&path, "mine").unwrap();
        assert!(OwnedSocket::bind(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
