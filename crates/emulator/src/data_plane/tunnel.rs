//! One WebSocket from its 101 to its end: bytes of the machine as binary frames, frames of the
//! client as bytes to the machine (protocol.md §3). One task owns it. Who may open one is
//! `tokens.rs`, what goes wrong on command `mishap.rs`.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::frames::{Broken, FrameReader, Piece, write_close, write_pong};
use super::mishap::{self, Doom, Fate, Mishap, Pings};
use super::tokens::Opening;
use crate::azure::Azure;
use crate::faults::{At, Ending};
use crate::services::Wire;
use crate::socket::Socket;
use crate::transcript::{End, Tunnel};

/// The client's end.
pub(crate) type Client = TlsStream<BufReader<Socket>>;

/// Relays until either end is done or a mishap is due, then closes the client's connection. `early` came
/// before the 101 had gone out. A machine that could not be reached ends it at once, as the live service
/// does (protocol.md §4). Not cancel safe: a dropped tunnel sends no Close frame and leaves no end in the
/// transcript.
pub(crate) async fn run(
    azure: &Azure,
    opening: Opening,
    fate: Fate,
    client: Client,
    early: &[u8],
    machine: io::Result<Box<dyn Wire>>,
) {
    let mut pump = Pump {
        azure,
        session: opening.session,
        disconnected: opening.disconnected,
        fate,
        reader: FrameReader::default(),
        wire: BytesMut::from(early),
        to_machine: BytesMut::new(),
        to_client: BytesMut::new(),
        sums: Tunnel { early_bytes: early.len() as u64, ..Tunnel::default() },
        next_pong: 0,
        end: None,
        client_done: false,
        close_sent: false,
    };
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let mut machine = machine.ok();
    match &mut machine {
        Some(machine) => pump.relay(&mut client_read, &mut client_write, machine).await,
        None if pump.fate.due(&pump.sums).is_some() => {}
        None => pump.close(CLOSE_NORMAL, End::Refused),
    }
    let client = client_read.unsplit(client_write);
    match pump.fate.due(&pump.sums) {
        Some(mishap) if !pump.close_sent => mishap::strike(mishap, &mut pump, client, machine).await,
        _ => pump.say_goodbye(client).await,
    }
    pump.sums.end = Some(pump.end.unwrap_or(End::Lost));
    pump.note();
}

/// RFC 6455 section 7.4.1.
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_INTERNAL: u16 = 1011;

/// Bytes that are held in each direction before the side they come from has to wait.
const HIGH_WATER: usize = 256 * 1024;
/// Bytes that one read from the machine takes: several frames for one TLS write.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// How long the machine may take to read what is left and to answer once the client has closed: on
/// loopback far more than is needed, and little enough not to hold up a test.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How long the client may take to read what is left and to answer a Close frame.
pub(super) const GOODBYE_TIME: Duration = Duration::from_secs(5);

/// A tunnel at work.
pub(super) struct Pump<'a> {
    pub(super) azure: &'a Azure,
    session: u64,
    /// Is cancelled when ARM disconnects the session.
    disconnected: CancellationToken,
    fate: Fate,
    reader: FrameReader,
    /// Bytes of the client that are not yet frames.
    pub(super) wire: BytesMut,
    pub(super) to_machine: BytesMut,
    pub(super) to_client: BytesMut,
    sums: Tunnel,
    /// Number of the oldest ping that may still be answered.
    next_pong: u64,
    pub(super) end: Option<End>,
    /// The client has sent a Close frame or has gone.
    client_done: bool,
    close_sent: bool,
}

