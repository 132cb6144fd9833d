//! Windows: access lists of the user's own folders take the place of modes, and there is no limit of descriptors.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a file; the folder that it is in belongs to its user.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Makes a folder, and those above it.
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Open files and sockets that this process may have: no limit is known.
pub(crate) fn descriptor_limit() -> Option<u64> {
    None
}

/// Whether the other end has sent something that was not read: not to be told without reading, so yes.
pub(crate) fn has_unread<S>(_: &S) -> bool {
    true
}
