//! How orders are written: as a table in a scenario or in JSON, and as one word on a command line.
//! Both go through the same derived `Deserialize`, so that they can't differ. What they mean is
//! `mod.rs`.

use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{At, Ending, Fault, Form, Order};

/// Why an order can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Error {
    // Told as a text: clap shows an error without its sources.
    reason: String,
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Order, D::Error> {
        order(Map::deserialize(from)?).map_err(de::Error::custom)
    }
}

impl FromStr for Order {
    type Err = Error;

    /// Reads `NAME[:KEY=VALUE[,KEY=VALUE]…]`. A part without `=` belongs to the value before it, so that a
    /// date may hold a comma.
    fn from_str(text: &str) -> Result<Order, Error> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut pairs: Vec<(&str, String)> = vec![("fault", name.to_owned())];
        for part in rest.split(',').filter(|_| !rest.is_empty()) {
            match (part.split_once('='), pairs.last_mut()) {
                (Some((key, value)), _) => pairs.push((key, value.to_owned())),
                (None, Some((_, value))) => {
                    value.push(',');
                    value.push_str(part);
                }
                (None, None) => {}
            }
        }
        let value = |text: String| text.parse::<u64>().map_or(Value::String(text), Value::from);
        let table = pairs.into_iter().map(|(key, text)| (key.to_owned(), value(text))).collect();
        order(table).map_err(|fault| Error { reason: fault.to_string() })
    }
}

/// A key that the fault does not know is one that it does not say back.
fn order(mut table: Map<String, Value>) -> Result<Order, serde_json::Error> {
    let times = table.remove("times").filter(|times| !times.is_null());
    let times: Option<u32> = times.map(serde_json::from_value).transpose()?;
    let fault: Fault = serde_json::from_value(Value::Object(table.clone()))?;
    let known = serde_json::to_value(&fault)?;
    match table.keys().find(|key| known.get(key.as_str()).is_none()) {
        Some(key) => Err(de::Error::custom(format!("`{}` has no `{key}`", fault.name()))),
        None => Ok(Order { fault, times }),
    }
}

/// What the live service says when it does not say why (protocol.md §4).
pub(super) fn catch_all() -> String {
    "Unexpected internal error".into()
}

/// A status that ends a request.
pub(super) fn status<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(from)?;
    match (200..=599).contains(&status) {
        true => Ok(status),
        false => Err(de::Error::custom(format!("status {status} is not between 200 and 599"))),
    }
}

/// A text, or a number that stands for its digits.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Option::<Value>::deserialize(from)? {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(other) => Some(other.to_string()),
    })
}

impl TryFrom<String> for Ending {
    type Error = String;

    fn try_from(text: String) -> Result<Ending, String> {
        Ok(match text.as_str() {
            "close_notify" => Ending::CloseNotify,
            "fin" => Ending::Fin,
            "reset" => Ending::Reset,
            "truncated" => Ending::Truncated,
            "garbage" => Ending::Garbage,
            other => match other.strip_prefix("close:").and_then(|code| code.parse().ok()) {
                // RFC 6455 section 7.4.2.
                Some(code @ 1000..=4999) => Ending::Close(code),
                _ => {
                    return Err(format!(
                        "unknown end `{other}`: expected close:CODE, close_notify, fin, reset, truncated or garbage"
                    ));
                }
            },
        })
    }
}

impl From<Ending> for String {
    fn from(ending: Ending) -> String {
        match ending {
            Ending::Close(code) => format!("close:{code}"),
            Ending::CloseNotify => "close_notify".into(),
            Ending::Fin => "fin".into(),
            Ending::Reset => "reset".into(),
            Ending::Truncated => "truncated".into(),
            Ending::Garbage => "garbage".into(),
        }
    }
}

impl TryFrom<String> for At {
    type Error = String;

