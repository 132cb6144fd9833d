//! Programs under test: started without a shell, with an environment made for them, and killed when the test is over
//! or takes too long. It leaves out which programs.

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// No program of a test runs for longer; a machine with two busy cores needs a fraction of it. It only turns a hang
/// into a failure.
const LIMIT: Duration = Duration::from_secs(240);

/// A program to be started.
pub struct Program {
    command: Command,
    input: Vec<u8>,
}

impl Program {
    /// `program` with an environment of nothing but `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Self { command, input: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.command.args(words);
        self
    }

    /// Adds the words of a line, split at white space.
    #[must_use]
    pub fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs in a folder.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// What standard input brings before its end. Default: nothing.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs to the end.
    pub fn run(self) -> Outcome {
        let input = self.input.clone();
        let mut running = self.start();
        let mut stdin = running.child.stdin.take().expect("stdin is a pipe");
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let mut stdout = running.child.stdout.take().expect("stdout is a pipe");
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let status = running.wait();
        let stdout = reader.join().unwrap().unwrap();
        writer.join().unwrap();
        Outcome { status, stdout, stderr: running.stderr_so_far() }
    }

    /// Starts, with pipes for standard input and output.
    pub fn start(mut self) -> Running {
        let name = format!("{:?}", self.command.get_program());
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| {
            panic!("{name} cannot be started: {error}; `cargo xtask test` installs what the tests need")
        });
        let mut stderr = child.stderr.take().expect("stderr is a pipe");
        let (sender, lines) = channel();
        let stderr = std::thread::spawn(move || {
            let mut all = String::new();
            for line in BufReader::new(&mut stderr).lines().map_while(Result::ok) {
                all.push_str(&line);
                all.push('\n');
                drop(sender.send(line));
            }
            all
        });
        let watchdog = Watchdog::new(child.id());
        Running { name, child, stderr: Some(stderr), stderr_text: String::new(), lines, watchdog }
    }
}

/// A program that runs. Killed when dropped.
pub struct Running {
    name: String,
    child: Child,
    stderr: Option<JoinHandle<String>>,
    stderr_text: String,
    lines: Receiver<String>,
    watchdog: Watchdog,
}

impl Running {
    /// Its standard input and output, for a test that talks to it.
    pub fn pipes(&mut self) -> (std::process::ChildStdin, std::process::ChildStdout) {
        (self.child.stdin.take().expect("taken once"), self.child.stdout.take().expect("taken once"))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error that holds `text`.
    pub fn stderr_line(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("{}: no line with '{text}' on standard error, but {seen:#?}", self.name),
            }
        }
    }

    /// Waits for a JSON event of this name on standard output, whose other lines are dropped.
    pub fn event(&mut self, name: &str) -> serde_json::Value {
        loop {
            let Some(event) = self.next_event() else {
                let stderr = self.collect_stderr();
                panic!("{}: ended without the event '{name}': {stderr}", self.name);
            };
            if event.get("event").is_some_and(|event| event == name) {
                return event;
            }
        }
    }

    /// The next JSON event on standard output; none at its end.
    pub fn next_event(&mut self) -> Option<serde_json::Value> {
        let line = read_line(self.child.stdout.as_mut().expect("standard output was not taken"));
        (!line.is_empty()).then(|| serde_json::from_str(&line).expect("a line of JSON"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if self.watchdog.disarm() {
            let stderr = self.collect_stderr();
            panic!("{} took too long and was killed: {stderr}", self.name);
        }
        status
    }

    /// Waits for its end; what standard output still held is in the outcome unless it was taken.
    pub fn finish(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let mut bytes = Vec::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_end(&mut bytes).unwrap();
        }
        let status = self.wait();
        Outcome { status, stdout: bytes, stderr: self.collect_stderr() }
    }

    fn stderr_so_far(&mut self) -> String {
        self.collect_stderr()
    }

    fn collect_stderr(&mut self) -> String {
        if let Some(thread) = self.stderr.take() {
            self.stderr_text = thread.join().unwrap();
        }
        self.stderr_text.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How a program ended.
pub struct Outcome {
    /// Its status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// The exit code; 128 and the signal's number when one ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON, an object a line.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.text().lines().map(parse).collect()
    }

    /// Checks the exit code, and that nothing on standard error is the mark of a bug.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self}");
        for mark in ["panicked at", "unexpected error", "ERROR "] {
            assert!(!self.stderr.contains(mark), "'{mark}' on standard error: {self}");
        }
        self
    }

    /// Checks that standard error holds this.
    #[track_caller]
    pub fn expect_stderr(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "'{text}' is missing: {self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text().chars().take(4000).collect();
        write!(formatter, "{}\n--- stdout\n{shown}\n--- stderr\n{}", self.status, self.stderr)
    }
}

/// Byte by byte: what comes behind the line belongs to the next reader.
fn read_line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 {
        line.push(byte[0]);
        if byte == [b'\n'] {
            break;
        }
    }
    String::from_utf8(line).unwrap()
}

/// Kills a process that takes too long.
struct Watchdog {
    stop: std::sync::mpsc::Sender<()>,
    thread: Option<JoinHandle<bool>>,
}

impl Watchdog {
    fn new(id: u32) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let expired = stopped.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if expired && let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                // It may have ended in this moment.
                let _ = kill_process(pid, Signal::KILL);
            }
            expired
        });
        Self { stop, thread: Some(thread) }
    }

    /// Whether it had to act.
    fn disarm(&mut self) -> bool {
        // The thread may have acted and gone.
        let _ = self.stop.send(());
        self.thread.take().is_some_and(|thread| thread.join().unwrap())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.disarm();
    }
}
