//! What differs by platform: Unix sockets with an owner, whose process is at the other end of a loopback connection,
//! files that nobody else can read, and how many descriptors there may be. It leaves out everything that every platform
//! has.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use linux::{admit_same_user, is_abandoned, is_hung_up};
#[cfg(unix)]
pub(crate) use unix::{OwnedSocket, create_private, create_private_folder, descriptor_limit, has_unread};
#[cfg(not(unix))]
pub(crate) use windows::{create_private, create_private_folder, descriptor_limit, has_unread};

/// Where the kernel does not tell whose a connection is, everybody on this machine is let in.
#[cfg(not(target_os = "linux"))]
pub(crate) fn admit_same_user(_: &tokio::net::TcpStream) -> std::io::Result<()> {
    Ok(())
}

/// Where the kernel does not tell whether a connection still has an owner, its FIN means only what it says.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_abandoned(_: &tokio::net::TcpStream) -> bool {
    false
}

/// Where the kernel does not tell, either.
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn is_hung_up(_: &tokio::net::UnixStream) -> bool {
    false
}
