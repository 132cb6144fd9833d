//! Signing in to Azure: the built-in providers, the chain that tries them, and the cache that is the only place
//! to know when a token ends. It knows neither the relay nor ARM, and prints nothing.
//!
//! [`Credential::open`] is the paved path: from the words of `--credential` to a cached provider. The parts are
//! public for those who bring a provider of their own:
//!
//! * [`Cache`] around any [`bastide_core::Provider`]: early refresh, one request for many callers, a time limit.
//! * [`Chain`]: the first provider that is set up.
//! * [`ServicePrincipal`] and [`AzureCli`], both by `azure_identity`; what leaves the process goes through
//!   [`bastide_net::Network`], so that one set of roots, proxies and time limits holds.
//!
//! Errors are [`bastide_core::AuthError`]. No message and no log line holds a secret.

mod azure_cli;
mod cache;
mod chain;
mod credential;
mod entra;
mod environment;
#[cfg(fuzzing)]
pub mod fuzzing;
mod service_principal;
mod sys;
#[cfg(test)]
mod test_server;
mod transport;

pub use azure_cli::AzureCli;
pub use cache::{Cache, CacheOptions, Clock};
pub use chain::Chain;
pub use credential::{Credential, Setup, UnknownCredential};
pub use environment::Environment;
pub use service_principal::ServicePrincipal;
