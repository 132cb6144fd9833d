//! What answers on the ports of the machines: each service as a stream of bytes, as a TCP
//! connection to the machine would be. Which service a port has is the scenario's; the SSH server
//! itself is `ssh`.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::entra::SshAuthority;
use crate::inventory::{Inventory, Machine};
use crate::scenario::{Secret, Service};
use crate::ssh::{EntraSignIn, SshOptions, SshServer};
use crate::state::{self, State};

/// A connection to a machine.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The services of all machines.
pub(crate) struct Services {
    /// Built-in SSH servers by the name of their machine.
    ssh: HashMap<String, Arc<SshServer>>,
    /// Owns a task for each SSH session.
    sessions: TaskTracker,
    stop: CancellationToken,
}

impl Services {
    /// Prepares a home, a host key and an SSH server for each machine that has one; `authorized` is the
    /// public key that all of them accept,
    /// `authority` signs the certificates of those with a role.
    pub(crate) fn new(
        inventory: &Inventory,
        state: &State,
        username: &str,
        password: &Secret,
        authorized: &str,
        authority: &SshAuthority,
        stop: CancellationToken,
    ) -> Result<Services, Error> {
        let mut ssh = HashMap::new();
        let host_keys = state.subfolder("host_keys")?;
        for machine in &inventory.machines {
            if !machine.ports.values().any(|service| *service == Service::Ssh) {
                continue;
            }
            let home = state.subfolder(&format!("vms/{}", machine.name))?;
            state.subfolder(&format!("vms/{}/.ssh", machine.name))?;
            authorize(state, &format!("vms/{}/.ssh/authorized_keys", machine.name), authorized)?;
            let server = SshServer::new(SshOptions {
                home,
                username: username.to_owned(),
                password: password.expose().to_owned(),
                host_key: host_keys.join(&machine.name),
                hostname: machine.name.clone(),
                entra: machine.aad_login.then(|| EntraSignIn {
                    authority: authority.public_line().to_owned(),
                    users: inventory
                        .principals
                        .iter()
                        .filter(|one| one.may_sign_in_to(&machine.id))
                        .map(|one| one.name.clone())
                        .collect(),
                }),
            })?;
            ssh.insert(machine.name.clone(), Arc::new(server));
        }
        Ok(Services { ssh, sessions: TaskTracker::new(), stop })
    }

    /// Connects to a port of a machine.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] when nothing answers there.
    pub(crate) async fn connect(&self, machine: &Machine, port: u16) -> io::Result<Box<dyn Wire>> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        Ok(match machine.service(port).ok_or_else(refused)? {
            Service::Refuse => return Err(refused()),
            Service::Echo => {
                let (read, write) = tokio::io::simplex(BUFFER);
                Box::new(tokio::io::join(read, write))
            }
            Service::Swallow => Box::new(Machinery::producing(Some(0)).that_stays()),
            Service::Produce(bytes) => Box::new(Machinery::producing(bytes)),
            Service::Silent => {
                // What is written fills a buffer, as it would the kernel's, and then waits.
                let (unread, write) = tokio::io::simplex(BUFFER);
                Box::new(tokio::io::join(Hanging { _unread: unread }, write))
            }
            Service::Ssh => {
                let server = Arc::clone(self.ssh.get(&machine.name).ok_or_else(refused)?);
                let (near, far) = tokio::io::duplex(BUFFER);
                let stop = self.stop.clone();
                self.sessions.spawn(async move {
                    let _ = stop.run_until_cancelled(server.serve(far)).await;
                });
                Box::new(near)
            }
            Service::Address(address) => {
                let connected = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(address)).await;
                let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }

    /// Waits for the SSH sessions to end, which the stop token asks of them. Cancel safe.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + '_ {
        self.sessions.close();
        self.sessions.wait()
    }
}

/// The byte that a producing service sends at an offset of its stream: `offset` modulo 251, a prime, so
/// that no buffer size hides a shift.
pub fn pattern(offset: u64) -> u8 {
    (offset % PATTERN) as u8
}

