//! What rows of Resource Graph, as the service gives them, come to for the words of users.

use bastide_core::{Fault, Target};
use serde_json::{Value, json};

use super::*;
use crate::script::{Reply, Script};

const S: &str = "22222222-2222-4222-8222-222222222222";
const OTHER: &str = "33333333-3333-4333-8333-333333333333";

fn id(group: &str, kind: &str, name: &str) -> String {
    let subscription = if group == "elsewhere" { OTHER } else { S };
    format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}")
}

fn network_id(group: &str, name: &str) -> String {
    id(group, "Microsoft.Network/virtualNetworks", name)
}

fn in_subnet(network: &str, subnet: &str) -> Value {
    json!([{"name": "ipconfig1", "properties": {
        "privateIPAddress": "10.1.0.4", "primary": true,
        "subnet": {"id": format!("{network}/subnets/{subnet}"), "resourceGroup": "lower"},
    }}])
}

fn host(group: &str, name: &str, network: &str, sku: &str) -> Value {
    json!({
        "id": id(group, "Microsoft.Network/bastionHosts", name), "type": "microsoft.network/bastionhosts",
        "location": "westeurope", "sku": {"name": sku}, "machine": "", "virtualNetwork": "",
        "ipConfigurations": in_subnet(network, "AzureBastionSubnet"), "peerings": null, "addressPrefixes": null,
        "dnsName": "bst-1.bastion.azure.com", "enableTunneling": true, "enableIpConnect": true,
        "enableSessionRecording": null, "provisioningState": "Succeeded",
    })
}

fn developer(group: &str, name: &str, network: &str) -> Value {
    let mut row = host(group, name, network, "Developer");
    row["ipConfigurations"] = Value::Null;
    row["virtualNetwork"] = network.into();
    row
}

fn network(group: &str, name: &str, prefix: &str, peers: &[(&str, &str)]) -> Value {
    let peerings: Vec<Value> = peers
        .iter()
        .map(|(remote, state)| {
            json!({"name": "p", "properties": {"peeringState": state, "remoteVirtualNetwork": {"id": remote}}})
        })
        .collect();
    json!({
        "id": network_id(group, name), "type": "microsoft.network/virtualnetworks", "sku": null,
        "peerings": peerings, "addressPrefixes": [prefix],
    })
}

fn machine(group: &str, name: &str, network: &str) -> [Value; 2] {
    let machine = id(group, "Microsoft.Compute/virtualMachines", name);
    [
        json!({"id": machine, "type": "microsoft.compute/virtualmachines", "location": "westeurope",
               "power": "PowerState/running", "machine": "", "sku": null}),
        json!({"id": id(group, "Microsoft.Network/networkInterfaces", "nic"), "machine": machine.to_uppercase(),
               "type": "microsoft.network/networkinterfaces", "ipConfigurations": in_subnet(network, "default")}),
    ]
}

fn set(group: &str, name: &str, network: &str) -> Value {
    json!({
        "id": id(group, "Microsoft.Compute/virtualMachineScaleSets", name), "sku": {"name": "Standard_B2s"},
        "type": "microsoft.compute/virtualmachinescalesets",
        "interfaces": [{"name": "n", "properties": {"ipConfigurations": in_subnet(network, "default")}}],
    })
}

/// A hub with a Standard host, a spoke that is peered with it, one that is not yet, and an island.
fn world() -> Vec<Value> {
    let (hub, spoke, half, island) = (
        network_id("network", "hub"),
        network_id("app", "spoke"),
        network_id("app", "half"),
        network_id("x", "i"),
    );
    let mut rows = vec![
        host("network", "bastion", &hub, "Standard"),
        network("network", "hub", "10.0.0.0/16", &[]),
        network("app", "spoke", "10.1.0.0/16", &[(&hub.to_uppercase(), "Connected")]),
        network("app", "half", "10.2.0.0/16", &[(&hub, "Initiated")]),
        set("app", "workers", &spoke),
    ];
    for (group, name, network) in [
        ("network", "jump", &hub),
        ("app", "Web-01", &spoke),
        ("app", "half-01", &half),
        ("x", "island-01", &island),
    ] {
        rows.extend(machine(group, name, network));
    }
    rows
}

fn search(target: &str) -> Search {
    Search { target: Wanted::parse(target).unwrap(), bastion: None, group: None, subscription: None }
}

fn locate(rows: &[Value], search: &Search) -> Result<Located, Unlocated> {
    Topology::new(rows.to_vec()).locate(search)
}

