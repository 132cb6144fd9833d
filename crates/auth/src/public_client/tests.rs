//! The grants of a person against a scripted service: what is asked, how long is waited, what is shown, and what each
//! end of it is called.

use std::sync::Mutex;

use super::*;
use crate::test_server::{Answer, Server};

const CODE: &str = r#"{"user_code":"ABC123","device_code":"the device","verification_uri":"https://login.example/device","expires_in":900,"interval":3,"message":"To sign in, …"}"#;
const TOKEN: &str = r#"{"token_type":"Bearer","scope":"s","expires_in":3599,"ext_expires_in":3599,"access_token":"the token","refresh_token":"the refresh","id_token":"the id"}"#;

#[derive(Debug, Default)]
struct Shown(Mutex<Vec<DeviceCode>>);

impl Prompt for Shown {
    fn show(&self, code: &DeviceCode) {
        self.0.lock().unwrap().push(code.clone());
    }
}

struct Bench {
    client: PublicClient,
    server: Server,
    shown: Shown,
    pauses: Arc<Mutex<Vec<u64>>>,
}

async fn bench(answers: Vec<Answer>) -> Bench {
    let server = Server::start(answers).await;
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&pauses);
    let pause: Pause = Arc::new(move |time: Duration| {
        log.lock().unwrap().push(time.as_secs());
        Box::pin(std::future::ready(()))
    });
    let client = PublicClient::new(Exchange::hasty(server.network()), &server.url()).with_pause(pause);
    Bench { client, server, shown: Shown::default(), pauses }
}

impl Bench {
    async fn sign_in(&self) -> Result<Granted, AuthError> {
        let request = TokenRequest::new("https://arm/.default");
        self.client.by_device_code("the-client", "home.example", &request, &self.shown).await
    }

    fn pauses(&self) -> Vec<u64> {
        self.pauses.lock().unwrap().clone()
    }
}

