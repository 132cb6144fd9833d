//! Drives one [`Session`] between its two sides until it ends: the only place where bytes of a connection are
//! read and written. It leaves out what the bytes mean, which is the session's business, and what happens
//! before and after.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bastide_core::End;
use bastide_net::{Standing, Wire};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::Moved;
use crate::local::Local;
use crate::session::{Ping, Session};
use crate::vigil::News;

/// Steps that one turn of the task may take before others get theirs: a bulk connection must not starve an
/// interactive one. Each step moves at most 64 KiB up and 256 KiB down and takes about a tenth of a millisecond.
const STEPS_A_TURN: usize = 8;

/// How long a local program may take to read the rest and to close its side after the VM has closed: behind
/// it, a socket with unread data is closed, which resets the connection.
const LOCAL_CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// The same when the user wants to stop: programs that listen have read the rest by then.
const LOCAL_STOP_WITHIN: Duration = Duration::from_millis(500);

/// How long a close_notify may take to leave.
const WIRE_CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The side of the service.
pub(crate) trait Line: AsyncRead + AsyncWrite + Unpin {
    /// How TCP sees it; the default does not know. Asked when nothing has been heard for a while.
    fn standing(&self) -> Option<Standing> {
        None
    }
}

impl Line for Wire {
    fn standing(&self) -> Option<Standing> {
        Wire::standing(self)
    }
}

/// Moves bytes until the session ends, and says how it ended. `active` is called whenever bytes have moved; `news` is
/// what concerns every connection to the host.
///
/// Not cancel safe: dropping the future loses bytes that were read and not yet written. To end it early,
/// cancel `stop`.
pub(crate) async fn pump<L: Local, W: Line>(
    session: &mut Session,
    local: &mut L,
    wire: &mut W,
    stop: &CancellationToken,
    news: &mut watch::Receiver<News>,
    active: &(dyn Fn(Moved) + Send + Sync),
) -> End {
    let mut stopped = pin!(stop.cancelled());
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut drive = Drive { flush_wire: false, flush_local: false };
    let mut wakes = news.borrow().wakes;
    let mut told = Moved::default();
    loop {
        let moving = poll_fn(|context| {
            if stopped.as_mut().poll(context).is_ready() {
                session.stop(Instant::now().into_std());
            }
            for _ in 0..STEPS_A_TURN {
                let moved = drive.step(session, local, wire, context);
                // Before the end is looked at, or the last bytes would count for nobody.
                if moved {
                    let now = Moved { sent: session.sent(), received: session.received() };
                    active(Moved { sent: now.sent - told.sent, received: now.received - told.received });
                    told = now;
                }
                if let Some(end) = session.end() {
                    return Poll::Ready(end.clone());
                }
                if session.wants_look() && local.is_gone() {
                    session.local_gone(Instant::now().into_std());
                } else if moved {
                    // Perhaps there is more.
                } else if !is_due(session, wire, timer.as_mut(), context) {
                    session.rest();
                    return Poll::Pending;
                }
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let heard = tokio::select! {
            biased;
            end = moving => return end,
            heard = next(news) => heard,
        };
        if heard.ping == Ping::Never {
            session.forbid_pings();
        }
        if heard.wakes != wakes {
            wakes = heard.wakes;
            session.woke(Instant::now().into_std());
        }
    }
}

/// Waits for what is new. Cancel safe.
async fn next(news: &mut watch::Receiver<News>) -> News {
    match news.changed().await {
        Ok(()) => *news.borrow(),
        Err(_) => pending().await,
    }
}

/// Ends the local side without losing what was written to it: FIN, then whatever the program still sends is
/// read and dropped until it closes too, since closing a socket with unread data resets the connection and
/// takes the undelivered bytes with it (RFC 1122 §4.2.2.13).
///
/// Returns how the last bytes were lost, if they were.
pub(crate) async fn close_local<L: Local>(local: &mut L, end: &End) -> Option<End> {
    let limit = if *end == End::Stopped { LOCAL_STOP_WITHIN } else { LOCAL_CLOSE_WITHIN };
    let closing = async {
        local.flush().await?;
        local.shutdown().await?;
        let mut sink = [0; 4096];
        while local.resets_when_closed() && local.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    match timeout(limit, closing).await {
        Ok(Err(error)) => Some(end_of_local(Some(error))).filter(|end| matches!(end, End::LocalFailed(_))),
        // Past the limit nobody is left to lose anything.
        Ok(Ok(())) | Err(_) => None,
    }
}

/// Ends TLS with a close_notify.
pub(crate) async fn close_wire<W: AsyncWrite + Unpin>(wire: &mut W) {
    // The session has ended: a service that is gone already has nothing more to say.
    drop(timeout(WIRE_CLOSE_WITHIN, wire.shutdown()).await);
}

struct Drive {
    /// Bytes were written and not flushed.
    flush_wire: bool,
    flush_local: bool,
}

impl Drive {
    /// Each direction once; whether anything moved.
    fn step<L: Local, W: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        session: &mut Session,
        local: &mut L,
        wire: &mut W,
        context: &mut Context<'_>,
    ) -> bool {
        let from_wire = read_wire(session, wire, context);
        let to_local = self.write_local(session, local, context);
        let from_local = read_local(session, local, context);
        let to_wire = self.write_wire(session, wire, context);
        from_wire | to_local | from_local | to_wire
    }

    /// Everything that has come, in one write.
    fn write_local<L: Local>(
        &mut self,
        session: &mut Session,
        local: &mut L,
        context: &mut Context<'_>,
    ) -> bool {
        let mut moved = false;
        while session.has_local() {
            match Pin::new(&mut *local).poll_write_vectored(context, &session.to_local()) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    session.wrote_local(count, Instant::now().into_std());
                    self.flush_local = true;
                    moved = true;
                }
                Poll::Ready(result) => {
                    session.local_broken(end_of_local(result.err()), Instant::now().into_std());
                    return true;
                }
                Poll::Pending => break,
            }
        }
        if self.flush_local
            && let Poll::Ready(flushed) = Pin::new(&mut *local).poll_flush(context)
        {
            self.flush_local = false;
            // Where another thread writes, this is how a write has failed.
            if let Err(error) = flushed {
                session.local_broken(end_of_local(Some(error)), Instant::now().into_std());
                return true;
            }
        }
        moved
    }

    fn write_wire<W: AsyncWrite + Unpin>(
        &mut self,
        session: &mut Session,
        wire: &mut W,
        context: &mut Context<'_>,
    ) -> bool {
        let mut moved = false;
        let failed = loop {
            let bytes = session.to_wire();
            if bytes.is_empty() {
                break None;
            }
            match Pin::new(&mut *wire).poll_write(context, bytes) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    session.wrote_wire(count);
                    self.flush_wire = true;
                    moved = true;
                }
                Poll::Ready(result) => break Some(describe(result.err())),
                Poll::Pending => break None,
            }
        };
        let failed = match failed {
            None if self.flush_wire => match Pin::new(&mut *wire).poll_flush(context) {
                Poll::Ready(result) => {
                    self.flush_wire = false;
                    result.err().map(|error| describe(Some(error)))
                }
                Poll::Pending => None,
            },
            failed => failed,
        };
        if let Some(error) = failed {
            self.flush_wire = false;
            session.wire_deaf(error, Instant::now().into_std());
            return true;
        }
        moved
    }
}

