//! The agent on a private socket: it serves one identity to the OpenSSH that we started, and passes everything else on
//! to the user's own agent. What is asked and what may be signed is `conversation.rs`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::algorithm::Algorithm;
use super::conversation::{self, Ask, Conversation};
use super::offer::{Offer, VmSignIn};

/// An SSH agent for one identity.
#[derive(Debug)]
pub struct Agent {
    listener: UnixListener,
    path: PathBuf,
    shared: Arc<Shared>,
}

/// How far a sign-in has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// OpenSSH has asked for nothing: it has not got as far as signing in.
    Idle,
    /// The identity was offered to the VM, which has not taken it (yet).
    Offered,
    /// The VM has taken the identity, and the sign-in was signed.
    Signed,
}

#[derive(Debug)]
struct Shared {
    identity: VmSignIn,
    /// The user's own agent.
    beyond: Option<PathBuf>,
    /// The user whose processes may ask.
    owner: u32,
    /// A [`Progress`].
    progress: AtomicU8,
    places: Arc<Semaphore>,
}

/// A message's length: OpenSSH's own bound (`MAX_AGENT_REPLY_LEN` of authfd.c).
const MAX_MESSAGE: usize = 256 * 1024;

/// Connections at a time: ssh makes one, and one for each program on the VM that uses a forwarded agent.
const CONNECTIONS_AT_ONCE: usize = 64;

/// How long the user's agent may take over what it knows without asking anybody: which keys it has.
const LIST_WITHIN: Duration = Duration::from_secs(5);

/// How long it may take over a signature, for which it may want a touch or a word of the user's: as long as a server
/// waits for a sign-in (`LoginGraceTime` of sshd_config(5)).
const SIGN_WITHIN: Duration = Duration::from_secs(120);

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Agent {
    /// Listens on `folder/agent`. The folder has to be one that nobody else can enter. `beyond` is the user's own
    /// agent (`SSH_AUTH_SOCK`).
    ///
    /// # Errors
    /// Those of binding a Unix socket.
    pub fn open(folder: &Path, identity: VmSignIn, beyond: Option<PathBuf>) -> io::Result<Self> {
        let path = folder.join("agent");
        let listener = UnixListener::bind(&path)?;
        let shared = Shared {
            identity,
            beyond,
            owner: rustix::process::geteuid().as_raw(),
            progress: AtomicU8::new(Progress::Idle as u8),
            places: Arc::new(Semaphore::new(CONNECTIONS_AT_ONCE)),
        };
        Ok(Self { listener, path, shared: Arc::new(shared) })
    }

    /// The socket, for `IdentityAgent` (ssh_config(5)).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far the sign-in has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.progress()
    }

    /// Serves until `stop`.
    ///
    /// Cancel safe: a dropped future ends the conversations under way at their next message.
    pub async fn run(&self, stop: &CancellationToken) {
        let stop = stop.child_token();
        let _end_all = stop.clone().drop_guard();
        let conversations = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
                    conversations.spawn(async move {
                        let _place = place;
                        tokio::select! {
                            () = stop.cancelled() => {}
                            ended = shared.converse(stream) => {
                                if let Err(error) = ended {
                                    tracing::debug!(%error, "a conversation with the SSH agent broke");
                                }
                            }
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the SSH agent cannot accept a connection");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
        conversations.close();
        conversations.wait().await;
    }

    async fn accept(&self) -> io::Result<(UnixStream, Option<tokio::sync::OwnedSemaphorePermit>)> {
        // The semaphore is never closed.
        let place = Arc::clone(&self.shared.places).acquire_owned().await.ok();
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, place))
    }
}

