//! The user's own sign-in, `bastide login`: the account in the store and the tokens that its refresh token brings.
//! It leaves out the grants themselves and how the store keeps things.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Freshness, Provider, TokenRequest};

use crate::public_client::{ANY_TENANT, AZURE_CLI_APPLICATION, Granted, NAME, Prompt, PublicClient};
use crate::store::{Contents, Kept, KeptAccount, token_prefix};
use crate::transport::Exchange;
use crate::{Identity, Setup, Store, entra};

/// Whoever has signed in with a device code: the provider `device-code`.
///
/// Only one task or process at a time trades the refresh token, and writes down its successor before the next one
/// reads it.
pub struct OwnLogin {
    client: PublicClient,
    authority: String,
    store: Store,
    tenant: Option<String>,
    client_id: Option<String>,
    prompt: Option<Arc<dyn Prompt>>,
}

/// A sign-in that has just been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// Who it is, usually a mail address.
    pub username: String,
    /// The tenant signed in to.
    pub tenant: String,
    /// Where it is kept.
    pub kept: Kept,
}

impl OwnLogin {
    /// The account of the setup's store. It never asks the user: see [`OwnLogin::asking`].
    pub fn new(setup: &Setup) -> Self {
        Self {
            client: PublicClient::new(Exchange::new(setup.network.clone()), &setup.authority),
            authority: setup.authority.clone(),
            store: setup.store.clone(),
            tenant: setup.tenant.clone(),
            client_id: setup.client_id.clone(),
            prompt: None,
        }
    }

    /// The same, but where nobody is signed in, or the sign-in has expired, the user is asked to sign in.
    #[must_use]
    pub fn asking(self, prompt: Option<Arc<dyn Prompt>>) -> Self {
        Self { prompt, ..self }
    }

    /// Signs in with a device code, for `scope`, and keeps the account in the store in place of the one before. Waits
    /// until the user is done, or the code has expired (15 minutes at Entra ID).
    ///
    /// Cancel safe: nothing is kept until all of it is.
    ///
    /// # Errors
    /// [`AuthError`]: refused, unreachable, or the store can't be written.
    pub async fn sign_in(&self, scope: &str, prompt: &dyn Prompt) -> Result<SignedIn, AuthError> {
        Ok(self.ask(&TokenRequest::new(scope), prompt).await?.0)
    }

    async fn ask(
        &self,
        request: &TokenRequest,
        prompt: &dyn Prompt,
    ) -> Result<(SignedIn, AccessToken), AuthError> {
        let client_id = self.client_id.as_deref().unwrap_or(AZURE_CLI_APPLICATION);
        let tenant = request.tenant.as_deref().or(self.tenant.as_deref()).unwrap_or(ANY_TENANT);
        // A certificate is asked for with the refresh token: the sign-in itself is the same for every purpose.
        let plain = TokenRequest { certificate: None, ..request.clone() };
        let granted = self.client.by_device_code(client_id, tenant, &plain, prompt).await?;
        let Granted { token, refresh_token: Some(refresh_token), id_token } = granted else {
            return Err(AuthError::Refused {
                provider: NAME.into(),
                message: "the sign-in service gave no refresh token".into(),
                hint: Some("the application must be allowed `offline_access`: check --client-id".into()),
            });
        };
        let identity = Identity::of_token(id_token.as_deref().unwrap_or_default());
        let account = KeptAccount {
            authority: self.authority.clone(),
            tenant: identity.tenant.clone().unwrap_or_else(|| tenant.to_owned()),
            client_id: client_id.to_owned(),
            username: identity.label(),
            id: identity.id().unwrap_or_default(),
            refresh_token,
        };
        let signed_in = (account.username.clone(), account.tenant.clone());
        let key = self.key(&account, request);
        let mut locked = self.store.lock().await?;
        locked.contents.set_account(account);
        if let Some(key) = key {
            locked.contents.set_token(key, &token);
        }
        let kept = locked.save().await?;
        Ok((SignedIn { username: signed_in.0, tenant: signed_in.1, kept }, token))
    }

