//! Text and places for answers, between C and Rust. It leaves out what they say.

use std::ffi::{CStr, CString, c_char};

use crate::error::Failure;

/// Text of ours for C; a NUL in it, which no message should have, becomes a space.
pub(crate) fn owned(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// The pointer for C, and NULL for none.
pub(crate) fn pointer(text: Option<&CStr>) -> *const c_char {
    text.map_or(std::ptr::null(), CStr::as_ptr)
}

/// Text of the caller's. `what` is what it is called in messages.
///
/// # Safety
/// `pointer` is NULL, or text that ends with NUL and stays as it is for `'a`.
pub(crate) unsafe fn given<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(Failure::misuse(format!("the {what} is NULL")));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Failure::misuse(format!("the {what} is not UTF-8")))
}

/// A place of the caller's for an answer, which is written once and last.
pub(crate) struct Place<T>(*mut T);

impl<T> Place<T> {
    /// # Safety
    /// `pointer` is NULL, or may be written to until the call returns.
    pub(crate) unsafe fn new(pointer: *mut T, what: &str) -> Result<Self, Failure> {
        if pointer.is_null() {
            return Err(Failure::misuse(format!("the place for the {what} is NULL")));
        }
        Ok(Self(pointer))
    }

    /// None where the caller does not want the answer.
    ///
    /// # Safety
    /// As [`Place::new`].
    pub(crate) unsafe fn if_wanted(pointer: *mut T) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(pointer))
    }

    pub(crate) fn put(self, value: T) {
        // SAFETY: whoever made this has promised that it may be written to. It may not be aligned, as a field of a
        // packed struct is not.
        unsafe { self.0.write_unaligned(value) };
    }
}
