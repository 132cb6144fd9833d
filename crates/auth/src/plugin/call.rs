//! One call into a plugin, as both sides see it: the thread that is in the plugin writes down what it answers and asks,
//! and whoever waits carries out what it asks. It leaves out C (`host`) and the thread (`worker`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bastide_core::{AccessToken, AuthError, Fault, Secret, TokenRequest};
use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::Services;
use super::https::{self, Lent};
use super::question::Answer;

/// Asks the user on a plugin's behalf. How is the program's business.
#[async_trait]
pub trait Asker: Send + Sync + fmt::Debug {
    /// The answer; `None` when there is nobody to ask, or no answer.
    ///
    /// Must be cancel safe: a terminal is left as it was.
    async fn ask(&self, inquiry: &Inquiry) -> Option<Secret>;
}

/// A plugin's question to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// The plugin's name in the configuration, so that the user knows who asks.
    pub plugin: String,
    /// The question, without colon or line end, free of control characters.
    pub text: String,
    /// What kind of answer.
    pub kind: InquiryKind,
}

/// What kind of answer a plugin wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InquiryKind {
    /// A line that may be seen.
    Text,
    /// A line that must not be seen.
    Secret,
    /// One of these, which is the answer word for word.
    Choice(Vec<String>),
}

/// What a plugin wants the host to do while it waits.
pub(super) enum Errand {
    Ask(Inquiry, std::sync::mpsc::SyncSender<Option<Secret>>),
    AzureToken(TokenRequest, std::sync::mpsc::SyncSender<Result<AccessToken, AuthError>>),
    Https(Request<Bytes>, std::sync::mpsc::SyncSender<Result<Response<Bytes>, AuthError>>),
}

impl Errand {
    /// Carries it out. Cancel safe: the plugin hears that there is no answer.
    pub(super) async fn run(self, services: &Services, plugin: &str) {
        // To send the reply cannot fail for want of room: the plugin waits for this one. When it has gone meanwhile,
        // nobody misses it.
        match self {
            Errand::Ask(inquiry, reply) => {
                let answer = match &services.asker {
                    Some(asker) => asker.ask(&inquiry).await,
                    None => None,
                };
                let _ = reply.try_send(answer);
            }
            Errand::AzureToken(request, reply) => {
                let token = match &services.provider {
                    Some(provider) => provider.access_token(&request).await,
                    None => Err(AuthError::Plugin {
                        plugin: plugin.to_owned(),
                        message: "it is itself the way to sign in to Azure, and asks for an Azure token"
                            .into(),
                        hint: Some("name another way with --credential".into()),
                        fault: Fault::Usage,
                    }),
                };
                let _ = reply.try_send(token);
            }
            Errand::Https(request, reply) => {
                let answer = https::send(services.network.as_ref(), plugin, request).await;
                let _ = reply.try_send(answer);
            }
        }
    }
}

/// How a plugin has broken its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misuse {
    #[error("it answered twice")]
    Twice,
    #[error("it answered from another thread than it was called on")]
    OtherThread,
    #[error("it returned without an answer")]
    Silent,
    #[error("it answered something else than it was asked")]
    OtherAnswer,
    #[error("it answered with NULL")]
    Null,
    #[error("it answered with text that is not UTF-8, or longer than {MAX_ANSWER} bytes")]
    NoText,
    #[error("it asked for a request that is none over HTTPS")]
    NoRequest,
    #[error("it answered with a struct that is too short")]
    Short,
    #[error("it answered with an empty token, signature or sign-in")]
    Empty,
}

/// What a plugin may answer, in bytes: far above any token, key or certificate.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

/// What a plugin was configured with, and which of it it has asked for.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) values: BTreeMap<String, String>,
    pub(super) asked: Mutex<BTreeSet<String>>,
}

/// A call under way.
pub(super) struct Call {
    /// What the configuration calls the plugin.
    pub(super) plugin: String,
    pub(super) thread: ThreadId,
    pub(super) config: std::sync::Arc<Config>,
    errands: mpsc::Sender<Errand>,
    limit: Duration,
    begun: Instant,
    /// Nobody waits any more.
    cancelled: AtomicBool,
    /// Not even for its return.
    abandoned: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    outcome: Option<Result<Answer, AuthError>>,
    misuse: Option<Misuse>,
    /// Why the host refused what it was asked.
    refusal: Option<AuthError>,
    /// Texts that the plugin was given. They end with NUL, and stay until the call is over.
    lent: Vec<Zeroizing<Vec<u8>>>,
    /// Answers to requests that it was given, as long.
    answers: Vec<Lent>,
    /// How long errands took, which is not the plugin's time.
    waited: Duration,
}

