//! ARM: cloud metadata, subscriptions, tenants, resources by id and in pages, permissions; each with
//! ARM's own failures. Queries to Resource Graph are let in here and answered by `graph`. The documents themselves are
//! `inventory.rs`, the cloud's are `metadata.rs`, sessions are `sessions.rs`.

mod metadata;
mod sessions;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::azure::{Azure, Caller, Denied};
use crate::graph;
use crate::http::{Answer, Request, Response, json as json_answer, set_header};
use crate::inventory::{is_below, kind_of};
use crate::scenario::Subscription;
use crate::transcript::Kind;

pub(crate) use sessions::Operations;

/// Answers a request that belongs to ARM; none when it does not.
pub(crate) fn answer(azure: &Azure, request: &Request) -> Option<Answer> {
    let lower = request.lower_segments();
    let path: Vec<&str> = lower.iter().map(String::as_str).collect();
    if let Some(answered) = sessions::answer(azure, request) {
        return Some(identified(Kind::Arm, answered.unwrap_or_else(|fault| fault.response(azure))));
    }
    let (kind, answered) = match (&request.method, path.as_slice()) {
        (&Method::GET, ["metadata", "endpoints"]) => {
            (Kind::Discovery, api_version(request).map(|version| metadata::endpoints(azure, version)))
        }
        (&Method::GET, ["tenants"] | ["subscriptions", ..]) => (Kind::Arm, resource(azure, request, &path)),
        (&Method::POST, ["providers", "microsoft.resourcegraph", "resources"]) => {
            return Some(query(azure, request));
        }
        _ => return None,
    };
    let response = match answered {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(fault) => fault.response(azure),
    };
    Some(identified(kind, response))
}

/// With the ids under which ARM knows the request.
fn identified(kind: Kind, mut response: Response) -> Answer {
    for header in ["x-ms-request-id", "x-ms-correlation-request-id"] {
        set_header(&mut response, header, &uuid::Uuid::new_v4().to_string());
    }
    Answer::new(kind, response)
}

/// A query to Resource Graph.
fn query(azure: &Azure, request: &Request) -> Answer {
    let mut response = match caller(azure, request) {
        Ok(caller) => graph::answer(azure, &caller, request),
        Err(fault) => fault.response(azure),
    };
    set_header(&mut response, "x-ms-request-id", &uuid::Uuid::new_v4().to_string());
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let fields = body.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default();
    Answer { fields, ..Answer::new(Kind::Graph, response) }
}

/// Who asks, for an api-version.
fn caller<'a>(azure: &'a Azure, request: &Request) -> Result<Caller<'a>, Fault> {
    let token = request.bearer().ok_or(Denied::Missing)?;
    let caller = azure.authenticate(token)?;
    if let Some(challenge) = azure.sign_ins.challenge(&caller.claims) {
        return Err(Denied::Claims { challenge }.into());
    }
    api_version(request)?;
    Ok(caller)
}

fn resource(azure: &Azure, request: &Request, path: &[&str]) -> Result<Value, Fault> {
    let caller = caller(azure, request)?;
    let inventory = &azure.inventory;
    match path {
        ["tenants"] => {
            let tenants = inventory.tenants.iter().filter(|tenant| tenant.id == caller.principal.tenant);
            page(azure, request, tenants.map(|tenant| json!({
                "id": format!("/tenants/{}", tenant.id), "tenantId": tenant.id, "displayName": tenant.display_name,
                "defaultDomain": tenant.domain, "domains": [tenant.domain], "tenantCategory": "Home", "tenantType": "AAD",
            })))
        }
        ["subscriptions"] => {
            let visible = inventory.subscriptions.iter().filter(|one| {
                one.tenant == caller.principal.tenant
                    && caller.principal.sees(&format!("/subscriptions/{}", one.id))
            });
            page(azure, request, visible.map(subscription_document))
        }
        ["subscriptions", id, rest @ ..] => {
            let subscription =
                inventory.subscription(id).ok_or_else(|| Fault::NoSubscription((*id).to_owned()))?;
            caller.must_be_of(&subscription.tenant)?;
            in_subscription(azure, request, &caller, subscription, rest)
        }
        _ => Err(Fault::NoType(path.join("/"))),
    }
}

