//! The names of `--credential` and what they open: the list of built-in ways to sign in. It leaves out the ways
//! themselves.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bastide_core::{AuthError, Provider, TokenRequest};
use bastide_net::Network;

use crate::plugin::{self, Asker, Plugin, PluginSettings, Services};
use crate::kept::{KeptTokens, azure_profile};
use crate::{
    AzureCli, Cache, CacheOptions, Chain, Environment, Exec, ManagedIdentity, OwnLogin, Prompt,
    ServicePrincipal, Store, azure_cli, exec, managed_identity, public_client, service_principal,
};

/// A way to sign in, by its name on the command line (cli.md, `--credential`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Credential {
    /// The first of the others that is set up, but for [`Credential::Exec`].
    #[default]
    Auto,
    /// Whoever has signed in with `bastide login`; asks for a sign-in where [`Setup::prompt`] can.
    DeviceCode,
    /// The identity that Azure has given to this machine.
    ManagedIdentity,
    /// An application with a token of another issuer: `AZURE_FEDERATED_TOKEN_FILE`, GitHub Actions, Azure Pipelines.
    WorkloadIdentity,
    /// An application with a secret, from `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET`.
    ClientSecret,
    /// An application with a certificate, from `AZURE_CLIENT_CERTIFICATE_PATH`.
    ClientCertificate,
    /// Whoever is signed in with `az login`.
    AzureCli,
    /// A program that prints a token.
    Exec,
    /// A plugin of this name in [`Setup::plugins`].
    Plugin(String),
}

/// What comes before a plugin's name.
const PLUGIN: &str = "plugin";

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
    /// Where sign-ins are kept.
    pub store: Store,
    /// The line for the shell of [`Credential::Exec`].
    pub exec_command: Option<String>,
    /// Who shows the user a code, for [`Credential::DeviceCode`].
    pub prompt: Option<Arc<dyn Prompt>>,
    /// What [`Credential::Plugin`] may name.
    pub plugins: Vec<PluginSettings>,
    /// Who asks the user on a plugin's behalf.
    pub asker: Option<Arc<dyn Asker>>,
}

impl Credential {
    /// All of them but plugins, in the order of cli.md.
    pub const BUILT_IN: [Credential; 8] = [
        Credential::Auto,
        Credential::DeviceCode,
        Credential::ManagedIdentity,
        Credential::WorkloadIdentity,
        Credential::ClientSecret,
        Credential::ClientCertificate,
        Credential::AzureCli,
        Credential::Exec,
    ];

    /// Its name on the command line; all plugins have one.
    pub fn name(&self) -> &'static str {
        match self {
            Credential::Auto => "auto",
            Credential::DeviceCode => public_client::NAME,
            Credential::ManagedIdentity => managed_identity::NAME,
            Credential::WorkloadIdentity => service_principal::WORKLOAD_IDENTITY,
            Credential::ClientSecret => service_principal::CLIENT_SECRET,
            Credential::ClientCertificate => service_principal::CLIENT_CERTIFICATE,
            Credential::AzureCli => azure_cli::NAME,
            Credential::Exec => exec::NAME,
            Credential::Plugin(_) => PLUGIN,
        }
    }

    /// A provider of this kind with a [`Cache`] around it. Nothing is sent yet.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] when a setting is missing that this way cannot do without, [`AuthError::Plugin`] for a
    /// plugin that the setup does not name.
    pub fn open(&self, setup: &Setup) -> Result<Arc<dyn Provider>, AuthError> {
        let mut options = CacheOptions::default();
        let provider: Arc<dyn Provider> = match self {
            // The order of cli.md.
            Credential::Auto => Arc::new(
                Chain::default()
                    .link(Ok(OwnLogin::new(setup)))
                    .link(ServicePrincipal::with_secret(setup))
                    .link(ServicePrincipal::with_certificate(setup))
                    .link(ServicePrincipal::with_federated_token(setup))
                    .link_shared(Ok(azure_cli(setup)))
                    .link(Ok(ManagedIdentity::new(setup).probed())),
            ),
            Credential::DeviceCode => {
                if setup.prompt.is_some() {
                    options.time_limit = PERSON_LIMIT;
                }
                Arc::new(OwnLogin::new(setup).asking(setup.prompt.clone()))
            }
            Credential::ManagedIdentity => Arc::new(ManagedIdentity::new(setup)),
            Credential::WorkloadIdentity => Arc::new(ServicePrincipal::with_federated_token(setup)?),
            Credential::ClientSecret => Arc::new(ServicePrincipal::with_secret(setup)?),
            Credential::ClientCertificate => Arc::new(ServicePrincipal::with_certificate(setup)?),
            Credential::AzureCli => azure_cli(setup),
            Credential::Exec => Arc::new(Exec::new(setup)?),
            Credential::Plugin(name) => {
                // The plugin has a limit of its own, which does not count the time that a person takes.
                options.time_limit = PERSON_LIMIT;
                let services = Services {
                    provider: None,
                    asker: setup.asker.clone(),
                    network: Some(setup.network.clone()),
                };
                Plugin::new(plugin::named(&setup.plugins, name)?.clone(), services)
            }
        };
        Ok(Arc::new(Cache::new(provider, options)))
    }
}

