//! How long a service asks to be left alone. One reading of the header for everybody who sends requests; whether
//! such a wait is worth while is the caller's to decide.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The wait that `Retry-After` asks for (RFC 9110 §10.2.3), in an answer that came at `now`: seconds, or a date; a
/// date that has passed is no wait. Nonsense counts as absent. The wait may be of any length.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_its_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value: &str, expected: Option<u64>| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value}");
        };
        check("0", Some(0));
        check("1", Some(1));
        check(" 3600 ", Some(3600));
        // RFC 9110 §5.6.7's own example, a minute on; then a minute before, and its two obsolete forms.
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:48:37 GMT", Some(0));
        check("Sunday, 06-Nov-94 08:50:37 GMT", Some(60));
        check("Sun Nov  6 08:50:37 1994", Some(60));
        for nonsense in ["", "soon", "-1", "1.5", "1 s", "99999999999999999999999", "Sun, 06 Nov 1994"] {
            check(nonsense, None);
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
