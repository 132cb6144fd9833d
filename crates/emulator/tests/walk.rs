//! The emulator from outside, by literals of RFC 6455 and protocol.md: a good client's walk, every
//! refusal, and a client that breaks each rule. The built-in SSH server has tests of its own.

// `cfg(test)` is always on here; it tells the lints that this is test code.
#[cfg(test)]
mod client;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod key_vault;
#[cfg(test)]
mod sign_in;

use bastide_emulator::transcript::{End, Kind};
use bastide_emulator::{Emulator, Options, Scenario, pattern};
use client::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn said(lab: &Emulator) -> Vec<String> {
    lab.violations().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn standard_from_sign_in_to_release() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    let host = dns_name(&lab, &token, "bastion").await;
    assert_eq!(host, "localhost");
    let machine =
        get(&lab, &token, &format!("{}?api-version=2024-03-01&$expand=instanceView", vm("WEB-01"))).await;
    assert_eq!(machine.json()["properties"]["instanceView"]["statuses"][1]["code"], "PowerState/running");
    assert_eq!(machine.json()["properties"]["storageProfile"]["osDisk"]["osType"], "Linux");

    let lease = mint(&lab, &host, &token, &vm("web-01"), 7).await;
    assert_eq!(lab.sessions().len(), 1);
    let mut tunnel = Connection::open(&lab, &host).await;
    let target = format!("/webtunnelv2/{}?X-Node-Id={}", lease.websocket, lease.node);
    let upgraded = tunnel.request(&handshake(&target, ""), "").await;
    assert_eq!(upgraded.status, 101);
    // RFC 6455 section 1.3.
    assert!(
        upgraded.head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{}",
        upgraded.head
    );
    tunnel.send(HELLO).await;
    assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
    // A ping, and a pong with its payload.
    tunnel.send(&[0x89, 0x81, 1, 2, 3, 4, b'x' ^ 1]).await;
    assert_eq!(tunnel.read(3).await, b"\x8a\x01x");
    // What was sent before the Close frame still comes back.
    tunnel.send(&[HELLO, CLOSE].concat()).await;
    assert_eq!(tunnel.rest().await, b"\x82\x05Hello\x88\x02\x03\xe8");
    assert_eq!(lease.release(&lab).await, 200);

    assert_eq!(said(&lab), [""; 0]);
    assert_eq!(lab.sessions().len(), 0);
    let seen = lab.transcript();
    assert_eq!((seen.mints(), seen.upgrades(), seen.releases(), seen.token_requests()), (1, 1, 1, 1));
    let sums = seen.tunnels().next().unwrap();
    assert_eq!((sums.sent, sums.received, sums.largest), (10, 10, 5));
    assert_eq!((sums.frames.binary, sums.frames.ping, sums.frames.close), (2, 1, 1));
    assert_eq!((sums.close_code, sums.end), (Some(1000), Some(End::Client)));
    let written = std::fs::read_to_string(lab.state().join("transcript.jsonl")).unwrap();
    for secret in [&token, &lease.auth, &lease.websocket] {
        assert!(!written.contains(secret.as_str()) && !format!("{seen:?}").contains(secret.as_str()));
    }
    assert!(written.contains("/webtunnelv2/{1}"));
}

