//! The rows: what is measured, against what, and what it must reach (the table of the plan). How load is made is in
//! `load`, how the numbers are told in `report`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::delay::Delay;
use super::descriptor;
use super::load::{self, Direction, Streamed};
use super::plot::{Group, number};
use super::report::{Figure, Reach, Report};
use super::stage::{COPIES, Client, Kind, STRANGERS, Stage};

/// A part that can be run by itself.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) measure: fn(&Stage, Effort, &mut Report) -> Result<()>,
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effort {
    /// Rounds, from which the median is taken.
    pub(super) rounds: usize,
    /// How long the counted part of a stream is.
    pub(super) window: Duration,
    /// Round trips of one byte in a round.
    pings: usize,
    /// Starts of a program.
    starts: usize,
    /// Connections where many are wanted.
    many: usize,
}

impl Effort {
    pub(super) const FULL: Effort =
        Effort { rounds: 7, window: Duration::from_millis(800), pings: 4000, starts: 21, many: 1000 };
    /// For a first look.
    pub(super) const QUICK: Effort =
        Effort { rounds: 3, window: Duration::from_millis(500), pings: 1000, starts: 5, many: 200 };
}

pub(super) const ROWS: &[Row] = &[
    Row { name: "up", about: "streams to the VM, frames of at most 4,096 bytes", measure: up },
    Row { name: "down", about: "streams from the VM, frames of 4, 16 and 64 KiB", measure: down },
    Row { name: "strangers", about: "the same against what else there is", measure: strangers },
    Row { name: "far", about: "the same behind the emulator, to see what that costs", measure: far },
    Row { name: "descriptor", about: "streams of a program in C", measure: descriptor::measure },
    Row { name: "latency", about: "round trips of one byte", measure: latency },
    Row { name: "fairness", about: "round trips of one byte beside a download", measure: fairness },
    Row { name: "setup", about: "from connect to the first byte, in round trips", measure: setup },
    Row { name: "memory", about: "resident memory", measure: memory },
    Row { name: "start", about: "from the command to being ready", measure: start },
    Row { name: "size", about: "the binary", measure: size },
];

pub(super) const SWALLOW: u16 = 9;
pub(super) const PRODUCE_16: u16 = 19_016;
const ECHO: u16 = 7;
const HELLO: u16 = 22;
const BOTH: u16 = 21;

fn up(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    against_the_limit(stage, effort, report, "up", Direction::Up, SWALLOW)
}

fn down(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    for (name, service) in [("down, 4 KiB", 19_004), ("down, 16 KiB", PRODUCE_16), ("down, 64 KiB", 19_064)] {
        against_the_limit(stage, effort, report, name, Direction::Down, service)?;
    }
    Ok(())
}

fn against_the_limit(
    stage: &Stage,
    effort: Effort,
    report: &mut Report,
    name: &str,
    direction: Direction,
    service: u16,
) -> Result<()> {
    let kinds = [&[Kind::Bastide], COPIES].concat();
    let clients = clients(stage, &kinds, service)?;
    for connections in [1, 16] {
        let measured = streams(stage, effort, &clients, direction, connections)?;
        let label = format!("{name}, {}", counted(connections));
        let cpu = |streamed: &Streamed| streamed.cpu;
        let rate = |streamed: &Streamed| streamed.rate;
        let (ours, copies) = measured.split_first().context("nothing was measured")?;
        let by = |value: fn(&Streamed) -> f64| {
            move |a: &&Measured, b: &&Measured| a.median(value).total_cmp(&b.median(value))
        };
        let limit = copies.iter().min_by(by(cpu)).context("no limit")?;
        report.add(ratio(format!("CPU, {label}"), ours, limit, cpu, "s/GB", Some(Reach::AtMost(1.05))));
        let limit = copies.iter().max_by(by(rate)).context("no limit")?;
        report.add(ratio(
            format!("throughput, {label}"),
            ours,
            limit,
            rate,
            "MB/s",
            Some(Reach::AtLeast(0.97)),
        ));
        report.draw("cpu.svg", "CPU seconds per GB (less is better)", group(&label, &measured, cpu));
        report.draw("throughput.svg", "MB/s (more is better)", group(&label, &measured, rate));
    }
    Ok(())
}

