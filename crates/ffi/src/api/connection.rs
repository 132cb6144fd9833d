//! Connections with a descriptor. It leaves out the client that opens them.

use std::ffi::{c_char, c_int};

use crate::guard::{fallible, infallible, waiting};
use crate::text::Place;
use crate::{connection, handle};

/// What is known of a connection besides its bytes. It may be freed at any time: the connection lives as long as its
/// descriptor.
pub struct Connection {
    _opaque: [u8; 0],
}

/// Opens a connection to a port of a VM, and waits until the service has opened it. `descriptor` gets a connected socket
/// (a stream, closed on exec) that the caller owns: closing it, or exiting, ends the connection and gives its session
/// back. Whether anybody listens at the VM's port shows by the first byte alone: where nobody does, the socket ends, and
/// `bastide_connection_wait` says why. Bastion knows no half-close: after a `shutdown` of the caller's direction the VM's
/// answer has 10 seconds, again and again as long as some of it comes. Writing to a socket that has ended raises SIGPIPE,
/// as everywhere, unless the program ignores that.
///
/// `options` may be NULL, and `connection` too when nothing more is to be known. There are no such descriptors on
/// Windows: open a tunnel there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_connect(
    client: *mut super::Client,
    options: *const super::Options,
    descriptor: *mut c_int,
    connection: *mut *mut Connection,
) -> *mut super::Error {
    waiting(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let (place, known) = unsafe { (Place::new(descriptor, "descriptor")?, Place::if_wanted(connection)) };
        let client = handle::get::<crate::client::Client, _>(client)?;
        let options = super::client::values(options)?;
        #[cfg(unix)]
        {
            use std::os::fd::IntoRawFd;
            use std::sync::Arc;

            let (socket, connection) = connection::Connection::open(&client, &options)?;
            place.put(socket.into_raw_fd());
            if let Some(known) = known {
                known.put(handle::insert(Arc::new(connection)));
            }
            Ok(())
        }
        #[cfg(not(unix))]
        {
            drop((place, known, client, options));
            let hint = "open a tunnel, and connect to its port";
            Err(crate::error::Failure::usage("there are no connected descriptors on this system", hint))
        }
    })
}

/// The number of a connection, as its events have it; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_connection_id(connection: *const Connection) -> u64 {
    infallible(0, || Some(handle::get::<connection::Connection, _>(connection).ok()?.id()))
}

/// What a connection has carried, also after its end. `size` is `sizeof(bastide_statistics)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_connection_statistics(
    connection: *const Connection,
    statistics: *mut super::Statistics,
    size: usize,
) -> *mut super::Error {
    fallible(|| {
        let connection = handle::get::<connection::Connection, _>(connection)?;
        // SAFETY: bastide.h demands that of every place for an answer.
        unsafe { super::client::put_statistics(connection.meter(), statistics, size) }
    })
}

/// Waits until a connection has ended, at most for so many milliseconds, or without limit for a negative number: `ended`
/// gets 1 when it has, and 0 otherwise. A connection that failed has ended with an error: BASTIDE_ERROR_VM, say, when
/// nobody listens at the VM's port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_connection_wait(
    connection: *const Connection,
    milliseconds: i64,
    ended: *mut c_int,
) -> *mut super::Error {
    waiting(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let place = unsafe { Place::new(ended, "end") }?;
        let connection = handle::get::<connection::Connection, _>(connection)?;
        place.put(c_int::from(connection.wait(super::client::limit(milliseconds))?));
        Ok(())
    })
}

/// How a connection has ended, in words: good until it is freed. NULL as long as it has not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_connection_reason(connection: *const Connection) -> *const c_char {
    infallible(std::ptr::null(), || {
        let connection = handle::get::<connection::Connection, _>(connection).ok()?;
        Some(crate::text::pointer(connection.reason()))
    })
}

/// Frees what is known of a connection, which goes on. NULL, and what was freed before, are left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_connection_free(connection: *mut Connection) {
    infallible((), || {
        drop(handle::remove::<connection::Connection, _>(connection));
        None
    });
}
