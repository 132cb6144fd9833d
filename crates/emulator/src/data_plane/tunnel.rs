//! One WebSocket from its 101 to its end: bytes of the machine as binary frames, frames of the
//! client as bytes to the machine (protocol.md §3). One task owns it. Who may open one is
//! `tokens.rs`.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::frames::{Broken, FrameReader, Piece, write_binary, write_close, write_pong};
use crate::services::Wire;
use crate::transcript::{End, Recorder, Tunnel};

/// What a tunnel needs besides its two ends.
pub(crate) struct Options<'a> {
    /// Number of its session.
    pub(crate) session: u64,
    /// Largest payload towards the client, in bytes.
    pub(crate) frame_bytes: usize,
    pub(crate) recorder: &'a Recorder,
    /// Ends the tunnel with a Close frame.
    pub(crate) stop: &'a CancellationToken,
}

/// Relays until either end is done, then closes the client's connection. `early` came before the 101
/// had gone out. A machine that could not be reached ends it at once, as the live service does
/// (protocol.md §4). Not cancel safe: a dropped tunnel sends no Close frame and leaves no end in the
/// transcript.
pub(crate) async fn run<C>(client: C, early: &[u8], machine: io::Result<Box<dyn Wire>>, options: Options<'_>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut pump = Pump {
        reader: FrameReader::default(),
        wire: BytesMut::from(early),
        to_machine: BytesMut::new(),
        to_client: BytesMut::new(),
        sums: Tunnel { early_bytes: early.len() as u64, ..Tunnel::default() },
        end: None,
        client_done: false,
        close_sent: false,
        frame_bytes: options.frame_bytes,
    };
    let (mut client_read, mut client_write) = tokio::io::split(client);
    match machine {
        Ok(machine) => pump.relay(&mut client_read, &mut client_write, machine, &options).await,
        Err(_) => pump.close(CLOSE_NORMAL, End::Refused),
    }
    pump.say_goodbye(&mut client_read, &mut client_write).await;
    pump.sums.end = Some(pump.end.unwrap_or(End::Lost));
    options.recorder.tunnel(options.session, &pump.sums);
    // Sends close_notify. A client that has gone can't take it, and need not.
    let _ = tokio::time::timeout(GOODBYE_TIME, client_write.shutdown()).await;
}

/// RFC 6455 section 7.4.1.
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_INTERNAL: u16 = 1011;

/// Bytes that are held in each direction before the side they come from has to wait.
const HIGH_WATER: usize = 256 * 1024;
/// Bytes that one read from the machine takes: several frames for one TLS write.
const READ_BYTES: usize = 64 * 1024;
/// How long the machine may take to read what is left and to answer once the client has closed: on
/// loopback far more than is needed, and little enough not to hold up a test.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How long the client may take to read what is left and to answer a Close frame.
const GOODBYE_TIME: Duration = Duration::from_secs(5);

struct Pump {
    reader: FrameReader,
    /// Bytes of the client that are not yet frames.
    wire: BytesMut,
    to_machine: BytesMut,
    to_client: BytesMut,
    sums: Tunnel,
    end: Option<End>,
    /// The client has sent a Close frame or has gone.
    client_done: bool,
    close_sent: bool,
    frame_bytes: usize,
}

