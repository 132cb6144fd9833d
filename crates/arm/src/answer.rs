//! What ARM said when it did not answer 200: its error body, and the headers that belong to it. Pure functions
//! over bytes; any input gives some answer. It leaves out what follows from it, which is [`crate::Error`]'s.

use std::fmt;
use std::time::{Duration, SystemTime};

use bastide_core::service_message;
use bastide_net::{Challenge, retry_after};
use http::HeaderMap;
use serde_json::Value;
use url::Url;

/// A refusal of ARM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// ARM's name for the error, such as `ResourceGroupNotFound`.
    pub code: Option<String>,
    /// What it says, on one line.
    pub message: Option<String>,
    /// The id under which Microsoft's support finds the request.
    pub request_id: Option<String>,
    /// How long ARM asks to wait.
    pub retry_after: Option<Duration>,
    /// The tenant whose tokens would be accepted, where a 401 names it.
    pub tenant: Option<String>,
    /// The claims that the next token has to carry, as JSON, where a 401 challenges for them.
    pub claims: Option<String>,
    /// The right that is missing, where a 403 names it.
    pub right: Option<MissingRight>,
}

/// What `AuthorizationFailed` says in the middle of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRight {
    /// Such as `Microsoft.Network/bastionHosts/read`.
    pub action: String,
    /// The id of what it is missing on.
    pub scope: String,
    /// The object id of whoever is signed in.
    pub object_id: Option<String>,
}

impl MissingRight {
    /// The least of the built-in roles that holds it, quoted for a shell
    /// (learn.microsoft.com/azure/role-based-access-control/built-in-roles).
    pub fn role(&self) -> &'static str {
        let action = self.action.to_ascii_lowercase();
        if action.ends_with("/read") {
            "Reader"
        } else if action.starts_with("microsoft.network/") {
            "'Network Contributor'"
        } else {
            "Contributor"
        }
    }
}

impl Answer {
    /// Reads an answer that came at `now`. ARM's own form is `{"error":{"code","message","details":[…]}}`; pages of
    /// proxies and plain text are read too.
    pub(crate) fn read(status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Self {
        let (code, message) = error_of(body);
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let challenge = Challenge::read(headers);
        Self {
            status,
            code,
            right: message.as_deref().and_then(missing_right),
            message: match message {
                Some(message) => service_message(message.as_bytes()),
                None => service_message(body),
            },
            request_id: ["x-ms-request-id", "x-ms-correlation-request-id"]
                .into_iter()
                .find_map(text)
                .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_LIMIT && is_plain(id))
                .map(str::to_owned),
            retry_after: retry_after(headers, now).or_else(|| text(QUOTA_RESETS).and_then(clock)),
            tenant: challenge.parameter(&["authorization_uri", "authorization"]).and_then(tenant_of),
            claims: challenge.claims(),
        }
    }

    /// Whether ARM's name for the error is one of these.
    pub(crate) fn is(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.iter().any(|known| known.eq_ignore_ascii_case(code)))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.message {
            write!(formatter, "{message} ")?;
        }
        write!(formatter, "(status {}", self.status)?;
        if let Some(code) = &self.code {
            write!(formatter, ", {code}")?;
        }
        if let Some(id) = &self.request_id {
            write!(formatter, ", request id {id}")?;
        }
        formatter.write_str(")")
    }
}

/// What Resource Graph says of its quota, as `hh:mm:ss`
/// (learn.microsoft.com/azure/governance/resource-graph/concepts/guidance-for-throttled-requests).
const QUOTA_RESETS: &str = "x-ms-user-quota-resets-after";

fn clock(text: &str) -> Option<Duration> {
    let numbers: Vec<u32> = text.trim().split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    match numbers.as_slice() {
        [hours, minutes, seconds] => Some(Duration::from_secs(
            u64::from(*hours) * 3600 + u64::from(*minutes) * 60 + u64::from(*seconds),
        )),
        _ => None,
    }
}

/// A GUID has 36 characters; some services put several ids into one.
const REQUEST_ID_LIMIT: usize = 128;

/// ARM's codes are words; a body from elsewhere may hold anything there.
const CODE_LIMIT: usize = 100;

/// An ARM id is some hundreds of characters long; what is quoted is shown.
const QUOTED_LIMIT: usize = 1000;

