//! A client: a runtime of its own, Azure as one identity sees it, and everything that was opened with it. Whatever waits is
//! carried out by the runtime's threads; the caller's own only waits for the answer. It leaves out what connections and
//! tunnels are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak, mpsc};
use std::time::Duration;

use bastide::{Meter, Observer};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::dispatcher::Dispatch;

use crate::connection::Destination;
use crate::error::Failure;
use crate::event::Queue;
use crate::handle::Thing;
use crate::log::{self, Lines};
use crate::options::{Flags, Values};
use crate::{guard, place, sys};

/// What a client handle stands for.
pub(crate) struct Client {
    runtime: Mutex<Option<Runtime>>,
    defaults: Values,
    destinations: Mutex<Vec<Known>>,
    pub(crate) desk: Arc<Desk>,
}

impl Thing for Client {
    const KIND: &'static str = "client";
}

/// Where connections went before, and the way to it.
struct Known {
    flags: Flags,
    destination: Arc<OnceCell<Destination>>,
}

/// What everything that was opened with a client needs of it.
pub(crate) struct Desk {
    /// None when the client is closed: descriptors go with it.
    running: Mutex<Option<Running>>,
    /// Owns every task that is spawned for the client.
    tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) queue: Arc<Queue>,
    /// What everything that was opened with the client carries.
    pub(crate) meter: Arc<Meter>,
    /// Tokens that could not be given back.
    leaked: AtomicU64,
    /// How long the end may take, in milliseconds; known when it begins.
    grace: AtomicU64,
}

/// What a client works with as long as it is open.
#[derive(Clone)]
struct Running {
    azure: Arc<bastide::Client>,
    handle: Handle,
}

/// The data path is two pumps' work at most times; more threads are more wake-ups.
const WORKERS: usize = 2;

/// How long threads of the runtime may take to end when everything that they did has: one that hangs in a name look-up or
/// in a callback is left behind.
const RUNTIME_ENDS_WITHIN: Duration = Duration::from_secs(1);

/// Ways to VMs that are kept for further connections. One more makes the one that was not used for longest give way,
/// which ends with its last connection; finding it anew costs a few requests.
const DESTINATIONS: usize = 64;

impl Client {
    pub(crate) fn new(defaults: Values) -> Result<Self, Failure> {
        quiet_panics();
        let mut settings = place::settings(&defaults)?;
        let queue = Arc::new(Queue::default());
        settings.prompt = Some(Arc::clone(&queue) as _);
        let lines = defaults.log.as_ref().map(|log| Dispatch::new(Lines(Arc::clone(log))));
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("bastide")
            .on_thread_start(move || {
                sys::block_signals();
                if let Some(lines) = &lines {
                    log::attach(lines);
                }
            })
            .on_thread_stop(log::detach)
            .enable_all()
            .build()
            .map_err(|error| Failure::system("the threads of the client cannot be started", &error))?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let handle = runtime.handle().clone();
        let opening = async move { Ok(bastide::Client::new(settings).await?) };
        let azure = match wait_for(&tasks, &handle, &stop, opening) {
            Ok(azure) => azure,
            Err(failure) => {
                runtime.shutdown_timeout(RUNTIME_ENDS_WITHIN);
                return Err(failure);
            }
        };
        let desk = Arc::new(Desk {
            running: Mutex::new(Some(Running { azure: Arc::new(azure), handle })),
            tasks,
            stop,
            queue,
            meter: Arc::default(),
            leaked: AtomicU64::new(0),
            grace: AtomicU64::new(DEFAULT_GRACE),
        });
        Ok(Self { runtime: Mutex::new(Some(runtime)), defaults, destinations: Mutex::default(), desk })
    }

    /// Options of a connection or a tunnel; those of the client where they say nothing.
    pub(crate) fn refine(&self, options: &Values) -> Result<Flags, Failure> {
        self.defaults.refined_by(options)
    }

    pub(crate) fn keepalive(&self) -> Option<&str> {
        self.defaults.get("keepalive")
    }

    /// The way to where `flags` lead, found once for all who ask.
    pub(crate) fn destination(&self, flags: &Flags) -> Arc<OnceCell<Destination>> {
        let mut known = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match known.iter().position(|known| known.flags == *flags) {
            Some(index) => known.remove(index),
            None => Known { flags: flags.clone(), destination: Arc::default() },
        };
        if known.len() >= DESTINATIONS {
            known.remove(0);
        }
        let destination = Arc::clone(&entry.destination);
        known.push(entry);
        destination
    }

