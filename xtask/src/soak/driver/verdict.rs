//! What went wrong and how much went right, told by all who take part.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by everybody.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    faults: Mutex<Vec<String>>,
    count: AtomicU64,
    carried: AtomicU64,
    pub(crate) complete: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) vanished: AtomicU64,
}

/// Faults that are kept in words.
const MOST_WORDS: usize = 20;

impl Verdict {
    /// Something that must not be.
    pub(crate) fn fail(&self, what: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < MOST_WORDS {
            println!("  WRONG: {what}");
            faults.push(what);
        }
    }

    /// How much must not have been, and the first of it.
    pub(crate) fn faults(&self) -> (u64, Vec<String>) {
        let words = self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.count.load(Ordering::Relaxed), words)
    }

    /// Bytes that came as they were sent.
    pub(crate) fn carried(&self, bytes: usize) {
        self.carried.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn summary(&self) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} whole, {} cut, {} vanished, {} MiB checked",
            load(&self.complete),
            load(&self.cut),
            load(&self.vanished),
            load(&self.carried) >> 20
        )
    }
}
