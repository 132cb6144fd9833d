//! From words to a relay: which cloud, who signs in, which Bastion host, what it allows. It leaves out listening
//! (`tunnel`) and the connections themselves (`bastide-relay`).

mod find;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bastide_arm::{Arm, BastionName, SubscriptionSources};
use bastide_auth::plugin::{Asker, Plugin, PluginSettings, Services, SignIn, SignInRequest};
use bastide_auth::{
    Cache, CacheOptions, Credential, EntraIdentity, Environment, Identity, OwnLogin, Prompt, Setup, SignedIn,
    Store,
};
use bastide_core::{BastionHost, Cloud, Plan, Provider, ResourceId, Secret, Target, TokenRequest};
use bastide_net::Network;
use bastide_relay::{Dues, Ledger, Observer, Relay, Witness};

use crate::ledger::LedgerFolder;
use crate::places::{Kept, Places};
use crate::power::Power;
use crate::{Connector, Error, FirstWord, NetworkOptions, RelayOptions, TunnelOptions};

pub use find::{Found, PROOF_KEPT, Source, Words};

/// Everything that a client can be told. The environment is a value, so that nothing here reads the process's own.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Roots, proxies, time limits.
    pub network: NetworkOptions,
    /// Which Azure. Default: the public cloud.
    pub cloud: CloudChoice,
    /// How to sign in. Default: whatever is set up.
    pub credential: Credential,
    /// A way to sign in of the caller's own, in place of `credential`; its tokens are cached as those of others are.
    /// Default: none.
    pub provider: Option<OwnProvider>,
    /// The tenant to sign in to. Default: the provider's own, and that of the Bastion host's subscription where ARM
    /// asks for it.
    pub tenant: Option<String>,
    /// The application to sign in as. Default: `AZURE_CLIENT_ID`.
    pub client_id: Option<String>,
    /// The Bastion host's subscription, by name or id. Default: from ids, then `AZURE_SUBSCRIPTION_ID`, then the
    /// Azure CLI's.
    pub subscription: Option<String>,
    /// The variables of the Azure SDKs. Default: none.
    pub environment: Environment,
    /// Where sign-ins are kept. Default: in memory.
    pub store: Store,
    /// The line for the shell of [`Credential::Exec`]. Default: none.
    pub exec_command: Option<String>,
    /// Who shows the user a code when [`Credential::DeviceCode`] needs a sign-in. Default: nobody, so that it fails.
    pub prompt: Option<Arc<dyn Prompt>>,
    /// The plugins that [`Credential::Plugin`] and [`Client::plugin_sign_in`] may name. Default: none.
    pub plugins: Vec<PluginSettings>,
    /// Who asks the user on a plugin's behalf. Default: nobody.
    pub asker: Option<Arc<dyn Asker>>,
    /// The folder in which minted tokens stand written until they are given back, so that what a crash leaves is given
    /// back by the next process. Processes share it. Default: none, and a crash leaves tokens to the service.
    pub ledger: Option<PathBuf>,
    /// What everything that is opened with the client owes the service, so that whoever ends the process can wait until
    /// it is given back ([`Dues::settle`]). Default: the client's own.
    pub dues: Dues,
    /// The folder in which answers of Resource Graph stand written for the next process. Processes share it. Default:
    /// none, and each looks for itself.
    pub cache: Option<PathBuf>,
}

/// A way to sign in that the caller brings.
#[derive(Clone)]
pub struct OwnProvider(pub Arc<dyn Provider>);

impl fmt::Debug for OwnProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("OwnProvider").field(&self.0.name()).finish()
    }
}

/// Who asks Azure, and by which right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As the access token has it.
    pub identity: Identity,
    /// The way it was got, by the name of [`Credential`].
    pub source: String,
    /// When the access token ends; it is renewed by itself.
    pub expires_on: SystemTime,
}

/// Which Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudChoice {
    /// One that is known.
    Known(Cloud),
    /// The one whose resource manager is at this `https://` address.
    At(String),
}

impl CloudChoice {
    /// Reads a name, in any case, or an address.
    ///
    /// # Errors
    /// [`Error::Words`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match Cloud::by_name(text) {
            Some(cloud) => Ok(Self::Known(cloud)),
            None => {
                Cloud::metadata_url(text)?;
                Ok(Self::At(text.to_owned()))
            }
        }
    }
}

impl Default for CloudChoice {
    fn default() -> Self {
        Self::Known(Cloud::public())
    }
}

/// Which Bastion host is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bastion {
    /// Its name, or its whole resource id.
    pub name: String,
    /// Its resource group. Without it all groups of the subscription are looked through.
    pub group: Option<String>,
}

