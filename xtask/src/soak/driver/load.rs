//! The local programs: many connections at a time, of kinds that differ, each checked to its last byte. What the
//! weather may do to them is in `weather`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::client::{Closed, Said};
use crate::pattern::Pattern;
use crate::verdict::Verdict;
use crate::vm::{PIECE, Wish};
use crate::weather::Chronicle;

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) said: Arc<Said>,
    pub(crate) verdict: Arc<Verdict>,
    pub(crate) chronicle: Arc<Chronicle>,
}

/// A worker opens one connection after the other until `until`.
pub(crate) async fn work(place: Place, worker: u64, seed: u64, until: Instant) {
    let mut dice = StdRng::seed_from_u64(seed ^ (worker << 32));
    let mut number = 0;
    while Instant::now() < until {
        // Each connection has its own bytes: a worker makes fewer than 2^20.
        let connection = (worker << 20) | number;
        number += 1;
        let kind = Kind::random(&mut dice);
        let start = Instant::now();
        if timeout(LONGEST, one(&place, connection, kind, start)).await.is_err() {
            if kind.may_be_silenced_behind_data() && place.chronicle.excuses(start) {
                place.verdict.cut.fetch_add(1, Ordering::Relaxed);
            } else {
                place.verdict.fail(format!("connection {connection} ({kind:?}) hangs"));
            }
        }
    }
}

/// A minute to open (`--connect-timeout`), fifty seconds until a silence is noticed, and the rest for the bytes.
pub(crate) const LONGEST: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Up(u64),
    Down(u64),
    Both(u64, u64),
    PingPong {
        turns: u64,
        turn: u64,
    },
    SlowReader(u64),
    /// Gone after so many bytes; with a FIN, or so that the kernel resets.
    Vanish(u64),
}

impl Kind {
    fn random(dice: &mut StdRng) -> Kind {
        let mut bulk = || {
            let size = 1 << dice.random_range(12..22);
            dice.random_range(size..2 * size)
        };
        let (one, other) = (bulk(), bulk());
        match dice.random_range(0..12) {
            0 | 1 => Kind::Up(one),
            2 | 3 => Kind::Down(one),
            4 | 5 => Kind::Both(one, other),
            6..=8 => Kind::PingPong { turns: dice.random_range(1..200), turn: dice.random_range(1..3000) },
            9 => Kind::SlowReader(dice.random_range(1..1 << 20)),
            _ => Kind::Vanish(if dice.random_bool(0.3) { 0 } else { one >> 8 }),
        }
    }

    /// Who has sent much since the VM last spoke waits a quarter of an hour for it: it may be the VM that pauses
    /// (ARCHITECTURE.md, "Silence is judged only when nothing of ours waits").
    fn may_be_silenced_behind_data(self) -> bool {
        matches!(self, Kind::Up(up) | Kind::Both(up, _) if up > 64 * 1024)
    }

    fn wish(self, connection: u64) -> Wish {
        let (up, down, turn) = match self {
            Kind::Up(up) => (up, 0, 0),
            Kind::Down(down) | Kind::SlowReader(down) => (0, down, 0),
            Kind::Both(up, down) => (up, down, 0),
            Kind::PingPong { turns, turn } => (turns * turn, turns * turn, turn),
            Kind::Vanish(up) => (up, up, 0),
        };
        Wish { connection, up, down, turn }
    }
}

/// How a connection ended for its local program.
enum Ended {
    /// Everything came, and the VM says that it got everything.
    Whole,
    /// So many right bytes, and then a FIN or an error.
    Cut { bytes: u64, error: Option<io::Error> },
}

async fn one(place: &Place, connection: u64, kind: Kind, start: Instant) {
    let fail = |what: String| place.verdict.fail(format!("connection {connection} ({kind:?}): {what}"));
    let (stream, peer) = match connect(place).await {
        Ok(connected) => connected,
        Err(error) => return fail(format!("the listener does not accept: {error}")),
    };
    let wish = kind.wish(connection);
    if let Kind::Vanish(bytes) = kind {
        vanish(stream, wish, bytes).await;
        place.said.give_up(&peer);
        place.verdict.vanished.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let ended = match carry(stream, wish, kind, &place.verdict).await {
        Ok(ended) => ended,
        Err(what) => return fail(what),
    };
    let closed = place.said.closed(&peer).await;
    match judge(&ended, &closed, wish) {
        Err(what) => fail(format!("{what}; bastide says {closed:?}")),
        Ok(()) if matches!(ended, Ended::Whole) => {
            place.verdict.complete.fetch_add(1, Ordering::Relaxed);
        }
        Ok(()) if place.chronicle.excuses(start) || is_beyond_replay(&closed) => {
            place.verdict.cut.fetch_add(1, Ordering::Relaxed);
        }
        Ok(()) => fail(format!("cut off without a storm: {closed:?}")),
    }
}

/// Who says more than bastide keeps before the VM says a word has one attempt (ARCHITECTURE.md, "Replay has a limit").
fn is_beyond_replay(closed: &Closed) -> bool {
    closed.received == 0 && closed.sent > 256 * 1024
}

/// What bastide says of a connection has to be what came of it.
fn judge(ended: &Ended, closed: &Closed, wish: Wish) -> Result<(), String> {
    match ended {
        Ended::Whole => {
            let (sent, received) = (Wish::LENGTH as u64 + wish.up, wish.down + LAST_WORD);
            if (closed.sent, closed.received) != (sent, received) {
                return Err(format!("{sent} bytes were sent and {received} received"));
            }
        }
        Ended::Cut { bytes, error } => {
            if ["closed by the VM", "closed by the local side"].contains(&closed.reason.as_str()) {
                return Err(format!("cut off after {bytes} bytes, without an error"));
            }
            // A reset takes what was on its way with it.
            let is_right =
                if error.is_some() { *bytes <= closed.received } else { *bytes == closed.received };
            if !is_right {
                return Err(format!("the local program got {bytes} bytes before the end ({error:?})"));
            }
        }
    }
    Ok(())
}

/// The address is known before bastide can say anything about it.
async fn connect(place: &Place) -> io::Result<(TcpStream, String)> {
    let (socket, peer) = loop {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let peer = socket.local_addr()?.to_string();
        if place.said.claim(&peer) {
            break (socket, peer);
        }
    };
    let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, place.port))).await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