#[track_caller]
fn finds(rows: &[Value], search: &Search, target: &str, host: &str) {
    let located = locate(rows, search).unwrap();
    assert_eq!(located.target.to_string(), target);
    assert_eq!(located.host.map(|host| host.to_string()).as_deref(), Some(host));
}

#[track_caller]
fn fails(rows: &[Value], search: &Search, fault: Fault, message: &str, hint: &str) {
    let error = locate(rows, search).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.fault()), (message, fault));
    assert!(error.hint().contains(hint), "{}", error.hint());
}

#[test]
fn a_host_is_found_in_the_same_network_or_over_a_peering() {
    let bastion = id("network", "Microsoft.Network/bastionHosts", "bastion");
    let vm = |group: &str, name: &str| id(group, "Microsoft.Compute/virtualMachines", name);
    let instance =
        format!("{}/virtualMachines/3", id("app", "Microsoft.Compute/virtualMachineScaleSets", "workers"));
    let rows = world();
    finds(&rows, &search("jump"), &vm("network", "jump"), &bastion);
    // In the user's spelling, which ssh_config(5) goes by.
    finds(&rows, &search("WEB-01"), &vm("app", "WEB-01"), &bastion);
    finds(&rows, &search("workers_3"), &instance, &bastion);
    let spelt = instance.replace("Sets/workers", "Sets/Workers");
    finds(&rows, &search("Workers_3"), &spelt, &bastion);
    // By their ids, of which the VM's row is not asked for.
    let without = |name: &str| -> Vec<Value> {
        let is_row = |row: &Value| row["id"].as_str().unwrap().ends_with(&format!("virtualMachines/{name}"));
        world().into_iter().filter(|row| !is_row(row)).collect()
    };
    finds(&without("Web-01"), &search(&vm("app", "web-01")), &vm("app", "web-01"), &bastion);
    finds(&rows, &search(&instance), &instance, &bastion);
    for address in ["10.0.3.4", "10.1.0.9"] {
        finds(&rows, &search(address), address, &bastion);
    }
    // Another network has the same addresses, and a Bastion host of its own; only one has a VM there.
    let mut rows: Vec<Value> = world().into_iter().take(4).collect();
    let far = network_id("x", "far");
    rows.extend([network("x", "far", "10.1.0.0/16", &[]), host("x", "far", &far, "Standard")]);
    let two = locate(&rows, &search("10.1.0.4")).unwrap_err();
    assert!(matches!(two, Unlocated::SeveralHosts { .. }), "{two}");
    rows.extend(machine("x", "v", &far));
    finds(&rows, &search("10.1.0.4"), "10.1.0.4", &id("x", "Microsoft.Network/bastionHosts", "far"));
}

#[test]
fn what_no_host_reaches() {
    let none = |name: &str| format!("no Bastion host reaches '{name}'");
    let needed = "in one that is peered with it, is needed";
    fails(&world(), &search("half-01"), Fault::NotFound, &none("half-01"), needed);
    fails(&world(), &search("island-01"), Fault::NotFound, &none("island-01"), needed);
    fails(&world(), &search("10.2.0.4"), Fault::NotFound, &none("10.2.0.4"), needed);
    fails(&world(), &search("192.168.0.1"), Fault::NotFound, &none("192.168.0.1"), needed);
    let elsewhere = Search { group: Some("app".into()), ..search("web-01") };
    let message = "no Bastion host in resource group 'app' reaches 'web-01'";
    fails(&world(), &elsewhere, Fault::NotFound, message, "there is 'bastion' in resource group 'network'");
    // Developer hosts serve their own network only.
    let (hub, spoke) = (network_id("network", "hub"), network_id("app", "spoke"));
    let mut rows: Vec<Value> = world().into_iter().skip(1).collect();
    rows.push(developer("network", "dev", &hub));
    fails(&rows, &search("web-01"), Fault::NotFound, &none("web-01"), needed);
    rows.push(developer("app", "own", &spoke));
    let own = id("app", "Microsoft.Network/bastionHosts", "own");
    finds(&rows, &search("web-01"), &id("app", "Microsoft.Compute/virtualMachines", "web-01"), &own);
}

#[test]
fn networks_that_may_not_be_read() {
    let rows: Vec<Value> =
        world().into_iter().filter(|row| row["type"] != "microsoft.network/networkinterfaces").collect();
    let message = format!(
        "the virtual network of '{}' is not known: no network interface of it may be read",
        id("app", "Microsoft.Compute/virtualMachines", "web-01")
    );
    fails(&rows, &search("web-01"), Fault::Right, &message, "Reader on the VM's network interface");
    // Named, the Bastion host needs no look at networks.
    let named = Search { bastion: Some("b".into()), ..search("web-01") };
    assert_eq!(locate(&rows, &named).unwrap().host, None);
    let cluster = id("app", "Microsoft.Contoso/things", "k");
    let error = locate(&world(), &search(&cluster)).unwrap_err();
    assert_eq!((error.fault(), error.hint().contains("--name")), (Fault::Usage, true));
}

