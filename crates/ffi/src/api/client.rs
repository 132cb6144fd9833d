//! Clients: made, asked, closed. It leaves out connections and tunnels.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Failure;
use crate::guard::{fallible, infallible, is_called_back, waiting};
use crate::text::Place;
use crate::{client, event, handle, options};

/// Azure as one identity sees it, and what was opened with it. It has two threads of its own, on which no signal arrives,
/// and shares nothing with other clients. Its functions may be called on several threads at once.
pub struct Client {
    _opaque: [u8; 0],
}

/// What was carried so far.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Statistics {
    /// Connections so far, also those that could not be opened.
    pub opened: u64,
    /// Those of them that are not over yet.
    pub open: u64,
    /// Bytes to VMs.
    pub sent: u64,
    /// Bytes from VMs.
    pub received: u64,
}

/// Makes a client. It signs in when something is asked of Azure, not before. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_client_new(
    options: *const super::Options,
    client: *mut *mut Client,
) -> *mut super::Error {
    waiting(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let place = unsafe { Place::new(client, "client") }?;
        let values = values(options)?;
        place.put(handle::insert(Arc::new(client::Client::new(values)?)));
        Ok(())
    })
}

/// The next event, the oldest first; NULL when none comes within so many milliseconds. 0 does not wait, and a negative
/// number waits without limit. Up to 1,024 events are kept; when the oldest give way, an event `dropped` counts them.
/// After the client was closed what is left comes, and then BASTIDE_ERROR_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_client_next_event(
    client: *mut Client,
    milliseconds: i64,
    event: *mut *mut super::Event,
) -> *mut super::Error {
    waiting(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let place = unsafe { Place::new(event, "event") }?;
        let client = handle::get::<client::Client, _>(client)?;
        let next = client.desk.queue.next(limit(milliseconds))?;
        place.put(
            next.map_or(std::ptr::null_mut(), |event: event::Happening| handle::insert(Arc::new(event))),
        );
        Ok(())
    })
}

/// What all connections and tunnels of a client have carried. `size` is `sizeof(bastide_statistics)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_client_statistics(
    client: *const Client,
    statistics: *mut Statistics,
    size: usize,
) -> *mut super::Error {
    fallible(|| {
        let client = handle::get::<client::Client, _>(client)?;
        // SAFETY: bastide.h demands that of every place for an answer.
        unsafe { put_statistics(&client.desk.meter, statistics, size) }
    })
}

/// Ends everything that was opened with a client, gives its sessions back to the service within so many milliseconds, and
/// ends its threads, which may take 3 seconds more; then the client is good for the rest of its events and for
/// `bastide_client_free`. `leaked`, which may be NULL, gets how many sessions could not be given back: the service ends
/// those by itself after some time. A function of the program's that is being called then goes on, and is finalized when
/// it has returned. While one thread closes a client, others are told BASTIDE_ERROR_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_client_close(
    client: *mut Client,
    milliseconds: u64,
    leaked: *mut u64,
) -> *mut super::Error {
    waiting(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let place = unsafe { Place::if_wanted(leaked) };
        let count = handle::get::<client::Client, _>(client)?.close(milliseconds)?;
        if let Some(place) = place {
            place.put(count);
        }
        Ok(())
    })
}

/// Frees a client. One that is open is closed before, which waits up to 10 seconds, and 3 more; in a callback, which must
/// not wait, it is cut off: its sessions stay with the service until that, or the next process of this user, ends them.
/// NULL, and one that was freed before, are left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_client_free(client: *mut Client) {
    infallible((), || {
        let client = handle::remove::<client::Client, _>(client)?;
        if is_called_back() {
            client.cut();
        } else {
            // One that is closed has nothing more to say.
            drop(client.close(client::DEFAULT_GRACE));
        }
        None
    });
}

/// What options say; NULL says nothing.
pub(super) fn values(options: *const super::Options) -> Result<options::Values, Failure> {
    if options.is_null() {
        return Ok(options::Values::default());
    }
    Ok(handle::get::<options::Options, _>(options)?.values())
}

/// A limit in milliseconds; none for a negative number.
pub(super) fn limit(milliseconds: i64) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

/// Writes as much as the caller, who may know fewer fields, has room for.
///
/// # Safety
/// `place` is NULL, or `size` bytes of it may be written to.
pub(super) unsafe fn put_statistics(
    meter: &bastide::Meter,
    place: *mut Statistics,
    size: usize,
) -> Result<(), Failure> {
    let statistics = Statistics {
        opened: meter.accepted(),
        open: meter.open(),
        sent: meter.sent(),
        received: meter.received(),
    };
    if place.is_null() {
        return Err(Failure::misuse("the place for the statistics is NULL"));
    }
    if size < size_of::<u64>() || !size.is_multiple_of(size_of::<u64>()) {
        return Err(Failure::misuse("the size is not that of bastide_statistics"));
    }
    let bytes = size.min(size_of::<Statistics>());
    // SAFETY: both are good for so many bytes, and are not the same; the caller's promise, and `size_of` above.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(&statistics).cast::<u8>(),
            place.cast::<u8>(),
            bytes,
        );
        // Fields that this library does not know are nothing.
        place.cast::<u8>().add(bytes).write_bytes(0, size - bytes);
    }
    Ok(())
}
