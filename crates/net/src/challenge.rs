//! What an answer of 401 wants to see instead (`WWW-Authenticate`): one reading of the header for everybody who sends
//! tokens. Any header gives some challenge. What is done about it is the caller's to decide.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// The parameters of a challenge (RFC 9110 §11.6.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Reads the first challenge of an answer; without one there are no parameters. Schemes are skipped: Azure's
    /// services send one `Bearer`.
    pub fn read(headers: &HeaderMap) -> Self {
        let text = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self { parameters: parameters(text) }
    }

    /// The value of the first parameter that has one of these names, which are in lower case.
    pub fn parameter(&self, names: &[&str]) -> Option<&str> {
        let found = self.parameters.iter().find(|(name, _)| names.contains(&name.as_str()));
        found.map(|(_, value)| value.as_str())
    }

    /// The claims that the next token has to carry, as JSON. They come in base64, with or without padding, in either
    /// alphabet (learn.microsoft.com/entra/identity-platform/claims-challenge).
    pub fn claims(&self) -> Option<String> {
        let text = self.parameter(&["claims"])?;
        let text = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
        String::from_utf8(BASE64_STANDARD_NO_PAD.decode(text).ok()?).ok()
    }
}

fn parameters(challenge: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = challenge;
    loop {
        rest = rest.trim_start_matches(|c: char| !is_token(c));
        if rest.is_empty() {
            return found;
        }
        let (name, behind) = rest.split_at(rest.find(|c| !is_token(c)).unwrap_or(rest.len()));
        rest = behind;
        let Some(value) = behind.trim_start().strip_prefix('=').map(str::trim_start) else { continue };
        let value = match value.strip_prefix('"') {
            Some(quoted) => {
                let mut text = String::new();
                let mut characters = quoted.chars();
                loop {
                    match characters.next() {
                        None | Some('"') => break,
                        Some('\\') => text.extend(characters.next()),
                        Some(character) => text.push(character),
                    }
                }
                rest = characters.as_str();
                text
            }
            None => {
                let (text, behind) = value
                    .split_at(value.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(value.len()));
                rest = behind;
                text.to_owned()
            }
        };
        found.push((name.to_ascii_lowercase(), value));
    }
}

/// RFC 9110 §5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(challenge: &str) -> Challenge {
        Challenge::read(&HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge.parse().unwrap())]))
    }

    #[test]
    fn challenges_are_read_however_they_are_written() {
        let check = |challenge: &str, expected: &[(&str, &str)]| {
            let found = read(challenge).parameters;
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{challenge}");
        };
        check(r#"Bearer realm="a,b=c", Claims = "x\"y""#, &[("realm", "a,b=c"), ("claims", "x\"y")]);
        check("Bearer a=b,c=d", &[("a", "b"), ("c", "d")]);
        check(r#"Bearer a="unclosed"#, &[("a", "unclosed")]);
        check("Bearer", &[]);
        check("", &[]);
        assert_eq!(Challenge::read(&HeaderMap::new()), Challenge::default());
    }

    #[test]
    fn claims_come_in_base64_of_any_kind() {
        let check = |text: &str, expected: Option<&str>| {
            let challenge = read(&format!(r#"Bearer error="insufficient_claims", claims="{text}""#));
            assert_eq!(challenge.claims().as_deref(), expected, "{text}");
        };
        check("eyJhY2Nlc3NfdG9rZW4iOnt9fQ==", Some(r#"{"access_token":{}}"#));
        check("eyJhY2Nlc3NfdG9rZW4iOnt9fQ", Some(r#"{"access_token":{}}"#));
        check("eyJhIjoiPz8_In0", Some(r#"{"a":"???"}"#));
        check("eyJhIjoiPz8/In0=", Some(r#"{"a":"???"}"#));
        check("%7B%7D", None);
        check("//79", None);
        assert_eq!(read(r#"Bearer error="invalid_token""#).claims(), None);
    }

    proptest! {
        #[test]
        fn any_header_gives_some_challenge(text in "[ -~]{0,80}") {
            let _ = read(&text).claims();
        }

        #[test]
        fn every_parameter_is_read_back(pairs in proptest::collection::vec(("[a-z_]{1,8}", "[ -~]{0,10}"), 0..5)) {
            let written: Vec<_> = pairs
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            prop_assert_eq!(parameters(&format!("Bearer {}", written.join(", "))), pairs);
        }
    }
}