#[tokio::test]
async fn developer_through_its_data_pod() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    for name in ["developer", "quickconnect"] {
        let host = dns_name(&lab, &token, name).await;
        let body = serde_json::json!({
            "resourceId": vm("web-01"), "bastionResourceId": bastion(name), "vmPort": "7", "azToken": token,
            "connectionType": "nativeclient",
        });
        let head = "POST /api/connection\nContent-Type: application/json\n";
        let pod = Connection::open(&lab, &host).await.request(head, &body.to_string()).await;
        assert_eq!(pod.status, 200, "{}", pod.text());
        let pod = pod.text().rsplit_once(':').unwrap().0.to_owned();
        assert_ne!(pod, host);
        let lease = mint(&lab, &pod, &token, &vm("web-01"), 7).await;
        let mut tunnel = Connection::open(&lab, &pod).await;
        let target = format!("/omni/webtunnel/{}", lease.websocket);
        assert_eq!(tunnel.request(&handshake(&target, ""), "").await.status, 101);
        tunnel.send(HELLO).await;
        assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
        tunnel.send(CLOSE).await;
        tunnel.rest().await;
        assert_eq!(lease.release(&lab).await, 200);
    }
    assert_eq!(said(&lab), [""; 0]);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    let mut names = Vec::new();
    let mut pages = 0;
    let mut next = format!(
        "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Network/bastionHosts?api-version=2024-01-01"
    );
    loop {
        let page = get(&lab, &token, &next).await.json();
        pages += 1;
        names.extend(
            page["value"].as_array().unwrap().iter().map(|host| host["name"].as_str().unwrap().to_owned()),
        );
        match page["nextLink"].as_str() {
            Some(link) => next = link.strip_prefix(lab.url()).unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, 5);
    assert_eq!(names[..2], ["bastion", "premium"]);
    assert_eq!(names.len(), 9);
    for (target, expected) in [
        ("/resourceGroups/demo/providers/Microsoft.Compute/virtualMachines", 2),
        ("/providers/Microsoft.Compute/virtualMachines", 2),
        (
            "/resourceGroups/demo/providers/Microsoft.Compute/virtualMachineScaleSets/workers/virtualMachines",
            2,
        ),
        ("/resourceGroups", 1),
        ("/resourceGroups/demo/providers/Microsoft.Authorization/permissions", 1),
    ] {
        let page =
            get(&lab, &token, &format!("/subscriptions/{SUBSCRIPTION}{target}?api-version=2024-01-01")).await;
        assert_eq!(page.json()["value"].as_array().unwrap().len(), expected, "{target}: {}", page.text());
    }
}

#[tokio::test]
async fn every_kind_of_resource() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    let set = vm("x").replace("virtualMachines/x", "virtualMachineScaleSets/workers");
    let network = bastion("x").replace("bastionHosts/x", "networkInterfaces/web-01-nic");
    for (id, kind) in [
        (bastion("basic"), "Microsoft.Network/bastionHosts"),
        (vm("off-01"), "Microsoft.Compute/virtualMachines"),
        (network, "Microsoft.Network/networkInterfaces"),
        (set.clone(), "Microsoft.Compute/virtualMachineScaleSets"),
        (format!("{set}/virtualMachines/1"), "Microsoft.Compute/virtualMachineScaleSets/virtualMachines"),
        (
            format!("{set}/virtualMachines/1/networkInterfaces/workers-nic"),
            "Microsoft.Network/networkInterfaces",
        ),
    ] {
        let found = get(&lab, &token, &format!("{id}?api-version=2024-01-01")).await;
        assert_eq!((found.status, found.json()["type"].as_str()), (200, Some(kind)), "{id}");
        assert_eq!(found.json()["id"].as_str(), Some(id.as_str()));
    }
    let view = get(&lab, &token, &format!("{}/instanceView?api-version=2024-03-01", vm("off-01"))).await;
    assert_eq!(view.json()["statuses"][1]["code"], "PowerState/deallocated");
    let tunneling = |name: &str| format!("{}?api-version=2024-01-01", bastion(name));
    let missing = get(&lab, &token, &tunneling("tunneling-missing")).await.json();
    assert!(missing["properties"].get("enableTunneling").is_none());
    assert_eq!(
        get(&lab, &token, &tunneling("no-tunneling")).await.json()["properties"]["enableTunneling"],
        false
    );
    let clouds = |version: &str| format!("GET /metadata/endpoints?api-version={version}");
    let mut plain = Connection::open(&lab, "localhost").await;
    assert_eq!(plain.request(&clouds("2022-09-01"), "").await.json()["resourceManager"], lab.url());
    assert_eq!(plain.request(&clouds("2019-05-01"), "").await.json()[0]["resourceManager"], lab.url());
    let old = plain.request(&clouds("2015-01-01"), "").await.json();
    assert_eq!(old["authentication"]["loginEndpoint"], lab.url());
}

