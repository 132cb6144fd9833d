//! Signing in to a VM: with Entra ID by a key that exists in memory only and a certificate for it, or by a key that a
//! plugin signs with, and the agent that serves either to OpenSSH. It leaves out starting OpenSSH.

#[cfg(unix)]
mod agent;
mod algorithm;
mod certificate;
mod conversation;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod identity;
mod key;
mod offer;
mod wire;

#[cfg(unix)]
pub use agent::{Agent, Progress};
pub use certificate::Certificate;
pub use identity::EntraIdentity;
pub use offer::VmSignIn;
