//! From C to an author's trait and back: reads requests, calls, answers, and keeps panics in. It leaves out what is
//! asked and answered (`author`).

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::author::Why;
use crate::call::{pointer, without_nul};
use crate::{Call, Code, Failure, Plugin, SignIn, SignInRequest, SignRequest, Token, TokenRequest, raw};

/// The table of a plugin, for [`crate::export_plugin!`].
pub const fn table<P: Plugin>() -> raw::Plugin {
    raw::Plugin {
        abi: raw::ABI,
        size: size_of::<raw::Plugin>() as u32,
        name: P::NAME.as_ptr(),
        open: Some(open::<P>),
        close: Some(close::<P>),
        access_token: Some(access_token::<P>),
        sign_in: Some(sign_in::<P>),
        sign: Some(sign::<P>),
    }
}

/// The state that the host carries around.
struct Opened<P> {
    plugin: P,
    /// It panicked, so nobody knows what it is like now.
    broken: bool,
}

unsafe extern "C" fn open<P: Plugin>(
    host: *const raw::Host,
    number: raw::Call,
    _request: *const raw::OpenRequest,
) -> *mut c_void {
    // SAFETY: the host gives its table, which stays for the rest of the process.
    let call = Call::new(unsafe { &*host }, number);
    match caught(|| P::open(&call)) {
        Ok(plugin) => Box::into_raw(Box::new(Opened { plugin, broken: false })).cast(),
        Err(failure) => {
            answer_failure(&call, &failure);
            std::ptr::null_mut()
        }
    }
}

unsafe extern "C" fn close<P: Plugin>(state: *mut c_void) {
    if state.is_null() {
        return;
    }
    // SAFETY: made by `open` from a box of this type; the host closes it once, and uses it no more.
    let opened = unsafe { Box::from_raw(state.cast::<Opened<P>>()) };
    // Nobody is left to be told of a panic.
    let _ = caught(|| {
        drop(opened);
        Ok(())
    });
}

unsafe extern "C" fn access_token<P: Plugin>(
    state: *mut c_void,
    host: *const raw::Host,
    number: raw::Call,
    request: *const raw::TokenRequest,
) {
    // SAFETY: all from the host: its table, the state that `open` made, and a request of at least this size.
    let (call, state, request) =
        unsafe { (Call::new(&*host, number), state.cast::<Opened<P>>().as_mut(), &*request) };
    let answer = entered(state, |plugin| {
        // SAFETY: the texts of a request are good until this function returns.
        let (scope, tenant, claims, key, key_id) = unsafe {
            (
                text(request.scope),
                text(request.tenant),
                text(request.claims),
                text(request.certificate_key),
                text(request.certificate_key_id),
            )
        };
        let request = TokenRequest {
            scope: scope.unwrap_or_default(),
            tenant,
            claims,
            fresh: request.flags & raw::TOKEN_FRESH != 0,
            certificate: key.map(|key| (key, key_id.unwrap_or_default())),
        };
        plugin.access_token(&call, &request)
    });
    match answer {
        Ok(Token { text, expires_on }) => {
            let text = without_nul(&text);
            if let Some(answer_token) = call.host.answer_token {
                // SAFETY: the host's function with a live call and a text that ends with NUL.
                unsafe { answer_token(call.number, text.as_ptr(), expires_on) };
            }
        }
        Err(failure) => answer_failure(&call, &failure),
    }
}

unsafe extern "C" fn sign_in<P: Plugin>(
    state: *mut c_void,
    host: *const raw::Host,
    number: raw::Call,
    request: *const raw::SignInRequest,
) {
    // SAFETY: all from the host: its table, the state that `open` made, and a request of at least this size.
    let (call, state, request) =
        unsafe { (Call::new(&*host, number), state.cast::<Opened<P>>().as_mut(), &*request) };
    let answer = entered(state, |plugin| {
        // SAFETY: the texts of a request are good until this function returns.
        let (vm, resource_id, user) =
            unsafe { (text(request.vm), text(request.resource_id), text(request.user)) };
        plugin.sign_in(&call, &SignInRequest { vm: vm.unwrap_or_default(), resource_id, user })
    });
    match answer {
        Ok(sign_in) => answer_sign_in(&call, &sign_in),
        Err(failure) => answer_failure(&call, &failure),
    }
}