fn strangers(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    for (direction_name, direction, service) in
        [("up", Direction::Up, SWALLOW), ("down", Direction::Down, PRODUCE_16)]
    {
        let clients = clients(stage, &[&[Kind::Bastide], COPIES, STRANGERS].concat(), service)?;
        for connections in [1, 16] {
            let name = format!("{direction_name}, {}", counted(connections));
            let measured = streams(stage, effort, &clients, direction, connections)?;
            let (ours, others) = measured.split_first().context("nothing was measured")?;
            let cpu = |streamed: &Streamed| streamed.cpu;
            let rate = |streamed: &Streamed| streamed.rate;
            let (copies, strangers) = others.split_at(COPIES.len());
            let limit = copies.iter().map(|copy| copy.median(cpu)).fold(f64::INFINITY, f64::min);
            for other in strangers {
                let label = format!("CPU against {}, {name}", other.kind.name());
                let mut figure = ratio(label, ours, other, cpu, "s/GB", Some(Reach::AtMost(0.6)));
                // Where the limit itself is above it, the reach is out of reach.
                figure.detail += &format!("; the TLS copy is at {}", number(limit / other.median(cpu)));
                report.add(figure);
                let label = format!("throughput against {}, {name}", other.kind.name());
                report.add(ratio(label, ours, other, rate, "MB/s", None));
            }
            let title = "CPU seconds per GB (less is better)";
            report.draw("strangers.svg", title, group(&name, &measured, cpu));
            let title = "MB/s (more is better)";
            report.draw("strangers-throughput.svg", title, group(&name, &measured, rate));
        }
    }
    Ok(())
}

fn far(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let (emulator, environment) = stage.emulator()?;
    for (name, direction, service, port) in
        [("up", Direction::Up, SWALLOW, SWALLOW), ("down, 16 KiB", Direction::Down, PRODUCE_16, 19)]
    {
        let ours = stage.client(Kind::Bastide, service)?;
        let theirs = stage.bastide(&environment, port)?;
        let mut cpus = [Vec::new(), Vec::new()];
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..effort.rounds {
            for ((client, far), (cpus, rates)) in [(&ours, stage.far()), (&theirs, emulator.pid())]
                .into_iter()
                .zip(cpus.iter_mut().zip(&mut rates))
            {
                let streamed = load::stream(client.port, client.pid(), far, direction, 1, effort.window)?;
                cpus.push(streamed.far_cpu);
                rates.push(streamed.rate);
            }
        }
        let [far, emulated] = cpus.map(|all| quartiles(all)[1]);
        let [rate, emulated_rate] = rates.map(|all| quartiles(all)[1]);
        let ends = [("far end", far, rate), ("emulator", emulated, emulated_rate)];
        for (end, value, rate) in ends {
            report.add(Figure {
                name: format!("the {end}'s own CPU, {name}"),
                value,
                unit: " s/GB",
                reach: None,
                detail: format!("{rate:.0} MB/s through bastide"),
            });
        }
    }
    Ok(())
}

/// All of it on one processor: which one the kernel wakes, and how deep that one slept, takes longer than everything
/// that is measured here.
fn latency(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let everywhere = sched_getaffinity(None).context("cannot tell the processors")?;
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|&cpu| everywhere.is_set(cpu)).unwrap_or(0));
    sched_setaffinity(None, &one).context("cannot stay on one processor")?;
    // A far end of its own, which inherits the processor.
    let measured = Stage::new(stage.release().to_path_buf(), stage.interrupts.clone())
        .and_then(|stage| round_trips(&stage, effort, report));
    sched_setaffinity(None, &everywhere).context("cannot leave the one processor")?;
    measured
}

