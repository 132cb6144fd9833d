//! The tables of both sides as C sees them: what `bastide_plugin.h` is generated from, so comments here are read by
//! authors in C. It leaves out the safe side for authors in Rust (`author`).

use std::ffi::{c_char, c_void};

/// Version of these tables: the major number in the upper 16 bits, the minor one in the lower. A host refuses another
/// major number. Within one, tables and structs only grow at their end, and `size` says how far they go.
pub const ABI: u32 = 1 << 16;

/// The failure is that nothing is set up to sign in with: the next way to sign in may be tried.
pub const ERROR_UNAVAILABLE: u32 = 1;
/// The sign-in, or the key, was refused.
pub const ERROR_REFUSED: u32 = 2;
/// Signed in, but a right is missing.
pub const ERROR_RIGHT: u32 = 3;
/// What the settings name, such as a key, is not there.
pub const ERROR_NOT_FOUND: u32 = 4;
/// The way to a service is broken.
pub const ERROR_NETWORK: u32 = 5;
/// A service fails, or asks to wait longer than there is time.
pub const ERROR_SERVICE: u32 = 6;
/// This plugin can't give what it is asked for.
pub const ERROR_UNSUPPORTED: u32 = 7;
/// The user said no, or the host cancelled the call.
pub const ERROR_CANCELLED: u32 = 8;
/// A setting is missing or wrong.
pub const ERROR_SETTINGS: u32 = 9;
/// A fault of the plugin itself.
pub const ERROR_INTERNAL: u32 = 10;

/// A log line that says that something is wrong, although the call goes on.
pub const LOG_WARN: u32 = 1;
/// A log line that helps to find out what is wrong (`bastide -v`).
pub const LOG_INFO: u32 = 2;
/// A log line for the author of the plugin (`bastide -vv`).
pub const LOG_DEBUG: u32 = 3;

/// Asks for a line that may be seen.
pub const PROMPT_TEXT: u32 = 1;
/// Asks for a line that must not be seen, such as a PIN.
pub const PROMPT_SECRET: u32 = 2;
/// Asks for one of `choices`.
pub const PROMPT_CHOICE: u32 = 3;

/// A flag of a token request: a service has refused the token before, so one from a cache won't do.
pub const TOKEN_FRESH: u32 = 1;

/// One call of the host into the plugin, by number. It is good until the function that was called with it returns;
/// afterwards, and with any other number, the host's functions do nothing and return 0 or NULL, and `cancelled` 1.
pub type Call = u64;

/// What a plugin is: `bastide_plugin_v1` returns a pointer to one, which stays as it is for the rest of the process.
///
/// All calls with one state, `open` and `close` among them, come one after another on one thread. A plugin may be opened
/// more than once in a process, each time with a thread of its own. A function that is NULL is something that this
/// plugin does not do.
///
/// A function answers by exactly one `answer_…` of the host before it returns, or by none after `prompt`,
/// `azure_token` or `https` has returned NULL: then the host knows by itself what went wrong.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Plugin {
    /// `BASTIDE_ABI` of the header that the plugin was built with.
    pub abi: u32,
    /// `sizeof(bastide_plugin)`.
    pub size: u32,
    /// What the plugin is called in messages. Not NULL, and not empty.
    pub name: *const c_char,
    /// Reads settings and makes the state, which the other functions are given; NULL is a state too. It failed if it
    /// answered by `answer_error`, or returned NULL after `prompt`, `azure_token` or `https` had returned NULL. Any other
    /// answer is wrong here.
    pub open: Option<
        unsafe extern "C" fn(host: *const Host, call: Call, request: *const OpenRequest) -> *mut c_void,
    >,
    /// Frees the state. It is not called when the process ends in another way than by returning, nor after a call
    /// that did not come back.
    pub close: Option<unsafe extern "C" fn(state: *mut c_void)>,
    /// Signs in to Azure: answers by `answer_token`.
    pub access_token: Option<
        unsafe extern "C" fn(state: *mut c_void, host: *const Host, call: Call, request: *const TokenRequest),
    >,
    /// Signs in to a VM: answers by `answer_sign_in`.
    pub sign_in: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            host: *const Host,
            call: Call,
            request: *const SignInRequest,
        ),
    >,
    /// Signs with the key of an identity that `sign_in` has answered with: answers by `answer_signature`.
    pub sign: Option<
        unsafe extern "C" fn(state: *mut c_void, host: *const Host, call: Call, request: *const SignRequest),
    >,
}