#[test]
fn several_vms_of_a_name() {
    let mut rows = world();
    rows.extend(machine("app2", "web-01", &network_id("app", "spoke")));
    let two = "'web-01' is the name of 2 VMs: in resource group 'app', in resource group 'app2'";
    let by_id = format!("--target-resource-id {}", id("app", "Microsoft.Compute/virtualMachines", "Web-01"));
    fails(&rows, &search("web-01"), Fault::Usage, two, &by_id);
    // Both are reached by it: the group does not tell them apart.
    let group = Search { group: Some("network".into()), ..search("web-01") };
    fails(&rows, &group, Fault::Usage, two, "--name");

    let mut rows = world();
    let far = network_id("elsewhere", "far");
    rows.extend(machine("elsewhere", "web-01", &far));
    rows.push(host("elsewhere", "far-bastion", &far, "Standard"));
    let three = format!(
        "'web-01' is the name of 2 VMs: in resource group 'app' of subscription {S}, in resource group 'elsewhere' \
         of subscription {OTHER}"
    );
    fails(&rows, &search("web-01"), Fault::Usage, &three, "--subscription");
    let vm = |group: &str| id(group, "Microsoft.Compute/virtualMachines", "web-01");
    let bastion = |group: &str, name: &str| id(group, "Microsoft.Network/bastionHosts", name);
    let narrowed = Search { subscription: Some(OTHER.into()), ..search("web-01") };
    finds(&rows, &narrowed, &vm("elsewhere"), &bastion("elsewhere", "far-bastion"));
    let narrowed = Search { group: Some("Network".into()), ..search("web-01") };
    finds(&rows, &narrowed, &vm("app"), &bastion("network", "bastion"));
    let named = Search { bastion: Some("FAR-bastion".into()), ..search("web-01") };
    assert_eq!(locate(&rows, &named).unwrap(), Located { target: target(&vm("elsewhere")), host: None });
    let named = Search { bastion: Some(bastion("network", "bastion")), ..search("web-01") };
    assert_eq!(locate(&rows, &named).unwrap(), Located { target: target(&vm("app")), host: None });
}

fn target(id: &str) -> Target {
    Target::Resource(id.parse().unwrap())
}

#[test]
fn several_hosts_for_a_vm() {
    let hub = network_id("network", "hub");
    let mut rows = world();
    rows.push(host("network", "basic", &hub, "Basic"));
    let vm = id("app", "Microsoft.Compute/virtualMachines", "web-01");
    // One that cannot carry a native client is no choice.
    finds(&rows, &search("web-01"), &vm, &id("network", "Microsoft.Network/bastionHosts", "bastion"));
    rows.push(host("spare", "second", &hub, "Premium"));
    fails(
        &rows,
        &search("web-01"),
        Fault::Usage,
        "'web-01' is reached by 2 Bastion hosts: 'bastion' in resource group 'network', 'second' in resource group \
         'spare'",
        "such as --name bastion --resource-group network",
    );
    let group = Search { group: Some("spare".into()), ..search("web-01") };
    finds(&rows, &group, &vm, &id("spare", "Microsoft.Network/bastionHosts", "second"));
    let many: Vec<Value> = (0..12).map(|number| host("g", &format!("b{number}"), &hub, "Standard")).collect();
    let rows: Vec<Value> = many.into_iter().chain(machine("g", "v", &hub)).collect();
    let said = locate(&rows, &search("v")).unwrap_err().to_string();
    assert!(said.ends_with("'b9' in resource group 'g', and 2 more"), "{said}");
    // Where none can, the only one is the one whose refusal is worth hearing.
    let rows: Vec<Value> =
        [host("network", "basic", &hub, "Basic")].into_iter().chain(machine("network", "x", &hub)).collect();
    let basic = id("network", "Microsoft.Network/bastionHosts", "basic");
    finds(&rows, &search("x"), &id("network", "Microsoft.Compute/virtualMachines", "x"), &basic);
}

