//! Azure Resource Manager, as far as a connection needs it: finds the Bastion host, the subscription and the VM
//! that a user's words mean, and turns each of ARM's refusals into an error that says what to do. It prints
//! nothing and opens no tunnel; what a Bastion host allows is decided by [`bastide_core::Plan`].
//!
//! * [`Arm`] asks: [`Arm::find_bastion`], [`Arm::bastion_host`], [`Arm::virtual_machine`],
//!   [`Arm::subscription`]; [`Arm::discover`] reads a cloud from the address of its resource manager.
//! * [`SubscriptionSources`] knows where a subscription may be named, and which place counts more.
//! * [`Arm::locate`] finds a VM by its name, and the Bastion host that reaches it, in Resource Graph; [`Arm::survey`]
//!   lists all that is there.
//! * [`Arm::permissions`], [`Arm::network_interface`], [`Arm::subnet`], [`Arm::virtual_network`] and
//!   [`Arm::security_group`] say what stands in a connection's way; [`SecurityGroup::rule`] decides as Azure does.
//! * [`Arm::sessions`] lists what a Bastion host carries.
//! * [`Error`] says whose fault it is and what to do next.
//!
//! Requests are bounded in time by [`bastide_net::Options`], in number by [`Arm::with_retry`] and
//! constants beside the code.

mod answer;
mod bastion;
mod client;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod graph;
mod network;
mod permissions;
#[cfg(test)]
mod script;
mod security_group;
mod sessions;
mod subscription;
mod virtual_machine;

pub use answer::{Answer, MissingRight};
pub use bastion::BastionName;
pub use client::Arm;
pub use error::Error;
pub use graph::{ListedHost, ListedMachine, Located, Search, Topology, Unlocated, Wanted, spelt};
pub use network::{NetworkInterface, Subnet, VirtualNetwork};
pub use permissions::Permissions;
pub use security_group::{Direction, Flow, Ruling, SecurityGroup};
pub use sessions::{Session, SessionEnd};
pub use subscription::{Subscription, SubscriptionChoice, SubscriptionOrigin, SubscriptionSources};
pub use virtual_machine::{OperatingSystem, PowerState, VirtualMachine};
