//! The host's table: the functions that a plugin calls. A call is a number that is looked up, never a pointer, so that
//! one that is over, or was never there, can be told. It leaves out what a call remembers (`call`).

use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bastide_core::{
    AccessToken, AuthError, CertificateRequest, Fault, Freshness, Secret, TokenRequest,
};
use bastide_plugin_abi::raw;
use bytes::Bytes;
use http::Request;

use super::call::{Call, Errand, Inquiry, InquiryKind, MAX_ANSWER, Misuse};
use super::https::{self, Lent};
use super::question::{Answer, VmIdentity};
use super::table::prefix;

/// The table that every plugin is given.
pub(super) fn table() -> *const raw::Host {
    &raw const HOST
}

static HOST: raw::Host = raw::Host {
    abi: raw::ABI,
    size: size_of::<raw::Host>() as u32,
    setting: Some(setting),
    remaining_ms: Some(remaining_ms),
    cancelled: Some(cancelled),
    log: Some(log),
    prompt: Some(prompt),
    azure_token: Some(azure_token),
    answer_token: Some(answer_token),
    answer_sign_in: Some(answer_sign_in),
    answer_signature: Some(answer_signature),
    answer_error: Some(answer_error),
    https: Some(https),
};

/// The calls under way. An entry is removed when the plugin's function has returned, which may be long after everybody
/// has stopped waiting.
static CALLS: LazyLock<Mutex<HashMap<raw::Call, Arc<Call>>>> = LazyLock::new(Mutex::default);

/// Numbers are never used again, and 0 never.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A call that can be looked up while this lives.
pub(super) struct Registration(pub(super) raw::Call);

impl Registration {
    pub(super) fn new(call: Arc<Call>) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        calls().insert(number, call);
        Self(number)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        calls().remove(&self.0);
    }
}

fn calls() -> MutexGuard<'static, HashMap<raw::Call, Arc<Call>>> {
    // Nothing that holds the lock can panic.
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The call of this number, on its own thread; on others there is none.
fn find(number: raw::Call) -> Option<Arc<Call>> {
    let found = calls().get(&number).cloned();
    match found {
        Some(call) if call.thread == std::thread::current().id() => Some(call),
        Some(call) => {
            call.misused(Misuse::OtherThread);
            None
        }
        None => {
            tracing::warn!("a plugin used a call that is over: it is left aside");
            None
        }
    }
}

/// A fault of ours must not unwind into C.
fn guarded<T>(otherwise: T, body: impl FnOnce() -> Option<T>) -> T {
    catch_unwind(AssertUnwindSafe(body)).ok().flatten().unwrap_or(otherwise)
}

fn answer(number: raw::Call, read: impl FnOnce() -> Result<Result<Answer, AuthError>, Misuse>) {
    guarded((), || {
        let call = find(number)?;
        call.answer(read());
        Some(())
    });
}

unsafe extern "C" fn setting(number: raw::Call, key: *const c_char) -> *const c_char {
    guarded(std::ptr::null(), || {
        let call = find(number)?;
        // SAFETY: a text of the plugin's.
        let key = unsafe { text(key) }.ok().flatten()?;
        let value = call.config.values.get(&key).map(|value| call.lend(value));
        call.config.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        value
    })
}

unsafe extern "C" fn remaining_ms(number: raw::Call) -> u64 {
    guarded(0, || Some(u64::try_from(find(number)?.remaining().as_millis()).unwrap_or(u64::MAX)))
}

unsafe extern "C" fn cancelled(number: raw::Call) -> u32 {
    // What is over is cancelled.
    guarded(1, || Some(u32::from(find(number)?.is_cancelled())))
}

