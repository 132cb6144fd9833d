//! Who may use a local port: on a machine with many users, a loopback port is open to all of them. It leaves out
//! Unix sockets, whose files have an owner and a mode.

use std::io;

use tokio::net::TcpStream;

/// Which users' processes may connect to a TCP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPolicy {
    /// The user who runs the tunnel, and root. Checked on Linux; elsewhere everybody is let in.
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
}
