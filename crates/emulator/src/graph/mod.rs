//! Resource Graph: `POST /providers/Microsoft.ResourceGraph/resources`. What the inventory holds, as the tables
//! `resources` and `computeresources`, of which a caller sees the rows that it may read; queries in a part of KQL
//! (`parse.rs` reads them, `run.rs` carries them out); pages; refusals in the service's words.

mod parse;
mod run;

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::azure::{Azure, Caller};
use crate::http::{Request, Response, json as json_answer, set_header};
use crate::inventory::{Resource, kind_of};

/// Answers a query of somebody who has been let in.
pub(crate) fn answer(azure: &Azure, caller: &Caller<'_>, request: &Request) -> Response {
    let mut response = match try_answer(azure, caller, &request.body) {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(refusal) => json_answer(StatusCode::BAD_REQUEST, &refusal.body()),
    };
    // learn.microsoft.com, "Guidance for throttled requests in Azure Resource Graph". Nobody is throttled by itself:
    // that is ordered as a fault.
    set_header(&mut response, "x-ms-user-quota-remaining", "14");
    set_header(&mut response, "x-ms-user-quota-resets-after", "00:00:05");
    response
}

fn try_answer(azure: &Azure, caller: &Caller<'_>, body: &[u8]) -> Result<Value, Refusal> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::body_form("it is not JSON"))?;
    let query = body.get("query").and_then(Value::as_str).filter(|query| !query.trim().is_empty());
    let query = parse::query(query.ok_or_else(|| Refusal::body_form("'query' is missing"))?)?;
    let options = body.get("options").cloned().unwrap_or_default();
    if let Some(form) = options.get("resultFormat").and_then(Value::as_str)
        && !form.eq_ignore_ascii_case("objectArray")
    {
        return Err(Refusal::body_form("the emulator knows the resultFormat objectArray only"));
    }
    let top = match options.get("$top") {
        None | Some(Value::Null) => LARGEST_PAGE,
        Some(top) => match top.as_u64().and_then(|top| usize::try_from(top).ok()) {
            Some(top) if (1..=LARGEST_PAGE).contains(&top) => top,
            _ => return Err(Refusal::body_form("'$top' must be between 1 and 1000")),
        },
    };
    let number = |name: &str| match options.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(Value::String(text)) => {
            text.parse().map_err(|_| Refusal::body_form("'$skipToken' is not valid"))
        }
        Some(number) => number
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| Refusal::body_form("'$skip' must be a number")),
    };
    let skip = number("$skipToken")?.max(number("$skip")?);
    let subscriptions: Option<Vec<&str>> = body
        .get("subscriptions")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect());

    let rows = rows(azure, caller, query.table, subscriptions.as_deref());
    let found = run::run(&query, rows)?;
    let (total, size) = (found.len(), top.min(azure.settings.graph_page_size));
    let page: Vec<Value> = found.into_iter().skip(skip).take(size).map(Value::Object).collect();
    let more = skip + page.len() < total;
    let mut answer = json!({
        "totalRecords": total, "count": page.len(), "facets": [],
        // Truncated for good is a result whose next page can't be asked for.
        "resultTruncated": if more && !query.shows("id") { "true" } else { "false" },
        "data": page,
    });
    if let (true, Some(answer)) = (more && query.shows("id"), answer.as_object_mut()) {
        answer.insert("$skipToken".into(), (skip + size).to_string().into());
    }
    Ok(answer)
}

/// learn.microsoft.com, "Working with large Azure resource data sets": `$top` is at most 1,000.
const LARGEST_PAGE: usize = 1000;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Resources that are in a group by themselves.
    Resources,
    /// Instances of scale sets, and their network interfaces.
    ComputeResources,
}

type Row = Map<String, Value>;

/// Columns that every row has.
const COLUMNS: [&str; 16] = [
    "id",
    "name",
    "type",
    "tenantId",
    "kind",
    "location",
    "resourceGroup",
    "subscriptionId",
    "managedBy",
    "sku",
    "plan",
    "properties",
    "tags",
    "identity",
    "zones",
    "extendedLocation",
];