fn round_trips(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let clients = clients(stage, &[&[Kind::Bastide], COPIES].concat(), ECHO)?;
    let target = format!("127.0.0.1:{}", stage.port(&ECHO.to_string())?);
    // Median and 99th percentile of each round in microseconds; the last one is without a client.
    let mut p50 = vec![Vec::new(); clients.len() + 1];
    let mut p99 = p50.clone();
    for _ in 0..effort.rounds {
        for number in 0..=clients.len() {
            let times = match clients.get(number) {
                Some((_, client)) => load::ping_pong(client.port, effort.pings)?,
                None => directly(stage, &target, effort.pings)?,
            };
            let at = |part: usize| {
                times.get(times.len() * part / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6)
            };
            if let (Some(p50), Some(p99)) = (p50.get_mut(number), p99.get_mut(number)) {
                p50.push(at(50));
                p99.push(at(99));
            }
        }
        stage.interrupts.check()?;
    }
    for (name, percentile, reach) in [("p50", p50, Some(Reach::AtMost(1.05))), ("p99", p99, None)] {
        let medians: Vec<f64> = percentile.into_iter().map(|all| quartiles(all)[1]).collect();
        let [ours, buffered, unbuffered, direct] = medians[..] else { continue };
        let copy = buffered.min(unbuffered);
        report.add(Figure {
            name: format!("added latency, {name}"),
            value: (ours - direct) / (copy - direct),
            unit: "",
            reach,
            detail: format!(
                "{} µs through bastide, {} through the TLS copy, {} without either",
                number(ours),
                number(copy),
                number(direct)
            ),
        });
        let bars = [("bastide", ours), ("TLS copy", copy), ("no client", direct)];
        let bars = bars.map(|(name, value)| (name.to_owned(), value)).to_vec();
        report.draw(
            "latency.svg",
            "round trip of one byte, µs (less is better)",
            Group { name: name.into(), bars },
        );
    }
    Ok(())
}

fn directly(stage: &Stage, target: &str, count: usize) -> Result<Vec<Duration>> {
    let mut command = stage.command("bench-peer");
    let output = command.arg("ping").arg(stage.authority()).args([target, &count.to_string()]).output();
    let text = String::from_utf8(output.context("cannot start bench-peer")?.stdout)?;
    let mut times: Vec<Duration> =
        text.split_whitespace().filter_map(|word| word.parse().ok()).map(Duration::from_nanos).collect();
    ensure!(times.len() == count, "bench-peer did not ping");
    times.sort();
    Ok(times)
}

/// A keystroke while somebody copies a file through the same process: the ratio to the plain copy, which has a
/// thread for each and lets the kernel share them out.
fn fairness(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let clients = clients(stage, &[&[Kind::Bastide], COPIES].concat(), BOTH)?;
    let mut percentiles = [("p50", 50), ("p99", 99)].map(|(name, part)| {
        (name, part, clients.iter().map(|(kind, _)| (*kind, Vec::new())).collect::<Vec<_>>())
    });
    for _ in 0..effort.rounds {
        for (number, (kind, client)) in clients.iter().enumerate() {
            let times = load::ping_pong_beside_bulk(client.port, effort.pings / 4);
            let times = times.with_context(|| format!("through {}", kind.name()))?;
            for (_, part, rounds) in &mut percentiles {
                let at = times.get(times.len() * *part / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6);
                if let Some((_, round)) = rounds.get_mut(number) {
                    round.push(at);
                }
            }
            stage.interrupts.check()?;
        }
    }
    for (name, _, rounds) in percentiles {
        let medians: Vec<(Kind, f64)> =
            rounds.into_iter().map(|(kind, all)| (kind, quartiles(all)[1])).collect();
        let ((_, ours), copies) = medians.split_first().context("nothing was measured")?;
        let copy = copies.iter().map(|(_, copy)| *copy).fold(f64::INFINITY, f64::min);
        report.add(Figure {
            name: format!("latency beside a download, {name}"),
            value: ours / copy,
            unit: "",
            reach: None,
            detail: format!("{} µs through bastide, {} through the TLS copy", number(*ours), number(copy)),
        });
        let bars = medians.iter().map(|(kind, value)| (kind.name().to_owned(), *value)).collect();
        report.draw(
            "fairness.svg",
            "round trip of one byte beside a download, µs (less is better)",
            Group { name: name.into(), bars },
        );
    }
    Ok(())
}

/// Long against what computing takes, short against the client's own time limits.
const ONE_WAY: Duration = Duration::from_millis(50);

