//! Loading a library and reading its table: versions and sizes. It leaves out whether the file may be loaded (`file`)
//! and calls (`worker`).

use std::ffi::CStr;
use std::fmt;
use std::mem::{MaybeUninit, offset_of};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bastide_plugin_abi::raw;

use super::file::{self, SYMBOL, Unfit};
/// A library that may be loaded as a plugin, and what it says of itself once it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFile {
    path: PathBuf,
    name: String,
    version: String,
}

impl PluginFile {
    /// Reads the file; nothing of it runs.
    ///
    /// # Errors
    /// Every reason why it is not loaded.
    pub(super) fn examine(path: &Path) -> Result<Self, Vec<Unfit>> {
        Ok(Self { path: file::check(path)?, name: String::new(), version: String::new() })
    }

    pub(super) fn described_by(self, table: &Table) -> Self {
        Self { name: table.name.clone(), version: version(table.raw.abi), ..self }
    }

    /// Where it is, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the plugin interface that it was built with.
    pub fn interface(&self) -> &str {
        &self.version
    }
}

/// A plugin's table: a copy, in which everything that a shorter table lacks is NULL.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) raw: raw::Plugin,
    pub(super) name: String,
}

/// What version 1.0 of the table has: never more, whatever is appended.
const LEAST: usize = offset_of!(raw::Plugin, sign) + size_of::<usize>();

/// A name is for messages.
const MAX_NAME: usize = 64;

impl Table {
    /// Copies the table behind a pointer.
    pub(super) fn of(table: *const raw::Plugin) -> Result<Self, Unfit> {
        if table.is_null() || !table.is_aligned() {
            return Err(Unfit::NoTable);
        }
        // SAFETY: not null, aligned, and by the contract a table, whose first two fields every version has. A library
        // that lies can do whatever it likes anyway: it runs in this process with all of its rights.
        let (abi, size) = unsafe { ((*table).abi, (*table).size) };
        let (theirs, ours) = (abi >> 16, raw::ABI >> 16);
        if theirs != ours {
            return Err(Unfit::Version { theirs, ours });
        }
        // 32 bits are no more than usize where there are plugins.
        let bytes = size as usize;
        if bytes < LEAST {
            return Err(Unfit::Short { size, least: LEAST });
        }
        // SAFETY: the table has so many bytes, and what it lacks is NULL or 0, which each field may be.
        let raw = unsafe { prefix(table, bytes) };
        if raw.name.is_null() {
            return Err(Unfit::NoName);
        }
        // SAFETY: by the contract a text that ends with NUL, and stays.
        let name = unsafe { CStr::from_ptr(raw.name) }.to_string_lossy();
        let name: String = name.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect();
        if name.is_empty() {
            return Err(Unfit::NoName);
        }
        Ok(Self { raw, name })
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Table").field(&self.name).finish()
    }
}

/// As many bytes of a struct as the other side has, and zeros behind them.
///
/// # Safety
/// `source` has `size` bytes, and zero is a value of each field of `T`.
pub(super) unsafe fn prefix<T: Copy>(source: *const T, size: usize) -> T {
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: both have that many bytes, and the copy is nobody else's.
    unsafe {
        std::ptr::copy_nonoverlapping(
            source.cast::<u8>(),
            copy.as_mut_ptr().cast::<u8>(),
            size.min(size_of::<T>()),
        );
        copy.assume_init()
    }
}

/// Loads the library on a thread that is left behind if its own code does not come back. What is loaded stays.
pub(super) fn load_within(file: &PluginFile, limit: Duration) -> Result<Table, Unfit> {
    let (done, loaded) = sync_channel(1);
    let path = file.path.clone();
    std::thread::Builder::new()
        .name("plugin loader".into())
        // Nobody may wait any more.
        .spawn(move || drop(done.send(load(&path))))
        .map_err(|error| Unfit::Unloadable { reason: error.to_string() })?;
    loaded.recv_timeout(limit).unwrap_or(Err(Unfit::Endless { seconds: limit.as_secs() }))
}

fn load(path: &Path) -> Result<Table, Unfit> {
    let unloadable = |error: libloading::Error| Unfit::Unloadable { reason: reason(&error) };
    // SAFETY: runs the library's own initialisers: the user has named it, and nobody else can have changed it.
    let library = unsafe { library(path) }.map_err(unloadable)?;
    // SAFETY: the symbol has this type by the contract.
    let symbol = unsafe { library.get::<unsafe extern "C" fn() -> *const raw::Plugin>(SYMBOL.as_bytes()) };
    let table = match symbol {
        // SAFETY: by the contract it may be called on any thread, and the library stays loaded.
        Ok(symbol) => Table::of(unsafe { symbol() }),
        Err(_) => Err(Unfit::NoSymbol),
    };
    // Its threads may run for ever, so its code has to stay.
    std::mem::forget(library);
    table
}

/// Looks up everything that the library needs now: a function that is missing would end the process when it is called.
///
/// # Safety
/// Runs the library's initialisers.
#[cfg(unix)]
unsafe fn library(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

    // SAFETY: as this function's.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into)
}

/// Windows looks everything up by itself.
///
/// # Safety
/// Runs the library's initialisers.
#[cfg(not(unix))]
unsafe fn library(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: as this function's.
    unsafe { libloading::Library::new(path) }
}

/// What the system says, which libloading keeps as the source.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn version(abi: u32) -> String {
    format!("{}.{}", abi >> 16, abi & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: raw::Plugin = raw::Plugin {
        abi: 0x0001_0000,
        size: size_of::<raw::Plugin>() as u32,
        name: c"good".as_ptr(),
        open: None,
        close: None,
        access_token: None,
        sign_in: None,
        sign: None,
    };

    #[test]
    fn versions_and_sizes_are_negotiated() {
        let check = |table: raw::Plugin, expected: Result<&str, &str>| {
            let name = Table::of(&raw const table).map(|table| table.name).map_err(|unfit| unfit.to_string());
            assert_eq!(name.as_deref().map_err(String::as_str), expected);
        };
        check(GOOD, Ok("good"));
        check(raw::Plugin { abi: 0x0001_0007, ..GOOD }, Ok("good"));
        check(
            raw::Plugin { abi: 0x0002_0000, ..GOOD },
            Err("it was built for version 2 of the plugin interface; this program has version 1"),
        );
        check(
            raw::Plugin { size: 16, ..GOOD },
            Err("its table is too short: 16 bytes, where version 1.0 has 56"),
        );
        check(raw::Plugin { name: std::ptr::null(), ..GOOD }, Err("its table holds no name"));
        check(raw::Plugin { name: c"".as_ptr(), ..GOOD }, Err("its table holds no name"));
        let none = Table::of(std::ptr::null()).map(|table| table.name).map_err(|unfit| unfit.to_string());
        assert_eq!(none, Err("bastide_plugin_v1 returned no table".into()));
    }

    #[test]
    fn a_longer_table_is_read_as_far_as_we_know_it() {
        #[repr(C)]
        struct Longer {
            known: raw::Plugin,
            later: [u64; 4],
        }
        let longer = Longer {
            known: raw::Plugin { size: size_of::<Longer>() as u32, ..GOOD },
            later: [u64::MAX; 4],
        };
        assert_eq!(Table::of(&raw const longer.known).unwrap().name, "good");
    }
}
