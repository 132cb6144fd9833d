//! What can go wrong between a user's words and ARM's answer, whose fault it is, and what to do next. It leaves
//! out how ARM's refusals are read ([`Answer`]).

use std::time::Duration;

use bastide_core::{AuthError, Fault, Wait};

use crate::{Answer, SubscriptionChoice, Unlocated};

/// A question to ARM that has no answer.
///
/// `what` names the thing that was asked for, such as `Bastion host 'b' in resource group 'g'`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// ARM cannot be reached.
    #[error("cannot ask Azure Resource Manager for {what}")]
    Network {
        /// What was asked for.
        what: String,
        /// What broke.
        #[source]
        source: Box<bastide_net::Error>,
    },
    /// There is no token to ask with.
    #[error("no access token to ask for {what}")]
    SignIn {
        /// What was asked for.
        what: String,
        /// Why not.
        #[source]
        source: AuthError,
    },
    /// 401, with a new token too.
    #[error("{what}: the access token is not accepted: {answer}")]
    TokenRefused {
        /// What was asked for.
        what: String,
        /// What ARM said.
        answer: Box<Answer>,
    },
    /// 403.
    #[error("{what}: {}", forbidden(answer))]
    Forbidden {
        /// What was asked for.
        what: String,
        /// What ARM said.
        answer: Box<Answer>,
    },
    /// 404, or missing in a list.
    #[error("{what} was not found{}{}", places(looked_in), said(answer.as_deref()))]
    NotFound {
        /// What was asked for.
        what: String,
        /// The subscriptions that were looked in, where that was a choice.
        looked_in: Vec<SubscriptionChoice>,
        /// What ARM said; nothing, when a list did not hold it.
        answer: Option<Box<Answer>>,
    },
    /// 429, after all retries.
    #[error("{what}: too many requests: {answer}")]
    Throttled {
        /// What was asked for.
        what: String,
        /// What ARM said.
        answer: Box<Answer>,
    },
    /// 5xx, after all retries.
    #[error("{what}: Azure Resource Manager is not able to answer: {answer}")]
    Sick {
        /// What was asked for.
        what: String,
        /// What ARM said.
        answer: Box<Answer>,
    },
    /// Any other status.
    #[error("{what}: Azure Resource Manager refuses the request: {answer}")]
    Rejected {
        /// What was asked for.
        what: String,
        /// What ARM said.
        answer: Box<Answer>,
    },
    /// A 200 with a body that is something else.
    #[error("{what}: the answer cannot be read: {reason}")]
    Unreadable {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A next page, or a result, that is at another server: it would be sent the token.
    #[error("{what}: the rest is said to be at {origin}, which is not Azure Resource Manager")]
    ForeignPage {
        /// What was asked for.
        what: String,
        /// Where.
        origin: String,
    },
    /// A list that does not end.
    #[error("{what}: more than {limit} pages")]
    Endless {
        /// What was asked for.
        what: String,
        /// How many were read.
        limit: usize,
    },
    /// The result of an action that does not come.
    #[error("{what}: no result within {} s", limit.as_secs())]
    Unfinished {
        /// What was asked for.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Nothing says which subscription.
    #[error("no subscription is named")]
    NoSubscription,
    /// A name that more than one thing has.
    #[error("{what} is ambiguous: {}", ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// Those that have it.
        ids: Vec<String>,
    },
    /// An id of something else than a Bastion host.
    #[error("'{id}' is not the id of a Bastion host")]
    NotABastion {
        /// The id.
        id: String,
    },
    /// Words that mean nothing.
    #[error(transparent)]
    Words(#[from] bastide_core::Error),
    /// Words that mean no VM, no Bastion host, or several.
    #[error(transparent)]
    Unlocated(#[from] Unlocated),
}

impl Error {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Network { source, .. } => return source.hint(),
            Error::SignIn { source, .. } => source.hint(),
            Error::TokenRefused { answer, .. } if answer.claims.is_some() => {
                "the tenant asks for a new sign-in (a claims challenge): run `bastide login`".into()
            }
            Error::TokenRefused { answer, .. } if answer.is(&[WRONG_TENANT]) => match &answer.tenant {
                Some(tenant) => format!("the subscription belongs to another tenant: sign in there with --tenant {tenant}"),
                None => "the subscription belongs to another tenant: name it with --tenant".into(),
            },
            Error::TokenRefused { .. } => {
                "sign in anew with `az login`; check --tenant, --cloud and this machine's clock".into()
            }
            Error::Forbidden { answer, .. } => match &answer.right {
                Some(right) => format!(
                    "ask an owner for: az role assignment create --assignee {} --role {} --scope {}",
                    right.object_id.as_deref().unwrap_or("USER"),
                    right.role(),
                    right.scope
                ),
                None => "Reader on the Bastion host, the VM and its network interface is needed".into(),
            },
            // A name that is in the list of subscriptions of no sign-in.
            Error::NotFound { answer: None, looked_in, .. } if looked_in.is_empty() => {
                "`az account list -o table` shows names and ids; one of another tenant is named by its id, or by its \
                 name and --tenant".into()
            }
            Error::NotFound { answer, .. } => not_found_hint(answer.as_deref()),
            Error::Throttled { answer, .. } => match answer.retry_after {
                Some(wait) => format!("try again in {}", Wait(wait)),
                None => "try again in a minute".into(),
            },
            Error::Sick { answer, .. } => match answer.retry_after {
                Some(wait) => {
                    format!("try again in {}; https://status.azure.com shows known faults", Wait(wait))
                }
                None => "try again; https://status.azure.com shows known faults".into(),
            },
            Error::Rejected { answer, .. } if answer.is(&["InvalidSubscriptionId"]) => {
                "a subscription is named by its id (a GUID) or by its name: `az account list -o table`".into()
            }
            Error::Unreadable { .. } => {
                "something else than Azure Resource Manager may be answering: a proxy, a sign-in page; check --cloud".into()
            }
            Error::Unfinished { .. } => "try again; https://status.azure.com shows known faults".into(),
            Error::Rejected { .. } | Error::ForeignPage { .. } | Error::Endless { .. } => return None,
            Error::NoSubscription => {
                "name it with --subscription, set AZURE_SUBSCRIPTION_ID, or choose one with `az account set`".into()
            }
            Error::Ambiguous { .. } => "name one of them by its id".into(),
            Error::NotABastion { .. } => {
                "--name takes the name or the id of a Bastion host; the VM's id goes into --target-resource-id".into()
            }
            Error::Words(error) => error.hint(),
            Error::Unlocated(error) => error.hint(),
        })
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Network { .. } => Fault::Network,
            Error::SignIn { source, .. } => source.fault(),
            Error::TokenRefused { .. } => Fault::SignIn,
            Error::Forbidden { .. } => Fault::Right,
            Error::NotFound { .. } => Fault::NotFound,
            Error::Throttled { .. }
            | Error::Sick { .. }
            | Error::Rejected { .. }
            | Error::Unreadable { .. }
            | Error::ForeignPage { .. }
            | Error::Endless { .. }
            | Error::Unfinished { .. } => Fault::Service,
            Error::NoSubscription | Error::Ambiguous { .. } | Error::NotABastion { .. } => Fault::Usage,
            Error::Words(error) => error.fault(),
            Error::Unlocated(error) => error.fault(),
        }
    }

    /// The refusal of an answer for which nothing more can be tried.
    pub(crate) fn refused(what: &str, answer: Answer) -> Self {
        let (what, answer) = (what.to_owned(), Box::new(answer));
        match answer.status {
            401 => Error::TokenRefused { what, answer },
            403 => Error::Forbidden { what, answer },
            404 => Error::NotFound { what, looked_in: Vec::new(), answer: Some(answer) },
            429 => Error::Throttled { what, answer },
            500.. => Error::Sick { what, answer },
            _ => Error::Rejected { what, answer },
        }
    }
}

