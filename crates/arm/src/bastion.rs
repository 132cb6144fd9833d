//! Bastion hosts: by id, by the words of a user, and all of them. It leaves out what a host allows, which is
//! [`bastide_core::Plan`]'s, and finding the one that serves a VM.

use bastide_core::{BastionHost, ResourceId, TargetKind};
use serde_json::value::RawValue;

use crate::client::Question;
use crate::{Arm, Error, SubscriptionSources};

/// The words by which a user names a Bastion host.
#[derive(Debug, Clone, Default)]
pub struct BastionName {
    /// `--name`: a name, or a whole resource id, beside which nothing else counts.
    pub name: String,
    /// `--resource-group`; without it all groups of the subscription are looked through.
    pub group: Option<String>,
    /// Where to look.
    pub subscriptions: SubscriptionSources,
}

impl Arm {
    /// The Bastion host with this id.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotABastion`]; those of an exchange with ARM.
    pub async fn bastion_host(&self, id: &ResourceId) -> Result<BastionHost, Error> {
        if id.kind() != TargetKind::BastionHost {
            return Err(Error::NotABastion { id: id.to_string() });
        }
        let what = named(id.name(), Some(id.group()));
        let question = Question {
            what: &what,
            path: id.as_str(),
            api_version: API_VERSION,
            expand: None,
            subscription: Some(id.subscription()),
        };
        let body = self.get(&question).await?;
        BastionHost::from_json(&body).map_err(|error| question.unreadable(&error))
    }

    /// All Bastion hosts of a subscription, or of one of its groups.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of an exchange with ARM.
    pub async fn bastion_hosts(
        &self,
        subscription: &str,
        group: Option<&str>,
    ) -> Result<Vec<BastionHost>, Error> {
        let group = group.map_or_else(String::new, |group| format!("/resourceGroups/{group}"));
        let path = format!("/subscriptions/{subscription}{group}/providers/Microsoft.Network/bastionHosts");
        let question = Question {
            what: "the list of Bastion hosts",
            path: &path,
            api_version: API_VERSION,
            expand: None,
            subscription: Some(subscription),
        };
        let hosts = self.list::<Box<RawValue>>(&question).await?;
        hosts
            .iter()
            .map(|host| {
                BastionHost::from_json(host.get().as_bytes()).map_err(|error| question.unreadable(&error))
            })
            .collect()
    }

