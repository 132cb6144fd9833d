//! Plugins: sign-ins that third parties bring as libraries (`bastide_plugin.h`, docs/plugins.md). A file is examined
//! before anything of it runs (`file`), its table is negotiated (`table`), and it is called on a thread of its own
//! (`worker`) with a host that it can ask (`host`). It leaves out where the configuration comes from, and signing in to
//! a VM with what a plugin answers (`ssh`).
#![expect(unsafe_code, reason = "the boundary to C is made of pointers; each block says why it is sound")]

mod call;
mod file;
mod host;
mod https;
mod question;
mod table;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Fault, Provider, Secret, TokenRequest};
use bastide_net::Network;
use tokio::sync::Mutex;

pub use call::{Asker, Inquiry, InquiryKind};
pub use file::{Unfit, check_trust};
use question::{Answer, Question};
pub use question::{SignInRequest, VmIdentity};
pub use table::PluginFile;
use table::load_within;
use worker::Worker;

/// A plugin as the user's configuration describes it: `[plugins.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSettings {
    /// What the configuration calls it.
    pub name: String,
    /// The library.
    pub path: PathBuf,
    /// What it is told: `config`, each value in the words of `bastide_plugin.h`. May hold secrets.
    pub config: BTreeMap<String, String>,
    /// How long it may take for one answer. Default 30 s, as long as the Azure CLI may take.
    pub time_limit: Duration,
}

impl PluginSettings {
    /// With nothing to tell it, and as much time as the Azure CLI has.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), config: BTreeMap::new(), time_limit: TIME_LIMIT }
    }
}

/// As long as the Azure CLI may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// How long a library may take to load, which runs code of its own: as long as a first answer.
const LOAD_LIMIT: Duration = TIME_LIMIT;

/// What a plugin may ask the host for.
#[derive(Clone, Default)]
pub struct Services {
    /// Who signs in to Azure for it. Default: nobody, so that it gets no tokens.
    pub provider: Option<Arc<dyn Provider>>,
    /// Who asks the user. Default: nobody.
    pub asker: Option<Arc<dyn Asker>>,
    /// Over what its requests are sent. Default: nothing, so that it can send none.
    pub network: Option<Network>,
}

/// A plugin, which is loaded at the first question and never unloaded.
pub struct Plugin {
    settings: PluginSettings,
    services: Services,
    /// `plugin:NAME`.
    label: String,
    /// One question at a time; the rest waits here.
    worker: Mutex<Option<Worker>>,
}

/// How to sign in to a VM, as a plugin has answered.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The user on the VM; `None` leaves it to the user's SSH configuration.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The identity that the plugin signs for.
    pub identity: Option<PluginIdentity>,
}

/// A public key whose private half a plugin signs with.
#[derive(Clone)]
pub struct PluginIdentity {
    plugin: Arc<Plugin>,
    identity: Arc<VmIdentity>,
}

impl Plugin {
    /// Loads nothing yet.
    pub fn new(settings: PluginSettings, services: Services) -> Arc<Self> {
        let label = format!("plugin:{}", settings.name);
        Arc::new(Self { settings, services, label, worker: Mutex::default() })
    }

    /// Asks how to sign in to a VM.
    ///
    /// Cancel safe: the plugin is told that nobody waits any more.
    ///
    /// # Errors
    /// [`AuthError::Plugin`], and the others as the plugin says.
    pub async fn sign_in(self: &Arc<Self>, request: &SignInRequest) -> Result<SignIn, AuthError> {
        match self.ask(Question::SignIn(request.clone())).await? {
            Answer::SignIn { user, password, identity } => Ok(SignIn {
                user,
                password,
                identity: identity.map(|identity| PluginIdentity {
                    plugin: Arc::clone(self),
                    identity: Arc::new(identity),
                }),
            }),
            _ => Err(self.fault("it answered something else than it was asked")),
        }
    }

    /// Has the plugin answer; loads and opens it before the first question.
    async fn ask(&self, question: Question) -> Result<Answer, AuthError> {
        let mut worker = self.worker.lock().await;
        let worker = match &*worker {
            Some(worker) => worker,
            None => worker.insert(self.open().await?),
        };
        worker.ask(question, &self.services).await
    }

    async fn open(&self) -> Result<Worker, AuthError> {
        let path = self.settings.path.clone();
        // On a thread that is left behind when the library's own code does not come back.
        let loaded = tokio::task::spawn_blocking(move || {
            let fit = PluginFile::examine(&path)?;
            load_within(&fit, LOAD_LIMIT).map_err(|unfit| vec![unfit])
        });
        let table = loaded
            .await
            .unwrap_or_else(|_| Err(vec![Unfit::Unloadable { reason: "its loading broke off".into() }]))
            .map_err(|unfit| self.unfit(&unfit))?;
        let worker = Worker::start(table, &self.settings)
            .map_err(|error| self.fault(format!("its thread cannot be started: {error}")))?;
        match worker.ask(Question::Open, &self.services).await? {
            Answer::Opened => {}
            _ => return Err(self.fault("it answered something else than it was asked")),
        }
        worker.warn_of_settings();
        Ok(worker)
    }