#[test]
fn rows_of_other_forms_are_left_aside() {
    let mut rows = world();
    for odd in [
        json!(null),
        json!(7),
        json!({"id": "x", "type": "microsoft.compute/virtualmachines"}),
        json!({"id": network_id("a", "b"), "type": "microsoft.network/virtualnetworks", "peerings": "none"}),
        json!({"id": network_id("a", "b"), "type": "microsoft.network/virtualnetworks", "addressPrefixes": ["x", "1.2.3.4/99"]}),
        json!({"id": network_id("a", "b"), "type": "microsoft.network/virtualnetworks", "peerings": [{}, {"properties": {}}]}),
        json!({"id": id("a", "Microsoft.Network/networkInterfaces", "n"), "type": "microsoft.network/networkinterfaces"}),
        json!({"id": id("a", "Microsoft.Other/things", "n"), "type": "microsoft.other/things"}),
    ] {
        rows.push(odd);
    }
    let vm = id("app", "Microsoft.Compute/virtualMachines", "web-01");
    finds(&rows, &search("web-01"), &vm, &id("network", "Microsoft.Network/bastionHosts", "bastion"));
}

#[test]
fn words_and_what_they_are() {
    let is_name = |text: &str| matches!(Wanted::parse(text), Ok(Wanted::Name(name)) if name == text.trim());
    for name in ["web-01", " web-01 ", "workers_12", "a.b", "Ä", "10.0.0.4.example", "it's"] {
        assert!(is_name(name), "{name}");
    }
    for wrong in ["a b", "a/b", "a\\b", "a\"b", "a|b", "a\u{7}b", &"a".repeat(76)] {
        let error = Wanted::parse(wrong).unwrap_err();
        assert!(matches!(error, Error::Unlocated(Unlocated::NoName { .. })), "{wrong}: {error}");
    }
    for address in ["", "10.0.0.999", "10.0.0", "fd00::4", "0.0.0.0"] {
        let error = Wanted::parse(address).unwrap_err();
        assert!(matches!(error, Error::Words(bastide_core::Error::Address { .. })), "{address}: {error}");
    }
    assert!(matches!(Wanted::parse("/subscriptions/x"), Err(Error::Words(_))));
}

#[tokio::test]
async fn one_question_in_as_many_pages_as_there_are() {
    let rows = world();
    let (first, second) = rows.split_at(5);
    let script = Script::start(vec![
        Reply::json(
            200,
            &json!({"data": first, "$skipToken": "next", "resultTruncated": "false"}).to_string(),
        ),
        Reply::json(200, &json!({"data": second, "count": 1}).to_string()),
    ])
    .await;
    let located = script.arm().locate(&search("web-01")).await.unwrap();
    assert_eq!(located.host.unwrap().name(), "bastion");
    let path = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01";
    assert_eq!(script.paths(), [path, path]);
    let bodies = script.bodies();
    let body = |number: usize| serde_json::from_str::<Value>(&bodies[number]).unwrap();
    assert_eq!(body(0)["options"], json!({"resultFormat": "objectArray", "$top": 1000}));
    assert_eq!(body(1)["options"]["$skipToken"], "next");
    assert_eq!(body(0)["query"], body(1)["query"]);
}

#[tokio::test]
async fn a_mistake_is_worth_a_second_question() {
    let vm = |name: &str| json!({"id": id("g", "Microsoft.Compute/virtualMachines", name), "type": "microsoft.compute/virtualmachines"});
    let names = ["web-11", "Web-01", "db-01", "my-web-1-copy", "far-away"].map(vm);
    let script = Script::start(vec![
        Reply::json(200, r#"{"data":[]}"#),
        Reply::json(200, &json!({"data": names}).to_string()),
    ])
    .await;
    let error = script.arm().locate(&search("web-1")).await.unwrap_err();
    assert_eq!(error.to_string(), "no VM is called 'web-1' in the subscriptions that this sign-in may read");
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("is 'Web-01' or 'web-11' or 'my-web-1-copy' meant?"), "{hint}");
}

#[tokio::test]
async fn a_subscription_by_name_is_looked_up() {
    let list = format!(r#"{{"value":[{{"subscriptionId":"{S}","displayName":"Spoke"}}]}}"#);
    let script =
        Script::start(vec![Reply::json(200, &list), Reply::json(200, &json!({"data": world()}).to_string())])
            .await;
    let search = Search { subscription: Some("spoke".into()), ..search("web-01") };
    assert!(script.arm().locate(&search).await.is_ok());
}

#[tokio::test]
async fn what_is_no_answer_is_unreadable() {
    let table = r#"{"data":{"columns":[],"rows":[]}}"#;
    let cut = r#"{"data":[],"resultTruncated":"true"}"#;
    for body in ["", "<html>", "{}", r#"{"data":7}"#, table, cut] {
        let script = Script::start(vec![Reply::json(200, body)]).await;
        let error = script.arm().locate(&search("web-01")).await.unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{body}: {error}");
    }
}
