//! The thread that belongs to an open plugin, and asking it from outside within a time limit. A call that does not come
//! back keeps its thread; whoever asked goes on. It leaves out what is asked (`question`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use bastide_core::{AuthError, Fault};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::call::{Call, Config};
use super::host::Registration;
use super::question::{Answer, Opened, Question};
use super::table::Table;
use super::{PluginSettings, Services};

/// An open plugin's thread. Dropping it has the plugin closed.
pub(super) struct Worker {
    plugin: String,
    limit: Duration,
    config: Arc<Config>,
    thread: ThreadId,
    /// The thread is in the plugin.
    busy: Arc<AtomicBool>,
    jobs: Option<SyncSender<Job>>,
    /// Ends when the plugin is closed; in a mutex only so that the worker can be shared.
    closed: Mutex<Receiver<()>>,
}

struct Job {
    question: Question,
    call: Arc<Call>,
    done: oneshot::Sender<Result<Answer, AuthError>>,
}

/// After its time is over, a plugin that looks at `cancelled` is given this long to return.
const GRACE: Duration = Duration::from_secs(1);

/// How long closing a plugin may hold up the end of the program.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// The plugin waits for each errand, so there is never a second one.
const ERRANDS: usize = 1;

/// One at a time: the next question is not asked before the last one was answered or given up.
const JOBS: usize = 1;

impl Worker {
    /// Starts the thread. The plugin is not open yet: [`Question::Open`] has to be the first question.
    pub(super) fn start(table: Table, settings: &PluginSettings) -> std::io::Result<Self> {
        let (jobs, received) = sync_channel(JOBS);
        let (closing, closed) = sync_channel(0);
        let busy = Arc::new(AtomicBool::new(false));
        let (name, working) = (settings.name.clone(), Arc::clone(&busy));
        let thread = std::thread::Builder::new().name(format!("plugin {name}")).spawn(move || {
            work(&table, &name, received, &working);
            drop(closing);
        })?;
        Ok(Self {
            plugin: settings.name.clone(),
            limit: settings.time_limit,
            config: Arc::new(Config { values: settings.config.clone(), asked: Mutex::default() }),
            thread: thread.thread().id(),
            busy,
            jobs: Some(jobs),
            closed: Mutex::new(closed),
        })
    }

    /// Asks, carries out what the plugin asks meanwhile, and waits as long as the plugin may take.
    ///
    /// Cancel safe: the plugin is told that nobody waits any more.
    pub(super) async fn ask(&self, question: Question, services: &Services) -> Result<Answer, AuthError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(self.fault("it is still busy with a question that was given up"));
        }
        let (errands, mut asked) = mpsc::channel(ERRANDS);
        let (done, mut answer) = oneshot::channel();
        let (name, config) = (self.plugin.clone(), Arc::clone(&self.config));
        let call = Arc::new(Call::new(name, self.thread, config, errands, self.limit));
        let _cancelled = CancelOnDrop(Arc::clone(&call));
        let job = Job { question, call: Arc::clone(&call), done };
        if self.jobs.as_ref().is_none_or(|jobs| jobs.try_send(job).is_err()) {
            return Err(self.fault("its thread has ended"));
        }
        let mut deadline = Instant::now() + self.limit;
        loop {
            tokio::select! {
                biased;
                outcome = &mut answer => {
                    return outcome.unwrap_or_else(|_| Err(self.fault("its thread has ended")));
                }
                Some(errand) = asked.recv() => {
                    let begun = Instant::now();
                    errand.run(services, &self.plugin).await;
                    deadline += begun.elapsed();
                }
                () = sleep_until(deadline) => break,
            }
        }
        // Nobody runs errands any more, either.
        drop(asked);
        call.cancel();
        let seconds = self.limit.as_secs();
        match timeout(GRACE, answer).await {
            Ok(_) => Err(self.fault(format!("it gave no answer within {seconds} s"))),
            Err(_) => {
                call.abandon();
                Err(self.fault(format!(
                    "it gave no answer within {seconds} s, and does not come back: its thread is left behind"
                )))
            }
        }
    }

    /// Settings that the plugin has not looked at are misspelt, or for another version of it.
    pub(super) fn warn_of_settings(&self) {
        let asked = self.config.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for key in self.config.values.keys().filter(|key| !asked.contains(*key)) {
            tracing::warn!("plugin '{}' does not know the setting '{key}'", self.plugin);
        }
    }

    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    fn fault(&self, message: impl Into<String>) -> AuthError {
        AuthError::Plugin {
            plugin: self.plugin.clone(),
            message: message.into(),
            hint: Some(format!(
                "try again; `time_limit` of [plugins.{}] gives it more time, and -vv shows what it says",
                self.plugin
            )),
            fault: Fault::SignIn,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if !self.busy.load(Ordering::Acquire) {
            let closed = self.closed.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Either way it is over: closed, or left to the end of the process.
            let _ = closed.recv_timeout(CLOSE_LIMIT);
        }
    }
}

struct CancelOnDrop(Arc<Call>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The life of the thread.
fn work(table: &Table, name: &str, jobs: Receiver<Job>, busy: &AtomicBool) {
    let mut opened = Opened::new(table, name);
    for Job { question, call, done } in jobs {
        let registration = Registration::new(Arc::clone(&call));
        let outcome = match opened.call(&question, registration.0) {
            Ok(()) => {
                // Opening is the one question to which silence is an answer.
                if matches!(question, Question::Open) {
                    call.opened(opened.has_state());
                }
                call.outcome(|answer| fits(&question, answer))
            }
            Err(error) => Err(error),
        };
        if matches!((&question, &outcome), (Question::Open, Err(_))) {
            opened.forget();
        }
        drop(registration);
        busy.store(false, Ordering::Release);
        // Nobody may wait any more.
        let _ = done.send(outcome);
    }
    opened.close();
}

/// Whether this is an answer to that question.
fn fits(question: &Question, answer: &Answer) -> bool {
    matches!(
        (question, answer),
        (Question::Open, Answer::Opened)
            | (Question::Token(_), Answer::Token(_))
            | (Question::SignIn(_), Answer::SignIn { .. })
            | (Question::Sign { .. }, Answer::Signature(_))
    )
}
