//! End-to-end tests: real programs, the emulator, and no way out of this machine.

#![cfg(unix)]

mod seed_page;