    fn unfit(&self, reasons: &[Unfit]) -> AuthError {
        let shown: Vec<String> = reasons.iter().map(Unfit::to_string).collect();
        AuthError::Plugin {
            plugin: self.settings.name.clone(),
            message: format!("it is not loaded: {}", shown.join("; ")),
            hint: reasons.first().map(Unfit::hint),
            fault: Fault::Usage,
        }
    }

    fn fault(&self, message: impl Into<String>) -> AuthError {
        AuthError::Plugin {
            plugin: self.settings.name.clone(),
            message: message.into(),
            hint: Some("report this to the author of the plugin".into()),
            fault: Fault::SignIn,
        }
    }

    /// With a table that is there already.
    #[cfg(test)]
    fn with_table(
        raw: &'static bastide_plugin_abi::raw::Plugin,
        settings: PluginSettings,
        services: Services,
    ) -> Arc<Self> {
        let table = table::Table::of(raw).unwrap();
        let worker = Worker::start(table, &settings).unwrap();
        let plugin = Self::new(settings, services);
        *plugin.worker.try_lock().unwrap() = Some(worker);
        plugin
    }
}

#[async_trait]
impl Provider for Plugin {
    fn name(&self) -> &str {
        &self.label
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        match self.ask(Question::Token(request.clone())).await? {
            Answer::Token(token) => Ok(token),
            _ => Err(self.fault("it answered something else than it was asked")),
        }
    }
}

impl PluginIdentity {
    /// The public key as SSH writes it (RFC 4253 §6.6).
    pub fn public_key(&self) -> &[u8] {
        &self.identity.public_key
    }

    /// An OpenSSH certificate for it, as SSH writes it.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.identity.certificate.as_deref()
    }

    /// What it is called by `ssh-add -l`.
    pub fn comment(&self) -> &str {
        &self.identity.comment
    }

    /// The plugin's name in the configuration.
    pub fn plugin(&self) -> &str {
        &self.plugin.settings.name
    }

    /// Has the plugin sign `data` by `algorithm` of RFC 8332, 5656 or 8709, raw as in `bastide_plugin.h`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Plugin::sign_in`].
    pub(crate) async fn sign_raw(&self, algorithm: &'static str, data: &[u8]) -> Result<Vec<u8>, AuthError> {
        let identity = Arc::clone(&self.identity);
        let question = Question::Sign { algorithm, identity, data: data.to_vec() };
        match self.plugin.ask(question).await? {
            Answer::Signature(signature) => Ok(signature),
            _ => Err(self.fault("it answered something else than it was asked")),
        }
    }

    /// The plugin has broken its contract.
    pub(crate) fn fault(&self, message: impl Into<String>) -> AuthError {
        self.plugin.fault(message)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Plugin").field(&self.settings.name).finish()
    }
}

impl fmt::Debug for PluginIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PluginIdentity")
            .field("plugin", &self.plugin.settings.name)
            .field("comment", &self.identity.comment)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Services")
            .field("provider", &self.provider.as_ref().map(|provider| provider.name()))
            .field("asker", &self.asker.is_some())
            .field("network", &self.network.is_some())
            .finish()
    }
}

/// The plugin of this name among those that a configuration has.
///
/// # Errors
/// [`AuthError::Plugin`] when there is none.
pub fn named<'a>(
    plugins: &'a [PluginSettings],
    name: &str,
) -> Result<&'a PluginSettings, AuthError> {
    plugins.iter().find(|plugin| plugin.name == name).ok_or_else(|| {
        let known: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let hint = match known.as_slice() {
            [] => format!("add [plugins.{name}] with its path to the configuration"),
            known => format!("the configuration names {}", known.join(", ")),
        };
        AuthError::Plugin {
            plugin: name.to_owned(),
            message: "the configuration has no such plugin".into(),
            hint: Some(hint),
            fault: Fault::Usage,
        }
    })
}

/// A file that a plugin may be loaded from, or why not.
///
/// # Errors
/// Every reason.
pub fn examine(path: &Path) -> Result<PluginFile, Vec<Unfit>> {
    let file = PluginFile::examine(path)?;
    match load_within(&file, LOAD_LIMIT) {
        Ok(table) => Ok(file.described_by(&table)),
        Err(unfit) => Err(vec![unfit]),
    }
}

#[cfg(test)]
mod tests;