unsafe extern "C" fn log(number: raw::Call, level: u32, message: *const c_char) {
    guarded((), || {
        let call = find(number)?;
        // SAFETY: a text of the plugin's.
        let message = printable(unsafe { text(message) }.ok().flatten()?);
        let plugin = &call.plugin;
        match level {
            raw::LOG_WARN => tracing::warn!("plugin '{plugin}': {message}"),
            raw::LOG_INFO => tracing::info!("plugin '{plugin}': {message}"),
            _ => tracing::debug!("plugin '{plugin}': {message}"),
        }
        Some(())
    });
}

unsafe extern "C" fn prompt(number: raw::Call, asked: *const raw::Prompt) -> *const c_char {
    guarded(std::ptr::null(), || {
        let call = find(number)?;
        // SAFETY: a struct of the plugin's, which says how long it is.
        let Ok(asked) = (unsafe { sized(asked, PROMPT_LEAST) }) else {
            call.misused(Misuse::Short);
            return None;
        };
        // SAFETY: texts of the plugin's.
        let question = printable(unsafe { text(asked.text) }.ok().flatten()?);
        let kind = match asked.kind {
            raw::PROMPT_TEXT => InquiryKind::Text,
            raw::PROMPT_SECRET => InquiryKind::Secret,
            raw::PROMPT_CHOICE if !asked.choices.is_null() && asked.choice_count <= MAX_CHOICES => {
                let choice = |index| {
                    // SAFETY: the plugin says how many texts are there.
                    unsafe { text(asked.choices.add(index).read()) }.ok().flatten().map(printable)
                };
                InquiryKind::Choice((0..asked.choice_count).map(choice).collect::<Option<Vec<_>>>()?)
            }
            _ => {
                call.misused(Misuse::OtherAnswer);
                return None;
            }
        };
        let inquiry = Inquiry { plugin: call.plugin.clone(), text: question, kind };
        match call.send(|reply| Errand::Ask(inquiry.clone(), reply)).flatten() {
            Some(answer) => Some(call.lend(answer.expose())),
            None => {
                call.refused(AuthError::Plugin {
                    plugin: call.plugin.clone(),
                    message: format!("nobody has answered its question '{}'", inquiry.text),
                    hint: Some("run it where there is a terminal to ask on".into()),
                    fault: Fault::SignIn,
                });
                None
            }
        }
    })
}

/// More than anybody would choose from.
const MAX_CHOICES: usize = 1000;

unsafe extern "C" fn azure_token(
    number: raw::Call,
    asked: *const raw::TokenRequest,
    expires_on: *mut u64,
) -> *const c_char {
    guarded(std::ptr::null(), || {
        let call = find(number)?;
        // SAFETY: a struct of the plugin's, which says how long it is, and texts in it.
        let request = match unsafe { sized(asked, TOKEN_REQUEST_LEAST).and_then(|asked| token_request(&asked)) } {
            Ok(request) => request,
            Err(misuse) => {
                call.misused(misuse);
                return None;
            }
        };
        match call.send(|reply| Errand::AzureToken(request, reply))? {
            Ok(token) => {
                if !expires_on.is_null() {
                    let end = token.expires_on.duration_since(UNIX_EPOCH).map_or(0, |end| end.as_secs());
                    // SAFETY: by the contract, room for one number.
                    unsafe { expires_on.write(end) };
                }
                Some(call.lend(token.secret.expose()))
            }
            Err(error) => {
                call.refused(error);
                None
            }
        }
    })
}

/// # Safety
/// The request's texts are null or end with NUL.
unsafe fn token_request(asked: &raw::TokenRequest) -> Result<TokenRequest, Misuse> {
    // SAFETY: as this function's.
    let (scope, tenant, claims, key, key_id) = unsafe {
        (
            text(asked.scope)?,
            text(asked.tenant)?,
            text(asked.claims)?,
            text(asked.certificate_key)?,
            text(asked.certificate_key_id)?,
        )
    };
    Ok(TokenRequest {
        scope: scope.ok_or(Misuse::Null)?,
        tenant,
        claims,
        freshness: match asked.flags & raw::TOKEN_FRESH {
            0 => Freshness::Cached,
            _ => Freshness::New,
        },
        certificate: key.map(|key| CertificateRequest { key, key_id: key_id.unwrap_or_default() }),
    })
}

