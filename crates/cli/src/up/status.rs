//! What there is to say of a tunnel while it runs: its state, its numbers, its last error; and how that looks as a table
//! for a person and as metrics for Prometheus. It leaves out when either is shown.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bastide::{Endpoint, Event, Meter};

use crate::exit::{Exit, Failure};
use crate::table::table;

/// One tunnel, as all who tell of it see it.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) meters: Vec<Arc<Meter>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    last_error: Option<String>,
    /// By exit code.
    errors: BTreeMap<u8, u64>,
    leaked: u64,
    /// Bytes by then, for the rate.
    samples: VecDeque<(Instant, u64)>,
}

/// How far it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody has connected yet.
    #[default]
    Listening,
    /// The first connection has it signed in and looked for.
    Connecting,
    /// The way is known.
    Ready,
    /// There was no way at the last attempt; the next connection tries again.
    Failed,
    /// A time limit has ended it.
    Ended,
}

impl Phase {
    pub(super) fn word(self) -> &'static str {
        match self {
            Phase::Listening => "listening",
            Phase::Connecting => "connecting",
            Phase::Ready => "ready",
            Phase::Failed => "failed",
            Phase::Ended => "ended",
        }
    }
}

/// The rate is the mean over so long.
const RATE_OVER: Duration = Duration::from_secs(3);

impl Status {
    pub(super) fn new(endpoints: Vec<Endpoint>, meters: Vec<Arc<Meter>>) -> Self {
        Self { endpoints, meters, state: Mutex::default() }
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
    }

    pub(super) fn set(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    /// There is no way to the VM.
    pub(super) fn failed(&self, failure: &Failure) {
        let mut state = self.lock();
        state.phase = Phase::Failed;
        state.note(failure.to_string(), Exit::from(failure.fault()).code());
    }

    /// What a connection has come to.
    pub(super) fn hear(&self, event: &Event) {
        match event {
            Event::Closed { account, .. } => match &account.outcome {
                Ok(end) if end.is_ordinary() => {}
                Ok(end) => self.lock().note(end.to_string(), Exit::Failed(bastide::Fault::Network).code()),
                Err(error) => self.lock().note(error.to_string(), Exit::from(error.fault()).code()),
            },
            Event::Leaked { .. } => self.lock().leaked += 1,
            _ => {}
        }
    }

    fn sum(&self, of: fn(&Meter) -> u64) -> u64 {
        self.meters.iter().map(|meter| of(meter)).sum()
    }

    fn bytes(&self) -> u64 {
        self.sum(Meter::sent) + self.sum(Meter::received)
    }

    /// Bytes a second, over the last of them. To be asked from time to time.
    fn rate(&self, now: Instant) -> u64 {
        let bytes = self.bytes();
        let mut state = self.lock();
        state.samples.push_back((now, bytes));
        while state.samples.len() > 2
            && state.samples.front().is_some_and(|(then, _)| now.duration_since(*then) > RATE_OVER)
        {
            state.samples.pop_front();
        }
        let Some((then, before)) = state.samples.front() else { return 0 };
        let milliseconds = now.duration_since(*then).as_millis().max(1);
        u64::try_from(u128::from(bytes - before) * 1000 / milliseconds).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, error: String, code: u8) {
        self.last_error = Some(error);
        *self.errors.entry(code).or_default() += 1;
    }
}

/// The table for a terminal of `columns` by `rows`; what does not fit is counted.
pub(super) fn draw(tunnels: &BTreeMap<String, Arc<Status>>, now: Instant, size: (usize, usize)) -> String {
    let (columns, rows) = size;
    // Header, count, and the line of the cursor.
    let room = rows.saturating_sub(3).max(1);
    let cells = tunnels.iter().take(room).map(|(name, status)| {
        let listen: Vec<String> = status.endpoints.iter().map(ToString::to_string).collect();
        vec![
            name.clone(),
            listen.join(" "),
            status.phase().word().to_owned(),
            status.sum(Meter::open).to_string(),
            size_of(status.sum(Meter::sent)),
            size_of(status.sum(Meter::received)),
            format!("{}/s", size_of(status.rate(now))),
            status.lock().last_error.clone().unwrap_or_default(),
        ]
    });
    let header = ["TUNNEL", "LISTENS ON", "STATE", "OPEN", "SENT", "RECEIVED", "RATE", "LAST ERROR"];
    let mut text = table(header, cells, Some(columns));
    let more = tunnels.len().saturating_sub(room);
    if more > 0 {
        text += &format!("… and {more} more\n");
    }
    text
}

/// Bytes in units of 1,024, three digits at the most.
fn size_of(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match (unit, tenths) {
        (0, _) => format!("{bytes} {name}"),
        (_, tenths) if tenths < 100 => format!("{}.{} {name}", tenths / 10, tenths % 10),
        (_, tenths) => format!("{} {name}", tenths / 10),
    }
}

/// The labels and values that a tunnel of this label has in a family of metrics.
type Samples<'a> = &'a dyn Fn(&str, &Status) -> Vec<(String, u64)>;

/// In the text format of Prometheus, version 0.0.4.
pub(super) fn metrics(tunnels: &BTreeMap<String, Arc<Status>>) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Samples<'_>| {
        let _infallible = writeln!(text, "# HELP bastide_{name} {help}\n# TYPE bastide_{name} {kind}");
        for (tunnel, status) in tunnels {
            for (labels, value) in samples(&label(tunnel), status) {
                let _infallible = writeln!(text, "bastide_{name}{{{labels}}} {value}");
            }
        }
    };
    family(
        "tunnel_up",
        "gauge",
        "Whether the last attempt to find the way to the VM did not fail.",
        &|tunnel, status| {
            let up = !matches!(status.phase(), Phase::Failed | Phase::Ended);
            vec![(format!("tunnel=\"{tunnel}\""), u64::from(up))]
        },
    );
    family("tunnel_connections", "gauge", "Connections that are open.", &|tunnel, status| {
        vec![(format!("tunnel=\"{tunnel}\""), status.sum(Meter::open))]
    });
    family("tunnel_connections_total", "counter", "Connections that were accepted.", &|tunnel, status| {
        vec![(format!("tunnel=\"{tunnel}\""), status.sum(Meter::accepted))]
    });
    family("tunnel_bytes_total", "counter", "Bytes carried, to the VM and back.", &|tunnel, status| {
        [("sent", status.sum(Meter::sent)), ("received", status.sum(Meter::received))]
            .map(|(direction, bytes)| (format!("tunnel=\"{tunnel}\",direction=\"{direction}\""), bytes))
            .to_vec()
    });
    family(
        "tunnel_errors_total",
        "counter",
        "Failures, by the exit code that bastide has for them.",
        &|tunnel, status| {
            let errors = status.lock().errors.clone();
            errors
                .into_iter()
                .map(|(code, count)| (format!("tunnel=\"{tunnel}\",code=\"{code}\""), count))
                .collect()
        },
    );
    family(
        "tunnel_leaked_tokens_total",
        "counter",
        "Tokens that could not be given back.",
        &|tunnel, status| vec![(format!("tunnel=\"{tunnel}\""), status.lock().leaked)],
    );
    text
}

