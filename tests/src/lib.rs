//! What the end-to-end tests stand on: a [`Lab`] with an emulator and a home folder of its own, programs that can't
//! outlive their test, and a real [`Sshd`]. It leaves out the tests, which are in `tests/`.
//!
//! Every lab ends with a verdict: no rule of the protocol broken, no minted token left. A test that passes says
//! both.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails by panicking")]
#![cfg(unix)]

mod browser;
mod desktop;
mod lab;
mod postgres;
mod program;
mod python;
mod service;
mod sshd;
mod stranger;
mod tinyproxy;
mod tunnel;

pub use browser::Browser;
pub use desktop::{Desktop, Picture, Screen};
pub use lab::{GROUP, Lab, SUBSCRIPTION, binary, built, packages, plugin};
pub use postgres::Postgres;
pub use program::{Outcome, Program, Running};
pub use python::python;
pub use service::{Service, free_port};
pub use sshd::Sshd;
pub use stranger::Stranger;
pub use tinyproxy::Tinyproxy;
pub use tunnel::Tunnel;
