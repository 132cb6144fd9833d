//! What differs by system: Ctrl-C, signals to children, which processes are still there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Somebody pressed Ctrl-C, or ended this program in another way that lets it clean up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Remembers Ctrl-C instead of dying of it, so that whoever started something can stop it.
#[derive(Clone)]
pub(crate) struct Interrupts(Arc<AtomicBool>);

impl Interrupts {
    /// From now on, for the whole process.
    pub(crate) fn watch() -> std::io::Result<Interrupts> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in SIGNALS {
            signal_hook::flag::register(*signal, Arc::clone(&flag))?;
        }
        Ok(Interrupts(flag))
    }

    /// Fails once there was an interrupt.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }
}

/// What a child is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// As Ctrl-C does: SIGINT.
    Interrupt,
    /// As a service manager does: SIGTERM.
    Terminate,
}

#[cfg(unix)]
const SIGNALS: &[std::ffi::c_int] =
    &[signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];
#[cfg(not(unix))]
const SIGNALS: &[std::ffi::c_int] = &[signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];

/// Sends the signal; a child that has already ended is no error.
#[cfg(unix)]
pub(crate) fn ask(child: &mut std::process::Child, ask: Ask) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match ask {
        Ask::Interrupt => Signal::INT,
        Ask::Terminate => Signal::TERM,
    };
    // The child is not yet waited for, so the id is still its own.
    let _ = kill_process(Pid::from_child(child), signal);
}

/// There is no gentle way here.
#[cfg(not(unix))]
pub(crate) fn ask(child: &mut std::process::Child, _ask: Ask) {
    let _ = child.kill();
}

/// Keeps the terminal's Ctrl-C from the child: who started it stops it, in the right order.
#[cfg(unix)]
pub(crate) fn detach(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0);
}

/// Nothing to do here.
#[cfg(not(unix))]
pub(crate) fn detach(_command: &mut std::process::Command) {}

/// The command lines of running processes that have `text` in their environment.
///
/// Reads `/proc`; where there is none it finds nobody.
pub(crate) fn processes_with(text: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .filter(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(text)
        })
        .map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            format!(
                "{} {}",
                entry.file_name().to_string_lossy(),
                String::from_utf8_lossy(&line).replace('\0', " ")
            )
        })
        .collect()
}
