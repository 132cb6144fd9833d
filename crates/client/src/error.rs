//! Everything that can keep a tunnel from running, from the crates below and from this one.

use std::io;

use bastide_core::{AuthError, Fault, Refusal};

use crate::{Endpoint, StopCause};

/// A tunnel can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word does not mean what it should.
    #[error(transparent)]
    Words(#[from] bastide_core::Error),
    /// The Bastion host was not named.
    #[error("no Bastion host is named")]
    NoBastion,
    /// The Bastion host's settings forbid it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not signed in.
    #[error(transparent)]
    SignIn(#[from] AuthError),
    /// ARM has another answer than hoped for.
    #[error(transparent)]
    Arm(#[from] bastide_arm::Error),
    /// The way out of this machine is misconfigured.
    #[error(transparent)]
    Network(#[from] bastide_net::Error),
    /// A connection failed.
    #[error(transparent)]
    Connection(#[from] bastide_relay::Error),
    /// The service did not end a session.
    #[error("session '{id}' was not ended: {}", message.as_deref().unwrap_or(state))]
    NotEnded {
        /// Which.
        id: String,
        /// `NotFound`, or `Failed`.
        state: String,
        /// What the service says.
        message: Option<String>,
    },
    /// Somebody listens there.
    #[error("{endpoint} is in use by another program")]
    EndpointTaken {
        /// Where.
        endpoint: Endpoint,
    },
    /// The port belongs to root.
    #[error("local port {port} is privileged: only root may listen below 1024")]
    PortPrivileged {
        /// Which.
        port: u16,
    },
    /// Listening failed otherwise.
    #[error("cannot listen on {endpoint}")]
    Endpoint {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A time limit of [`crate::TunnelOptions`] has ended a connection.
    #[error("{}", match cause {
        StopCause::Idle => "the connection was idle for too long (idle-timeout)",
        StopCause::Lifetime | StopCause::Asked => "the connection's time is over (timeout)",
    })]
    LimitReached {
        /// Which: not [`StopCause::Asked`].
        cause: StopCause,
    },
    /// A socket that was handed over can't be listened on.
    #[error("a socket that was handed over cannot be used")]
    Inherited(#[source] io::Error),
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Words(error) => Some(error.hint()),
            Error::NoBastion => Some("name it with --name BASTION and --resource-group GROUP".into()),
            Error::Refused(refusal) => Some(refusal.hint()),
            Error::SignIn(error) => Some(error.hint()),
            Error::Arm(error) => error.hint(),
            Error::Network(error) => error.hint(),
            Error::Connection(error) => error.hint(),
            Error::NotEnded { .. } => Some("`bastide sessions list` shows those that are there".into()),
            Error::EndpointTaken { endpoint: Endpoint::Tcp(_) } => {
                Some("--port 0 takes any free port and says which".into())
            }
            Error::EndpointTaken { endpoint: Endpoint::Unix(_) } => {
                Some("name another path, or end the program that listens there".into())
            }
            Error::PortPrivileged { port } => Some(format!(
                "take a higher one, such as --port {}, or --port 0 for any free one",
                u32::from(*port) + 10_000
            )),
            Error::Endpoint { .. } => {
                Some("check --bind and --port, or the socket's path and its folder".into())
            }
            Error::LimitReached { .. } => Some("who set the limit may set a longer one, or none".into()),
            Error::Inherited(_) => {
                Some("sockets for socket activation are streams: ListenStream= in the unit".into())
            }
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Words(error) => error.fault(),
            Error::Refused(refusal) => refusal.fault(),
            Error::SignIn(error) => error.fault(),
            Error::Arm(error) => error.fault(),
            Error::Network(error) if error.is_configuration() => Fault::Usage,
            Error::Network(_) => Fault::Network,
            Error::Connection(error) => error.fault(),
            Error::NotEnded { state, .. } if state.eq_ignore_ascii_case("notfound") => Fault::NotFound,
            Error::NotEnded { .. } => Fault::Service,
            Error::LimitReached { .. } => Fault::Timeout,
            Error::NoBastion
            | Error::EndpointTaken { .. }
            | Error::PortPrivileged { .. }
            | Error::Endpoint { .. }
            | Error::Inherited(_) => Fault::Usage,
        }
    }

    /// The data plane's id of the request that failed, for a support request; ARM's errors say theirs themselves.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Error::Connection(error) => error.request_id(),
            _ => None,
        }
    }
}
