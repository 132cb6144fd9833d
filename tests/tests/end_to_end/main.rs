//! End-to-end tests: real programs, the emulator, and no way out of this machine.

#![cfg(unix)]

mod bulk;
mod contract;
mod host_keys;
mod openssh;
mod proxy_command;
mod refusals;
mod seed_page;
mod seed_tunnel;
mod shared;
mod signals;
mod site;
mod terminal;