    /// The Bastion host that these words mean, looked for in one candidate subscription after the other
    /// ([`SubscriptionSources::candidates`]).
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotFound`] says where it was looked for and why there; [`Error::Forbidden`] where a right is
    /// missing in one of them; [`Error::Ambiguous`], [`Error::NoSubscription`], [`Error::Words`] and
    /// [`Error::NotABastion`] for the words; those of an exchange with ARM.
    pub async fn find_bastion(&self, words: &BastionName) -> Result<BastionHost, Error> {
        let name = words.name.trim();
        if name.starts_with('/') {
            return self.bastion_host(&ResourceId::parse(name)?).await;
        }
        let candidates = words.subscriptions.candidates();
        let mut failure = Error::NoSubscription;
        for choice in &candidates {
            let found = match self.subscription_id(choice).await {
                Ok(subscription) => self.bastion_in(&subscription, name, words.group.as_deref()).await,
                // Nowhere was looked: it is the subscription that is missing.
                Err(error) if candidates.len() == 1 => return Err(error),
                Err(error) => Err(error),
            };
            match found {
                Ok(host) => return Ok(host),
                // ARM forbids what does not exist to those who may not look: it may still be in the next one.
                Err(error @ Error::Forbidden { .. }) => {
                    if !matches!(failure, Error::Forbidden { .. }) {
                        failure = error;
                    }
                }
                Err(error @ Error::NotFound { .. }) => {
                    if matches!(failure, Error::NoSubscription) {
                        failure = error;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if let Error::NotFound { looked_in, .. } = &mut failure {
            *looked_in = candidates;
        }
        Err(failure)
    }

    async fn bastion_in(
        &self,
        subscription: &str,
        name: &str,
        group: Option<&str>,
    ) -> Result<BastionHost, Error> {
        if let Some(group) = group {
            let id = ResourceId::parse(&format!(
                "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network/bastionHosts/{name}"
            ))?;
            return self.bastion_host(&id).await;
        }
        let mut hosts = self.bastion_hosts(subscription, None).await?;
        hosts.retain(|host| host.id.name().eq_ignore_ascii_case(name));
        let what = named(name, None);
        if hosts.len() > 1 {
            return Err(Error::Ambiguous {
                what,
                ids: hosts.iter().map(|host| host.id.to_string()).collect(),
            });
        }
        hosts.pop().ok_or(Error::NotFound { what, looked_in: Vec::new(), answer: None })
    }
}

/// protocol.md §2; what the reference client asks with (az-requests.md).
const API_VERSION: &str = "2024-01-01";

fn named(name: &str, group: Option<&str>) -> String {
    match group {
        Some(group) => format!("Bastion host '{name}' in resource group '{group}'"),
        None => format!("Bastion host '{name}'"),
    }
}

#[cfg(test)]
mod tests {
    use bastide_core::{Fault, Sku};

    use super::*;
    use crate::script::{Reply, Script};

    const HUB: &str = "22222222-2222-4222-8222-222222222222";

    /// As ARM describes a host (protocol.md §2).
    fn host(subscription: &str, group: &str, name: &str) -> String {
        format!(
            r#"{{"name":"{name}","id":"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network/bastionHosts/{name}",
               "type":"Microsoft.Network/bastionHosts","location":"westeurope","sku":{{"name":"Standard"}},
               "properties":{{"dnsName":"bst-1.bastion.azure.com","enableTunneling":true,"provisioningState":"Succeeded"}}}}"#
        )
    }

    fn missing(code: &str) -> Reply {
        Reply::json(404, &format!(r#"{{"error":{{"code":"{code}","message":"It could not be found."}}}}"#))
    }

    fn words(name: &str, group: Option<&str>) -> BastionName {
        BastionName {
            name: name.into(),
            group: group.map(str::to_owned),
            subscriptions: SubscriptionSources {
                target: Some(
                    "/subscriptions/spoke/resourceGroups/v/providers/Microsoft.Compute/virtualMachines/web-01"
                        .parse()
                        .unwrap(),
                ),
                azure_cli: Some(HUB.into()),
                ..SubscriptionSources::default()
            },
        }
    }

    #[tokio::test]
    async fn an_id_needs_nothing_else() {
        let id = format!("/subscriptions/{HUB}/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b");
        let script = Script::start(vec![Reply::json(200, &host(HUB, "g", "b"))]).await;
        let found = script
            .arm()
            .find_bastion(&BastionName { name: id.clone(), ..BastionName::default() })
            .await
            .unwrap();
        assert_eq!((found.sku, found.tunneling), (Sku::Standard, Some(true)));
        assert_eq!(script.paths(), [format!("{id}?api-version=2024-01-01")]);
    }

    #[tokio::test]
    async fn a_hub_is_found_behind_the_targets_own_subscription() {
        for first in [missing("ResourceGroupNotFound"), Reply::json(403, "{}")] {
            let script = Script::start(vec![first, Reply::json(200, &host(HUB, "g", "b"))]).await;
            let found = script.arm().find_bastion(&words("b", Some("g"))).await.unwrap();
            assert_eq!(found.id.subscription(), HUB);
            assert!(
                script.paths()[0].starts_with("/subscriptions/spoke/resourceGroups/g/"),
                "{:?}",
                script.paths()
            );
        }
    }

    #[tokio::test]
    async fn what_is_nowhere_says_where_it_was_looked_for() {
        let script = Script::start(vec![missing("ResourceGroupNotFound"), missing("ResourceNotFound")]).await;
        let error = script.arm().find_bastion(&words("b", Some("g"))).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "Bastion host 'b' in resource group 'g' was not found in subscription 'spoke' (from the target's \
                 resource id), nor in subscription '{HUB}' (the Azure CLI's default): It could not be found. \
                 (status 404, ResourceGroupNotFound)"
            )
        );
        assert_eq!(error.fault(), Fault::NotFound);
    }

    #[tokio::test]
    async fn a_subscription_that_is_not_there_is_not_looked_in() {
        let script = Script::start(vec![Reply::json(200, r#"{"value":[]}"#)]).await;
        let words = BastionName {
            subscriptions: SubscriptionSources {
                flag: Some("Mine".into()),
                ..SubscriptionSources::default()
            },
            ..words("b", Some("g"))
        };
        let error = script.arm().find_bastion(&words).await.unwrap_err();
        assert_eq!(error.to_string(), "subscription 'Mine' was not found");
        assert!(error.hint().unwrap().contains("az account list"));
    }

    #[tokio::test]
    async fn a_missing_right_counts_more_than_a_missing_host() {
        let script = Script::start(vec![missing("ResourceNotFound"), Reply::json(403, "{}")]).await;
        let error = script.arm().find_bastion(&words("b", Some("g"))).await.unwrap_err();
        assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    }

    #[tokio::test]
    async fn without_a_group_the_whole_subscription_is_looked_through() {
        let list = format!(r#"{{"value":[{},{}]}}"#, host("spoke", "g1", "a"), host("spoke", "g2", "B"));
        let script = Script::start(vec![Reply::json(200, &list)]).await;
        assert_eq!(script.arm().find_bastion(&words("b", None)).await.unwrap().id.group(), "g2");
        assert_eq!(
            script.paths(),
            ["/subscriptions/spoke/providers/Microsoft.Network/bastionHosts?api-version=2024-01-01"]
        );
        let list = format!(r#"{{"value":[{},{}]}}"#, host("spoke", "g1", "b"), host("spoke", "g2", "b"));
        let script = Script::start(vec![Reply::json(200, &list)]).await;
        let error = script.arm().find_bastion(&words("b", None)).await.unwrap_err();
        assert!(matches!(&error, Error::Ambiguous { ids, .. } if ids.len() == 2), "{error}");
    }

    #[tokio::test]
    async fn words_that_mean_nothing_are_not_sent() {
        let script = Script::start(Vec::new()).await;
        let arm = script.arm();
        let check = async |words: BastionName, expected: fn(&Error) -> bool| {
            let error = arm.find_bastion(&words).await.unwrap_err();
            assert!(expected(&error), "{error}");
            assert_eq!(error.fault(), Fault::Usage, "{error}");
        };
        check(BastionName { name: "b".into(), ..BastionName::default() }, |error| {
            matches!(error, Error::NoSubscription)
        })
        .await;
        check(words("/subscriptions/x", None), |error| matches!(error, Error::Words(_))).await;
        check(
            words("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v", None),
            |error| matches!(error, Error::NotABastion { .. }),
        )
        .await;
        check(words("a b", Some("g")), |error| matches!(error, Error::Words(_))).await;
        check(words("b", Some("..")), |error| matches!(error, Error::Words(_))).await;
        check(words("b/c/d", Some("g")), |error| matches!(error, Error::NotABastion { .. })).await;
        assert!(script.paths().is_empty());
    }

    #[tokio::test]
    async fn a_description_without_an_id_is_unreadable() {
        for body in ["{}", r#"{"id":"/x"}"#, "[]", "<html>", r#"{"id":"#] {
            let script = Script::start(vec![Reply::json(200, body)]).await;
            let error = script.arm().find_bastion(&words("b", Some("g"))).await.unwrap_err();
            assert!(matches!(error, Error::Unreadable { .. }), "{body}: {error}");
        }
    }
}
