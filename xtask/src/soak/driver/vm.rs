//! The VM's side: a service that says what it is asked for and checks what it is told.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::pattern::Pattern;
use crate::verdict::Verdict;

/// What a connection asks of the VM, in its first bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) connection: u64,
    /// Bytes to the VM behind the wish, and from it.
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// So much each way in turn; 0 = both at once.
    pub(crate) turn: u64,
}

impl Wish {
    pub(crate) const LENGTH: usize = 40;
    const MARK: u64 = 0x6b61_6f73_2d65_6469;

    pub(crate) fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let words = [Self::MARK, self.connection, self.up, self.down, self.turn];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    fn read(bytes: &[u8; Self::LENGTH]) -> Option<Wish> {
        let (words, _) = bytes.as_chunks::<8>();
        let [mark, connection, up, down, turn] = std::array::from_fn(|at| u64::from_le_bytes(words[at]));
        (mark == Self::MARK).then_some(Wish { connection, up, down, turn })
    }
}

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, verdict: Arc<Verdict>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&verdict)))),
                Err(error) => verdict.fail(format!("the VM cannot accept: {error}")),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What ends early is the client's to judge; what is wrong is judged here.
async fn connection(mut stream: TcpStream, verdict: Arc<Verdict>) {
    let mut head = [0; Wish::LENGTH];
    if stream.read_exact(&mut head).await.is_err() {
        return;
    }
    let Some(wish) = Wish::read(&head) else {
        return verdict.fail(format!("the VM got {head:x?} for a beginning"));
    };
    drop(fulfil(stream, wish, &verdict).await);
}

async fn fulfil(mut stream: TcpStream, wish: Wish, verdict: &Verdict) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if wish.turn > 0 {
        let mut at = 0;
        while at < wish.up {
            let count = wish.turn.min(wish.up - at);
            take(&mut stream, wish, at, at + count, verdict).await?;
            say(&mut stream, wish, at, at + count).await?;
            at += count;
        }
    } else {
        let (mut read, mut write) = stream.split();
        tokio::try_join!(take(&mut read, wish, 0, wish.up, verdict), say(&mut write, wish, 0, wish.down))?;
    }
    // The last word, which says that everything came.
    stream.write_all(&wish.up.to_le_bytes()).await?;
    stream.shutdown().await?;
    let mut more = [0; 64];
    if let Ok(count @ 1..) = stream.read(&mut more).await {
        verdict.fail(format!("connection {}: the VM got {count} bytes too many", wish.connection));
    }
    Ok(())
}

async fn take<R: AsyncReadExt + Unpin>(
    read: &mut R,
    wish: Wish,
    from: u64,
    to: u64,
    verdict: &Verdict,
) -> io::Result<()> {
    let pattern = Pattern::to_vm(wish.connection);
    let (mut buffer, mut scratch) = (vec![0; PIECE], Vec::new());
    let mut at = from;
    while at < to {
        let most = PIECE.min((to - at) as usize);
        let count = read.read(&mut buffer[..most]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(place) = pattern.differs(at, &buffer[..count], &mut scratch) {
            verdict.fail(format!("connection {}: byte {place} to the VM is wrong", wish.connection));
            return Err(io::ErrorKind::InvalidData.into());
        }
        at += count as u64;
        verdict.carried(count);
    }
    Ok(())
}

async fn say<W: AsyncWriteExt + Unpin>(write: &mut W, wish: Wish, from: u64, to: u64) -> io::Result<()> {
    let pattern = Pattern::to_local(wish.connection);
    let mut buffer = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let count = PIECE.min((to - at) as usize);
        pattern.fill(at, &mut buffer[..count]);
        write.write_all(&buffer[..count]).await?;
        at += count as u64;
    }
    Ok(())
}

/// Bytes that are made, read or written at once.
pub(crate) const PIECE: usize = 64 * 1024;
