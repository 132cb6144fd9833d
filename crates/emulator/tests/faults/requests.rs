//! Faults of requests: to the data plane, to ARM and to Entra ID; and how they are ordered.

use std::io::ErrorKind;

use bastide_emulator::faults::Fault;
use bastide_emulator::transcript::Kind;
use serde_json::{Value, json};

use super::{ECHO, faulty, lease, order, settle};
use crate::client::*;

const MINT: &str = "POST /api/tokens\nContent-Type: application/x-www-form-urlencoded\n";

fn mint_form(token: &str) -> String {
    form(&[
        ("resourceId", &vm("web-01")),
        ("protocol", "tcptunnel"),
        ("workloadHostPort", "7"),
        ("aztoken", token),
    ])
}

/// The answer to a mint.
async fn mint_answer(lab: &Lab, token: &str) -> Answer {
    Connection::open(lab, "localhost").await.request(MINT, &mint_form(token)).await
}

/// What comes back for a mint, up to the end of the connection.
async fn mint_end(lab: &Lab, token: &str) -> (String, Option<ErrorKind>) {
    let mut connection = Connection::open(lab, "localhost").await;
    connection.ask(MINT, &mint_form(token)).await;
    let (bytes, fault) = connection.end().await;
    (String::from_utf8(bytes).unwrap(), fault)
}

