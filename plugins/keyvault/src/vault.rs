//! The way to a vault: tokens, the tenant that it belongs to, and patience when it is throttled. What its refusals
//! mean is `refusal.rs`; the requests are sent by the host.

use std::time::Duration;

use bastide_plugin_abi::{Failure, HttpAnswer, HttpRequest, Token, TokenRequest};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::refusal::Refusal;

/// What the host does for the plugin.
pub(crate) trait Host {
    /// A token of the user's own sign-in to Azure.
    fn token(&self, request: &TokenRequest<'_>) -> Result<Token, Failure>;

    /// Sends a request.
    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, Failure>;

    /// How long the host will wait.
    fn remaining(&self) -> Duration;

    /// Waits, unless the host gives the call up.
    fn pause(&self, time: Duration) -> Result<(), Failure>;

    /// Writes to the log.
    fn note(&self, message: &str);
}

/// A vault.
pub(crate) struct Vault {
    /// `https://HOST[:PORT]`
    url: String,
    host: String,
    resource: String,
    /// The tenant that it said it belongs to; the host's default before.
    tenant: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// There is no way to the vault, or no token.
    Failed(Failure),
    /// It said no.
    Refused(Refusal),
}

/// The oldest version that serves everything that is asked, and which all clouds have (Key Vault REST API versions).
const API_VERSION: &str = "7.4";

/// Waits before a request is sent again, where the vault names none: the steps of "Azure Key Vault throttling
/// guidance", as far as somebody who waits for a shell has patience.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// What is left of the host's time for the request itself after a wait.
const TIME_TO_ASK: Duration = Duration::from_secs(1);

impl Vault {
    /// `url` is an origin, `resource` what tokens have to be for.
    pub(crate) fn new(url: String, host: String, resource: String) -> Self {
        Self { url, host, resource, tenant: None }
    }

    /// The host, without port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// What the Azure CLI calls it.
    pub(crate) fn name(&self) -> &str {
        self.host.split('.').next().unwrap_or_default()
    }

    /// What its tokens are for.
    #[cfg(test)]
    pub(crate) fn resource(&self) -> &str {
        &self.resource
    }

    /// `GET` of a path.
    pub(crate) fn get<T: DeserializeOwned>(&mut self, host: &dyn Host, path: &str) -> Result<T, Trouble> {
        self.ask(host, "GET", path, &[])
    }