/// What is wrong with the services.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state folder.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The authorized keys of a machine.
    #[error("adding a key to {}", path.display())]
    Authorize {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The built-in SSH server.
    #[error("preparing the built-in SSH server")]
    Ssh(#[from] crate::ssh::Error),
}

/// Bytes that a built-in service holds: what Linux gives a socket on loopback to start with, in scale.
const BUFFER: usize = 256 * 1024;
/// A service on loopback that does not accept in this time hangs.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const PATTERN: u64 = 251;

/// Adds the emulator's own key to the file and leaves the user's in it.
fn authorize(state: &State, name: &str, key: &str) -> Result<(), Error> {
    let path = state.path(name);
    let present = match std::fs::read_to_string(&path) {
        Ok(present) => present,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(Error::Authorize { path, source }),
    };
    if !present.lines().any(|line| line.trim() == key.trim()) {
        let separator = if present.is_empty() || present.ends_with('\n') { "" } else { "\n" };
        state.write(name, &format!("{present}{separator}{}\n", key.trim()))?;
    }
    Ok(())
}

/// Sends the pattern and takes whatever comes.
struct Machinery {
    /// Bytes still to be sent; none = without end.
    left: Option<u64>,
    offset: u64,
    /// Whether it waits for the other side to finish before it closes.
    stays: Stays,
    reader: Option<Waker>,
}

#[derive(PartialEq, Eq)]
enum Stays {
    No,
    UntilShutdown,
}

impl Machinery {
    fn producing(left: Option<u64>) -> Machinery {
        Machinery { left, offset: 0, stays: Stays::No, reader: None }
    }

    fn that_stays(self) -> Machinery {
        Machinery { stays: Stays::UntilShutdown, ..self }
    }
}

impl AsyncRead for Machinery {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == Some(0) && this.stays == Stays::UntilShutdown {
            this.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let wanted = out.remaining();
        let count = this.left.map_or(wanted, |left| wanted.min(usize::try_from(left).unwrap_or(usize::MAX)));
        let mut left = count;
        while left > 0 {
            let from = (this.offset % PATTERN) as usize;
            // `from` is below 251, so that there are at least 4,096 bytes behind it.
            let Some(part) = TABLE.get(from..from + left.min(TABLE.len() - from)) else { break };
            out.put_slice(part);
            this.offset += part.len() as u64;
            left -= part.len();
        }
        if let Some(left) = &mut this.left {
            *left -= count as u64;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Machinery {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.left = Some(0);
        this.stays = Stays::No;
        if let Some(reader) = this.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }
}

/// The pattern, long enough to be copied in large parts.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would report a wrong index")]
static TABLE: [u8; 4096 + PATTERN as usize] = {
    let mut table = [0; 4096 + PATTERN as usize];
    let mut at = 0;
    while at < table.len() {
        table[at] = (at % PATTERN as usize) as u8;
        at += 1;
    }
    table
};

/// The reading side of a process that hangs.
struct Hanging {
    _unread: tokio::io::ReadHalf<tokio::io::SimplexStream>,
}

impl AsyncRead for Hanging {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Never woken: the tunnel has a time limit of its own once its client has gone.
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn produces_its_pattern() {
        let mut seen = Vec::new();
        Machinery::producing(Some(100_000)).read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen.len(), 100_000);
        for (offset, byte) in seen.iter().enumerate() {
            assert_eq!(*byte, pattern(offset as u64), "at {offset}");
        }
    }

    #[tokio::test]
    async fn swallows_until_the_other_side_is_done() {
        let (mut read, mut write) = tokio::io::split(Machinery::producing(Some(0)).that_stays());
        write.write_all(&[0; 1000]).await.unwrap();
        let mut seen = Vec::new();
        let (ended, _) = tokio::join!(read.read_to_end(&mut seen), write.shutdown());
        assert_eq!(ended.unwrap(), 0);
    }
}