/// Whatever is opened ahead or left behind has had its time.
const QUIET: Duration = Duration::from_millis(500);

fn setup(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let line = Delay::new(stage.port("azure")?, ONE_WAY)?;
    let (mut cold, mut warm, mut ahead) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let client = stage.bastide(&stage.azure(line.port), HELLO)?;
        let trips = |port: u16, wait: Duration| -> Result<f64> {
            std::thread::sleep(wait);
            let (socket, time) = load::first_byte(port)?;
            drop(socket);
            Ok(time.as_secs_f64() / (2 * ONE_WAY).as_secs_f64())
        };
        // The lease that proved the tunnel serves the first connection.
        ahead.push(trips(client.port, QUIET)?);
        warm.push(trips(client.port, QUIET)?);
        warm.push(trips(client.port, QUIET)?);
        // The first cut makes the client release what these connections had, over new connections; the second
        // takes those from it, and whatever it opens ahead has no time to be there.
        line.cut();
        std::thread::sleep(QUIET);
        line.cut();
        cold.push(trips(client.port, ONE_WAY / 5)?);
        stage.interrupts.check()?;
    }
    for (name, all, most) in
        [("cold", cold, 4.0), ("warm", warm, 2.0), ("with a lease minted ahead", ahead, 1.0)]
    {
        let [low, median, high] = quartiles(all);
        report.add(Figure {
            name: format!("set-up, {name}"),
            value: median,
            unit: " round trips",
            reach: Some(Reach::RoundTrips(most)),
            detail: format!(
                "of {} ms; quartiles {} to {}",
                2 * ONE_WAY.as_millis(),
                number(low),
                number(high)
            ),
        });
    }
    Ok(())
}

const MIB: f64 = 1024.0 * 1024.0;
const KIB: f64 = 1024.0;

fn memory(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let client = stage.client(Kind::Bastide, HELLO)?;
    std::thread::sleep(SETTLED);
    let idle = load::resident(client.pid())? as f64;
    let many = effort.many;
    let sockets = many_connections(client.port, many, true)?;
    std::thread::sleep(SETTLED);
    let full = load::resident(client.pid())? as f64;
    drop((sockets, client));
    report.add(Figure {
        name: "resident memory, listening".into(),
        value: idle / MIB,
        unit: " MiB",
        reach: Some(Reach::AtMost(12.0)),
        detail: "before the first connection".into(),
    });
    report.add(Figure {
        name: "resident memory, for each idle connection".into(),
        value: (full - idle) / many as f64 / KIB,
        unit: " KiB",
        reach: Some(Reach::AtMost(64.0)),
        detail: format!("{} MiB with {many}", number(full / MIB)),
    });

    let client = stage.client(Kind::Bastide, ECHO)?;
    let sockets = many_connections(client.port, many, false)?;
    let busy = load::busy(&sockets, client.pid(), 8 * effort.window)?;
    report.add(Figure {
        name: format!("resident memory, {many} busy connections"),
        value: busy as f64 / MIB,
        unit: " MiB",
        reach: Some(Reach::AtMost(150.0)),
        detail: "each sends 32 KiB and waits for them to come back, all the time".into(),
    });
    Ok(())
}

/// Behind it, what was needed only to get there has been given back.
const SETTLED: Duration = Duration::from_secs(1);

/// Opens connections, a few at a time.
fn many_connections(port: u16, count: usize, hello: bool) -> Result<Vec<std::net::TcpStream>> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        sockets.push(if hello { load::first_byte(port)?.0 } else { load::connect(port)? });
    }
    Ok(sockets)
}

