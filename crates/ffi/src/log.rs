//! Log lines of the library for a function of the program that uses it: those of its own client alone, because a client
//! has threads of its own. It leaves out what is logged.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::fmt::{self, Write as _};

use tracing::dispatcher::{self, DefaultGuard, Dispatch};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::callback::Callback;
use crate::error::Failure;
use crate::{guard, text};

/// `bastide_log_function`.
pub(crate) type Function =
    unsafe extern "C" fn(context: *mut c_void, level: u32, target: *const c_char, message: *const c_char);

/// Lines up to a level, for a function.
pub(crate) struct Log {
    level: LevelFilter,
    callback: Callback<Function>,
}

/// Levels by their numbers in C; those of plugins are among them.
const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

impl Log {
    pub(crate) fn new(level: LevelFilter, callback: Callback<Function>) -> Self {
        Self { level, callback }
    }

    /// The level of a number in C.
    pub(crate) fn level(number: u32) -> Result<LevelFilter, Failure> {
        let level = usize::try_from(number).ok().and_then(|number| LEVELS.get(number));
        let level = level.ok_or_else(|| Failure::misuse(format!("{number} is no level of log lines")))?;
        Ok(LevelFilter::from_level(*level))
    }
}

thread_local! {
    static LINES_OF_THIS_THREAD: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// From now on lines of this thread go there.
pub(crate) fn attach(lines: &Dispatch) {
    LINES_OF_THIS_THREAD.set(Some(dispatcher::set_default(lines)));
}

/// Before the thread ends.
pub(crate) fn detach() {
    LINES_OF_THIS_THREAD.take();
}

/// The subscriber behind [`attach`].
pub(crate) struct Lines(pub(crate) std::sync::Arc<Log>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level)
    }

    fn event(&self, event: &Event<'_>) {
        // What a function of the program makes us say would make it say more.
        if guard::is_called_back() {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let level = LEVELS.iter().position(|level| level == metadata.level()).unwrap_or_default();
        let level = u32::try_from(level).unwrap_or_default();
        let (target, message) = (text::owned(metadata.target()), text::owned(&line.text));
        let (function, context) = self.0.callback.parts();
        // SAFETY: whoever has set the function has promised that it may be called with this context, on any thread.
        guard::call_back(|| unsafe { function(context, level, target.as_ptr(), message.as_ptr()) });
    }

    // No line says in which span it was.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message, and behind it the fields: as tracing-subscriber writes them.
#[derive(Default)]
struct Line {
    text: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a String cannot fail.
        let _ = match field.name() {
            "message" => {
                let rest = std::mem::take(&mut self.text);
                write!(self.text, "{value:?}{rest}")
            }
            name => write!(self.text, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::sync::{Arc, Mutex};

    use super::*;

    unsafe extern "C" fn keep(
        context: *mut c_void,
        level: u32,
        target: *const c_char,
        message: *const c_char,
    ) {
        // SAFETY: as `lines_are_told` has it, and as `Lines` calls.
        let (kept, target, message) = unsafe {
            (&*context.cast::<Mutex<Vec<String>>>(), CStr::from_ptr(target), CStr::from_ptr(message))
        };
        tracing::error!("a line about a line");
        let line = format!("{level} {} {}", target.to_str().unwrap(), message.to_str().unwrap());
        kept.lock().unwrap().push(line);
    }

    #[test]
    fn lines_are_told() {
        let kept: Mutex<Vec<String>> = Mutex::default();
        let context = std::ptr::from_ref(&kept).cast_mut().cast();
        // SAFETY: `kept` lives until the thread that logs has ended.
        let callback = unsafe { Callback::new(keep as Function, context, None) };
        let log = Arc::new(Log::new(Log::level(2).ok().unwrap(), callback));
        let logging = move || {
            attach(&Dispatch::new(Lines(Arc::clone(&log))));
            tracing::info!(target: "here", count = 3, name = "x", "a {}", "line");
            tracing::debug!("too much");
            detach();
            tracing::error!("for nobody");
        };
        std::thread::spawn(logging).join().unwrap();
        assert_eq!(*kept.lock().unwrap(), ["2 here a line count=3 name=\"x\""]);
    }
}
