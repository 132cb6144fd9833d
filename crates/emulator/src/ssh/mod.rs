//! The emulator's built-in SSH server: the default virtual machine behind a Bastion.
//!
//! A folder on the laptop plays the machine's only home. Sign-in is by password, by the keys in the
//! home's `.ssh/authorized_keys`, or by a certificate of an authority; then there are commands, a shell with or without a terminal, sftp on the
//! home, and port forwarding to loopback addresses. Commands run as the user who runs the emulator and see
//! the whole machine: this is no sandbox, and whoever accepts connections for it listens on loopback.
//!
//! It speaks to a stream, so it knows neither sockets nor Bastion. Not here: X11 and agent forwarding,
//! compression, host certificates, terminal modes (a terminal starts in the kernel's default mode).

mod backlog;
mod connection;
mod forward;
mod inbox;
mod key;
mod leash;
mod process;
mod sftp;
mod sign_in;
mod sys;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key;
use russh::server::{Config, run_stream};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tracing::debug;

pub use self::key::generate_client_key;

use self::connection::{Connection, Life, Site};
use self::leash::leash;
use self::sign_in::{CertificateSignIn, SignIn};

/// What makes a server. There is no default: each field belongs to one machine.
pub struct SshOptions {
    /// The user's home, which must exist: commands start in it, and for sftp it is the root.
    pub home: PathBuf,
    /// The only user who may sign in.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// The file with the server's private key in OpenSSH's format, made (Ed25519, mode 0600) when missing.
    pub host_key: PathBuf,
    /// The machine's name in the shell's prompt.
    pub hostname: String,
    /// Who signs in with a certificate; nobody when none.
    pub entra: Option<EntraSignIn>,
}

/// The sign-in by certificate, as Azure's extension for Entra ID has it.
pub struct EntraSignIn {
    /// The authority's public key, one line of OpenSSH.
    pub authority: String,
    /// User names that have a role on the machine, in any case.
    pub users: Vec<String>,
}

/// A server for any number of connections.
pub struct SshServer {
    config: Arc<Config>,
    site: Arc<Site>,
    public_key: String,
}

impl SshServer {
    /// Reads or makes the host key. Does not touch the home.
    ///
    /// # Errors
    /// The host key cannot be read, made or written.
    pub fn new(options: SshOptions) -> Result<Self, Error> {
        let SshOptions { home, username, password, host_key, hostname, entra } = options;
        let entra = entra.map(CertificateSignIn::new).transpose().map_err(Error::Authority)?;
        let host_key = key::host_key(&host_key)?;
        let public_key = key::public_line(&host_key)?;
        let config = Config {
            server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-bastide_", env!("CARGO_PKG_VERSION")))),
            methods: MethodSet::from(
                &[MethodKind::PublicKey, MethodKind::KeyboardInteractive, MethodKind::Password][..],
            ),
            auth_rejection_time: REJECTION_TIME,
            keys: vec![host_key],
            window_size: WINDOW,
            maximum_packet_size: MAXIMUM_PACKET,
            event_buffer_size: EVENTS,
            preferred: Preferred {
                cipher: Cow::Borrowed(CIPHERS),
                compression: Cow::Borrowed(&[compression::NONE]),
                ..Preferred::DEFAULT
            },
            max_auth_attempts: MAX_AUTH_TRIES,
            // Sessions may be idle for ever; the time for the sign-in is limited in `serve`.
            inactivity_timeout: None,
            ..Config::default()
        };
        let sign_in = SignIn::new(username.clone(), password, &home, entra);
        let site = Site { sign_in, home, username, hostname };
        Ok(Self { config: Arc::new(config), site: Arc::new(site), public_key })
    }

    /// The server's public key as one line of OpenSSH: type and base64, as in `known_hosts`.
    pub fn public_key(&self) -> String {
        self.public_key.clone()
    }

