//! The load that clients are put under, and what it costs them as `/proc` tells it: streams in one direction,
//! ping-pong, connections that only stay. Which client, how often and what it must reach is in `rows`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

/// What a stretch of streaming came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streamed {
    /// CPU seconds of the client for each 10⁹ bytes, user and system.
    pub(super) cpu: f64,
    /// The same of the far end.
    pub(super) far_cpu: f64,
    /// 10⁶ bytes a second.
    pub(super) rate: f64,
}

/// Streams over `connections` new connections. Counted is a window in the middle: neither the set-up nor the
/// end, only the steady state.
pub(super) fn stream(
    port: u16,
    client: u32,
    far: u32,
    direction: Direction,
    connections: usize,
    window: Duration,
) -> Result<Streamed> {
    let (stop, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    let sockets: Vec<TcpStream> = (0..connections).map(|_| connect(port)).collect::<Result<_>>()?;
    thread::scope(|scope| {
        for socket in &sockets {
            let (stop, bytes) = (&stop, &bytes);
            scope.spawn(move || {
                let (mut socket, mut buffer) = (socket, vec![0x5A; CHUNK]);
                while !stop.load(Ordering::Relaxed) {
                    let moved = match direction {
                        Direction::Up => socket.write(&buffer),
                        Direction::Down => socket.read(&mut buffer),
                    };
                    match moved {
                        Ok(count) if count > 0 => bytes.fetch_add(count as u64, Ordering::Relaxed),
                        // The count tells: a window without bytes is an error below.
                        _ => return,
                    };
                }
            });
        }
        let look = || -> Result<(f64, f64, u64, Instant)> {
            Ok((cpu(client)?, cpu(far)?, bytes.load(Ordering::Relaxed), Instant::now()))
        };
        thread::sleep(WARM_UP);
        let before = look();
        thread::sleep(window);
        let after = look();
        stop.store(true, Ordering::Relaxed);
        for socket in &sockets {
            // Wakes its thread. One that has ended by itself is not connected any more.
            let _ = socket.shutdown(Shutdown::Both);
        }
        let (before, after) = (before?, after?);
        let moved = (after.2 - before.2) as f64;
        ensure!(moved > 0.0, "no byte came through port {port}");
        Ok(Streamed {
            cpu: (after.0 - before.0) / moved * 1e9,
            far_cpu: (after.1 - before.1) / moved * 1e9,
            rate: moved / 1e6 / (after.3 - before.3).as_secs_f64(),
        })
    })
}

/// Times of `count` round trips of one byte, each sent after the last one came back; sorted.
pub(super) fn ping_pong(port: u16, count: usize) -> Result<Vec<Duration>> {
    let mut socket = connect(port)?;
    let mut byte = [b'x'];
    let mut times = Vec::with_capacity(count);
    for number in 0..count + count / 10 {
        let from = Instant::now();
        socket.write_all(&byte).context("the client closed")?;
        socket.read_exact(&mut byte).context("no answer")?;
        if number >= count / 10 {
            times.push(from.elapsed());
        }
    }
    times.sort();
    Ok(times)
}

/// [`ping_pong`] while another connection to the same port downloads as fast as it can: the far end begins at a `p`.
pub(super) fn ping_pong_beside_bulk(port: u16, count: usize) -> Result<Vec<Duration>> {
    let bulk = connect(port)?;
    (&bulk).write_all(b"p").context("the client closed")?;
    thread::scope(|scope| {
        let (sender, flows) = std::sync::mpsc::channel();
        let mut reader = &bulk;
        scope.spawn(move || {
            let mut buffer = vec![0; CHUNK];
            let mut bytes = 0;
            while let Ok(received @ 1..) = reader.read(&mut buffer) {
                bytes += received;
                // Nobody listens any more after the first time.
                if bytes > FLOWING {
                    let _ = sender.send(());
                }
            }
        });
        let flowing = flows.recv_timeout(PATIENCE).context("the bulk connection brings nothing");
        let times = flowing.and_then(|()| ping_pong(port, count));
        // Wakes its thread.
        let _ = bulk.shutdown(Shutdown::Both);
        times
    })
}

/// Connects and waits for the first byte; how long that took from `connect` on.
pub(super) fn first_byte(port: u16) -> Result<(TcpStream, Duration)> {
    let from = Instant::now();
    let mut socket = connect(port)?;
    socket.read_exact(&mut [0]).context("no first byte came")?;
    Ok((socket, from.elapsed()))
}

/// Connections that say something in both directions, all the time, until the time is over; the most memory that
/// the client had resident meanwhile, in bytes.
pub(super) fn busy(sockets: &[TcpStream], client: u32, time: Duration) -> Result<u64> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for socket in sockets {
            let stop = &stop;
            let started = thread::Builder::new().stack_size(SMALL_STACK).spawn_scoped(scope, move || {
                let mut socket = socket;
                let mut buffer = vec![0x5A; BUSY_CHUNK];
                while !stop.load(Ordering::Relaxed) {
                    let echoed = socket.write_all(&buffer).and_then(|()| socket.read_exact(&mut buffer));
                    if echoed.is_err() {
                        return;
                    }
                }
            });
            started.context("cannot start a thread")?;
        }
        let mut most = 0;
        let until = Instant::now() + time;
        while Instant::now() < until {
            most = most.max(resident(client)?);
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        for socket in sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        Ok(most)
    })
}

pub(super) fn connect(port: u16) -> Result<TcpStream> {
    let socket =
        TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("cannot connect to port {port}"))?;
    socket.set_nodelay(true).context("cannot switch Nagle's algorithm off")?;
    socket.set_read_timeout(Some(PATIENCE)).context("cannot set a time limit")?;
    Ok(socket)
}

/// CPU seconds of a process and its children so far: the scheduler's own count in nanoseconds, thread by thread
/// (Documentation/scheduler/sched-stats.rst), so that threads must outlive the window.
pub(super) fn cpu(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")? {
        let task = task?.path();
        // A thread may end between the two look-ups.
        let Some(text) = gone_is_none(std::fs::read_to_string(task.join("schedstat")))? else { continue };
        let first = text.split(' ').next().and_then(|word| word.parse::<f64>().ok());
        nanoseconds += first.context("schedstat does not begin with a number")?;
        let children = gone_is_none(std::fs::read_to_string(task.join("children")))?.unwrap_or_default();
        for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
            nanoseconds += cpu(child).unwrap_or(0.0) * 1e9;
        }
    }
    Ok(nanoseconds / 1e9)
}

/// Bytes of a process that are in memory (proc(5), `VmRSS`).
pub(super) fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in status")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kibibytes * 1024)
}

/// After so many bytes, buffers have grown and a stream is in its stride.
const FLOWING: usize = 64 * 1024 * 1024;
/// What a fast program reads or writes at once.
const CHUNK: usize = 256 * 1024;
/// A keystroke's answer, a page, a row: more than fits a TLS record.
const BUSY_CHUNK: usize = 32 * 1024;
/// For a thousand threads.
const SMALL_STACK: usize = 128 * 1024;
/// Buffers grow and windows open in the first moments.
const WARM_UP: Duration = Duration::from_millis(300);
/// A client that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn gone_is_none(result: std::io::Result<String>) -> Result<Option<String>> {
    match result {
        Ok(text) => Ok(Some(text)),
        // ESRCH (3) where the file was open already.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(None),
        Err(error) => Err(error).context("cannot read from /proc"),
    }
}
