//! Programs that sign in without a person: certificates, federated tokens, managed identities.

use bastide_emulator::{Emulator, Scenario, Surroundings};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{claims, refused};
use crate::client::*;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SCOPE: &str = "https://management.azure.com/.default";

fn variable(lab: &Emulator, place: Surroundings, name: &str) -> String {
    lab.surroundings(place).into_iter().find(|(known, _)| known == name).unwrap().1
}

async fn assert_with(lab: &Emulator, assertion: &str) -> Answer {
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion),
        ("scope", SCOPE),
    ];
    ask_token(lab, TENANT, &fields).await
}

#[tokio::test]
async fn a_certificate_signs_an_assertion() {
    let lab = lab(Scenario::default()).await;
    let pem = std::fs::read(variable(&lab, Surroundings::ClientCertificate, "AZURE_CLIENT_CERTIFICATE_PATH"))
        .unwrap();
    let key = EncodingKey::from_rsa_pem(&pem).unwrap();
    let thumbprints = {
        use aws_lc_rs::digest;
        use base64::Engine as _;
        use rustls::pki_types::pem::PemObject as _;
        let der = rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap();
        [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256].map(|algorithm| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &der))
        })
    };
    let good = json!({
        "iss": CLIENT, "sub": CLIENT, "aud": format!("{}/{TENANT}/oauth2/v2.0/token", lab.url()),
        "jti": "1", "nbf": 0, "exp": 4_000_000_000_u64,
    });
    let sign = |header: Header, changed: Value| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    };
    let header = |algorithm| Header { x5t: Some(thumbprints[0].clone()), ..Header::new(algorithm) };
    for header in [
        header(Algorithm::RS256),
        Header { x5t_s256: Some(thumbprints[1].clone()), ..Header::new(Algorithm::PS256) },
    ] {
        let answer = assert_with(&lab, &sign(header, json!({}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(claims(answer.json()["access_token"].as_str().unwrap())["appid"], CLIENT);
    }
    assert_eq!(lab.transcript().issued("client_certificate"), 2);
    for (header, changed, code) in [
        (header(Algorithm::RS256), json!({"exp": 1}), 700_024),
        (header(Algorithm::RS256), json!({"nbf": 4_000_000_000_u64}), 700_024),
        (header(Algorithm::RS256), json!({"aud": "https://localhost/"}), 700_023),
        (header(Algorithm::RS256), json!({"sub": "x"}), 700_021),
        (header(Algorithm::RS256), json!({"jti": ""}), 50027),
        (header(Algorithm::RS384), json!({}), 700_027),
        (Header { x5t: Some("x".into()), ..Header::new(Algorithm::RS256) }, json!({}), 700_027),
    ] {
        refused(&assert_with(&lab, &sign(header, changed)).await, "invalid_client", code);
    }
    let broken = sign(header(Algorithm::RS256), json!({}));
    let (signed, _) = broken.rsplit_once('.').unwrap();
    refused(&assert_with(&lab, &format!("{signed}.AAAA")).await, "invalid_client", 700_027);
    refused(&assert_with(&lab, "x").await, "invalid_client", 50027);
}

#[tokio::test]
async fn tokens_of_others() {
    let lab = lab(Scenario::default()).await;
    let file = variable(&lab, Surroundings::Kubernetes, "AZURE_FEDERATED_TOKEN_FILE");
    let token = std::fs::read_to_string(file).unwrap();
    assert_eq!(claims(&token)["sub"], "system:serviceaccount:default:demo");
    assert_eq!(assert_with(&lab, &token).await.status, 200);

    let url = variable(&lab, Surroundings::GithubActions, "ACTIONS_ID_TOKEN_REQUEST_URL");
    let secret = variable(&lab, Surroundings::GithubActions, "ACTIONS_ID_TOKEN_REQUEST_TOKEN");
    let target =
        format!("{}&audience=api%3A%2F%2FAzureADTokenExchange", url.strip_prefix(lab.url()).unwrap());
    assert_eq!(get(&lab, "wrong", &target).await.status, 401);
    let github = get(&lab, &secret, &target).await.json();
    assert_eq!(assert_with(&lab, github["value"].as_str().unwrap()).await.status, 200);
    let other = get(&lab, &secret, &target.replace("Exchange", "Other")).await.json();
    refused(&assert_with(&lab, other["value"].as_str().unwrap()).await, "invalid_client", 700_212);

    let url = variable(&lab, Surroundings::AzurePipelines, "SYSTEM_OIDCREQUESTURI");
    let secret = variable(&lab, Surroundings::AzurePipelines, "SYSTEM_ACCESSTOKEN");
    let target = url.strip_prefix(lab.url()).unwrap();
    let head =
        |query: &str| format!("POST {target}?{query}\nAuthorization: Bearer {secret}\nContent-Length: 0\n");
    let good = head("api-version=7.1&serviceConnectionId=66666666-6666-4666-8666-666666666666");
    let pipeline = Connection::open(&lab, "localhost").await.request(&good, "").await.json();
    assert_eq!(assert_with(&lab, pipeline["oidcToken"].as_str().unwrap()).await.status, 200);
    let wrong = head("api-version=7.1&serviceConnectionId=x");
    assert_eq!(Connection::open(&lab, "localhost").await.request(&wrong, "").await.status, 400);
    assert_eq!(lab.transcript().issued("federated_token"), 3);
    assert_eq!(lab.violations(), []);

    // Trusted for another subject, and not at all.
    for (credentials, code) in [
        ("[{ issuer = \"kubernetes\", subject = \"system:serviceaccount:default:other\" }]", 700_213),
        ("[]", 700_211),
    ] {
        let text = format!(
            "[[service_principals]]\nclient_id = \"{CLIENT}\"\nobject_id = \"o\"\ntenant = \"{TENANT}\"\nfederated_credentials = {credentials}\n"
        );
        let lab = crate::client::lab(Scenario::parse(&text).unwrap()).await;
        let token = std::fs::read_to_string(lab.state().join("federated-token")).unwrap();
        refused(&assert_with(&lab, &token).await, "invalid_client", code);
    }
}

/// A request to the port without TLS: status, head and body.
async fn plain(lab: &Emulator, head: &str, body: &str) -> (u16, String, Value) {
    let address = lab.identity_url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (line, headers) = head.split_once('\n').unwrap();
    let text = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n{body}",
        body.len(),
        headers.replace('\n', "\r\n")
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn imds_of_a_machine() {
    let lab = lab(Scenario::default()).await;
    let ask = async |query: &str, headers: &str| {
        let target = format!("/metadata/identity/oauth2/token?api-version=2018-02-01{query}");
        let (status, _, body) = plain(&lab, &format!("GET {target}\n{headers}"), "").await;
        (status, body)
    };
    let resource = "&resource=https%3A%2F%2Fmanagement.azure.com";
    let (status, body) = ask(resource, "Metadata: true\n").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["client_id"], "77777777-7777-4777-8777-777777777777");
    assert_eq!(
        (body["expires_in"].as_str(), body["resource"].as_str()),
        (Some("3599"), Some("https://management.azure.com"))
    );
    assert!(body["expires_on"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000);
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(get(&lab, token, "/subscriptions?api-version=2022-12-01").await.status, 200);
    let deployment = "/subscriptions/22222222-2222-4222-8222-222222222222/resourceGroups/demo/providers/Microsoft.ManagedIdentity/userAssignedIdentities/deployment";
    for chosen in [
        "&client_id=88888888-8888-4888-8888-888888888888".to_owned(),
        "&object_id=88888888-8888-4888-8888-888888888889".to_owned(),
        format!("&msi_res_id={deployment}"),
    ] {
        let (status, body) = ask(&format!("{resource}{chosen}"), "Metadata: true\n").await;
        assert_eq!((status, body["client_id"].as_str()), (200, Some("88888888-8888-4888-8888-888888888888")));
    }
    assert_eq!(lab.violations(), []);
    let (status, body) = ask(&format!("{resource}&client_id={CLIENT}"), "Metadata: true\n").await;
    assert_eq!((status, body["error_description"].as_str()), (400, Some("Identity not found")));
    assert_eq!(ask("", "Metadata: true\n").await.0, 400);
    assert_eq!(ask("&resource=https%3A%2F%2Fexample.com", "Metadata: true\n").await.0, 400);
    assert_eq!(ask(resource, "").await.0, 400);
    assert_eq!(ask(resource, "Metadata: true\nX-Forwarded-For: 10.0.0.1\n").await.0, 400);
    lab.set_faults([bastide_emulator::faults::Fault::Status {
        on: bastide_emulator::transcript::Kind::Identity.into(),
        status: 410,
        body: bastide_emulator::faults::Body::Json,
        message: "starting".into(),
        retry_after: None,
    }
    .times(1)]);
    assert_eq!(ask(resource, "Metadata: true\n").await.0, 410);
    assert_eq!(ask(resource, "Metadata: true\n").await.0, 200);
    plain(&lab, &format!("POST /{TENANT}/oauth2/v2.0/token?client_secret=x\n"), "").await;
    let said: Vec<String> = lab.violations().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "request GET /metadata/identity/oauth2/token: `metadata` is missing".to_owned(),
            "request GET /metadata/identity/oauth2/token: a managed identity must be asked for directly, not through a proxy".to_owned(),
            format!("request POST /{TENANT}/oauth2/v2.0/token: `client_secret` must not be in the query"),
            format!("request POST /{TENANT}/oauth2/v2.0/token: a token must not be asked for without TLS"),
        ]
    );
}

#[tokio::test]
async fn app_service_arc_and_cloud_shell() {
    let lab = lab(Scenario::default()).await;
    let path = |place, name| variable(&lab, place, name).strip_prefix(lab.identity_url()).unwrap().to_owned();
    let query = "resource=https://management.azure.com/";
    let app = path(Surroundings::AppService, "IDENTITY_ENDPOINT");
    let secret = variable(&lab, Surroundings::AppService, "IDENTITY_HEADER");
    let head =
        |header: &str| format!("GET {app}?api-version=2019-08-01&{query}\nX-IDENTITY-HEADER: {header}\n");
    let (status, _, body) = plain(&lab, &head(&secret), "").await;
    assert_eq!((status, body["token_type"].as_str(), body.get("expires_in")), (200, Some("Bearer"), None));
    assert_eq!(plain(&lab, &head("wrong"), "").await.0, 403);

    let arc = format!("{}?api-version=2020-06-01&{query}", path(Surroundings::Arc, "IDENTITY_ENDPOINT"));
    let (status, head, _) = plain(&lab, &format!("GET {arc}\nMetadata: true\n"), "").await;
    assert_eq!(status, 401);
    let realm = "www-authenticate: Basic realm=";
    let file = head.lines().find_map(|line| line.strip_prefix(realm)).unwrap();
    assert!(file.ends_with(".key"), "{file}");
    let content = std::fs::read_to_string(file).unwrap();
    let known = format!("GET {arc}\nMetadata: true\nAuthorization: Basic {}\n", content.trim());
    assert_eq!(plain(&lab, &known, "").await.0, 200);

    let shell = path(Surroundings::CloudShell, "MSI_ENDPOINT");
    let head = format!("POST {shell}\nMetadata: true\nContent-Type: application/x-www-form-urlencoded\n");
    let (status, _, body) = plain(&lab, &head, "resource=https%3A%2F%2Fmanagement.azure.com").await;
    assert_eq!((status, body["token_type"].as_str()), (200, Some("Bearer")));
    assert_eq!(lab.transcript().issued("managed_identity"), 3);
    assert_eq!(lab.violations(), []);
    let written = std::fs::read_to_string(lab.state().join("transcript.jsonl")).unwrap();
    assert!(!written.contains(&secret) && !written.contains(content.trim()));
    for place in Surroundings::ALL {
        assert!(lab.state().join(format!("env/{}.sh", place.name())).exists());
    }
    // The other port has none of it.
    assert_eq!(get(&lab, "", "/metadata/identity/oauth2/token").await.status, 404);
}
