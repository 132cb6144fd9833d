//! Where local programs connect: a TCP port or a Unix socket, how it is written, and how it is opened. It leaves
//! out what happens to those who connect.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::TcpListener;

use crate::{Error, sys};

/// A place for local programs to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP port; 0 = any free one.
    Tcp(SocketAddr),
    /// A Unix socket, for its owner only.
    Unix(PathBuf),
}

impl Endpoint {
    /// A port of the loopback address 127.0.0.1.
    pub fn loopback(port: u16) -> Self {
        Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Endpoint::Tcp(address) => address.ip().is_loopback(),
            Endpoint::Unix(_) => true,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(formatter),
            Endpoint::Unix(path) => path.display().fmt(formatter),
        }
    }
}

/// One forwarding as `-L` writes it: `[bind:]lport:rport` or `/path.sock:rport`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSpec {
    /// The bind address, if one was given.
    pub bind: Option<IpAddr>,
    /// The local side.
    pub local: LocalSpec,
    /// The target's port.
    pub remote_port: u16,
}

/// The local side of a [`ForwardSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalSpec {
    /// A TCP port; 0 = any free one.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

impl ForwardSpec {
    /// The endpoint, with `default_bind` where no address was given.
    pub fn endpoint(&self, default_bind: IpAddr) -> Endpoint {
        match &self.local {
            LocalSpec::Port(port) => Endpoint::Tcp(SocketAddr::new(self.bind.unwrap_or(default_bind), *port)),
            LocalSpec::Socket(path) => Endpoint::Unix(path.clone()),
        }
    }
}

impl FromStr for ForwardSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("'{text}' is not [BIND:]PORT:REMOTE-PORT or /PATH.sock:REMOTE-PORT");
        let (local, remote) = text.rsplit_once(':').ok_or_else(usage)?;
        let remote_port = match remote.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(format!("'{remote}' is not a port from 1 to 65535")),
        };
        if local.starts_with('/') || local.starts_with("./") {
            return Ok(Self { bind: None, local: LocalSpec::Socket(local.into()), remote_port });
        }
        let (bind, port) = match local.rsplit_once(':') {
            Some((bind, port)) => (Some(bind.trim_start_matches('[').trim_end_matches(']')), port),
            None => (None, local),
        };
        let bind = match bind {
            None => None,
            Some("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some("*") => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            Some(address) => Some(address.parse().map_err(|_| format!("'{address}' is not an IP address"))?),
        };
        let port = port.parse().map_err(|_| format!("'{port}' is not a port from 0 to 65535"))?;
        Ok(Self { bind, local: LocalSpec::Port(port), remote_port })
    }
}

/// A socket that somebody else has opened for us and listens already.
#[derive(Debug)]
pub enum Inherited {
    /// A TCP port.
    Tcp(std::net::TcpListener),
    /// A Unix socket, whose file and mode are the business of whoever opened it.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// An open endpoint. A Unix socket's file goes away with it.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(sys::OwnedSocket),
}

impl Listener {
    /// Opens `endpoint`.
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let explain = |error: io::Error| explain(endpoint, error);
        match endpoint {
            Endpoint::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp).map_err(explain),
            #[cfg(unix)]
            Endpoint::Unix(path) => sys::OwnedSocket::bind(path).map(Self::Unix).map_err(explain),
            #[cfg(not(unix))]
            Endpoint::Unix(_) => Err(explain(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Takes over a socket. Must be called within a runtime.
    pub(crate) fn inherited(socket: Inherited) -> io::Result<Self> {
        match socket {
            Inherited::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            #[cfg(unix)]
            Inherited::Unix(listener) => sys::OwnedSocket::inherited(listener).map(Self::Unix),
        }
    }

    /// Where it really is: with the port that was free.
    pub(crate) fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(Endpoint::Tcp),
            #[cfg(unix)]
            Listener::Unix(socket) => Ok(Endpoint::Unix(socket.path().to_owned())),
        }
    }
}

fn explain(endpoint: &Endpoint, error: io::Error) -> Error {
    let endpoint = endpoint.clone();
    match (&endpoint, error.kind()) {
        (_, io::ErrorKind::AddrInUse) => Error::EndpointTaken { endpoint },
        (Endpoint::Tcp(address), io::ErrorKind::PermissionDenied) if address.port() < 1024 => {
            Error::PortPrivileged { port: address.port() }
        }
        _ => Error::Endpoint { endpoint, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_forwardings() {
        let check = |text: &str, expected: &str, remote: u16| {
            let spec: ForwardSpec = text.parse().unwrap();
            let endpoint = spec.endpoint(IpAddr::V4(Ipv4Addr::LOCALHOST));
            assert_eq!((endpoint.to_string().as_str(), spec.remote_port), (expected, remote), "{text}");
        };
        check("8022:22", "127.0.0.1:8022", 22);
        check("0:5432", "127.0.0.1:0", 5432);
        check("127.0.0.2:8022:22", "127.0.0.2:8022", 22);
        check("localhost:1:22", "127.0.0.1:1", 22);
        check("*:1:22", "0.0.0.0:1", 22);
        check("[::1]:8022:22", "[::1]:8022", 22);
        check("/tmp/a b:c.sock:22", "/tmp/a b:c.sock", 22);
        for text in
            ["", "22", ":22", "a:22", "8022:", "8022:0", "8022:70000", "70000:22", "web:8022:22", "-1:22"]
        {
            assert!(text.parse::<ForwardSpec>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = Listener::open(&Endpoint::loopback(0)).await.unwrap();
        let error = Listener::open(&first.endpoint().unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::EndpointTaken { .. }), "{error}");
    }
}
