//! Entra ID from outside, by literals of RFC 8628, RFC 7523 and protocol.md §7: people here, programs
//! without a person in `programs.rs`, the sign-in to machines in `ssh.rs`.

mod programs;
mod ssh;

use bastide_emulator::scenario::Outcome;
use bastide_emulator::{Emulator, RefreshEnd, Scenario};
use serde_json::Value;

use crate::client::*;

/// Public client id of the Azure CLI (protocol.md §7).
const CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
const ADA: &str = "ada@emulator.example";
const ARM_SCOPE: &str = "https://management.core.windows.net//.default offline_access openid profile";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The default scenario, where a program may ask again at once.
fn patient() -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sign_in.device_code_interval_seconds = 0;
    scenario
}

async fn post(lab: &Emulator, target: &str, fields: &[(&str, &str)]) -> Answer {
    let head = format!("POST {target}\nContent-Type: application/x-www-form-urlencoded\n");
    Connection::open(lab, "localhost").await.request(&head, &form(fields)).await
}

async fn device_code(lab: &Emulator, tenant: &str) -> Value {
    let fields = [("client_id", CLI), ("scope", ARM_SCOPE)];
    let answer = post(lab, &format!("/{tenant}/oauth2/v2.0/devicecode"), &fields).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn poll(lab: &Emulator, code: &Value) -> Answer {
    let code = code["device_code"].as_str().unwrap();
    let fields =
        [("grant_type", DEVICE_GRANT), ("client_id", CLI), ("device_code", code), ("client_info", "1")];
    ask_token(lab, TENANT, &fields).await
}

async fn refresh(lab: &Emulator, tenant: &str, token: &Value, more: &[(&str, &str)]) -> Answer {
    let mut fields = vec![
        ("grant_type", "refresh_token"),
        ("client_id", CLI),
        ("refresh_token", token["refresh_token"].as_str().unwrap()),
    ];
    if !more.iter().any(|(name, _)| *name == "scope") {
        fields.push(("scope", ARM_SCOPE));
    }
    fields.extend(more);
    ask_token(lab, tenant, &fields).await
}

/// Signs in by device code.
async fn signed_in(lab: &Emulator, upn: &str) -> Value {
    let code = device_code(lab, "organizations").await;
    lab.approve_device_code(code["user_code"].as_str().unwrap(), upn).unwrap();
    let answer = poll(lab, &code).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[track_caller]
fn refused(answer: &Answer, error: &str, code: u64) {
    let body = answer.json();
    assert_eq!(
        (body["error"].as_str(), body["error_codes"][0].as_u64()),
        (Some(error), Some(code)),
        "{body}"
    );
    assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")), "{body}");
}

#[tokio::test]
async fn device_code_from_request_to_refresh() {
    let lab = lab(patient()).await;
    let code = device_code(&lab, TENANT).await;
    let user_code = code["user_code"].as_str().unwrap();
    let page = format!("{}/device", lab.url());
    assert_eq!(code["verification_uri"], page.as_str());
    assert_eq!((code["expires_in"].as_u64(), code["interval"].as_u64()), (Some(900), Some(0)));
    assert!(code["message"].as_str().unwrap().contains(user_code));
    refused(&poll(&lab, &code).await, "authorization_pending", 70016);
    assert_eq!(lab.device_codes()[0].application, "Microsoft Azure CLI");
    let lower = user_code.to_ascii_lowercase();
    assert!(lab.approve_device_code(&lower, "nobody@emulator.example").is_err());
    lab.approve_device_code(&format!("{}-{}", &lower[..4], &lower[4..]), ADA).unwrap();

    let token = poll(&lab, &code).await.json();
    assert_eq!(token["token_type"], "Bearer");
    assert!(token["scope"].as_str().unwrap().contains("https://management.core.windows.net//.default"));
    // {"uid":"33333333-3333-4333-8333-333333333333","utid":"11111111-1111-4111-8111-111111111111"}
    let info = "eyJ1aWQiOiIzMzMzMzMzMy0zMzMzLTQzMzMtODMzMy0zMzMzMzMzMzMzMzMiLCJ1dGlkIjoiMTExMTExMTEtMTExMS00MTExLTgxMTEtMTExMTExMTExMTExIn0";
    assert_eq!(token["client_info"], info);
    let id = claims(token["id_token"].as_str().unwrap());
    assert_eq!((id["aud"].as_str(), id["preferred_username"].as_str()), (Some(CLI), Some(ADA)));
    let access = token["access_token"].as_str().unwrap();
    assert_eq!(claims(access)["upn"], ADA);
    assert_eq!(get(&lab, access, "/subscriptions?api-version=2022-12-01").await.status, 200);
    // A device code is good for one token.
    refused(&poll(&lab, &code).await, "bad_verification_code", 70018);

    let next = refresh(&lab, TENANT, &token, &[]).await.json();
    assert_ne!(next["refresh_token"], token["refresh_token"]);
    let vault =
        refresh(&lab, "organizations", &next, &[("scope", "https://vault.azure.net/.default")]).await.json();
    assert_eq!(claims(vault["access_token"].as_str().unwrap())["aud"], "https://vault.azure.net");
    assert!(vault.get("refresh_token").is_none());
    // Entra ID still takes the one that was exchanged.
    assert_eq!(refresh(&lab, TENANT, &token, &[]).await.status, 200);
    assert_eq!(lab.transcript().issued("refresh_token"), 3);
    assert_eq!(lab.transcript().issued("device_code"), 1);
    let written = std::fs::read_to_string(lab.state().join("transcript.jsonl")).unwrap();
    for secret in
        [access, token["refresh_token"].as_str().unwrap(), code["device_code"].as_str().unwrap(), user_code]
    {
        assert!(!written.contains(secret));
    }
    assert_eq!(lab.violations(), []);
}

#[tokio::test]
async fn device_codes_that_come_to_nothing() {
    let lab = lab(patient()).await;
    let code = device_code(&lab, "organizations").await;
    lab.decline_device_code(code["user_code"].as_str().unwrap()).unwrap();
    refused(&poll(&lab, &code).await, "authorization_declined", 65004);
    let code = device_code(&lab, "organizations").await;
    lab.expire_device_codes();
    refused(&poll(&lab, &code).await, "expired_token", 70020);
    assert!(lab.approve_device_code(code["user_code"].as_str().unwrap(), ADA).is_err());
    let code = serde_json::json!({"device_code": "x"});
    refused(&poll(&lab, &code).await, "bad_verification_code", 70018);
    for (outcome, error, number) in [
        (Outcome::Disabled, "invalid_grant", 50057),
        (Outcome::ConditionalAccess, "invalid_grant", 53003),
        (Outcome::Consent, "invalid_grant", 65001),
    ] {
        lab.set_outcome(ADA, outcome);
        let code = device_code(&lab, "organizations").await;
        lab.approve_device_code(code["user_code"].as_str().unwrap(), ADA).unwrap();
        refused(&poll(&lab, &code).await, error, number);
    }
    let target = format!("/{TENANT}/oauth2/v2.0/devicecode");
    let unknown = post(&lab, &target, &[("client_id", CLIENT), ("scope", ARM_SCOPE)]).await;
    refused(&unknown, "unauthorized_client", 700_016);
    let unknown =
        post(&lab, "/nowhere/oauth2/v2.0/devicecode", &[("client_id", CLI), ("scope", ARM_SCOPE)]).await;
    refused(&unknown, "invalid_request", 90002);
    let scope = post(&lab, &target, &[("client_id", CLI), ("scope", "openid")]).await;
    refused(&scope, "invalid_scope", 70011);
    assert_eq!(lab.violations(), []);
}

#[tokio::test]
async fn polling_too_fast_is_told_and_remembered() {
    let mut scenario = Scenario::default();
    scenario.sign_in.device_code_interval_seconds = 3600;
    let lab = lab(scenario).await;
    let code = device_code(&lab, TENANT).await;
    refused(&poll(&lab, &code).await, "authorization_pending", 70016);
    refused(&poll(&lab, &code).await, "slow_down", 70016);
    assert_eq!(lab.violations(), []);
    refused(&poll(&lab, &code).await, "slow_down", 70016);
    let said: Vec<String> = lab.violations().iter().map(ToString::to_string).collect();
    assert_eq!(said, ["1 poll(s) for a device code came too early after `slow_down`"]);
}

#[tokio::test]
async fn settings_of_device_codes_and_refresh_tokens() {
    let lab = lab(Scenario::parse(
        "[sign_in]\ndevice_code_approved_by = \"ada@emulator.example\"\nrefresh_token_reuse = false\n",
    )
    .unwrap())
    .await;
    let code = device_code(&lab, TENANT).await;
    let token = poll(&lab, &code).await.json();
    assert_eq!(refresh(&lab, TENANT, &token, &[]).await.status, 200);
    refused(&refresh(&lab, TENANT, &token, &[]).await, "invalid_grant", 70000);
    let access_denied = Scenario::parse("[sign_in]\ndevice_code_refusal = \"access_denied\"\n").unwrap();
    let lab = crate::client::lab(access_denied).await;
    let code = device_code(&lab, TENANT).await;
    lab.decline_device_code(code["user_code"].as_str().unwrap()).unwrap();
    refused(&poll(&lab, &code).await, "access_denied", 65004);
}

#[tokio::test]
async fn refresh_tokens_end() {
    let lab = lab(patient()).await;
    let token = signed_in(&lab, ADA).await;
    lab.set_outcome(ADA, Outcome::Mfa);
    let answer = refresh(&lab, TENANT, &token, &[]).await;
    refused(&answer, "interaction_required", 50076);
    assert_eq!(answer.json()["suberror"], "basic_action");
    assert!(answer.json()["claims"].as_str().unwrap().contains("capolids"));
    lab.set_outcome(ADA, Outcome::Disabled);
    refused(&refresh(&lab, TENANT, &token, &[]).await, "invalid_grant", 50057);
    lab.set_outcome(ADA, Outcome::Granted);
    assert_eq!(refresh(&lab, TENANT, &token, &[]).await.status, 200);
    lab.end_refresh_tokens(RefreshEnd::Expired);
    refused(&refresh(&lab, TENANT, &token, &[]).await, "invalid_grant", 700_082);
    let token = signed_in(&lab, ADA).await;
    assert_eq!(refresh(&lab, TENANT, &token, &[]).await.status, 200);
    lab.end_refresh_tokens(RefreshEnd::Revoked);
    refused(&refresh(&lab, TENANT, &token, &[]).await, "invalid_grant", 50173);
    // An access token is none.
    let odd = serde_json::json!({"refresh_token": token["access_token"]});
    refused(&refresh(&lab, TENANT, &odd, &[]).await, "invalid_grant", 70000);
}

#[tokio::test]
async fn arm_demands_claims() {
    let lab = lab(patient()).await;
    let token = signed_in(&lab, ADA).await;
    lab.demand_claims(Some(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#));
    let target = "/subscriptions?api-version=2022-12-01";
    let answer = get(&lab, token["access_token"].as_str().unwrap(), target).await;
    assert_eq!(answer.status, 401);
    // The demand in base64.
    let claims = "eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzEifX19";
    let head = format!(
        "www-authenticate: Bearer realm=\"\", authorization_uri=\"{}/common/oauth2/authorize\", error=\"insufficient_claims\", claims=\"{claims}\"",
        lab.url()
    );
    assert!(answer.head.contains(&head), "{}", answer.head);
    let asked = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"},"xms_cc":{"values":["CP1"]}}}"#;
    let better = refresh(&lab, TENANT, &token, &[("claims", asked)]).await.json();
    assert_eq!(get(&lab, better["access_token"].as_str().unwrap(), target).await.status, 200);
    refused(&refresh(&lab, TENANT, &token, &[("claims", "c1")]).await, "invalid_request", 50148);
    lab.demand_claims(None);
    assert_eq!(get(&lab, token["access_token"].as_str().unwrap(), target).await.status, 200);
}

#[tokio::test]
async fn the_page_approves_and_refuses() {
    let lab = lab(patient()).await;
    let first = Connection::open(&lab, "localhost").await.request("GET /device\n", "").await;
    assert_eq!(first.status, 200);
    let policy = "default-src 'none'; style-src 'nonce-";
    assert!(first.head.contains(policy) && first.head.contains("SameSite=Strict"), "{}", first.head);
    let page = first.text();
    assert!(page.contains("<html lang=\"en\">") && page.contains("<label for=\"user_code\">Code</label>"));
    let csrf = page.split_once("name=\"csrf\" value=\"").unwrap().1[..64].to_owned();
    let send = async |cookie: &str, origin: &str, fields: &[(&str, &str)]| {
        let head = format!(
            "POST /device\nCookie: __Host-device={cookie}\n{origin}Content-Type: application/x-www-form-urlencoded\n"
        );
        Connection::open(&lab, "localhost").await.request(&head, &form(fields)).await
    };
    let code = device_code(&lab, TENANT).await;
    let user_code = code["user_code"].as_str().unwrap();
    let approval = [("csrf", csrf.as_str()), ("user_code", user_code), ("upn", ADA), ("decision", "approve")];
    // Forms from elsewhere decide nothing.
    assert_eq!(send("other", "", &approval).await.status, 403);
    assert_eq!(send(&csrf, "Origin: https://evil.example\n", &approval).await.status, 403);
    refused(&poll(&lab, &code).await, "authorization_pending", 70016);

    let wrong = send(&csrf, "", &[("csrf", &csrf), ("user_code", "<b>")]).await.text();
    assert!(
        wrong.contains("role=\"alert\"") && wrong.contains("&lt;b&gt;") && !wrong.contains("<b>"),
        "{wrong}"
    );
    let choose = send(&csrf, "", &[("csrf", &csrf), ("user_code", user_code)]).await.text();
    assert!(choose.contains("Microsoft Azure CLI") && choose.contains("value=\"ada@emulator.example\""));
    let disabled = [
        ("csrf", csrf.as_str()),
        ("user_code", user_code),
        ("upn", "eve@emulator.example"),
        ("decision", "approve"),
    ];
    assert!(send(&csrf, "", &disabled).await.text().contains("AADSTS50057"));
    assert!(send(&csrf, "", &approval).await.text().contains("Signed in"));
    assert_eq!(poll(&lab, &code).await.status, 200);

    let code = device_code(&lab, TENANT).await;
    let refusal =
        [("csrf", csrf.as_str()), ("user_code", code["user_code"].as_str().unwrap()), ("decision", "refuse")];
    assert!(send(&csrf, "", &refusal).await.text().contains("was not given access"));
    refused(&poll(&lab, &code).await, "authorization_declined", 65004);
    assert_eq!(lab.violations(), []);
}

#[tokio::test]
async fn tests_in_other_languages_decide_too() {
    let lab = lab(patient()).await;
    let code = device_code(&lab, TENANT).await;
    let act = async |origin: &str, act: Value| {
        let head = format!("POST /_emulator/sign_in\n{origin}");
        Connection::open(&lab, "localhost").await.request(&head, &act.to_string()).await.status
    };
    let approve = serde_json::json!({"act": "approve", "user_code": code["user_code"], "upn": ADA});
    assert_eq!(act("Origin: https://evil.example\n", approve.clone()).await, 403);
    assert_eq!(act("", approve.clone()).await, 200);
    assert_eq!(act("", approve).await, 400);
    let token = poll(&lab, &code).await.json();
    assert_eq!(act("", serde_json::json!({"act": "end_refresh_tokens", "end": "revoked"})).await, 200);
    refused(&refresh(&lab, TENANT, &token, &[]).await, "invalid_grant", 50173);
    assert_eq!(act("", serde_json::json!({"act": "expire_access_tokens"})).await, 200);
    let target = "/subscriptions?api-version=2022-12-01";
    assert_eq!(get(&lab, token["access_token"].as_str().unwrap(), target).await.status, 401);
    assert_eq!(act("", serde_json::json!({"act": "sing"})).await, 400);
}

/// The claims of a JWT, unchecked.
fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap())
        .unwrap()
}