unsafe extern "C" fn https(number: raw::Call, asked: *const raw::HttpRequest) -> *const raw::HttpAnswer {
    guarded(std::ptr::null(), || {
        let call = find(number)?;
        // SAFETY: a struct of the plugin's, which says how long it is, and texts and bytes in it.
        let request = unsafe { sized(asked, https::REQUEST_LEAST).and_then(|asked| http_request(&asked)) };
        let request = match request {
            Ok(request) => request,
            Err(misuse) => {
                call.misused(misuse);
                return None;
            }
        };
        match call.send(|reply| Errand::Https(request, reply))? {
            Ok(answer) => Some(call.lend_answer(Lent::new(answer))),
            Err(error) => {
                call.refused(error);
                None
            }
        }
    })
}

/// # Safety
/// The request's texts are null or end with NUL, and there are as many headers and bytes as it says.
unsafe fn http_request(asked: &raw::HttpRequest) -> Result<Request<Bytes>, Misuse> {
    // SAFETY: as this function's.
    let (method, url, body) =
        unsafe { (text(asked.method)?, text(asked.url)?, bytes(asked.body, asked.body_size)?) };
    if asked.header_count > https::MAX_HEADERS || (asked.headers.is_null() && asked.header_count > 0) {
        return Err(Misuse::NoRequest);
    }
    let header = |index| {
        // SAFETY: as this function's: the plugin says how many there are, and each has two texts.
        unsafe {
            let header = asked.headers.add(index).read();
            Ok((text(header.name)?.ok_or(Misuse::Null)?, text(header.value)?.ok_or(Misuse::Null)?))
        }
    };
    let headers = (0..asked.header_count).map(header).collect::<Result<Vec<_>, Misuse>>()?;
    let (method, url) = (method.ok_or(Misuse::Null)?, url.ok_or(Misuse::Null)?);
    https::request(&method, &url, &headers, body.unwrap_or_default()).ok_or(Misuse::NoRequest)
}

unsafe extern "C" fn answer_token(number: raw::Call, token: *const c_char, expires_on: u64) {
    answer(number, || {
        // SAFETY: a text of the plugin's.
        let token = unsafe { text(token) }?.ok_or(Misuse::Null)?;
        if token.is_empty() {
            return Err(Misuse::Empty);
        }
        // What is too far away for this system's clock is as good as for ever.
        let far = || SystemTime::now() + Duration::from_secs(u32::MAX.into());
        let expires_on = UNIX_EPOCH.checked_add(Duration::from_secs(expires_on)).unwrap_or_else(far);
        Ok(Ok(Answer::Token(AccessToken { secret: Secret::new(token), expires_on })))
    });
}

unsafe extern "C" fn answer_sign_in(number: raw::Call, sign_in: *const raw::SignIn) {
    answer(number, || {
        // SAFETY: a struct of the plugin's, which says how long it is, and texts and bytes in it.
        unsafe {
            let answered = sized(sign_in, SIGN_IN_LEAST)?;
            let (user, password) = (text(answered.user)?, text(answered.password)?);
            let public_key = bytes(answered.public_key, answered.public_key_size)?;
            let certificate = bytes(answered.certificate, answered.certificate_size)?;
            let comment = text(answered.comment)?.map(printable).unwrap_or_default();
            if password.is_none() && public_key.is_none() {
                return Err(Misuse::Empty);
            }
            Ok(Ok(Answer::SignIn {
                user: user.filter(|user| !user.is_empty()),
                password: password.map(Secret::new),
                identity: public_key.map(|public_key| VmIdentity { public_key, certificate, comment }),
            }))
        }
    });
}