    fn try_from(text: String) -> Result<At, String> {
        let wrong = || format!("unknown point `{text}`: expected upgrade, vm:BYTES, client:BYTES or now");
        match text.split_once(':') {
            None if text == "upgrade" => Ok(At::Upgrade),
            None if text == "now" => Ok(At::Now),
            Some(("vm", bytes)) => bytes.parse().map(At::Vm).map_err(|_| wrong()),
            Some(("client", bytes)) => bytes.parse().map(At::Client).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl From<At> for String {
    fn from(at: At) -> String {
        match at {
            At::Upgrade => "upgrade".into(),
            At::Vm(bytes) => format!("vm:{bytes}"),
            At::Client(bytes) => format!("client:{bytes}"),
            At::Now => "now".into(),
        }
    }
}

impl TryFrom<String> for Form {
    type Error = String;

    fn try_from(text: String) -> Result<Form, String> {
        Ok(match text.as_str() {
            "text" => Form::Text,
            "fragmented" => Form::Fragmented,
            "empty" => Form::Empty,
            "pings" => Form::Pings,
            other => match other.strip_prefix("large:").and_then(|bytes| bytes.parse().ok()) {
                Some(bytes) => Form::Large(bytes),
                None => {
                    return Err(format!(
                        "unknown form `{other}`: expected text, fragmented, empty, pings or large:BYTES"
                    ));
                }
            },
        })
    }
}

impl From<Form> for String {
    fn from(form: Form) -> String {
        match form {
            Form::Text => "text".into(),
            Form::Fragmented => "fragmented".into(),
            Form::Empty => "empty".into(),
            Form::Pings => "pings".into(),
            Form::Large(bytes) => format!("large:{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The same order as a word and as a table, and back.
    #[track_caller]
    fn check(word: &str, table: Value) {
        let order: Order = word.parse().unwrap();
        assert_eq!(order, serde_json::from_value(table.clone()).unwrap(), "{word}");
        let name = order.fault.name();
        assert_eq!(table["fault"], name);
        assert!(include_str!("../../README.md").contains(&format!("`{name}`")), "{name}");
        let written = serde_json::to_value(&order).unwrap();
        assert_eq!(order, serde_json::from_value(written.clone()).unwrap(), "{written}");
        for (key, value) in table.as_object().unwrap() {
            assert_eq!(written[key], *value, "{word}: {key}");
        }
        let toml: String =
            table.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        assert_eq!(order, toml::from_str(&toml).unwrap(), "{toml}");
    }

    #[test]
    fn words_and_tables() {
        for name in ["ping_reset", "ping_ignored", "expired_tokens"] {
            check(name, json!({ "fault": name }));
        }
        check("half:on=token", json!({"fault": "half", "on": "token"}));
        check("reset:on=upgrade", json!({"fault": "reset", "on": "upgrade"}));
        check(
            "status:on=mint,status=503,times=2",
            json!({"fault": "status", "on": "mint", "status": 503, "times": 2}),
        );
        check(
            "status:on=arm,path=/bastionHosts,status=429,retry_after=Wed, 21 Oct 2026 07:28:00 GMT,body=html",
            json!({
                "fault": "status", "on": "arm", "path": "/bastionHosts", "status": 429, "body": "html",
                "retry_after": "Wed, 21 Oct 2026 07:28:00 GMT",
            }),
        );
        check("hold:on=release", json!({"fault": "hold", "on": "release"}));
        check(
            "ending:how=close:1011,at=vm:4096",
            json!({"fault": "ending", "how": "close:1011", "at": "vm:4096"}),
        );
        check(
            "silence:at=now,direction=to_client",
            json!({"fault": "silence", "at": "now", "direction": "to_client"}),
        );
        check("raw_page:piece=1,then=stay", json!({"fault": "raw_page", "piece": 1, "then": "stay"}));
        check("frames:form=large:65536", json!({"fault": "frames", "form": "large:65536"}));
        check("handshake:flaw=no_headers", json!({"fault": "handshake", "flaw": "no_headers"}));
        check(
            "missing_field:on=mint,field=nodeId",
            json!({"fault": "missing_field", "on": "mint", "field": "nodeId"}),
        );
        let numbers: Order = "status:on=mint,status=429,retry_after=3600".parse().unwrap();
        assert_eq!(serde_json::to_value(numbers).unwrap()["retry_after"], "3600");
    }

    #[test]
    fn says_what_is_wrong() {
        #[track_caller]
        fn check(word: &str, expected: &str) {
            let said = word.parse::<Order>().unwrap_err().to_string();
            assert!(said.contains(expected), "`{expected}` is not in: {said}");
        }
        check("sing", "unknown variant `sing`");
        check("ping_reset:loudly=yes", "`ping_reset` has no `loudly`");
        check("half", "`on`");
        check("half:on=mint,paht=x", "`half` has no `paht`");
        check("half:on=mint,times=often", "invalid type");
        check("status:on=mint,status=101", "not between 200 and 599");
        check("ending:how=close:99", "unknown end `close:99`");
        check("ending:how=fin,at=vm:x", "unknown point `vm:x`");
        check("frames:form=large:0", "unknown form `large:0`");
    }
}