/// What is below `/subscriptions/{id}`; `rest` is the path behind it in lower case.
fn in_subscription(
    azure: &Azure,
    request: &Request,
    caller: &Caller<'_>,
    subscription: &Subscription,
    rest: &[&str],
) -> Result<Value, Fault> {
    let inventory = &azure.inventory;
    let scope = format!("/subscriptions/{}", subscription.id);
    let groups = inventory.groups(&subscription.id);
    let group_document = |group: &String| {
        json!({
            "id": format!("{scope}/resourceGroups/{group}"), "name": group, "location": "westeurope",
            "type": "Microsoft.Resources/resourceGroups", "properties": {"provisioningState": "Succeeded"},
        })
    };
    match rest {
        [] => {
            if !caller.principal.sees(&scope) {
                caller.must_be_allowed("Microsoft.Resources/subscriptions/read", &scope)?;
            }
            return Ok(subscription_document(subscription));
        }
        ["resourcegroups"] => {
            let visible = |group: &&String| caller.principal.sees(&format!("{scope}/resourceGroups/{group}"));
            return page(azure, request, groups.iter().filter(visible).map(group_document));
        }
        _ => {}
    }
    let id = format!("/{}", request.segments.join("/"));
    if let Some(scope) = strip_suffix(&id, "/providers/Microsoft.Authorization/permissions") {
        let roles = caller.principal.roles_on(scope).map(|role| {
            json!({
                "actions": role.actions, "notActions": [], "dataActions": role.data_actions, "notDataActions": [],
            })
        });
        return page(azure, request, roles);
    }
    let group = match rest {
        ["resourcegroups", group, ..] => Some(*group),
        _ => None,
    };
    let group_exists =
        || group.is_none_or(|wanted| groups.iter().any(|known| known.eq_ignore_ascii_case(wanted)));
    let no_group = || Fault::NoGroup(group.unwrap_or_default().to_owned());
    if let ["resourcegroups", _] = rest {
        caller.must_be_allowed("Microsoft.Resources/subscriptions/resourceGroups/read", &id)?;
        let known = groups.iter().find(|known| Some(known.to_ascii_lowercase().as_str()) == group);
        return known.map(group_document).ok_or_else(no_group);
    }
    let (place, tail) = id.rsplit_once("/providers/").ok_or_else(|| Fault::NoType(id.clone()))?;
    let segments: Vec<&str> = tail.split('/').collect();
    if let Some(machine) = strip_suffix(&id, "/instanceView") {
        let kind = kind_of(machine);
        caller.must_be_allowed(&format!("{kind}/instanceView/read"), machine)?;
        let found = inventory.resource(machine).and_then(|resource| resource.instance_view.clone());
        return found.ok_or_else(|| Fault::no_resource(machine));
    }
    // An odd number of segments (namespace, type, name) is a resource, an even one a list.
    if segments.len() % 2 == 1 {
        caller.must_be_allowed(&format!("{}/read", kind_of(&id)), &id)?;
        let resource = inventory.resource(&id).ok_or_else(|| match group_exists() {
            true => Fault::no_resource(&id),
            false => no_group(),
        })?;
        let mut document = resource.document.clone();
        let expand = request.parameter("$expand").unwrap_or_default();
        if let (Some(view), Some(Value::Object(properties))) =
            (&resource.instance_view, document.get_mut("properties"))
            && expand.eq_ignore_ascii_case("instanceView")
        {
            properties.insert("instanceView".into(), view.clone());
        }
        return Ok(document);
    }
    let (parent, kind) = match segments.as_slice() {
        [_, _] => (place, kind_of(&format!("{id}/any"))),
        _ => (id.rsplit_once('/').map_or(place, |(parent, _)| parent), kind_of(&format!("{id}/any"))),
    };
    if !inventory.resources.iter().any(|one| kind_of(&one.id).eq_ignore_ascii_case(&kind)) && !is_known(&kind)
    {
        return Err(Fault::NoType(kind));
    }
    if !caller.principal.sees(parent) {
        caller.must_be_allowed(&format!("{kind}/read"), parent)?;
    }
    if !group_exists() {
        return Err(no_group());
    }
    let listed = inventory.resources.iter().filter(|one| {
        kind_of(&one.id).eq_ignore_ascii_case(&kind)
            && is_below(&one.id, parent)
            && caller.principal.may(&format!("{kind}/read"), &one.id)
    });
    page(azure, request, listed.map(|one| one.document.clone()))
}

/// Types that exist even when the scenario has none of them.
fn is_known(kind: &str) -> bool {
    [
        "microsoft.network/bastionhosts",
        "microsoft.network/networkinterfaces",
        "microsoft.network/virtualnetworks",
        "microsoft.compute/virtualmachines",
        "microsoft.compute/virtualmachinescalesets",
        "microsoft.compute/virtualmachinescalesets/virtualmachines",
    ]
    .contains(&kind.to_ascii_lowercase().as_str())
}

fn subscription_document(one: &Subscription) -> Value {
    json!({
        "id": format!("/subscriptions/{}", one.id), "subscriptionId": one.id, "displayName": one.name,
        "tenantId": one.tenant, "state": "Enabled", "authorizationSource": "RoleBased",
        "managedByTenants": [], "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01", "quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off",
        },
    })
}

/// One page of a list, and the link to the next.
fn page(azure: &Azure, request: &Request, items: impl Iterator<Item = Value>) -> Result<Value, Fault> {
    page_at(azure, request, request.target.split('?').next().unwrap_or_default(), items)
}

