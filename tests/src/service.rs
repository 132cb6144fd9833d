//! What a VM's port leads to when a test wants to be the VM itself. It leaves out what is said over it.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A service on a free loopback port, with a thread for each connection.
pub struct Service {
    port: u16,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Service {
    /// Runs `serve` for each connection, which is closed when it returns.
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        let acceptor = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let serve = Arc::clone(&serve);
                connections.push(std::thread::spawn(move || serve(stream)));
            }
            for connection in connections {
                // What went wrong here shows on the other side.
                drop(connection.join());
            }
        });
        Self { port, stop, acceptor: Some(acceptor) }
    }

    /// Sends everything back.
    pub fn echo() -> Self {
        Self::start(|mut stream| {
            let mut back = stream.try_clone().unwrap();
            // A client that goes away in the middle ends it too.
            if std::io::copy(&mut stream, &mut back).is_ok() {
                drop(back.flush());
                drop(back.shutdown(Shutdown::Write));
            }
        })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(acceptor) = self.acceptor.take()
            && !std::thread::panicking()
        {
            drop(acceptor.join());
        }
    }
}

/// A local port that was free a moment ago, for programs that have to be told one.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
