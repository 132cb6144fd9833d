//! Subscriptions: which one is meant, and what ARM knows of it. It leaves out what is in them.

use std::fmt;
use std::fs;
use std::path::Path;

use bastide_core::{Cloud, ResourceId};
use serde::Deserialize;

use crate::client::Question;
use crate::{Arm, Error};

/// A subscription as ARM lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Its id, a GUID.
    #[serde(rename = "subscriptionId")]
    pub id: String,
    /// The name that people know it by.
    #[serde(rename = "displayName", default)]
    pub name: String,
    /// The tenant whose tokens it accepts.
    #[serde(rename = "tenantId")]
    pub tenant: Option<String>,
    /// Such as `Enabled`.
    pub state: Option<String>,
}

/// The places where a subscription may be named.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionSources {
    /// `--subscription`: name or id.
    pub flag: Option<String>,
    /// The target, when it was given by its id.
    pub target: Option<ResourceId>,
    /// `AZURE_SUBSCRIPTION_ID`.
    pub environment: Option<String>,
    /// The Azure CLI's default, as [`SubscriptionSources::read_azure_cli`] finds it.
    pub azure_cli: Option<String>,
}

/// A subscription, and why this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionChoice {
    /// Its name or id, as given.
    pub words: String,
    /// Who said so.
    pub origin: SubscriptionOrigin,
}

/// Who named a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionOrigin {
    /// `--subscription`.
    Flag,
    /// The target's resource id.
    Target,
    /// `AZURE_SUBSCRIPTION_ID`.
    Environment,
    /// The Azure CLI's default.
    AzureCli,
}

impl SubscriptionSources {
    /// Where to look for a Bastion host that was given by its name, in this order: what `--subscription` says, and
    /// nothing else. Without it the target's subscription, because a VM is usually served by a neighbour, and then
    /// the configured one (`AZURE_SUBSCRIPTION_ID`, or else the Azure CLI's default), where `az network bastion`
    /// would look: a hub network has a subscription of its own (cli.md, "ids win").
    pub fn candidates(&self) -> Vec<SubscriptionChoice> {
        use SubscriptionOrigin::{AzureCli, Environment, Flag, Target};
        let choice = |words: &Option<String>, origin| {
            words
                .as_deref()
                .map(str::trim)
                .filter(|words| !words.is_empty())
                .map(|words| SubscriptionChoice { words: words.to_owned(), origin })
        };
        if let Some(flag) = choice(&self.flag, Flag) {
            return vec![flag];
        }
        let target = self.target.as_ref().map(|id| id.subscription().to_owned());
        let configured = choice(&self.environment, Environment).or_else(|| choice(&self.azure_cli, AzureCli));
        let mut candidates: Vec<_> = choice(&target, Target).into_iter().chain(configured).collect();
        candidates.dedup_by(|later, first| later.words.eq_ignore_ascii_case(&first.words));
        candidates
    }

    /// The id of the Azure CLI's default subscription in the cloud of this name, out of `azureProfile.json` in
    /// `folder` (`AZURE_CONFIG_DIR`, or `.azure` in the user's home). Nothing, when there is none: the CLI's files
    /// are not ours to complain about.
    pub fn read_azure_cli(folder: &Path, cloud: &str) -> Option<String> {
        let path = folder.join("azureProfile.json");
        match fs::read(&path) {
            Ok(profile) => azure_cli_default(&profile, cloud),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "no default of the Azure CLI");
                None
            }
        }
    }
}

impl fmt::Display for SubscriptionChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            SubscriptionOrigin::Flag => "from --subscription",
            SubscriptionOrigin::Target => "from the target's resource id",
            SubscriptionOrigin::Environment => "from AZURE_SUBSCRIPTION_ID",
            SubscriptionOrigin::AzureCli => "the Azure CLI's default",
        };
        write!(formatter, "'{}' ({origin})", self.words)
    }
}

impl Arm {
    /// All subscriptions that the provider's own tenant shows.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of an exchange with ARM.
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, Error> {
        self.list(&Question {
            what: "the list of subscriptions",
            path: "/subscriptions",
            api_version: API_VERSION,
            expand: None,
            subscription: None,
        })
        .await
    }