impl Bastion {
    /// From flags that may be missing.
    ///
    /// # Errors
    /// [`Error::NoBastion`] without a name.
    pub fn parse(name: Option<&str>, group: Option<&str>) -> Result<Self, Error> {
        let given =
            |words: Option<&str>| words.map(str::trim).filter(|words| !words.is_empty()).map(str::to_owned);
        Ok(Self { name: given(name).ok_or(Error::NoBastion)?, group: given(group) })
    }
}

/// A Bastion host that was found, and what its data plane wants to see.
#[derive(Debug, Clone)]
pub struct Host {
    description: BastionHost,
    token: TokenRequest,
    /// Where it stands written that this host leads to the target.
    kept: Option<Kept>,
}

impl Host {
    /// How ARM describes it.
    pub fn description(&self) -> &BastionHost {
        &self.description
    }

    /// The tenant in which its data plane has its users, where that is known not to be the provider's own.
    pub fn tenant(&self) -> Option<&str> {
        self.token.tenant.as_deref()
    }

    /// How it opens `port` of `target`.
    ///
    /// # Errors
    /// [`Error::Refused`] when its settings forbid it.
    pub fn plan(&self, target: &Target, port: u16) -> Result<Plan, Error> {
        Ok(Plan::new(&self.description, target, port)?)
    }
}

/// Azure, as one identity sees it over one network.
pub struct Client {
    pub(crate) network: Network,
    provider: Arc<dyn Provider>,
    pub(crate) arm: Arc<Arm>,
    subscription: Option<String>,
    pub(crate) setup: Setup,
    pub(crate) ledger: Option<Arc<LedgerFolder>>,
    dues: Dues,
    places: Option<Arc<Places>>,
}

impl Client {
    /// Reads CA bundles, and for [`CloudChoice::At`] asks the cloud to describe itself. Signs in only when something
    /// is asked.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Network`], [`Error::Arm`] for a cloud that can't be read, [`Error::SignIn`] when the chosen way is not
    /// set up.
    pub async fn new(settings: Settings) -> Result<Self, Error> {
        let Settings {
            network,
            cloud,
            credential,
            provider,
            tenant,
            client_id,
            subscription,
            environment,
            store,
            exec_command,
            prompt,
            plugins,
            asker,
            ledger,
            dues,
            cache,
        } = settings;
        let network = Network::new(network)?;
        let cloud = match cloud {
            CloudChoice::Known(cloud) => cloud,
            CloudChoice::At(address) => Arm::discover(&network, &address).await?,
        };
        let authority =
            environment.get("AZURE_AUTHORITY_HOST").map_or(cloud.authority.clone(), str::to_owned);
        let setup = Setup {
            network: network.clone(),
            authority,
            environment,
            tenant,
            client_id,
            store,
            exec_command,
            prompt,
            plugins,
            asker,
        };
        let provider = match provider {
            Some(OwnProvider(provider)) => Arc::new(Cache::new(provider, CacheOptions::default())),
            None => credential.open(&setup)?,
        };
        let arm = Arc::new(Arm::new(network.clone(), cloud, Arc::clone(&provider)));
        let ledger = ledger.map(|folder| Arc::new(LedgerFolder::new(folder)));
        let places = cache.map(|folder| Arc::new(Places::new(folder)));
        Ok(Self { network, provider, arm, subscription, setup, ledger, dues, places })
    }

    /// Signs a user in with a device code and keeps the sign-in in the store. Waits until the user is done.
    ///
    /// Cancel safe: nothing is kept before all of it is.
    ///
    /// # Errors
    /// [`Error::SignIn`].
    pub async fn login(&self, prompt: &dyn Prompt) -> Result<SignedIn, Error> {
        Ok(OwnLogin::new(&self.setup).sign_in(&self.arm.cloud().arm_scope, prompt).await?)
    }

    /// Who asks Azure: signs in to find out.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::SignIn`].
    pub async fn caller(&self) -> Result<Caller, Error> {
        let request = TokenRequest::new(&self.arm.cloud().arm_scope);
        let token = self.provider.access_token(&request).await?;
        Ok(Caller {
            identity: Identity::of_token(token.secret.expose()),
            source: self.provider.name().to_owned(),
            expires_on: token.expires_on,
        })
    }

    /// Finds a Bastion host. `target` may say in which subscription.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Arm`].
    pub async fn bastion_host(&self, bastion: &Bastion, target: &Target) -> Result<Host, Error> {
        self.host(bastion, self.subscriptions(Some(target))).await
    }

    /// Finds a Bastion host where no target is in view.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Arm`].
    pub async fn named_host(&self, bastion: &Bastion) -> Result<Host, Error> {
        self.host(bastion, self.subscriptions(None)).await
    }

