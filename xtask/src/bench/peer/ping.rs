//! Round trips of one byte over TLS to the far end with nothing in between. What a client adds is what takes
//! longer than this.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use rustls::{ClientConnection, StreamOwned};

use super::copy::{config, connect};

/// Prints the times in nanoseconds, on one line, without the first tenth.
pub(crate) fn run(authority: &Path, target: SocketAddr, count: usize) -> Result<()> {
    let (socket, name) = connect(target)?;
    let mut stream = StreamOwned::new(ClientConnection::new(config(authority)?, name)?, socket);
    let mut byte = [b'x'];
    let mut times = Vec::with_capacity(count);
    for number in 0..count + count / 10 {
        let from = Instant::now();
        stream.write_all(&byte).context("the far end closed")?;
        stream.read_exact(&mut byte).context("no answer")?;
        if number >= count / 10 {
            times.push(from.elapsed().as_nanos().to_string());
        }
    }
    println!("{}", times.join(" "));
    Ok(())
}
