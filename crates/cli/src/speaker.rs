//! Writing to a standard stream without waiting for whoever reads it: a pipe that nobody empties, or a terminal after
//! Ctrl-S, must not hold connections up. It leaves out what is said.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Which standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A thread that writes lines, and the queue before it. What does not fit into the queue is dropped and counted; the
/// count is said as soon as somebody reads again.
#[derive(Debug)]
pub(crate) struct Speaker {
    stream: Stream,
    /// How many lines were dropped, in words.
    notice: fn(u64) -> String,
    dropped: Arc<AtomicU64>,
    /// Why a line could not be written, the first time.
    failed: Arc<OnceLock<io::Error>>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing was said yet, and there is no thread.
    Silent,
    Speaking(Voice),
    Closed,
}

#[derive(Debug)]
enum Said {
    Line(String),
    /// Lines that stay below all others.
    Pinned(String),
}

#[derive(Debug)]
struct Voice {
    queue: SyncSender<Said>,
    /// Hears of the thread's end.
    end: Receiver<()>,
}

/// Lines that wait for a reader: some hundred KiB, and the events of a few hundred connections.
const QUEUE: usize = 1024;

/// How long the last lines may take at the end of the process: a reader that is alive takes far less.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

impl Speaker {
    pub(crate) fn new(stream: Stream, notice: fn(u64) -> String) -> Self {
        Self {
            stream,
            notice,
            dropped: Arc::default(),
            failed: Arc::default(),
            state: Mutex::new(State::Silent),
        }
    }

    /// Queues a line. Never waits.
    pub(crate) fn say(&self, line: String) {
        if self.send(Said::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues lines that stay below all others on a terminal, in place of those before. Never waits.
    pub(crate) fn pin(&self, lines: String) {
        // One that is lost is followed by the next one.
        let _: Result<(), Full> = self.send(Said::Pinned(lines));
    }

    fn send(&self, said: Said) -> Result<(), Full> {
        let mut state = self.lock();
        if let State::Silent = *state {
            *state = self.start();
        }
        let State::Speaking(voice) = &*state else { return Ok(()) };
        match voice.queue.try_send(said) {
            Err(TrySendError::Full(_)) => Err(Full),
            // Its thread has gone with the stream.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Waits until everything is written, for a moment; nothing is said afterwards.
    ///
    /// # Errors
    /// When something could not be written although somebody reads: the disk is full, say.
    pub(crate) fn close(&self) -> io::Result<()> {
        let state = std::mem::replace(&mut *self.lock(), State::Closed);
        if let State::Speaking(Voice { queue, end }) = state {
            drop(queue);
            // Nobody reads: what is left is left.
            let _: Result<(), RecvTimeoutError> = end.recv_timeout(CLOSE_WITHIN);
        }
        match self.failed.get() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(io::Error::new(error.kind(), error.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn start(&self) -> State {
        let (queue, lines) = sync_channel::<Said>(QUEUE);
        let (done, end) = channel::<()>();
        let (stream, notice) = (self.stream, self.notice);
        let (dropped, failed) = (Arc::clone(&self.dropped), Arc::clone(&self.failed));
        let thread = std::thread::Builder::new().name(format!("{stream:?}")).spawn(move || {
            let mut pinned = String::new();
            for said in lines {
                match said {
                    Said::Line(line) => {
                        if let Err(error) = above(stream, &pinned, &line) {
                            failed.get_or_init(|| error);
                        }
                    }
                    Said::Pinned(lines) if lines == pinned => {}
                    Said::Pinned(lines) => {
                        draw(&pinned, &lines);
                        pinned = lines;
                    }
                }
                let count = dropped.swap(0, Ordering::Relaxed);
                if count > 0 {
                    drop(write(stream, &notice(count)));
                }
            }
            drop(done);
        });
        match thread {
            Ok(_) => State::Speaking(Voice { queue, end }),
            // Without a thread there is no voice; connections go on.
            Err(_) => State::Closed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody reads.
struct Full;

/// Writes a line above those that stay.
fn above(stream: Stream, pinned: &str, line: &str) -> io::Result<()> {
    draw(pinned, "");
    let written = write(stream, line);
    draw("", pinned);
    written
}

/// Takes lines off the terminal and writes others in their place: the cursor goes up, and all below is erased (ECMA-48,
/// CPL and ED). Not by way of `anstream`, which takes that for colours.
fn draw(old: &str, new: &str) {
    // A terminal that has become narrower since has broken lines in two.
    let columns = crate::sys::terminal_size().map_or(usize::MAX, |(columns, _)| columns.max(1));
    let height: usize = old.lines().map(|line| line.chars().count().div_ceil(columns).max(1)).sum();
    if height == 0 && new.is_empty() {
        return;
    }
    let up = if height > 0 { format!("\x1b[{height}F\x1b[J") } else { String::new() };
    // A terminal that has gone away is no reason to end connections.
    drop(io::stderr().lock().write_all(format!("{up}{new}").as_bytes()));
}

/// Writes a line now.
pub(crate) fn write(stream: Stream, line: &str) -> io::Result<()> {
    match stream {
        Stream::Stdout => writeln!(crate::sys::stdout_lines(), "{line}"),
        Stream::Stderr => writeln!(anstream::stderr().lock(), "{line}"),
    }
}

/// A log line on its way to a speaker, which gets it when this is dropped.
pub(crate) struct LogLine {
    speaker: Arc<Speaker>,
    bytes: Vec<u8>,
}

impl LogLine {
    pub(crate) fn new(speaker: Arc<Speaker>) -> Self {
        Self { speaker, bytes: Vec::new() }
    }
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        self.speaker.say(String::from_utf8_lossy(&self.bytes).trim_end().to_owned());
    }
}
