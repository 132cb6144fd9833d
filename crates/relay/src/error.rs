//! Why a connection could not be opened or did not last. It leaves out how an attempt ended
//! ([`bastide_core::End`]), from which retries follow.

use std::fmt;
use std::time::Duration;

use bastide_core::{AuthError, End, Fault, GrantError, RdpFileError, Refusal, ResourceId, TargetKind, Wait};

/// A connection failed. Can be cloned, so that everybody who waits for the connection can be told.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No access token.
    #[error("no access token for the connection")]
    SignIn(#[source] AuthError),
    /// The Bastion host could not be reached.
    #[error("the Bastion host '{host}' cannot be reached")]
    Unreachable {
        /// Its data plane.
        host: String,
        /// What broke.
        #[source]
        source: Box<bastide_net::Error>,
    },
    /// The service refused to mint a token, or to give something else that a connection begins with.
    #[error(
        "the Bastion service refused {wanted} for port {port} of '{target}': status {status}{}",
        said(message.as_deref())
    )]
    Mint {
        /// What it refused.
        wanted: Wanted,
        /// The target's name.
        target: String,
        /// The target's port.
        port: u16,
        /// The HTTP status.
        status: u16,
        /// What the service said.
        message: Option<String>,
        /// The service's id of the request.
        request_id: Option<String>,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// The service minted something unusable.
    #[error(transparent)]
    Grant(GrantError),
    /// There is no RDP gateway where one is wanted.
    #[error(transparent)]
    Refused(Refusal),
    /// The service answered with something else than an RDP file.
    #[error(transparent)]
    RdpFile(RdpFileError),
    /// A Developer host named no data pod.
    #[error("the Bastion service named no data pod: {reason}")]
    Pod {
        /// What it answered instead.
        reason: String,
    },
    /// The upgrade to a WebSocket was refused.
    #[error("the Bastion service refused the WebSocket: status {status}{}", said(message.as_deref()))]
    Upgrade {
        /// The HTTP status.
        status: u16,
        /// What the service said.
        message: Option<String>,
        /// The service's id of the request.
        request_id: Option<String>,
    },
    /// The answer to the upgrade was made for somebody else.
    #[error("the answer to the WebSocket upgrade has a wrong Sec-WebSocket-Accept")]
    Accept,
    /// Closed without a word after the local side had finished and everything was sent.
    #[error(
        "port {port} of '{target}' was closed before anything came back, after all {sent} bytes had been sent"
    )]
    NoAnswer {
        /// The target's name.
        target: String,
        /// The target's port.
        port: u16,
        /// How much.
        sent: u64,
    },
    /// The VM closed every attempt before it had said anything.
    #[error("port {port} of '{target}' was closed before anything came back ({})", counted(*attempts))]
    PortClosed {
        /// The target's name.
        target: String,
        /// The target's port.
        port: u16,
        /// How often it was tried.
        attempts: u32,
    },
    /// The service failed every attempt.
    #[error("no working connection to '{target}' after {}: {end}", counted(*attempts))]
    Sick {
        /// The target's name.
        target: String,
        /// How often it was tried.
        attempts: u32,
        /// How the last attempt ended.
        end: End,
    },
    /// The VM does not run.
    #[error("the VM '{target}' is {state}")]
    VmOff {
        /// The target's name.
        target: String,
        /// What Azure calls its state: `deallocated`, `stopped`, `starting`.
        state: String,
        /// Its resource id.
        id: Box<ResourceId>,
    },
    /// Not open in time.
    #[error("no connection to '{target}' within {} s", after.as_secs())]
    TimedOut {
        /// The target's name.
        target: String,
        /// The limit.
        after: Duration,
    },
    /// A token could not be given back.
    #[error("a token could not be given back to '{host}': {reason}")]
    NotReleased {
        /// Who minted it.
        host: String,
        /// Why not.
        reason: String,
    },
    /// The tunnel was stopped meanwhile.
    #[error("the tunnel was stopped")]
    Stopped,
}

/// What the data plane is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// The token of a connection.
    Token,
    /// The RDP file of the gateway.
    RdpFile,
}

impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Wanted::Token => "a token",
            Wanted::RdpFile => "an RDP file",
        })
    }
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::SignIn(error) => Some(error.hint()),
            Error::Unreachable { source, .. } => source.hint(),
            Error::Mint { status: 401, .. } => {
                Some("sign in again, with the tenant of the Bastion host's subscription (--tenant)".into())
            }
            Error::Mint { status: 429, retry_after, .. } => Some(format!(
                "{}the host may be at its limit of sessions: close some, or add scale units",
                retry_after.map_or_else(String::new, |wait| format!("try again in {}; ", Wait(wait)))
            )),
            Error::Mint { message: Some(message), .. } if is_catch_all(message) => Some(
                "the service says this for many causes; the commonest: no Reader role on the VM's network \
                 interface, on the VM, or on the Bastion host; a VM that is off; a target that Bastion does not \
                 support"
                    .into(),
            ),
            Error::Mint { status: 403, .. } => Some(
                "Reader is needed on the VM, on its network interface and on the Bastion host: az role assignment \
                 create --role Reader --assignee YOU --scope ID"
                    .into(),
            ),
            Error::Mint { retry_after: Some(wait), .. } => Some(format!(
                "try again in {}; if it stays, open a support request with the request id",
                Wait(*wait)
            )),
            Error::Refused(refusal) => Some(refusal.hint()),
            Error::Mint { .. }
            | Error::Grant(_)
            | Error::RdpFile(_)
            | Error::Pod { .. }
            | Error::Upgrade { .. }
            | Error::Accept => {
                Some("try again; if it stays, open a support request with the request id".into())
            }
            Error::PortClosed { port, .. } => Some(format!(
                "most likely nothing listens on port {port} of the VM, the VM is off, or a firewall or network security \
                 group blocks the port from the Bastion subnet"
            )),
            Error::NoAnswer { port, .. } => Some(format!(
                "the VM may have taken it all and have nothing to answer, so it was not sent again; or nothing listens \
                 on port {port}, the VM is off, or a firewall or network security group blocks the port"
            )),
            Error::Sick { .. } => Some("the service seems to be in trouble: try again in a few minutes".into()),
            Error::VmOff { state, .. } if state == "starting" => Some("try again when it has started".into()),
            Error::VmOff { id, .. } => Some(format!("start it: {}", start(id))),
            Error::TimedOut { .. } => Some("--connect-timeout SECONDS gives it longer".into()),
            Error::NotReleased { .. } => {
                Some("the next bastide tries again, and the service ends it by itself at its idle time-out".into())
            }
            Error::Stopped => None,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Error::SignIn(error) => error.fault(),
            Error::Unreachable { .. } => Fault::Network,
            Error::Mint { status: 401, .. } => Fault::SignIn,
            Error::Mint { status: 403, .. } => Fault::Right,
            Error::Mint { status: 404, .. } => Fault::NotFound,
            Error::Refused(refusal) => refusal.fault(),
            Error::Mint { .. }
            | Error::Grant(_)
            | Error::RdpFile(_)
            | Error::Pod { .. }
            | Error::Upgrade { .. }
            | Error::Accept
            | Error::NotReleased { .. }
            | Error::Sick { .. } => Fault::Service,
            Error::PortClosed { .. } | Error::NoAnswer { .. } => Fault::Vm,
            Error::VmOff { .. } => Fault::NotFound,
            Error::TimedOut { .. } => Fault::Timeout,
            Error::Stopped => Fault::Ours,
        }
    }

    /// Whether a VM that does not run would explain it.
    pub(crate) fn may_be_the_vm(&self) -> bool {
        match self {
            Error::PortClosed { .. } | Error::Sick { .. } => true,
            Error::Mint { message: Some(message), .. } => is_catch_all(message),
            _ => false,
        }
    }

    /// The service's id of the failed request, for a support request.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Error::Mint { request_id, .. } | Error::Upgrade { request_id, .. } => request_id.as_deref(),
            _ => None,
        }
    }
}

/// The line that starts a VM.
fn start(id: &ResourceId) -> String {
    match (id.kind(), id.parent()) {
        (TargetKind::ScaleSetInstance, Some(set)) => format!(
            "az vmss start --name {} --resource-group {} --subscription {} --instance-ids {}",
            set.name(),
            id.group(),
            id.subscription(),
            id.name()
        ),
        _ => format!("az vm start --ids {id}"),
    }
}

/// The answer that the service gives for many causes (peers.md F1, F2).
pub(crate) fn is_catch_all(message: &str) -> bool {
    message.to_ascii_lowercase().contains("unexpected internal error")
}

fn counted(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".into() } else { format!("{attempts} attempts") }
}

fn said(message: Option<&str>) -> String {
    message.map(|message| format!(", \"{message}\"")).unwrap_or_default()
}