/// ARM's code for a token of the wrong tenant.
pub(crate) const WRONG_TENANT: &str = "InvalidAuthenticationTokenTenant";

fn forbidden(answer: &Answer) -> String {
    match (&answer.right, &answer.request_id) {
        (Some(right), Some(id)) => {
            format!("the right {} on {} is missing (request id {id})", right.action, right.scope)
        }
        (Some(right), None) => format!("the right {} on {} is missing", right.action, right.scope),
        (None, _) => format!("not allowed: {answer}"),
    }
}

fn places(looked_in: &[SubscriptionChoice]) -> String {
    let places: Vec<_> = looked_in.iter().map(|choice| format!("subscription {choice}")).collect();
    if places.is_empty() { String::new() } else { format!(" in {}", places.join(", nor in ")) }
}

fn said(answer: Option<&Answer>) -> String {
    answer.map_or_else(String::new, |answer| format!(": {answer}"))
}

fn not_found_hint(answer: Option<&Answer>) -> String {
    let is = |codes: &[&str]| answer.is_some_and(|answer| answer.is(codes));
    if is(&["SubscriptionNotFound"]) {
        "check the subscription's id; it may belong to another tenant (--tenant) or another cloud (--cloud)"
            .into()
    } else if is(&["ResourceGroupNotFound"]) {
        "check --resource-group; a group in another subscription needs --subscription".into()
    } else {
        "check the name, --resource-group and --subscription; `az resource list --name NAME -o table` finds it where \
         you may read"
            .into()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use std::time::SystemTime;

    use super::*;
    use crate::SubscriptionOrigin;

    fn refused(status: u16, body: &str) -> Error {
        let what = "Bastion host 'b' in resource group 'g'";
        Error::refused(what, Answer::read(status, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH))
    }

    #[test]
    fn each_refusal_says_what_where_and_what_to_do() {
        let check = |status, body: &str, fault, message: &str, hint: &str| {
            let error = refused(status, body);
            assert_eq!(error.fault(), fault, "{status}");
            assert!(error.to_string().contains("Bastion host 'b' in resource group 'g'"), "{error}");
            assert!(error.to_string().contains(message), "{status}: {error}");
            let said = error.hint().unwrap_or_default();
            assert!(said.contains(hint), "{status}: {said}");
        };
        check(
            404,
            r#"{"error":{"code":"ResourceGroupNotFound","message":"Resource group 'g' could not be found."}}"#,
            Fault::NotFound,
            "was not found: Resource group 'g' could not be found. (status 404, ResourceGroupNotFound)",
            "--subscription",
        );
        check(
            404,
            r#"{"error":{"code":"ResourceNotFound","message":"The Resource 'Microsoft.Network/bastionHosts/b' under resource group 'g' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"}}"#,
            Fault::NotFound,
            "ResourceNotFound",
            "--resource-group",
        );
        check(
            404,
            r#"{"error":{"code":"SubscriptionNotFound","message":"The subscription 's' could not be found."}}"#,
            Fault::NotFound,
            "could not be found",
            "--tenant",
        );
        check(
            403,
            r#"{"error":{"code":"AuthorizationFailed","message":"The client 'c' with object id 'o' does not have authorization to perform action 'Microsoft.Network/bastionHosts/read' over scope '/subscriptions/s' or the scope is invalid."}}"#,
            Fault::Right,
            "the right Microsoft.Network/bastionHosts/read on /subscriptions/s is missing",
            "az role assignment create --assignee o --role Reader --scope /subscriptions/s",
        );
        check(403, "<h1>Forbidden</h1>", Fault::Right, "not allowed: Forbidden (status 403)", "Reader");
        check(401, "", Fault::SignIn, "not accepted", "az login");
        check(
            409,
            r#"{"error":{"code":"Conflict","message":"busy"}}"#,
            Fault::Service,
            "busy (status 409, Conflict)",
            "",
        );
        check(
            400,
            r#"{"error":{"code":"InvalidSubscriptionId","message":"x"}}"#,
            Fault::Service,
            "x",
            "az account list",
        );
        check(429, "", Fault::Service, "too many requests", "try again in a minute");
        check(
            503,
            "<h2>Our services aren't available</h2>",
            Fault::Service,
            "aren't available",
            "status.azure.com",
        );
        check(302, "", Fault::Service, "(status 302)", "");
    }

    #[test]
    fn a_search_says_where_it_looked_and_why_there() {
        let looked_in = vec![
            SubscriptionChoice { words: "spoke".into(), origin: SubscriptionOrigin::Target },
            SubscriptionChoice { words: "hub".into(), origin: SubscriptionOrigin::AzureCli },
        ];
        let error = Error::NotFound { what: "Bastion host 'b'".into(), looked_in, answer: None };
        assert_eq!(
            error.to_string(),
            "Bastion host 'b' was not found in subscription 'spoke' (from the target's resource id), nor in \
             subscription 'hub' (the Azure CLI's default)"
        );
    }
}