    /// Serves one connection to its end. Whatever goes wrong on it ends it and nothing else.
    ///
    /// Returns when every task and process of the connection has ended. When the future is dropped they
    /// are told to end, and end by themselves.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let life = Life::default();
        let ended = life.ended.clone().drop_guard();
        let (stream, held) = leash(stream);
        let connection = Connection::new(Arc::clone(&self.site), life.clone());
        let greeting = Box::pin(run_stream(Arc::clone(&self.config), stream, connection));
        match timeout(LOGIN_GRACE_TIME, greeting).await {
            Ok(Ok(session)) => {
                let overdue = async {
                    tokio::select! {
                        () = sleep(LOGIN_GRACE_TIME) => {}
                        () = life.signed_in.cancelled() => std::future::pending().await,
                    }
                };
                tokio::select! {
                    result = session => debug!(?result, "an SSH connection ended"),
                    () = overdue => debug!("nobody signed in in time"),
                }
            }
            Ok(Err(error)) => debug!(%error, "a peer did not speak SSH"),
            Err(_) => debug!("a peer did not speak in time"),
        }
        held.cut().await;
        drop(ended);
        life.tasks.close();
        life.tasks.wait().await;
    }
}

/// Why there is no server, or no key. Faults of a connection are nobody's but the client's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key file is there and cannot be read.
    #[error("cannot read the SSH key {}", path.display())]
    ReadKey {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A key file holds something else.
    #[error("{} is not an unencrypted OpenSSH private key", path.display())]
    ParseKey {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        source: ssh_key::Error,
    },
    /// A key file cannot be written.
    #[error("cannot write the SSH key {}", path.display())]
    WriteKey {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The authority for sign-in by certificate is no public key.
    #[error("using the authority for sign-in by certificate")]
    Authority(#[source] ssh_key::Error),
    /// A new key cannot be made or put into words.
    #[error("cannot encode an SSH key")]
    EncodeKey(#[source] ssh_key::Error),
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ReadKey { path, .. } => Some(format!("check the permissions of {}", path.display())),
            Self::ParseKey { path, .. } => Some(format!("remove {}: a new key is made", path.display())),
            Self::WriteKey { path, .. } => Some(format!("make the folder of {} writable", path.display())),
            Self::EncodeKey(_) | Self::Authority(_) => None,
        }
    }
}

/// Before a client has signed in, for the greeting and for the rest each (sshd_config(5),
/// `LoginGraceTime`).
const LOGIN_GRACE_TIME: Duration = Duration::from_secs(120);

/// Refused attempts before the connection is ended (sshd_config(5), `MaxAuthTries`).
const MAX_AUTH_TRIES: usize = 6;

/// A refusal takes no longer than an acceptance: there is one password, compared in constant time, and
/// [`MAX_AUTH_TRIES`] bounds the guesses.
const REJECTION_TIME: Duration = Duration::ZERO;

/// Bytes a client may send on a channel ahead of us (OpenSSH's `CHAN_SES_WINDOW_DEFAULT`).
const WINDOW: u32 = 2 << 20;

/// Bytes in one packet of data (OpenSSH's `CHAN_SES_PACKET_DEFAULT`; RFC 4253 §6.1 asks for no less).
const MAXIMUM_PACKET: u32 = 32 << 10;

/// Messages from the channels' tasks to the connection's: one window's worth, 64 packets, so that a
/// channel waits for its window and not for the queue.
const EVENTS: usize = 64;

/// AES-GCM first, six times cheaper than ChaCha20 in AWS-LC (design.md §2). OpenSSH chooses by its own
/// order and would take ChaCha20 or CTR if they were here; CBC is for clients without GCM, which has been
/// in OpenSSH since 6.2.
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::AES_256_CBC, cipher::AES_128_CBC];

#[cfg(test)]
mod tests {
    use super::{Error, SshOptions, SshServer};

    #[test]
    fn a_spoilt_host_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let host_key = folder.path().join("host_key");
        std::fs::write(&host_key, "spoilt").unwrap();
        let options = SshOptions {
            home: folder.path().into(),
            username: "azureuser".into(),
            password: "secret".into(),
            host_key: host_key.clone(),
            hostname: "vm".into(),
            entra: None,
        };
        let error = SshServer::new(options).err().unwrap();
        assert!(matches!(&error, Error::ParseKey { path, .. } if *path == host_key));
        assert!(error.hint().unwrap().contains("host_key"));
    }
}
