//! Options, and the functions of the program that they can hold. It leaves out which options there are (`keys`).

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use bastide::Environment;

use crate::callback::Callback;
use crate::error::Failure;
use crate::guard::{fallible, infallible};
use crate::log::Log;
use crate::sign_in::{self, SignIn};
use crate::text::{self, Place};
use crate::{handle, log, options};

/// What a client, a connection or a tunnel is told. It is read when it is used, and can be changed, used again or freed
/// afterwards.
pub struct Options {
    _opaque: [u8; 0],
}

/// One question of a client for an access token. It is good until the function that was called with it returns.
pub struct TokenCall {
    _opaque: [u8; 0],
}

/// Told that a context is not needed any more. It is called once, on any thread.
pub type Finalizer = Option<unsafe extern "C" fn(context: *mut c_void)>;

/// Gets an access token, and answers by one of `bastide_token_call_give` and `bastide_token_call_refuse` before it
/// returns. It is called on a thread of the client's, may be called on several at once, and may block for a minute. It
/// must not call functions that wait.
pub type TokenFunction = Option<unsafe extern "C" fn(context: *mut c_void, call: *mut TokenCall)>;

/// Takes a line of the log: one of BASTIDE_LOG_..., the part of bastide that says it, and what it says. Both texts are good
/// until it returns. It is called on threads of the client's, on several at once, and should be quick; it must not call
/// functions that wait.
pub type LogFunction = Option<
    unsafe extern "C" fn(context: *mut c_void, level: u32, target: *const c_char, message: *const c_char),
>;

/// A log line about something that failed.
pub const LOG_ERROR: u32 = 0;
/// A log line that says that something is wrong, although it goes on.
pub const LOG_WARN: u32 = 1;
/// A log line about what was done.
pub const LOG_INFO: u32 = 2;
/// A log line about how it was done.
pub const LOG_DEBUG: u32 = 3;
/// A log line about each step.
pub const LOG_TRACE: u32 = 4;

/// Makes options that say nothing yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_options_new(options: *mut *mut Options) -> *mut super::Error {
    fallible(|| {
        // SAFETY: bastide.h demands that of every place for an answer.
        let place = unsafe { Place::new(options, "options") }?;
        place.put(handle::insert(Arc::new(options::Options::default())));
        Ok(())
    })
}

/// Sets an option. Its key is the long name of a flag of the command line without `--` (`bastide tunnel --help`), and its
/// value what the flag is given; a flag that stands alone is `true` or `false`. `target` is the command line's TARGET.
///
/// Of a client: `cloud`, `tenant`, `credential`, `client-id`, `exec-command`, `no-cache`, `ca-bundle`, `proxy`,
/// `subscription`, `keepalive`. Of connections and tunnels, with those of their client as defaults: `target`,
/// `target-resource-id` or `target-ip-address`, `name`, `resource-group`, `resource-port`, `timeout`, `idle-timeout`,
/// `max-frame`, `connect-timeout`, `retries`. Of tunnels: `port`, `bind`, `forward` (such as `/PATH.sock:22`, in place of
/// `port` and `resource-port`), `allow-other-users`, `prefetch`.
///
/// A key in capitals is an environment variable, such as `AZURE_CLIENT_ID` or `HTTPS_PROXY`, that the client sees in
/// place of the process's own; `all_proxy`, `http_proxy`, `https_proxy` and `no_proxy` are variables, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_options_set(
    options: *mut Options,
    key: *const c_char,
    value: *const c_char,
) -> *mut super::Error {
    fallible(|| {
        let options = handle::get::<options::Options, _>(options)?;
        // SAFETY: bastide.h demands that of every text.
        let (key, value) = unsafe { (text::given(key, "key")?, text::given(value, "value")?) };
        let mut outcome = Ok(());
        options.change(|values| outcome = values.set(key, value));
        outcome
    })
}

/// Copies the environment of the process, as it is now, into the options: sign-ins of the Azure SDKs, proxies, `HOME`, where
/// `bastide login` has left its sign-in. Without it a client sees no environment. Variables that were set by
/// `bastide_options_set` stay as they are. No other thread may change the environment meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_options_use_environment(options: *mut Options) -> *mut super::Error {
    fallible(|| {
        let options = handle::get::<options::Options, _>(options)?;
        let environment = Environment::of_process();
        options.change(|values| {
            for (name, value) in environment.iter() {
                values.variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        });
        Ok(())
    })
}