    /// The subscription with this id or name, in any case.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`] when several have the name; those of an exchange.
    pub async fn subscription(&self, words: &str) -> Result<Subscription, Error> {
        let words = words.trim();
        let what = format!("subscription '{words}'");
        if is_guid(words) {
            let path = format!("/subscriptions/{words}");
            let question = Question {
                what: &what,
                path: &path,
                api_version: API_VERSION,
                expand: None,
                subscription: Some(words),
            };
            return question.parse(&self.get(&question).await?);
        }
        let mut all = self.subscriptions().await?;
        all.retain(|subscription| {
            subscription.name.eq_ignore_ascii_case(words) || subscription.id.eq_ignore_ascii_case(words)
        });
        if all.len() > 1 {
            return Err(Error::Ambiguous { what, ids: all.into_iter().map(|one| one.id).collect() });
        }
        all.pop().ok_or(Error::NotFound { what, looked_in: Vec::new(), answer: None })
    }

    /// The id for the words of a choice: a GUID is taken as it is, without asking.
    pub(crate) async fn subscription_id(&self, choice: &SubscriptionChoice) -> Result<String, Error> {
        // An id out of a resource id is one, whatever it looks like.
        if is_guid(&choice.words) || choice.origin == SubscriptionOrigin::Target {
            return Ok(choice.words.clone());
        }
        Ok(self.subscription(&choice.words).await?.id)
    }
}

/// What the Azure CLI itself asks with (az-requests.md, "login").
const API_VERSION: &str = "2022-12-01";

