//! What is said to whom: words to a person on standard error, events to a program as JSON lines (cli.md,
//! "Output"). It leaves out what happens.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use bastide::{Event, Observer, causes, event_fields, json_line, now};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::arguments::{Color, Global, Output};
use crate::exit::{Exit, Failure};
use crate::speaker::{self, LogLine, Speaker, Stream};
use crate::sys;

/// Says things in the way that the user chose. Clones say them in the same way.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    output: Output,
    /// Where JSON goes: standard output belongs to the connection's bytes in some commands.
    json_to: Stream,
    level: Level,
    /// Whether steps that nobody waits for are told.
    steps: Steps,
    /// The tunnel that is spoken of, where there are several.
    about: Option<Arc<str>>,
    hearer: Option<Hearer>,
    stdout: Arc<Speaker>,
    stderr: Arc<Speaker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steps {
    Told,
    Seen,
}

/// Who hears what happens to connections, beside the reporter.
pub(crate) type Hear = Arc<dyn Fn(&Event) + Send + Sync>;

#[derive(Clone)]
struct Hearer(Hear);

impl std::fmt::Debug for Hearer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Hearer")
    }
}

/// The limit for keeping a person's thoughts on what they do (Nielsen, "Response Times: The 3 Important Limits").
const MOMENT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Level {
    Quiet,
    Normal,
    Verbose,
}

impl Reporter {
    /// Sets up colours and the log, too: once in a process.
    pub(crate) fn new(global: &Global) -> Self {
        match global.color {
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        let stdout =
            Arc::new(Speaker::new(Stream::Stdout, |count| json_line("dropped", json!({"count": count}))));
        let stderr = Arc::new(Speaker::new(Stream::Stderr, |count| {
            format!("warning: {count} lines are left out here: nobody had read those before")
        }));
        log_to(&stderr, global);
        let level = match (global.quiet, global.verbose) {
            (true, _) => Level::Quiet,
            (false, 0) => Level::Normal,
            (false, _) => Level::Verbose,
        };
        Self {
            output: global.output,
            json_to: Stream::Stdout,
            level,
            steps: Steps::Told,
            about: None,
            hearer: None,
            stdout,
            stderr,
        }
    }

    /// The same, with JSON on another stream.
    pub(crate) fn with_json_to(self, stream: Stream) -> Self {
        Self { json_to: stream, ..self }
    }

    /// For one tunnel of several: its name stands before words and in events. `hearer` hears what happens to its
    /// connections.
    pub(crate) fn for_tunnel(&self, name: &str, hearer: Option<Hear>) -> Self {
        Self { about: Some(name.into()), hearer: hearer.map(Hearer), ..self.clone() }
    }

    /// For who sees the steps in a table.
    pub(crate) fn without_progress(&self) -> Self {
        Self { steps: Steps::Seen, ..self.clone() }
    }

    /// A step that was taken.
    pub(crate) fn progress(&self, words: &str) {
        if self.steps == Steps::Told {
            self.say(words);
        }
    }

    /// Lines that stay below all others on the terminal, until others take their place.
    pub(crate) fn footer(&self, lines: String) {
        self.stderr.pin(lines);
    }

    /// Waits for `work`, and says to a person in front of a terminal what is being done if it takes longer than a
    /// moment.
    ///
    /// Cancel safe if `work` is.
    pub(crate) async fn while_waiting<T>(&self, words: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        match timeout(MOMENT, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
                    self.say(words);
                }
                work.await
            }
        }
    }

    /// Words for a person.
    pub(crate) fn say(&self, words: &str) {
        if self.level >= Level::Normal && self.output == Output::Text {
            self.line(&self.named(words));
        }
    }

    /// Something that the user should know, also with `-o json`.
    pub(crate) fn warn(&self, words: &str) {
        if self.level >= Level::Normal {
            let style = Style::new().fg_color(Some(AnsiColor::Yellow.into())).bold();
            self.line(&format!("{style}warning:{style:#} {}", self.named(words)));
        }
    }

    /// What to do about a failure that another program has told.
    pub(crate) fn hint(&self, words: &str) {
        if self.output == Output::Text {
            self.line(&format!("hint: {words}"));
        }
    }

    /// Data, for a person or for a program that reads text.
    pub(crate) fn data(&self, words: &str) {
        if self.output == Output::Text {
            self.stdout.say(words.to_owned());
        }
    }

    /// An event for a program.
    pub(crate) fn event(&self, name: &str, fields: Value) {
        if self.output != Output::Json {
            return;
        }
        let fields = match (&self.about, fields) {
            (Some(tunnel), Value::Object(mut fields)) => {
                fields.insert("tunnel".to_owned(), json!(**tunnel));
                Value::Object(fields)
            }
            (_, fields) => fields,
        };
        match self.json_to {
            Stream::Stdout => self.stdout.say(json_line(name, fields)),
            Stream::Stderr => self.stderr.say(json_line(name, fields)),
        }
    }

    /// Lets what was said reach its readers, for a moment. The last thing that is done.
    ///
    /// # Errors
    /// When data or events could not be written.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        let written = self.stdout.close();
        // There is nobody to tell.
        drop(self.stderr.close());
        written.map_err(Failure::system(UNWRITTEN))
    }

    /// Why the command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.error(failure, failure.hint(), failure.request_id(), failure.exit());
    }

    /// For the library: says what happens to connections.
    pub(crate) fn observer(&self) -> Observer {
        let reporter = self.clone();
        Arc::new(move |event| {
            if let Some(Hearer(hear)) = &reporter.hearer {
                hear(&event);
            }
            reporter.connection(&event);
        })
    }

    fn connection(&self, event: &Event) {
        if let Some((name, fields)) = event_fields(event) {
            self.event(name, fields);
        }
        match event {
            Event::Opened { id, peer } => {
                self.detail(&format!("connection {id} from {peer}"));
            }
            Event::Retry { id, attempt, reason, pause } => {
                self.detail(&format!(
                    "connection {id}: attempt {attempt} failed ({reason}); again in {:.1} s",
                    pause.as_secs_f32()
                ));
            }
            Event::Closed { id, account } => {
                let seconds = account.elapsed.as_secs_f64();
                match &account.outcome {
                    Ok(end) if !end.is_ordinary() => self.warn(&format!(
                        "connection {id} from {} ended at {}: {end}, after {seconds:.1} s, {} bytes sent, {} received",
                        account.peer,
                        now(),
                        account.sent,
                        account.received
                    )),
                    Ok(end) => self.detail(&format!(
                        "connection {id}: {end} after {seconds:.1} s, {} bytes sent, {} received",
                        account.sent, account.received
                    )),
                    Err(error) => self.error(error, error.hint(), error.request_id(), error.fault().into()),
                }
            }
            Event::Leaked { id, reason } => {
                self.warn(&format!(
                    "the token of connection {id} could not be given back ({reason}); it counts against the \
                     Bastion host's sessions until the service ends it"
                ));
            }
            _ => {}
        }
    }

    /// Words for a person who has asked for more.
    pub(crate) fn detail(&self, words: &str) {
        if self.level >= Level::Verbose && self.output == Output::Text {
            self.line(&self.named(words));
        }
    }

    fn error(&self, error: &dyn Error, hint: Option<String>, request_id: Option<&str>, exit: Exit) {
        let style = error_style();
        let causes = causes(error);
        for (index, words) in causes.iter().enumerate() {
            self.line(&match index {
                0 => format!("{style}error:{style:#} {}", self.named(words)),
                _ => format!("  caused by: {words}"),
            });
        }
        let message = causes.join(": ");
        if let Some(hint) = &hint {
            self.line(&format!("hint: {hint}"));
        }
        if let Some(id) = request_id {
            self.line(&format!("request id: {id}"));
        }
        self.event("error", json!({"code": exit.code(), "message": message, "hint": hint}));
    }

    fn named(&self, words: &str) -> String {
        match &self.about {
            Some(tunnel) => format!("{tunnel}: {words}"),
            None => words.to_owned(),
        }
    }

    fn line(&self, words: &str) {
        self.stderr.say(words.to_owned());
    }
}

