//! What `list` can be asked. It leaves out asking.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Which; both where left out
    pub(crate) what: Option<Listing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    /// Bastion hosts, with what each of them can do
    Bastions,
    /// VMs and scale-set instances, with the Bastion hosts that reach each
    Vms,
}