// SAFETY: a table is never written after it was made, and its name points to text that lives as long.
unsafe impl Sync for Plugin {}
// SAFETY: as above; which thread may call its functions is the contract's business.
unsafe impl Send for Plugin {}

/// What the host does for a plugin. The table stays as it is for the rest of the process.
///
/// Its functions are called on the thread that the plugin was called on, before that call returns; anywhere else they
/// do nothing, and the call fails. What they are given is copied before they return. Text that they return
/// belongs to the host and is good until the plugin's function returns.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// `BASTIDE_ABI` that the host was built with.
    pub abi: u32,
    /// How many bytes of this table there are. What is in this version of the header for 1.0 is always there; for
    /// what came later ask `BASTIDE_HAS`.
    pub size: u32,
    /// The value of a key of `config` in the user's configuration: text as it is, numbers and `true` as they are
    /// written, anything else as JSON; NULL if it is not there. After `open` the host warns of keys that were not
    /// asked for, so that the user hears of a misspelt one.
    pub setting: Option<unsafe extern "C" fn(call: Call, key: *const c_char) -> *const c_char>,
    /// Milliseconds until the host gives this call up. Time in `prompt`, `azure_token` and `https` does not
    /// count.
    pub remaining_ms: Option<unsafe extern "C" fn(call: Call) -> u64>,
    /// 1 once nobody waits for this call any more, otherwise 0. A function that may take long asks now and then, and
    /// returns.
    pub cancelled: Option<unsafe extern "C" fn(call: Call) -> u32>,
    /// Writes a line to the host's log, with one of `BASTIDE_LOG_…`. No secrets.
    pub log: Option<unsafe extern "C" fn(call: Call, level: u32, message: *const c_char)>,
    /// Asks the user. NULL when there is nobody to ask, or the user gives no answer. For a choice it returns the
    /// choice's own text.
    pub prompt: Option<unsafe extern "C" fn(call: Call, prompt: *const Prompt) -> *const c_char>,
    /// An access token of the host's own sign-in, so that a plugin for an Azure service needs none. `expires_on`
    /// (seconds since 1970) may be NULL. NULL when there is no token.
    pub azure_token: Option<
        unsafe extern "C" fn(call: Call, request: *const TokenRequest, expires_on: *mut u64) -> *const c_char,
    >,
    /// Answers `access_token`: a token without `Bearer`, and when it ends in seconds since 1970. For a certificate,
    /// the token is the certificate's base64 body.
    pub answer_token: Option<unsafe extern "C" fn(call: Call, token: *const c_char, expires_on: u64)>,
    /// Answers `sign_in`.
    pub answer_sign_in: Option<unsafe extern "C" fn(call: Call, sign_in: *const SignIn)>,
    /// Answers `sign`. For an RSA key the signature as in PKCS #1, as long as the modulus; for ECDSA r and s one after
    /// the other, each as long as the curve's field (32, 48 or 66 bytes), as JSON Web Signatures and PKCS #11 have
    /// them; for Ed25519 the 64 bytes of RFC 8032.
    pub answer_signature: Option<unsafe extern "C" fn(call: Call, signature: *const u8, size: usize)>,
    /// Answers any call: it failed, with one of `BASTIDE_ERROR_…`. `message` says what failed, in lower case and
    /// without a full stop; `hint` says what to do next, or is NULL.
    pub answer_error:
        Option<unsafe extern "C" fn(call: Call, code: u32, message: *const c_char, hint: *const c_char)>,
    /// Sends a request over HTTPS the way the host sends its own: by the user's proxies, certificate authorities and
    /// time limits. Every status is an answer, and no redirect is followed. The answer belongs to the host and is good
    /// until the plugin's function returns. NULL when there is none: the host knows why.
    pub https: Option<unsafe extern "C" fn(call: Call, request: *const HttpRequest) -> *const HttpAnswer>,
}

/// What `open` is told.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct OpenRequest {
    /// How many bytes of this struct there are.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// `NAME` of `[plugins.NAME]` in the user's configuration.
    pub name: *const c_char,
}

