//! The interface as C sees it: what `bastide.h` is generated from, so that comments here are read by those who write C.
//! Each function checks what it is given and hands over; what it does is one level up.

mod client;
mod connection;
mod doctor;
mod error;
mod event;
mod options;
mod tunnel;
mod version;

pub use client::*;
pub use connection::*;
pub use doctor::*;
pub use error::*;
pub use event::*;
pub use options::*;
pub use tunnel::*;
pub use version::*;
