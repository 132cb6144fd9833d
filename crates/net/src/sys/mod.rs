//! What differs by platform: what the kernel knows of a TCP socket. It leaves out what follows from it.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::standing;
#[cfg(target_os = "linux")]
pub use linux::{Diagnosis, diagnose};

/// Nobody has written it down for this system yet.
#[cfg(not(target_os = "linux"))]
pub(crate) fn standing(_: &tokio::net::TcpStream) -> Option<crate::Standing> {
    None
}
