//! Whether a file may be loaded: who can change it, and whether it is a plugin at all. Everything here is read from the
//! disk; nothing of the file runs. It leaves out loading (`table`).

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use object::{Architecture, Object, ObjectKind};

use crate::sys;

/// Why a file is not loaded as a plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// A relative path would depend on where the program was started.
    #[error("'{}' is not an absolute path", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// It can't be read.
    #[error("'{}' cannot be read: {reason}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A folder, a device, a pipe.
    #[error("'{}' is not a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It belongs to somebody who could change it.
    #[error("'{}' belongs to the user with id {owner}, neither to you nor to root", path.display())]
    Owner {
        /// The file, or a folder above it.
        path: PathBuf,
        /// The owner.
        owner: u32,
    },
    /// Others may change it.
    #[error("'{}' can be written by {by} (mode {mode:04o})", path.display())]
    Writable {
        /// The file, or a folder above it.
        path: PathBuf,
        /// Who.
        by: &'static str,
        /// Its mode.
        mode: u32,
    },
    /// Something else than a library of this system.
    #[error("it is not a library that this system loads: {reason}")]
    NotALibrary {
        /// What it is, or what is wrong with it.
        reason: String,
    },
    /// A library without the one symbol.
    #[error("it is a library, but no plugin: it does not export {SYMBOL}")]
    NoSymbol,
    /// The system's loader refuses it.
    #[error("the system does not load it: {reason}")]
    Unloadable {
        /// In the words of the system.
        reason: String,
    },
    /// Its own code does not come back.
    #[error("it did not finish loading within {seconds} s")]
    Endless {
        /// The limit.
        seconds: u64,
    },
    /// The symbol gives NULL.
    #[error("{SYMBOL} returned no table")]
    NoTable,
    /// Another generation.
    #[error("it was built for version {theirs} of the plugin interface; this program has version {ours}")]
    Version {
        /// The plugin's major number.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// Not even what the first version has.
    #[error("its table is too short: {size} bytes, where version 1.0 has {least}")]
    Short {
        /// What it says of itself.
        size: u32,
        /// What it has to be.
        least: usize,
    },
    /// It says not what it is called.
    #[error("its table holds no name")]
    NoName,
}

/// The one symbol that a plugin exports.
pub(super) const SYMBOL: &str = "bastide_plugin_v1";

/// A library's size in bytes: more than any that is meant to be one.
const MAX_SIZE: u64 = 256 * 1024 * 1024;

impl Unfit {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Unfit::Relative { .. } => "give the whole path, beginning with /".into(),
            Unfit::Unreadable { .. } | Unfit::NotAFile { .. } => {
                "check `path` of the plugin in the configuration".into()
            }
            Unfit::Owner { path, .. } => format!(
                "a plugin runs with all of your rights, so nobody else may be able to change it: copy it into a \
                 folder of yours, or chown '{}'",
                path.display()
            ),
            Unfit::Writable { path, .. } => format!(
                "a plugin runs with all of your rights, so nobody else may be able to change it: chmod go-w '{}'",
                path.display()
            ),
            Unfit::NotALibrary { .. } => "name the plugin's shared library, built for this system".into(),
            Unfit::NoSymbol => "name the plugin's own library; docs/plugins.md says how one is built".into(),
            Unfit::Unloadable { .. } => "install what it needs; `ldd` shows what is missing".into(),
            Unfit::Version { theirs, ours } if theirs > ours => "it needs a newer bastide".into(),
            Unfit::Version { .. } => "get a newer version of the plugin".into(),
            Unfit::Endless { .. } | Unfit::NoTable | Unfit::Short { .. } | Unfit::NoName => {
                "report this to the author of the plugin".into()
            }
        }
    }
}

/// The file behind `path`, without symbolic links, if nothing speaks against loading it.
///
/// # Errors
/// Every reason.
pub(super) fn check(path: &Path) -> Result<PathBuf, Vec<Unfit>> {
    if !path.is_absolute() {
        return Err(vec![Unfit::Relative { path: path.to_owned() }]);
    }
    // What is loaded later is what is checked here: a link on the way could lead somewhere else by then.
    let real = path.canonicalize().map_err(|error| vec![unreadable(path, &error)])?;
    let mut reasons = trust(&real);
    match bytes(&real) {
        Ok(bytes) => reasons.extend(contents(&bytes).err()),
        Err(reason) => reasons.push(reason),
    }
    if reasons.is_empty() { Ok(real) } else { Err(reasons) }
}

