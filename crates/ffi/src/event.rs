//! Events until somebody pulls them: a bounded queue, whose oldest entries give way. It leaves out what happens; the names
//! and fields are those of `-o json` (cli.md, "Output").

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bastide::{DeviceCode, Event, Prompt, causes, event_fields, json_line};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::handle::Thing;
use crate::text;

/// What an event handle stands for.
pub(crate) struct Happening {
    name: CString,
    json: CString,
    connection: u64,
}

impl Thing for Happening {
    const KIND: &'static str = "event";
}

impl Happening {
    fn new(name: &str, fields: Value) -> Self {
        let connection = fields.get("id").and_then(Value::as_u64).unwrap_or_default();
        Self { name: text::owned(name), json: text::owned(&json_line(name, fields)), connection }
    }

    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    pub(crate) fn json(&self) -> &CStr {
        &self.json
    }

    pub(crate) fn connection(&self) -> u64 {
        self.connection
    }
}

/// Events of a client.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Happening>,
    dropped: u64,
    is_closed: bool,
}

/// As many as the command line keeps for a reader that stops reading.
const MOST_WAITING: usize = 1024;

impl Queue {
    pub(crate) fn tell(&self, name: &str, fields: Value) {
        let mut state = self.state();
        if state.waiting.len() >= MOST_WAITING {
            state.waiting.pop_front();
            state.dropped += 1;
        }
        state.waiting.push_back(Happening::new(name, fields));
        self.changed.notify_one();
    }

    /// What happens to connections; an error of one is an event of its own.
    pub(crate) fn observe(&self, event: &Event) {
        if let Some((name, fields)) = event_fields(event) {
            self.tell(name, fields);
        }
        match event {
            Event::Closed { id, account } => {
                if let Err(error) = &account.outcome {
                    let message = causes(error).join(": ");
                    let (code, hint) = (error.fault().code(), error.hint());
                    self.tell("error", json!({"id": id, "code": code, "message": message, "hint": hint}));
                }
            }
            Event::Leaked { id, reason } => {
                tracing::warn!(id, %reason, "the token of a connection could not be given back");
            }
            _ => {}
        }
    }

    /// The next event; none when none comes within `limit`, where there is one.
    pub(crate) fn next(&self, limit: Option<Duration>) -> Result<Option<Happening>, Failure> {
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut state = self.state();
        loop {
            if state.dropped > 0 {
                let count = std::mem::take(&mut state.dropped);
                return Ok(Some(Happening::new("dropped", json!({"count": count}))));
            }
            if let Some(event) = state.waiting.pop_front() {
                return Ok(Some(event));
            }
            if state.is_closed {
                return Err(Failure::closed());
            }
            state = match (limit, end) {
                (Some(_), Some(end)) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                _ => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Nothing more will happen; what has can still be pulled.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Prompt for Queue {
    fn show(&self, code: &DeviceCode) {
        let DeviceCode { url, code, expires_in } = code;
        self.tell("code", json!({"url": url, "code": code, "seconds": expires_in.as_secs()}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_give_way_and_are_counted() {
        let queue = Queue::default();
        for id in 0..MOST_WAITING + 3 {
            queue.tell("released", json!({"id": id}));
        }
        let next = || queue.next(Some(Duration::ZERO)).map_err(|failure| failure.code());
        let first = next().unwrap().unwrap();
        assert_eq!(first.name(), c"dropped");
        assert!(first.json().to_str().unwrap().contains("\"count\":3"));
        assert_eq!(next().unwrap().unwrap().connection(), 3);
        queue.close();
        assert_eq!(std::iter::from_fn(|| next().unwrap_or_default()).count(), MOST_WAITING - 1);
        assert_eq!(next().err(), Some(crate::error::CLOSED));
    }

    #[test]
    fn who_waits_is_woken() {
        let queue = Queue::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.next(None).unwrap().unwrap().name().to_owned());
            queue.tell("opened", json!({"id": 1}));
            assert_eq!(waiting.join().unwrap().as_c_str(), c"opened");
            let waiting = scope.spawn(|| queue.next(Some(Duration::MAX)).is_err());
            queue.close();
            assert!(waiting.join().unwrap());
        });
    }
}