fn start(stage: &Stage, effort: Effort, report: &mut Report) -> Result<()> {
    let (mut ready, mut version, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.starts {
        let from = Instant::now();
        let client = stage.client(Kind::Bastide, HELLO)?;
        ready.push(from.elapsed().as_secs_f64() * 1e3);
        drop(client);
        let mut bastide = stage.command("bastide");
        bastide.arg("--version");
        version.push(milliseconds_of(bastide)?);
        nothing.push(milliseconds_of(Command::new("true"))?);
    }
    let nothing = quartiles(nothing)[1];
    for (name, all, most) in
        [("bastide tunnel, to \"ready\"", ready, 60.0), ("bastide --version", version, 5.0)]
    {
        let [low, median, high] = quartiles(all);
        report.add(Figure {
            name: name.into(),
            value: median,
            unit: " ms",
            reach: Some(Reach::AtMost(most)),
            detail: format!(
                "quartiles {} to {}; `true` takes {}",
                number(low),
                number(high),
                number(nothing)
            ),
        });
    }
    Ok(())
}

fn milliseconds_of(mut command: Command) -> Result<f64> {
    let from = Instant::now();
    let status = command.stdout(Stdio::null()).status().context("cannot start a program")?;
    ensure!(status.success(), "a program failed ({status})");
    Ok(from.elapsed().as_secs_f64() * 1e3)
}

fn size(stage: &Stage, _: Effort, report: &mut Report) -> Result<()> {
    let binary = std::fs::metadata(stage.release().join("bastide")).context("there is no bastide")?;
    report.add(Figure {
        name: "stripped release binary".into(),
        value: binary.len() as f64 / MIB,
        unit: " MiB",
        reach: Some(Reach::AtMost(12.0)),
        detail: format!("{} bytes", binary.len()),
    });
    Ok(())
}

struct Measured {
    kind: Kind,
    rounds: Vec<Streamed>,
}

impl Measured {
    fn median(&self, value: fn(&Streamed) -> f64) -> f64 {
        quartiles(self.rounds.iter().map(value).collect())[1]
    }
}

fn clients(stage: &Stage, kinds: &[Kind], service: u16) -> Result<Vec<(Kind, Client)>> {
    kinds.iter().map(|&kind| Ok((kind, stage.client(kind, service)?))).collect()
}

/// Interleaved rounds, in the order of `clients`.
fn streams(
    stage: &Stage,
    effort: Effort,
    clients: &[(Kind, Client)],
    direction: Direction,
    connections: usize,
) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> =
        clients.iter().map(|(kind, _)| Measured { kind: *kind, rounds: Vec::new() }).collect();
    for _ in 0..effort.rounds {
        for ((kind, client), measured) in clients.iter().zip(&mut measured) {
            let streamed =
                load::stream(client.port, client.pid(), stage.far(), direction, connections, effort.window);
            measured.rounds.push(streamed.with_context(|| format!("through {}", kind.name()))?);
            stage.interrupts.check()?;
        }
    }
    Ok(measured)
}

/// The median of the ratios within each round.
fn ratio(
    name: String,
    ours: &Measured,
    other: &Measured,
    value: fn(&Streamed) -> f64,
    unit: &str,
    reach: Option<Reach>,
) -> Figure {
    let ratios = ours.rounds.iter().zip(&other.rounds).map(|(ours, other)| value(ours) / value(other));
    let [low, median, high] = quartiles(ratios.collect());
    let (ours, theirs) = (number(ours.median(value)), number(other.median(value)));
    let name_of_other = other.kind.name();
    Figure {
        name,
        value: median,
        unit: "",
        reach,
        detail: format!(
            "{ours} against {theirs} {unit} of {name_of_other}; quartiles {} to {}",
            number(low),
            number(high)
        ),
    }
}

pub(super) fn counted(connections: usize) -> String {
    if connections == 1 { "1 connection".into() } else { format!("{connections} connections") }
}

fn group(name: &str, measured: &[Measured], value: fn(&Streamed) -> f64) -> Group {
    let bars = measured.iter().map(|one| (one.kind.name().to_owned(), one.median(value))).collect();
    Group { name: name.to_owned(), bars }
}

/// First quartile, median and third quartile; zeros of nothing.
pub(super) fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3]
        .map(|quarter| values.get((values.len().saturating_sub(1) * quarter + 2) / 4).copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_few_and_many() {
        assert_eq!(quartiles(vec![3.0, 1.0, 2.0]), [2.0, 2.0, 3.0]);
        assert_eq!(quartiles(vec![5.0, 1.0, 4.0, 2.0, 3.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(vec![7.0]), [7.0; 3]);
        assert_eq!(quartiles(Vec::new()), [0.0; 3]);
    }
}
