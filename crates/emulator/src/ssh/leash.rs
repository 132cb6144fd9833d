//! A hold on a stream that a library takes into a task of its own.
//!
//! `russh` and `russh-sftp` spawn a detached task for each stream they are given. A [`Leash`] makes such
//! a task owned again: its stream reads as ended once the leash is cut or dropped, and the leash tells
//! when the stream was let go. What the bytes mean is none of its business.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Puts `stream` on a leash.
pub(super) fn leash<S>(stream: S) -> (Leashed<S>, Leash) {
    let cut = CancellationToken::new();
    let (released, let_go) = oneshot::channel();
    let leashed = Leashed { stream, cut: Box::pin(cut.clone().cancelled_owned()), _released: released };
    (leashed, Leash { cut: cut.drop_guard(), let_go })
}

/// The owner's end. Dropping it ends the stream without waiting for the task that uses it.
pub(super) struct Leash {
    cut: DropGuard,
    let_go: oneshot::Receiver<()>,
}

impl Leash {
    /// Waits until the task has dropped the stream of its own accord. Cancel safe.
    pub(super) async fn released(&mut self) {
        // Nothing is ever sent: the receiver wakes when the stream, and the sender in it, is dropped.
        _ = (&mut self.let_go).await;
    }

    /// Ends the stream and waits until the task has dropped it. When cancelled, the stream is ended.
    pub(super) async fn cut(self) {
        drop(self.cut);
        _ = self.let_go.await;
    }
}

/// The stream that is handed to the library. To be used from one task: the cut wakes the last waker.
pub(super) struct Leashed<S> {
    stream: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _released: oneshot::Sender<()>,
}

impl<S> Leashed<S> {
    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Leashed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Leashed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::leash;

    #[tokio::test]
    async fn cutting_wakes_a_reader_and_waits_for_it() {
        let (near, _far) = duplex(16);
        let (mut leashed, held) = leash(near);
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            leashed.read_to_end(&mut read).await.map(|_| read)
        });
        tokio::task::yield_now().await;
        held.cut().await;
        assert_eq!(reader.await.unwrap().unwrap(), b"");
    }

    #[tokio::test]
    async fn released_tells_of_the_drop() {
        let (near, _far) = duplex(16);
        let (leashed, mut held) = leash(near);
        drop(leashed);
        held.released().await;
    }
}