/// How long a person may take: a code of Entra ID's is good for 15 minutes
/// (learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code).
const PERSON_LIMIT: Duration = Duration::from_secs(16 * 60);

/// What only some providers can give.
pub(crate) fn unsupported(provider: &str, request: &TokenRequest) -> Result<(), AuthError> {
    let what = match (&request.certificate, &request.claims) {
        (Some(_), _) => "an SSH certificate",
        (None, Some(_)) => "a token with the claims that the service demands",
        (None, None) => return Ok(()),
    };
    Err(AuthError::Unsupported { provider: provider.to_owned(), what: what.to_owned() })
}

impl fmt::Display for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Plugin(name) => write!(formatter, "{PLUGIN}:{name}"),
            built_in => formatter.write_str(built_in.name()),
        }
    }
}

impl FromStr for Credential {
    type Err = UnknownCredential;

    fn from_str(text: &str) -> Result<Self, UnknownCredential> {
        if let Some((PLUGIN, name)) = text.split_once(':').filter(|(_, name)| !name.is_empty()) {
            return Ok(Credential::Plugin(name.to_owned()));
        }
        Self::BUILT_IN
            .into_iter()
            .find(|credential| credential.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownCredential { text: text.to_owned() })
    }
}

/// A name that stands for no way to sign in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a credential: it has to be one of {} or plugin:NAME",
    Credential::BUILT_IN.each_ref().map(Credential::name).join(", ")
)]
pub struct UnknownCredential {
    text: String,
}

/// Its tokens are kept: `az` takes half a second to start.
fn azure_cli(setup: &Setup) -> Arc<dyn Provider> {
    let provider = AzureCli::new(&setup.environment, setup.tenant.as_deref());
    let realm = format!("{} {}", setup.authority, setup.tenant.as_deref().unwrap_or_default());
    match azure_profile(&setup.environment) {
        Some(profile) => Arc::new(KeptTokens::new(provider, setup.store.clone(), realm, profile)),
        None => Arc::new(provider),
    }
}

#[cfg(test)]
mod tests {
    use bastide_core::TokenRequest;

    use super::*;
    use crate::test_server::{Server, setup};

    #[test]
    fn every_name_is_read_back() {
        for credential in Credential::BUILT_IN {
            assert_eq!(credential.to_string().to_uppercase().parse(), Ok(credential));
        }
        assert_eq!("plugin:vault".parse(), Ok(Credential::Plugin("vault".into())));
        assert_eq!(Credential::Plugin("vault".into()).to_string(), "plugin:vault");
        assert!("plugin:".parse::<Credential>().is_err() && "plugin".parse::<Credential>().is_err());
        assert_eq!(
            "browser".parse::<Credential>().unwrap_err().to_string(),
            "'browser' is not a credential: it has to be one of auto, device-code, managed-identity, \
             workload-identity, client-secret, client-certificate, azure-cli, exec or plugin:NAME"
        );
    }

    #[tokio::test]
    async fn auto_says_everything_that_it_tried() {
        let nowhere = tempfile::tempdir().unwrap();
        let server = Server::start(Vec::new()).await;
        let path = nowhere.path().display().to_string();
        let imds = ("BASTIDE_IMDS_ENDPOINT", "https://localhost:9");
        let setup = setup(&server, &[("PATH", path.as_str()), imds]);
        let provider = Credential::Auto.open(&setup).unwrap();
        let error = provider
            .access_token(&TokenRequest::new("https://management.azure.com/.default"))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "not signed in to Azure: device-code: nobody has signed in with `bastide login`; \
             client-secret: without AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET; \
             client-certificate: without AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_CERTIFICATE_PATH; \
             workload-identity: without AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE; \
             azure-cli: `az` is not in PATH; \
             managed-identity: the instance metadata service does not answer"
        );
        assert!(matches!(Credential::ClientSecret.open(&setup), Err(AuthError::Unavailable { .. })));
    }
}