#[tokio::test]
async fn networks_are_resources_and_bound_what_a_host_reaches() {
    let scenario = r#"
        [[virtual_networks]]
        name = "hub"
        group = "network"
        address_prefixes = ["10.1.0.0/16"]
        [[virtual_networks]]
        name = "spoke"
        peerings = [{ to = "network/hub" }]
        [[virtual_networks]]
        name = "half"
        peerings = [{ to = "network/hub", state = "Initiated" }]
        [[bastion_hosts]]
        name = "bastion"
        group = "network"
        vnet = "hub"
        dns_name = "localhost"
        [[bastion_hosts]]
        name = "developer"
        group = "network"
        vnet = "hub"
        sku = "Developer"
        [[virtual_machines]]
        name = "near"
        vnet = "spoke"
        private_ip = "10.0.0.4"
        [[virtual_machines]]
        name = "far"
        vnet = "half"
        private_ip = "10.0.0.5"
    "#;
    let lab = lab(bastide_emulator::Scenario::parse(scenario).unwrap()).await;
    let token = token(&lab).await;
    let in_network = |id: String, kind: &str| {
        id.replace("/demo/", "/network/").replace("bastionHosts/", &format!("{kind}/"))
    };
    let hub = in_network(bastion("hub"), "virtualNetworks");
    let document = get(&lab, &token, &format!("{hub}?api-version=2024-01-01")).await.json();
    assert_eq!(document["type"], "Microsoft.Network/virtualNetworks");
    assert_eq!(document["properties"]["addressSpace"]["addressPrefixes"][0], "10.1.0.0/16");
    assert_eq!(document["properties"]["subnets"][1]["properties"]["addressPrefix"], "10.1.255.192/26");
    let peerings = &document["properties"]["virtualNetworkPeerings"];
    assert_eq!(peerings.as_array().unwrap().len(), 1);
    assert_eq!(peerings[0]["properties"]["peeringState"], "Connected");
    assert!(peerings[0]["properties"]["remoteVirtualNetwork"]["id"].as_str().unwrap().ends_with("/spoke"));
    let subnets = get(&lab, &token, &format!("{hub}/subnets?api-version=2024-01-01")).await.json();
    assert_eq!(subnets["value"][0]["name"], "default");

    let connect = |address: &str| {
        bastion(address).replace("/demo/", "/network/").replace("bastionHosts", "bh-hostConnect")
    };
    for (host, resource, address, status) in [
        ("localhost", vm("near"), "", 200),
        ("localhost", vm("far"), "", 500),
        ("localhost", connect("10.0.0.4"), "10.0.0.4", 200),
    ] {
        let fields = [
            ("resourceId", resource.as_str()),
            ("protocol", "tcptunnel"),
            ("workloadHostPort", "22"),
            ("aztoken", &token),
            ("hostname", address),
        ];
        assert_eq!(ask_mint(&lab, host, &fields).await.status, status, "{resource}");
    }
    let developer = in_network(bastion("developer"), "bastionHosts");
    let found = get(&lab, &token, &format!("{developer}?api-version=2024-01-01")).await.json();
    let host = found["properties"]["dnsName"].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned();
    let body = serde_json::json!({
        "resourceId": vm("near"), "bastionResourceId": developer, "vmPort": "22", "azToken": token,
        "connectionType": "nativeclient",
    });
    let head = "POST /api/connection\nContent-Type: application/json\n";
    assert_eq!(Connection::open(&lab, &host).await.request(head, &body.to_string()).await.status, 500);
}

