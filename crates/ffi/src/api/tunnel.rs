//! Tunnels. It leaves out the client that opens them.

use std::ffi::c_char;
use std::sync::Arc;

use crate::guard::{fallible, infallible, waiting};
use crate::text::Place;
use crate::{handle, tunnel};

/// A local port, or Unix socket, that leads to a port of a VM.
pub struct Tunnel {
    _opaque: [u8; 0],
}

/// Opens a tunnel: `resource-port` is the VM's port, `port` the local one (any free one where it is left out). It returns
/// when connections can be opened, which a first session has proven. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_tunnel_open(
    client: *mut super::Client,
    options: *const super::Options,
    tunnel: *mut *mut Tunnel,
) -> *mut super::Error {
    waiting(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let place = unsafe { Place::new(tunnel, "tunnel") }?;
        let client = handle::get::<crate::client::Client, _>(client)?;
        let options = super::client::values(options)?;
        place.put(handle::insert(Arc::new(tunnel::Tunnel::open(&client, &options)?)));
        Ok(())
    })
}

/// The local port; 0 for a Unix socket, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_tunnel_port(tunnel: *const Tunnel) -> u16 {
    infallible(0, || Some(handle::get::<tunnel::Tunnel, _>(tunnel).ok()?.port()))
}

/// Where it listens, such as `127.0.0.1:50022`, or the path of a Unix socket: good until the tunnel is freed. NULL for
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_tunnel_address(tunnel: *const Tunnel) -> *const c_char {
    infallible(std::ptr::null(), || Some(handle::get::<tunnel::Tunnel, _>(tunnel).ok()?.address().as_ptr()))
}

/// What a tunnel has carried. `size` is `sizeof(bastide_statistics)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_tunnel_statistics(
    tunnel: *const Tunnel,
    statistics: *mut super::Statistics,
    size: usize,
) -> *mut super::Error {
    fallible(|| {
        let tunnel = handle::get::<tunnel::Tunnel, _>(tunnel)?;
        // SAFETY: bastide.h demands that of every place for an answer.
        unsafe { super::client::put_statistics(tunnel.meter(), statistics, size) }
    })
}

/// Ends a tunnel and its connections, and waits at most so many milliseconds until its sessions are given back. `leaked`,
/// which may be NULL, gets how many were not given back by then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_tunnel_close(
    tunnel: *mut Tunnel,
    milliseconds: u64,
    leaked: *mut u64,
) -> *mut super::Error {
    waiting(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let place = unsafe { Place::if_wanted(leaked) };
        let count = handle::get::<tunnel::Tunnel, _>(tunnel)?.close(milliseconds)?;
        if let Some(place) = place {
            place.put(count);
        }
        Ok(())
    })
}

/// Frees a tunnel. One that is open ends, without anybody waiting for it but `bastide_client_close`. NULL, and one that
/// was freed before, are left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_tunnel_free(tunnel: *mut Tunnel) {
    infallible((), || {
        handle::remove::<tunnel::Tunnel, _>(tunnel)?.stop();
        None
    });
}