impl Pump<'_> {
    /// Until a Close frame is queued for the client, or a mishap is due.
    async fn relay<R, W>(&mut self, client_read: &mut R, client_write: &mut W, machine: &mut Box<dyn Wire>)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (mut machine_read, mut machine_write) = tokio::io::split(machine);
        let mut scratch = vec![0; READ_BYTES.max(self.fate.style.frame_bytes)];
        let mut stopped = std::pin::pin!(self.azure.stop.cancelled());
        let mut disconnected = Box::pin(self.disconnected.clone().cancelled_owned());
        let mut news = Box::pin(self.fate.news.clone().cancelled_owned());
        let mut machine_writable = true;
        let mut machine_told = false;
        let mut unflushed = false;
        // Runs once the client is done, anew whenever the machine takes some of what is left for it.
        let mut deadline = Instant::now();
        self.take_frames();
        while !self.close_sent && self.fate.due(&self.sums).is_none() {
            if !self.client_done {
                deadline = Instant::now() + ANSWER_TIME;
            } else if !machine_told && (self.to_machine.is_empty() || !machine_writable) {
                machine_told = true;
                let _ = tokio::time::timeout_at(deadline, machine_write.shutdown()).await;
            }
            self.wire.reserve(READ_BYTES);
            let room = scratch.get_mut(..self.fate.room(&self.sums)).unwrap_or_default();
            tokio::select! {
                read = machine_read.read(room), if self.to_client.len() < HIGH_WATER => match read {
                    Ok(0) => self.close(CLOSE_NORMAL, End::Machine),
                    Ok(count) => self.take_from_machine(scratch.get(..count).unwrap_or_default()),
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
                        Ok(_) => self.take_frames(),
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
                () = &mut stopped => self.close(CLOSE_GOING_AWAY, End::Stopped),
                () = &mut disconnected => self.close(CLOSE_GOING_AWAY, End::Disconnected),
                () = &mut news => {
                    self.fate.ask_again(self.azure);
                    news = Box::pin(self.fate.news.clone().cancelled_owned());
                }
            }
        }
    }

    /// Queues bytes of the machine for the client.
    pub(super) fn take_from_machine(&mut self, bytes: &[u8]) {
        self.sums.received += bytes.len() as u64;
        self.fate.style.write(bytes, &mut self.to_client);
        if let Some(rare) = &self.fate.style.rare {
            self.sums.pings = rare.next_ping;
        }
        self.note();
    }

    /// Takes whole and partial frames off the wire. What is no frame queues a Close frame.
    pub(super) fn take_frames(&mut self) {
        if self.try_take_frames().is_err() {
            self.close(CLOSE_PROTOCOL, End::Protocol);
        }
        self.note();
    }

    /// Writes the sums into the transcript.
    fn note(&self) {
        self.azure.recorder.tunnel(self.session, &self.sums);
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
                Piece::Ping(payload) => match self.fate.pings {
                    Pings::Answered => write_pong(&payload, &mut self.to_client),
                    Pings::Ignored => {}
                    Pings::Reset => {
                        self.fate.doom =
                            Some(Doom { at: At::Upgrade, mishap: Mishap::Ending(Ending::Reset) });
                        return Ok(());
                    }
                },
                Piece::Pong(payload) => self.judge_pong(&payload),
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

    /// A pong may pass over pings, but not go back (RFC 6455 section 5.5.3).
    fn judge_pong(&mut self, payload: &[u8]) {
        let number = payload.try_into().map(u64::from_be_bytes);
        if let Ok(number) = number
            && (self.next_pong..self.sums.pings).contains(&number)
        {
            self.next_pong = number + 1;
            self.sums.pongs += 1;
        }
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

    /// Ends the tunnel as if the service wanted it.
    pub(super) async fn close_with(&mut self, client: Client, code: u16) {
        self.close(code, End::Fault);
        self.say_goodbye(client).await;
    }

    /// Writes what is left and waits for the client's Close frame, all within [`GOODBYE_TIME`]; then sends
    /// close_notify.
    async fn say_goodbye(&mut self, mut client: Client) {
        let goodbye = async {
            client.write_all_buf(&mut self.to_client).await?;
            client.flush().await?;
            while !self.client_done {
                self.wire.reserve(READ_BYTES);
                if client.read_buf(&mut self.wire).await? == 0 || self.try_take_frames().is_err() {
                    break;
                }
                self.to_machine.clear();
            }
            io::Result::Ok(())
        };
        // A client that does not answer is left; the end says who closed first.
        let _ = tokio::time::timeout(GOODBYE_TIME, goodbye).await;
        // A client that has gone can't take close_notify, and need not.
        let _ = tokio::time::timeout(GOODBYE_TIME, client.shutdown()).await;
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
