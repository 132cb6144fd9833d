//! What an author in Rust writes and is given: a trait, requests and answers. It leaves out how these cross the
//! boundary (`trampoline`) and what the host does meanwhile (`call`).

use std::ffi::CStr;
use std::fmt;

use crate::{Call, raw};

/// A sign-in plugin. All calls, [`Plugin::open`] and the drop among them, come one after another on one thread, so it
/// needs neither locks nor `Send`; another one may be open on another thread. What it doesn't override it doesn't do.
pub trait Plugin: Sized + 'static {
    /// What the plugin is called in messages.
    const NAME: &'static CStr;

    /// Reads the settings ([`Call::setting`]).
    ///
    /// # Errors
    /// What is wrong with them.
    fn open(call: &Call<'_>) -> Result<Self, Failure>;

    /// Signs in to Azure.
    ///
    /// # Errors
    /// Why there is no token.
    fn access_token(&mut self, _call: &Call<'_>, _request: &TokenRequest<'_>) -> Result<Token, Failure> {
        Err(Failure::unsupported("access tokens"))
    }

    /// Signs in to a VM.
    ///
    /// # Errors
    /// Why there is no way in.
    fn sign_in(&mut self, _call: &Call<'_>, _request: &SignInRequest<'_>) -> Result<SignIn, Failure> {
        Err(Failure::unsupported("a sign-in to a VM"))
    }

    /// Signs with the key of the identity that [`Plugin::sign_in`] has answered: for an RSA key as PKCS #1 has it; for
    /// ECDSA r and s one after the other, each as long as the curve's field; for Ed25519 the 64 bytes of RFC 8032.
    ///
    /// # Errors
    /// Why there is no signature.
    fn sign(&mut self, _call: &Call<'_>, _request: &SignRequest<'_>) -> Result<Vec<u8>, Failure> {
        Err(Failure::unsupported("signatures"))
    }
}

/// What a token has to be good for.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenRequest<'a> {
    /// Such as `https://vault.azure.net/.default`.
    pub scope: &'a str,
    /// The tenant that has to issue it; `None` = the default one.
    pub tenant: Option<&'a str>,
    /// Claims that the service has demanded, as JSON.
    pub claims: Option<&'a str>,
    /// Whether a service has refused the token before, so that one from a cache won't do.
    pub fresh: bool,
    /// For an SSH certificate: the public key as JSON Web Key, and its name.
    pub certificate: Option<(&'a str, &'a str)>,
}

/// An access token.
#[derive(Clone)]
pub struct Token {
    /// The token, without `Bearer`.
    pub text: String,
    /// When it ends, in seconds since 1970.
    pub expires_on: u64,
}

/// Which VM to sign in to.
#[derive(Debug, Clone, Copy)]
pub struct SignInRequest<'a> {
    /// The VM as the user named it: its name or its address.
    pub vm: &'a str,
    /// Its Azure resource id, unless it is known by its address only.
    pub resource_id: Option<&'a str>,
    /// The user name that was asked for by `--username`.
    pub user: Option<&'a str>,
}

/// How to sign in to a VM: by a password, by an identity, or by both.
#[derive(Clone, Default)]
pub struct SignIn {
    /// The user name on the VM; `None` leaves it to the user's SSH configuration.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The identity that [`Plugin::sign`] signs for.
    pub identity: Option<Identity>,
}

/// A public key whose private half the plugin signs with.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The public key as SSH writes it (RFC 4253 §6.6).
    pub public_key: Vec<u8>,
    /// An OpenSSH certificate for it, as SSH writes it.
    pub certificate: Option<Vec<u8>>,
    /// What it is called by `ssh-add -l`.
    pub comment: String,
}

/// What to sign.
#[derive(Debug, Clone, Copy)]
pub struct SignRequest<'a> {
    /// `rsa-sha2-256`, `rsa-sha2-512`, `ecdsa-sha2-nistp256`, `…384`, `…521` or `ssh-ed25519`: it says what `data` is
    /// hashed by.
    pub algorithm: &'a str,
    /// The public key to sign for.
    pub public_key: &'a [u8],
    /// What is signed: not hashed yet.
    pub data: &'a [u8],
}

/// A request over HTTPS.
#[derive(Clone, Default)]
pub struct HttpRequest<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// Absolute, with `https`.
    pub url: &'a str,
    /// Names and values; `Host` and `Content-Length` are added.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body; empty for none.
    pub body: &'a [u8],
}

/// The answer to a request.
#[derive(Clone, Default)]
pub struct HttpAnswer {
    /// The status, such as 200.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The value of the first header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Whose fault a failure is: it decides the exit code of `bastide`, and whether another way to sign in is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// Nothing is set up to sign in with: the next way to sign in may be tried.
    Unavailable,
    /// The sign-in, or the key, was refused.
    Refused,
    /// Signed in, but a right is missing.
    Right,
    /// What the settings name is not there.
    NotFound,
    /// The way to a service is broken.
    Network,
    /// A service fails, or asks to wait longer than there is time.
    Service,
    /// This plugin can't give what it is asked for.
    Unsupported,
    /// The user said no, or the host cancelled the call.
    Cancelled,
    /// A setting is missing or wrong.
    Settings,
    /// A fault of the plugin itself.
    Internal,
}

impl Code {
    pub(crate) fn number(self) -> u32 {
        match self {
            Code::Unavailable => raw::ERROR_UNAVAILABLE,
            Code::Refused => raw::ERROR_REFUSED,
            Code::Right => raw::ERROR_RIGHT,
            Code::NotFound => raw::ERROR_NOT_FOUND,
            Code::Network => raw::ERROR_NETWORK,
            Code::Service => raw::ERROR_SERVICE,
            Code::Unsupported => raw::ERROR_UNSUPPORTED,
            Code::Cancelled => raw::ERROR_CANCELLED,
            Code::Settings => raw::ERROR_SETTINGS,
            Code::Internal => raw::ERROR_INTERNAL,
        }
    }
}

/// Why a call failed, in words for the user.
#[derive(Debug, Clone)]
pub struct Failure(pub(crate) Why);

#[derive(Debug, Clone)]
pub(crate) enum Why {
    /// A function of the host has failed before, and the host knows why.
    Known,
    Said {
        code: Code,
        message: String,
        hint: Option<String>,
    },
}

impl Failure {
    /// `message` says what failed, in lower case and without a full stop; it holds no secret.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Why::Said { code, message: message.into(), hint: None })
    }

    /// What [`Call::ask_text`] and its like failed by: the host knows.
    pub fn known() -> Self {
        Self(Why::Known)
    }

    /// Adds what the user should do next.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Why::Said { hint, .. } = &mut self.0 {
            *hint = Some(text.into());
        }
        self
    }

    fn unsupported(what: &str) -> Self {
        Self::new(Code::Unsupported, format!("it does not give {what}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Known => formatter.write_str("the host knows why"),
            Why::Said { message, .. } => formatter.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("expires_on", &self.expires_on).finish_non_exhaustive()
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SignIn")
            .field("user", &self.user)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpRequest<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and body hold secrets.
        write!(formatter, "{} {}", self.method, self.url)
    }
}

impl fmt::Debug for HttpAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpAnswer").field("status", &self.status).finish_non_exhaustive()
    }
}
