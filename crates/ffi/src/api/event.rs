//! Events. It leaves out where they are pulled from (`bastide_client_next_event`).

use std::ffi::c_char;

use crate::event::Happening;
use crate::guard::infallible;
use crate::handle;

/// Something that happened: `opened`, `retry`, `closed`, `released`, `error`, `ready`, `stopped`, `code` (a code that the
/// user has to enter in a browser to sign in) or `dropped`. There may be others one day.
pub struct Event {
    _opaque: [u8; 0],
}

/// Its name: good until the event is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_event_name(event: *const Event) -> *const c_char {
    infallible(std::ptr::null(), || Some(handle::get::<Happening, _>(event).ok()?.name().as_ptr()))
}

/// The number of the connection that it is about; 0 where it is about none, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_event_connection(event: *const Event) -> u64 {
    infallible(0, || Some(handle::get::<Happening, _>(event).ok()?.connection()))
}

/// All of it as an object of JSON, as `bastide tunnel -o json` prints it, name and time included: good until the event is
/// freed. NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_event_json(event: *const Event) -> *const c_char {
    infallible(std::ptr::null(), || Some(handle::get::<Happening, _>(event).ok()?.json().as_ptr()))
}

/// Frees an event and its texts. NULL, and one that was freed before, are left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_event_free(event: *mut Event) {
    infallible((), || {
        drop(handle::remove::<Happening, _>(event));
        None
    });
}
