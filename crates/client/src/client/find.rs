//! From words to a Bastion host and a VM: by their ids as they are, else by Resource Graph, whose answers are kept for
//! the next run (`places`); and to a relay, which shows what such an answer is worth. It leaves out what the relay
//! carries.

use std::sync::Arc;
use std::time::Duration;

use bastide_arm::{Located, Search, SubscriptionSources, Topology, Wanted};
use bastide_core::{Fault, Plan, Target, TokenRequest};
use bastide_relay::{Observer, Relay};

use super::{Bastion, Client, Host};
use crate::places::{Kept, Place};
use crate::{Error, RelayOptions};

/// What a user says of a VM and of the Bastion host that leads there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The VM: its name, its resource id, or a private address.
    pub target: Wanted,
    /// The Bastion host: its name, or its whole resource id. Without it the one that reaches the VM is found.
    pub bastion: Option<String>,
    /// The Bastion host's resource group.
    pub group: Option<String>,
}

/// A Bastion host and a VM that were found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The Bastion host.
    pub host: Host,
    /// The VM. A name is spelt as the user spelt it.
    pub target: Target,
    /// Who knew.
    pub source: Source,
    /// What was looked for.
    words: Words,
}

/// A lease minted to prove that a connection works waits so long for it (cli.md, "Output").
pub const PROOF_KEPT: Duration = Duration::from_secs(30);

/// Who knew where a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The user, or Resource Graph a moment ago.
    Fresh,
    /// An earlier run. ARM still has both, but whether one leads to the other, only a connection shows.
    Cache,
}

impl Words {
    /// From flags that may be missing.
    ///
    /// # Errors
    /// [`Error::Arm`] for a target that is no words for a VM.
    pub fn parse(target: &str, bastion: Option<&str>, group: Option<&str>) -> Result<Self, Error> {
        Ok(Self::new(Wanted::parse(target)?, bastion, group))
    }

    /// As above, with a target that is read already.
    pub fn new(target: Wanted, bastion: Option<&str>, group: Option<&str>) -> Self {
        let given =
            |words: Option<&str>| words.map(str::trim).filter(|words| !words.is_empty()).map(str::to_owned);
        Self { target, bastion: given(bastion), group: given(group) }
    }
}

impl Client {
    /// Finds what words mean. ARM is asked for the settings of the Bastion host, and whether the VM is there, wherever
    /// the answer comes from.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Arm`]; [`Error::SignIn`].
    pub async fn find(&self, words: &Words) -> Result<Found, Error> {
        if let (Wanted::Target(target), Some(name)) = (&words.target, &words.bastion) {
            let bastion = Bastion { name: name.clone(), group: words.group.clone() };
            let host = self.bastion_host(&bastion, target).await?;
            return Ok(Found { host, target: target.clone(), source: Source::Fresh, words: words.clone() });
        }
        let kept = self.kept(words).await?;
        if let Some((kept, place)) = kept.as_ref().and_then(|kept| Some((kept, kept.place()?))) {
            let known = self.confirm(&place, words).await.and_then(|found| {
                // What it refuses, another host may have been made for.
                Plan::new(found.host.description(), &found.target, ANY_PORT)?;
                Ok(found)
            });
            match known {
                Ok(found) => {
                    let host = Host { kept: Some(kept.clone()), ..found.host };
                    return Ok(Found { host, source: Source::Cache, ..found });
                }
                Err(error) if may_have_moved(&error) => {
                    tracing::debug!(%error, "the place that an earlier run has found is looked up again");
                    kept.forget();
                }
                Err(error) => return Err(error),
            }
        }
        let place = self.look_up(words).await?;
        let mut found = self.confirm(&place, words).await?;
        if let Some(kept) = kept {
            kept.keep(&place);
            found.host.kept = Some(kept);
        }
        Ok(found)
    }

    /// A relay to a port of what was found. What an earlier run has found may lead nowhere by now, which the first token
    /// shows: one is minted, and waits for the first connection; where that fails it is looked for anew, once, and
    /// `found` becomes what is there now. Must be called within a tokio runtime.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Refused`] when the host's settings forbid it; those of [`Client::find`] and of [`Client::relay`]; of
    /// what an earlier run has found, [`Error::Connection`] when it is still the same and does not work.
    pub async fn reach(
        &self,
        found: &mut Found,
        port: u16,
        options: RelayOptions,
        observer: Observer,
    ) -> Result<Relay, Error> {
        let open = |found: &Found| {
            let plan = found.host.plan(&found.target, port)?;
            self.relay(&found.host, plan, options.clone(), Arc::clone(&observer))
        };
        let relay = open(found)?;
        if std::mem::replace(&mut found.source, Source::Fresh) == Source::Fresh {
            return Ok(relay);
        }
        let Err(error) = relay.prepare(PROOF_KEPT).await else { return Ok(relay) };
        tracing::debug!(%error, "what an earlier run has found does not work");
        if let Some(kept) = &found.host.kept {
            kept.forget();
        }
        let anew = self.find(&found.words).await?;
        if anew.host.description().id == found.host.description().id && anew.target == found.target {
            return Err(error.into());
        }
        *found = anew;
        open(found)
    }