    /// Looks it up anew next time: what was found may be what is wrong.
    pub(crate) fn forget(&self, destination: &Weak<OnceCell<Destination>>) {
        let mut known = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| !Arc::downgrade(&known.destination).ptr_eq(destination));
    }

    /// Ends everything at once, where nothing may be waited for, and wakes whoever waits.
    pub(crate) fn cut(&self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            self.desk.stop.cancel();
            runtime.shutdown_background();
            let running = self.desk.running.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(running);
            self.desk.queue.close();
        }
    }

    /// Ends everything within `grace` milliseconds; how many tokens were not given back.
    pub(crate) fn close(&self, grace: u64) -> Result<u64, Failure> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(runtime) = runtime else { return Err(Failure::closed()) };
        let desk = &self.desk;
        desk.grace.store(grace, Ordering::Release);
        desk.stop.cancel();
        self.destinations.lock().unwrap_or_else(PoisonError::into_inner).clear();
        desk.tasks.close();
        let (ended, is_over) = mpsc::channel();
        let tasks = desk.tasks.clone();
        // Not on the tracker, for which it waits; it ends with the runtime at the latest.
        runtime.spawn(async move {
            tasks.wait().await;
            // Who waited has gone when the time is over.
            let _ = ended.send(());
        });
        let in_time = is_over.recv_timeout(Duration::from_millis(grace).saturating_add(SETTLE)).is_ok();
        let unfinished = if in_time { 0 } else { desk.tasks.len() as u64 };
        let running = desk.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(running);
        runtime.shutdown_timeout(RUNTIME_ENDS_WITHIN);
        desk.queue.close();
        Ok(desk.leaked.load(Ordering::Acquire) + unfinished)
    }
}

/// What ends the connections has the whole grace, and this to say so.
const SETTLE: Duration = Duration::from_secs(2);

/// That of [`bastide::TunnelOptions`], in milliseconds.
pub(crate) const DEFAULT_GRACE: u64 = 10_000;

impl Drop for Client {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Desk {
    /// Azure, as the client sees it.
    pub(crate) fn azure(&self) -> Result<Arc<bastide::Client>, Failure> {
        Ok(self.running()?.azure)
    }

    fn running(&self) -> Result<Running, Failure> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(Failure::closed)
    }

    /// Has a future carried out by the client's threads, and waits for what it comes to, or for the end of the client.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        wait_for(&self.tasks, &self.running()?.handle, &self.stop, future)
    }

    /// The same for one that heeds `stop` itself, because it must not be cut off.
    pub(crate) fn wait_to_the_end<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        deliver(&self.tasks, &self.running()?.handle, &self.stop, future)
    }

    /// Has it carried out without waiting; not at all when the client is closed.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Ok(running) = self.running() {
            self.tasks.spawn_on(future, &running.handle);
        }
    }

    /// Notes tokens that could not be given back.
    pub(crate) fn note_leaks(&self, count: u64) {
        self.leaked.fetch_add(count, Ordering::AcqRel);
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace.load(Ordering::Acquire))
    }

    /// Whom the library tells what happens.
    pub(crate) fn observer(&self) -> Observer {
        let queue = Arc::clone(&self.queue);
        Arc::new(move |event| queue.observe(&event))
    }
}

fn wait_for<T: Send + 'static>(
    tasks: &TaskTracker,
    handle: &Handle,
    stop: &CancellationToken,
    future: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let stopped = stop.clone();
    deliver(tasks, handle, stop, async move {
        tokio::select! {
            outcome = future => outcome,
            () = stopped.cancelled() => Err(Failure::closed()),
        }
    })
}

fn deliver<T: Send + 'static>(
    tasks: &TaskTracker,
    handle: &Handle,
    stop: &CancellationToken,
    future: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    if stop.is_cancelled() {
        return Err(Failure::closed());
    }
    let (answer, answered) = mpsc::sync_channel(1);
    // The receiver is there until it has this.
    tasks.spawn_on(async move { drop(answer.send(future.await)) }, handle);
    answered.recv().unwrap_or_else(|_| {
        Err(if stop.is_cancelled() {
            Failure::closed()
        } else {
            Failure::ours("a task of the client has panicked")
        })
    })
}

/// A panic of ours is an error or a log line, and nothing on standard error. This library has a copy of the standard
/// library to itself: nobody else's panics are concerned.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    if cfg!(test) {
        return;
    }
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map_or_else(String::new, ToString::to_string);
            tracing::error!(%place, "a fault of bastide itself: {}", guard::said(panic.payload()));
        }));
    });
}
