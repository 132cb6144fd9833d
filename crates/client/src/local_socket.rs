//! A local socket, TCP or Unix, for the relay. It leaves out accepting.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use bastide_relay::Local;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::sys;

/// A local program's connection, of which the kernel tells more than that it has ended.
#[derive(Debug)]
pub enum LocalSocket {
    /// By TCP.
    Tcp(TcpStream),
    /// By a Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Calls the same method of whichever stream it is.
macro_rules! either {
    ($self:ident, $method:ident, $($argument:expr),*) => {
        match $self.get_mut() {
            LocalSocket::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(unix)]
            LocalSocket::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl Local for LocalSocket {
    fn poll_read_slots(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slots: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_read_slots, context, slots)
    }

    fn is_gone(&self) -> bool {
        match self {
            LocalSocket::Tcp(stream) => sys::is_abandoned(stream),
            #[cfg(unix)]
            LocalSocket::Unix(stream) => sys::is_hung_up(stream),
        }
    }

    fn is_vacant(&self) -> bool {
        match self {
            LocalSocket::Tcp(stream) => sys::is_abandoned(stream) && !sys::has_unread(stream),
            #[cfg(unix)]
            LocalSocket::Unix(stream) => sys::is_hung_up(stream) && !sys::has_unread(stream),
        }
    }
}

impl AsyncRead for LocalSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read, context, buffer)
    }
}

impl AsyncWrite for LocalSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write, context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown, context)
    }
}