#[tokio::test]
async fn arm_refuses_in_its_own_words() {
    let mut scenario = Scenario::default();
    let reader = scenario.service_principals[0].clone();
    let mut tenant = scenario.tenants[0].clone();
    (tenant.id, tenant.domain) = ("99999999-9999-4999-8999-999999999999".into(), "other.example".into());
    scenario.tenants.push(tenant);
    let mut subscription = scenario.subscriptions[0].clone();
    (subscription.id, subscription.name, subscription.tenant) =
        ("s2".into(), "Other".into(), "other.example".into());
    scenario.subscriptions.push(subscription);
    let mut nobody = reader.clone();
    (nobody.client_id, nobody.roles) = ("nobody".into(), Vec::new());
    nobody.client_secret = Some("secret".into());
    scenario.service_principals.push(nobody);
    let lab = lab(scenario).await;
    let token = token(&lab).await;
    let powerless = ask_token(
        &lab,
        TENANT,
        &[
            ("grant_type", "client_credentials"),
            ("client_id", "nobody"),
            ("client_secret", "secret"),
            ("scope", "https://management.azure.com/.default"),
        ],
    )
    .await
    .json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let versioned = |id: String| format!("{id}?api-version=2024-01-01");
    for (token, target, status, code) in [
        (&token, versioned(bastion("nope")), 404, "ResourceNotFound"),
        (&token, versioned(bastion("x").replace("demo", "nope")), 404, "ResourceGroupNotFound"),
        (&token, versioned("/subscriptions/nope".into()), 404, "SubscriptionNotFound"),
        (&token, bastion("bastion"), 400, "MissingApiVersionParameter"),
        (&token, versioned("/subscriptions/s2".into()), 401, "InvalidAuthenticationTokenTenant"),
        (&token, versioned(bastion("x").replace("bastionHosts/x", "unheardOf")), 404, "InvalidResourceType"),
        (&"e30.e30.e30".to_owned(), versioned(bastion("bastion")), 401, "InvalidAuthenticationToken"),
        (&powerless, versioned(bastion("bastion")), 403, "AuthorizationFailed"),
    ] {
        let answer = get(&lab, token, &target).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{target}"
        );
        assert!(answer.head.contains("x-ms-request-id: "));
        assert_eq!(answer.head.contains("www-authenticate: Bearer authorization_uri="), status == 401);
    }
    let head = format!("GET {}", versioned(bastion("bastion")));
    let anonymous = Connection::open(&lab, "localhost").await.request(&head, "").await;
    assert_eq!(
        (anonymous.status, anonymous.json()["error"]["code"].as_str()),
        (401, Some("AuthenticationFailed"))
    );
    // Rights: the data plane hides a missing one behind its catch-all.
    let answer = ask_mint(
        &lab,
        "localhost",
        &[
            ("resourceId", &vm("web-01")),
            ("protocol", "tcptunnel"),
            ("workloadHostPort", "22"),
            ("aztoken", &powerless),
        ],
    )
    .await;
    assert_eq!((answer.status, answer.json()["message"].as_str()), (500, Some("Unexpected internal error")));
}

#[tokio::test]
async fn tokens_expire() {
    let mut scenario = Scenario::default();
    scenario.settings.token_lifetime_seconds = 0;
    let lab = lab(scenario).await;
    let token = token(&lab).await;
    let answer = get(&lab, &token, &format!("{}?api-version=2024-01-01", bastion("bastion"))).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (401, Some("ExpiredAuthenticationToken"))
    );
}