/// The same, with the next page at another path than this one.
fn page_at(
    azure: &Azure,
    request: &Request,
    path: &str,
    items: impl Iterator<Item = Value>,
) -> Result<Value, Fault> {
    let size = azure.settings.page_size;
    let skip: usize = match request.parameter("$skiptoken") {
        Some(token) => token.parse().map_err(|_| Fault::SkipToken)?,
        None => 0,
    };
    let mut value: Vec<Value> = items.skip(skip).take(size + 1).collect();
    let more = value.len() > size;
    value.truncate(size);
    let mut body = json!({ "value": value });
    if let (true, Some(body)) = (more, body.as_object_mut()) {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(request.query.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("$skiptoken")));
        query.append_pair("$skiptoken", &(skip + size).to_string());
        body.insert("nextLink".into(), format!("{}{path}?{}", azure.url, query.finish()).into());
    }
    Ok(body)
}

fn api_version(request: &Request) -> Result<&str, Fault> {
    request.parameter("api-version").filter(|version| !version.is_empty()).ok_or(Fault::NoApiVersion)
}

fn strip_suffix<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(head)
}

/// What ARM refuses, in its own words.
#[derive(Debug)]
enum Fault {
    NoApiVersion,
    SkipToken,
    Denied(Denied),
    NoSubscription(String),
    NoGroup(String),
    NoResource { kind: String, name: String, group: String },
    NoType(String),
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Fault {
        Fault::Denied(denied)
    }
}

impl Fault {
    fn no_resource(id: &str) -> Fault {
        let tail = id.rsplit("/providers/").next().unwrap_or_default();
        Fault::NoResource {
            kind: kind_of(id),
            name: tail.split('/').skip(2).step_by(2).collect::<Vec<_>>().join("/"),
            group: id.split('/').nth(4).unwrap_or_default().to_owned(),
        }
    }

    fn response(&self, azure: &Azure) -> Response {
        let (status, code, message) = match self {
            Fault::NoApiVersion => (
                StatusCode::BAD_REQUEST,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.".to_owned(),
            ),
            Fault::SkipToken => {
                (StatusCode::BAD_REQUEST, "InvalidSkipToken", "The skip token is not valid.".to_owned())
            }
            Fault::Denied(denied) => {
                let (status, code) = match denied {
                    Denied::Missing => (StatusCode::UNAUTHORIZED, "AuthenticationFailed"),
                    Denied::Claims { .. } => (StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken"),
                    Denied::Invalid | Denied::Audience { .. } => {
                        (StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken")
                    }
                    Denied::Expired { .. } => (StatusCode::UNAUTHORIZED, "ExpiredAuthenticationToken"),
                    Denied::Tenant { .. } => (StatusCode::UNAUTHORIZED, "InvalidAuthenticationTokenTenant"),
                    Denied::Right { .. } => (StatusCode::FORBIDDEN, "AuthorizationFailed"),
                };
                (status, code, denied.to_string())
            }
            Fault::NoSubscription(id) => (
                StatusCode::NOT_FOUND,
                "SubscriptionNotFound",
                format!("The subscription '{id}' could not be found."),
            ),
            Fault::NoGroup(group) => (
                StatusCode::NOT_FOUND,
                "ResourceGroupNotFound",
                format!("Resource group '{group}' could not be found."),
            ),
            Fault::NoResource { kind, name, group } => (
                StatusCode::NOT_FOUND,
                "ResourceNotFound",
                format!(
                    "The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
                ),
            ),
            Fault::NoType(kind) => (
                StatusCode::NOT_FOUND,
                "InvalidResourceType",
                format!("The resource type '{kind}' could not be found in the namespace of the emulator."),
            ),
        };
        let mut response = json_answer(status, &json!({"error": {"code": code, "message": message}}));
        if status == StatusCode::UNAUTHORIZED {
            let tenant = match self {
                Fault::Denied(Denied::Tenant { wanted, .. }) => wanted,
                _ => "common",
            };
            let url = &azure.url;
            let challenge = match self {
                // learn.microsoft.com, "Claims challenges, claims requests and client capabilities".
                Fault::Denied(Denied::Claims { challenge }) => format!(
                    "Bearer realm=\"\", authorization_uri=\"{url}/{tenant}/oauth2/authorize\", error=\"insufficient_claims\", claims=\"{}\"",
                    STANDARD.encode(challenge)
                ),
                _ => format!(
                    "Bearer authorization_uri=\"{url}/{tenant}\", error=\"invalid_token\", error_description=\"{message}\""
                ),
            };
            set_header(&mut response, "www-authenticate", &challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_in_any_case() {
        assert_eq!(strip_suffix("/a/INSTANCEVIEW", "/instanceView"), Some("/a"));
        assert_eq!(strip_suffix("/a", "/instanceView"), None);
        assert_eq!(strip_suffix("é/x", "\u{a9}/x"), None);
    }
}