const UNWRITTEN: &str = "standard output cannot be written";

/// Writes data whose every line counts: it waits for its reader. A pager that is quit early is no failure.
pub(crate) fn print(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut stdout = sys::stdout_lines();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::system(UNWRITTEN)(error))
        }
        _ => Ok(Exit::Done),
    }
}

/// A bug of ours is said in words too, with the place that a report needs. The connection that met it ends; its token
/// is released and the others go on.
pub(crate) fn own_faults() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let what = panic.payload_as_str().unwrap_or("no message");
        at_once(&format!("error: a fault of bastide itself, at {place}: {what}"));
        at_once("hint: please report it with this line and what you did");
    }));
}

/// Before there is a [`Reporter`], or after: a command line that cannot be read, and output that cannot be written. As
/// JSON, too, for who has asked for it.
pub(crate) fn without_reporter(failure: &Failure, json_to: Option<Stream>) -> Exit {
    let style = error_style();
    let causes = causes(failure);
    at_once(&format!("{style}error:{style:#} {}", causes.join(": ")));
    let hint = failure.hint();
    if let Some(hint) = &hint {
        at_once(&format!("hint: {hint}"));
    }
    let exit = failure.exit();
    if let Some(stream) = json_to {
        let fields = json!({"code": exit.code(), "message": causes.join(": "), "hint": hint});
        drop(speaker::write(stream, &json_line("error", fields)));
    }
    exit
}

/// Whether anybody hears it is not known.
fn at_once(line: &str) {
    drop(speaker::write(Stream::Stderr, line));
}

fn error_style() -> Style {
    Style::new().fg_color(Some(AnsiColor::Red.into())).bold()
}

/// Log lines of the libraries: warnings by default, what was done with `-v`, how with `-vv`, each step with `-vvv`.
fn log_to(stderr: &Arc<Speaker>, global: &Global) {
    let stderr = Arc::clone(stderr);
    use tracing::level_filters::LevelFilter;
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let colors = match global.color {
        Color::Auto => std::io::IsTerminal::is_terminal(&std::io::stderr()),
        Color::Always => true,
        Color::Never => false,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || LogLine::new(Arc::clone(&stderr)))
        .with_ansi(colors)
        .with_target(global.verbose > 1)
        .without_time()
        .init();
}