#[tokio::test]
async fn other_answers_to_a_mint() {
    let (lab, token) = faulty(&[]).await;
    let catch_all = r#"{"message":"Unexpected internal error"}"#;
    for (word, status, head, body) in [
        ("status=500", 500, "application/json", catch_all),
        ("status=401,message=Token expired", 401, "application/json", r#"{"message":"Token expired"}"#),
        ("status=502,body=html", 502, "content-type: text/html\r\n", "<title>502 Bad Gateway</title>"),
        ("status=503,body=empty", 503, "content-length: 0", ""),
        ("status=429,retry_after=1", 429, "retry-after: 1\r\n", catch_all),
        ("status=429,retry_after=3600", 429, "retry-after: 3600\r\n", catch_all),
        (
            "status=503,retry_after=Wed, 21 Oct 2026 07:28:00 GMT",
            503,
            "retry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\n",
            catch_all,
        ),
        ("status=429,retry_after=soon", 429, "retry-after: soon\r\n", catch_all),
        ("status=200,body=html", 200, "content-type: text/html\r\n", "<title>200 OK</title>"),
    ] {
        let before = lab.transcript().sessions.len();
        order(&lab, &[&format!("status:on=mint,{word},times=1")]);
        let answer = mint_answer(&lab, &token).await;
        assert_eq!(answer.status, status, "{word}");
        assert!(answer.head.contains(head), "{word}: {}", answer.head);
        assert!(answer.text().contains(body), "{word}: {}", answer.text());
        assert_eq!(lab.transcript().sessions.len(), before);
        let lease = lease(&lab, &token, ECHO).await;
        settle(&lab, &lease).await;
    }
}

#[tokio::test]
async fn mints_without_a_whole_answer() {
    let (lab, token) = faulty(&["half:on=mint,times=1", "reset:on=mint,times=1"]).await;
    let (text, fault) = mint_end(&lab, &token).await;
    assert_eq!(fault, Some(ErrorKind::UnexpectedEof));
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let length: usize =
        head.split_once("content-length: ").unwrap().1.lines().next().unwrap().parse().unwrap();
    assert!(!body.is_empty() && body.len() * 2 <= length && serde_json::from_str::<Value>(body).is_err());

    let (text, fault) = mint_end(&lab, &token).await;
    assert_eq!((text.as_str(), fault), ("", Some(ErrorKind::ConnectionReset)));
    lab.wait_for(|transcript| transcript.count_status(Kind::Mint, 0) == 1).await;
    // The first one was minted, but nobody was told.
    assert_eq!(lab.transcript().sessions.len(), 1);
    assert_eq!((lab.violations(), lab.sessions().len()), (Vec::new(), 0));
}

#[tokio::test]
async fn missing_fields() {
    for (field, to_blame) in [("authToken", 0), ("nodeId", 0), ("websocketToken", 1)] {
        let (lab, token) = faulty(&[&format!("missing_field:on=mint,field={field}")]).await;
        let answer = mint_answer(&lab, &token).await;
        assert_eq!(answer.status, 200);
        let body = answer.json();
        for known in ["authToken", "nodeId", "websocketToken"] {
            assert_eq!(body.get(known).is_none(), known == field, "{body}");
        }
        assert_eq!(lab.violations().len(), to_blame, "{field}");
    }
}

#[tokio::test]
async fn held_until_told() {
    let (lab, token) = faulty(&["hold:on=mint"]).await;
    let tell = async {
        lab.wait_for(|transcript| transcript.struck("hold") == 1).await;
        assert_eq!(lab.transcript().count(Kind::Mint), 0);
        let cleared = Connection::open(&lab, "localhost").await.request("DELETE /_emulator/faults", "").await;
        assert_eq!((cleared.status, cleared.json()), (200, json!([])));
    };
    let (lease, ()) = tokio::join!(lease(&lab, &token, ECHO), tell);
    order(&lab, &["hold:on=release"]);
    let tell = async {
        lab.wait_for(|transcript| transcript.struck("hold") == 2).await;
        assert_eq!((lab.transcript().releases(), lab.violations()), (0, Vec::new()));
        order(&lab, &[]);
    };
    tokio::join!(settle(&lab, &lease), tell);
}

#[tokio::test]
async fn a_hold_does_not_hold_the_emulator() {
    let (lab, token) = faulty(&["hold:on=mint"]).await;
    let mut connection = Connection::open(&lab, "localhost").await;
    connection.ask(MINT, &mint_form(&token)).await;
    lab.wait_for(|transcript| transcript.struck("hold") == 1).await;
    let (transcript, (bytes, _)) = tokio::join!(lab.stop(), connection.end());
    // Cut by itself, not by the time limit of the stop, which leaves no trace.
    assert_eq!((bytes, transcript.count_status(Kind::Mint, 0)), (Vec::new(), 1));
    assert_eq!(transcript.sessions.len(), 0);
}

#[tokio::test]
async fn releases() {
    let (lab, token) =
        faulty(&["status:on=release,status=500,times=1", "status:on=release,status=404,times=1"]).await;
    let given_up = lease(&lab, &token, ECHO).await;
    assert_eq!(given_up.release(&lab).await, 500);
    // It has tried: that it is not released is not its fault.
    assert_eq!((lab.violations(), lab.transcript().releases()), (Vec::new(), 0));
    assert_eq!(given_up.release(&lab).await, 404);
    settle(&lab, &given_up).await;

    order(&lab, &["half:on=release,times=1"]);
    let again = lease(&lab, &token, ECHO).await;
    let mut connection = Connection::open(&lab, "localhost").await;
    connection.ask(&format!("DELETE /api/tokens/{}\nX-Node-Id: {}\n", again.auth, again.node), "").await;
    assert_eq!(connection.end().await.1, Some(ErrorKind::UnexpectedEof));
    assert_eq!(again.release(&lab).await, 404);
    assert_eq!((lab.violations(), lab.sessions().len()), (Vec::new(), 0));
}

#[tokio::test]
async fn refused_upgrades_use_their_token_up() {
    let (lab, token) = faulty(&["status:on=upgrade,status=503,times=1"]).await;
    let lease = lease(&lab, &token, ECHO).await;
    let target = format!("/webtunnelv2/{}?X-Node-Id={}", lease.websocket, lease.node);
    let refused = Connection::open(&lab, "localhost").await.request(&handshake(&target, ""), "").await;
    assert_eq!(refused.status, 503);
    settle(&lab, &lease).await;
    let again = Connection::open(&lab, "localhost").await.request(&handshake(&target, ""), "").await;
    assert_eq!(again.status, 404);
    assert_eq!(lab.violations()[0].to_string(), "session 1: its WebSocket token was used 2 times");
}

#[tokio::test]
async fn expired_tokens() {
    let (lab, old) = faulty(&[]).await;
    let before = lease(&lab, &old, ECHO).await;
    let mut tunnel = before.upgrade(&lab).await;
    lab.set_faults([Fault::ExpiredTokens]);
    assert_eq!(lab.faults(), []);
    let target = format!("{}?api-version=2024-01-01", bastion("bastion"));
    let refused = get(&lab, &old, &target).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (401, &json!("ExpiredAuthenticationToken"))
    );
    assert_eq!(mint_answer(&lab, &old).await.status, 401);
    let new = token(&lab).await;
    assert_eq!(get(&lab, &new, &target).await.status, 200);
    // What is open goes on.
    tunnel.send(HELLO).await;
    assert_eq!(tunnel.read(7).await, b"\x82\x05Hello");
    tunnel.send(CLOSE).await;
    tunnel.rest().await;
    settle(&lab, &before).await;
}