/// Whether a name from outside can stand in a message: one word, and nothing that a terminal would obey.
fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// A name from outside as a message can show it: nothing in it that a terminal would obey, and no longer than a line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(SHOWN_LIMIT).collect()
}

/// Azure's names have at most 80 characters where they are not ids (naming rules of Microsoft.Network).
const SHOWN_LIMIT: usize = 100;

/// Code and full message of an error body.
fn error_of(body: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return (None, None) };
    // Some resource providers leave out the outer object.
    let error = json.get("error").filter(|error| error.is_object()).unwrap_or(&json);
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let detail = error.get("details").and_then(Value::as_array).and_then(|details| details.first());
    let code = text(error, "code").or_else(|| detail.and_then(|detail| text(detail, "code")));
    let message = match (text(error, "message"), detail.and_then(|detail| text(detail, "message"))) {
        (Some(message), Some(detail)) if !message.contains(&detail) => Some(format!("{message} {detail}")),
        (message, detail) => message.or(detail),
    };
    (code.filter(|code| code.len() <= CODE_LIMIT && is_plain(code)), message)
}

/// Out of "The client 'C' with object id 'O' does not have authorization to perform action 'A' over scope 'S' or
/// the scope is invalid.".
fn missing_right(message: &str) -> Option<MissingRight> {
    let quoted = |before: &str| {
        let (_, behind) = message.split_once(before)?;
        let (text, _) = behind.split_once('\'')?;
        (!text.is_empty() && text.len() <= QUOTED_LIMIT && is_plain(text)).then(|| text.to_owned())
    };
    Some(MissingRight {
        action: quoted("perform action '")?,
        scope: quoted("over scope '")?,
        object_id: quoted("with object id '"),
    })
}

/// The tenant in `https://login.windows.net/{tenant}`. Only the name is taken: the address is never asked, since
/// the sign-in has one of its own.
fn tenant_of(authority: &str) -> Option<String> {
    let url = Url::parse(authority).ok()?;
    let tenant = url.path_segments()?.next()?;
    let plain =
        !tenant.is_empty() && tenant.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    let names_one = !["common", "organizations", "consumers"].contains(&tenant);
    (plain && names_one && tenant.len() <= TENANT_LIMIT).then(|| tenant.to_owned())
}

