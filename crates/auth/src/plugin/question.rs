//! What a plugin is asked and what it answers, as values, and the question as C sees it. It leaves out the way there
//! (`worker`) and back (`host`).

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use bastide_core::{AccessToken, AuthError, Freshness, Secret, TokenRequest};
use bastide_plugin_abi::raw;

use super::host;
use super::table::Table;

/// A question of the host's.
#[derive(Debug)]
pub(super) enum Question {
    Open,
    Token(TokenRequest),
    SignIn(SignInRequest),
    Sign { algorithm: &'static str, identity: Arc<VmIdentity>, data: Vec<u8> },
}

/// Which VM to sign in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInRequest {
    /// The VM as the user named it: its name or its address.
    pub vm: String,
    /// Its Azure resource id, unless it is known by its address only.
    pub resource_id: Option<String>,
    /// The user name that was asked for.
    pub user: Option<String>,
}

/// A plugin's answer. A failure is none of these, but an [`AuthError`].
#[derive(Debug)]
pub(super) enum Answer {
    Opened,
    Token(AccessToken),
    SignIn { user: Option<String>, password: Option<Secret>, identity: Option<VmIdentity> },
    Signature(Vec<u8>),
}

/// The public half of a key that a plugin signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmIdentity {
    /// As SSH writes it (RFC 4253 §6.6).
    pub public_key: Vec<u8>,
    /// An OpenSSH certificate for it, as SSH writes it.
    pub certificate: Option<Vec<u8>>,
    /// What it is called by `ssh-add -l`.
    pub comment: String,
}

/// A plugin that is open. Stays on its thread.
pub(super) struct Opened<'a> {
    table: &'a Table,
    /// What the configuration calls it.
    name: &'a str,
    state: Option<*mut c_void>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(table: &'a Table, name: &'a str) -> Self {
        Self { table, name, state: None }
    }

    /// Calls the plugin's function for this question, and comes back when that does. What it answered is with the call.
    ///
    /// # Errors
    /// [`AuthError::Unsupported`] when it has no such function.
    pub(super) fn call(&mut self, question: &Question, number: raw::Call) -> Result<(), AuthError> {
        let raw::Plugin { open, access_token, sign_in, sign, .. } = self.table.raw;
        let (state, host) = (self.state.unwrap_or(std::ptr::null_mut()), host::table());
        let lacks = |what: &str| AuthError::Unsupported {
            provider: format!("plugin '{}'", self.name),
            what: what.to_owned(),
        };
        match question {
            Question::Open => {
                let name = text(self.name);
                let request =
                    raw::OpenRequest { size: size::<raw::OpenRequest>(), flags: 0, name: name.as_ptr() };
                let state = match open {
                    // SAFETY: as the contract has it: our table stays, the request lives until it returns.
                    Some(open) => unsafe { open(host, number, &raw const request) },
                    None => std::ptr::null_mut(),
                };
                self.state = Some(state);
            }
            Question::Token(asked) => {
                let function = access_token.ok_or_else(|| lacks("access tokens"))?;
                let optional = |asked: Option<&str>| asked.map(text);
                let (scope, tenant, claims) =
                    (text(&asked.scope), optional(asked.tenant.as_deref()), optional(asked.claims.as_deref()));
                let certificate = asked.certificate.as_ref();
                let key = optional(certificate.map(|certificate| certificate.key.as_str()));
                let key_id = optional(certificate.map(|certificate| certificate.key_id.as_str()));
                let request = raw::TokenRequest {
                    size: size::<raw::TokenRequest>(),
                    flags: if asked.freshness == Freshness::New { raw::TOKEN_FRESH } else { 0 },
                    scope: scope.as_ptr(),
                    tenant: pointer(&tenant),
                    claims: pointer(&claims),
                    certificate_key: pointer(&key),
                    certificate_key_id: pointer(&key_id),
                };
                // SAFETY: the state is what `open` returned; all texts live until it returns.
                unsafe { function(state, host, number, &raw const request) };
            }
            Question::SignIn(asked) => {
                let function = sign_in.ok_or_else(|| lacks("a sign-in to a VM"))?;
                let (vm, id) = (text(&asked.vm), asked.resource_id.as_deref().map(text));
                let user = asked.user.as_deref().map(text);
                let request = raw::SignInRequest {
                    size: size::<raw::SignInRequest>(),
                    flags: 0,
                    vm: vm.as_ptr(),
                    resource_id: pointer(&id),
                    user: pointer(&user),
                };
                // SAFETY: as above.
                unsafe { function(state, host, number, &raw const request) };
            }
            Question::Sign { algorithm, identity, data } => {
                let function = sign.ok_or_else(|| lacks("signatures"))?;
                let algorithm = text(algorithm);
                let request = raw::SignRequest {
                    size: size::<raw::SignRequest>(),
                    flags: 0,
                    algorithm: algorithm.as_ptr(),
                    public_key: identity.public_key.as_ptr(),
                    public_key_size: identity.public_key.len(),
                    data: data.as_ptr(),
                    data_size: data.len(),
                };
                // SAFETY: as above; both byte ranges live until it returns.
                unsafe { function(state, host, number, &raw const request) };
            }
        }
        Ok(())
    }

    /// Whether `open` has returned something else than NULL.
    pub(super) fn has_state(&self) -> bool {
        self.state.is_some_and(|state| !state.is_null())
    }

    /// Its state is none: it said that it could not be opened.
    pub(super) fn forget(&mut self) {
        self.state = None;
    }

    /// Frees the state.
    pub(super) fn close(self) {
        if let (Some(state), Some(close)) = (self.state, self.table.raw.close) {
            // SAFETY: what `open` returned, for the last time.
            unsafe { close(state) };
        }
    }
}

/// What Rust and C call the size of a struct; they are some dozens of bytes.
fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or_default()
}

/// Nothing that is asked holds a NUL; if it does, what is behind it was no part of a name.
fn text(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())
}
