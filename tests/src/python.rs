//! Programs of the Python environment that `cargo xtask test` makes. It leaves out what is in it
//! (`tests/python-requirements.txt`).

use std::path::PathBuf;

/// A program of it, such as `ansible` or `python3`.
pub fn python(name: &str) -> PathBuf {
    let path = crate::lab::target().join("python/bin").join(name);
    assert!(path.exists(), "{} is missing: `cargo xtask test` installs it first", path.display());
    path
}
