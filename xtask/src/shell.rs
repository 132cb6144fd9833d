//! A user at a shell: commands that are shown, then run as shown, and watched.
//!
//! What was started here ends here: a [`Running`] that is dropped takes its process with it. No
//! wait is without a limit, and each one ends at Ctrl-C.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::environment::Home;
use crate::sys::{self, Ask, Interrupts};

/// A shell in a home of its own.
pub(crate) struct Shell<'a> {
    pub home: &'a Home,
    /// The folder that comes first in `PATH`.
    pub programs: PathBuf,
    /// What the user typed before everything else, such as `. env.sh`.
    pub before: String,
    pub interrupts: Interrupts,
}

impl Shell<'_> {
    /// Runs a command to its end and returns what it wrote to stdout; any exit status but 0 is an
    /// error.
    pub(crate) fn run(&self, line: &str) -> Result<Vec<String>> {
        let mut command = self.command(line)?;
        // In the terminal's process group: Ctrl-C reaches it by itself.
        let mut running = Running::start(&mut command, &self.interrupts)?;
        let status = running.wait(RUN_LIMIT)?;
        if !status.success() {
            bail!("the command failed ({status})");
        }
        Ok(std::mem::take(&mut running.lines))
    }

    /// Starts a command and returns while it runs. Only its owner can interrupt it.
    pub(crate) fn start(&self, line: &str) -> Result<Running> {
        let mut command = self.command(line)?;
        sys::detach(&mut command);
        Running::start(&mut command, &self.interrupts)
    }

    fn command(&self, line: &str) -> Result<Command> {
        eprintln!("$ {line}");
        let mut command = Command::new("sh");
        // `exec`, so that the process that is watched and signalled is the program itself.
        command.arg("-c").arg(format!("{}\nexec {line}\n", self.before));
        self.home.apply(&mut command);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.programs.clone()).chain(std::env::split_paths(&path));
        let path =
            std::env::join_paths(folders).context("the path of this repository can't stand in PATH")?;
        command.env("PATH", path).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// A process that was started by a [`Shell`].
pub(crate) struct Running {
    child: Child,
    ended: bool,
    output: Receiver<String>,
    /// What it wrote to stdout so far.
    lines: Vec<String>,
    interrupts: Interrupts,
}

impl Running {
    fn start(command: &mut Command, interrupts: &Interrupts) -> Result<Running> {
        interrupts.check()?;
        let mut child = command.spawn().context("cannot start `sh`")?;
        let (sender, output) = channel();
        if let Some(stdout) = child.stdout.take() {
            echo(stdout, Some(sender));
        }
        if let Some(stderr) = child.stderr.take() {
            echo(stderr, None);
        }
        Ok(Running { child, ended: false, output, lines: Vec::new(), interrupts: interrupts.clone() })
    }