/// RFC 9562 §4: 8-4-4-4-12 hexadecimal digits.
pub(crate) fn is_guid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The default in the CLI's profile, which begins with a byte order mark.
pub(crate) fn azure_cli_default(profile: &[u8], cloud: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Profile {
        subscriptions: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        id: String,
        #[serde(default)]
        is_default: bool,
        environment_name: Option<String>,
        tenant_id: Option<String>,
    }
    let profile = profile.strip_prefix(b"\xef\xbb\xbf").unwrap_or(profile);
    let profile: Profile = serde_json::from_slice(profile)
        .inspect_err(|error| tracing::debug!(%error, "the Azure CLI's profile cannot be read"))
        .ok()?;
    // Built-in clouds have one name everywhere; any other is registered by `az cloud register` under a name that
    // only its user knows.
    let is_built_in = |name: &str| Cloud::by_name(name).is_some();
    let named_alike = |name: &str| {
        if is_built_in(cloud) { name.eq_ignore_ascii_case(cloud) } else { !is_built_in(name) }
    };
    let here = |entry: &Entry| {
        entry.environment_name.as_deref().is_none_or(named_alike)
            // `az login --allow-no-subscriptions` puts a tenant there as if it were a subscription.
            && entry.tenant_id.as_deref() != Some(&entry.id)
    };
    profile.subscriptions.into_iter().find(|entry| entry.is_default && here(entry)).map(|entry| entry.id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::script::{Reply, Script};

    const SPOKE: &str =
        "/subscriptions/spoke/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-01";
    const HUB: &str = "22222222-2222-4222-8222-222222222222";

    #[test]
    fn the_order_of_the_places() {
        let check = |flag: &str, target: bool, environment: &str, azure_cli: &str, expected: &[&str]| {
            let sources = SubscriptionSources {
                flag: Some(flag.into()),
                target: target.then(|| SPOKE.parse().unwrap()),
                environment: Some(environment.into()),
                azure_cli: Some(azure_cli.into()),
            };
            let found: Vec<_> = sources.candidates().iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        };
        check("mine", true, "e", "c", &["'mine' (from --subscription)"]);
        check(
            "",
            true,
            "e",
            "c",
            &["'spoke' (from the target's resource id)", "'e' (from AZURE_SUBSCRIPTION_ID)"],
        );
        check(
            "",
            true,
            " ",
            "c",
            &["'spoke' (from the target's resource id)", "'c' (the Azure CLI's default)"],
        );
        check("", true, "", "SPOKE", &["'spoke' (from the target's resource id)"]);
        check("", false, "e", "c", &["'e' (from AZURE_SUBSCRIPTION_ID)"]);
        check("", false, "", "", &[]);
    }

    #[test]
    fn the_azure_clis_default_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SubscriptionSources::read_azure_cli(folder.path(), "AzureCloud"), None);
        // As `az login` writes it, names and ids made up.
        let profile = format!(
            "\u{feff}{}",
            r#"{"installationId":"i","subscriptions":[
                {"id":"g","name":"Gov","state":"Enabled","isDefault":true,"tenantId":"t","environmentName":"AzureUSGovernment"},
                {"id":"t","name":"N/A(tenant level account)","state":"Enabled","isDefault":true,"tenantId":"t","environmentName":"AzureCloud"},
                {"id":"a","name":"A","state":"Enabled","isDefault":false,"tenantId":"t","environmentName":"AzureCloud"},
                {"id":"b","name":"B","state":"Enabled","user":{"name":"ada@contoso.com","type":"user"},"isDefault":true,
                 "tenantId":"t","environmentName":"AzureCloud","homeTenantId":"t","managedByTenants":[]}]}"#
        );
        fs::write(folder.path().join("azureProfile.json"), profile).unwrap();
        let check = |cloud: &str, expected: Option<&str>| {
            assert_eq!(
                SubscriptionSources::read_azure_cli(folder.path(), cloud).as_deref(),
                expected,
                "{cloud}"
            );
        };
        check("azurecloud", Some("b"));
        check("AzureUSGovernment", Some("g"));
        check("AzureChinaCloud", None);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_a_guid_is_asked_for() {
        let list = format!(
            r#"{{"value":[{{"id":"/subscriptions/{HUB}","subscriptionId":"{HUB}","displayName":"Hub","state":"Enabled","tenantId":"t"}},
               {{"subscriptionId":"b","displayName":"Twin"}},{{"subscriptionId":"c","displayName":"twin"}}]}}"#
        );
        let script = Script::start((0..3).map(|_| Reply::json(200, &list)).collect()).await;
        let arm = script.arm();
        let hub = arm.subscription(" hub ").await.unwrap();
        assert_eq!((hub.id.as_str(), hub.tenant.as_deref()), (HUB, Some("t")));
        assert!(
            matches!(arm.subscription("TWIN").await, Err(Error::Ambiguous { ids, .. }) if ids == ["b", "c"])
        );
        let error = arm.subscription("spoke").await.unwrap_err();
        assert_eq!(error.to_string(), "subscription 'spoke' was not found");
        assert_eq!(script.paths()[0], "/subscriptions?api-version=2022-12-01");

        let one =
            format!(r#"{{"subscriptionId":"{HUB}","displayName":"Hub","state":"Enabled","tenantId":"t"}}"#);
        let script = Script::start(vec![Reply::json(200, &one)]).await;
        assert_eq!(script.arm().subscription(HUB).await.unwrap(), hub);
        assert_eq!(script.paths(), [format!("/subscriptions/{HUB}?api-version=2022-12-01")]);
    }

    #[test]
    fn guids_are_told_from_names() {
        assert!(is_guid(HUB));
        for text in
            ["", "hub", "22222222-2222-4222-8222-22222222222g", "222222222222422282222222222222222222"]
        {
            assert!(!is_guid(text), "{text}");
        }
    }

    #[test]
    fn a_cloud_of_ones_own_has_the_name_that_its_user_gave() {
        let check = |registered: &str, cloud: &str, expected: Option<&str>| {
            let profile = format!(
                r#"{{"subscriptions":[{{"id":"s","isDefault":true,"tenantId":"t","environmentName":"{registered}"}}]}}"#
            );
            let found = azure_cli_default(profile.as_bytes(), cloud);
            assert_eq!(found.as_deref(), expected, "{registered} {cloud}");
        };
        check("AzureCloud", "azurecloud", Some("s"));
        check("AzureChinaCloud", "AzureCloud", None);
        check("stack", "AzureCloud", None);
        check("stack", "https://localhost:1", Some("s"));
        check("AzureCloud", "https://localhost:1", None);
    }

    proptest! {
        #[test]
        fn any_profile_is_survived(profile in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = azure_cli_default(&profile, "AzureCloud");
        }
    }
}
