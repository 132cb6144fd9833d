//! The `sftp` subsystem: version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's usual extensions.
//!
//! The user's home is the root of all that it shows: `/` is the home, `..` stops there, and a link that
//! leads out is not followed, which `cap-std` has the kernel enforce. Names are UTF-8. Owners cannot be
//! changed, and nothing is synchronised to disk unless `fsync@openssh.com` asks for it.

use std::collections::HashMap;
use std::fs::{File, FileTimes};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions};
use russh::ChannelWriteHalf;
use russh::server::Msg;
use russh_sftp::extensions::{
    EXPAND_PATH, ExpandPathExtension, FSYNC, FsyncExtension, HARDLINK, HardlinkExtension, LIMITS,
    LimitsExtension,
};
use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File as Entry, FileAttributes, Handle, Name, OpenFlags, Packet, Status,
    StatusCode, Version,
};
use russh_sftp::server::{Config, Handler, StatusReply, run_with_config};
use russh_sftp::{de, ser};
use tokio::task::spawn_blocking;

use super::inbox::Inbound;
use super::leash::leash;
use super::sys;

/// Opens the folder that becomes the root of an sftp session.
///
/// # Errors
/// The folder is missing or unreadable.
pub(super) fn open_home(path: &Path) -> io::Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority())
}

/// Serves `home` on a channel until the client ends it.
pub(super) async fn serve(home: Arc<Dir>, inbound: Inbound, outbound: ChannelWriteHalf<Msg>) {
    let Inbound { data, closed, .. } = inbound;
    let (stream, mut held) = leash(tokio::io::join(data, outbound.make_writer()));
    let config = Config { max_client_packet_len: MAX_PACKET };
    run_with_config(stream, Session { home, open: HashMap::new(), next_handle: 0 }, config).await;
    tokio::select! {
        () = closed.cancelled() => held.cut().await,
        () = held.released() => {
            // These fail only when the connection has ended. OpenSSH's server exits with 0 too.
            _ = outbound.exit_status(0).await;
            _ = outbound.eof().await;
            _ = outbound.close().await;
        }
    }
}

struct Session {
    home: Arc<Dir>,
    open: HashMap<String, Open>,
    next_handle: u64,
}

enum Open {
    File(Arc<File>),
    Folder(std::vec::IntoIter<Entry>),
}

type Reply<T> = Result<T, StatusReply>;