    /// Waits for the first line of stdout in which `pick` finds what it looks for.
    pub(crate) fn find<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + RUN_LIMIT;
        loop {
            self.interrupts.check()?;
            match self.output.recv_timeout(LOOK) {
                Ok(line) => {
                    let found = pick(&line);
                    self.lines.push(line);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => bail!("it ended and did not say {what}"),
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    bail!("it did not say {what} within {} s", RUN_LIMIT.as_secs())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Asks it to end and waits for that; returns its status and all that it wrote to stdout.
    pub(crate) fn stop(mut self, ask: Ask) -> Result<(ExitStatus, Vec<String>)> {
        sys::ask(&mut self.child, ask);
        let status = self.wait(STOP_LIMIT)?;
        Ok((status, std::mem::take(&mut self.lines)))
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the process")? {
                self.ended = true;
                break status;
            }
            self.interrupts.check()?;
            if Instant::now() > deadline {
                bail!("it did not end within {} s", limit.as_secs());
            }
            self.take_output(LOOK);
        };
        // What it wrote at last may still be on its way through the reading thread.
        let deadline = Instant::now() + STOP_LIMIT;
        while self.take_output(LOOK) && Instant::now() < deadline {}
        self.interrupts.check()?;
        Ok(status)
    }

    /// Takes a line if one comes within `limit`, and tells whether more can come.
    fn take_output(&mut self, limit: Duration) -> bool {
        match self.output.recv_timeout(limit) {
            Ok(line) => {
                self.lines.push(line);
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => {
                // Nothing will come: still pass the time that the caller wanted to.
                if !self.ended {
                    std::thread::sleep(limit);
                }
                false
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        sys::ask(&mut self.child, Ask::Terminate);
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        // It had its time; an error here means that it has just ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a command may run, or let wait for a line: many times what a slow machine needs.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// How long a process may take to clean up: above the client's own deadline for releasing tokens.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long a Ctrl-C may stay unnoticed.
const LOOK: Duration = Duration::from_millis(20);

/// Shows the lines of a stream as they come, and hands them to whoever wants them.
///
/// The thread ends with the stream. It is not waited for: a stream that a stranger (a connection
/// sharing master of OpenSSH) keeps open must not keep the demo.
fn echo(stream: impl Read + Send + 'static, to: Option<Sender<String>>) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            eprintln!("    {line}");
            if let Some(to) = &to {
                // Nobody listens any more: it is still worth showing.
                let _ = to.send(line);
            }
            bytes.clear();
        }
    });
}

/// A text as one word of a shell line.
pub(crate) fn quoted(text: &str) -> String {
    let mut word = String::from("'");
    for part in text.split_inclusive('\'') {
        // Writing into a String cannot fail.
        let _ = match part.strip_suffix('\'') {
            Some(part) => write!(word, r"{part}'\''"),
            None => write!(word, "{part}"),
        };
    }
    word.push('\'');
    word
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(home: &Home) -> Result<Shell<'_>> {
        Ok(Shell {
            home,
            programs: PathBuf::from("/programs"),
            before: "greeting=hello".to_owned(),
            interrupts: Interrupts::watch()?,
        })
    }

    #[test]
    fn runs_lines_as_they_are_shown() -> Result<()> {
        let home = Home::new()?;
        let shell = shell(&home)?;
        assert_eq!(
            shell.run("printf '%s\\n' $greeting \"$HOME\"")?,
            ["hello", &home.path().to_string_lossy()]
        );
        assert!(shell.run("sh -c 'exit 3'").is_err());
        Ok(())
    }

    #[test]
    fn stops_what_it_started() -> Result<()> {
        let home = Home::new()?;
        let shell = shell(&home)?;
        let mut running =
            shell.start("sh -c 'trap \"echo bye; exit 130\" INT; echo ready; while :; do :; done'")?;
        running.find("ready", |line| (line == "ready").then_some(()))?;
        let (status, lines) = running.stop(Ask::Interrupt)?;
        assert_eq!((status.code(), lines.last().map(String::as_str)), (Some(130), Some("bye")));

        let mut running = shell.start("sh -c 'echo $$; exec cat /dev/zero >/dev/null'")?;
        let id = running.find("its id", |line| line.parse::<u32>().ok())?;
        drop(running);
        assert!(!std::path::Path::new(&format!("/proc/{id}/cmdline")).exists());
        Ok(())
    }

    #[test]
    fn says_when_nothing_comes() -> Result<()> {
        let home = Home::new()?;
        let mut running = shell(&home)?.start("true")?;
        let error = running.find("ready", |_| None::<()>).unwrap_err();
        assert_eq!(error.to_string(), "it ended and did not say ready");
        Ok(())
    }

    #[test]
    fn quotes_words() {
        for (text, word) in [("a b", "'a b'"), ("", "''"), ("it's", r"'it'\''s'"), ("'", r"''\'''")] {
            assert_eq!(quoted(text), word);
        }
    }
}
