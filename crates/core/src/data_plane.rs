//! The answers of the Bastion data plane (protocol.md §3): what a mint grants, and what a refusal says. It
//! leaves out the requests, which follow from a [`crate::Plan`], and the WebSocket itself.

use serde::Deserialize;

use crate::Secret;

/// What one mint grants: the right to open one connection, and the duty to give it back.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Names the grant when it is given back.
    pub auth_token: Secret,
    /// The node that minted it; upgrade and release must reach the same one.
    pub node_id: String,
    /// One-time right to open the WebSocket.
    pub websocket_token: Secret,
}

/// A 200 answer to a mint that grants nothing usable.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the service's answer to a token request is not usable: {reason}")]
pub struct GrantError {
    reason: String,
    /// The token to give back, when the answer held at least that much.
    pub releasable: Option<(Secret, String)>,
}

impl Grant {
    /// Reads the body of a 200 answer to `POST /api/tokens`. Unknown fields are ignored.
    ///
    /// # Errors
    /// [`GrantError`] when it is not JSON or a field is missing or empty; what can be released is kept.
    pub fn parse(body: &[u8]) -> Result<Self, GrantError> {
        let answer: Answer = serde_json::from_slice(body).map_err(|error| GrantError {
            // The message of serde_json for a syntax error holds a position and no content.
            reason: format!(
                "not the JSON that was expected ({:?} error at column {})",
                error.classify(),
                error.column()
            ),
            releasable: None,
        })?;
        let filled = |field: Option<String>| field.filter(|value| !value.is_empty());
        match (filled(answer.auth_token), filled(answer.node_id), filled(answer.websocket_token)) {
            (Some(auth_token), Some(node_id), Some(websocket_token)) => {
                Ok(Self { auth_token: auth_token.into(), node_id, websocket_token: websocket_token.into() })
            }
            (auth_token, node_id, websocket_token) => {
                let missing = [
                    ("authToken", auth_token.is_none()),
                    ("nodeId", node_id.is_none()),
                    ("websocketToken", websocket_token.is_none()),
                ];
                let names: Vec<_> =
                    missing.iter().filter(|(_, absent)| *absent).map(|(name, _)| *name).collect();
                Err(GrantError {
                    reason: format!("without {}", names.join(", ")),
                    releasable: auth_token.map(|token| (token.into(), node_id.unwrap_or_default())),
                })
            }
        }
    }
}

/// What a person should read of the body of a refusal: the `message` of JSON, the text of an HTML page, or
/// the plain text, on one line of at most 300 characters. `None` when it says nothing.
pub fn service_message(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(json) => json_message(&json)?,
        Err(_) if text.trim_start().starts_with('<') => html_text(&text),
        Err(_) => text.into_owned(),
    };
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = line.collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(MESSAGE_LIMIT).collect();
    match (short.is_empty(), short.len() < line.len()) {
        (true, _) => None,
        (false, true) => Some(short + "…"),
        (false, false) => Some(short),
    }
}

/// About four lines of a terminal: more of a server's page helps nobody.
const MESSAGE_LIMIT: usize = 300;

fn json_message(json: &serde_json::Value) -> Option<String> {
    match json {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Object(fields) => ["message", "Message", "error_description", "error"]
            .iter()
            .find_map(|name| fields.get(*name).and_then(json_message)),
        _ => None,
    }
}

/// The text between tags, without scripts and styles: enough for error pages of proxies and Tomcat.
fn html_text(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        let name: String = after.chars().take_while(char::is_ascii_alphanumeric).collect();
        let end = match name.to_ascii_lowercase().as_str() {
            "script" => "</script>",
            "style" => "</style>",
            _ => ">",
        };
        rest = after.split_once(end).map_or("", |(_, behind)| behind);
    }
    text.push_str(rest);
    text
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    auth_token: Option<String>,
    node_id: Option<String>,
    websocket_token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_grant() {
        let grant = Grant::parse(
            br#"{"authToken":"A","nodeId":"node-0","websocketToken":"W","username":null,"dataSource":"x",
                "availableDataSources":[]}"#,
        )
        .unwrap();
        assert_eq!(grant.auth_token.expose(), "A");
        assert_eq!((grant.node_id.as_str(), grant.websocket_token.expose()), ("node-0", "W"));
    }

    #[test]
    fn a_missing_field_is_named_and_the_rest_released() {
        let error = Grant::parse(br#"{"authToken":"A","nodeId":"node-0"}"#).unwrap_err();
        assert!(error.to_string().ends_with("without websocketToken"), "{error}");
        let (token, node) = error.releasable.unwrap();
        assert_eq!((token.expose(), node.as_str()), ("A", "node-0"));
        for body in [
            "",
            "{",
            "[]",
            "null",
            "\"A\"",
            "<html>",
            r#"{"authToken":7}"#,
            r#"{"authToken":"","nodeId":""}"#,
        ] {
            assert!(Grant::parse(body.as_bytes()).unwrap_err().releasable.is_none(), "{body}");
        }
    }

    #[test]
    fn messages_are_one_readable_line() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(service_message(body.as_bytes()).as_deref(), expected, "{body}");
        };
        check(r#"{"message":"Tunneling is disabled"}"#, Some("Tunneling is disabled"));
        check(r#"{"error":{"code":"X","message":"no\nsuch thing"}}"#, Some("no such thing"));
        check("Unexpected internal error\r\n", Some("Unexpected internal error"));
        check(
            "<!doctype html><html><head><style>h1 {x}</style><title>HTTP Status 400</title></head>\
             <body><h1>Bad <b>Request</b></h1><script>x<y</script></body></html>",
            Some("HTTP Status 400 Bad Request"),
        );
        check("", None);
        check("{}", None);
        check(" \n", None);
        check("<", None);
        assert_eq!(service_message("ü".repeat(1000).as_bytes()).unwrap().chars().count(), MESSAGE_LIMIT + 1);
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = service_message(&body);
            let _ = Grant::parse(&body);
        }

        #[test]
        fn never_panics_on_almost_json(text in "[{}\\[\\]\"<>/a-z:,]{0,60}") {
            let _ = service_message(text.as_bytes());
            let _ = Grant::parse(text.as_bytes());
        }
    }
}