/// What a token has to be good for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct TokenRequest {
    /// How many bytes of this struct there are: `sizeof(bastide_token_request)` when the plugin asks.
    pub size: u32,
    /// 0 or `BASTIDE_TOKEN_FRESH`.
    pub flags: u32,
    /// Such as `https://vault.azure.net/.default`.
    pub scope: *const c_char,
    /// The tenant that has to issue it, or NULL for the default one.
    pub tenant: *const c_char,
    /// Claims that the service has demanded, as JSON, or NULL.
    pub claims: *const c_char,
    /// For an SSH certificate the public key as JSON Web Key (`req_cnf`), otherwise NULL.
    pub certificate_key: *const c_char,
    /// The name of that key (`key_id`), or NULL.
    pub certificate_key_id: *const c_char,
}

/// Which VM to sign in to.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SignInRequest {
    /// How many bytes of this struct there are.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// The VM as the user named it: its name or its address.
    pub vm: *const c_char,
    /// The VM's Azure resource id, or NULL if it is known by its address only.
    pub resource_id: *const c_char,
    /// The user name that was asked for by `--username`, or NULL.
    pub user: *const c_char,
}

/// How to sign in to a VM: by a password, by an identity whose key the plugin signs with, or by both.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SignIn {
    /// `sizeof(bastide_sign_in)`.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// The user name on the VM, or NULL to leave it to the user's SSH configuration.
    pub user: *const c_char,
    /// The password, or NULL.
    pub password: *const c_char,
    /// The public key, as SSH writes it (RFC 4253 §6.6; the base64 part of a `.pub` file, decoded), or NULL.
    pub public_key: *const u8,
    /// Its length in bytes.
    pub public_key_size: usize,
    /// An OpenSSH certificate for that key, as SSH writes it, or NULL.
    pub certificate: *const u8,
    /// Its length in bytes.
    pub certificate_size: usize,
    /// What the identity is called by `ssh-add -l`, or NULL.
    pub comment: *const c_char,
}

/// What to sign.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SignRequest {
    /// How many bytes of this struct there are.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// `rsa-sha2-256`, `rsa-sha2-512`, `ecdsa-sha2-nistp256`, `ecdsa-sha2-nistp384`, `ecdsa-sha2-nistp521` or
    /// `ssh-ed25519` (RFC 8332, 5656, 8709). It says what `data` is hashed by.
    pub algorithm: *const c_char,
    /// The public key to sign for, as `sign_in` has answered it.
    pub public_key: *const u8,
    /// Its length in bytes.
    pub public_key_size: usize,
    /// What is signed: not hashed yet.
    pub data: *const u8,
    /// Its length in bytes.
    pub data_size: usize,
}

/// A question for the user.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Prompt {
    /// `sizeof(bastide_prompt)`.
    pub size: u32,
    /// One of `BASTIDE_PROMPT_…`.
    pub kind: u32,
    /// The question, without colon or line end.
    pub text: *const c_char,
    /// What may be chosen, for `BASTIDE_PROMPT_CHOICE`.
    pub choices: *const *const c_char,
    /// How many there are.
    pub choice_count: usize,
}

/// A request over HTTPS.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest {
    /// `sizeof(bastide_http_request)`.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// Such as `GET`.
    pub method: *const c_char,
    /// Absolute, with `https`.
    pub url: *const c_char,
    /// All headers but `Host` and `Content-Length`, which the host adds.
    pub headers: *const HttpHeader,
    /// How many there are.
    pub header_count: usize,
    /// The body, or NULL.
    pub body: *const u8,
    /// Its length in bytes.
    pub body_size: usize,
}

/// What came back.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HttpAnswer {
    /// How many bytes of this struct there are.
    pub size: u32,
    /// The status, such as 200.
    pub status: u32,
    /// The headers, names in lower case; those whose value is no text are left out.
    pub headers: *const HttpHeader,
    /// How many there are.
    pub header_count: usize,
    /// The body, at most 16 MiB.
    pub body: *const u8,
    /// Its length in bytes.
    pub body_size: usize,
}

/// A header of a request or an answer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HttpHeader {
    /// Its name.
    pub name: *const c_char,
    /// Its value.
    pub value: *const c_char,
}
