//! Resource Graph: one question instead of many (protocol.md §2). Which VM a name means, and which Bastion hosts reach
//! it; or all of both. What is asked is `query`, what the answer says `topology`, what of it is meant `locate`. It
//! leaves out settings and power states that anything hangs on: those are asked of ARM itself, since Resource Graph is
//! some minutes behind.

mod locate;
mod query;
#[cfg(test)]
mod tests;
mod topology;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

pub use locate::{Located, Search, Unlocated, Wanted, spelt};
pub use topology::{ListedHost, ListedMachine, Topology};

use bastide_core::Target;

use crate::client::Question;
use crate::subscription::is_guid;
use crate::{Arm, Error};

impl Arm {
    /// The VM and the Bastion host that words mean.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Unlocated`] for words that mean none or several; those of an exchange with ARM.
    pub async fn locate(&self, search: &Search) -> Result<Located, Error> {
        let (what, query) = match &search.target {
            Wanted::Name(name) => (format!("VM '{name}'"), query::for_name(name)),
            Wanted::Target(target @ Target::Resource(id)) => {
                (format!("the Bastion host that reaches '{}'", target.display_name()), query::for_machine(id))
            }
            Wanted::Target(Target::Address(address)) => {
                (format!("the Bastion host that reaches {address}"), query::for_address(*address))
            }
        };
        let subscription = match &search.subscription {
            Some(words) if !is_guid(words.trim()) => Some(self.subscription(words).await?.id),
            id => id.clone(),
        };
        let search = Search { subscription, ..search.clone() };
        let located = Topology::new(self.rows(&what, &query).await?).locate(&search);
        if let (Err(Unlocated::NoMachine { name, .. }), Wanted::Name(_)) = (&located, &search.target) {
            // The mistake is worth a second question: what there is.
            let all = Topology::new(self.rows("the names of VMs", &query::machines()).await?);
            return Err(Unlocated::NoMachine { name: name.clone(), near: locate::near(name, &all) }.into());
        }
        Ok(located?)
    }

    /// All Bastion hosts, all VMs and all instances of scale sets that may be read.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of an exchange with ARM.
    pub async fn survey(&self) -> Result<Topology, Error> {
        let what = "the list of VMs and Bastion hosts";
        let (everything, instances) = (query::everything(), query::instances());
        let (mut rows, more) = tokio::try_join!(self.rows(what, &everything), self.rows(what, &instances),)?;
        rows.extend(more);
        Ok(Topology::new(rows))
    }

    /// All rows of a query's answer.
    async fn rows(&self, what: &str, query: &str) -> Result<Vec<Value>, Error> {
        let question =
            Question { what, path: RESOURCES, api_version: API_VERSION, expand: None, subscription: None };
        let mut rows = Vec::new();
        let mut skip_token: Option<String> = None;
        for _ in 0..PAGE_LIMIT {
            let mut options = json!({"resultFormat": "objectArray", "$top": PAGE_SIZE});
            if let (Some(options), Some(token)) = (options.as_object_mut(), skip_token) {
                options.insert("$skipToken".into(), token.into());
            }
            let body = Bytes::from(json!({"query": query, "options": options}).to_string());
            let page: Page = question.parse(&self.post(&question, &body).await?)?;
            rows.extend(page.data);
            skip_token = page.skip_token.filter(|token| !token.is_empty());
            match (&skip_token, page.result_truncated) {
                (Some(_), _) => {}
                // A candidate may be missing.
                (None, true) => {
                    let reason = "it is cut short".into();
                    return Err(Error::Unreadable { what: what.to_owned(), reason });
                }
                (None, false) => return Ok(rows),
            }
        }
        Err(Error::Endless { what: what.to_owned(), limit: PAGE_LIMIT })
    }
}

const RESOURCES: &str = "/providers/Microsoft.ResourceGraph/resources";

/// The oldest that asks all subscriptions of the caller where none is named, as the Azure CLI's `az graph` uses it.
const API_VERSION: &str = "2021-03-01";

/// learn.microsoft.com/azure/governance/resource-graph/concepts/work-with-data: a page has at most 1,000 rows.
const PAGE_SIZE: u32 = 1000;

/// 100,000 VMs, networks and interfaces: more than a list is read for.
const PAGE_LIMIT: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    data: Vec<Value>,
    #[serde(rename = "$skipToken")]
    skip_token: Option<String>,
    /// `"true"` or `"false"`.
    #[serde(default, deserialize_with = "truth")]
    result_truncated: bool,
}

fn truth<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(value == Value::Bool(true) || value.as_str().is_some_and(|word| word.eq_ignore_ascii_case("true")))
}

/// What an answer says of words, without the question before it.
#[cfg(fuzzing)]
pub(crate) fn read(words: &Wanted, body: &[u8]) -> Option<(Topology, Result<Located, Unlocated>)> {
    let page: Page = serde_json::from_slice(body).ok()?;
    let topology = Topology::new(page.data);
    let search = Search { target: words.clone(), bastion: None, group: None, subscription: None };
    let located = topology.locate(&search);
    Some((topology, located))
}
