//! The boundary that every function of the interface has around its body: what panics behind it becomes an error, and what
//! must not be called from a callback is not. It leaves out what the functions do.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::api::Error;
use crate::error::Failure;
use crate::handle;

/// Carries out a function that may fail: NULL is success.
pub(crate) fn fallible(body: impl FnOnce() -> Result<(), Failure>) -> *mut Error {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return std::ptr::null_mut(),
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::ours(format!("a fault of bastide itself: {}", said(&*panic))),
    };
    handle::insert(Arc::new(failure))
}

/// The same for one that may wait: from a callback, it would wait for itself.
pub(crate) fn waiting(body: impl FnOnce() -> Result<(), Failure>) -> *mut Error {
    fallible(|| {
        if is_called_back() {
            return Err(Failure::misuse("this function must not be called from a callback"));
        }
        body()
    })
}

/// Carries out a function that has no way to fail: `otherwise` is what it returns then.
pub(crate) fn infallible<T>(otherwise: T, body: impl FnOnce() -> Option<T>) -> T {
    catch_unwind(AssertUnwindSafe(body)).ok().flatten().unwrap_or(otherwise)
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&'static str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

thread_local! {
    static CALLED_BACK: Cell<bool> = const { Cell::new(false) };
}

/// Calls into the program that uses the library.
pub(crate) fn call_back<T>(call: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            CALLED_BACK.set(self.0);
        }
    }
    let _restore = Restore(CALLED_BACK.replace(true));
    call()
}

/// Whether this thread is in a callback.
pub(crate) fn is_called_back() -> bool {
    CALLED_BACK.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MISUSE;

    fn code(error: *mut Error) -> i32 {
        handle::remove::<Failure, _>(error).map_or(0, |failure| failure.code())
    }

    #[test]
    fn panics_are_errors_and_callbacks_do_not_wait() {
        assert_eq!(code(fallible(|| Ok(()))), 0);
        let panicked = fallible(|| panic!("over {}", "there"));
        let failure = handle::get::<Failure, _>(panicked).unwrap();
        assert_eq!((failure.code(), failure.message()), (1, "a fault of bastide itself: over there"));
        assert_eq!(code(panicked), 1);
        assert_eq!(infallible(7, || panic!("too")), 7);
        assert_eq!(code(call_back(|| waiting(|| Ok(())))), MISUSE);
        assert_eq!(code(call_back(|| fallible(|| Ok(())))), 0);
        assert_eq!(code(waiting(|| Ok(()))), 0);
    }
}