unsafe extern "C" fn answer_signature(number: raw::Call, signature: *const u8, size: usize) {
    answer(number, || {
        // SAFETY: bytes of the plugin's.
        let signature = unsafe { bytes(signature, size) }?.ok_or(Misuse::Null)?;
        if signature.is_empty() { Err(Misuse::Empty) } else { Ok(Ok(Answer::Signature(signature))) }
    });
}

unsafe extern "C" fn answer_error(number: raw::Call, code: u32, message: *const c_char, hint: *const c_char) {
    guarded((), || {
        let call = find(number)?;
        let plugin = call.plugin.clone();
        // SAFETY: texts of the plugin's.
        let said = unsafe { text(message).and_then(|message| Ok((message, text(hint)?))) };
        call.answer(said.map(|(message, hint)| {
            let message = printable(message.unwrap_or_else(|| "it failed and does not say why".into()));
            Err(failure(plugin, code, message, hint.map(printable)))
        }));
        Some(())
    });
}

/// A plugin's failure as one of ours.
fn failure(plugin: String, code: u32, message: String, hint: Option<String>) -> AuthError {
    let fault = match code {
        raw::ERROR_UNAVAILABLE => {
            return AuthError::Unavailable { provider: format!("plugin '{plugin}'"), reason: message };
        }
        raw::ERROR_RIGHT => Fault::Right,
        raw::ERROR_NOT_FOUND => Fault::NotFound,
        raw::ERROR_NETWORK => Fault::Network,
        raw::ERROR_SERVICE => Fault::Service,
        raw::ERROR_SETTINGS => Fault::Usage,
        // Refused, unsupported, cancelled, the plugin's own fault, and what later versions may add.
        _ => Fault::SignIn,
    };
    AuthError::Plugin { plugin, message, hint, fault }
}

/// What version 1.0 of each struct has.
const PROMPT_LEAST: usize = offset_of!(raw::Prompt, choice_count) + size_of::<usize>();
const TOKEN_REQUEST_LEAST: usize = offset_of!(raw::TokenRequest, certificate_key_id) + size_of::<usize>();
const SIGN_IN_LEAST: usize = offset_of!(raw::SignIn, comment) + size_of::<usize>();

/// A copy of a struct that begins with its size.
///
/// # Safety
/// Null, or such a struct.
unsafe fn sized<T: Copy>(source: *const T, least: usize) -> Result<T, Misuse> {
    if source.is_null() || !source.is_aligned() {
        return Err(Misuse::Null);
    }
    // SAFETY: every one of these structs begins with its size.
    let size = unsafe { source.cast::<u32>().read() } as usize;
    if size < least {
        return Err(Misuse::Short);
    }
    // SAFETY: it has that many bytes, and each field is a number or a pointer.
    Ok(unsafe { prefix(source, size) })
}

/// A copy of a plugin's text.
///
/// # Safety
/// Null, or ends with NUL.
unsafe fn text(text: *const c_char) -> Result<Option<String>, Misuse> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: as this function's.
    let text = unsafe { CStr::from_ptr(text) };
    if text.count_bytes() > MAX_ANSWER {
        return Err(Misuse::NoText);
    }
    text.to_str().map(|text| Some(text.to_owned())).map_err(|_| Misuse::NoText)
}

/// A copy of a plugin's bytes.
///
/// # Safety
/// Null, or so many bytes.
unsafe fn bytes(bytes: *const u8, size: usize) -> Result<Option<Vec<u8>>, Misuse> {
    if bytes.is_null() || size == 0 {
        return Ok(None);
    }
    if size > MAX_ANSWER {
        return Err(Misuse::NoText);
    }
    // SAFETY: as this function's.
    Ok(Some(unsafe { std::slice::from_raw_parts(bytes, size) }.to_vec()))
}

/// One line: a plugin's words must not move the user's cursor.
fn printable(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
    } else {
        text
    }
}
