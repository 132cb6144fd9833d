//! The far end of `ProxyUseFdpass` (ssh_config(5)): connects to the session's private socket and gives OpenSSH the
//! connection itself, so that no process stands between it and the relay. It leaves out everything else; OpenSSH
//! waits for this process to end.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::exit::{Exit, Failure};

/// Connects, and passes the connection over standard output; for a session that names its VM, to that VM only.
pub(crate) fn run(socket: &Path, only: Option<&str>, host: Option<&str>) -> Result<Exit, Failure> {
    if let (Some(only), Some(host)) = (only, host)
        && !only.eq_ignore_ascii_case(host)
    {
        let named = host.rsplit_once('-').map_or(host, |(name, _)| name);
        return Err(Failure::usage(
            format!("'{named}' is not the VM, and nothing was sent to it"),
            "one side is the VM, the other one this machine; between two hosts, `bastide ssh-config --write` puts the \
             VM into ~/.ssh/config, for scp and rsync themselves",
        ));
    }
    let connection =
        UnixStream::connect(socket).map_err(Failure::system("the session is not there any more"))?;
    let descriptors = [connection.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    // OpenSSH reads one byte with the descriptor (monitor_fdpass.c).
    sendmsg(std::io::stdout(), &[IoSlice::new(&[0])], &mut message, SendFlags::empty())
        .map_err(std::io::Error::from)
        .map_err(Failure::system("OpenSSH does not take the connection"))?;
    Ok(Exit::Done)
}
