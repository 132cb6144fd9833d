//! What differs by platform: which signals a thread of ours takes. It leaves out everything that every platform has.

/// Takes no signal on this thread, so that the program's own threads get all of them, and none is ended by a SIGPIPE
/// that one of our writes has caused: unlike a program in Rust, one in C does not ignore that by itself.
#[cfg(unix)]
pub(crate) fn block_signals() {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigfillset` fills what it is given, and both only concern this thread.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
    }
}

/// There are none.
#[cfg(not(unix))]
pub(crate) fn block_signals() {}
