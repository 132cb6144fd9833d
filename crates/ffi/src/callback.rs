//! A function of the program that uses the library, with what it wants to be given, and who is told when it will not be
//! called again. It leaves out what the functions are for.

use std::ffi::c_void;
use std::sync::Arc;

/// A function with its context, which is finalized when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Callback<F> {
    function: F,
    context: Arc<Context>,
}

/// What a function wants to be given.
struct Context {
    pointer: *mut c_void,
    finalizer: Option<unsafe extern "C" fn(context: *mut c_void)>,
}

// SAFETY: bastide.h demands of every callback that it can be called, and its context be finalized, on any thread.
unsafe impl Send for Context {}
// SAFETY: as above, and by several threads at once.
unsafe impl Sync for Context {}

impl<F: Copy> Callback<F> {
    /// # Safety
    /// `function` and `finalizer` may be called with `context`, as bastide.h says, until `finalizer` was.
    pub(crate) unsafe fn new(
        function: F,
        context: *mut c_void,
        finalizer: Option<unsafe extern "C" fn(context: *mut c_void)>,
    ) -> Self {
        Self { function, context: Arc::new(Context { pointer: context, finalizer }) }
    }

    /// The function and what it is called with, as long as this lives.
    pub(crate) fn parts(&self) -> (F, *mut c_void) {
        (self.function, self.context.pointer)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(finalizer) = self.finalizer {
            // SAFETY: this is the one call of it, and nobody has the function any more.
            crate::guard::call_back(|| unsafe { finalizer(self.pointer) });
        }
    }
}