impl Handler for Session {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.into()
    }

    async fn init(&mut self, _version: u32, _extensions: HashMap<String, String>) -> Reply<Version> {
        let mut version = Version::new();
        for name in [LIMITS, POSIX_RENAME, HARDLINK, FSYNC, EXPAND_PATH] {
            version.extensions.insert(name.into(), "1".into());
        }
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        flags: OpenFlags,
        attributes: FileAttributes,
    ) -> Reply<Handle> {
        self.may_open()?;
        let file = self.on_home(&filename, move |home, path| {
            // Opening a named pipe would wait for its other end.
            if home.metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
                return Err(io::Error::other("not a regular file"));
            }
            let mut options = OpenOptions::new();
            options
                .read(flags.contains(OpenFlags::READ))
                .write(flags.contains(OpenFlags::WRITE))
                .append(flags.contains(OpenFlags::APPEND))
                .truncate(flags.contains(OpenFlags::TRUNCATE))
                .create(flags.contains(OpenFlags::CREATE))
                .create_new(flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUDE));
            if let Some(mode) = attributes.permissions {
                sys::request_mode(&mut options, mode);
            }
            Ok(home.open_with(path, &options)?.into_std())
        });
        let file = file.await?;
        Ok(self.remember(id, Open::File(Arc::new(file))))
    }

    async fn close(&mut self, id: u32, handle: String) -> Reply<Status> {
        self.open.remove(&handle).ok_or_else(unknown_handle)?;
        Ok(done(id))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, length: u32) -> Reply<Data> {
        let file = self.file(&handle)?;
        let length = length.min(MAX_DATA);
        let data = blocking(move || {
            // 32 bits fit into a usize wherever tokio runs.
            let mut data = vec![0; length as usize];
            let read = sys::read_at(&file, &mut data, offset)?;
            data.truncate(read);
            Ok(data)
        });
        let data = data.await?;
        if data.is_empty() && length > 0 { Err(StatusCode::Eof.into()) } else { Ok(Data { id, data }) }
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Reply<Status> {
        let file = self.file(&handle)?;
        blocking(move || sys::write_at(&file, &data, offset)).await?;
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Reply<Attrs> {
        let metadata = self.on_home(&path, |home, path| home.symlink_metadata(path)).await?;
        Ok(Attrs { id, attrs: sys::attributes(&metadata) })
    }

    async fn stat(&mut self, id: u32, path: String) -> Reply<Attrs> {
        let metadata = self.on_home(&path, |home, path| home.metadata(path)).await?;
        Ok(Attrs { id, attrs: sys::attributes(&metadata) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Reply<Attrs> {
        let file = self.file(&handle)?;
        let metadata = blocking(move || Metadata::from_file(&file)).await?;
        Ok(Attrs { id, attrs: sys::attributes(&metadata) })
    }

    async fn setstat(&mut self, id: u32, path: String, attributes: FileAttributes) -> Reply<Status> {
        self.on_home(&path, move |home, path| {
            // First what needs the file open, for the new mode may forbid just that.
            if attributes.size.is_some() || attributes.mtime.is_some() {
                let mut options = OpenOptions::new();
                options.write(attributes.size.is_some()).read(attributes.size.is_none());
                change(&home.open_with(path, &options)?.into_std(), &attributes)?;
            }
            set_mode(home, path, &attributes)
        })
        .await?;
        Ok(done(id))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attributes: FileAttributes) -> Reply<Status> {
        let file = self.file(&handle)?;
        blocking(move || {
            change(&file, &attributes)?;
            if let Some(mode) = attributes.permissions {
                let mut permissions = Metadata::from_file(&file)?.permissions();
                sys::apply_mode(&mut permissions, mode);
                file.set_permissions(permissions.into_std(&file)?)?;
            }
            Ok(())
        })
        .await?;
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Reply<Handle> {
        self.may_open()?;
        let entries = self.on_home(&path, |home, path| {
            let entry = |entry: io::Result<cap_std::fs::DirEntry>| {
                let entry = entry?;
                // A file that was removed since keeps its name, as in a listing made a moment ago.
                let attributes = entry.metadata().map(|metadata| sys::attributes(&metadata));
                Ok(Entry::new(entry.file_name().to_string_lossy(), attributes.unwrap_or_default()))
            };
            home.read_dir(path)?.map(entry).collect::<io::Result<Vec<_>>>()
        });
        let entries = entries.await?;
        Ok(self.remember(id, Open::Folder(entries.into_iter())))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Reply<Name> {
        let Some(Open::Folder(entries)) = self.open.get_mut(&handle) else { return Err(unknown_handle()) };
        let files: Vec<_> = entries.take(ENTRIES_PER_REPLY).collect();
        if files.is_empty() { Err(StatusCode::Eof.into()) } else { Ok(Name { id, files }) }
    }

    async fn remove(&mut self, id: u32, filename: String) -> Reply<Status> {
        self.on_home(&filename, |home, path| home.remove_file(path)).await?;
        Ok(done(id))
    }

    async fn mkdir(&mut self, id: u32, path: String, attributes: FileAttributes) -> Reply<Status> {
        self.on_home(&path, move |home, path| {
            home.create_dir(path)?;
            set_mode(home, path, &attributes)
        })
        .await?;
        Ok(done(id))
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Reply<Status> {
        self.on_home(&path, |home, path| home.remove_dir(path)).await?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Reply<Name> {
        let absolute = self.on_home(&path, |home, path| {
            Ok(match home.canonicalize(path) {
                // What does not exist yet has a path too: OpenSSH's clients ask before they create.
                Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
                found => found?,
            })
        });
        Ok(Name { id, files: vec![Entry::dummy(shown(&absolute.await?))] })
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Reply<Status> {
        let to = rooted(&to);
        self.on_home(&from, move |home, from| {
            // Version 3 never replaces a file; POSIX_RENAME does.
            match home.symlink_metadata(&to) {
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(_) => home.rename(from, home, &to),
            }
        })
        .await?;
        Ok(done(id))
    }

    async fn readlink(&mut self, id: u32, path: String) -> Reply<Name> {
        let target = self.on_home(&path, |home, path| home.read_link_contents(path)).await?;
        Ok(Name { id, files: vec![Entry::dummy(target.to_string_lossy())] })
    }

    /// OpenSSH sends the two paths in the other order than the draft (its PROTOCOL, section 4.1), and so
    /// does everybody else by now.
    async fn symlink(&mut self, id: u32, target: String, link: String) -> Reply<Status> {
        self.on_home(&link, move |home, link| home.symlink(target, link)).await?;
        Ok(done(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Reply<Packet> {
        match request.as_str() {
            LIMITS => {
                let limits = LimitsExtension {
                    max_packet_len: MAX_PACKET.into(),
                    max_read_len: MAX_DATA.into(),
                    max_write_len: MAX_DATA.into(),
                    max_open_handles: MAX_HANDLES as u64,
                };
                let data = ser::to_bytes(&limits).map_err(|_| StatusReply::from(StatusCode::Failure))?;
                Ok(Packet::ExtendedReply(ExtendedReply { id, data: data.to_vec() }))
            }
            POSIX_RENAME => {
                let paths: HardlinkExtension = arguments(data)?;
                let to = rooted(&paths.newpath);
                self.on_home(&paths.oldpath, move |home, from| home.rename(from, home, &to)).await?;
                Ok(done(id).into())
            }
            HARDLINK => {
                let paths: HardlinkExtension = arguments(data)?;
                let new = rooted(&paths.newpath);
                self.on_home(&paths.oldpath, move |home, old| home.hard_link(old, home, &new)).await?;
                Ok(done(id).into())
            }
            FSYNC => {
                let file = self.file(&arguments::<FsyncExtension>(data)?.handle)?;
                blocking(move || file.sync_all()).await?;
                Ok(done(id).into())
            }
            EXPAND_PATH => {
                let path = arguments::<ExpandPathExtension>(data)?.path;
                // `~` is the home, which is the root; another user's home does not exist.
                let path = path.strip_prefix('~').map_or(path.as_str(), |rest| rest);
                self.realpath(id, path.into()).await.map(Packet::from)
            }
            _ => Err(self.unimplemented()),
        }
    }
}

impl Session {
    /// Runs a file operation, which may wait for a disk, on a thread that may.
    async fn on_home<T: Send + 'static>(
        &self,
        path: &str,
        operation: impl FnOnce(&Dir, &Path) -> io::Result<T> + Send + 'static,
    ) -> Reply<T> {
        let (home, path) = (Arc::clone(&self.home), rooted(path));
        blocking(move || operation(&home, &path)).await
    }

    fn file(&self, handle: &str) -> Reply<Arc<File>> {
        match self.open.get(handle) {
            Some(Open::File(file)) => Ok(Arc::clone(file)),
            _ => Err(unknown_handle()),
        }
    }

    fn may_open(&self) -> Reply<()> {
        if self.open.len() < MAX_HANDLES {
            return Ok(());
        }
        Err(StatusCode::Failure.with_message("too many open files"))
    }

    fn remember(&mut self, id: u32, open: Open) -> Handle {
        let handle = self.next_handle.to_string();
        self.next_handle = self.next_handle.wrapping_add(1);
        self.open.insert(handle.clone(), open);
        Handle { id, handle }
    }
}

/// The client's `path` relative to the home: cleaned as text, `..` stopping at the root.
fn rooted(path: &str) -> PathBuf {
    let mut rooted = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => rooted.push(name),
            Component::ParentDir => _ = rooted.pop(),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    if rooted.as_os_str().is_empty() { ".".into() } else { rooted }
}

/// A path relative to the home as the client sees it.
fn shown(path: &Path) -> String {
    let names = path.iter().filter(|name| *name != ".").map(|name| name.to_string_lossy());
    format!("/{}", names.collect::<Vec<_>>().join("/"))
}

/// The mode of a file or folder, where one is given.
fn set_mode(home: &Dir, path: &Path, attributes: &FileAttributes) -> io::Result<()> {
    let Some(mode) = attributes.permissions else { return Ok(()) };
    let mut permissions = home.metadata(path)?.permissions();
    sys::apply_mode(&mut permissions, mode);
    home.set_permissions(path, permissions)
}

/// Size and times; the mode is the callers' business.
fn change(file: &File, attributes: &FileAttributes) -> io::Result<()> {
    if let Some(size) = attributes.size {
        file.set_len(size)?;
    }
    // Version 3 has both times or neither.
    if let (Some(accessed), Some(modified)) = (attributes.atime, attributes.mtime) {
        let time = |seconds: u32| UNIX_EPOCH + Duration::from_secs(seconds.into());
        file.set_times(FileTimes::new().set_accessed(time(accessed)).set_modified(time(modified)))?;
    }
    if attributes.uid.is_some() || attributes.gid.is_some() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

fn arguments<T: serde::de::DeserializeOwned>(data: Vec<u8>) -> Reply<T> {
    de::from_bytes(&mut Bytes::from(data)).map_err(|_| StatusCode::BadMessage.into())
}

async fn blocking<T: Send + 'static>(operation: impl FnOnce() -> io::Result<T> + Send + 'static) -> Reply<T> {
    let result = spawn_blocking(operation).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    result.map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => StatusCode::NoSuchFile,
            io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
            io::ErrorKind::Unsupported => StatusCode::OpUnsupported,
            _ => StatusCode::Failure,
        };
        code.with_message(error.to_string())
    })
}

fn done(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: StatusCode::Ok.to_string(),
        language_tag: String::new(),
    }
}

fn unknown_handle() -> StatusReply {
    StatusCode::Failure.with_message("unknown handle")
}

/// OpenSSH's PROTOCOL, section 4.3; `russh-sftp` has no name for it.
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// `SFTP_MAX_MSG_LENGTH` of OpenSSH, in bytes, which is also the default of `russh-sftp`.
const MAX_PACKET: u32 = 256 << 10;

/// OpenSSH leaves 1,024 bytes of a packet for everything but the data (sftp-server.c, `limits`).
const MAX_DATA: u32 = MAX_PACKET - 1024;

/// Files and folders that one session may have open. Our choice: below the usual limit of 1,024
/// descriptors (getrlimit(2)), which all sessions share.
const MAX_HANDLES: usize = 128;

/// Names in one answer, as in OpenSSH's sftp-server.c (`process_readdir`).
const ENTRIES_PER_REPLY: usize = 100;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{rooted, shown};

    #[test]
    fn paths_stay_below_the_root() {
        for (path, cleaned, seen) in [
            ("", ".", "/"),
            (".", ".", "/"),
            ("/", ".", "/"),
            ("/..", ".", "/"),
            ("../../etc/passwd", "etc/passwd", "/etc/passwd"),
            ("/a/./b//c/", "a/b/c", "/a/b/c"),
            ("a/../../b", "b", "/b"),
        ] {
            assert_eq!(rooted(path), Path::new(cleaned), "{path}");
            assert_eq!(shown(&rooted(path)), seen, "{path}");
        }
    }
}
