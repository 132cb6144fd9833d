//! What happens, as programs are told it: events as lines of JSON (cli.md, "Output"). It leaves out to whom and by which
//! way.

use std::time::SystemTime;

use bastide_relay::Event;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The name of an event and its fields; none for what programs are not told by itself.
pub fn event_fields(event: &Event) -> Option<(&'static str, Value)> {
    Some(match event {
        Event::Opened { id, peer } => ("opened", json!({"id": id, "peer": peer})),
        Event::Retry { id, attempt, reason, .. } => {
            ("retry", json!({"id": id, "attempt": attempt, "reason": reason}))
        }
        Event::Closed { id, account } => {
            let seconds = (account.elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
            let fields = json!({
                "id": id, "reason": account.reason(), "sent": account.sent,
                "received": account.received, "seconds": seconds,
            });
            ("closed", fields)
        }
        Event::Released { id } => ("released", json!({"id": id})),
        _ => return None,
    })
}

/// An event as a line of JSON, without the line's end. `fields` is an object.
pub fn json_line(name: &str, fields: Value) -> String {
    let mut event = Map::from_iter([("event".to_owned(), json!(name)), ("time".to_owned(), json!(now()))]);
    if let Value::Object(fields) = fields {
        event.extend(fields);
    }
    Value::Object(event).to_string()
}

/// Now (RFC 3339).
pub fn now() -> String {
    OffsetDateTime::from(SystemTime::now()).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bastide_core::End;
    use bastide_relay::Account;

    use super::*;

    #[test]
    fn events_have_the_fields_of_the_contract() {
        let account = Account {
            peer: "127.0.0.1:1".into(),
            outcome: Ok(End::LocalClosed),
            sent: 1,
            received: 2,
            elapsed: Duration::from_micros(1_234_567),
        };
        let (name, fields) = event_fields(&Event::Closed { id: 7, account }).unwrap();
        let line: Value = serde_json::from_str(&json_line(name, fields)).unwrap();
        let names: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["event", "id", "reason", "received", "seconds", "sent", "time"]);
        assert_eq!((&line["event"], &line["seconds"]), (&json!("closed"), &json!(1.235)));
        assert!(event_fields(&Event::Leaked { id: 1, reason: String::new() }).is_none());
    }
}