async fn vanish(mut stream: TcpStream, wish: Wish, bytes: u64) {
    // What comes of it is nobody's business any more.
    let mut said = wish.bytes().to_vec();
    said.resize(said.len() + bytes as usize, 0);
    Pattern::to_vm(wish.connection).fill(0, &mut said[Wish::LENGTH..]);
    if bytes > 0 {
        drop(stream.write_all(&said).await);
    }
}

async fn carry(stream: TcpStream, wish: Wish, kind: Kind, verdict: &Verdict) -> Result<Ended, String> {
    let (mut read, mut write) = stream.into_split();
    let ended = if wish.turn > 0 {
        take_turns(&mut read, &mut write, wish, verdict).await?
    } else {
        // What cannot be written shows in what can be read.
        let said = async {
            drop(say(&mut write, wish).await);
            Ok::<_, String>(())
        };
        tokio::try_join!(listen(&mut read, wish, kind, verdict), said)?.0
    };
    Ok(ended)
}

async fn take_turns(
    read: &mut OwnedReadHalf,
    write: &mut OwnedWriteHalf,
    wish: Wish,
    verdict: &Verdict,
) -> Result<Ended, String> {
    let mut ear = Ear::new(wish);
    let mut written = write.write_all(&wish.bytes()).await;
    let mut buffer = vec![0; wish.turn as usize];
    while ear.heard < wish.down && written.is_ok() {
        let count = wish.turn.min(wish.down - ear.heard);
        Pattern::to_vm(wish.connection).fill(ear.heard, &mut buffer[..count as usize]);
        written = write.write_all(&buffer[..count as usize]).await;
        let until = ear.heard + count;
        while ear.heard < until {
            if let Some(ended) = ear.listen(read, (until - ear.heard) as usize, verdict).await? {
                return Ok(ended);
            }
        }
    }
    loop {
        if let Some(ended) = ear.listen(read, PIECE, verdict).await? {
            return Ok(ended);
        }
    }
}

async fn say(write: &mut OwnedWriteHalf, wish: Wish) -> io::Result<()> {
    write.write_all(&wish.bytes()).await?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < wish.up {
        let count = PIECE.min((wish.up - at) as usize);
        Pattern::to_vm(wish.connection).fill(at, &mut buffer[..count]);
        write.write_all(&buffer[..count]).await?;
        at += count as u64;
    }
    Ok(())
}

async fn listen(
    read: &mut OwnedReadHalf,
    wish: Wish,
    kind: Kind,
    verdict: &Verdict,
) -> Result<Ended, String> {
    let mut ear = Ear::new(wish);
    let most = if matches!(kind, Kind::SlowReader(_)) { SLOW_PIECE } else { PIECE };
    loop {
        if let Some(ended) = ear.listen(read, most, verdict).await? {
            return Ok(ended);
        }
        if most == SLOW_PIECE {
            sleep(SLOW_PAUSE).await;
        }
    }
}

/// A slow reader takes so much, so often.
const SLOW_PIECE: usize = 16 * 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(50);

/// The VM's last word: how many bytes it got.
const LAST_WORD: u64 = 8;

/// What a local program has heard of the VM.
struct Ear {
    wish: Wish,
    heard: u64,
    last_word: Vec<u8>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl Ear {
    fn new(wish: Wish) -> Ear {
        Ear { wish, heard: 0, last_word: Vec::new(), buffer: vec![0; PIECE], scratch: Vec::new() }
    }

    /// One read of at most so many bytes: the end if it is one, or what is wrong.
    async fn listen(
        &mut self,
        read: &mut OwnedReadHalf,
        most: usize,
        verdict: &Verdict,
    ) -> Result<Option<Ended>, String> {
        let count = match read.read(&mut self.buffer[..most.min(PIECE)]).await {
            Ok(0) => return self.end(None),
            Ok(count) => count,
            Err(error) => return self.end(Some(error)),
        };
        let left = usize::try_from(self.wish.down - self.heard).unwrap_or(usize::MAX);
        let (bytes, last) = self.buffer[..count].split_at(count.min(left));
        let pattern = Pattern::to_local(self.wish.connection);
        if let Some(place) = pattern.differs(self.heard, bytes, &mut self.scratch) {
            return Err(format!("byte {place} from the VM is wrong"));
        }
        self.heard += bytes.len() as u64;
        self.last_word.extend_from_slice(last);
        verdict.carried(bytes.len());
        if self.last_word.len() as u64 > LAST_WORD {
            return Err(format!("{} bytes too many from the VM", self.last_word.len() as u64 - LAST_WORD));
        }
        Ok(None)
    }

    fn end(&self, error: Option<io::Error>) -> Result<Option<Ended>, String> {
        let bytes = self.heard + self.last_word.len() as u64;
        Ok(Some(match <[u8; 8]>::try_from(self.last_word.as_slice()) {
            Ok(word) if u64::from_le_bytes(word) == self.wish.up => Ended::Whole,
            Ok(word) => return Err(format!("the VM says that it got {} bytes", u64::from_le_bytes(word))),
            Err(_) => Ended::Cut { bytes, error },
        }))
    }
}
