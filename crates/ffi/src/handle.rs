//! Handles: what C holds in place of pointers. A handle is a number that stands in a table, so that one that was freed,
//! one of another kind, and one that a forked child has inherited can be told from a good one. It leaves out what the
//! handles stand for.

use std::any::Any;
use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Failure;

/// Something that C can hold a handle of.
pub(crate) trait Thing: Any + Send + Sync {
    /// What it is called in messages.
    const KIND: &'static str;
}

/// A handle of `T`, as `bastide.h` declares it: `C` is the opaque type of its pointer.
pub(crate) fn insert<T: Thing, C>(thing: Arc<T>) -> *mut C {
    let table = Table::current();
    let number = NEXT.fetch_add(STEP, Ordering::Relaxed);
    table.entries().insert(number, Entry { kind: T::KIND, thing });
    ptr::without_provenance_mut(number)
}

/// What a handle stands for; it lives on when the handle is freed meanwhile.
pub(crate) fn get<T: Thing, C>(handle: *const C) -> Result<Arc<T>, Failure> {
    let number = check::<T>(handle.addr())?;
    let entries = Table::current().entries();
    let entry = entries.get(&number).ok_or_else(|| gone(T::KIND))?;
    Arc::clone(&entry.thing).downcast().map_err(|_| Failure::misuse(mixed_up(T::KIND, entry.kind)))
}

/// Forgets a handle, and returns what it stood for. None for `NULL`, and for what is no good handle.
pub(crate) fn remove<T: Thing, C>(handle: *mut C) -> Option<Arc<T>> {
    let number = check::<T>(handle.addr()).ok()?;
    let mut entries = Table::current().entries();
    entries.get(&number).filter(|entry| entry.thing.is::<T>())?;
    entries.remove(&number)?.thing.downcast().ok()
}

/// Numbers are odd, so that none is the address of anything, and none comes twice.
static NEXT: AtomicUsize = AtomicUsize::new(1);
const STEP: usize = 2;

/// The table of this process; a forked child makes its own, for the lock of its parent's may be held for ever.
static CURRENT: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());

struct Table {
    process: u32,
    /// Numbers below this one are of the process that this one was forked from.
    first: usize,
    entries: Mutex<BTreeMap<usize, Entry>>,
}

struct Entry {
    kind: &'static str,
    thing: Arc<dyn Any + Send + Sync>,
}

impl Table {
    fn current() -> &'static Self {
        let process = std::process::id();
        let current = CURRENT.load(Ordering::Acquire);
        // SAFETY: it is NULL or comes from `Box::into_raw` below, and is never freed.
        if let Some(table) = unsafe { current.as_ref() }
            && table.process == process
        {
            return table;
        }
        let first = NEXT.load(Ordering::Relaxed);
        let fresh = Box::into_raw(Box::new(Self { process, first, entries: Mutex::default() }));
        match CURRENT.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: both come from `Box::into_raw`; what is in `CURRENT` is never freed. The parent's table stays
            // where it is, with everything in it: none of its threads are here to be waited for.
            Ok(_) => unsafe { &*fresh },
            Err(winner) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as above.
                unsafe { &*winner }
            }
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Entry>> {
        // No code of ours panics while it has the lock, and the table is good between any two steps.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check<T: Thing>(number: usize) -> Result<usize, Failure> {
    if number == 0 {
        return Err(Failure::misuse(format!("the {} handle is NULL", T::KIND)));
    }
    if number < Table::current().first && number % STEP == 1 {
        return Err(Failure::forked(T::KIND));
    }
    Ok(number)
}

fn gone(kind: &str) -> Failure {
    Failure::misuse(format!("the {kind} handle was freed before, or never was one"))
}

fn mixed_up(kind: &str, found: &str) -> String {
    format!("the {kind} handle is one of another kind: {found}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MISUSE;

    struct One(u8);
    impl Thing for One {
        const KIND: &'static str = "one";
    }
    struct Other;
    impl Thing for Other {
        const KIND: &'static str = "other";
    }

    #[test]
    fn only_good_handles_lead_anywhere() {
        let handle: *mut u64 = insert(Arc::new(One(7)));
        let other: *mut u64 = insert(Arc::new(Other));
        assert_eq!(get::<One, _>(handle).unwrap().0, 7);
        let check = |handle: *mut u64, message: &str| {
            let failure = get::<One, _>(handle).err().unwrap();
            assert_eq!((failure.code(), failure.message()), (MISUSE, message));
        };
        check(ptr::null_mut(), "the one handle is NULL");
        check(other, "the one handle is one of another kind: other");
        check(
            ptr::without_provenance_mut(0x7fff_1234_5678),
            "the one handle was freed before, or never was one",
        );
        assert!(remove::<Other, _>(handle).is_none(), "another kind's is not freed");
        let held = get::<One, _>(handle).unwrap();
        assert!(remove::<One, _>(handle).is_some());
        assert!(remove::<One, _>(handle).is_none(), "twice");
        check(handle, "the one handle was freed before, or never was one");
        assert_eq!(held.0, 7);
        assert!(remove::<Other, _>(other).is_some());
    }
}
