//! A line with a length: forwards TCP connections and holds every byte back for a fixed time in each direction.
//! In user space, because kernels without `netem` are common. No loss, no limit of bandwidth.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A running line; it is cut when this value goes.
pub(super) struct Delay {
    pub(super) port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Delay {
    /// Forwards connections to `target` on loopback, `one_way` in each direction.
    ///
    /// The kernel's own handshake takes no time on loopback, so the first bytes of a connection wait for the
    /// round trip that it would take: they leave no earlier than `2 * one_way` after the connection was accepted.
    pub(super) fn new(target: u16, one_way: Duration) -> Result<Delay> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        let port = listener.local_addr().context("cannot tell the port")?.port();
        let open = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&open);
        // Ends with this program; a line is needed as long as that.
        drop(thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { return };
                let handshake = Instant::now() + 2 * one_way;
                for (from, to, earliest) in [(&near, &far, handshake), (&far, &near, Instant::now())] {
                    let _ = to.set_nodelay(true);
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
                    direction(from, to, earliest, one_way);
                }
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(near);
            }
        }));
        Ok(Delay { port, open })
    }

    /// Ends every connection that there is.
    pub(super) fn cut(&self) {
        for socket in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that has ended by itself is not connected any more.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Two threads: one reads and notes the time, the other waits and writes. They end with their connection.
fn direction(mut from: TcpStream, mut to: TcpStream, earliest: Instant, one_way: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    drop(thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }));
    drop(thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
            let sent = sender.send((Instant::now().max(earliest) + one_way, bytes));
            if count == 0 || sent.is_err() {
                return;
            }
        }
    }));
}