impl Pump {
    /// Until a Close frame is queued for the client.
    async fn relay<R, W>(
        &mut self,
        client_read: &mut R,
        client_write: &mut W,
        machine: Box<dyn Wire>,
        options: &Options<'_>,
    ) where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (mut machine_read, mut machine_write) = tokio::io::split(machine);
        let mut scratch = vec![0; READ_BYTES];
        let mut machine_writable = true;
        let mut machine_told = false;
        let mut unflushed = false;
        // Runs once the client is done, anew whenever the machine takes some of what is left for it.
        let mut deadline = Instant::now();
        if self.take_frames(options).is_err() {
            return;
        }
        while !self.close_sent {
            if !self.client_done {
                deadline = Instant::now() + ANSWER_TIME;
            } else if !machine_told && (self.to_machine.is_empty() || !machine_writable) {
                machine_told = true;
                let _ = tokio::time::timeout_at(deadline, machine_write.shutdown()).await;
            }
            self.wire.reserve(READ_BYTES);
            tokio::select! {
                read = machine_read.read(&mut scratch), if self.to_client.len() < HIGH_WATER => match read {
                    Ok(0) => self.close(CLOSE_NORMAL, End::Machine),
                    Ok(count) => {
                        let bytes = scratch.get(..count).unwrap_or_default();
                        self.sums.received += bytes.len() as u64;
                        write_binary(bytes, self.frame_bytes, &mut self.to_client);
                        options.recorder.tunnel(options.session, &self.sums);
                    }
                    Err(_) => self.close(CLOSE_INTERNAL, End::Machine),
                },
                written = push(client_write, &self.to_client), if unflushed || !self.to_client.is_empty() => match written {
                    Ok(count) => {
                        unflushed = count > 0;
                        self.to_client.advance(count);
                    }
                    Err(_) => {
                        self.to_client.clear();
                        unflushed = false;
                        self.lost();
                        self.close_sent = true;
                    }
                },
                read = client_read.read_buf(&mut self.wire), if !self.client_done && self.to_machine.len() < HIGH_WATER && self.to_client.len() < 2 * HIGH_WATER => {
                    match read {
                        Ok(0) | Err(_) => self.lost(),
                        Ok(_) => if self.take_frames(options).is_err() { return },
                    }
                    if !machine_writable {
                        self.to_machine.clear();
                    }
                },
                written = machine_write.write(&self.to_machine), if machine_writable && !self.to_machine.is_empty() => match written {
                    Ok(count) if count > 0 => {
                        self.to_machine.advance(count);
                        deadline = Instant::now() + ANSWER_TIME;
                    }
                    Ok(_) | Err(_) => {
                        // It may still have something to say; what it does not take is lost.
                        machine_writable = false;
                        self.to_machine.clear();
                    }
                },
                () = sleep_until(deadline), if self.client_done => self.close(CLOSE_NORMAL, End::Client),
                () = options.stop.cancelled() => self.close(CLOSE_GOING_AWAY, End::Stopped),
            }
        }
    }

    /// Takes whole and partial frames off the wire. An error means that a Close frame has been queued.
    fn take_frames(&mut self, options: &Options<'_>) -> Result<(), Broken> {
        let taken = self.try_take_frames();
        if taken.is_err() {
            self.close(CLOSE_PROTOCOL, End::Protocol);
        }
        options.recorder.tunnel(options.session, &self.sums);
        taken
    }

    fn try_take_frames(&mut self) -> Result<(), Broken> {
        while let Some(piece) = self.reader.next(&mut self.wire)? {
            match piece {
                Piece::Header(header, length) => {
                    self.sums.saw(&header, length);
                    // RFC 6455 sections 5.1 and 5.2. Continuation frames and text are only counted.
                    if header.mask.is_none() || header.rsv1 || header.rsv2 || header.rsv3 {
                        return Err(Broken);
                    }
                }
                Piece::Data(bytes) => {
                    self.sums.sent += bytes.len() as u64;
                    self.to_machine.extend_from_slice(&bytes);
                }
                Piece::Ping(payload) => write_pong(&payload, &mut self.to_client),
                Piece::Pong => {}
                Piece::Close(code) => {
                    self.sums.close_code = code;
                    self.client_done = true;
                    self.end.get_or_insert(End::Client);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The client's connection has ended without a Close frame.
    fn lost(&mut self) {
        self.client_done = true;
        self.end.get_or_insert(End::Lost);
    }

    fn close(&mut self, code: u16, end: End) {
        self.end.get_or_insert(end);
        self.close_sent = true;
        write_close(code, &mut self.to_client);
    }

    /// Writes what is left and waits for the client's Close frame, all within [`GOODBYE_TIME`].
    async fn say_goodbye<R, W>(&mut self, client_read: &mut R, client_write: &mut W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let goodbye = async {
            client_write.write_all_buf(&mut self.to_client).await?;
            client_write.flush().await?;
            while !self.client_done {
                self.wire.reserve(READ_BYTES);
                if client_read.read_buf(&mut self.wire).await? == 0 || self.try_take_frames().is_err() {
                    break;
                }
                self.to_machine.clear();
            }
            io::Result::Ok(())
        };
        // A client that does not answer is left; the end says who closed first.
        let _ = tokio::time::timeout(GOODBYE_TIME, goodbye).await;
    }
}

/// Writes some of the bytes, or flushes when there are none: so a flush comes after many frames.
async fn push<W: AsyncWrite + Unpin>(out: &mut W, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        out.flush().await?;
        return Ok(0);
    }
    match out.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}
