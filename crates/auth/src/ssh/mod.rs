//! Signing in to a VM with Entra ID: a key that exists in memory only, the certificate that Entra ID gives for it,
//! and the agent that serves both to OpenSSH. It leaves out starting OpenSSH.

#[cfg(unix)]
mod agent;
mod certificate;
mod conversation;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod identity;
mod key;
mod wire;

#[cfg(unix)]
pub use agent::{Agent, Progress};
pub use certificate::Certificate;
pub use identity::EntraIdentity;