    /// With the refresh token, unless another process has been here while the lock was waited for.
    async fn renewed(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let mut locked = self.store.lock().await.map_err(unavailable)?;
        let account = self.account(&locked.contents)?.clone();
        if let Some(token) = self.kept(&locked.contents, &account, request) {
            return Ok(token);
        }
        let tenant = self.tenant_for(&account, request);
        let granted = self
            .client
            .by_refresh_token(&account.client_id, &tenant, &account.refresh_token, request)
            .await?;
        if let Some(key) = self.key(&account, request) {
            locked.contents.set_token(key, &granted.token);
        }
        if let Some(refresh_token) = granted.refresh_token {
            locked.contents.set_account(KeptAccount { refresh_token, ..account });
        }
        if let Err(error) = locked.save().await {
            tracing::warn!(%error, "the sign-in could not be written down; it may have to be made again");
        }
        Ok(granted.token)
    }

    fn account<'a>(&self, contents: &'a Contents) -> Result<&'a KeptAccount, AuthError> {
        let elsewhere = || match contents.accounts.as_slice() {
            [] => "nobody has signed in with `bastide login`".to_owned(),
            [other, ..] => format!("the sign-in of {} is for another cloud", other.username),
        };
        contents
            .account(&self.authority)
            .ok_or_else(|| AuthError::Unavailable { provider: NAME.into(), reason: elsewhere() })
    }

    fn kept(
        &self,
        contents: &Contents,
        account: &KeptAccount,
        request: &TokenRequest,
    ) -> Option<AccessToken> {
        if request.freshness == Freshness::New {
            return None;
        }
        contents.token(&self.key(account, request)?, SystemTime::now())
    }

    /// Tokens for one purpose are not kept.
    fn key(&self, account: &KeptAccount, request: &TokenRequest) -> Option<String> {
        (request.claims.is_none() && request.certificate.is_none()).then(|| {
            let tenant = self.tenant_for(account, request);
            format!("{}{tenant} {}", token_prefix(account), request.scope)
        })
    }

    fn tenant_for(&self, account: &KeptAccount, request: &TokenRequest) -> String {
        let named = request.tenant.as_ref().or(self.tenant.as_ref());
        named.unwrap_or(&account.tenant).clone()
    }

    async fn silently(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        // Without a lock first: most of the time there is nothing to change.
        let contents = self.store.read().await.map_err(unavailable)?;
        let account = self.account(&contents)?;
        match self.kept(&contents, account, request) {
            Some(token) => Ok(token),
            None => self.renewed(request).await,
        }
    }
}

#[async_trait]
impl Provider for OwnLogin {
    fn name(&self) -> &str {
        NAME
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let outcome = self.silently(request).await;
        let Some(prompt) = &self.prompt else { return outcome };
        match outcome {
            Err(AuthError::Unavailable { .. }) => {}
            Err(AuthError::Refused { ref message, .. }) if entra::needs_person(message) => {}
            outcome => return outcome,
        }
        let (_, token) = self.ask(request, &**prompt).await?;
        if request.certificate.is_some() { self.silently(request).await } else { Ok(token) }
    }
}