/// Whether nobody but this user and root can change the file or put another in its place. On systems without modes
/// nothing is checked.
///
/// # Errors
/// Every reason.
pub fn check_trust(path: &Path) -> Result<(), Vec<Unfit>> {
    let real = path.canonicalize().map_err(|error| vec![unreadable(path, &error)])?;
    let reasons = trust(&real);
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

fn trust(real: &Path) -> Vec<Unfit> {
    let mut reasons = Vec::new();
    for (above, place) in real.ancestors().enumerate() {
        match place.metadata() {
            Ok(metadata) => reasons.extend(strangers(place, &metadata, above)),
            Err(error) => reasons.push(unreadable(place, &error)),
        }
    }
    reasons
}

/// Who else could change the file itself (`above` = 0), its folder (1), or one further up.
fn strangers(place: &Path, metadata: &Metadata, above: usize) -> Vec<Unfit> {
    let Some((owner, mode)) = sys::owner_and_mode(metadata) else { return Vec::new() };
    let mut reasons = Vec::new();
    let path = || place.to_owned();
    if owner != 0 && owner != sys::user() {
        reasons.push(Unfit::Owner { path: path(), owner });
    }
    // In a sticky folder others cannot rename what is not theirs (chmod(1)), but they can put files beside the plugin,
    // where loaders may look for what it needs.
    let is_sticky = mode & STICKY != 0 && above > 1;
    if mode & OTHERS_WRITE != 0 && !is_sticky {
        reasons.push(Unfit::Writable { path: path(), by: "everybody", mode: mode & MODE });
    } else if mode & GROUP_WRITE != 0 && !is_sticky {
        reasons.push(Unfit::Writable { path: path(), by: "its group", mode: mode & MODE });
    }
    reasons
}

/// Mode bits (inode(7)).
const MODE: u32 = 0o7777;
const STICKY: u32 = 0o1000;
const GROUP_WRITE: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

fn bytes(path: &Path) -> Result<Vec<u8>, Unfit> {
    let metadata = path.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(Unfit::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > MAX_SIZE {
        return Err(Unfit::NotALibrary { reason: format!("it has {} bytes", metadata.len()) });
    }
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

/// Whether a loader would take it and find the symbol in it.
fn contents(bytes: &[u8]) -> Result<(), Unfit> {
    let malformed = |error: object::Error| Unfit::NotALibrary { reason: error.to_string().to_lowercase() };
    let slice = own_slice(bytes)?;
    let file = object::File::parse(slice).map_err(malformed)?;
    // PE libraries and programs differ by a flag that object counts as dynamic too.
    if !matches!(file.kind(), ObjectKind::Dynamic) {
        return Err(Unfit::NotALibrary { reason: "it is a program or an object file".into() });
    }
    if let (Some(own), theirs) = (own_architecture(), file.architecture())
        && own != theirs
    {
        return Err(Unfit::NotALibrary { reason: format!("it is for {theirs:?}, this program for {own:?}") });
    }
    let exports = file.exports().map_err(malformed)?;
    // Mach-O puts an underscore before C's names.
    let is_ours =
        |name: &[u8]| name == SYMBOL.as_bytes() || name.strip_prefix(b"_") == Some(SYMBOL.as_bytes());
    if exports.iter().any(|export| is_ours(export.name())) { Ok(()) } else { Err(Unfit::NoSymbol) }
}

/// The part of a universal file of macOS that is for this processor; other files are all of a piece.
fn own_slice(bytes: &[u8]) -> Result<&[u8], Unfit> {
    use object::read::macho::{FatArch, MachOFatFile32, MachOFatFile64};

    fn part<'a, A: FatArch>(arches: &[A], bytes: &'a [u8]) -> Result<&'a [u8], Unfit> {
        let own = arches.iter().find(|arch| Some(arch.architecture()) == own_architecture());
        let own =
            own.ok_or_else(|| Unfit::NotALibrary { reason: "it has no part for this processor".into() })?;
        own.data(bytes).map_err(|error| Unfit::NotALibrary { reason: error.to_string().to_lowercase() })
    }

    match object::FileKind::parse(bytes) {
        Ok(object::FileKind::MachOFat32) => match MachOFatFile32::parse(bytes) {
            Ok(fat) => part(fat.arches(), bytes),
            Err(error) => Err(Unfit::NotALibrary { reason: error.to_string().to_lowercase() }),
        },
        Ok(object::FileKind::MachOFat64) => match MachOFatFile64::parse(bytes) {
            Ok(fat) => part(fat.arches(), bytes),
            Err(error) => Err(Unfit::NotALibrary { reason: error.to_string().to_lowercase() }),
        },
        _ => Ok(bytes),
    }
}

/// This program's processor, where it is one that we know the name of.
fn own_architecture() -> Option<Architecture> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Architecture::X86_64),
        "aarch64" => Some(Architecture::Aarch64),
        "x86" => Some(Architecture::I386),
        "arm" => Some(Architecture::Arm),
        "riscv64" => Some(Architecture::Riscv64),
        _ => None,
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Unfit {
    Unfit::Unreadable { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn said(path: &Path) -> Vec<String> {
        match check(path) {
            Ok(_) => Vec::new(),
            Err(reasons) => reasons.iter().map(Unfit::to_string).collect(),
        }
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn every_reason_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("a"), folder.path().join("a/plugin.so"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "#!/bin/sh\necho it is a script\n").unwrap();
        mode(&file, 0o666);
        mode(&inner, 0o775);
        let real = inner.canonicalize().unwrap();
        assert_eq!(
            said(&file),
            [
                format!("'{}/plugin.so' can be written by everybody (mode 0666)", real.display()),
                format!("'{}' can be written by its group (mode 0775)", real.display()),
                "it is not a library that this system loads: unknown file magic".to_owned(),
            ]
        );
        // Others can put files into a sticky folder: not beside a plugin, but further up.
        mode(&file, 0o644);
        mode(&inner, 0o1777);
        assert_eq!(said(&file).len(), 2);
        mode(&inner, 0o755);
        mode(folder.path(), 0o1777);
        assert_eq!(said(&file).len(), 1);
    }

    #[test]
    fn what_is_no_library() {
        assert_eq!(said(Path::new("plugin.so")), ["'plugin.so' is not an absolute path"]);
        assert_eq!(
            said(Path::new("/nowhere/plugin.so")),
            ["'/nowhere/plugin.so' cannot be read: No such file or directory (os error 2)"]
        );
        let folder = tempfile::tempdir().unwrap();
        assert!(said(folder.path()).last().unwrap().ends_with("' is not a file"));
        // Any program of this system is an ELF or Mach-O file without the symbol.
        let program = std::env::current_exe().unwrap();
        let copy = folder.path().join("program");
        std::fs::copy(program, &copy).unwrap();
        mode(&copy, 0o755);
        let said = said(&copy);
        assert!(said.len() == 1 && said[0].starts_with("it is "), "{said:?}");
    }
}
