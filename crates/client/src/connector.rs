//! Connections that are opened one by one, each when it is asked for: what a program uses that needs a stream and no
//! port. It leaves out listening (`tunnel`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bastide_core::End;
use bastide_relay::{Error as ConnectionError, Local, Moved, Relay};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tunnel::{LEAST_GRACE, carry_one, next_number};
use crate::{Error, Meter, StopCause, TunnelOptions};

/// Opens connections to one port of one VM.
pub struct Connector {
    relay: Relay,
    options: TunnelOptions,
    meter: Arc<Meter>,
    connections: TaskTracker,
    was_used: AtomicBool,
}

impl Connector {
    /// Connections over `relay`, each within the time limits of `options`.
    pub fn new(relay: Relay, options: TunnelOptions) -> Self {
        let (connections, was_used) = (TaskTracker::new(), AtomicBool::new(false));
        Self { relay, options, meter: Arc::default(), connections, was_used }
    }

    /// The same, whose counts are some of `whole`'s too.
    #[must_use]
    pub fn counted_in(self, whole: &Arc<Meter>) -> Self {
        Self { meter: Arc::new(Meter::within(whole)), ..self }
    }

    /// What its connections carry.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Opens a connection, and waits until the service has opened it. Whether anybody listens at the VM's port shows
    /// by the first byte alone: where nobody does, the stream ends at once, and [`Ongoing::ended`] says why.
    ///
    /// Cancel safe: nothing stays open. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub async fn connect(&self) -> Result<Connection, Error> {
        let (stream, far) = duplex(STREAM_BUFFER);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let local = FarSide { stream: far, is_dropped: Arc::clone(&is_dropped) };
        let ongoing = self.carry("this process", local).await?;
        Ok(Connection { stream, ongoing, is_dropped })
    }

    /// The same for a local side that is there already, such as a socket, until either side ends it. `peer` is what it
    /// is called in events.
    ///
    /// Cancel safe, and to be called, as [`Connector::connect`].
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub async fn carry<L: Local + 'static>(&self, peer: &str, local: L) -> Result<Ongoing, Error> {
        if self.was_used.swap(true, Ordering::Relaxed) {
            // Who connects twice will connect again.
            self.relay.expect_more();
        }
        let id = next_number();
        let meter = Arc::new(Meter::within(&self.meter));
        let stop = self.relay.stop_token();
        let unwanted = stop.clone().drop_guard();
        let (state, mut seen) = watch::channel(State::Opening);
        let ongoing = Ongoing { id, meter: Arc::clone(&meter), state: seen.clone(), stop: stop.clone() };
        let (relay, peer) = (self.relay.clone(), peer.to_owned());
        let options = self.options.clone();
        let counted = meter.connection();
        self.connections.spawn(async move {
            let is_open = AtomicBool::new(false);
            let moved = |count: Moved| {
                meter.add(count);
                if !is_open.load(Ordering::Relaxed) && !is_open.swap(true, Ordering::Relaxed) {
                    state.send_replace(State::Open);
                }
            };
            let (account, cause, _) = carry_one(&relay, id, &peer, local, &options, &moved, &stop).await;
            // Who hears of its end finds it counted.
            drop(counted);
            let outcome = account.outcome.clone();
            relay.report(id, account);
            state.send_replace(State::Ended(outcome, cause));
        });
        let state = seen.wait_for(|state| !matches!(state, State::Opening)).await;
        let failure = match state.as_deref() {
            Ok(State::Ended(Ok(End::Stopped), StopCause::Asked)) | Err(_) => {
                Some(ConnectionError::Stopped.into())
            }
            Ok(State::Ended(outcome, cause)) => how_it_ended(outcome, *cause).err(),
            Ok(State::Opening | State::Open) => None,
        };
        drop(unwanted.disarm());
        match failure {
            Some(error) => Err(error),
            None => Ok(ongoing),
        }
    }

    /// Waits until every connection has ended by itself, and gives back what they used; how many tokens were not given
    /// back.
    ///
    /// Cancel safe.
    pub async fn finish(&self) -> u64 {
        self.connections.close();
        self.connections.wait().await;
        self.relay.close(self.options.grace).await
    }

    /// Ends every connection and gives back what they used, within `grace`; how many tokens were not given back.
    ///
    /// Cancel safe: ends and releases go on.
    pub async fn close(&self, grace: Duration) -> u64 {
        let deadline = Instant::now() + grace;
        self.relay.stop();
        self.connections.close();
        // What is left then is counted as not given back.
        drop(timeout_at(deadline, self.connections.wait()).await);
        self.relay.close(deadline.saturating_duration_since(Instant::now()).max(LEAST_GRACE)).await
    }
}

/// What an in-process stream holds each way until the other side takes it: as much as the buffer of a Unix socket is
/// worth by default (unix(7), `net.core.wmem_default`, in frames of 4,096 bytes).
const STREAM_BUFFER: usize = 208 * 1024;

#[derive(Debug)]
enum State {
    Opening,
    Open,
    Ended(Result<End, ConnectionError>, StopCause),
}

fn how_it_ended(outcome: &Result<End, ConnectionError>, cause: StopCause) -> Result<End, Error> {
    match cause {
        StopCause::Asked => Ok(outcome.clone()?),
        StopCause::Lifetime | StopCause::Idle => Err(Error::LimitReached { cause }),
    }
}

/// A connection that is under way, seen from outside.
#[derive(Debug, Clone)]
pub struct Ongoing {
    id: u64,
    meter: Arc<Meter>,
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

impl Ongoing {
    /// Its number in events.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it has carried so far.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Waits until it has ended, and says how.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Connection`] when it could not be used: nobody listens at the VM's port, say; [`Error::LimitReached`].
    pub async fn ended(&self) -> Result<End, Error> {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| matches!(state, State::Ended(..))).await;
        match ended.as_deref() {
            Ok(State::Ended(outcome, cause)) => how_it_ended(outcome, *cause),
            // Its task has gone without a word, with the runtime or by a fault of ours.
            _ => Err(ConnectionError::Stopped.into()),
        }
    }

    /// How it has ended; none before it has.
    pub fn outcome(&self) -> Option<Result<End, Error>> {
        match &*self.state.borrow() {
            State::Ended(outcome, cause) => Some(how_it_ended(outcome, *cause)),
            State::Opening | State::Open => None,
        }
    }

    /// Ends it: what was read already is still delivered.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// A connection as a stream. Dropping it ends the connection and releases its token.
#[derive(Debug)]
pub struct Connection {
    stream: DuplexStream,
    ongoing: Ongoing,
    is_dropped: Arc<AtomicBool>,
}

impl Connection {
    /// What is known of it besides its bytes.
    pub fn ongoing(&self) -> &Ongoing {
        &self.ongoing
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Before the stream ends: its end alone may be that of one direction.
        self.is_dropped.store(true, Ordering::Release);
    }
}

/// The relay's side of a [`Connection`].
struct FarSide {
    stream: DuplexStream,
    is_dropped: Arc<AtomicBool>,
}

impl Local for FarSide {
    fn is_gone(&self) -> bool {
        self.is_dropped.load(Ordering::Acquire)
    }

    fn resets_when_closed(&self) -> bool {
        false
    }
}

/// Reads and writes what a field `stream` does.
macro_rules! stream {
    ($outer:ty) => {
        impl AsyncRead for $outer {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_read(context, buffer)
            }
        }

        impl AsyncWrite for $outer {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.stream).poll_write(context, bytes)
            }

            fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_flush(context)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_shutdown(context)
            }
        }
    };
}

stream!(Connection);
stream!(FarSide);
