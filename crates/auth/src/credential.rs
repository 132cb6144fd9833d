//! The names of `--credential` and what they open: the list of built-in ways to sign in. It leaves out the ways
//! themselves.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bastide_core::{AuthError, Provider};
use bastide_net::Network;

use crate::{AzureCli, Cache, CacheOptions, Chain, Environment, ServicePrincipal};

/// A way to sign in, by its name on the command line (cli.md, `--credential`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Credential {
    /// The first of the others that is set up.
    #[default]
    Auto,
    /// An application with a secret, from `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET`.
    ClientSecret,
    /// Whoever is signed in with `az login`.
    AzureCli,
}

/// What providers are made from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The way out.
    pub network: Network,
    /// Entra ID's address: [`bastide_core::Cloud::authority`], or what the caller prefers to it.
    pub authority: String,
    /// Where the settings of the Azure SDKs come from.
    pub environment: Environment,
    /// `--tenant`; wins over `AZURE_TENANT_ID`.
    pub tenant: Option<String>,
    /// `--client-id`; wins over `AZURE_CLIENT_ID`.
    pub client_id: Option<String>,
}

impl Credential {
    /// All of them, in the order of cli.md.
    pub const ALL: [Credential; 3] = [Credential::Auto, Credential::ClientSecret, Credential::AzureCli];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Credential::Auto => "auto",
            Credential::ClientSecret => "client-secret",
            Credential::AzureCli => "azure-cli",
        }
    }

    /// A provider of this kind with a [`Cache`] around it. Nothing is sent yet.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] when a setting is missing that this way cannot do without.
    pub fn open(self, setup: &Setup) -> Result<Arc<dyn Provider>, AuthError> {
        let provider: Arc<dyn Provider> = match self {
            // The order of cli.md.
            Credential::Auto => {
                Arc::new(Chain::default().link(service_principal(setup)).link(Ok(azure_cli(setup))))
            }
            Credential::ClientSecret => Arc::new(service_principal(setup)?),
            Credential::AzureCli => Arc::new(azure_cli(setup)),
        };
        Ok(Arc::new(Cache::new(provider, CacheOptions::default())))
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Credential {
    type Err = UnknownCredential;

    fn from_str(text: &str) -> Result<Self, UnknownCredential> {
        Self::ALL
            .into_iter()
            .find(|credential| credential.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownCredential { text: text.to_owned() })
    }
}

/// A name that stands for no way to sign in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a credential: it has to be one of {}", Credential::ALL.map(Credential::name).join(", "))]
pub struct UnknownCredential {
    text: String,
}

fn service_principal(setup: &Setup) -> Result<ServicePrincipal, AuthError> {
    ServicePrincipal::from_environment(
        setup.network.clone(),
        &setup.authority,
        &setup.environment,
        setup.tenant.as_deref(),
        setup.client_id.as_deref(),
    )
}

fn azure_cli(setup: &Setup) -> AzureCli {
    AzureCli::new(&setup.environment, setup.tenant.as_deref())
}

#[cfg(test)]
mod tests {
    use bastide_core::TokenRequest;

    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for credential in Credential::ALL {
            assert_eq!(credential.to_string().to_uppercase().parse(), Ok(credential));
        }
        assert_eq!(
            "device-code".parse::<Credential>().unwrap_err().to_string(),
            "'device-code' is not a credential: it has to be one of auto, client-secret, azure-cli"
        );
    }

    #[tokio::test]
    async fn auto_says_everything_that_it_tried() {
        let nowhere = tempfile::tempdir().unwrap();
        let setup = Setup {
            network: Network::new(bastide_net::Options::default()).unwrap(),
            authority: "https://login.invalid".into(),
            environment: [("PATH", nowhere.path().display().to_string())].into_iter().collect(),
            tenant: None,
            client_id: None,
        };
        let provider = Credential::Auto.open(&setup).unwrap();
        let error = provider
            .access_token(&TokenRequest::new("https://management.azure.com/.default"))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "not signed in to Azure: client-secret: without AZURE_TENANT_ID, AZURE_CLIENT_ID, \
             AZURE_CLIENT_SECRET; azure-cli: `az` is not in PATH"
        );
        assert!(matches!(Credential::ClientSecret.open(&setup), Err(AuthError::Unavailable { .. })));
    }
}
