//! The flags that every way to a VM shares: which Bastion host and VM, and how connections behave (cli.md, "Flags").
//! It leaves out what single commands add.

use clap::{Args, ValueEnum};

/// Which Bastion host and which VM.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bastion host and VM")]
pub(crate) struct Place {
    /// A VM's name, its resource id or private address, or a name of [hosts] in the configuration
    #[arg(value_name = "TARGET", help_heading = "Arguments", conflicts_with_all = ["target_resource_id", "target_ip_address"])]
    pub(crate) target: Option<String>,
    /// The Bastion host: its name, or its whole resource id; found by itself where left out
    #[arg(short, long, value_name = "BASTION")]
    pub(crate) name: Option<String>,
    /// The Bastion host's resource group
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub(crate) resource_group: Option<String>,
    /// The VM's or scale-set instance's resource id
    #[arg(long, value_name = "ID", conflicts_with = "target_ip_address")]
    pub(crate) target_resource_id: Option<String>,
    /// The VM's private IP address
    #[arg(long, value_name = "IP")]
    pub(crate) target_ip_address: Option<String>,
    /// Subscription of the Bastion host: name or id
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) subscription: Option<String>,
}

/// How connections behave.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub(crate) struct Behaviour {
    /// Life of the tunnel in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// End after so many seconds without a byte in any connection
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) idle_timeout: Option<u64>,
    /// How the end of a silent connection is found
    #[arg(long, value_enum, default_value_t = Keepalive::Ping)]
    pub(crate) keepalive: Keepalive,
    /// Largest payload of a WebSocket frame to the service, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(128..))]
    pub(crate) max_frame: u16,
    /// Limit for opening one connection, retries included
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) connect_timeout: u64,
    /// Further attempts after one that the service failed
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) retries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keepalive {
    /// WebSocket pings after 30 s of silence, on top of TCP keepalive
    Ping,
    /// TCP keepalive alone
    Tcp,
    /// Neither
    Off,
}

impl std::fmt::Display for Keepalive {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Keepalive::Ping => "ping",
            Keepalive::Tcp => "tcp",
            Keepalive::Off => "off",
        })
    }
}
