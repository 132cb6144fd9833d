//! Key vaults from outside, by literals of the Key Vault REST API 7.4: keys, signatures, secrets, lists, and each
//! refusal in the words of the live service.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bastide_emulator::transcript::Kind;
use bastide_emulator::{Emulator, Scenario};
use serde_json::{Value, json};

use crate::client::*;

const SCENARIO: &str = r#"
[[service_principals]]
client_id = "44444444-4444-4444-8444-444444444444"
object_id = "55555555-5555-4555-8555-555555555555"
tenant = "emulator.example"
roles = [
    { scope = "/", actions = [], data_actions = ["Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/keys/sign/action"] },
    { scope = "/subscriptions/22222222-2222-4222-8222-222222222222/resourceGroups/demo/providers/Microsoft.KeyVault/vaults/vault/secrets/open", actions = [], data_actions = ["Microsoft.KeyVault/vaults/secrets/getSecret/action"] },
]

[[key_vaults]]
name = "vault"
keys = [
    { name = "rsa", kind = "RSA-2048" },
    { name = "curve", kind = "P-256", version = "00000000000000000000000000000001" },
    { name = "curve", kind = "P-256", version = "00000000000000000000000000000002" },
    { name = "off", kind = "P-256", enabled = false },
    { name = "old", kind = "P-256", expires = 1700000000 },
    { name = "young", kind = "P-256", not_before = 4000000000 },
    { name = "verify", kind = "P-256", operations = ["verify"] },
    { name = "gone", kind = "P-256", deleted = true },
    { name = "koblitz", kind = "P-256K" },
    { name = "symmetric", kind = "oct" },
]
secrets = [
    { name = "open", value = "sesame", content_type = "text/plain" },
    { name = "closed", value = "hunter2" },
]

[[key_vaults]]
name = "policies"
access_policies = [{ object_id = "55555555-5555-4555-8555-555555555555", keys = ["get"] }]
keys = [{ name = "curve", kind = "P-256" }]
secrets = [{ name = "closed", value = "hunter2" }]

[[key_vaults]]
name = "walled"
firewall = "closed"
"#;

const SCOPE: &str = "https://vault.azure.net/.default";

async fn open() -> (Lab, String) {
    let lab = lab(Scenario::parse(SCENARIO).unwrap()).await;
    let token = token_for(&lab, SCOPE).await;
    (lab, token)
}

async fn get_from(lab: &Emulator, vault: &str, token: &str, target: &str) -> Answer {
    let head = format!("GET {target}\nAuthorization: Bearer {token}\n");
    Connection::open(lab, &format!("{vault}.vault.localhost")).await.request(&head, "").await
}

async fn sign(lab: &Emulator, vault: &str, token: &str, key: &str, alg: &str, digest: &[u8]) -> Answer {
    let body = json!({"alg": alg, "value": URL_SAFE_NO_PAD.encode(digest)}).to_string();
    let head = format!(
        "POST /keys/{key}/sign?api-version=7.4\nAuthorization: Bearer {token}\nContent-Type: application/json\n"
    );
    Connection::open(lab, &format!("{vault}.vault.localhost")).await.request(&head, &body).await
}

fn bytes(value: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, inner: Option<&str>, part: &str) {
    let body = answer.json();
    let error = &body["error"];
    assert_eq!(
        (answer.status, error["code"].as_str(), error["innererror"]["code"].as_str()),
        (status, Some(code), inner),
        "{body}"
    );
    assert!(error["message"].as_str().unwrap().contains(part), "`{part}` is not in {body}");
}

