//! Where federated tokens come from: a file, GitHub Actions, Azure Pipelines. It leaves out what Entra ID makes of
//! them.

use std::fmt;
use std::path::PathBuf;

use bastide_core::{AuthError, Secret};
use http::Method;
use serde::Deserialize;
use url::Url;

use crate::Environment;
use crate::service_principal::WORKLOAD_IDENTITY;
use crate::transport::{Exchange, request};

/// An issuer whose tokens Entra ID takes for proof.
pub(crate) enum Source {
    /// A file that somebody else keeps fresh (Kubernetes): read anew each time.
    File(PathBuf),
    /// docs.github.com/actions/reference/security/oidc
    GitHub { url: String, token: Secret, audience: &'static str },
    /// learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create
    Pipelines { url: String, token: Secret, connection: String },
}

/// Far above any token.
const FILE_LIMIT: u64 = 64 * 1024;

impl Source {
    /// The first that the environment names.
    pub(crate) fn find(environment: &Environment, authority: &str) -> Option<Self> {
        let get = |name: &str| environment.get(name).map(str::to_owned);
        let file = || get("AZURE_FEDERATED_TOKEN_FILE").map(|path| Source::File(path.into()));
        let github = || {
            Some(Source::GitHub {
                url: get("ACTIONS_ID_TOKEN_REQUEST_URL")?,
                token: Secret::new(get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?),
                audience: audience(authority),
            })
        };
        let pipelines = || {
            Some(Source::Pipelines {
                url: get("SYSTEM_OIDCREQUESTURI")?,
                token: Secret::new(get("SYSTEM_ACCESSTOKEN")?),
                connection: get("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID")?,
            })
        };
        file().or_else(github).or_else(pipelines)
    }

    /// A token that is good now. Cancel safe.
    pub(crate) async fn token(&self, exchange: &Exchange) -> Result<Secret, AuthError> {
        let (issuer, answer) = match self {
            Source::File(path) => return read(path).await,
            Source::GitHub { url, token, audience } => {
                let address = with_query(url, &[("audience", audience)])?;
                ("GitHub", ask(exchange, Method::GET, &address, token).await?)
            }
            Source::Pipelines { url, token, connection } => {
                let query = [("api-version", "7.1"), ("serviceConnectionId", connection)];
                let address = with_query(url, &query)?;
                ("Azure Pipelines", ask(exchange, Method::POST, &address, token).await?)
            }
        };
        // What it says stays out: it might be half a token.
        let strange = || refused(format!("{issuer} answered something else than a token"));
        let Issued { token } = serde_json::from_slice(&answer).map_err(|_| strange())?;
        Some(token).filter(|token| !token.is_empty()).map(Secret::new).ok_or_else(strange)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Source::File(_) => "File",
            Source::GitHub { .. } => "GitHub",
            Source::Pipelines { .. } => "Pipelines",
        })
    }
}

#[derive(Deserialize)]
struct Issued {
    /// GitHub's name, and that of Azure Pipelines.
    #[serde(alias = "value", alias = "oidcToken")]
    token: String,
}

/// For whom the token has to be: Entra ID of that cloud (learn.microsoft.com/entra/workload-id).
fn audience(authority: &str) -> &'static str {
    match authority {
        "https://login.microsoftonline.us" => "api://AzureADTokenExchangeUSGov",
        "https://login.chinacloudapi.cn" | "https://login.partner.microsoftonline.cn" => {
            "api://AzureADTokenExchangeChina"
        }
        _ => "api://AzureADTokenExchange",
    }
}

