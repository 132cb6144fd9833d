//! Commands that carry bytes and know nothing of what is in them: `tunnel`, `exec`
//! and `proxy`. It leaves out what they share with others (`place`).

use std::ffi::OsString;
use std::net::IpAddr;

use bastide::ForwardSpec;
use clap::Args;

use super::{Behaviour, Place};

#[derive(Debug, Args)]
pub(crate) struct Tunnel {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) local: LocalSide,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// Keep N sessions of each forwarding ready, so that a connection opens in one round trip. They count against
    /// the Bastion host's limit of sessions; they are given back after 30 s without a new connection, which then
    /// has them made again
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=20), help_heading = "Connections")]
    pub(crate) prefetch: u8,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) local: LocalSide,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// A program, and its arguments, in which {host} and {port} stand for the tunnel's end ({{port}} for "{port}")
    #[arg(last = true, required = true, value_name = "COMMAND", help_heading = "Arguments")]
    pub(crate) command: Vec<OsString>,
}

/// The ports of both ends.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ports")]
pub(crate) struct LocalSide {
    /// The VM's port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) resource_port: Option<u16>,
    /// The local port; any free one where 0 or left out
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// A further forwarding: [BIND:]PORT:RESOURCE-PORT, or /PATH.sock:RESOURCE-PORT
    #[arg(short = 'L', long = "forward", value_name = "SPEC")]
    pub(crate) forward: Vec<ForwardSpec>,
    /// The local address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// Serve other users of this machine too
    #[arg(long)]
    pub(crate) allow_other_users: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Proxy {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The VM's port
    #[arg(long, value_name = "PORT", default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Bastion host and VM")]
    pub(crate) resource_port: u16,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
}