#[tokio::test]
async fn arm_and_entra() {
    let (lab, token) = faulty(&[
        "status:on=arm,path=/BASTIONHOSTS/basic,status=429,retry_after=7",
        "status:on=arm,path=/bastionHosts/premium,status=502,body=html",
        "half:on=arm,path=/bastionHosts/recording",
        "status:on=token,status=503,retry_after=2,times=1",
        "reset:on=token,times=1",
    ])
    .await;
    let target = |name: &str| format!("{}?api-version=2024-01-01", bastion(name));
    let throttled = get(&lab, &token, &target("basic")).await;
    assert_eq!(throttled.status, 429);
    assert!(throttled.head.contains("retry-after: 7\r\n"), "{}", throttled.head);
    assert_eq!(throttled.json()["error"]["code"], "TooManyRequests");
    assert!(get(&lab, &token, &target("premium")).await.text().contains("502 Bad Gateway"));
    assert_eq!(get(&lab, &token, &target("bastion")).await.status, 200);
    let mut connection = Connection::open(&lab, "localhost").await;
    connection.ask(&format!("GET {}\nAuthorization: Bearer {token}\n", target("recording")), "").await;
    assert_eq!(connection.end().await.1, Some(ErrorKind::UnexpectedEof));

    let busy = ask_token(&lab, TENANT, &[("grant_type", "client_credentials")]).await;
    assert_eq!((busy.status, &busy.json()["error"]), (503, &json!("temporarily_unavailable")));
    let mut connection = Connection::open(&lab, "localhost").await;
    connection.ask(&format!("POST /{TENANT}/oauth2/v2.0/token"), "grant_type=x").await;
    assert_eq!(connection.end().await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn ordered_over_http() {
    let (lab, token) = faulty(&[]).await;
    let mut control = Connection::open(&lab, "localhost").await;
    let orders = json!([{"fault": "status", "on": "mint", "status": 500, "times": 1}]);
    let standing = control.request("POST /_emulator/faults", &orders.to_string()).await.json();
    assert_eq!((&standing[0]["fault"], &standing[0]["struck"]), (&json!("status"), &json!(0)));
    assert_eq!(mint_answer(&lab, &token).await.status, 500);
    let standing = control.request("GET /_emulator/faults", "").await.json();
    assert_eq!((&standing[0]["times"], &standing[0]["struck"]), (&json!(1), &json!(1)));
    let refused = control.request("POST /_emulator/faults", r#"[{"fault": "sing"}]"#).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("unknown variant `sing`"), "{}", refused.text());
    assert_eq!(lab.faults().len(), 1, "an order that is not understood changes nothing");
    assert_eq!(lab.transcript().struck("status"), 1);
}
