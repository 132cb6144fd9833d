//! Everything about Azure Bastion that can be decided without a socket, a clock or a file: names of
//! resources, clouds, what a Bastion host allows, the shapes of its requests and answers, and when a
//! failed connection is worth another try. It leaves out all input and output: time is a parameter,
//! random numbers are a parameter, and bytes are slices.

mod bastion;
mod causes;
mod cloud;
mod data_plane;
mod error;
mod fault;
mod occupancy;
mod plan;
mod provider;
mod rdp;
mod resource_id;
mod retry;
mod secret;
mod target;
mod wait;

pub use bastion::{BastionHost, Sku};
pub use causes::causes;
pub use cloud::Cloud;
pub use data_plane::{Grant, GrantError, service_message};
pub use error::Error;
pub use fault::Fault;
pub use occupancy::{MOST_SCALE_UNITS, Occupancy};
pub use plan::{Entry, Plan, Refusal};
pub use provider::{AccessToken, AuthError, CertificateRequest, Freshness, Provider, TokenRequest};
pub use rdp::{RdpFile, RdpFileError, RdpSignIn};
pub use resource_id::ResourceId;
pub use retry::{Attempt, End, Heard, RetryPolicy, Verdict, is_closed_port, verdict};
pub use secret::Secret;
pub use target::{Target, TargetKind};
pub use wait::{EVER, Wait};