/// A domain name's length (RFC 1035 §2.3.4); a tenant's GUID is shorter.
const TENANT_LIMIT: usize = 253;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let headers =
            headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        Answer::read(status, &headers.collect(), body.as_bytes(), now())
    }

    /// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110 §5.6.7.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    #[test]
    fn a_missing_right_is_named() {
        let answer = read(
            403,
            &[
                ("x-ms-request-id", "11111111-2222-4333-8444-555555555555"),
                ("x-ms-correlation-request-id", "c"),
            ],
            r#"{"error":{"code":"AuthorizationFailed","message":"The client 'ada@contoso.com' with object id '33333333-3333-4333-8333-333333333333' does not have authorization to perform action 'Microsoft.Network/bastionHosts/read' over scope '/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b' or the scope is invalid. If access was recently granted, please refresh your credentials."}}"#,
        );
        assert_eq!(
            answer.right,
            Some(MissingRight {
                action: "Microsoft.Network/bastionHosts/read".into(),
                scope: "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b".into(),
                object_id: Some("33333333-3333-4333-8333-333333333333".into()),
            })
        );
        assert!(answer.is(&["authorizationfailed"]));
        assert!(
            answer.to_string().ends_with(
                "(status 403, AuthorizationFailed, request id 11111111-2222-4333-8444-555555555555)"
            ),
            "{answer}"
        );
    }

    #[test]
    fn the_least_role_that_helps() {
        let check = |action: &str, role: &str| {
            let right = MissingRight { action: action.into(), scope: String::new(), object_id: None };
            assert_eq!(right.role(), role, "{action}");
        };
        check("Microsoft.Network/bastionHosts/read", "Reader");
        check("Microsoft.Network/bastionHosts/getActiveSessions/action", "'Network Contributor'");
        check("Microsoft.Compute/virtualMachines/start/action", "Contributor");
    }

    #[test]
    fn the_tenant_that_is_wanted_is_named() {
        let answer = read(
            401,
            &[(
                "www-authenticate",
                r#"Bearer authorization_uri="https://login.windows.net/bbbbbbbb-0000-4000-8000-000000000000", error="invalid_token", error_description="The access token is from the wrong issuer. It must match the tenant associated with this subscription. Please use correct authority to get the token.""#,
            )],
            r#"{"error":{"code":"InvalidAuthenticationTokenTenant","message":"The access token is from the wrong issuer 'https://sts.windows.net/aaaaaaaa-0000-4000-8000-000000000000/'."}}"#,
        );
        assert_eq!(answer.tenant.as_deref(), Some("bbbbbbbb-0000-4000-8000-000000000000"));
        assert!(answer.is(&["InvalidAuthenticationTokenTenant"]));
    }

    #[test]
    fn a_claims_challenge_is_kept() {
        let answer = read(
            401,
            &[(
                "www-authenticate",
                r#"Bearer authorization_uri="https://login.microsoftonline.com/common", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==""#,
            )],
            "",
        );
        assert_eq!(answer.claims.as_deref(), Some(r#"{"access_token":{}}"#));
        assert_eq!((answer.tenant, answer.message), (None, None));
    }

    #[test]
    fn other_bodies_are_readable() {
        let check = |body: &str, code: Option<&str>, message: Option<&str>| {
            let answer = read(500, &[], body);
            assert_eq!((answer.code.as_deref(), answer.message.as_deref()), (code, message), "{body}");
        };
        check(r#"{"code":"Conflict","message":"busy"}"#, Some("Conflict"), Some("busy"));
        check(
            r#"{"error":{"code":"A","message":"outer","details":[{"code":"B","message":"inner"}]}}"#,
            Some("A"),
            Some("outer inner"),
        );
        check(r#"{"error":{"details":[{"code":"B","message":"inner"}]}}"#, Some("B"), Some("inner"));
        check(r#"{"error":"plain"}"#, None, Some("plain"));
        check(r#"{"error":{"code":"two words","message":7}}"#, None, None);
        check(
            "<html><h2>Our services aren't available right now</h2>",
            None,
            Some("Our services aren't available right now"),
        );
        check(r#"{"error":{"code":"A","mess"#, None, Some(r#"{"error":{"code":"A","mess"#));
        check("", None, None);
        assert_eq!(read(502, &[], "").to_string(), "(status 502)");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let check = |value: &str, seconds: Option<u64>| {
            assert_eq!(
                read(429, &[("retry-after", value)], "").retry_after,
                seconds.map(Duration::from_secs),
                "{value}"
            );
        };
        check("17", Some(17));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sun, 06 Nov 1994 08:49:30 GMT", Some(0));
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999999", "Sun, 06 Nov"] {
            check(nonsense, None);
        }
    }

    #[test]
    fn resource_graph_says_when_its_quota_comes_back() {
        let check = |value: &str, seconds: Option<u64>| {
            let answer = read(429, &[("x-ms-user-quota-resets-after", value)], "");
            assert_eq!(answer.retry_after, seconds.map(Duration::from_secs), "{value}");
        };
        check("00:00:05", Some(5));
        check("01:02:03", Some(3723));
        for nonsense in ["", "5", "00:05", "-1:00:00", "00:00:05:00", "soon"] {
            check(nonsense, None);
        }
        let both = [("retry-after", "7"), ("x-ms-user-quota-resets-after", "00:00:05")];
        assert_eq!(read(429, &both, "").retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn an_address_that_names_no_tenant_is_left_aside() {
        for authority in ["", "https://login.windows.net/", "https://l/common", "https://l/a%2Fb", "no url"] {
            assert_eq!(tenant_of(authority), None, "{authority}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(status: u16, challenge in "[ -~]{0,80}", wait in "[ -~]{0,30}", body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let headers = [("www-authenticate", challenge.as_str()), ("retry-after", wait.as_str())];
            let _ = read(status, &headers, "").to_string();
            let _ = Answer::read(status, &HeaderMap::new(), &body, now()).to_string();
        }

        #[test]
        fn never_panics_on_almost_json(body in r#"[{}\[\]":,a]{0,20}("error"|"code"|"message"|"details")?[{}\[\]":,a]{0,20}"#) {
            let _ = read(400, &[], &body).to_string();
        }
    }
}