/// Everything that is there and has room, so that it leaves in one write.
fn read_wire<W: AsyncRead + Unpin>(session: &mut Session, wire: &mut W, context: &mut Context<'_>) -> bool {
    if !session.wants_wire() {
        return false;
    }
    let mut moved = false;
    loop {
        let space = session.wire_space();
        if space.is_empty() {
            return moved;
        }
        let mut buffer = ReadBuf::new(space);
        match Pin::new(&mut *wire).poll_read(context, &mut buffer) {
            Poll::Pending => return moved,
            Poll::Ready(result) => {
                let count = buffer.filled().len();
                let now = Instant::now().into_std();
                match result {
                    Ok(()) if count > 0 => session.from_wire(count, now),
                    Ok(()) => {
                        session.wire_eof(now);
                        return true;
                    }
                    Err(error) => {
                        session.wire_broken(describe(Some(error)), now);
                        return true;
                    }
                }
                moved = true;
                if session.end().is_some() || !session.reads_on() {
                    return true;
                }
            }
        }
    }
}

fn read_local<L: Local>(session: &mut Session, local: &mut L, context: &mut Context<'_>) -> bool {
    if !session.wants_local() {
        return false;
    }
    let mut slots = session.local_slots();
    let result = Pin::new(local).poll_read_slots(context, &mut slots);
    drop(slots);
    let now = Instant::now().into_std();
    match result {
        Poll::Pending => return false,
        Poll::Ready(Ok(0)) => session.local_eof(now),
        Poll::Ready(Ok(count)) => session.from_local(count, now),
        Poll::Ready(Err(error)) => session.local_broken(end_of_local(Some(error)), now),
    }
    true
}

/// Whether the session's deadline has come; if not, the task is woken when it has.
fn is_due<W: Line>(
    session: &mut Session,
    wire: &W,
    mut timer: Pin<&mut Sleep>,
    context: &mut Context<'_>,
) -> bool {
    let Some(deadline) = session.deadline().map(Instant::from_std) else {
        return false;
    };
    // The timer may stand earlier than the deadline: moving it is dearer than one turn too many.
    if timer.deadline() > deadline || timer.is_elapsed() {
        timer.as_mut().reset(deadline);
    }
    if timer.as_mut().poll(context).is_pending() {
        return false;
    }
    session.tick(Instant::now().into_std(), || wire.standing());
    true
}

/// A program that has gone away is an end among others; everything else is a failure.
fn end_of_local(error: Option<io::Error>) -> End {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    let is_gone = error.as_ref().is_none_or(|error| {
        matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
    });
    let words = describe(error);
    if is_gone { End::LocalBroken(words) } else { End::LocalFailed(words) }
}

fn describe(error: Option<io::Error>) -> String {
    match error {
        // `write` of 0 bytes: the other side takes no more.
        None => "nothing more is taken".into(),
        Some(error) => match error.kind() {
            io::ErrorKind::ConnectionReset => "connection reset".into(),
            io::ErrorKind::BrokenPipe => "connection closed by the other side".into(),
            io::ErrorKind::TimedOut => "the other side stopped answering (TCP time-out)".into(),
            _ => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