#[tokio::test]
async fn entra_refuses_in_its_own_words() {
    let lab = lab(Scenario::default()).await;
    let good = [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("client_secret", "wrong"),
        ("scope", "https://management.azure.com/.default"),
    ];
    let with = |name: &'static str, value: &'static str| {
        good.map(|field| if field.0 == name { (name, value) } else { field })
    };
    for (tenant, fields, status, error, code) in [
        (TENANT, good, 401, "invalid_client", 7_000_215),
        ("emulator.example", with("client_id", "nope"), 400, "unauthorized_client", 700_016),
        ("nope", good, 400, "invalid_request", 90002),
        (TENANT, with("grant_type", "password"), 400, "unsupported_grant_type", 70003),
        (TENANT, with("client_id", ""), 400, "invalid_request", 900_144),
    ] {
        let answer = ask_token(&lab, tenant, &fields).await;
        let body = answer.json();
        assert_eq!(
            (answer.status, body["error"].as_str(), body["error_codes"][0].as_u64()),
            (status, Some(error), Some(code))
        );
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
    }
    let env = lab.env();
    let secret = &env.iter().find(|(name, _)| name == "AZURE_CLIENT_SECRET").unwrap().1;
    for (scope, code) in [("nonsense", 70011), ("https://storage.azure.com/.default", 500_011)] {
        let mut fields = with("scope", "");
        fields[2].1 = secret;
        fields[3].1 = scope;
        assert_eq!(ask_token(&lab, TENANT, &fields).await.json()["error_codes"][0], code);
    }
    let mut plain = Connection::open(&lab, "localhost").await;
    let found =
        plain.request(&format!("GET /{TENANT}/v2.0/.well-known/openid-configuration"), "").await.json();
    assert_eq!(found["token_endpoint"], format!("{}/{TENANT}/oauth2/v2.0/token", lab.url()));
    let keys = plain.request("GET /common/discovery/v2.0/keys", "").await.json();
    assert_eq!(keys["keys"][0]["kty"], "RSA");
}

#[tokio::test]
async fn minting_is_refused() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    let web = vm("web-01");
    let connect = |name: &str| bastion("x").replace("bastionHosts/x", &format!("bh-hostConnect/{name}"));
    let by_address = connect("10.0.0.4");
    let hostname = ("hostname", "10.0.0.4");
    let nothing = ("token", "");
    for (host, resource, port, more, status, message) in [
        ("basic", &web, "22", nothing, 403, "Standard SKU"),
        ("no-tunneling", &web, "22", nothing, 403, "Tunneling is disabled"),
        ("tunneling-missing", &web, "22", nothing, 403, "Tunneling is disabled"),
        ("recording", &web, "22", nothing, 403, "session recording"),
        ("bastion", &vm("nope"), "22", nothing, 500, "Unexpected internal error"),
        ("bastion", &web, "0", nothing, 400, "port"),
        ("bastion", &String::new(), "22", nothing, 400, "'resourceId' is missing"),
        ("bastion", &by_address, "80", hostname, 403, "ports 22 and 3389"),
        ("bastion", &by_address, "22", nothing, 400, "'hostname' is missing"),
        ("no-ip-connect", &by_address, "22", hostname, 403, "IP-based connection is disabled"),
        ("bastion", &by_address, "22", hostname, 200, ""),
    ] {
        let host = dns_name(&lab, &token, host).await;
        let fields = [
            ("resourceId", resource.as_str()),
            ("protocol", "tcptunnel"),
            ("workloadHostPort", port),
            ("aztoken", &token),
            more,
        ];
        let answer = ask_mint(&lab, &host, &fields).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.json()["message"].as_str().unwrap_or_default().contains(message), "{}", answer.text());
    }
    let fields = [
        ("resourceId", web.as_str()),
        ("protocol", "tcptunnel"),
        ("workloadHostPort", "22"),
        ("aztoken", "e30.e30.e30"),
    ];
    assert_eq!(ask_mint(&lab, "localhost", &fields).await.status, 401);
    let mut plain = Connection::open(&lab, "localhost").await;
    let json = plain.request("POST /api/tokens\nContent-Type: application/json\n", "{}").await;
    assert_eq!((json.status, json.json()["message"].as_str()), (500, Some("Unexpected internal error")));
}

