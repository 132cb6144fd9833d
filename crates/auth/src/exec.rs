//! Any program that prints a token: the provider `exec`, in the manner of kubectl's credential plugins. It leaves out
//! which program; that is the user's line for the shell.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Freshness, Provider, Secret, TokenRequest, service_message};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{Setup, child, sys};

/// A program that prints `{"access_token": …, "expires_on": …}`, the end in RFC 3339 or in seconds since 1970.
///
/// It is told what is wanted by `BASTIDE_EXEC_SCOPE`, `BASTIDE_EXEC_TENANT`, `BASTIDE_EXEC_CLAIMS` and, when a token
/// of its own cache won't do, `BASTIDE_EXEC_FRESH=1`. What it writes to standard error is shown when it fails; what
/// it prints never is.
#[derive(Debug)]
pub struct Exec {
    line: String,
    time_limit: Duration,
}

pub(crate) const NAME: &str = "exec";

/// As long as the Azure CLI may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);

impl Exec {
    /// The setup's command.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] without one.
    pub fn new(setup: &Setup) -> Result<Self, AuthError> {
        let line = setup.exec_command.clone().filter(|line| !line.trim().is_empty());
        let reason = || "without --exec-command or BASTIDE_EXEC_CREDENTIAL".to_owned();
        let line = line.ok_or_else(|| AuthError::Unavailable { provider: NAME.into(), reason: reason() })?;
        Ok(Self { line, time_limit: TIME_LIMIT })
    }
}

#[async_trait]
impl Provider for Exec {
    fn name(&self) -> &str {
        NAME
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        if request.certificate.is_some() {
            return Err(AuthError::Unsupported { provider: NAME.into(), what: "an SSH certificate".into() });
        }
        let mut command = sys::shell(&self.line);
        let fresh = (request.freshness == Freshness::New).then_some("1");
        for (name, value) in [
            ("BASTIDE_EXEC_SCOPE", Some(request.scope.as_str())),
            ("BASTIDE_EXEC_TENANT", request.tenant.as_deref()),
            ("BASTIDE_EXEC_CLAIMS", request.claims.as_deref()),
            ("BASTIDE_EXEC_FRESH", fresh),
        ] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = match tokio::time::timeout(self.time_limit, child::output(command)).await {
            Ok(output) => output.map_err(|failure| refused(failure.to_string()))?,
            Err(_) => return Err(AuthError::TimedOut { provider: NAME.into(), after: self.time_limit }),
        };
        if !output.status.success() {
            let said = service_message(&output.stderr).map_or_else(String::new, |said| format!(": {said}"));
            return Err(refused(format!("the command ended with {}{said}", output.status)));
        }
        // What it printed stays out: it might be half a token.
        read(&output.stdout).ok_or_else(|| {
            refused("the command printed something else than {\"access_token\", \"expires_on\"}".into())
        })
    }
}

fn refused(message: String) -> AuthError {
    AuthError::Refused {
        provider: NAME.into(),
        message,
        hint: Some("run the command of --exec-command (BASTIDE_EXEC_CREDENTIAL) by itself to see why".into()),
    }
}

#[derive(Deserialize)]
struct Printed {
    access_token: String,
    expires_on: serde_json::Value,
}

pub(crate) fn read(stdout: &[u8]) -> Option<AccessToken> {
    let Printed { access_token, expires_on } = serde_json::from_slice(stdout).ok()?;
    let text = match &expires_on {
        serde_json::Value::String(text) => text.clone(),
        number => number.as_u64()?.to_string(),
    };
    let expires_on = match text.parse() {
        Ok(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?,
        Err(_) => OffsetDateTime::parse(&text, &Rfc3339).ok()?.into(),
    };
    (!access_token.is_empty()).then(|| AccessToken { secret: Secret::new(access_token), expires_on })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::test_server::{Server, setup};

    async fn exec(line: &str) -> Exec {
        let server = Server::start(Vec::new()).await;
        Exec::new(&Setup { exec_command: Some(line.into()), ..setup(&server, &[]) }).unwrap()
    }

    #[tokio::test]
    async fn the_command_is_told_what_is_wanted() {
        let line = r#"printf '{"access_token":"%s","expires_on":4102444800}' "$BASTIDE_EXEC_SCOPE $BASTIDE_EXEC_TENANT $BASTIDE_EXEC_FRESH""#;
        let request =
            TokenRequest { tenant: Some("t".into()), freshness: Freshness::New, ..TokenRequest::new("s") };
        let token = exec(line).await.access_token(&request).await.unwrap();
        assert_eq!(token.secret.expose(), "s t 1");
    }

    #[test]
    fn both_kinds_of_time_are_read() {
        let check = |text: &str, seconds: Option<u64>| {
            let end = read(text.as_bytes()).map(|token| token.expires_on);
            let expected = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(end, expected, "{text}");
        };
        check(r#"{"access_token":"a","expires_on":1800000000}"#, Some(1_800_000_000));
        check(r#"{"access_token":"a","expires_on":"1800000000"}"#, Some(1_800_000_000));
        check(r#"{"access_token":"a","expires_on":"2027-01-15T08:00:00Z","more":1}"#, Some(1_800_000_000));
        check(r#"{"access_token":"a","expires_on":"2027-01-15T09:00:00+01:00"}"#, Some(1_800_000_000));
        for text in [
            "",
            "{}",
            r#"{"access_token":"a"}"#,
            r#"{"access_token":"","expires_on":1}"#,
            r#"{"access_token":"a","expires_on":"soon"}"#,
            r#"{"access_token":"a","expires_on":-1}"#,
            r#"{"access_token":"a","expires_on":18446744073709551615}"#,
        ] {
            check(text, None);
        }
    }

    #[tokio::test]
    async fn failures_show_standard_error_alone() {
        let ask =
            async |line: &str| exec(line).await.access_token(&TokenRequest::new("s")).await.unwrap_err();
        let error = ask("echo hunter2; echo 'vault is sealed' >&2; exit 3").await;
        assert_eq!(
            error.to_string(),
            "exec was refused: the command ended with exit status: 3: vault is sealed"
        );
        let error = ask("echo hunter2").await;
        assert!(!format!("{error:?} {error}").contains("hunter2"));
        let error = ask("cat /dev/zero").await;
        assert!(error.to_string().contains("it printed more than"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended() {
        let hanging = Exec { time_limit: Duration::ZERO, ..exec("sleep 1000").await };
        let error = hanging.access_token(&TokenRequest::new("s")).await.unwrap_err();
        assert!(matches!(error, AuthError::TimedOut { .. }), "{error}");
    }

    #[tokio::test]
    async fn without_a_command_it_is_not_set_up() {
        let server = Server::start(Vec::new()).await;
        let error = Exec::new(&setup(&server, &[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "exec is not set up: without --exec-command or BASTIDE_EXEC_CREDENTIAL"
        );
    }
}
