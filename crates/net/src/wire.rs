//! A connection, plain or TLS, and the buffers below TLS that make it fast. Leaves out how it came
//! about (`dial`) and what is said over it.

use std::fmt;
use std::io::{self, IoSlice, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::Buffer;
use crate::chain::Chain;
use crate::sys;

/// A connection to an origin, plain or TLS, through a proxy or not.
///
/// Vectored writes reach TLS in one piece: many small frames leave as few system calls. Shutting it
/// down sends TLS' `close_notify` and then a TCP FIN; what the other end still has to say can be
/// read after that. Dropping it closes it at once.
///
/// The other end's FIN reads as the end of the stream even when no `close_notify` came before it:
/// both end a connection (protocol.md §3). [`Wire::cut_short`] tells them apart.
pub struct Wire {
    layer: Layer,
    cut_short: bool,
}

impl Wire {
    /// Whether the stream ended without TLS' `close_notify`, so that somebody on the way may have
    /// cut it. False on a plain connection and before the end.
    #[must_use]
    pub fn cut_short(&self) -> bool {
        self.cut_short
    }

    /// What TCP knows of the other end, or of the proxy that stands before it. None where the system
    /// does not say. One short system call or three: not for every byte.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.layer.standing()
    }

    pub(crate) fn new(layer: Layer) -> Wire {
        Wire { layer, cut_short: false }
    }

    pub(crate) fn into_layer(self) -> Layer {
        self.layer
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.cut_short {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut wire.layer).poll_read(context, into)) {
            // rustls says it so; a TCP stream never does.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                wire.cut_short = true;
                Poll::Ready(Ok(()))
            }
            outcome => Poll::Ready(outcome),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.layer).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.layer).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.layer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.layer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.layer).poll_shutdown(context)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.layer {
            Layer::Tcp(_) => "plain",
            Layer::Tls(_) => "TLS",
        };
        formatter.debug_struct("Wire").field("kind", &kind).field("cut_short", &self.cut_short).finish()
    }
}

/// How a connection stands, as TCP sees it (tcp(7), `TCP_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Bytes of ours that the other end has not acknowledged, whether they have left or not.
    pub waiting: u32,
    /// How often in a row something was sent again, or a closed window was probed, without an
    /// answer. An end that lives and does not read answers.
    pub unanswered: u32,
    /// How long ago the other end last acknowledged anything.
    pub quiet: Duration,
}

/// TCP, or TLS over another layer: twice when the proxy itself is reached over TLS.
pub(crate) enum Layer {
    Tcp(TcpStream),
    Tls(Box<TlsStream<ReadAhead>>),
}

impl Layer {
    /// The certificates that the other end presented; none without TLS.
    pub(crate) fn chain(&self) -> Chain {
        match self {
            Layer::Tcp(_) => Chain::read([]),
            Layer::Tls(tls) => Chain::read(tls.get_ref().1.peer_certificates().unwrap_or_default()),
        }
    }

    fn standing(&self) -> Option<Standing> {
        match self {
            Layer::Tcp(tcp) => sys::standing(tcp),
            Layer::Tls(tls) => tls.get_ref().0.below.standing(),
        }
    }
}

impl AsyncRead for Layer {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Layer::Tcp(tcp) => Pin::new(tcp).poll_read(context, into),
            Layer::Tls(tls) => match ready!(Pin::new(&mut *tls).poll_read(context, into)) {
                Ok(()) => Poll::Ready(Ok(())),
                // Whole records that came before what is broken are still to be read; rustls says the
                // error again behind them.
                Err(error) => match tls.get_mut().1.reader().read(into.initialize_unfilled()) {
                    Ok(count) if count > 0 => {
                        into.advance(count);
                        Poll::Ready(Ok(()))
                    }
                    _ => Poll::Ready(Err(error)),
                },
            },
        }
    }
}

impl AsyncWrite for Layer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Layer::Tcp(tcp) => Pin::new(tcp).poll_write(context, from),
            Layer::Tls(tls) => Pin::new(tls).poll_write(context, from),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Layer::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(context, from),
            Layer::Tls(tls) => Pin::new(tls).poll_write_vectored(context, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Layer::Tcp(tcp) => tcp.is_write_vectored(),
            Layer::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Layer::Tcp(tcp) => Pin::new(tcp).poll_flush(context),
            Layer::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Layer::Tcp(tcp) => Pin::new(tcp).poll_shutdown(context),
            Layer::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

/// What stands below TLS: rustls asks for 4 KiB at a time and takes at most one record (16 KiB), so
/// that a fast download would cost a system call for each of them. The buffer is lent only while
/// bytes are in it: an idle connection holds none.
pub(crate) struct ReadAhead {
    below: Layer,
    ahead: Option<Buffer>,
    /// The bytes that are ahead are `start..end`.
    start: usize,
    end: usize,
}

impl ReadAhead {
    pub(crate) fn new(below: Layer) -> ReadAhead {
        ReadAhead { below, ahead: None, start: 0, end: 0 }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ReadAhead { below, ahead, start, end } = self.get_mut();
        if start == end {
            let mut buffer = ahead.take().unwrap_or_else(Buffer::lend);
            let mut room = ReadBuf::new(&mut buffer);
            ready!(Pin::new(below).poll_read(context, &mut room))?;
            (*start, *end) = (0, room.filled().len());
            *ahead = Some(buffer);
        }
        let bytes = ahead.as_ref().and_then(|ahead| ahead.get(*start..*end)).unwrap_or_default();
        let bytes = bytes.get(..into.remaining()).unwrap_or(bytes);
        into.put_slice(bytes);
        *start += bytes.len();
        if start == end {
            *ahead = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.below).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.below).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.below.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, ReadAhead) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (theirs.unwrap().0, ReadAhead::new(Layer::Tcp(ours.unwrap())))
    }

    #[tokio::test]
    async fn reads_ahead_and_holds_nothing_while_idle() {
        let (mut far, mut near) = pair().await;
        far.write_all(b"abcdef").await.unwrap();
        let mut two = [0; 2];
        near.read_exact(&mut two).await.unwrap();
        assert_eq!((&two, near.end - near.start), (b"ab", 4));
        let mut four = [0; 4];
        near.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"cdef");

        {
            let mut read = std::pin::pin!(near.read(&mut two));
            let idle = std::future::poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await;
            assert!(idle.is_pending());
        }
        assert!(near.ahead.is_none());

        drop(far);
        assert_eq!(near.read(&mut two).await.unwrap(), 0);
        assert!(near.ahead.is_none());
    }
}
