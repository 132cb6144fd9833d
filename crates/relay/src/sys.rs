//! What differs by platform: reading from a socket into several places. It leaves out waiting for it.

use std::io::{self, IoSliceMut};

/// Whether a read that leaves room tells that the socket is empty, and that more bytes will be announced: so it is
/// where readiness comes at edges (epoll(7), "Questions and answers", 9; kqueue with `EV_CLEAR`). tokio counts on
/// it for its own reads on the same platforms.
pub(crate) const SHORT_MEANS_EMPTY: bool = cfg!(any(target_os = "linux", target_os = "macos"));

/// `readv(2)`.
#[cfg(unix)]
pub(crate) fn read_vectored(
    socket: &impl std::os::fd::AsFd,
    slots: &mut [IoSliceMut<'_>],
) -> io::Result<usize> {
    Ok(rustix::io::readv(socket, slots)?)
}

/// As `readv(2)`.
#[cfg(not(unix))]
pub(crate) fn read_vectored(
    socket: &tokio::net::TcpStream,
    slots: &mut [IoSliceMut<'_>],
) -> io::Result<usize> {
    socket.try_read_vectored(slots)
}
