//! bastide for C, and for everything that can call C: `libbastide` and `bastide.h`, which is generated from `api`. Here
//! is nothing but the way from C to the package `bastide` and back: handles, text, threads, errors. It adds no rule and
//! no behaviour.
//!
//! * A handle is a number that is looked up, not a pointer (`handle`): one that was freed, or never was one, is an error
//!   and no crash. After `fork` the child finds an empty table, and is told so.
//! * No panic and no unwinding gets into C (`guard`).
//! * What can wait is carried out by the client's own two threads, while the caller's thread waits for the answer: no
//!   signal and no stack of the caller's has to do with it (`client`).

// The contract of each function with its caller is its comment, which is the one in bastide.h.
#![expect(clippy::missing_safety_doc, reason = "bastide.h says once what holds for every pointer")]
#![expect(unsafe_code, reason = "C is spoken here")]

pub mod api;
mod callback;
mod client;
mod connection;
mod doctor;
mod error;
mod event;
mod guard;
mod handle;
mod keys;
mod log;
mod options;
mod place;
mod sign_in;
mod sys;
mod text;
mod tunnel;

pub use keys::{KEYS, Key, Scope};