#[tokio::test]
async fn machines_by_address_and_refused_ports() {
    let lab = lab(Scenario::parse(
        "[[virtual_machines]]\nname = \"a\"\nprivate_ip = \"10.0.0.4\"\nports = { 22 = \"echo\" }\n",
    )
    .unwrap())
    .await;
    let token = token(&lab).await;
    let by_address =
        |address: &str| bastion("x").replace("bastionHosts/x", &format!("bh-hostConnect/{address}"));
    let open = async |address: &str| {
        let resource = by_address(address);
        let fields = [
            ("resourceId", resource.as_str()),
            ("protocol", "tcptunnel"),
            ("workloadHostPort", "22"),
            ("aztoken", &token),
            ("hostname", address),
        ];
        let body = ask_mint(&lab, "localhost", &fields).await.json();
        let field = |name: &str| body[name].as_str().unwrap().to_owned();
        Lease {
            host: "localhost".into(),
            auth: field("authToken"),
            node: field("nodeId"),
            websocket: field("websocketToken"),
        }
    };
    let lease = open("10.0.0.4").await;
    let mut tunnel = lease.upgrade(&lab).await;
    tunnel.send(HELLO).await;
    assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
    lease.release(&lab).await;
    // Nobody there, and a port that nothing listens on: closed at once after the 101.
    for lease in [open("10.0.0.77").await, mint(&lab, "localhost", &token, &vm("a"), 23).await] {
        let mut tunnel = lease.upgrade(&lab).await;
        assert_eq!(tunnel.read(4).await, b"\x88\x02\x03\xe8");
        tunnel.send(CLOSE).await;
        tunnel.rest().await;
        lease.release(&lab).await;
    }
    lab.wait_for(|seen| {
        seen.sessions
            .values()
            .skip(1)
            .all(|session| session.tunnel.as_ref().unwrap().end == Some(End::Refused))
    })
    .await;
    assert_eq!(said(&lab), [""; 0]);
}

#[tokio::test]
async fn what_a_machine_produces_arrives_whole() {
    let total = 300_000;
    let text = format!(
        "[[virtual_machines]]\nname = \"a\"\nprivate_ip = \"10.0.0.4\"\nports = {{ 19 = \"produce:{total}\" }}\n"
    );
    let lab = lab(Scenario::parse(&text).unwrap()).await;
    let token = token(&lab).await;
    let lease = mint(&lab, "localhost", &token, &vm("a"), 19).await;
    let mut tunnel = lease.upgrade(&lab).await;
    let mut offset = 0;
    loop {
        let head = tunnel.read(2).await;
        if head[0] == 0x88 {
            assert_eq!(tunnel.read(2).await, [0x03, 0xe8]);
            break;
        }
        assert_eq!(head[0], 0x82);
        let length = match head[1] {
            126 => u16::from_be_bytes(tunnel.read(2).await.try_into().unwrap()) as usize,
            short => usize::from(short),
        };
        assert!(length <= 16 * 1024);
        for byte in tunnel.read(length).await {
            assert_eq!(byte, pattern(offset));
            offset += 1;
        }
    }
    assert_eq!(offset, total);
    tunnel.send(CLOSE).await;
    assert_eq!(tunnel.rest().await, b"");
    lease.release(&lab).await;
    lab.wait_for(|seen| {
        seen.tunnels().all(|tunnel| tunnel.end == Some(End::Machine) && tunnel.received == total)
    })
    .await;
}

#[tokio::test]
async fn a_machine_answers_after_the_client_has_closed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!(
        "[[virtual_machines]]\nname = \"a\"\nprivate_ip = \"10.0.0.4\"\nports = {{ 80 = \"{address}\" }}\n"
    );
    let lab = lab(Scenario::parse(&text).unwrap()).await;
    let token = token(&lab).await;
    let lease = mint(&lab, "localhost", &token, &vm("a"), 80).await;
    let machine = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).await.unwrap();
        stream.write_all(b"answer to ").await.unwrap();
        stream.write_all(&asked).await.unwrap();
    };
    let client = async {
        let mut tunnel = lease.upgrade(&lab).await;
        tunnel.send(&[HELLO, CLOSE].concat()).await;
        let all = tunnel.rest().await;
        assert!(all.ends_with(b"\x88\x02\x03\xe8"), "{all:?}");
        let text: Vec<u8> = all.into_iter().filter(|byte| byte.is_ascii_alphabetic()).collect();
        assert_eq!(text, b"answertoHello");
    };
    tokio::join!(machine, client);
    lease.release(&lab).await;
    assert_eq!(said(&lab), [""; 0]);
}

