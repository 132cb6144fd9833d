//! Reports on what is broken. It leaves out what is examined.

use std::ffi::c_char;
use std::sync::Arc;

use crate::guard::{infallible, waiting};
use crate::text::Place;
use crate::{doctor, handle};

/// What became of each link between here and a port of a VM: sign-in, rights, the Bastion host's settings, the VM's state,
/// security groups, DNS, TLS, and a session that is opened and given back. It holds no secret and nobody's name.
pub struct Report {
    _opaque: [u8; 0],
}

/// Examines the way to a port of a VM, which the options name as for a connection, as `bastide doctor` does. What is
/// broken is no error: the report says it. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_doctor(
    client: *mut super::Client,
    options: *const super::Options,
    report: *mut *mut Report,
) -> *mut super::Error {
    waiting(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let place = unsafe { Place::new(report, "report") }?;
        let client = handle::get::<crate::client::Client, _>(client)?;
        let options = super::client::values(options)?;
        place.put(handle::insert(Arc::new(doctor::Report::examine(&client, &options)?)));
        Ok(())
    })
}

/// 0 when nothing is broken; otherwise one of BASTIDE_ERROR_... for the first broken link. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_report_code(report: *const Report) -> i32 {
    infallible(0, || Some(handle::get::<doctor::Report, _>(report).ok()?.code()))
}

/// The report as an object of JSON: `broken` is the name of the first broken link or null, `findings` has an object for
/// each link, with `link`, `status` (`ok`, `warning`, `failed`, `skipped`), `milliseconds`, `message`, `causes` and `hint`.
/// Good until the report is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_report_json(report: *const Report) -> *const c_char {
    infallible(std::ptr::null(), || Some(handle::get::<doctor::Report, _>(report).ok()?.json().as_ptr()))
}

/// Frees a report and its text. NULL, and one that was freed before, are left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_report_free(report: *mut Report) {
    infallible((), || {
        drop(handle::remove::<doctor::Report, _>(report));
        None
    });
}