/// The value of a label, between quotes.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnels(names: &[&str]) -> BTreeMap<String, Arc<Status>> {
        let status = || Arc::new(Status::new(vec![Endpoint::loopback(5432)], vec![Arc::default()]));
        names.iter().map(|name| ((*name).to_owned(), status())).collect()
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.9 KiB"),
            (1536, "1.5 KiB"),
            (20 * 1024, "20 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(size_of(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn the_table_fits_the_terminal() {
        let all = tunnels(&["a", "b", "c", "d"]);
        all["b"].failed(&Failure::usage(
            "the VM 'web-01' was not found in any subscription that you can read",
            "",
        ));
        let now = Instant::now();
        let text = draw(&all, now, (80, 24));
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("b       127.0.0.1:5432  failed"), "{text}");
        let text = draw(&all, now, (80, 5));
        assert!(text.ends_with("… and 2 more\n"), "{text}");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let status = Status::new(Vec::new(), Vec::new());
        let start = Instant::now();
        assert_eq!(status.rate(start), 0);
        status.lock().samples = VecDeque::from([(start, 0)]);
        assert_eq!(status.rate(start + Duration::from_secs(2)), 0);
    }

    #[test]
    fn metrics_have_the_form_of_prometheus() {
        let all = tunnels(&["d\"b"]);
        all["d\"b"].failed(&Failure::usage("x", ""));
        let text = metrics(&all);
        assert!(text.contains("# TYPE bastide_tunnel_bytes_total counter\n"), "{text}");
        assert!(
            text.contains("bastide_tunnel_bytes_total{tunnel=\"d\\\"b\",direction=\"sent\"} 0\n"),
            "{text}"
        );
        assert!(text.contains("bastide_tunnel_errors_total{tunnel=\"d\\\"b\",code=\"2\"} 1\n"), "{text}");
        assert!(text.contains("bastide_tunnel_up{tunnel=\"d\\\"b\"} 0\n"), "{text}");
    }
}