#[tokio::test]
async fn a_bad_client_is_caught() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    let web = vm("web-01");
    let other = |node: &str| if node == "node-0" { "node-1" } else { "node-0" };

    let kept = mint(&lab, "localhost", &token, &web, 7).await;
    assert_eq!(kept.release_on(&lab, other(&kept.node)).await, 404);
    let twice = mint(&lab, "localhost", &token, &web, 7).await;
    assert_eq!((twice.release(&lab).await, twice.release(&lab).await), (200, 404));
    let target = format!("/webtunnelv2/{}?X-Node-Id={}", twice.websocket, twice.node);
    for _ in 0..2 {
        let answer = Connection::open(&lab, "localhost").await.request(&handshake(&target, ""), "").await;
        assert_eq!(answer.status, 404);
    }
    let mut plain = Connection::open(&lab, "localhost").await;
    let head = "POST /api/tokens\nContent-Type: application/x-www-form-urlencoded\nAuthorization: Bearer x\nX-Node-Id: node-0\n";
    assert_eq!(plain.request(head, "resource=x").await.status, 500);
    assert_eq!(plain.request("GET /nowhere", "").await.status, 404);

    let greedy = mint(&lab, "localhost", &token, &web, 7).await;
    let target = format!("/webtunnelv2/{}?X-Node-Id={}", greedy.websocket, greedy.node);
    let offers = "Sec-WebSocket-Extensions: permessage-deflate\nSec-WebSocket-Protocol: chat\n";
    // A frame goes out together with the handshake.
    let mut tunnel = Connection::open(&lab, "localhost").await;
    let head = handshake(&target, offers).replace("\n", "\r\n").replacen(
        "\r\n",
        " HTTP/1.1\r\nHost: localhost\r\n",
        1,
    );
    tunnel.send(&[head.as_bytes(), b"\r\n", HELLO].concat()).await;
    assert_eq!(tunnel.answer().await.status, 101);
    assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
    // Constant masks, a fragmented message, then a frame without a mask: that one ends it with 1002.
    tunnel.send(&[HELLO, HELLO, HELLO].concat()).await;
    assert_eq!(tunnel.payload(15).await, b"HelloHelloHello");
    tunnel.send(&[0x02, 0x81, 1, 0, 0, 0, b'a' ^ 1, 0x80, 0x81, 2, 0, 0, 0, b'b' ^ 2]).await;
    assert_eq!(tunnel.payload(2).await, b"ab");
    tunnel.send(&[0x82, 0x01, b'x']).await;
    assert_eq!(tunnel.read(4).await, b"\x88\x02\x03\xea");
    drop(tunnel);
    greedy.release(&lab).await;
    lab.wait_for(|seen| !seen.sessions.values().any(|session| session.is_open())).await;

    assert_eq!(
        said(&lab),
        [
            "request POST /api/tokens: `authorization` must not be sent here".to_owned(),
            "request POST /api/tokens: `x-node-id` must not be sent here".into(),
            "request POST /api/tokens: unknown field `resource`".into(),
            "request POST /api/tokens: field `resourceId` is missing".into(),
            "request POST /api/tokens: field `protocol` is missing".into(),
            "request POST /api/tokens: field `workloadHostPort` is missing".into(),
            "request POST /api/tokens: field `aztoken` is missing".into(),
            "request GET /nowhere: there is no such path".into(),
            "request GET /webtunnelv2/{3}: offers the extension `permessage-deflate`".into(),
            "request GET /webtunnelv2/{3}: offers a subprotocol".into(),
            "session 1: minted, never released".into(),
            "session 1: an upgrade or release went to another node than the one that minted".into(),
            "session 2: released 2 times".into(),
            "session 2: its WebSocket token was used 2 times".into(),
            "session 3: 11 bytes were sent before the 101".into(),
            "session 3: 1 continuation frame(s)".into(),
            "session 3: 1 frame(s) without FIN".into(),
            "session 3: 1 unmasked frame(s)".into(),
            "session 3: 3 frame(s) with the mask of the frame before".into(),
        ]
    );
    // The same by HTTP, for other languages.
    let violations = plain.request("GET /_emulator/violations", "").await.json();
    assert_eq!(violations.as_array().unwrap().len(), 19);
    assert_eq!(plain.request("GET /_emulator/sessions", "").await.json()[0]["number"], 1);
    assert_eq!(plain.request("POST /_emulator/reset", "").await.status, 200);
    assert_eq!(said(&lab).len(), 2, "the session that was not released stays");
    assert_eq!(lab.transcript().count(Kind::Unknown), 0);
}