/// Has clients sign in to Azure by a function, in place of `credential`. Tokens are cached until shortly before their end.
/// `finalizer` may be NULL; if this call fails, nothing is taken over and it is not called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_options_set_token_function(
    options: *mut Options,
    function: TokenFunction,
    context: *mut c_void,
    finalizer: Finalizer,
) -> *mut super::Error {
    fallible(|| {
        let options = handle::get::<options::Options, _>(options)?;
        let function: sign_in::Function =
            function.ok_or_else(|| Failure::misuse("the token function is NULL"))?;
        // SAFETY: bastide.h demands that of every function with a context.
        let callback = unsafe { Callback::new(function, context, finalizer) };
        let mut former = Some(Arc::new(SignIn(callback)));
        options.change(|values| std::mem::swap(&mut values.sign_in, &mut former));
        // Its finalizer runs when the options are not locked any more.
        drop(former);
        Ok(())
    })
}

/// Has clients say what they do, up to a level (BASTIDE_LOG_...), to a function. Without one they say it to nobody.
/// `finalizer` may be NULL; if this call fails, nothing is taken over and it is not called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_options_set_log_function(
    options: *mut Options,
    level: u32,
    function: LogFunction,
    context: *mut c_void,
    finalizer: Finalizer,
) -> *mut super::Error {
    fallible(|| {
        let options = handle::get::<options::Options, _>(options)?;
        let function: log::Function = function.ok_or_else(|| Failure::misuse("the log function is NULL"))?;
        let level = Log::level(level)?;
        // SAFETY: bastide.h demands that of every function with a context.
        let callback = unsafe { Callback::new(function, context, finalizer) };
        let mut former = Some(Arc::new(Log::new(level, callback)));
        options.change(|values| std::mem::swap(&mut values.log, &mut former));
        drop(former);
        Ok(())
    })
}

/// Frees options. NULL, and what was freed before, are left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_options_free(options: *mut Options) {
    infallible((), || {
        drop(handle::remove::<options::Options, _>(options));
        None
    });
}

/// What the token is for, such as `https://management.azure.com/.default`: good until the call is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_token_call_scope(call: *const TokenCall) -> *const c_char {
    infallible(std::ptr::null(), || Some(handle::get::<sign_in::TokenCall, _>(call).ok()?.scope().as_ptr()))
}

/// The tenant that has to issue it: good until the call is over. NULL where any will do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_token_call_tenant(call: *const TokenCall) -> *const c_char {
    infallible(std::ptr::null(), || {
        Some(text::pointer(handle::get::<sign_in::TokenCall, _>(call).ok()?.tenant()))
    })
}

/// The claims that a service demands, as JSON: good until the call is over. NULL where it demands none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_token_call_claims(call: *const TokenCall) -> *const c_char {
    infallible(std::ptr::null(), || {
        Some(text::pointer(handle::get::<sign_in::TokenCall, _>(call).ok()?.claims()))
    })
}

/// 1 when a service has refused the token before, so that one from a cache won't do; otherwise 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_token_call_is_fresh(call: *const TokenCall) -> i32 {
    infallible(0, || Some(i32::from(handle::get::<sign_in::TokenCall, _>(call).ok()?.is_fresh())))
}

/// Answers with a token and its end, in seconds since 1970. The token is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_token_call_give(
    call: *mut TokenCall,
    token: *const c_char,
    expires_on: i64,
) -> *mut super::Error {
    fallible(|| {
        let call = handle::get::<sign_in::TokenCall, _>(call)?;
        // SAFETY: bastide.h demands that of every text.
        let token = unsafe { text::given(token, "token") }?;
        call.give(token, expires_on)
    })
}

/// Answers that there is no token, and why. The words are shown to the user, and copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bastide_token_call_refuse(
    call: *mut TokenCall,
    message: *const c_char,
) -> *mut super::Error {
    fallible(|| {
        let call = handle::get::<sign_in::TokenCall, _>(call)?;
        // SAFETY: bastide.h demands that of every text.
        let message = unsafe { text::given(message, "message") }?;
        call.refuse(message)
    })
}
