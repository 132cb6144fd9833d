//! One process on one session channel: its streams, terminal, signals and end (RFC 4254 §6).
//!
//! How a process and a terminal are made differs by platform and is in `sys`; what may be started, and
//! with which environment, is decided in `connection`.

use std::time::Duration;

use bytes::BytesMut;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::inbox::Inbound;
use super::sys::{self, Exit, Group, Process, Size};

/// What a client may tell a running process besides its input.
pub(super) enum Control {
    Resize(Size),
    Signal(Sig),
}

/// The way to a running process. Bounded by [`CONTROLS`]; what does not fit is lost.
pub(super) fn controls() -> (mpsc::Sender<Control>, mpsc::Receiver<Control>) {
    mpsc::channel(CONTROLS)
}

/// Serves `process` until it has ended and its output is sent, then reports its end and closes the
/// channel; or until the client closes, then ends the process. The process never outlives this future.
pub(super) async fn serve(
    process: Process,
    inbound: Inbound,
    outbound: ChannelWriteHalf<Msg>,
    handle: Handle,
    mut controls: mpsc::Receiver<Control>,
) {
    let Process { mut child, group, mut input, output, errors, terminal } = process;
    let Inbound { mut data, closed, .. } = inbound;

    // A child that has closed its input, or has ended, makes the copy fail: no business of the client's.
    let feed = async {
        _ = copy(&mut data, &mut input).await;
        _ = input.shutdown().await;
        drop(input);
    };
    let drain = async {
        let errors = async {
            if let Some(errors) = errors {
                send(errors, &outbound, Stream::Errors).await;
            }
        };
        tokio::join!(send(output, &outbound, Stream::Output), errors);
    };
    tokio::pin!(feed, drain);

    let (mut fed, mut drained, mut ended) = (false, false, None);
    while ended.is_none() || !drained {
        tokio::select! {
            () = closed.cancelled() => {
                if ended.is_none() {
                    end(child, group).await;
                }
                return;
            }
            status = child.wait(), if ended.is_none() => ended = Some(status),
            () = &mut drain, if !drained => drained = true,
            () = &mut feed, if !fed => fed = true,
            Some(control) = controls.recv() => match (control, &terminal) {
                (Control::Signal(signal), _) if ended.is_none() => group.signal(&signal),
                // A terminal that has hung up needs no size.
                (Control::Resize(size), Some(terminal)) => _ = terminal.resize(size),
                _ => {}
            },
        }
    }

    // All of these fail only when the connection has ended.
    match ended.and_then(Result::ok).map(sys::exit) {
        Some(Exit::Status(status)) => _ = outbound.exit_status(status).await,
        Some(Exit::Signal(signal)) => {
            let (message, language) = (String::new(), String::new());
            _ = handle.exit_signal_request(outbound.id(), signal, false, message, language).await;
        }
        None => {}
    }
    _ = outbound.eof().await;
    _ = outbound.close().await;
}

/// Which of a channel's two outgoing streams.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Output,
    Errors,
}

/// Sends what `source` yields until it ends or fails, never more than the client's window: the source is
/// read only when there is room. A terminal without a process fails with `EIO`, which is its end.
pub(super) async fn send(
    mut source: impl AsyncRead + Unpin,
    outbound: &ChannelWriteHalf<Msg>,
    stream: Stream,
) {
    let mut buffer = BytesMut::with_capacity(READ_BUFFER);
    loop {
        if buffer.capacity() < READ_BUFFER / 4 {
            buffer.reserve(READ_BUFFER);
        }
        match source.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let data = buffer.split().freeze();
        let sent = match stream {
            Stream::Output => outbound.data_bytes(data).await,
            Stream::Errors => outbound.extended_data_bytes(EXTENDED_DATA_STDERR, data).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Hangs up, as sshd does to a terminal's processes, and kills what does not listen.
async fn end(mut child: Child, group: Group) {
    group.signal(&Sig::HUP);
    if timeout(HANG_UP_GRACE, child.wait()).await.is_err() {
        group.signal(&Sig::KILL);
        _ = child.kill().await;
    }
}

/// Requests that may wait for a process's task, which takes them at once: a burst of window sizes.
const CONTROLS: usize = 64;

/// A pipe's capacity on Linux, in bytes (pipe(7)).
const READ_BUFFER: usize = 64 << 10;

/// The time a process gets to end after SIGHUP. Our choice: long enough for a shell to save its history.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254 §5.2).
const EXTENDED_DATA_STDERR: u32 = 1;
