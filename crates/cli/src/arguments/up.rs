//! Flags of `bastide up`. It leaves out its file (`configuration::tunnels`).

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The file; bastide.toml in this folder, or up.toml in ~/.config/bastide, where left out
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Say what is wrong with the file, and open nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// Serve /healthz, /readyz and /metrics (Prometheus) there; the file's [health] where left out, else nowhere
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) health: Option<SocketAddr>,
    /// Let other machines reach --health
    #[arg(long)]
    pub(crate) allow_other_users: bool,
}
