//! Errors. It leaves out which function returns which.

use std::ffi::c_char;

use crate::error::Failure;
use crate::guard::infallible;
use crate::{handle, text};

/// A bug or a limit of bastide's own.
pub const ERROR_OURS: i32 = 1;
/// An option is missing, unknown or wrong.
pub const ERROR_USAGE: i32 = 2;
/// Not signed in, or the sign-in was refused.
pub const ERROR_SIGN_IN: i32 = 10;
/// Signed in, but a right is missing.
pub const ERROR_MISSING_RIGHT: i32 = 11;
/// The SKU or the settings of the Bastion host refuse it.
pub const ERROR_HOST_REFUSES: i32 = 12;
/// Bastion host, VM or subscription is not there, or the VM is off.
pub const ERROR_NOT_THERE: i32 = 13;
/// Name resolution, TCP, a proxy or TLS.
pub const ERROR_UNREACHABLE: i32 = 20;
/// The Bastion service fails, after retries.
pub const ERROR_BASTION: i32 = 21;
/// The VM refused or closed the port.
pub const ERROR_VM: i32 = 22;
/// A time limit that an option sets.
pub const ERROR_TIMEOUT: i32 = 124;
/// The call was wrong: a pointer that must not be NULL, a handle that was freed before or is of another kind, text that is
/// not UTF-8, a function that waits called from a callback.
pub const ERROR_MISUSE: i32 = 200;
/// The handle was made in the process that this one was forked from, and is of no use here. Whatever it stands for goes on
/// there.
pub const ERROR_FORKED: i32 = 201;
/// The client was closed, before the call or while it waited.
pub const ERROR_CLOSED: i32 = 202;

/// Why a call failed. Owned by who called: see `bastide_error_free`.
pub struct Error {
    _opaque: [u8; 0],
}

/// One of BASTIDE_ERROR_..., or 0 for NULL. Numbers below 200 are the exit codes of the command line; there may be more
/// of them one day.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_error_code(error: *const Error) -> i32 {
    if error.is_null() {
        return 0;
    }
    infallible(ERROR_MISUSE, || Some(handle::get::<Failure, _>(error).ok()?.code()))
}

/// What failed, in words for a person, all causes included: good until the error is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_error_message(error: *const Error) -> *const c_char {
    infallible(std::ptr::null(), || Some(handle::get::<Failure, _>(error).ok()?.c_message().as_ptr()))
}

/// What to do next: good until the error is freed. NULL where nothing is known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_error_hint(error: *const Error) -> *const c_char {
    infallible(std::ptr::null(), || Some(text::pointer(handle::get::<Failure, _>(error).ok()?.hint())))
}

/// The service's id of the request that failed, for a support request: good until the error is freed. NULL where there is
/// none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_error_request_id(error: *const Error) -> *const c_char {
    infallible(std::ptr::null(), || Some(text::pointer(handle::get::<Failure, _>(error).ok()?.request_id())))
}

/// Frees an error and its texts. NULL, and one that was freed before, are left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_error_free(error: *mut Error) {
    infallible((), || {
        drop(handle::remove::<Failure, _>(error));
        None
    });
}

#[cfg(test)]
mod tests {
    use bastide::Fault;

    use super::*;
    use crate::error::{CLOSED, FORKED, MISUSE};

    #[test]
    fn the_numbers_are_those_of_the_command_line() {
        for (number, fault) in [
            (ERROR_OURS, Fault::Ours),
            (ERROR_USAGE, Fault::Usage),
            (ERROR_SIGN_IN, Fault::SignIn),
            (ERROR_MISSING_RIGHT, Fault::Right),
            (ERROR_HOST_REFUSES, Fault::Settings),
            (ERROR_NOT_THERE, Fault::NotFound),
            (ERROR_UNREACHABLE, Fault::Network),
            (ERROR_BASTION, Fault::Service),
            (ERROR_VM, Fault::Vm),
            (ERROR_TIMEOUT, Fault::Timeout),
        ] {
            assert_eq!(number, i32::from(fault.code()));
        }
        assert_eq!((ERROR_MISUSE, ERROR_FORKED, ERROR_CLOSED), (MISUSE, FORKED, CLOSED));
    }
}