#[tokio::test]
async fn stops_with_a_tunnel_open_and_keeps_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { state: folder.path().into(), ..Options::default() };
    let emulator = Emulator::start(options.clone()).await.unwrap();
    let authority = std::fs::read(emulator.ca_file()).unwrap();
    assert!(Emulator::start(options.clone()).await.unwrap_err().to_string().contains("in use"));
    let old_token = token(&emulator).await;
    let lease = mint(&emulator, "localhost", &old_token, &vm("web-01"), 19).await;
    let mut tunnel = lease.upgrade(&emulator).await;
    let (_, all) = tokio::join!(emulator.shutdown(), tunnel.rest());
    assert!(all.ends_with(b"\x88\x02\x03\xe9"));

    let emulator = Emulator::start(options).await.unwrap();
    assert_eq!(std::fs::read(emulator.ca_file()).unwrap(), authority);
    let target = format!("{}?api-version=2024-01-01", bastion("bastion"));
    assert_eq!(get(&emulator, &old_token, &target).await.status, 200);
    let script = std::fs::read_to_string(folder.path().join("env.sh")).unwrap();
    assert!(script.contains(&format!("export BASTIDE_CLOUD='https://localhost:{}'\n", emulator.port())));
    emulator.shutdown().await;
}

#[tokio::test]
async fn answers_to_loopback_names_only() {
    let lab = lab(Scenario::default()).await;
    let mut connection = Connection::open(&lab, "localhost").await;
    connection.send(b"GET /_emulator/transcript HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    assert_eq!(connection.answer().await.status, 421);
    assert_eq!(
        Connection::open(&lab, "127.0.0.1").await.request("GET /_emulator/sessions", "").await.status,
        200
    );
}

#[tokio::test]
async fn rdp_files_are_for_the_bearer_of_a_token() {
    let lab = lab(Scenario::default()).await;
    let token = token(&lab).await;
    let host = dns_name(&lab, &token, "bastion").await;
    let query =
        |more: &str| format!("/api/rdpfile?resourceId={}&format=rdp&rdpport=3389{more}", vm("win-01"));
    let mut connection = Connection::open(&lab, &host).await;
    let bearer = format!("Authorization: Bearer {token}\n");
    let mut ask =
        async |target: &str, headers: &str| connection.request(&format!("GET {target}\n{headers}"), "").await;
    let file = ask(&query("&enablerdsaad=True"), &bearer).await;
    assert_eq!(file.status, 200);
    let text = file.text();
    assert!(text.contains("full address:s:10.0.0.") && text.contains("enablerdsaadauth:i:1\r\n"), "{text}");
    let secret = text.split_once("gatewayaccesstoken:s:").unwrap().1.lines().next().unwrap();
    assert!(lab.secrets().iter().any(|known| known == secret));
    assert_eq!(said(&lab), [""; 0]);

    // Whatever is wrong with it, but for the token, has one answer.
    for wrong in [
        query(""),
        query("&enablerdsaad=perhaps"),
        query("&enablerdsaad=True").replace("format=rdp", "format=vnc"),
        query("&enablerdsaad=True").replace("3389", "0"),
        query("&enablerdsaad=False").replace("win-01", "nowhere"),
    ] {
        let answer = ask(&wrong, &bearer).await;
        assert_eq!(
            (answer.status, answer.text()),
            (500, r#"{"message":"Unexpected internal error"}"#.into())
        );
    }
    assert_eq!(ask(&query("&enablerdsaad=False"), "").await.status, 401);
    assert!(said(&lab).iter().any(|said| said.ends_with("`authorization` is missing")), "{:?}", said(&lab));
}
