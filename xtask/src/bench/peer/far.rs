//! The far end: what all clients under measurement lead to. One thread a connection, blocking, so that it costs
//! little and says nothing between the bytes. The Azure before the WebSocket is in `azure`.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{azure, frames, listen};

/// What a connection leads to, by the port of the VM that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Sends everything back.
    Echo,
    /// Takes everything, says nothing.
    Swallow,
    /// Sends without end, over a WebSocket in frames of so many payload bytes.
    Produce(usize),
    /// Says one byte at once and then takes everything.
    Hello,
    /// Sends without end once it has heard a `p`, and everything else back.
    Both,
}

/// The numbers under which `cargo xtask bench` asks for the services.
pub(crate) const PORTS: &[(u16, Service)] = &[
    (7, Service::Echo),
    (9, Service::Swallow),
    (19_004, Service::Produce(4 * 1024)),
    (19_016, Service::Produce(16 * 1024)),
    (19_064, Service::Produce(64 * 1024)),
    (22, Service::Hello),
    (21, Service::Both),
];

/// A connection of a client.
pub(crate) type Stream = StreamOwned<ServerConnection, ReadAhead>;

/// Listens once for the Azure and once for each service over plain TLS; writes `ca.pem` and `server.pem` into
/// `folder`, prints one line of JSON, `{"azure": PORT, "7": PORT, …}`, and serves until it is killed.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let config = config(folder)?;
    let (listener, azure_port) = listen()?;
    let mut ports = serde_json::Map::from_iter([("azure".to_owned(), azure_port.into())]);
    let mut threads = vec![serve(listener, Arc::clone(&config), azure::serve)];
    for &(number, service) in PORTS {
        let (listener, port) = listen()?;
        ports.insert(number.to_string(), port.into());
        threads.push(serve(listener, Arc::clone(&config), move |mut stream| plain(&mut stream, service)));
    }
    println!("{}", serde_json::Value::from(ports));
    for thread in threads {
        drop(thread.join());
    }
    Ok(())
}

/// A service over a WebSocket that has just been opened; `early` came with the request.
pub(crate) fn framed(stream: &mut Stream, service: Service, early: Vec<u8>) -> io::Result<()> {
    match service {
        Service::Produce(payload) => produce(stream, &frames::row(payload, BATCH)),
        Service::Swallow => swallow(stream),
        Service::Hello => {
            let mut hello = Vec::new();
            frames::push(&mut hello, b"h");
            stream.write_all(&hello)?;
            swallow(stream)
        }
        Service::Echo | Service::Both => {
            let (mut bytes, mut out) = (early, Vec::new());
            let mut scratch = [0; 4096];
            loop {
                frames::echo(&mut bytes, &mut out);
                // Behind the two bytes of a short frame's head.
                if service == Service::Both && out.get(2) == Some(&b'p') {
                    return produce(stream, &frames::row(BULK, BATCH));
                }
                stream.write_all(&out)?;
                out.clear();
                let count = stream.read(&mut scratch)?;
                if count == 0 {
                    return Ok(());
                }
                bytes.extend_from_slice(scratch.get(..count).unwrap_or_default());
            }
        }
    }
}

/// Payload of the frames of [`Service::Both`].
const BULK: usize = 16 * 1024;
/// Bytes in one write: four TLS records, as a fast server does.
const BATCH: usize = 64 * 1024;
/// Bytes that one read takes from the socket: rustls asks for less than a record at a time.
const READ_AHEAD: usize = 256 * 1024;
/// A thread's stack: a thousand of them must not be what is measured.
const STACK: usize = 256 * 1024;

fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    connection: impl Fn(Stream) -> io::Result<()> + Send + Sync + 'static,
) -> std::thread::JoinHandle<()> {
    let connection = Arc::new(connection);
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let (config, connection) = (Arc::clone(&config), Arc::clone(&connection));
            // Ends with its connection, at the latest with this process.
            let started = std::thread::Builder::new().stack_size(STACK).spawn(move || {
                let _ = tcp.set_nodelay(true);
                let Ok(mut tls) = ServerConnection::new(config) else { return };
                tls.set_buffer_limit(None);
                // Clients come and go as they like.
                let _ = connection(StreamOwned::new(tls, ReadAhead::new(tcp)));
            });
            drop(started);
        }
    })
}

fn plain(stream: &mut Stream, service: Service) -> io::Result<()> {
    match service {
        Service::Produce(_) => produce(stream, &vec![0x5A; BATCH]),
        Service::Swallow => swallow(stream),
        Service::Hello => {
            stream.write_all(b"h")?;
            swallow(stream)
        }
        Service::Echo | Service::Both => {
            let mut scratch = [0; 4096];
            loop {
                let count = stream.read(&mut scratch)?;
                if count == 0 {
                    return Ok(());
                }
                if service == Service::Both && scratch.first() == Some(&b'p') {
                    return produce(stream, &vec![0x5A; BATCH]);
                }
                stream.write_all(scratch.get(..count).unwrap_or_default())?;
            }
        }
    }
}

/// Sends `ring` over and over, in writes of [`BATCH`] bytes, so that every TLS record but none of the frames
/// decides where a write ends.
fn produce(stream: &mut Stream, ring: &[u8]) -> io::Result<()> {
    let mut from = 0;
    loop {
        let (before, after) = ring.split_at(from);
        let tail = after.get(..BATCH).unwrap_or(after);
        let head = before.get(..BATCH - tail.len()).unwrap_or(before);
        let count = stream.write_vectored(&[IoSlice::new(tail), IoSlice::new(head)])?;
        if count == 0 {
            return Ok(());
        }
        from = (from + count) % ring.len();
    }
}

fn swallow(stream: &mut Stream) -> io::Result<()> {
    let mut scratch = vec![0; 16 * 1024];
    while stream.read(&mut scratch)? > 0 {}
    Ok(())
}

/// A certificate for `localhost`, which is its own authority.
fn config(folder: &Path) -> Result<Arc<ServerConfig>> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
    let certificate = made.cert.pem();
    std::fs::write(folder.join("ca.pem"), &certificate).context("cannot write ca.pem")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A socket that is read in large parts.
pub(crate) struct ReadAhead {
    tcp: TcpStream,
    ahead: Vec<u8>,
    from: usize,
    to: usize,
}

impl ReadAhead {
    fn new(tcp: TcpStream) -> ReadAhead {
        ReadAhead { tcp, ahead: Vec::new(), from: 0, to: 0 }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.from == self.to {
            // An idle connection, one of a thousand, starts small.
            let size = if self.to == self.ahead.len() {
                (4 * self.to).clamp(4096, READ_AHEAD)
            } else {
                self.ahead.len()
            };
            self.ahead.resize(size, 0);
            self.from = 0;
            self.to = self.tcp.read(&mut self.ahead)?;
        }
        let mut ahead = self.ahead.get(self.from..self.to).unwrap_or_default();
        let count = ahead.read(out)?;
        self.from += count;
        Ok(count)
    }
}

impl Write for ReadAhead {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.tcp.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
