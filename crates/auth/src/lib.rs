//! Signing in to Azure: the built-in providers, the chain that tries them, and the cache that is the only place
//! to know when a token ends. It knows neither the relay nor ARM, and prints nothing.
//!
//! [`Credential::open`] is the paved path: from the words of `--credential` to a cached provider. The parts are
//! public for those who bring a provider of their own:
//!
//! * [`Cache`] around any [`bastide_core::Provider`]: early refresh, one request for many callers, a time limit.
//! * [`Chain`]: the first provider that is set up.
//! * [`OwnLogin`] (device code and refresh tokens by `oauth2`), [`ServicePrincipal`] and [`AzureCli`] (by
//!   `azure_identity`), [`ManagedIdentity`], [`Exec`]; what leaves the process goes through
//!   [`bastide_net::Network`], so that one set of roots, proxies and time limits holds.
//! * [`Store`]: what survives the process.
//! * [`plugin`]: sign-ins that third parties bring.
//! * [`EntraIdentity`] and [`Agent`]: signing in to a VM with Entra ID, or with a key that a plugin holds.
//!
//! Errors are [`bastide_core::AuthError`]. No message and no log line holds a secret.

mod azure_cli;
mod cache;
mod certificate;
mod chain;
mod child;
mod credential;
mod entra;
mod environment;
mod exec;
mod federated;
#[cfg(fuzzing)]
pub mod fuzzing;
mod identity;
mod kept;
mod keyring;
mod managed_identity;
mod own_login;
pub mod plugin;
mod public_client;
mod service_principal;
mod ssh;
mod store;
mod sys;
#[cfg(test)]
mod test_server;
mod transport;

pub use azure_cli::AzureCli;
pub use cache::{Cache, CacheOptions, Clock};
pub use chain::Chain;
pub use credential::{Credential, Setup, UnknownCredential};
pub use environment::Environment;
pub use exec::Exec;
pub use identity::Identity;
pub use managed_identity::ManagedIdentity;
pub use own_login::{OwnLogin, SignedIn};
pub use public_client::{DeviceCode, Prompt};
pub use service_principal::ServicePrincipal;
#[cfg(unix)]
pub use ssh::{Agent, Progress};
pub use ssh::{Certificate, EntraIdentity, VmSignIn};
pub use store::{Kept, Store};
pub use sys::state_folder;
