//! Which library this is. It leaves out what it can do.

use std::ffi::c_char;

/// The version of the library, such as `0.1.0`. It never fails, and nobody frees the text.
#[unsafe(no_mangle)]
pub extern "C" fn bastide_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