fn error(name: &str) -> Answer {
    Answer::json(400, &format!(r#"{{"error":"{name}","error_description":"AADSTS70016: x"}}"#))
}

#[tokio::test]
async fn the_code_is_shown_and_the_token_waited_for() {
    let bench = bench(vec![
        Answer::json(200, CODE),
        error("authorization_pending"),
        error("slow_down"),
        error("authorization_pending"),
        Answer::json(200, TOKEN),
    ])
    .await;
    let granted = bench.sign_in().await.unwrap();
    assert_eq!(granted.token.secret.expose(), "the token");
    assert_eq!(granted.refresh_token.unwrap().expose(), "the refresh");
    assert_eq!(granted.id_token.as_deref(), Some("the id"));
    let expected = DeviceCode {
        url: "https://login.example/device".into(),
        code: "ABC123".into(),
        expires_in: Duration::from_secs(900),
    };
    assert_eq!(*bench.shown.0.lock().unwrap(), [expected]);
    // RFC 8628 §3.5: `slow_down` adds five seconds for good.
    assert_eq!(bench.pauses(), [3, 3, 8, 8]);
    let requests = bench.server.requests();
    assert!(requests[0].starts_with("POST /home.example/oauth2/v2.0/devicecode HTTP/1.1\r\n"));
    assert!(
        requests[0].ends_with(
            "scope=https%3A%2F%2Farm%2F.default+offline_access+openid+profile&client_id=the-client"
        ),
        "{}",
        requests[0]
    );
    assert!(requests[1].starts_with("POST /home.example/oauth2/v2.0/token HTTP/1.1\r\n"));
    assert!(
        requests[1].ends_with(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&\
             device_code=the+device&client_id=the-client"
        ),
        "{}",
        requests[1]
    );
}

#[tokio::test]
async fn a_busy_service_is_asked_less_often() {
    let bench = bench(vec![
        Answer::json(200, CODE),
        Answer::html(503, "<h1>busy</h1>"),
        Answer::json(429, "{}").header("Retry-After: 7"),
        Answer::json(200, TOKEN),
    ])
    .await;
    assert!(bench.sign_in().await.is_ok());
    assert_eq!(bench.pauses(), [3, 6, 7, 10]);
}

#[tokio::test]
async fn ends_without_a_token_say_why() {
    let check = async |answer: Answer, message: &str, hint: &str| {
        let bench = bench(vec![Answer::json(200, CODE), answer]).await;
        let error = bench.sign_in().await.err().unwrap();
        assert_eq!(error.to_string(), format!("device-code was refused: {message}"));
        assert!(error.hint().contains(hint), "{}", error.hint());
    };
    check(error("expired_token"), "the code was not entered in time", "bastide login").await;
    check(error("access_denied"), "the sign-in was declined on the page", "allow it").await;
    check(error("authorization_declined"), "the sign-in was declined on the page", "allow it").await;
    check(
        Answer::json(
            400,
            r#"{"error":"invalid_grant","error_description":"AADSTS53003: Access has been blocked. Trace ID: 1"}"#,
        ),
        "AADSTS53003: Access has been blocked.",
        "conditional access",
    )
    .await;
    let strange = "the sign-in service answered something else than a token";
    check(Answer::html(200, "<html>WiFi</html>"), strange, "proxy").await;
    check(Answer::html(400, "<html>WiFi</html>"), strange, "proxy").await;
    check(Answer::json(200, "{}"), strange, "proxy").await;
}

#[tokio::test]
async fn a_code_that_nobody_could_use_is_not_shown() {
    let code = |field: &str, value: &str| {
        let mut body: serde_json::Value = serde_json::from_str(CODE).unwrap();
        body[field] = serde_json::from_str(value).unwrap();
        Answer::json(200, &body.to_string())
    };
    for (field, value) in [
        ("user_code", "\"\""),
        ("user_code", "\"\\u0007\""),
        ("verification_uri", "\"no address\""),
        ("expires_in", "18446744073709551615"),
        ("interval", "18446744073709551615"),
    ] {
        let bench = bench(vec![code(field, value)]).await;
        let error = bench.sign_in().await.err().unwrap();
        assert!(error.to_string().contains("something else than a token"), "{field}: {error}");
        assert!(bench.shown.0.lock().unwrap().is_empty() && bench.pauses().is_empty());
    }
    // What a terminal would obey is not for showing.
    let words = code("verification_uri", r#""https://login.example/\u001b[2Jdevice""#);
    let bench = bench(vec![words, Answer::json(200, TOKEN)]).await;
    bench.sign_in().await.unwrap();
    assert_eq!(bench.shown.0.lock().unwrap()[0].url, "https://login.example/%1B[2Jdevice");
}

#[tokio::test]
async fn a_token_for_ever_is_no_token() {
    let body = TOKEN.replace("3599", "18446744073709551615");
    let bench = bench(vec![Answer::json(200, &body)]).await;
    let made = bench.client.by_refresh_token("c", "t", &Secret::new("r"), &TokenRequest::new("s")).await;
    assert!(made.err().unwrap().to_string().contains("something else than a token"));
}

#[tokio::test]
async fn a_refresh_token_brings_a_token_and_its_successor() {
    let bench = bench(vec![Answer::json(200, TOKEN)]).await;
    let request = TokenRequest {
        certificate: Some(bastide_core::CertificateRequest {
            key: r#"{"kty":"RSA"}"#.into(),
            key_id: "abc".into(),
        }),
        ..TokenRequest::new("pas")
    };
    let old = Secret::new("old refresh");
    let granted = bench.client.by_refresh_token("c", "t", &old, &request).await.unwrap();
    assert_eq!(granted.refresh_token.unwrap().expose(), "the refresh");
    let sent = bench.server.requests().remove(0);
    assert!(
        sent.ends_with(
            "grant_type=refresh_token&refresh_token=old+refresh&scope=pas+offline_access+openid+profile&\
             client_id=c&token_type=ssh-cert&req_cnf=%7B%22kty%22%3A%22RSA%22%7D&key_id=abc&\
             claims=%7B%22access_token%22%3A%7B%22xms_cc%22%3A%7B%22values%22%3A%5B%22CP1%22%5D%7D%7D%7D"
        ),
        "{sent}"
    );
}

#[tokio::test]
async fn a_certificate_is_a_token_of_another_type() {
    let body = r#"{"token_type":"ssh-cert","expires_in":3599,"access_token":"AAAA"}"#;
    let bench = bench(vec![Answer::json(200, body)]).await;
    let granted = bench.client.by_refresh_token("c", "t", &Secret::new("r"), &TokenRequest::new("pas")).await;
    assert_eq!(granted.unwrap().token.secret.expose(), "AAAA");
}

#[tokio::test]
async fn a_refused_refresh_token_says_what_to_do() {
    let body = r#"{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired. Trace ID: 1","suberror":"bad_token"}"#;
    let bench = bench(vec![Answer::json(400, body)]).await;
    let secret = Secret::new("hunter2");
    let error = bench.client.by_refresh_token("c", "organizations", &secret, &TokenRequest::new("s")).await;
    let error = error.err().unwrap();
    assert_eq!(error.to_string(), "device-code was refused: AADSTS700082: The refresh token has expired.");
    assert_eq!(error.hint(), "the sign-in has expired: run `bastide login` again");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_malformed_tenant_is_refused_before_anything_is_sent() {
    let bench = bench(Vec::new()).await;
    for tenant in ["", "a/b", "a b", "ü"] {
        let made =
            bench.client.by_refresh_token("c", tenant, &Secret::new("r"), &TokenRequest::new("s")).await;
        assert!(made.err().unwrap().to_string().contains("is not a tenant"), "{tenant}");
    }
    assert!(bench.server.requests().is_empty());
}
