//! A provider whose tokens survive the process, because getting one is slow: the Azure CLI takes half a second to
//! start. It leaves out the own login, which has its place in the store itself.

use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bastide_core::{AccessToken, AuthError, Freshness, Provider, TokenRequest};

use crate::{Environment, Store};

/// A provider around another. Who signs in is known by a file that changes with every sign-in: a token is found
/// again only while the file is what it was, so that nobody gets another's.
pub(crate) struct KeptTokens<P> {
    provider: P,
    store: Store,
    /// What else the tokens depend on.
    realm: String,
    witness: PathBuf,
}

impl<P: Provider> KeptTokens<P> {
    /// `realm`: the sign-in service and the tenant that the provider asks by itself.
    pub(crate) fn new(provider: P, store: Store, realm: String, witness: PathBuf) -> Self {
        Self { provider, store, realm, witness }
    }

    /// `None` when there is nobody to keep a token for, or it is not of the kind that is kept.
    fn key(&self, request: &TokenRequest) -> Option<String> {
        if request.claims.is_some() || request.certificate.is_some() {
            return None;
        }
        let witness = std::fs::read(&self.witness).ok()?;
        let witness = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &witness));
        let tenant = request.tenant.as_deref().unwrap_or_default();
        Some(format!("{} {witness} {} {tenant} {}", self.name(), self.realm, request.scope))
    }
}

/// Where the Azure CLI says who is signed in and which subscription is the default (`az login`, `az account set`).
pub(crate) fn azure_profile(environment: &Environment) -> Option<PathBuf> {
    let home = || environment.get("HOME").or_else(|| environment.get("USERPROFILE"));
    let folder = match environment.get("AZURE_CONFIG_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(home()?).join(".azure"),
    };
    Some(folder.join("azureProfile.json"))
}

#[async_trait]
impl<P: Provider> Provider for KeptTokens<P> {
    fn name(&self) -> &str {
        self.provider.name()
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let Some(key) = self.key(request) else { return self.provider.access_token(request).await };
        if request.freshness == Freshness::Cached
            && let Ok(contents) = self.store.read().await
            && let Some(token) = contents.token(&key, SystemTime::now())
        {
            return Ok(token);
        }
        let token = self.provider.access_token(request).await?;
        // Who has signed in anew meanwhile is not to find the old one's token.
        if self.key(request).as_ref() == Some(&key) {
            let kept = async {
                let mut locked = self.store.lock().await?;
                locked.contents.set_token(key, &token);
                locked.save().await
            };
            if let Err(error) = kept.await {
                tracing::debug!(%error, "the token is not kept");
            }
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bastide_core::Secret;

    use super::*;

    struct Counting(AtomicUsize);

    #[async_trait]
    impl Provider for Counting {
        fn name(&self) -> &str {
            "counting"
        }

        async fn access_token(&self, _: &TokenRequest) -> Result<AccessToken, AuthError> {
            let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(AccessToken {
                secret: Secret::new(format!("token {number}")),
                expires_on: SystemTime::now() + Duration::from_secs(3600),
            })
        }
    }

    #[tokio::test]
    async fn the_next_process_finds_it_until_somebody_else_signs_in() {
        let folder = tempfile::tempdir().unwrap();
        let witness = folder.path().join("azureProfile.json");
        std::fs::write(&witness, "me").unwrap();
        let process = |realm: &str| {
            KeptTokens::new(
                Counting(AtomicUsize::new(0)),
                Store::in_folder(folder.path().join("state"), None),
                realm.into(),
                witness.clone(),
            )
        };
        let ask = async |provider: &KeptTokens<Counting>, request: &TokenRequest| {
            provider.access_token(request).await.unwrap();
            provider.provider.0.load(Ordering::Relaxed)
        };
        let request = TokenRequest::new("scope");
        let other_tenant = TokenRequest { tenant: Some("t".into()), ..request.clone() };
        let new = TokenRequest { freshness: Freshness::New, ..request.clone() };
        let claims = TokenRequest { claims: Some("{}".into()), ..request.clone() };
        assert_eq!(ask(&process("r"), &request).await, 1);
        assert_eq!(ask(&process("r"), &request).await, 0);
        assert_eq!(ask(&process("other"), &request).await, 1);
        assert_eq!(ask(&process("r"), &other_tenant).await, 1);
        assert_eq!(ask(&process("r"), &claims).await, 1);
        assert_eq!(ask(&process("r"), &new).await, 1);
        std::fs::write(&witness, "somebody else").unwrap();
        assert_eq!(ask(&process("r"), &request).await, 1);
        std::fs::remove_file(&witness).unwrap();
        assert_eq!(ask(&process("r"), &request).await, 1);
    }
}
