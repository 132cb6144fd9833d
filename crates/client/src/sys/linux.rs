//! Whose process is at the other end of a local connection, as sock_diag(7) knows, and whether it has gone. It leaves out
//! what to do about it.

use std::io;

use bastide_net::{Diagnosis, diagnose};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::geteuid;
use tokio::net::{TcpStream, UnixStream};

/// Lets a connection in whose other end belongs to our user or to root. A connection from another machine has no
/// socket here, and passes: binding to more than loopback is a decision of its own.
///
/// # Errors
/// `PermissionDenied` for another user; `NotConnected` for a peer that is gone already, of which nobody can tell whose
/// it was: a closed socket reads as uid 0. What the kernel says when it is short of descriptors or memory.
pub(crate) fn admit_same_user(stream: &TcpStream) -> io::Result<()> {
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    let denied = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    let gone = || Err(io::ErrorKind::NotConnected.into());
    match diagnose(peer, local) {
        Ok(Some(Diagnosis { inode: 0, .. })) => gone(),
        Ok(Some(Diagnosis { uid, .. })) if uid == 0 || uid == geteuid().as_raw() => Ok(()),
        Ok(Some(Diagnosis { uid, .. })) => {
            denied(format!("{peer} belongs to another user (uid {uid}); --allow-other-users lets it in"))
        }
        Ok(None) if peer.ip() != local.ip() && !peer.ip().to_canonical().is_loopback() => Ok(()),
        Ok(None) => gone(),
        // No descriptor for the question is no answer to it.
        Err(error)
            if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS)) =>
        {
            Err(error)
        }
        Err(error) => denied(format!(
            "this kernel does not say whose {peer} is ({error}); --allow-other-users lets everybody in"
        )),
    }
}

/// Whether the program at the other end of a loopback connection has closed it for good: its socket has no owner any
/// more, while one that was only shut down for writing has.
pub(crate) fn is_abandoned(stream: &TcpStream) -> bool {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return false };
    peer.ip().to_canonical().is_loopback()
        && matches!(diagnose(peer, local), Ok(None | Some(Diagnosis { inode: 0, .. })))
}

/// Whether the program at the other end has closed its socket for good, and not only for writing: what `POLLHUP` means
/// here (unix(7)); elsewhere it may be the end of one direction.
pub(crate) fn is_hung_up(stream: &UnixStream) -> bool {
    let mut descriptors = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut descriptors, Some(&now)).is_ok()
        && descriptors.iter().any(|descriptor| descriptor.revents().contains(PollFlags::HUP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn our_own_connections_are_ours() {
        for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(bind).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            for host in ["127.0.0.1", "::1"] {
                let Ok(client) = TcpStream::connect((host, port)).await else { continue };
                let (server, _) = listener.accept().await.unwrap();
                admit_same_user(&server).unwrap();
                let found = diagnose(client.local_addr().unwrap(), client.peer_addr().unwrap());
                let found = found.unwrap().unwrap();
                assert_eq!(found.uid, geteuid().as_raw());
                assert_ne!(found.inode, 0);
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_proves_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        drop(client);
        let (server, _) = listener.accept().await.unwrap();
        let error = admit_same_user(&server).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }

    #[tokio::test]
    async fn a_close_is_told_from_a_half_close() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert!(!is_abandoned(&server));
        drop(client);
        assert!(is_abandoned(&server));
    }

    #[tokio::test]
    async fn a_unix_sockets_close_is_told_from_a_half_close() {
        use tokio::io::AsyncWriteExt;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(!is_hung_up(&ours));
        theirs.shutdown().await.unwrap();
        assert!(!is_hung_up(&ours));
        drop(theirs);
        assert!(is_hung_up(&ours));
    }

    #[tokio::test]
    async fn what_was_sent_before_a_close_is_still_there() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(!super::super::has_unread(&ours));
        theirs.write_all(b"x").await.unwrap();
        drop(theirs);
        assert!(is_hung_up(&ours) && super::super::has_unread(&ours));
        ours.read_exact(&mut [0]).await.unwrap();
        assert!(!super::super::has_unread(&ours));
    }
}
