//! Who may use a local port: on a machine with many users, a loopback port is open to all of them, and so may be a Unix
//! socket that somebody else has made. It leaves out the files of our own sockets, which have an owner and a mode.

use std::io;

use tokio::net::TcpStream;

/// Which users' processes may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPolicy {
    /// The user who runs the tunnel, and root. Of TCP ports checked on Linux only; elsewhere everybody
    /// is let in there.
    SameUser,
    /// Everybody (`--allow-other-users`).
    Anyone,
}

impl PeerPolicy {
    /// Lets the connection's other end in, or says why not.
    ///
    /// # Errors
    /// `PermissionDenied` for another user's process, and when the kernel does not say whose it is; another kind for one
    /// that is gone.
    pub(crate) fn admit(self, stream: &TcpStream) -> io::Result<()> {
        match self {
            PeerPolicy::Anyone => Ok(()),
            PeerPolicy::SameUser => crate::sys::admit_same_user(stream),
        }
    }

    /// The same for a Unix socket, whose other end the kernel vouches for (unix(7), `SO_PEERCRED`).
    #[cfg(unix)]
    pub(crate) fn admit_unix(self, stream: &tokio::net::UnixStream) -> io::Result<()> {
        if self == PeerPolicy::Anyone {
            return Ok(());
        }
        let uid = stream.peer_cred()?.uid();
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("it belongs to another user (uid {uid}); --allow-other-users lets it in"),
        ))
    }
}
