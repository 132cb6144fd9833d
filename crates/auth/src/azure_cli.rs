//! The Azure CLI's sign-in, by `azure_identity`: `az account get-access-token`, with a time limit, a bound on its
//! output, and nothing left running. It leaves out the CLI's files; who is signed in there is for `az` to know.

use std::ffi::OsStr;
use std::io;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential as _;
use azure_identity::{AzureCliCredential, AzureCliCredentialOptions, Executor};
use bastide_core::{AccessToken, AuthError, Provider, Secret, TokenRequest};
use tokio::process::Command;

use crate::credential::unsupported;
use crate::transport::root;
use crate::{Environment, child, entra};

/// Whoever is signed in with `az login`: the provider `azure-cli`.
///
/// `az` keeps a cache of its own that nothing outside can pass by, so [`bastide_core::Freshness::New`] may bring the
/// same token again.
pub struct AzureCli {
    tenant: Option<String>,
    executor: Arc<Az>,
    time_limit: Duration,
}

impl AzureCli {
    /// The CLI found in the `PATH` of `environment`, for `tenant`, or for the one of its default subscription.
    pub fn new(environment: &Environment, tenant: Option<&str>) -> Self {
        let variables = ["PATH", "AZURE_CONFIG_DIR"]
            .into_iter()
            .filter_map(|name| Some((name, environment.get(name)?.to_owned())))
            .collect();
        Self {
            tenant: tenant.map(str::to_owned),
            executor: Arc::new(Az { variables }),
            time_limit: TIME_LIMIT,
        }
    }
}

pub(crate) const NAME: &str = "azure-cli";

/// Twice to three times what the Azure SDKs allow `az` (10 s in Python's, 13 s in .NET's): it needs seconds on a
/// slow disk, and half of what [`crate::CacheOptions::time_limit`] allows everybody.
const TIME_LIMIT: Duration = Duration::from_secs(30);

#[async_trait]
impl Provider for AzureCli {
    fn name(&self) -> &str {
        NAME
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        unsupported(NAME, request)?;
        let tenant = request.tenant.as_ref().or(self.tenant.as_ref());
        let refused = |message: String, hint: Option<String>| AuthError::Refused {
            provider: NAME.into(),
            message,
            hint,
        };
        let options = AzureCliCredentialOptions {
            tenant_id: tenant.cloned(),
            executor: Some(Arc::clone(&self.executor) as Arc<dyn Executor>),
            ..AzureCliCredentialOptions::default()
        };
        // It complains of a malformed tenant.
        let credential =
            AzureCliCredential::new(Some(options)).map_err(|error| refused(error.to_string(), None))?;
        let token = match tokio::time::timeout(self.time_limit, credential.get_token(&[&request.scope], None))
            .await
        {
            Ok(Ok(token)) if !token.token.secret().is_empty() => token,
            // The parser's own words stay out: they may quote what it read.
            Ok(Ok(_)) => return Err(refused("its answer holds no token".into(), Some(UPGRADE.into()))),
            Ok(Err(error)) => {
                return Err(match root::<Failure>(error) {
                    Some(failure) => failure.into_auth_error(tenant.map(String::as_str)),
                    None => {
                        refused("its answer is not the JSON that was expected".into(), Some(UPGRADE.into()))
                    }
                });
            }
            Err(_) => return Err(AuthError::TimedOut { provider: NAME.into(), after: self.time_limit }),
        };
        Ok(AccessToken { secret: Secret::new(token.token.secret()), expires_on: token.expires_on.into() })
    }
}

const UPGRADE: &str =
    "see what `az account get-access-token -o json` prints; Azure CLI 2.54 or newer is needed";

/// Why `az` gave no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("`az` is not in PATH")]
    Missing,
    #[error("it ended with {status} and {}", .message.as_deref().unwrap_or("without a word"))]
    Ended { status: String, message: Option<String> },
    #[error(transparent)]
    Child(#[from] child::Failure),
}

impl Failure {
    fn into_auth_error(self, tenant: Option<&str>) -> AuthError {
        let unavailable = |reason: String| AuthError::Unavailable { provider: NAME.into(), reason };
        match self {
            Failure::Missing | Failure::Child(child::Failure::Unstartable(_)) => {
                unavailable(self.to_string())
            }
            // Signed in and refused has a code; never signed in has none, and the advice to run `az login`.
            Failure::Ended { message: Some(message), .. }
                if entra::code(&message).is_none() && message.contains("az login") =>
            {
                unavailable(format!("nobody is signed in there: {message}"))
            }
            Failure::Ended { message: Some(message), .. } => AuthError::Refused {
                provider: NAME.into(),
                hint: entra::hint(&message, NAME, tenant),
                message,
            },
            Failure::Ended { .. } | Failure::Child(_) => AuthError::Refused {
                provider: NAME.into(),
                message: self.to_string(),
                hint: Some(UPGRADE.into()),
            },
        }
    }
}