/// The rows that somebody may see.
fn rows(azure: &Azure, caller: &Caller<'_>, table: Table, subscriptions: Option<&[&str]>) -> Vec<Row> {
    let inventory = &azure.inventory;
    let mut rows = Vec::new();
    for resource in &inventory.resources {
        let kind = kind_of(&resource.id);
        let segment = |number: usize| resource.id.split('/').nth(number).unwrap_or_default();
        let Some(subscription) = inventory.subscription(segment(2)) else { continue };
        let here = match table {
            Table::Resources => kind.matches('/').count() == 1,
            Table::ComputeResources => kind
                .to_ascii_lowercase()
                .starts_with("microsoft.compute/virtualmachinescalesets/virtualmachines"),
        };
        let asked_for = subscriptions
            .is_none_or(|wanted| wanted.iter().any(|one| one.eq_ignore_ascii_case(&subscription.id)));
        let visible = subscription.tenant == caller.principal.tenant
            && caller.principal.may(&format!("{kind}/read"), &resource.id);
        if here && asked_for && visible {
            rows.push(row(resource, &kind, &subscription.tenant, &subscription.id, segment(4)));
        }
    }
    rows
}

fn row(resource: &Resource, kind: &str, tenant: &str, subscription: &str, group: &str) -> Row {
    let field = |name: &str| resource.document.get(name).cloned();
    let mut properties = field("properties").unwrap_or_else(|| json!({}));
    if let (Some(view), Some(properties)) = (&resource.instance_view, properties.as_object_mut()) {
        let statuses = view.get("statuses").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_power = |status: &&Value| {
            status.get("code").and_then(Value::as_str).is_some_and(|code| code.starts_with("PowerState/"))
        };
        let power = statuses.iter().find(is_power).cloned().unwrap_or_default();
        properties.insert("extended".into(), json!({"instanceView": {"powerState": power}}));
    }
    // Types and groups are in lower case; names are as they were given.
    let known = [
        ("id", json!(resource.id)),
        ("name", json!(resource.id.rsplit('/').next())),
        ("type", json!(kind.to_ascii_lowercase())),
        ("tenantId", json!(tenant)),
        ("kind", json!("")),
        ("location", field("location").unwrap_or_default()),
        ("resourceGroup", json!(group.to_ascii_lowercase())),
        ("subscriptionId", json!(subscription)),
        ("managedBy", json!("")),
        ("sku", field("sku").unwrap_or_default()),
        ("properties", properties),
        ("tags", field("tags").unwrap_or_default()),
    ];
    let mut row: Row = COLUMNS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    row.extend(known.map(|(name, value)| (name.to_owned(), value)));
    row
}

/// Why a query is not answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    code: &'static str,
    details: Vec<Value>,
}

impl Refusal {
    fn body_form(what: &str) -> Refusal {
        let details =
            vec![json!({"code": "InvalidRequest", "message": format!("The request is invalid: {what}.")})];
        Refusal { code: "BadRequest", details }
    }

    fn query(detail: Value) -> Refusal {
        let invalid = json!({
            "code": "InvalidQuery",
            "message": "Query is invalid. Please refer to the documentation for the Azure Resource Graph service and fix the error before retrying.",
        });
        Refusal { code: "BadRequest", details: vec![invalid, detail] }
    }

    /// Something that is no KQL.
    fn parser(line: usize, column: usize, token: &str, expected: &str) -> Refusal {
        Refusal::query(json!({
            "code": "ParserFailure", "message": "ParserFailure", "line": line, "characterPositionInLine": column,
            "token": token, "expectedToken": expected,
        }))
    }

    /// KQL that is not answered here: by the service neither, or by the emulator alone.
    fn unsupported(token: &str) -> Refusal {
        Refusal::query(json!({
            "code": "InvalidQueryLanguage", "message": "InvalidQueryLanguage", "line": -1,
            "characterPositionInLine": -1, "token": token,
        }))
    }

    /// A name that nothing has.
    fn unresolved(name: &str) -> Refusal {
        Refusal::query(json!({
            "code": "Default", "message": format!("Failed to resolve column or scalar expression named '{name}'"),
        }))
    }

    fn body(&self) -> Value {
        let form = time::format_description::well_known::Rfc3339;
        let now = time::OffsetDateTime::now_utc().format(&form).unwrap_or_default();
        json!({"error": {
            "code": self.code,
            "message": format!(
                "Please provide below info when asking for support: timestamp = {now}, correlationId = {}.",
                uuid::Uuid::new_v4()
            ),
            "details": self.details,
        }})
    }
}
