//! Resource Graph as its callers meet it: rows that they may read, pages, refusals. What the language can do is a unit
//! test's.

use bastide_emulator::transcript::Kind;
use bastide_emulator::{Emulator, Scenario};
use serde_json::{Value, json};

use crate::client::*;

async fn ask(lab: &Emulator, token: &str, body: &Value) -> Answer {
    let head = format!(
        "POST /providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01\nAuthorization: Bearer {token}\n\
         Content-Type: application/json\n"
    );
    Connection::open(lab, "localhost").await.request(&head, &body.to_string()).await
}

fn ids(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let rows = body["data"].as_array().unwrap_or_else(|| panic!("{body}"));
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn rows_are_resources_as_the_service_shows_them() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    let query = "resources | where type == 'microsoft.compute/virtualmachines' and name =~ 'OFF-01'";
    let answer = ask(&lab, &token, &json!({"query": query})).await;
    assert!(answer.head.contains("x-ms-user-quota-remaining: "), "{}", answer.head);
    let body = answer.json();
    assert_eq!(
        (&body["count"], &body["totalRecords"], &body["resultTruncated"]),
        (&json!(1), &json!(1), &json!("false"))
    );
    let row = &body["data"][0];
    assert_eq!(
        (row["id"].as_str(), row["resourceGroup"].as_str()),
        (Some(vm("off-01").as_str()), Some("demo"))
    );
    assert_eq!(row["properties"]["extended"]["instanceView"]["powerState"]["code"], "PowerState/deallocated");

    // Interfaces name their machine, and networks what they are peered with; subnets are no rows of their own.
    let kinds =
        ask(&lab, &token, &json!({"query": "resources | distinct type | order by type asc"})).await.json();
    let kinds: Vec<_> =
        kinds["data"].as_array().unwrap().iter().map(|row| row["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "microsoft.compute/virtualmachines",
            "microsoft.compute/virtualmachinescalesets",
            "microsoft.network/bastionhosts",
            "microsoft.network/networkinterfaces",
            "microsoft.network/virtualnetworks",
        ]
    );
    let query = json!({"query": "computeresources | where type endswith '/virtualmachines'"});
    let instances = ids(&ask(&lab, &token, &query).await);
    assert_eq!(instances.len(), 2);
    assert!(instances[1].ends_with("/virtualMachineScaleSets/workers/virtualMachines/1"));
    assert_eq!(lab.transcript().count_status(Kind::Graph, 200), 3);
    assert_eq!(lab.transcript().requests.back().unwrap().fields, ["query"]);
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let mut scenario = Scenario::default();
    scenario.settings.graph_page_size = 4;
    let lab = lab(scenario).await;
    let token = token(&lab).await;
    let query =
        "resources | where type =~ 'microsoft.network/bastionhosts' | project id, name | order by name asc";
    let (mut found, mut options) = (Vec::new(), json!({"resultFormat": "objectArray"}));
    loop {
        let answer = ask(&lab, &token, &json!({"query": query, "options": options})).await;
        found.extend(ids(&answer));
        match answer.json().get("$skipToken") {
            Some(next) => options["$skipToken"] = next.clone(),
            None => break,
        }
    }
    assert_eq!((found.len(), lab.transcript().count(Kind::Graph)), (9, 3));
    assert!(found.is_sorted());
    let top = json!({"query": query, "options": {"$top": 3}});
    assert_eq!(ids(&ask(&lab, &token, &top).await).len(), 3);
    // Without the id there is no next page (learn.microsoft.com, "Working with large Azure resource data sets").
    let nameless = ask(&lab, &token, &json!({"query": "resources | project name"})).await.json();
    assert_eq!((&nameless["resultTruncated"], nameless.get("$skipToken")), (&json!("true"), None));
}

#[tokio::test]
async fn callers_see_what_they_may_read() {
    let mut scenario = Scenario::default();
    let mut narrow = scenario.service_principals[0].clone();
    (narrow.client_id, narrow.client_secret) = ("narrow".into(), Some("secret".into()));
    narrow.roles[0].scope = vm("web-01");
    scenario.service_principals.push(narrow);
    let lab = lab(scenario).await;
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", "narrow"),
        ("client_secret", "secret"),
        ("scope", "https://management.azure.com/.default"),
    ];
    let narrow = ask_token(&lab, TENANT, &fields).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(ids(&ask(&lab, &narrow, &json!({"query": "resources"})).await), [vm("web-01")]);
    let token = token(&lab).await;
    let all =
        ask(&lab, &token, &json!({"query": "resources", "subscriptions": [SUBSCRIPTION.to_uppercase()]}))
            .await;
    assert_eq!(ids(&all).len(), 17);
    let elsewhere = json!({"query": "resources", "subscriptions": ["another"]});
    assert_eq!(ids(&ask(&lab, &token, &elsewhere).await).len(), 0);
}

#[tokio::test]
async fn refusals_have_the_services_form() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    for (body, code) in [
        (json!({}), "InvalidRequest"),
        (json!({"query": "resources", "options": {"resultFormat": "table"}}), "InvalidRequest"),
        (json!({"query": "resources", "options": {"$top": 1001}}), "InvalidRequest"),
        (json!({"query": "resources", "options": {"$skipToken": "x"}}), "InvalidRequest"),
        (json!({"query": "resources | where name =~ 'it's'"}), "InvalidQuery"),
        (json!({"query": "resources | join kind=inner x on id"}), "InvalidQuery"),
    ] {
        let answer = ask(&lab, &token, &body).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["code"].as_str()), (400, Some("BadRequest")), "{body}: {error}");
        assert_eq!(error["details"][0]["code"], code, "{body}: {error}");
    }
    let expired = ask(&lab, "e30.e30.e30", &json!({"query": "resources"})).await;
    assert_eq!(
        (expired.status, expired.json()["error"]["code"].as_str()),
        (401, Some("InvalidAuthenticationToken"))
    );
}