#[tokio::test]
async fn keys_show_their_public_half_and_sign() {
    let (lab, token) = open().await;
    let rsa = get_from(&lab, "vault", &token, "/keys/rsa?api-version=7.4").await.json();
    let base = format!("https://vault.vault.localhost:{}/keys", lab.port());
    let kid = rsa["key"]["kid"].as_str().unwrap();
    let version = kid.strip_prefix(&format!("{base}/rsa/")).unwrap();
    assert_eq!((version.len(), &rsa["key"]["kty"], &rsa["key"]["e"]), (32, &json!("RSA"), &json!("AQAB")));
    assert_eq!(rsa["attributes"]["enabled"], true);
    let hash = digest(&SHA512, b"text");
    let signed = sign(&lab, "vault", &token, &format!("rsa/{version}"), "RS512", hash.as_ref()).await.json();
    assert_eq!(signed["kid"], kid);
    RsaPublicKeyComponents { n: bytes(&rsa["key"]["n"]), e: bytes(&rsa["key"]["e"]) }
        .verify(&RSA_PKCS1_2048_8192_SHA512, b"text", &bytes(&signed["value"]))
        .unwrap();

    // The newest version is the current one, and an old one still signs.
    let curve = get_from(&lab, "vault", &token, "/keys/curve?api-version=7.4").await.json();
    assert_eq!(curve["key"]["kid"], format!("{base}/curve/00000000000000000000000000000002"));
    let old = "curve/00000000000000000000000000000001";
    let curve = get_from(&lab, "vault", &token, &format!("/keys/{old}?api-version=7.4")).await.json();
    let hash = digest(&SHA256, b"text");
    let signed = sign(&lab, "vault", &token, old, "ES256", hash.as_ref()).await.json();
    let point = [vec![4], bytes(&curve["key"]["x"]), bytes(&curve["key"]["y"])].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(b"text", &bytes(&signed["value"]))
        .unwrap();
    // Without a version, in both spellings.
    for key in ["curve", "curve/"] {
        assert_eq!(sign(&lab, "vault", &token, key, "ES256", hash.as_ref()).await.status, 200);
    }
    assert_eq!(lab.violations(), []);
    assert_eq!(lab.transcript().count(Kind::KeyVault), 7);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let (lab, token) = open().await;
    let mut names = Vec::new();
    let mut target = "/keys?api-version=7.4&maxresults=4".to_owned();
    loop {
        let page = get_from(&lab, "vault", &token, &target).await.json();
        let items = page["value"].as_array().unwrap();
        names.extend(
            items.iter().map(|item| item["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()),
        );
        let Some(next) = page["nextLink"].as_str() else { break };
        target = next.split_once(&format!(":{}", lab.port())).unwrap().1.to_owned();
    }
    assert_eq!(names, ["rsa", "curve", "off", "old", "young", "verify", "koblitz", "symmetric"]);
    let versions = get_from(&lab, "vault", &token, "/keys/curve/versions?api-version=7.4").await.json();
    assert_eq!(versions["value"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn secrets_need_a_right_of_their_own() {
    let (lab, token) = open().await;
    let open = get_from(&lab, "vault", &token, "/secrets/open?api-version=7.4").await.json();
    assert_eq!((&open["value"], &open["contentType"]), (&json!("sesame"), &json!("text/plain")));
    let closed = get_from(&lab, "vault", &token, "/secrets/closed?api-version=7.4").await;
    let action = "Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\nResource: '/subscriptions/22222222-2222-4222-8222-222222222222/resourcegroups/demo/providers/microsoft.keyvault/vaults/vault/secrets/closed'";
    refused(&closed, 403, "Forbidden", Some("ForbiddenByRbac"), action);
    // Nothing of them is written down.
    let transcript = std::fs::read_to_string(lab.state().join("transcript.jsonl")).unwrap();
    assert!(!transcript.contains("sesame") && !transcript.contains(&token));
}

#[tokio::test]
async fn each_refusal_has_its_words() {
    let (lab, token) = open().await;
    let hash = digest(&SHA256, b"text");
    let hash = hash.as_ref();
    for (key, inner, part) in [
        ("off", "KeyDisabled", "Operation sign is not allowed on a disabled key."),
        ("old", "KeyExpired", "on an expired key"),
        ("young", "KeyNotYetValid", "not yet valid"),
        ("verify", "KeyOperationForbidden", "Operation sign is not permitted on this key."),
    ] {
        let answer = sign(&lab, "vault", &token, key, "ES256", hash).await;
        refused(&answer, 403, "Forbidden", Some(inner), part);
        // The public half can be had.
        assert_eq!(
            get_from(&lab, "vault", &token, &format!("/keys/{key}?api-version=7.4")).await.status,
            200
        );
    }
    for (key, alg, digest, part) in [
        ("curve", "RS256", hash, "Key and signing algorithm are incompatible."),
        ("koblitz", "ES256", hash, "Key and signing algorithm are incompatible."),
        ("curve", "ES256", &hash[1..], "31 bytes. ES256 requires 32 bytes"),
        ("curve", "HS1", hash, "Invalid algorithm: HS1"),
        ("symmetric", "RS256", hash, "not supported"),
    ] {
        refused(&sign(&lab, "vault", &token, key, alg, digest).await, 400, "BadParameter", None, part);
    }
    let lost =
        "was not found in this key vault. If you recently deleted this key you may be able to recover it";
    for target in ["/keys/nope", "/keys/gone", "/keys/curve/00000000000000000000000000000003"] {
        let answer = get_from(&lab, "vault", &token, &format!("{target}?api-version=7.4")).await;
        refused(&answer, 404, "KeyNotFound", None, lost);
    }
    let gone = get_from(&lab, "vault", &token, "/deletedkeys/gone?api-version=7.4").await;
    assert!(gone.status == 200 && gone.json()["scheduledPurgeDate"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(get_from(&lab, "vault", &token, "/deletedkeys/rsa?api-version=7.4").await.status, 404);
    let version = get_from(&lab, "vault", &token, "/keys/rsa?api-version=6.9").await;
    refused(&version, 400, "BadParameter", None, "(6.9) is not recognized");
    let none = get_from(&lab, "vault", &token, "/keys/rsa").await;
    refused(&none, 400, "BadParameter", None, "api-version must be specified");

    let policies = sign(&lab, "policies", &token, "curve", "ES256", hash).await;
    refused(
        &policies,
        403,
        "Forbidden",
        Some("AccessDenied"),
        "does not have keys sign permission on key vault",
    );
    assert_eq!(get_from(&lab, "policies", &token, "/keys/curve?api-version=7.4").await.status, 200);
    let walled = get_from(&lab, "walled", &token, "/keys?api-version=7.4").await;
    refused(&walled, 403, "Forbidden", Some("ForbiddenByFirewall"), "Client address: 127.0.0.1");
}

#[tokio::test]
async fn a_token_has_to_be_for_the_vault_and_the_challenge_says_which() {
    let (lab, good) = open().await;
    let arm = token(&lab).await;
    let challenge =
        format!("Bearer authorization=\"{}/{TENANT}\", resource=\"https://vault.azure.net\"", lab.url());
    for (bearer, part) in [
        (arm.as_str(), "AKV10022: Invalid audience. Expected https://vault.azure.net, found: "),
        ("e30.e30.e30", "AKV10046"),
    ] {
        let answer = get_from(&lab, "vault", bearer, "/keys/rsa?api-version=7.4").await;
        refused(&answer, 401, "Unauthorized", None, part);
        assert!(answer.head.to_lowercase().contains(&challenge.to_lowercase()), "{}", answer.head);
    }
    let none = Connection::open(&lab, "vault.vault.localhost").await;
    let none = { none }.request("GET /keys/rsa?api-version=7.4", "").await;
    refused(&none, 401, "Unauthorized", None, "AKV10000: Request is missing a Bearer or PoP token.");
    lab.expire_access_tokens();
    assert_eq!(get_from(&lab, "vault", &good, "/keys/rsa?api-version=7.4").await.status, 401);
    // A host that is no vault.
    assert_eq!(get_from(&lab, "nowhere", &good, "/keys/rsa?api-version=7.4").await.status, 404);
}
