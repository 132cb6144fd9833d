//! End-to-end tests: real programs, the emulator, and no way out of this machine.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod aad;
mod aad_agent;
mod aad_files;
mod aad_sshd;
mod abuse;
mod bulk;
mod claims;
mod completions;
mod configuration;
mod contract;
mod device_code;
mod doctor;
mod exec;
mod faults;
mod host_keys;
mod hosts;
mod identity;
mod keyring;
mod keyvault;
mod ledger;
mod names;
mod openssh;
mod password;
mod plugins;
mod proxies;
mod proxy_command;
mod rdp;
mod rdp_desktop;
mod ready;
mod refusals;
mod secrets;
mod seed_page;
mod seed_tunnel;
mod sessions;
mod shared;
mod sign_in;
mod signals;
mod silence;
mod site;
mod snapshots;
mod ssh_config;
mod ssh_config_aad;
mod strangers;
mod terminal;
mod transfer;
mod up;
mod up_terminal;
