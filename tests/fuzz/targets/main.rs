//! Everything of bastide that reads bytes from outside, and what has to hold whatever they are. `cargo xtask fuzz`
//! builds it instrumented, names one target in `BASTIDE_FUZZ_TARGET` and lets libFuzzer find the bytes. A new target
//! is a function, a line in [`TARGETS`] and a folder of seeds; the doors into the crates are their `fuzzing` modules.

#![no_main]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is what the fuzzer looks for"
)]
#![expect(clippy::indexing_slicing, reason = "as above")]

mod frames;
mod http_answers;
mod judge;
mod service;
mod sign_in;
mod words;

use std::sync::LazyLock;

/// The targets by name. `cargo xtask fuzz` knows them by their folders in `seeds`.
const TARGETS: &[(&str, fn(&[u8]))] = &[
    // Crate relay.
    ("frames", frames::frames),
    ("session", bastide_relay::fuzzing::session),
    ("mint", service::mint),
    // Crate net.
    ("http", http_answers::http),
    // Crates arm and core.
    ("arm", service::arm),
    ("graph", service::graph),
    // Crate auth.
    ("entra", sign_in::entra),
    ("device_code", sign_in::device_code),
    ("token", sign_in::token),
    ("certificate", sign_in::certificate),
    ("agent", sign_in::agent),
    // Crates core and client.
    ("resource_id", words::resource_id),
    ("endpoint", words::endpoint),
];

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("BASTIDE_FUZZ_TARGET").expect("run by `cargo xtask fuzz`");
    TARGETS.iter().find(|(name, _)| *name == wanted).expect("a target of this name").1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