/// A store that can't be read is no reason not to try the other ways.
fn unavailable(error: AuthError) -> AuthError {
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
    AuthError::Unavailable { provider: NAME.into(), reason: format!("{error}{cause}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;
    use crate::public_client::DeviceCode;
    use crate::test_server::{Answer, Server, setup};

    const CODE: &str = r#"{"user_code":"ABC","device_code":"d","verification_uri":"https://x/","expires_in":900,"interval":1}"#;

    fn token(access: &str, refresh: &str) -> Answer {
        let id = BASE64_URL_SAFE_NO_PAD
            .encode(r#"{"preferred_username":"ann@example.org","oid":"oid-1","tid":"home-tenant"}"#);
        Answer::json(
            200,
            &format!(
                r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"{access}","refresh_token":"{refresh}","id_token":"e30.{id}.c2ln"}}"#
            ),
        )
    }

    fn expired() -> Answer {
        Answer::json(
            400,
            r#"{"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired."}"#,
        )
    }

    #[derive(Debug, Default)]
    struct Silent(Mutex<usize>);

    impl Prompt for Silent {
        fn show(&self, _: &DeviceCode) {
            *self.0.lock().unwrap() += 1;
        }
    }

    fn login(setup: &Setup) -> OwnLogin {
        let mut login = OwnLogin::new(setup);
        login.client = PublicClient::new(Exchange::hasty(setup.network.clone()), &setup.authority)
            .with_pause(Arc::new(|_| Box::pin(std::future::ready(()))));
        login
    }

    async fn ask(login: &OwnLogin, request: &TokenRequest) -> String {
        login.access_token(request).await.unwrap().secret.expose().to_owned()
    }

    #[tokio::test]
    async fn a_sign_in_serves_the_next_process_too() {
        let server = Server::start(vec![
            Answer::json(200, CODE),
            token("one", "r1"),
            token("two", "r2"),
            token("three", "r3"),
        ])
        .await;
        let folder = tempfile::tempdir().unwrap();
        let process = || {
            let store = Store::in_folder(folder.path().into(), None);
            login(&Setup { store, ..setup(&server, &[]) })
        };
        let signed_in = process().sign_in("arm", &Silent::default()).await.unwrap();
        assert_eq!(
            (signed_in.username.as_str(), signed_in.tenant.as_str()),
            ("ann@example.org", "home-tenant")
        );
        assert_eq!(signed_in.kept, Kept::InFile(folder.path().join("sign-in.json")));

        let request = TokenRequest::new("arm");
        // The token of the sign-in itself was for `organizations`, which turned out to be the home tenant.
        assert_eq!(ask(&process(), &request).await, "one");
        let new = TokenRequest { freshness: Freshness::New, ..request.clone() };
        assert_eq!(ask(&process(), &new).await, "two");
        assert_eq!(ask(&process(), &request).await, "two");
        let elsewhere = TokenRequest { tenant: Some("guest-tenant".into()), ..request.clone() };
        assert_eq!(ask(&process(), &elsewhere).await, "three");

        let requests = server.requests();
        assert!(requests[0].starts_with("POST /organizations/oauth2/v2.0/devicecode "));
        assert!(requests[2].starts_with("POST /home-tenant/oauth2/v2.0/token "), "{}", requests[2]);
        assert!(requests[2].contains("refresh_token=r1&"), "{}", requests[2]);
        assert!(requests[3].starts_with("POST /guest-tenant/oauth2/v2.0/token "), "{}", requests[3]);
        assert!(requests[3].contains("refresh_token=r2&"), "the successor: {}", requests[3]);
    }

    #[tokio::test]
    async fn two_processes_at_once_lose_no_refresh_token() {
        let server = Server::start(vec![
            Answer::json(200, CODE),
            token("one", "r1"),
            token("two", "r2"),
            token("three", "r3"),
        ])
        .await;
        let folder = tempfile::tempdir().unwrap();
        let process = || {
            let store = Store::in_folder(folder.path().into(), None);
            login(&Setup { store, ..setup(&server, &[]) })
        };
        process().sign_in("arm", &Silent::default()).await.unwrap();
        let (first, second) = (process(), process());
        let (a, b) = (TokenRequest::new("a"), TokenRequest::new("b"));
        let (a, b) = tokio::join!(first.access_token(&a), second.access_token(&b));
        assert!(a.is_ok() && b.is_ok());
        let requests = server.requests();
        assert!(requests[2].contains("refresh_token=r1&"), "{}", requests[2]);
        assert!(requests[3].contains("refresh_token=r2&"), "{}", requests[3]);
        // The same question at the same time is asked once.
        let (first, second) = (process(), process());
        let a = TokenRequest::new("a");
        let (one, two) = tokio::join!(first.access_token(&a), second.access_token(&a));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(server.requests().len(), 4);
    }

    #[tokio::test]
    async fn nobody_signed_in_is_passed_over_and_leaves_nothing() {
        let server = Server::start(Vec::new()).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_folder(folder.path().join("state"), None);
        let error =
            login(&Setup { store, ..setup(&server, &[]) }).access_token(&TokenRequest::new("s")).await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "device-code is not set up: nobody has signed in with `bastide login`"
        );
        assert!(!folder.path().join("state").exists());
    }

    #[tokio::test]
    async fn an_expired_sign_in_says_so_or_is_made_again() {
        let server = Server::start(vec![
            Answer::json(200, CODE),
            token("one", "r1"),
            expired(),
            expired(),
            Answer::json(200, CODE),
            token("two", "r2"),
        ])
        .await;
        let setup = setup(&server, &[]);
        login(&setup).sign_in("arm", &Silent::default()).await.unwrap();
        let new = TokenRequest { freshness: Freshness::New, ..TokenRequest::new("arm") };
        let error = login(&setup).access_token(&new).await.unwrap_err();
        assert!(error.hint().contains("run `bastide login --tenant home-tenant` again"), "{}", error.hint());
        let prompt = Arc::new(Silent::default());
        let asking = login(&setup).asking(Some(Arc::clone(&prompt) as Arc<dyn Prompt>));
        assert_eq!(ask(&asking, &new).await, "two");
        assert_eq!(*prompt.0.lock().unwrap(), 1);
    }
}