    async fn host(&self, bastion: &Bastion, subscriptions: SubscriptionSources) -> Result<Host, Error> {
        let (name, group) = (bastion.name.clone(), bastion.group.clone());
        let words = BastionName { name, group, subscriptions };
        let description = self.arm.find_bastion(&words).await?;
        let token = self.arm.token_request(description.id.subscription());
        Ok(Host { description, token, kept: None })
    }

    /// A relay for connections by `plan` over `host`. Opens nothing yet, but begins to give back what the ledger holds
    /// of processes that are gone. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Connection`] when the host's data plane name is no host name.
    pub fn relay(
        &self,
        host: &Host,
        plan: Plan,
        options: RelayOptions,
        observer: Observer,
    ) -> Result<Relay, Error> {
        let (network, provider) = (self.network.clone(), Arc::clone(&self.provider));
        let own = || self.ledger.clone().map(|ledger| ledger as Arc<dyn Ledger>);
        let options =
            RelayOptions { ledger: options.ledger.or_else(own), dues: self.dues.clone(), ..options };
        let machine = plan.machine().cloned();
        let witness = (machine.is_some() || host.kept.is_some()).then(|| -> Arc<dyn Witness> {
            Arc::new(Power::new(Arc::clone(&self.arm), machine, host.kept.clone()))
        });
        Ok(Relay::new(network, provider, host.token.clone(), plan, options, observer, witness)?)
    }

    /// Opens connections to one port of what was found, in the way that suits most: what differs is for
    /// [`Client::reach`] and [`Connector::new`]. Must be called within a tokio runtime.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Client::reach`].
    pub async fn connector(&self, found: &mut Found, port: u16) -> Result<Connector, Error> {
        let options = RelayOptions::default();
        let first_byte = FirstWord::on(port).within(options.connect_timeout);
        let options = RelayOptions { first_byte, ..options };
        let relay = self.reach(found, port, options, Arc::new(|_| {})).await?;
        Ok(Connector::new(relay, TunnelOptions::default()))
    }

    /// Who the user is on VMs by Entra ID: a fresh key in memory, for which certificates are asked in the tenant of
    /// `host`, or in the user's own. Asks for none yet.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::SignIn`] when no key can be made.
    pub async fn entra_identity(&self, host: Option<&Host>) -> Result<EntraIdentity, Error> {
        Ok(EntraIdentity::new(Arc::clone(&self.provider), self.certificate_request(host)).await?)
    }

    /// The same with a key from a file, as [`EntraIdentity::private_pem`] has it.
    ///
    /// # Errors
    /// [`Error::SignIn`] when it is none.
    pub fn entra_identity_with_key(&self, host: Option<&Host>, pem: &Secret) -> Result<EntraIdentity, Error> {
        Ok(EntraIdentity::with_key(Arc::clone(&self.provider), self.certificate_request(host), pem)?)
    }

    fn certificate_request(&self, host: Option<&Host>) -> TokenRequest {
        TokenRequest {
            tenant: host.and_then(|host| host.token.tenant.clone()),
            ..TokenRequest::new(&self.arm.cloud().ssh_scope)
        }
    }

    /// Asks a plugin of [`Settings::plugins`] how to sign in to a VM. It gets Azure tokens from this client.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::SignIn`].
    pub async fn plugin_sign_in(&self, plugin: &str, request: &SignInRequest) -> Result<SignIn, Error> {
        let settings = bastide_auth::plugin::named(&self.setup.plugins, plugin)?.clone();
        let services = Services {
            provider: Some(Arc::clone(&self.provider)),
            asker: self.setup.asker.clone(),
            network: Some(self.setup.network.clone()),
        };
        Ok(Plugin::new(settings, services).sign_in(request).await?)
    }

    /// The subscription of a Bastion host, or the first that it is looked for in: name or id.
    pub(crate) fn first_subscription(
        &self,
        bastion: Option<&str>,
        target: Option<&Target>,
    ) -> Option<String> {
        let of_id = || Some(ResourceId::parse(bastion?).ok()?.subscription().to_owned());
        let of_words = || Some(self.subscriptions(target).candidates().into_iter().next()?.words);
        of_id().or_else(of_words)
    }

    /// `AZURE_CONFIG_DIR`, or `.azure` in the user's home.
    fn azure_cli_subscription(&self) -> Option<String> {
        let home =
            || self.setup.environment.get("HOME").or_else(|| self.setup.environment.get("USERPROFILE"));
        let folder = match self.setup.environment.get("AZURE_CONFIG_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(home()?).join(".azure"),
        };
        SubscriptionSources::read_azure_cli(&folder, &self.arm.cloud().name)
    }
}