unsafe extern "C" fn sign<P: Plugin>(
    state: *mut c_void,
    host: *const raw::Host,
    number: raw::Call,
    request: *const raw::SignRequest,
) {
    // SAFETY: all from the host: its table, the state that `open` made, and a request of at least this size.
    let (call, state, request) =
        unsafe { (Call::new(&*host, number), state.cast::<Opened<P>>().as_mut(), &*request) };
    let answer = entered(state, |plugin| {
        // SAFETY: text and bytes of a request are good until this function returns.
        let (algorithm, public_key, data) = unsafe {
            (
                text(request.algorithm),
                bytes(request.public_key, request.public_key_size),
                bytes(request.data, request.data_size),
            )
        };
        plugin.sign(&call, &SignRequest { algorithm: algorithm.unwrap_or_default(), public_key, data })
    });
    match (answer, call.host.answer_signature) {
        (Ok(signature), Some(answer_signature)) => {
            // SAFETY: the host's function with a live call, and bytes that live longer than the call of it.
            unsafe { answer_signature(call.number, signature.as_ptr(), signature.len()) };
        }
        (Ok(_), None) => {}
        (Err(failure), _) => answer_failure(&call, &failure),
    }
}

fn answer_sign_in(call: &Call<'_>, sign_in: &SignIn) {
    let owned = |text: Option<&str>| text.map(without_nul);
    let identity = sign_in.identity.as_ref();
    let (user, password) = (owned(sign_in.user.as_deref()), owned(sign_in.password.as_deref()));
    let comment = owned(identity.map(|identity| identity.comment.as_str()));
    let slice =
        |bytes: Option<&[u8]>| bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
    let (public_key, public_key_size) = slice(identity.map(|identity| identity.public_key.as_slice()));
    let (certificate, certificate_size) =
        slice(identity.and_then(|identity| identity.certificate.as_deref()));
    let answer = raw::SignIn {
        size: size_of::<raw::SignIn>() as u32,
        flags: 0,
        user: pointer(&user),
        password: pointer(&password),
        public_key,
        public_key_size,
        certificate,
        certificate_size,
        comment: pointer(&comment),
    };
    if let Some(answer_sign_in) = call.host.answer_sign_in {
        // SAFETY: the host's function with a live call; texts and bytes live longer than the call of it.
        unsafe { answer_sign_in(call.number, &raw const answer) };
    }
}

fn answer_failure(call: &Call<'_>, failure: &Failure) {
    // The host knows what went wrong when it gets no answer after a refusal of its own.
    let Why::Said { code, message, hint } = &failure.0 else { return };
    let (message, hint) = (without_nul(message), hint.as_deref().map(without_nul));
    if let Some(answer_error) = call.host.answer_error {
        // SAFETY: the host's function with a live call and texts that end with NUL.
        unsafe { answer_error(call.number, code.number(), message.as_ptr(), pointer(&hint)) };
    }
}

/// Calls an author's function, unless one has panicked before.
fn entered<P, T>(
    opened: Option<&mut Opened<P>>,
    call: impl FnOnce(&mut P) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(opened) = opened else { return Err(Failure::new(Code::Internal, "it was not opened")) };
    if opened.broken {
        return Err(Failure::new(Code::Internal, "it has panicked before"));
    }
    // Until it returns.
    opened.broken = true;
    let mut returned = false;
    let outcome = caught(|| {
        let outcome = call(&mut opened.plugin);
        returned = true;
        outcome
    });
    opened.broken = !returned;
    outcome
}

/// A panic as a failure, which says where it was.
fn caught<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The user hears of ours by the error; other threads are none of our business.
            let ours = PLACE.with_borrow_mut(|place| match place {
                Some(place) => {
                    *place = panic.location().map(|at| format!("{}:{}: ", at.file(), at.line()));
                    true
                }
                None => false,
            });
            if !ours {
                before(panic);
            }
        }));
    });
    PLACE.set(Some(None));
    // What the panic may have left half done is the plugin itself, which `entered` calls no more.
    let outcome = catch_unwind(AssertUnwindSafe(call));
    let place = PLACE.take().flatten().unwrap_or_default();
    outcome.unwrap_or_else(|panic| {
        Err(Failure::new(Code::Internal, format!("it panicked: {place}{}", said(&*panic)))
            .hint("report this to the author of the plugin"))
    })
}

thread_local! {
    /// While a call is caught here: where it has panicked.
    static PLACE: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

fn said(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without words",
    }
}

/// A text of the host; what is not UTF-8 is taken for missing, and the host sends none.
///
/// # Safety
/// Null, or ends with NUL and stays as it is for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as this function's.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// # Safety
/// Null, or so many bytes that stay as they are for `'a`.
unsafe fn bytes<'a>(bytes: *const u8, size: usize) -> &'a [u8] {
    if bytes.is_null() {
        return &[];
    }
    // SAFETY: as this function's.
    unsafe { std::slice::from_raw_parts(bytes, size) }
}
