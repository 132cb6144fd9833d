//! A running `bastide tunnel`, from its "ready" to its Ctrl-C. It leaves out what goes through it.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::{Outcome, Program, Running};

/// A `bastide tunnel` on one local port.
pub struct Tunnel {
    running: Running,
    port: u16,
}

/// Turns a connection that hangs into a failure; what waits for two busy cores needs a fraction of it.
const PATIENCE: Duration = Duration::from_secs(120);

impl Tunnel {
    /// Starts `program`, a `bastide tunnel` without `-o json`, and waits until it is ready.
    pub fn start(program: Program) -> Self {
        let mut running = program.start();
        let line = running.stderr_line("Tunnel is ready, connect on port ");
        let port = line.rsplit(' ').next().unwrap().parse().unwrap();
        running.stderr_line("Ctrl + C to close");
        Self { running, port }
    }

    /// Its local port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Waits for a line on standard error that holds `text`.
    pub fn stderr_line(&mut self, text: &str) -> String {
        self.running.stderr_line(text)
    }

    /// A connection through it.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Waits for its end.
    pub fn finish(self) -> Outcome {
        self.running.finish()
    }

    /// Ends it as a user does, by Ctrl-C; it has to say so by its status.
    #[track_caller]
    pub fn interrupt(self) -> Outcome {
        self.running.signal(Signal::INT);
        self.running.finish().expect_code(130)
    }
}
