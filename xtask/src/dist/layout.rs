//! Files where they will be: what is written, archived or packaged, always in the same order, with the same owner, modes
//! and times. It leaves out which files there are.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// Files by their paths, which have `/` between names and none at the start.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout(BTreeMap<String, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    content: Content,
    mode: u32,
}

#[derive(Debug, Clone)]
enum Content {
    /// What this file has.
    Of(PathBuf),
    Bytes(Vec<u8>),
    Link(String),
}

/// Whoever installs it may change that; until then everybody can read it.
const READABLE: u32 = 0o644;
const EXECUTABLE: u32 = 0o755;

impl Layout {
    /// A program, which lies there now.
    pub(super) fn program(&mut self, path: impl Into<String>, from: &Path) {
        self.put(path, Content::Of(from.to_owned()), EXECUTABLE);
    }

    /// A file, which lies there now.
    pub(super) fn file(&mut self, path: impl Into<String>, from: &Path) {
        self.put(path, Content::Of(from.to_owned()), READABLE);
    }

    /// A file of these bytes.
    pub(super) fn text(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.put(path, Content::Bytes(bytes.into()), READABLE);
    }

    /// A program of these bytes.
    pub(super) fn script(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.put(path, Content::Bytes(bytes.into()), EXECUTABLE);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: impl Into<String>, to: &str) {
        self.put(path, Content::Link(to.to_owned()), 0o777);
    }

    fn put(&mut self, path: impl Into<String>, content: Content, mode: u32) {
        self.0.insert(path.into(), Entry { content, mode });
    }

    /// Every file of a folder and below whose name is wanted.
    pub(super) fn folder(&mut self, path: &str, from: &Path, is_wanted: fn(&str) -> bool) -> Result<()> {
        for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let place = format!("{path}/{name}");
            if entry.file_type()?.is_dir() {
                self.folder(&place, &entry.path(), is_wanted)?;
            } else if is_wanted(&name) {
                self.file(place, &entry.path());
            }
        }
        Ok(())
    }

    /// Everything of another one, below a folder.
    pub(super) fn below(&mut self, folder: &str, other: &Layout) {
        self.0.extend(other.0.iter().map(|(path, entry)| (format!("{folder}/{path}"), entry.clone())));
    }

    /// Paths and bytes of all but links.
    pub(super) fn files(&self) -> impl Iterator<Item = Result<(&str, Vec<u8>)>> {
        self.0
            .iter()
            .filter_map(|(path, entry)| Some(entry.bytes().transpose()?.map(|bytes| (path.as_str(), bytes))))
    }

    /// All folders, each behind the one that it is in.
    fn folders(&self) -> Vec<&str> {
        let mut folders: Vec<&str> = self
            .0
            .keys()
            .flat_map(|path| path.match_indices('/').filter_map(|(at, _)| path.get(..at)))
            .collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    /// Writes it into a folder, which is made. Everything there is as old as `epoch` says.
    pub(super) fn write(&self, folder: &Path, epoch: u64) -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch);
        let below = self.folders().into_iter().map(|path| folder.join(path));
        let folders: Vec<PathBuf> = std::iter::once(folder.to_owned()).chain(below).collect();
        for place in &folders {
            std::fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
            std::fs::set_permissions(place, Permissions::from_mode(EXECUTABLE))?;
        }
        for (path, entry) in &self.0 {
            let place = folder.join(path);
            let failed = || format!("cannot write {}", place.display());
            match &entry.content {
                Content::Link(to) => {
                    symlink(to, &place).with_context(failed)?;
                    continue;
                }
                Content::Of(from) => {
                    std::fs::copy(from, &place).with_context(|| format!("cannot copy {}", from.display()))?;
                }
                Content::Bytes(bytes) => std::fs::write(&place, bytes).with_context(failed)?,
            }
            std::fs::set_permissions(&place, Permissions::from_mode(entry.mode))?;
            File::open(&place)?.set_modified(time).with_context(failed)?;
        }
        // What is written into a folder makes it younger.
        for place in &folders {
            File::open(place)?.set_modified(time)?;
        }
        Ok(())
    }

    /// Writes it as a tar archive, in one folder.
    pub(super) fn archive(&self, top: &str, epoch: u64, to: impl Write) -> Result<()> {
        let mut archive = Builder::new(to);
        let header = |kind: EntryType, mode: u32, size: usize| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size as u64);
            header.set_mtime(epoch);
            header.set_uid(0);
            header.set_gid(0);
            header
        };
        for folder in std::iter::once("").chain(self.folders()) {
            let mut header = header(EntryType::Directory, EXECUTABLE, 0);
            archive.append_data(&mut header, format!("{top}/{folder}"), std::io::empty())?;
        }
        for (path, entry) in &self.0 {
            let path = format!("{top}/{path}");
            match (&entry.content, entry.bytes()?) {
                (Content::Link(to), _) => {
                    archive.append_link(&mut header(EntryType::Symlink, entry.mode, 0), path, to)?;
                }
                (_, bytes) => {
                    let bytes = bytes.unwrap_or_default();
                    let mut header = header(EntryType::Regular, entry.mode, bytes.len());
                    archive.append_data(&mut header, path, bytes.as_slice())?;
                }
            }
        }
        archive.into_inner()?.flush().context("cannot write the archive")
    }

    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

impl Entry {
    /// None for a link.
    fn bytes(&self) -> Result<Option<Vec<u8>>> {
        match &self.content {
            Content::Of(from) => {
                std::fs::read(from).map(Some).with_context(|| format!("cannot read {}", from.display()))
            }
            Content::Bytes(bytes) => Ok(Some(bytes.clone())),
            Content::Link(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_day_and_the_user_did_to_files_is_not_seen() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut made = Vec::new();
        for (name, mode) in [("a", 0o600), ("b", 0o777)] {
            let source = folder.path().join(name);
            std::fs::create_dir_all(source.join("doc"))?;
            for file in ["doc/one.md", "left-out", "two"] {
                std::fs::write(source.join(file), file)?;
                std::fs::set_permissions(source.join(file), Permissions::from_mode(mode))?;
            }
            let mut layout = Layout::default();
            layout.program("bin/two", &source.join("two"));
            layout.folder("share", &source, |name| name != "left-out")?;
            layout.link("bin/three", "two");
            layout.text("a", "text");
            let mut archive = Vec::new();
            layout.archive("top", 7, &mut archive)?;
            let written = folder.path().join(format!("{name}-written"));
            layout.write(&written, 7)?;
            let file = std::fs::metadata(written.join("share/doc/one.md"))?;
            assert_eq!(file.modified()?, SystemTime::UNIX_EPOCH + Duration::from_secs(7));
            assert_eq!(file.permissions().mode() & 0o7777, 0o644);
            assert_eq!(std::fs::metadata(written.join("bin/three"))?.permissions().mode() & 0o7777, 0o755);
            made.push((archive, layout.files().collect::<Result<Vec<_>>>()?.len()));
        }
        assert!(made[0] == made[1]);
        assert_eq!(made[0].1, 4);
        let mut names = Vec::new();
        for entry in tar::Archive::new(made[0].0.as_slice()).entries()? {
            names.push(String::from_utf8(entry?.path_bytes().into_owned())?);
        }
        let expected =
            ["top/", "top/bin", "top/share", "top/share/doc", "top/a", "top/bin/three", "top/bin/two"];
        assert_eq!(names[..7], expected);
        Ok(())
    }
}