    /// Everything that the caller may reach; the names are kept for whoever completes them.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Arm`]; [`Error::SignIn`].
    pub async fn survey(&self) -> Result<Topology, Error> {
        let topology = self.arm.survey().await?;
        if let Some(places) = &self.places {
            places.keep_names(&self.realm().await?, &topology);
        }
        Ok(topology)
    }

    /// Asks Resource Graph.
    pub(crate) async fn locate(&self, words: &Words) -> Result<Located, Error> {
        let search = Search {
            target: words.target.clone(),
            bastion: words.bastion.clone(),
            group: words.group.clone(),
            subscription: self.subscription.clone(),
        };
        Ok(self.arm.locate(&search).await?)
    }

    /// Asks Resource Graph, and ARM for a Bastion host that was named.
    async fn look_up(&self, words: &Words) -> Result<Place, Error> {
        let located = self.locate(words).await?;
        let bastion = match (located.host, &words.bastion) {
            (Some(host), _) => host,
            (None, name) => {
                let bastion = Bastion { name: name.clone().unwrap_or_default(), group: words.group.clone() };
                self.bastion_host(&bastion, &located.target).await?.description.id
            }
        };
        Ok(Place { bastion, target: located.target })
    }

    /// Both, as ARM has them now.
    async fn confirm(&self, place: &Place, words: &Words) -> Result<Found, Error> {
        let machine = async {
            match &place.target {
                Target::Resource(id) if matches!(words.target, Wanted::Name(_)) => {
                    self.arm.virtual_machine(id).await.map(drop)
                }
                // An id is the user's own, and an address nobody's.
                Target::Resource(_) | Target::Address(_) => Ok(()),
            }
        };
        let (description, ()) = tokio::try_join!(self.arm.bastion_host(&place.bastion), machine)?;
        let token = self.arm.token_request(description.id.subscription());
        let host = Host { description, token, kept: None };
        Ok(Found { host, target: place.target.clone(), source: Source::Fresh, words: words.clone() })
    }

    /// Where the answer for these words is kept.
    async fn kept(&self, words: &Words) -> Result<Option<Kept>, Error> {
        let Some(places) = &self.places else { return Ok(None) };
        let configured = match (&words.bastion, &self.subscription) {
            // Where a named host is looked for.
            (Some(_), None) => self.subscriptions(None).candidates(),
            _ => Vec::new(),
        };
        let configured: Vec<String> = configured.into_iter().map(|choice| choice.words).collect();
        let target = match &words.target {
            Wanted::Name(name) => format!("name {name}"),
            Wanted::Target(target) => target.to_string(),
        };
        let key = [
            self.realm().await?,
            self.subscription.clone().unwrap_or_default(),
            configured.join(" "),
            words.group.clone().unwrap_or_default(),
            words.bastion.clone().unwrap_or_default(),
            target,
        ];
        Ok(Some(places.kept(&key.join("\n"), &words.target)))
    }

    /// Whose view of Azure it is: the cloud, and who asks.
    async fn realm(&self) -> Result<String, Error> {
        let request = TokenRequest::new(&self.arm.cloud().arm_scope);
        let token = self.provider.access_token(&request).await?;
        let identity = bastide_auth::Identity::of_token(token.secret.expose());
        let parts = [
            self.arm.cloud().arm.clone(),
            identity.tenant.unwrap_or_default(),
            identity.object_id.or(identity.client_id).unwrap_or_else(|| self.provider.name().to_owned()),
        ];
        Ok(parts.join("\n"))
    }

    /// Where a Bastion host is looked for.
    pub(super) fn subscriptions(&self, target: Option<&Target>) -> SubscriptionSources {
        SubscriptionSources {
            flag: self.subscription.clone(),
            target: match target {
                Some(Target::Resource(id)) => Some(id.clone()),
                Some(Target::Address(_)) | None => None,
            },
            environment: self.setup.environment.get("AZURE_SUBSCRIPTION_ID").map(str::to_owned),
            azure_cli: self.azure_cli_subscription(),
        }
    }
}

/// One that every Bastion host opens: the port is not known yet.
const ANY_PORT: u16 = 22;

/// Whether an error may mean that a kept answer is of yesterday.
fn may_have_moved(error: &Error) -> bool {
    matches!(error.fault(), Fault::NotFound | Fault::Right | Fault::Settings)
}
