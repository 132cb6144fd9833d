//! Signing in to Azure by a function of the program that uses the library. It leaves out how that gets its tokens.

use std::ffi::{CStr, CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bastide::{AccessToken, AuthError, Freshness, Provider, Secret, TokenRequest};

use crate::api::TokenCall as Handle;
use crate::callback::Callback;
use crate::error::Failure;
use crate::handle::{self, Thing};
use crate::{guard, text};

/// `bastide_token_function`.
pub(crate) type Function = unsafe extern "C" fn(context: *mut c_void, call: *mut Handle);

/// A way to sign in that calls a function.
pub(crate) struct SignIn(pub(crate) Callback<Function>);

const NAME: &str = "callback";

/// One question to the function, and its answer.
pub(crate) struct TokenCall {
    scope: CString,
    tenant: Option<CString>,
    claims: Option<CString>,
    is_fresh: bool,
    answer: Mutex<Option<Result<AccessToken, String>>>,
}

impl Thing for TokenCall {
    const KIND: &'static str = "token call";
}

impl TokenCall {
    fn new(request: &TokenRequest) -> Self {
        Self {
            scope: text::owned(&request.scope),
            tenant: request.tenant.as_deref().map(text::owned),
            claims: request.claims.as_deref().map(text::owned),
            is_fresh: request.freshness == Freshness::New,
            answer: Mutex::default(),
        }
    }

    pub(crate) fn scope(&self) -> &CStr {
        &self.scope
    }

    pub(crate) fn tenant(&self) -> Option<&CStr> {
        self.tenant.as_deref()
    }

    pub(crate) fn claims(&self) -> Option<&CStr> {
        self.claims.as_deref()
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// A token that is good until so many seconds after 1970.
    pub(crate) fn give(&self, token: &str, expires_on: i64) -> Result<(), Failure> {
        let end = u64::try_from(expires_on).ok().filter(|seconds| *seconds > 0);
        let end = end.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let Some(expires_on) = end else {
            return Err(Failure::misuse("the token's end is no time: it has to be seconds after 1970"));
        };
        if token.is_empty() {
            return Err(Failure::misuse("the token is empty"));
        }
        self.answer(Ok(AccessToken { secret: Secret::new(token), expires_on }))
    }

    pub(crate) fn refuse(&self, message: &str) -> Result<(), Failure> {
        self.answer(Err(message.to_owned()))
    }

    fn answer(&self, answer: Result<AccessToken, String>) -> Result<(), Failure> {
        let mut place = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        match &*place {
            Some(_) => Err(Failure::misuse("the token call was answered before")),
            None => {
                *place = Some(answer);
                Ok(())
            }
        }
    }
}

impl SignIn {
    fn ask(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let call = Arc::new(TokenCall::new(request));
        let handle: *mut Handle = handle::insert(Arc::clone(&call));
        let (function, context) = self.0.parts();
        // SAFETY: whoever has set the function has promised that it may be called with this context, on any thread.
        guard::call_back(|| unsafe { function(context, handle) });
        // What comes later is told that the call is over.
        drop(handle::remove::<TokenCall, _>(handle));
        let answer = call.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        match answer {
            Some(Ok(token)) => Ok(token),
            Some(Err(message)) => Err(refused(message)),
            None => Err(refused("it returned without an answer".into())),
        }
    }
}

fn refused(message: String) -> AuthError {
    let hint = Some("the program's own sign-in has failed: its message says why".into());
    AuthError::Refused { provider: NAME.into(), message, hint }
}

#[async_trait]
impl Provider for SignIn {
    fn name(&self) -> &str {
        NAME
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        if request.certificate.is_some() {
            return Err(AuthError::Unsupported { provider: NAME.into(), what: "an SSH certificate".into() });
        }
        let (function, request) = (self.0.clone(), request.clone());
        // It may wait for a network or a person.
        let asked = tokio::task::spawn_blocking(move || SignIn(function).ask(&request)).await;
        asked.unwrap_or_else(|_| Err(refused("it did not return".into())))
    }
}