/// Runs what `azure_identity` wants run: `/bin/sh -c 'cd /bin && az …'`, or `cmd /C` on Windows.
#[derive(Debug)]
struct Az {
    /// What differs from the process's own environment.
    variables: Vec<(&'static str, String)>,
}

#[async_trait]
impl Executor for Az {
    async fn run(&self, program: &OsStr, arguments: &[&OsStr]) -> io::Result<Output> {
        self.output(program, arguments).await.map_err(io::Error::other)
    }
}

impl Az {
    async fn output(&self, program: &OsStr, arguments: &[&OsStr]) -> Result<Output, Failure> {
        let mut command = Command::new(program);
        command.args(arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = child::output(command).await?;
        let Output { status, stderr, .. } = &output;
        if status.success() {
            return Ok(output);
        }
        let text = String::from_utf8_lossy(stderr);
        // 127 is the shell's "not found" (POSIX.1-2024, Shell, 2.8.2); cmd says it in words.
        if status.code() == Some(127) || text.contains("' is not recognized") {
            return Err(Failure::Missing);
        }
        Err(Failure::Ended { status: status.to_string(), message: entra::tool_message(&text) })
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::*;

    const SCOPE: &str = "https://management.azure.com/.default";

    /// A folder with an `az` that runs these lines of shell; `$0.log` receives its arguments.
    fn az(script: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let draft = folder.path().join("draft");
        fs::write(&draft, format!("#!/bin/sh\necho \"$@\" > \"$0.log\"\n{script}\n")).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        // By another process: a descriptor for writing in this one could be inherited by the child of a test beside
        // this one, and the script would be "busy".
        let copy =
            std::process::Command::new("cp").arg("-p").arg(&draft).arg(folder.path().join("az")).status();
        assert!(copy.unwrap().success());
        folder
    }

    fn provider(folder: &Path) -> AzureCli {
        let path = format!("{}:/usr/bin:/bin", folder.display());
        AzureCli::new(&[("PATH", path)].into_iter().collect(), None)
    }

    async fn error_of(script: &str) -> AuthError {
        let folder = az(script);
        provider(folder.path()).access_token(&TokenRequest::new(SCOPE)).await.unwrap_err()
    }

    #[tokio::test]
    async fn asks_az_for_scope_and_tenant() {
        let folder = az(
            r#"echo '{"accessToken":"the token","expiresOn":"2033-05-18 03:33:20.000000","expires_on":2000000000,"subscription":"s","tenant":"t","tokenType":"Bearer"}'"#,
        );
        let log = || fs::read_to_string(folder.path().join("az.log")).unwrap();
        let provider = provider(folder.path());
        let token = provider.access_token(&TokenRequest::new(SCOPE)).await.unwrap();
        assert_eq!(token.secret.expose(), "the token");
        assert_eq!(token.expires_on, SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000));
        assert_eq!(log(), format!("account get-access-token -o json --scope {SCOPE}\n"));
        let request = TokenRequest { tenant: Some("t1".into()), ..TokenRequest::new(SCOPE) };
        provider.access_token(&request).await.unwrap();
        assert_eq!(log(), format!("account get-access-token -o json --scope {SCOPE} --tenant t1\n"));
    }

    #[tokio::test]
    async fn a_missing_az_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let environment = [("PATH", folder.path().display().to_string())].into_iter().collect();
        let error =
            AzureCli::new(&environment, None).access_token(&TokenRequest::new(SCOPE)).await.unwrap_err();
        assert_eq!(error.to_string(), "azure-cli is not set up: `az` is not in PATH");
    }

    #[tokio::test]
    async fn nobody_signed_in_is_passed_over() {
        let error = error_of("echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1").await;
        assert_eq!(
            error.to_string(),
            "azure-cli is not set up: nobody is signed in there: Please run 'az login' to setup account."
        );
        assert!(error.hint().contains("az login"), "{}", error.hint());
    }

    #[tokio::test]
    async fn a_refusal_is_quoted_and_explained() {
        let error = error_of(
            "echo 'ERROR: AADSTS700082: The refresh token has expired due to inactivity.' >&2
             echo 'Interactive authentication is needed. Please run:' >&2
             echo 'az login --scope https://management.azure.com/.default' >&2
             exit 1",
        )
        .await;
        assert!(
            matches!(&error, AuthError::Refused { message, .. } if message.starts_with("AADSTS700082: "))
        );
        assert!(error.hint().contains("run `az login`"), "{}", error.hint());
    }

    #[tokio::test]
    async fn garbage_is_refused_and_not_quoted() {
        for script in [
            "echo tok3n",
            "true",
            r#"echo '{"accessToken":"tok3n","tokenType":"Bearer"}'"#,
            r#"echo '{"accessToken":"","expires_on":2000000000,"tokenType":"Bearer"}'"#,
            r#"echo '{"accessToken":"tok3n","expires_on":"tok3n","tokenType":"Bearer"}'"#,
            "exit 3",
            "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done",
        ] {
            let error = error_of(script).await;
            assert!(matches!(error, AuthError::Refused { .. }), "{script}: {error}");
            assert!(!format!("{error} {error:?}").contains("tok3n"), "{script}: {error:?}");
        }
    }

    /// The clock is paused: it jumps to the time limit as soon as nothing but it is waited for.
    #[tokio::test(start_paused = true)]
    async fn an_az_that_hangs_is_killed_with_all_that_it_started() {
        let folder = az("exec 3> \"$0.pipe\"; echo started >&3; sleep 1000; true");
        let pipe = folder.path().join("az.pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let provider = provider(folder.path());
        let request = TokenRequest::new(SCOPE);
        // The blocking task keeps the clock from jumping until the script runs.
        let started = tokio::task::spawn_blocking(move || {
            let mut pipe = BufReader::new(fs::File::open(pipe).unwrap());
            let mut line = String::new();
            pipe.read_line(&mut line).unwrap();
            assert_eq!(line, "started\n");
            pipe
        });
        let (outcome, pipe) = tokio::join!(provider.access_token(&request), started);
        assert!(matches!(outcome, Err(AuthError::TimedOut { after, .. }) if after == TIME_LIMIT));
        // The end of the pipe: the script and its `sleep` are gone.
        let mut pipe = pipe.unwrap();
        let mut rest = String::new();
        tokio::task::spawn_blocking(move || pipe.read_to_string(&mut rest).unwrap()).await.unwrap();
    }
}