async fn read(path: &PathBuf) -> Result<Secret, AuthError> {
    use tokio::io::AsyncReadExt as _;
    let name = path.display();
    let read = async {
        let mut text = String::new();
        tokio::fs::File::open(path).await?.take(FILE_LIMIT).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(zeroize::Zeroizing::new(text))
    };
    let text = read.await.map_err(|error| refused(format!("{name} cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(refused(format!("{name} is empty"))),
        text => Ok(Secret::new(text)),
    }
}

/// `url` may have a query of its own, as GitHub's has.
fn with_query(url: &str, query: &[(&str, &str)]) -> Result<String, AuthError> {
    let mut url = Url::parse(url).map_err(|_| refused("the issuer's address is none".into()))?;
    url.query_pairs_mut().extend_pairs(query);
    Ok(url.into())
}

async fn ask(
    exchange: &Exchange,
    method: Method,
    address: &str,
    token: &Secret,
) -> Result<bytes::Bytes, AuthError> {
    let authorization = format!("Bearer {}", token.expose());
    let headers = [
        ("authorization", authorization.as_str()),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("content-length", "0"),
        // Azure DevOps would redirect to a page for people instead of answering 401.
        ("x-tfs-fedauthredirect", "Suppress"),
    ];
    let headers = if method == Method::GET { headers.get(..2).unwrap_or_default() } else { &headers };
    let failed = |failure: crate::transport::Failure| failure.into_auth_error(WORKLOAD_IDENTITY, None);
    let request = request(method, address, headers).map_err(failed)?;
    Ok(exchange.send(request).await.map_err(failed)?.into_body())
}

fn refused(message: String) -> AuthError {
    AuthError::Refused {
        provider: WORKLOAD_IDENTITY.into(),
        message,
        hint: Some(
            "check AZURE_FEDERATED_TOKEN_FILE; in GitHub Actions the job needs `permissions: id-token: write`, in \
             Azure Pipelines SYSTEM_ACCESSTOKEN has to be handed to the step"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Answer, Server};

    #[tokio::test]
    async fn github_and_pipelines_are_asked_as_they_document() {
        let check = async |variables: &[(&str, &str)], answer: &str, expected: Result<&str, &str>| {
            let server = Server::start(vec![Answer::json(200, answer)]).await;
            let url = format!("{}/idtoken?api-version=1", server.url());
            let environment: Environment = variables
                .iter()
                .map(|(name, value)| (*name, if *value == "URL" { url.as_str() } else { value }))
                .collect();
            let source = Source::find(&environment, "https://login.microsoftonline.com").unwrap();
            let token = source.token(&Exchange::hasty(server.network())).await;
            match expected {
                Ok(expected) => assert_eq!(token.unwrap().expose(), expected),
                Err(expected) => assert!(token.unwrap_err().to_string().contains(expected)),
            }
            server.requests().remove(0)
        };
        let github = [("ACTIONS_ID_TOKEN_REQUEST_URL", "URL"), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "hunter2")];
        let sent = check(&github, r#"{"value":"a.b.c","count":1}"#, Ok("a.b.c")).await;
        assert!(
            sent.starts_with(
                "GET /idtoken?api-version=1&audience=api%3A%2F%2FAzureADTokenExchange HTTP/1.1\r\n"
            ),
            "{sent}"
        );
        assert!(sent.to_ascii_lowercase().contains("authorization: bearer hunter2\r\n"), "{sent}");
        for strange in ["{}", "<html>", r#"{"value":""}"#] {
            check(&github, strange, Err("GitHub answered something else than a token")).await;
        }
        let pipelines = [
            ("SYSTEM_OIDCREQUESTURI", "URL"),
            ("SYSTEM_ACCESSTOKEN", "hunter2"),
            ("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", "the-connection"),
        ];
        let sent = check(&pipelines, r#"{"oidcToken":"d.e.f"}"#, Ok("d.e.f")).await;
        assert!(
            sent.starts_with(
                "POST /idtoken?api-version=1&api-version=7.1&serviceConnectionId=the-connection HTTP/1.1\r\n"
            ),
            "{sent}"
        );
    }

    #[test]
    fn half_an_environment_is_none() {
        for variables in [
            vec![],
            vec![("ACTIONS_ID_TOKEN_REQUEST_URL", "https://x")],
            vec![("SYSTEM_OIDCREQUESTURI", "https://x"), ("SYSTEM_ACCESSTOKEN", "t")],
        ] {
            let environment: Environment = variables.into_iter().collect();
            assert!(Source::find(&environment, "https://login.microsoftonline.com").is_none());
        }
        assert_eq!(audience("https://login.microsoftonline.us"), "api://AzureADTokenExchangeUSGov");
    }
}
