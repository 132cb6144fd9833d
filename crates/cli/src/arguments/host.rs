//! Commands that look at a Bastion host instead of carrying bytes: `doctor` and `sessions`. It leaves out what they share
//! with others (`place`).

use clap::{Args, Subcommand};

use super::{Behaviour, Place};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The VM's port
    #[arg(long, value_name = "PORT", default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Bastion host and VM")]
    pub(crate) resource_port: u16,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Bastion host")]
pub(crate) struct Sessions {
    #[command(subcommand)]
    pub(crate) task: Option<SessionsTask>,
    /// The Bastion host: its name, or its whole resource id
    #[arg(short, long, global = true, value_name = "BASTION")]
    pub(crate) name: Option<String>,
    /// The Bastion host's resource group
    #[arg(short = 'g', long, global = true, value_name = "GROUP")]
    pub(crate) resource_group: Option<String>,
    /// The resource id of a VM, whose Bastion host is meant where none is named
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) target_resource_id: Option<String>,
    /// Subscription of the Bastion host: name or id
    #[arg(long, global = true, value_name = "NAME|ID")]
    pub(crate) subscription: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsTask {
    /// The sessions that are open on the Bastion host, and those that a crash has left behind
    List {
        /// A VM's name, resource id or private address, whose Bastion host is meant where none is named
        #[arg(conflicts_with = "target_resource_id")]
        target: Option<String>,
    },
    /// End sessions, whoever they belong to
    Close {
        /// Ids of sessions, as `list` shows them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

impl Sessions {
    /// The words that name the Bastion host, by itself or by a VM.
    pub(crate) fn place(&self) -> Place {
        let target = match &self.task {
            Some(SessionsTask::List { target }) => target.clone(),
            Some(SessionsTask::Close { .. }) | None => None,
        };
        Place {
            target,
            name: self.name.clone(),
            resource_group: self.resource_group.clone(),
            target_resource_id: self.target_resource_id.clone(),
            target_ip_address: None,
            subscription: self.subscription.clone(),
        }
    }
}