    /// `POST` of JSON to a path.
    pub(crate) fn post<T: DeserializeOwned>(
        &mut self,
        host: &dyn Host,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, Trouble> {
        self.ask(host, "POST", path, body.to_string().as_bytes())
    }

    fn ask<T: DeserializeOwned>(
        &mut self,
        host: &dyn Host,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<T, Trouble> {
        let answer = self.answer(host, method, path, body)?;
        // It may be a secret.
        let body = Zeroizing::new(answer.body);
        serde_json::from_slice(&body)
            .map_err(|_| Trouble::Refused(Refusal::said(200, "the answer cannot be read")))
    }

    fn answer(
        &mut self,
        host: &dyn Host,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<HttpAnswer, Trouble> {
        let url = format!("{}{path}?api-version={API_VERSION}", self.url);
        let scope = format!("{}/.default", self.resource);
        let mut waits = WAITS.iter();
        let mut fresh = false;
        let mut moved = false;
        loop {
            let tenant = self.tenant.as_deref();
            let request = TokenRequest { scope: &scope, tenant, fresh, ..TokenRequest::default() };
            let token = Zeroizing::new(host.token(&request).map_err(Trouble::Failed)?.text);
            let bearer = Zeroizing::new(format!("Bearer {}", *token));
            let mut headers = vec![("Authorization", bearer.as_str()), ("Accept", "application/json")];
            if !body.is_empty() {
                headers.push(("Content-Type", "application/json"));
            }
            let request = HttpRequest { method, url: &url, headers: &headers, body };
            let answer = host.send(&request).map_err(Trouble::Failed)?;
            match answer.status {
                200 => return Ok(answer),
                401 => match tenant_of(&answer) {
                    Some(named) if !moved && self.tenant.as_deref() != Some(named) => {
                        host.note(&format!("{} is of the tenant {named}", self.host));
                        self.tenant = Some(named.to_owned());
                        moved = true;
                    }
                    _ if !fresh => fresh = true,
                    named => return Err(Trouble::Refused(Refusal::read(&answer).of_tenant(named))),
                },
                429 | 500..=599 => {
                    let refused = Refusal::read(&answer);
                    let Some(own) = waits.next() else { return Err(Trouble::Refused(refused)) };
                    let wait = retry_after(&answer).unwrap_or(*own);
                    if wait + TIME_TO_ASK > host.remaining() {
                        return Err(Trouble::Refused(refused.after(wait)));
                    }
                    host.note(&format!(
                        "{} answered with status {}: again in {} s",
                        self.host,
                        answer.status,
                        wait.as_secs()
                    ));
                    host.pause(wait).map_err(Trouble::Failed)?;
                }
                _ => return Err(Trouble::Refused(Refusal::read(&answer))),
            }
        }
    }
}

/// Key Vault says seconds.
fn retry_after(answer: &HttpAnswer) -> Option<Duration> {
    answer.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
}

/// The tenant in `WWW-Authenticate: Bearer authorization="https://login.microsoftonline.com/TENANT", resource="…"`.
fn tenant_of(answer: &HttpAnswer) -> Option<&str> {
    let (_, rest) = answer.header("www-authenticate")?.split_once("authorization=\"")?;
    let (authority, _) = rest.split_once('"')?;
    let tenant = authority.trim_end_matches('/').rsplit('/').next()?;
    // It becomes part of an address, so it has to be an id or a domain.
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (!tenant.is_empty() && !tenant.contains("..") && tenant.bytes().all(is_name)).then_some(tenant)
}

#[cfg(test)]
mod tests {
    use bastide_plugin_abi::HttpAnswer;
    use serde_json::{Value, json};

    use super::*;
    use crate::desk::{Desk, challenge, refusal};

    #[test]
    fn a_request_says_who_asks_and_which_version() {
        let desk = Desk::answering([(200, json!({}))]);
        desk.vault().get::<Value>(&desk, "/keys/ssh").unwrap();
        assert_eq!(
            desk.requests(),
            ["GET https://contoso.vault.azure.net/keys/ssh?api-version=7.4 Bearer token-1"]
        );
        assert_eq!(desk.tokens(), ["https://vault.azure.net/.default"]);
    }

    #[test]
    fn the_tenant_that_the_vault_names_is_asked_for_then_a_fresh_token() {
        let desk = Desk::answering([(200, json!({}))]);
        let denied = || challenge("https://login.windows.net/22222222-aaaa-4aaa-8aaa-222222222222");
        desk.before([denied(), denied()]);
        let mut vault = desk.vault();
        vault.get::<Value>(&desk, "/keys/ssh").unwrap();
        let named = "https://vault.azure.net/.default tenant 22222222-aaaa-4aaa-8aaa-222222222222";
        assert_eq!(desk.tokens(), ["https://vault.azure.net/.default", named, &format!("{named} fresh")]);
        // It is remembered, and after a third refusal there is no fourth request.
        desk.before([denied(), denied(), denied()]);
        let Err(Trouble::Refused(refused)) = vault.get::<Value>(&desk, "/keys/ssh") else {
            panic!("granted")
        };
        assert_eq!(refused.status, 401);
        assert_eq!(desk.tokens().len(), 5);
    }

    #[test]
    fn tenants_in_challenges() {
        #[track_caller]
        fn check(header: &str, expected: Option<&str>) {
            let headers = vec![("www-authenticate".to_owned(), header.to_owned())];
            assert_eq!(tenant_of(&HttpAnswer { status: 401, headers, ..HttpAnswer::default() }), expected);
        }
        check(
            r#"Bearer authorization="https://login.windows.net/t-1", resource="https://vault.azure.net""#,
            Some("t-1"),
        );
        check(
            r#"Bearer resource="r", authorization="https://login.windows.net/contoso.com/""#,
            Some("contoso.com"),
        );
        check(r#"Bearer authorization="https://login.windows.net/../x""#, Some("x"));
        check(r#"Bearer authorization="https://login.windows.net/..""#, None);
        check(r#"Bearer authorization="https://login.windows.net/a?b""#, None);
        check("Bearer", None);
    }

    #[test]
    fn a_throttled_vault_is_given_the_time_it_asks_for() {
        let desk = Desk::answering([(200, json!({}))]);
        let throttled = |after: Option<&str>| {
            let mut answer = refusal(429, "Throttled", "too many requests", None);
            answer.headers.extend(after.map(|after| ("retry-after".to_owned(), after.to_owned())));
            answer
        };
        desk.before([throttled(Some("3")), throttled(None), refusal(503, "x", "y", None)]);
        desk.vault().get::<Value>(&desk, "/keys/ssh").unwrap();
        assert_eq!(desk.pauses(), [Duration::from_secs(3), Duration::from_secs(2), Duration::from_secs(4)]);
        // Four are enough.
        desk.before([throttled(None), throttled(None), throttled(None), throttled(None)]);
        let refused = desk.vault().get::<Value>(&desk, "/keys/ssh");
        assert!(matches!(refused, Err(Trouble::Refused(Refusal { status: 429, after: None, .. }))));
        // More time than there is.
        desk.before([throttled(Some("120"))]);
        let refused = desk.vault().get::<Value>(&desk, "/keys/ssh");
        let expected = Some(Duration::from_secs(120));
        assert!(
            matches!(refused, Err(Trouble::Refused(Refusal { status: 429, after, .. })) if after == expected)
        );
    }
}
