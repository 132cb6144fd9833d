//! What a client sent on one channel and nobody has read yet: a pipe that never makes its writer wait.
//!
//! SSH's flow control is per channel, but `russh` re-opens a channel's window when data *arrives*, not
//! when it is read (russh pull request 730), and takes messages off the wire in one task for all
//! channels. A consumer that made that task wait would stop every other channel, the keepalives and the
//! window adjustments that its own output may be waiting for: with `cat` in both directions that is a
//! deadlock. So the writer never waits: up to [`MEMORY_LIMIT`] is held in memory, more goes into an
//! unlinked temporary file, and beyond [`FILE_LIMIT`] the channel fails.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

/// A new, empty backlog.
pub(super) fn backlog() -> (BacklogWriter, BacklogReader) {
    let state = Arc::new(Mutex::new(State::default()));
    (BacklogWriter(Arc::clone(&state)), BacklogReader(state))
}

/// The end that the connection fills. Dropping it ends the stream after what is in it.
pub(super) struct BacklogWriter(Arc<Mutex<State>>);

impl BacklogWriter {
    /// Adds `data` to the end; of no effect when the reader is gone.
    ///
    /// # Errors
    /// The temporary file could not be made or written, or would grow beyond [`FILE_LIMIT`].
    pub(super) fn push(&self, data: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.0);
        if state.abandoned {
            return Ok(());
        }
        if state.file.is_none() && state.memory.len().saturating_add(data.len()) > MEMORY_LIMIT {
            state.file = Some(Spill { file: tempfile::tempfile()?, start: 0, end: 0 });
        }
        match &mut state.file {
            Some(spill) => spill.write(data)?,
            None => state.memory.extend_from_slice(data),
        }
        state.wake();
        Ok(())
    }
}

impl Drop for BacklogWriter {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.ended = true;
        state.wake();
    }
}

/// The end that a process, a socket or the sftp server reads.
pub(super) struct BacklogReader(Arc<Mutex<State>>);

impl AsyncRead for BacklogReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        if state.memory.is_empty() {
            state.refill()?;
        }
        if state.memory.is_empty() && !state.ended {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let length = state.memory.len().min(buffer.remaining());
        // Not `split_to`: sharing the buffer would keep its front from being used again.
        buffer.put_slice(state.memory.get(..length).unwrap_or_default());
        state.memory.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl Drop for BacklogReader {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.abandoned = true;
        state.memory = BytesMut::new();
        state.file = None;
    }
}

/// The older bytes are in `memory`, the younger ones in `file`.
#[derive(Default)]
struct State {
    memory: BytesMut,
    file: Option<Spill>,
    ended: bool,
    abandoned: bool,
    reader: Option<Waker>,
}

impl State {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Fetches the oldest bytes of the file, and closes it after the last of them.
    fn refill(&mut self) -> io::Result<()> {
        let Some(spill) = &mut self.file else { return Ok(()) };
        self.memory = spill.read()?;
        if spill.start == spill.end {
            self.file = None;
        }
        Ok(())
    }
}

/// Bytes `start..end` of a file without a name. Its reads and writes are synchronous: they are of a few
/// dozen kilobytes, in the page cache, and rare.
struct Spill {
    file: File,
    start: u64,
    end: u64,
}

impl Spill {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        // A slice's length always fits into 64 bits on the platforms that Rust's std supports.
        let end = self.end.saturating_add(data.len() as u64);
        if end > FILE_LIMIT {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(data)?;
        self.end = end;
        Ok(())
    }

    fn read(&mut self) -> io::Result<BytesMut> {
        let length = (self.end - self.start).min(READ_LENGTH);
        self.file.seek(SeekFrom::Start(self.start))?;
        let mut bytes = BytesMut::zeroed(usize::try_from(length).unwrap_or(usize::MAX));
        self.file.read_exact(&mut bytes)?;
        self.start += length;
        Ok(bytes)
    }
}

/// A panic while the lock is held is impossible but for lack of memory; the state is valid at any time.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two of the windows of [`super::connection`], in bytes: a consumer that keeps up never meets the file.
const MEMORY_LIMIT: usize = 4 << 20;

/// Four times the largest transfer of the project's tests (1 GiB, issue 2), in bytes. A client that sends
/// for ever to a command that never reads would otherwise fill the disk.
const FILE_LIMIT: u64 = 4 << 30;

/// Bytes fetched from the file at a time; the size of tokio's copy buffers does not matter to it.
const READ_LENGTH: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::{MEMORY_LIMIT, backlog};

    #[tokio::test]
    async fn order_survives_the_way_through_the_file() {
        let (writer, mut reader) = backlog();
        let sent: Vec<u8> = (0..MEMORY_LIMIT * 2).map(|index| (index % 251) as u8).collect();
        let (first, second) = sent.split_at(MEMORY_LIMIT + 5000);
        for chunk in first.chunks(32_768) {
            writer.push(chunk).unwrap();
        }
        let mut read = vec![0; 1000];
        reader.read_exact(&mut read).await.unwrap();
        for chunk in second.chunks(1000) {
            writer.push(chunk).unwrap();
        }
        drop(writer);
        reader.read_to_end(&mut read).await.unwrap();
        assert!(read == sent);
    }

    #[tokio::test]
    async fn an_abandoned_backlog_swallows() {
        let (writer, reader) = backlog();
        drop(reader);
        writer.push(b"nobody reads this").unwrap();
    }
}
