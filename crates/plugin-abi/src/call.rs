//! What the host does for a plugin during a call. It leaves out the answers, which `trampoline` gives.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::time::Duration;

use crate::{Failure, HttpAnswer, HttpRequest, Token, TokenRequest, raw};

/// One call of the host: its settings, its time, and ways to ask and to log.
#[derive(Debug)]
pub struct Call<'a> {
    pub(crate) host: &'a raw::Host,
    pub(crate) number: raw::Call,
    /// A call is answered on the thread that it came on.
    thread: PhantomData<*const ()>,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something is wrong, although the call goes on.
    Warn,
    /// What helps to find out what is wrong (`bastide -v`).
    Info,
    /// For the author of the plugin (`bastide -vv`).
    Debug,
}

impl<'a> Call<'a> {
    pub(crate) fn new(host: &'a raw::Host, number: raw::Call) -> Self {
        Self { host, number, thread: PhantomData }
    }

    /// The value of a key of `config` in the user's configuration: text as it is, numbers and `true` as they are
    /// written, anything else as JSON. After `open` the host warns of keys that were not asked for.
    pub fn setting(&self, key: &str) -> Option<String> {
        let (setting, key) = (self.host.setting?, CString::new(key).ok()?);
        // SAFETY: the host's function with a live call and a text that ends with NUL.
        let value = unsafe { setting(self.number, key.as_ptr()) };
        owned(value)
    }

    /// How long the host will wait for this call. Time in which the host is asked does not count.
    pub fn remaining(&self) -> Duration {
        let Some(remaining) = self.host.remaining_ms else { return Duration::ZERO };
        // SAFETY: the host's function with a live call.
        Duration::from_millis(unsafe { remaining(self.number) })
    }

    /// Whether nobody waits for this call any more. A function that may take long asks now and then, and returns.
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: the host's function with a live call.
        self.host.cancelled.is_some_and(|cancelled| unsafe { cancelled(self.number) } != 0)
    }

    /// Writes a line to the host's log. No secrets.
    pub fn log(&self, level: Level, message: &str) {
        let level = match level {
            Level::Warn => raw::LOG_WARN,
            Level::Info => raw::LOG_INFO,
            Level::Debug => raw::LOG_DEBUG,
        };
        let message = without_nul(message);
        if let Some(log) = self.host.log {
            // SAFETY: the host's function with a live call and a text that ends with NUL.
            unsafe { log(self.number, level, message.as_ptr()) };
        }
    }

    /// Asks the user for a line that may be seen. `None` when nobody answers: [`Failure::known`].
    pub fn ask_text(&self, question: &str) -> Option<String> {
        self.ask(raw::PROMPT_TEXT, question, &[])
    }

    /// Asks the user for a line that must not be seen, such as a PIN. `None` when nobody answers.
    pub fn ask_secret(&self, question: &str) -> Option<String> {
        self.ask(raw::PROMPT_SECRET, question, &[])
    }

    /// Asks the user for one of `choices`, and returns its index. `None` when nobody answers.
    pub fn ask_choice(&self, question: &str, choices: &[&str]) -> Option<usize> {
        let chosen = self.ask(raw::PROMPT_CHOICE, question, choices)?;
        choices.iter().position(|choice| *choice == chosen)
    }

    /// An access token of the host's own sign-in, so that a plugin for an Azure service needs none.
    ///
    /// # Errors
    /// [`Failure::known`]: return it, and the host says why.
    pub fn azure_token(&self, request: &TokenRequest<'_>) -> Result<Token, Failure> {
        let text = |text: Option<&str>| text.map(without_nul);
        let (scope, tenant, claims) =
            (without_nul(request.scope), text(request.tenant), text(request.claims));
        let (key, key_id) = request.certificate.unzip();
        let (key, key_id) = (text(key), text(key_id));
        let asked = raw::TokenRequest {
            size: size_of::<raw::TokenRequest>() as u32,
            flags: if request.fresh { raw::TOKEN_FRESH } else { 0 },
            scope: scope.as_ptr(),
            tenant: pointer(&tenant),
            claims: pointer(&claims),
            certificate_key: pointer(&key),
            certificate_key_id: pointer(&key_id),
        };
        let azure_token = self.host.azure_token.ok_or_else(Failure::known)?;
        let mut expires_on = 0;
        // SAFETY: the host's function with a live call; all texts live longer than the call of it.
        let token = unsafe { azure_token(self.number, &raw const asked, &raw mut expires_on) };
        owned(token).map(|text| Token { text, expires_on }).ok_or_else(Failure::known)
    }

    /// Sends a request over HTTPS the way the host sends its own: by the user's proxies, certificate authorities and
    /// time limits. Every status is an answer, and no redirect is followed.
    ///
    /// # Errors
    /// [`Failure::known`]: return it, and the host says why.
    pub fn https(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, Failure> {
        let (method, url) = (without_nul(request.method), without_nul(request.url));
        let headers: Vec<(CString, CString)> =
            request.headers.iter().map(|(name, value)| (without_nul(name), without_nul(value))).collect();
        let pointers: Vec<raw::HttpHeader> = headers
            .iter()
            .map(|(name, value)| raw::HttpHeader { name: name.as_ptr(), value: value.as_ptr() })
            .collect();
        let asked = raw::HttpRequest {
            size: size_of::<raw::HttpRequest>() as u32,
            flags: 0,
            method: method.as_ptr(),
            url: url.as_ptr(),
            headers: pointers.as_ptr(),
            header_count: pointers.len(),
            body: request.body.as_ptr(),
            body_size: request.body.len(),
        };
        let https = self.host.https.ok_or_else(Failure::known)?;
        // SAFETY: the host's function with a live call; what it is given lives longer than the call of it.
        let answer = unsafe { https(self.number, &raw const asked) };
        // SAFETY: null, or the host's answer, which is good until the plugin's function returns.
        let answer = unsafe { answer.as_ref() }.ok_or_else(Failure::known)?;
        // SAFETY: as above; the host says how many there are.
        let (headers, body) =
            unsafe { (many(answer.headers, answer.header_count), many(answer.body, answer.body_size)) };
        let text = |text| owned(text).unwrap_or_default();
        Ok(HttpAnswer {
            status: u16::try_from(answer.status).unwrap_or_default(),
            headers: headers.iter().map(|header| (text(header.name), text(header.value))).collect(),
            body: body.to_vec(),
        })
    }

    fn ask(&self, kind: u32, question: &str, choices: &[&str]) -> Option<String> {
        let text = without_nul(question);
        let choices: Vec<CString> = choices.iter().copied().map(without_nul).collect();
        let pointers: Vec<*const c_char> = choices.iter().map(|choice| choice.as_ptr()).collect();
        let asked = raw::Prompt {
            size: size_of::<raw::Prompt>() as u32,
            kind,
            text: text.as_ptr(),
            choices: pointers.as_ptr(),
            choice_count: pointers.len(),
        };
        // SAFETY: the host's function with a live call; all texts live longer than the call of it.
        let answer = unsafe { self.host.prompt?(self.number, &raw const asked) };
        owned(answer)
    }
}

/// # Safety
/// Null, or so many that stay as they are for `'a`.
unsafe fn many<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: as this function's.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// A copy of the host's text.
fn owned(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and good until the plugin's function returns, which is after this.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// The text up to its first NUL, which no name, question or scope has.
pub(crate) fn without_nul(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

pub(crate) fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())
}