impl Call {
    pub(super) fn new(
        plugin: String,
        thread: ThreadId,
        config: std::sync::Arc<Config>,
        errands: mpsc::Sender<Errand>,
        limit: Duration,
    ) -> Self {
        Self {
            plugin,
            thread,
            config,
            errands,
            limit,
            begun: Instant::now(),
            cancelled: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            record: Mutex::default(),
        }
    }

    /// Nobody waits any more: the plugin should return.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The plugin has not returned, and nobody waits for that either.
    pub(super) fn abandon(&self) {
        self.cancel();
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn remaining(&self) -> Duration {
        if self.is_cancelled() {
            return Duration::ZERO;
        }
        (self.limit + self.record().waited).saturating_sub(self.begun.elapsed())
    }

    /// Writes an answer down: the first one counts, and a second one is a fault.
    pub(super) fn answer(&self, answer: Result<Result<Answer, AuthError>, Misuse>) {
        if self.abandoned.load(Ordering::Relaxed) {
            tracing::warn!(
                "plugin '{}' answered after its time was over: the answer is thrown away",
                self.plugin
            );
        }
        let mut record = self.record();
        match answer {
            Ok(_) if record.outcome.is_some() => {
                record.misuse.get_or_insert(Misuse::Twice);
            }
            Ok(outcome) => record.outcome = Some(outcome),
            Err(misuse) => {
                record.misuse.get_or_insert(misuse);
            }
        }
    }

    /// `open` has returned. Silence means success, unless nothing was returned after the host has refused something.
    pub(super) fn opened(&self, has_state: bool) {
        let mut record = self.record();
        if record.outcome.is_none() && (has_state || record.refusal.is_none()) {
            record.outcome = Some(Ok(Answer::Opened));
        }
    }

    pub(super) fn misused(&self, misuse: Misuse) {
        self.record().misuse.get_or_insert(misuse);
    }

    /// What came of it, once the plugin's function has returned: an answer that `is_fitting`, or for silence what the
    /// host has refused before.
    pub(super) fn outcome(&self, is_fitting: impl Fn(&Answer) -> bool) -> Result<Answer, AuthError> {
        let record = std::mem::take(&mut *self.record());
        let misuse = match (record.misuse, record.outcome, record.refusal) {
            (Some(misuse), ..) => misuse,
            (None, Some(Ok(answer)), _) if is_fitting(&answer) => return Ok(answer),
            (None, Some(Ok(_)), _) => Misuse::OtherAnswer,
            (None, Some(Err(error)), _) | (None, None, Some(error)) => return Err(error),
            (None, None, None) => Misuse::Silent,
        };
        Err(AuthError::Plugin {
            plugin: self.plugin.clone(),
            message: misuse.to_string(),
            hint: Some("report this to the author of the plugin".into()),
            fault: Fault::SignIn,
        })
    }

    /// Has whoever waits carry out an errand; blocks until that is done, or nobody waits any more.
    pub(super) fn send<T>(&self, errand: impl FnOnce(std::sync::mpsc::SyncSender<T>) -> Errand) -> Option<T> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let begun = Instant::now();
        // Its end drops the sender of the answer, too.
        self.errands.blocking_send(errand(reply)).ok()?;
        let answer = answer.recv().ok();
        self.record().waited += begun.elapsed();
        answer
    }

    pub(super) fn refused(&self, error: AuthError) {
        self.record().refusal = Some(error);
    }

    /// Keeps a text until the call is over, and says where. What holds a NUL can't be lent.
    pub(super) fn lend(&self, text: &str) -> *const std::ffi::c_char {
        if text.contains('\0') {
            return std::ptr::null();
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() + 1));
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        // What a vector holds stays where it is when the vector itself is moved.
        let address = bytes.as_ptr().cast();
        self.record().lent.push(bytes);
        address
    }

    /// Keeps an answer until the call is over, and says where.
    pub(super) fn lend_answer(&self, answer: Lent) -> *const bastide_plugin_abi::raw::HttpAnswer {
        let address = answer.address();
        self.record().answers.push(answer);
        address
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Nothing that holds the lock can panic.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Call").field(&self.plugin).finish()
    }
}