impl Shared {
    async fn converse(&self, mut client: UnixStream) -> io::Result<()> {
        // The folder's mode keeps others out already; root comes in anywhere.
        let peer = client.peer_cred()?.uid();
        if peer != self.owner {
            tracing::warn!(peer, "a process of another user asked the SSH agent");
            return Ok(());
        }
        // OpenSSH before 8.9 does not say where a connection comes from. It forwards none before it is signed in, and
        // makes none for itself from then on.
        let is_late = self.progress() == Progress::Signed;
        let mut conversation = Conversation::default();
        let mut beyond = Beyond { path: self.beyond.as_deref(), stream: None };
        // What this client was shown.
        let mut shown: Option<Offer> = None;
        while let Some(message) = read_message(&mut client).await? {
            let answer = match conversation.hear(&message) {
                Ask::List => {
                    let others = beyond.ask(&conversation::list_request(), LIST_WITHIN).await;
                    shown = match conversation.is_at_home() && (conversation.is_bound() || !is_late) {
                        true => self.offer().await,
                        false => None,
                    };
                    self.reached(shown.as_ref().map_or(Progress::Idle, |_| Progress::Offered));
                    conversation::list(shown.as_ref(), others.as_deref())
                }
                Ask::Sign { identity, data, hash } => match &shown {
                    Some(offer) if offer.blobs.iter().any(|blob| blob == identity) => {
                        let allowed = Algorithm::of(identity, hash).filter(|algorithm| {
                            conversation.may_sign(data, *algorithm, offer.user.as_deref(), identity)
                        });
                        self.sign(allowed, data).await
                    }
                    _ => beyond.ask(&message, SIGN_WITHIN).await.unwrap_or_else(conversation::failure),
                },
                Ask::Bound => {
                    // The user's agent may restrict its keys to certain hosts (ssh-add -h) and has to know.
                    beyond.ask(&message, LIST_WITHIN).await;
                    conversation::success()
                }
                Ask::Other => beyond.ask(&message, SIGN_WITHIN).await.unwrap_or_else(conversation::failure),
            };
            write_message(&mut client, &answer).await?;
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        let at_least = |progress| self.progress.load(Ordering::Relaxed) >= progress as u8;
        match () {
            () if at_least(Progress::Signed) => Progress::Signed,
            () if at_least(Progress::Offered) => Progress::Offered,
            () => Progress::Idle,
        }
    }

    fn reached(&self, progress: Progress) {
        self.progress.fetch_max(progress as u8, Ordering::Relaxed);
    }

    async fn offer(&self) -> Option<Offer> {
        match self.identity.offer().await {
            Ok(offer) => Some(offer),
            Err(error) => {
                tracing::warn!(%error, "there is no SSH certificate");
                None
            }
        }
    }

    /// The answer to a request for a signature; without an algorithm it is one that must not be signed.
    async fn sign(&self, algorithm: Option<Algorithm>, data: &[u8]) -> Vec<u8> {
        let Some(algorithm) = algorithm else {
            tracing::warn!("the SSH agent refused to sign something else than this sign-in");
            return conversation::failure();
        };
        match self.identity.sign(algorithm, data).await {
            Ok(blob) => {
                self.reached(Progress::Signed);
                conversation::signature(&blob)
            }
            Err(error) => {
                // OpenSSH says only that the agent refused.
                tracing::warn!("the sign-in was not signed: {error}; {}", error.hint());
                conversation::failure()
            }
        }
    }
}

/// The user's own agent, as far as this client needs it.
struct Beyond<'a> {
    path: Option<&'a Path>,
    stream: Option<UnixStream>,
}

impl Beyond<'_> {
    /// Its answer; `None` when there is no such agent, it breaks, or it takes longer than `limit`.
    async fn ask(&mut self, message: &[u8], limit: Duration) -> Option<Vec<u8>> {
        let path = self.path?;
        let exchange = tokio::time::timeout(limit, self.exchange(path, message)).await;
        match exchange.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(%error, "the user's SSH agent does not answer");
                // What it may still say is no answer to the next question.
                self.stream = None;
                None
            }
        }
    }

    async fn exchange(&mut self, path: &Path, message: &[u8]) -> io::Result<Vec<u8>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(UnixStream::connect(path).await?),
        };
        write_message(stream, message).await?;
        read_message(stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The next message; `None` when the other side has closed.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length == 0 || length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of a length that no agent takes"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let mut framed = Vec::with_capacity(message.len() + 4);
    super::wire::put_string(&mut framed, message);
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests;
