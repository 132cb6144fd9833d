//! The library as others use it: programs in C, C++ and Python, compiled and run against an installation of it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod contract;
mod examples;
mod kit;
mod languages;
mod load;
mod memory;
mod process;
mod python;
mod rust;
