//! The plain TLS copy: the limit. A local port whose connections are copied to and from a TLS server, byte for
//! byte, with what is known to be fast and nothing else: no runtime (one thread and one `poll` a connection), 64
//! KiB from the local side at a time, all records of it in one write, 256 KiB from the wire at a time, all of its
//! plain text in one write. It leaves out everything that makes a good citizen: limits, time-outs, an orderly end.

#![expect(
    clippy::indexing_slicing,
    reason = "offsets are sums of what reads and writes of the same buffer returned"
)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::listen;

/// Which interface of rustls moves the bytes. Neither is the faster one in both directions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Api {
    /// `ClientConnection`: a copy less on the way out.
    Buffered,
    /// `UnbufferedClientConnection`: a copy or two less on the way in.
    Unbuffered,
}

/// Prints the port, then copies until it is killed.
pub(crate) fn run(api: Api, authority: &Path, target: SocketAddr) -> Result<()> {
    let (listener, port) = listen()?;
    let config = config(authority)?;
    println!("{port}");
    for local in listener.incoming() {
        let local = local.context("cannot accept")?;
        let config = Arc::clone(&config);
        // Ends with its connection, at the latest with this process.
        drop(std::thread::spawn(move || {
            let copied = match api {
                Api::Buffered => Buffered::connect(config, target).and_then(|tls| copy(local, tls)),
                Api::Unbuffered => Unbuffered::connect(config, target).and_then(|tls| copy(local, tls)),
            };
            if let Err(error) = copied {
                eprintln!("error: {error:#}");
            }
        }));
    }
    Ok(())
}

/// Bytes taken from the local side at a time.
const UP: usize = 64 * 1024;
/// Bytes taken from the wire at a time.
const DOWN: usize = 256 * 1024;

/// A TLS connection on a socket that does not block.
trait Tls {
    fn socket(&self) -> &TcpStream;
    /// Whether sealed bytes are left to be sent.
    fn is_sending(&self) -> bool;
    /// Makes records of the bytes; only when nothing is left to be sent.
    fn seal(&mut self, bytes: &[u8]) -> Result<()>;
    /// Sends what it can.
    fn send(&mut self) -> io::Result<usize>;
    /// Reads from the socket once, into what room there is.
    fn receive(&mut self) -> io::Result<usize>;
    /// Appends the plain text of all whole records to `out`.
    fn open(&mut self, out: &mut Vec<u8>) -> Result<()>;
}

fn copy(mut local: TcpStream, mut tls: impl Tls) -> Result<()> {
    local.set_nodelay(true)?;
    local.set_nonblocking(true)?;
    tls.socket().set_nonblocking(true)?;
    let mut up = vec![0; UP];
    let mut down = Vec::with_capacity(2 * DOWN);
    let mut written = 0;
    // Whether the socket had more when it was last read: a short read means that it had not.
    let (mut local_has, mut wire_has) = (true, true);
    let (mut local_ended, mut wire_blocked, mut local_blocked) = (false, false, false);
    loop {
        if local_has && !local_ended && !tls.is_sending() {
            match ready(local.read(&mut up))? {
                Some(0) => local_ended = true,
                Some(count) => {
                    local_has = count == up.len();
                    tls.seal(&up[..count])?;
                }
                None => local_has = false,
            }
        }
        if tls.is_sending() && !wire_blocked {
            wire_blocked = ready(tls.send())?.is_none();
        }
        if wire_has && down.is_empty() {
            match ready(tls.receive())? {
                Some(0) => return Ok(()),
                Some(count) => {
                    wire_has = count == DOWN;
                    tls.open(&mut down)?;
                }
                None => wire_has = false,
            }
        }
        if written < down.len() && !local_blocked {
            match ready(local.write(&down[written..]))? {
                Some(count) => written += count,
                None => local_blocked = true,
            }
        }
        if written == down.len() {
            down.clear();
            written = 0;
        }
        let up_waits = if tls.is_sending() { wire_blocked } else { !local_has || local_ended };
        let down_waits = if down.is_empty() { !wire_has } else { local_blocked };
        if up_waits && down_waits {
            if local_ended {
                return Ok(());
            }
            let waits_for = |read: bool, write: bool| {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, read);
                flags.set(PollFlags::OUT, write);
                flags
            };
            let wire = waits_for(down.is_empty(), tls.is_sending());
            let mut sockets = [
                PollFd::new(&local, waits_for(!tls.is_sending(), !down.is_empty())),
                PollFd::new(tls.socket(), wire),
            ];
            poll(&mut sockets, None).context("cannot wait")?;
            let [local_now, wire_now] = sockets.map(|socket| socket.revents());
            let can_read = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
            local_has |= local_now.intersects(can_read);
            wire_has |= wire_now.intersects(can_read);
            local_blocked &= !local_now.intersects(PollFlags::OUT | PollFlags::ERR);
            wire_blocked &= !wire_now.intersects(PollFlags::OUT | PollFlags::ERR);
        }
    }
}

