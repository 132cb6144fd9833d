//! The local side of a connection: a socket, or standard input and output. It leaves out listening and who may
//! connect.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::outbox::BATCH;
use crate::sys;

/// What a connection carries bytes for.
///
/// The one thing that [`AsyncRead`] lacks is reading into several places at once, and the frames of a batch are
/// several places. Where a type can't, the default reads once and copies.
pub trait Local: AsyncRead + AsyncWrite + Send + Unpin {
    /// Reads into `slots`, in order; 0 is the end. Ready with what there is, as `readv(2)`.
    fn poll_read_slots(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slots: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        read_and_spread(self, context, slots)
    }

    /// Whether the program at the other end, which has sent its FIN, is known to have gone for good, and not only to
    /// have finished its half. Asked seldom. The default does not know.
    fn is_gone(&self) -> bool {
        false
    }

    /// Whether the program at the other end is known to have gone for good without leaving a byte to carry: a
    /// connection would be opened for nobody. Asked seldom. The default does not know.
    fn is_vacant(&self) -> bool {
        false
    }

    /// Whether closing it with bytes unread takes back bytes that were written and not yet taken, as sockets do
    /// (RFC 1122 §4.2.2.13). Pipes do not.
    fn resets_when_closed(&self) -> bool {
        true
    }
}

impl Local for TcpStream {
    fn poll_read_slots(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slots: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = &*self;
        read_slots(
            slots,
            || socket.poll_read_ready(context),
            |read| socket.try_io(Interest::READABLE, read),
            |slots| sys::read_vectored(socket, slots),
        )
    }
}

#[cfg(unix)]
impl Local for tokio::net::UnixStream {
    fn poll_read_slots(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slots: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = &*self;
        read_slots(
            slots,
            || socket.poll_read_ready(context),
            |read| socket.try_io(Interest::READABLE, read),
            |slots| sys::read_vectored(socket, slots),
        )
    }
}

/// `readv(2)`, waiting as often as the socket would block. Where a read that leaves room tells that the socket is
/// empty, tokio is told so: the next one waits without asking.
fn read_slots(
    slots: &mut [IoSliceMut<'_>],
    mut ready: impl FnMut() -> Poll<io::Result<()>>,
    attempt: impl Fn(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    read: impl Fn(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    let room: usize = slots.iter().map(|slot| slot.len()).sum();
    loop {
        ready!(ready())?;
        let mut count = None;
        let outcome = attempt(&mut || {
            let now = *count.insert(read(slots)?);
            let is_empty = sys::SHORT_MEANS_EMPTY && 0 < now && now < room;
            if is_empty { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (count, outcome) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                return Poll::Ready(Err(error));
            }
            (None, _) => {}
        }
    }
}

impl Local for DuplexStream {}

/// Two halves as one: standard input and output.
#[derive(Debug)]
pub struct Halves<R, W> {
    /// Where local bytes come from.
    pub reader: R,
    /// Where the VM's bytes go.
    pub writer: W,
}

impl<R: AsyncRead + Send + Unpin, W: AsyncWrite + Send + Unpin> Local for Halves<R, W> {
    fn resets_when_closed(&self) -> bool {
        false
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Halves<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Halves<R, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}

/// One read for all slots: for standard input, each is a trip to another thread.
fn read_and_spread<L: AsyncRead + ?Sized>(
    local: Pin<&mut L>,
    context: &mut Context<'_>,
    slots: &mut [IoSliceMut<'_>],
) -> Poll<io::Result<usize>> {
    let room: usize = slots.iter().map(|slot| slot.len()).sum();
    let mut scratch = [MaybeUninit::uninit(); BATCH];
    let mut buffer = ReadBuf::uninit(scratch.get_mut(..room.min(BATCH)).unwrap_or_default());
    ready!(local.poll_read(context, &mut buffer))?;
    let mut rest = buffer.filled();
    for slot in slots {
        let (now, later) = rest.split_at(rest.len().min(slot.len()));
        if let Some(place) = slot.get_mut(..now.len()) {
            place.copy_from_slice(now);
        }
        rest = later;
    }
    Poll::Ready(Ok(buffer.filled().len()))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn read(local: &mut TcpStream, room: usize) -> usize {
        let (mut first, mut second) = (vec![0; room / 2], vec![0; room - room / 2]);
        poll_fn(|context| {
            let mut slots = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            Pin::new(&mut *local).poll_read_slots(context, &mut slots)
        })
        .await
        .unwrap()
    }

    /// Whatever a read left or emptied, the next one hears of what is there, of what comes, and of the end.
    #[tokio::test]
    async fn nothing_goes_unheard_behind_a_short_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut near, mut far) = (near.unwrap(), far.unwrap().0);
        for _ in 0..100 {
            far.write_all(b"abcdef").await.unwrap();
            let mut left = 6;
            for room in [2, 2, 6] {
                left -= if left > 0 { read(&mut near, room).await } else { 0 };
            }
            assert_eq!(left, 0);
            let idle = poll_fn(|context| {
                let mut byte = [0];
                let mut slots = [IoSliceMut::new(&mut byte)];
                Poll::Ready(Pin::new(&mut near).poll_read_slots(context, &mut slots).is_pending())
            });
            assert!(idle.await);
        }
        far.write_all(b"last").await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(read(&mut near, 64).await, 4);
        assert_eq!(read(&mut near, 64).await, 0);
    }
}
