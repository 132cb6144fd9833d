//! Why a call failed, as C is told it: a number, and words. It leaves out the numbers' meaning for the command line, with
//! which those of [`Fault`] are shared.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use bastide::{Fault, causes};

use crate::handle::Thing;
use crate::text;

/// The call was wrong, whatever Azure says: a pointer that must not be NULL, a handle that was freed.
pub(crate) const MISUSE: i32 = 200;
/// The handle belongs to the process that this one was forked from.
pub(crate) const FORKED: i32 = 201;
/// The client was closed, before the call or meanwhile.
pub(crate) const CLOSED: i32 = 202;

/// What an error handle stands for.
#[derive(Debug, Clone)]
pub(crate) struct Failure(Arc<Words>);

#[derive(Debug)]
struct Words {
    code: i32,
    message: CString,
    hint: Option<CString>,
    request_id: Option<CString>,
}

impl Thing for Failure {
    const KIND: &'static str = "error";
}

impl Failure {
    pub(crate) fn new(code: i32, message: &str, hint: Option<&str>) -> Self {
        Self::with_request(code, message, hint, None)
    }

    fn with_request(code: i32, message: &str, hint: Option<&str>, request_id: Option<&str>) -> Self {
        let (message, hint) = (text::owned(message), hint.map(text::owned));
        Self(Arc::new(Words { code, message, hint, request_id: request_id.map(text::owned) }))
    }

    pub(crate) fn misuse(message: impl AsRef<str>) -> Self {
        Self::new(MISUSE, message.as_ref(), Some("bastide.h says what the function wants"))
    }

    pub(crate) fn forked(kind: &str) -> Self {
        let message = format!("the {kind} handle is of the process that this one was forked from");
        Self::new(FORKED, &message, Some("make a client after the fork, in the process that uses it"))
    }

    pub(crate) fn closed() -> Self {
        Self::new(CLOSED, "the client is closed", None)
    }

    pub(crate) fn usage(message: impl AsRef<str>, hint: impl AsRef<str>) -> Self {
        Self::new(Fault::Usage.code().into(), message.as_ref(), Some(hint.as_ref()))
    }

    pub(crate) fn ours(message: impl AsRef<str>) -> Self {
        let hint = "please report it with this message and what the program did";
        Self::new(Fault::Ours.code().into(), message.as_ref(), Some(hint))
    }

    /// The operating system let us down.
    pub(crate) fn system(what: &str, error: &std::io::Error) -> Self {
        Self::new(Fault::Ours.code().into(), &format!("{what}: {error}"), None)
    }

    pub(crate) fn code(&self) -> i32 {
        self.0.code
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        self.0.message.to_str().unwrap_or_default()
    }

    pub(crate) fn c_message(&self) -> &CStr {
        &self.0.message
    }

    pub(crate) fn hint(&self) -> Option<&CStr> {
        self.0.hint.as_deref()
    }

    pub(crate) fn request_id(&self) -> Option<&CStr> {
        self.0.request_id.as_deref()
    }
}

impl<E: Into<bastide::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let (message, hint) = (causes(&error).join(": "), error.hint());
        Self::with_request(error.fault().code().into(), &message, hint.as_deref(), error.request_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_words_of_the_library() {
        let failure = Failure::from(bastide::Error::NoBastion);
        assert_eq!((failure.code(), failure.message()), (2, "no Bastion host is named"));
        assert!(failure.hint().unwrap().to_str().unwrap().contains("--name"));
        assert_eq!(failure.request_id(), None);
    }
}