/// None when the socket would block.
fn ready(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

pub(crate) fn config(authority: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority).context("cannot read the authority's certificate")?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

pub(crate) fn connect(target: SocketAddr) -> Result<(TcpStream, ServerName<'static>)> {
    let socket = TcpStream::connect(target).context("cannot connect")?;
    socket.set_nodelay(true)?;
    Ok((socket, ServerName::try_from("localhost")?))
}

struct Buffered {
    socket: TcpStream,
    tls: ClientConnection,
    ahead: Vec<u8>,
    filled: usize,
}

impl Buffered {
    fn connect(config: Arc<ClientConfig>, target: SocketAddr) -> Result<Buffered> {
        let (mut socket, name) = connect(target)?;
        let mut tls = ClientConnection::new(config, name)?;
        tls.set_buffer_limit(None);
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Buffered { socket, tls, ahead: vec![0; DOWN], filled: 0 })
    }
}

impl Tls for Buffered {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn is_sending(&self) -> bool {
        self.tls.wants_write()
    }

    fn seal(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.tls.writer().write_all(bytes)?)
    }

    fn send(&mut self) -> io::Result<usize> {
        self.tls.write_tls(&mut self.socket)
    }

    fn receive(&mut self) -> io::Result<usize> {
        self.filled = self.socket.read(&mut self.ahead)?;
        Ok(self.filled)
    }

    fn open(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let mut ahead = &self.ahead[..self.filled];
        while !ahead.is_empty() {
            self.tls.read_tls(&mut ahead)?;
            let plain = self.tls.process_new_packets()?.plaintext_bytes_to_read();
            let from = out.len();
            out.resize(from + plain, 0);
            self.tls.reader().read_exact(&mut out[from..])?;
        }
        Ok(())
    }
}

struct Unbuffered {
    socket: TcpStream,
    tls: UnbufferedClientConnection,
    sealed: Vec<u8>,
    sent: usize,
    sealed_to: usize,
    ahead: Vec<u8>,
    filled: usize,
}

impl Unbuffered {
    fn connect(config: Arc<ClientConfig>, target: SocketAddr) -> Result<Unbuffered> {
        let (socket, name) = connect(target)?;
        let tls = UnbufferedClientConnection::new(config, name)?;
        let mut this = Unbuffered {
            socket,
            tls,
            // A quarter more than is sealed at once: for the heads and tags of its records, and a handshake.
            sealed: vec![0; UP + UP / 4],
            sent: 0,
            sealed_to: 0,
            ahead: vec![0; DOWN],
            filled: 0,
        };
        loop {
            let UnbufferedStatus { mut discard, state } =
                this.tls.process_tls_records(&mut this.ahead[..this.filled]);
            let mut wants_more = false;
            let mut done = false;
            match state? {
                ConnectionState::EncodeTlsData(mut encode) => {
                    let count =
                        encode.encode(&mut this.sealed[this.sealed_to..]).map_err(|e| anyhow!("{e}"))?;
                    this.sealed_to += count;
                }
                ConnectionState::TransmitTlsData(transmit) => {
                    this.socket.write_all(&this.sealed[..this.sealed_to])?;
                    this.sealed_to = 0;
                    transmit.done();
                }
                ConnectionState::BlockedHandshake => wants_more = true,
                ConnectionState::ReadTraffic(_) => {
                    done = true;
                    discard = 0;
                }
                ConnectionState::WriteTraffic(_) => done = true,
                state => return Err(anyhow!("a handshake that ends in {state:?}")),
            }
            this.discard(discard);
            if done {
                return Ok(this);
            }
            if wants_more && this.receive()? == 0 {
                return Err(anyhow!("the far end closed in the handshake"));
            }
        }
    }

    fn discard(&mut self, count: usize) {
        self.ahead.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

impl Tls for Unbuffered {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn is_sending(&self) -> bool {
        self.sent < self.sealed_to
    }

    fn seal(&mut self, bytes: &[u8]) -> Result<()> {
        match self.tls.process_tls_records(&mut []).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                self.sealed_to = traffic.encrypt(bytes, &mut self.sealed).map_err(|e| anyhow!("{e}"))?;
                self.sent = 0;
                Ok(())
            }
            state => Err(anyhow!("cannot write now: {state:?}")),
        }
    }

    fn send(&mut self) -> io::Result<usize> {
        let count = self.socket.write(&self.sealed[self.sent..self.sealed_to])?;
        self.sent += count;
        Ok(count)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let count = self.socket.read(&mut self.ahead[self.filled..])?;
        self.filled += count;
        Ok(count)
    }

    fn open(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let mut from = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(&mut self.ahead[from..self.filled]);
            let more = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        out.extend_from_slice(record.payload);
                    }
                    true
                }
                ConnectionState::WriteTraffic(_) | ConnectionState::PeerClosed | ConnectionState::Closed => {
                    false
                }
                state => return Err(anyhow!("in the middle of a connection: {state:?}")),
            };
            from += discard;
            if !more {
                break;
            }
        }
        self.discard(from);
        Ok(())
    }
}
