//! What was measured, as a table and as pictures, and whether it is enough. Measures nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::plot::{Group, bars, number};

/// The figures of a run.
pub(super) struct Report {
    /// What the machine was, and what it did besides, before anything was measured.
    machine: String,
    figures: Vec<Figure>,
    pictures: Vec<Picture>,
}

/// One measured number.
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    /// Empty for a ratio.
    pub(super) unit: &'static str,
    /// None where the number is only to be known.
    pub(super) reach: Option<Reach>,
    /// What it was made of, and how much it varied.
    pub(super) detail: String,
}

/// What a figure has to reach: the table of the plan.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach {
    AtMost(f64),
    AtLeast(f64),
    /// So many round trips, and what computing takes on top of them: a quarter of one of ours.
    RoundTrips(f64),
}

struct Picture {
    file: &'static str,
    title: &'static str,
    groups: Vec<Group>,
}

impl Reach {
    fn holds(self, value: f64) -> bool {
        match self {
            Reach::AtMost(most) => value <= most,
            Reach::AtLeast(least) => value >= least,
            Reach::RoundTrips(most) => value <= most + 0.25,
        }
    }

    fn words(self) -> String {
        match self {
            Reach::AtMost(most) => format!("≤ {most}"),
            Reach::AtLeast(least) => format!("≥ {least}"),
            Reach::RoundTrips(most) => format!("{most}"),
        }
    }
}

impl Report {
    /// An empty one, made before the first measurement.
    pub(super) fn new() -> Report {
        Report { machine: machine(), figures: Vec::new(), pictures: Vec::new() }
    }

    pub(super) fn add(&mut self, figure: Figure) {
        eprintln!("  {}: {}{} ({})", figure.name, number(figure.value), figure.unit, figure.detail);
        self.figures.push(figure);
    }

    /// Adds bars to a picture in `docs/bench`.
    pub(super) fn draw(&mut self, file: &'static str, title: &'static str, group: Group) {
        match self.pictures.iter_mut().find(|picture| picture.file == file) {
            Some(picture) => picture.groups.push(group),
            None => self.pictures.push(Picture { file, title, groups: vec![group] }),
        }
    }

    /// How many figures don't reach what they have to.
    pub(super) fn missed(&self) -> usize {
        self.figures
            .iter()
            .filter(|figure| figure.reach.is_some_and(|reach| !reach.holds(figure.value)))
            .count()
    }

    pub(super) fn table(&self) -> String {
        let mut table =
            "| figure | measured | reach | | made of |\n| --- | ---: | ---: | --- | --- |\n".to_owned();
        for Figure { name, value, unit, reach, detail } in &self.figures {
            let verdict = match reach {
                None => "",
                Some(reach) if reach.holds(*value) => "yes",
                Some(_) => "**no**",
            };
            let words = reach.map(Reach::words).unwrap_or_default();
            let _ = writeln!(table, "| {name} | {}{unit} | {words} | {verdict} | {detail} |", number(*value));
        }
        table
    }

    /// Writes `BENCHMARKS.md` and the pictures.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let folder = root.join("docs/bench");
        std::fs::create_dir_all(&folder).context("cannot make docs/bench")?;
        let mut pictures = String::new();
        for Picture { file, title, groups } in &self.pictures {
            std::fs::write(folder.join(file), bars(title, groups))
                .with_context(|| format!("cannot write {file}"))?;
            let _ = writeln!(pictures, "![{title}](docs/bench/{file})\n");
        }
        let text = format!("{HEAD}\n{}\n{}\n{pictures}{FOOT}", self.machine, self.table());
        std::fs::write(root.join("BENCHMARKS.md"), text).context("cannot write BENCHMARKS.md")
    }
}

/// Date, processor, kernel, load: figures of another machine are other figures.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models: Vec<&str> = cpus.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model = models.first().map_or("unknown processor", |line| line.trim_start_matches([' ', '\t', ':']));
    // There is no calendar in the standard library.
    let date = Command::new("date").arg("+%F").output().map(|output| output.stdout).unwrap_or_default();
    format!(
        "{}, {} × {model}, Linux {}, load before the run {}, `cargo xtask bench`\n",
        String::from_utf8_lossy(&date).trim(),
        models.len(),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

const HEAD: &str = "\
# Benchmarks

Written by `cargo xtask bench`; every figure can be measured again by its row, `cargo xtask bench ROW`. Compare
figures within a run, not across machines. All traffic is on loopback, where much of the time is the kernel's.
";
const FOOT: &str = "\
## How it is measured

* **The limit** is a plain TLS copy (`xtask/src/bench/peer/copy.rs`): the same rustls and AWS-LC, TLS 1.3 with
  AES-256-GCM, no WebSocket, no runtime, one thread and one `poll` a connection, 64 KiB read at once from the local
  side and sent in one write, 256 KiB read at once from the wire and delivered in one write. There are two, over
  rustls' buffered and unbuffered interface; whichever is better in a figure is the limit of that figure.
* **The far end** (`xtask/src/bench/peer/far.rs`) is one program with one blocking thread a connection for all
  clients, behind TLS alone or behind TLS, a canned Azure and WebSocket frames. It checks nothing. The emulator, which
  checks everything, has a row of its own.
* **Rounds** are interleaved, A B C A B C; a ratio is taken within each round, and shown is the median, with the
  quartiles. CPU is user and system time of the client alone, by the scheduler's own count, in a window in the middle
  of the transfer; a GB is 10⁹ bytes.
* **Round trips**: a line in user space delays each direction, the kernel's TCP handshake included; time from
  `connect` to the first byte from the VM, divided by twice the delay.
* **From C** (`xtask/src/bench/descriptor.c`): one program for both, whose threads write or read 256 KiB at once; over
  `bastide_connect`'s descriptors, and over sockets to a `bastide tunnel`.
* **Strangers**: `websocat` speaks WebSocket over TLS as `bastide` does; `stunnel4`, `haproxy` and `socat` only TLS.
* \"cached token\" is a sign-in as service principal on loopback, whose tokens outlive no process.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_not_reached() {
        let mut report = Report::new();
        for (value, reach) in [
            (1.05, Some(Reach::AtMost(1.05))),
            (1.06, Some(Reach::AtMost(1.05))),
            (0.96, Some(Reach::AtLeast(0.97))),
            (4.2, Some(Reach::RoundTrips(4.0))),
            (9.0, None),
        ] {
            report.add(Figure { name: "figure".into(), value, unit: "", reach, detail: "detail".into() });
        }
        assert_eq!(report.missed(), 2);
        assert!(
            report.table().contains("| figure | 1.06 | ≤ 1.05 | **no** | detail |"),
            "{}",
            report.table()
        );
    }
}
