//! `soak-driver BASTIDE MINUTES CONNECTIONS [SEED]`: an emulator and a VM in this process, `bastide tunnel` in its own,
//! connections of all kinds through it, in weather that changes. Every byte is checked, and at the end what is left:
//! tokens, memory, descriptors. `cargo xtask soak` builds and starts it.

#![expect(clippy::expect_used, reason = "a driver of tests: what cannot be ends it")]
#![expect(clippy::indexing_slicing, reason = "as above")]

mod client;
mod load;
mod pattern;
mod verdict;
mod vm;
mod weather;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use bastide_emulator::{Emulator, Options, Scenario, Violation};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::client::{Client, Sample};
use crate::load::Place;
use crate::verdict::Verdict;
use crate::weather::Chronicle;

/// Resident memory may be so much larger in the last quarter than in the second: what an allocator keeps in pieces.
const MEMORY_MARGIN: f64 = 1.15;
/// And so much besides, in KiB: a tenth of what a hundred busy connections may take.
const MEMORY_SLACK: f64 = 2048.0;
/// As many connections and as many ways out of them at any time: chance alone moves the descriptors.
const DESCRIPTOR_MARGIN: f64 = 1.10;
const DESCRIPTOR_SLACK: f64 = 10.0;
/// Descriptors of an idle client above those at its start: kept-alive connections, at most 16 to one host.
const KEPT_ALIVE: u64 = 20;
/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// What was minted is given back within three attempts of ten seconds.
const RELEASES_WITHIN: Duration = Duration::from_secs(60);
/// The port of the VM that leads here.
const PORT: u16 = 7000;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    bastide: PathBuf,
    time: Duration,
    connections: u64,
    seed: u64,
    log: PathBuf,
}

impl Arguments {
    fn read() -> Result<Arguments> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let number = |at: usize| words.get(at).map(|word| word.parse::<u64>()).transpose();
        // Any number will do that differs from run to run.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Arguments {
            bastide: words.first().context("usage: soak-driver BASTIDE MINUTES CONNECTIONS [SEED]")?.into(),
            time: Duration::from_secs(60 * number(1)?.context("how many minutes?")?),
            connections: number(2)?.context("how many connections?")?,
            seed: number(3)?.unwrap_or(now.as_secs()),
            log: std::env::var_os("SOAK_LOG").context("SOAK_LOG is not set")?.into(),
        })
    }
}

async fn run() -> Result<()> {
    let arguments = Arguments::read()?;
    let seed = arguments.seed;
    println!("soak: {} connections for {} s, --seed {seed}", arguments.connections, arguments.time.as_secs());
    let verdict = Arc::new(Verdict::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let state = std::env::temp_dir().join("azure");
    let emulator =
        Emulator::start(Options { state, scenario: scenario(&listener)?, ..Options::default() }).await?;
    let mut machine = JoinSet::new();
    machine.spawn(vm::serve(listener, Arc::clone(&verdict)));
    let client = Client::start(&arguments.bastide, TARGET, PORT, &emulator.env(), &arguments.log).await?;
    let idle = client.sample()?;

    let chronicle = Arc::new(Chronicle::default());
    let place = Place {
        port: client.port,
        said: Arc::clone(&client.said),
        verdict: Arc::clone(&verdict),
        chronicle: Arc::clone(&chronicle),
    };
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..arguments.connections {
        workers.spawn(load::work(place.clone(), worker, seed, start + arguments.time));
    }
    let mut struck = 0;
    let samples = tokio::select! {
        samples = watch(&client, &emulator, &verdict, &mut struck, start + arguments.time) => samples?,
        () = weather::change(&emulator, &chronicle, seed) => Vec::new(),
    };
    weather::clear(&emulator, &chronicle);
    println!("no new connections; waiting for those that are open");
    let finished = timeout(load::LONGEST, async { while workers.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        verdict.fail(format!("{} workers are not finished", workers.len()));
    }
    let released = |transcript: &bastide_emulator::Transcript| {
        transcript
            .sessions
            .values()
            .all(|session| !session.is_open() && (session.released > 0 || session.excused))
    };
    if timeout(RELEASES_WITHIN, emulator.wait_for(released)).await.is_err() {
        verdict.fail(format!("{} tokens were not given back", emulator.sessions().len()));
    }
    let left = client.sample()?;
    let retries = client.said.retries();
    let (code, leaked) = client.stop().await?;
    look_back(&emulator, &verdict, |_| true);
    struck += emulator.transcript().struck.values().sum::<u64>();
    emulator.shutdown().await;

    compare(&samples, &verdict);
    if left.descriptors > idle.descriptors + KEPT_ALIVE {
        verdict.fail(format!("{} descriptors are left, {} at the start", left.descriptors, idle.descriptors));
    }
    if (code, leaked) != (Some(130), Some(0)) {
        verdict.fail(format!("bastide ended with exit code {code:?} and {leaked:?} leaked tokens"));
    }
    let said = std::fs::read_to_string(&arguments.log).unwrap_or_default();
    if let Some(line) = said.lines().find(|line| line.contains("a fault of bastide itself")) {
        verdict.fail(line.to_owned());
    }
    println!("{}; {struck} faults struck, {retries} retries", verdict.summary());
    println!("idle {idle}, afterwards {left}");
    let (count, words) = verdict.faults();
    ensure!(count == 0, "{count} things went wrong (again with --seed {seed}):\n  {}", words.join("\n  "));
    Ok(())
}

const TARGET: &str = "/subscriptions/22222222-2222-4222-8222-222222222222/resourceGroups/demo/providers/Microsoft.Compute/virtualMachines/box";

/// One VM whose port leads here, and tokens that end while the listener lives on.
fn scenario(listener: &TcpListener) -> Result<Scenario> {
    Ok(Scenario::parse(&format!(
        "[settings]\ntoken_lifetime_seconds = 400\n[[virtual_machines]]\nname = \"box\"\nprivate_ip = \"10.0.0.4\"\n\
         ports = {{ {PORT} = \"{}\" }}\n",
        listener.local_addr()?
    ))?)
}

/// Samples until the time is over, and a line a minute. The transcript is judged and forgotten each minute, so that
/// it neither grows nor drops what was not judged.
async fn watch(
    client: &Client,
    emulator: &Emulator,
    verdict: &Verdict,
    struck: &mut u64,
    until: Instant,
) -> Result<Vec<Sample>> {
    let mut ticks = interval(SAMPLE_EVERY);
    let mut samples: Vec<Sample> = Vec::new();
    let start = Instant::now();
    let mut minute = start + Duration::from_secs(60);
    while Instant::now() < until {
        ticks.tick().await;
        samples.push(client.sample()?);
        if Instant::now() >= minute {
            minute += Duration::from_secs(60);
            // A token that is in use was not given back yet.
            look_back(emulator, verdict, |violation| !matches!(violation, Violation::NotReleased { .. }));
            *struck += emulator.transcript().struck.values().sum::<u64>();
            emulator.reset();
            let sample = samples.last().copied().unwrap_or_default();
            println!("{:>4} s  {sample}, {}", start.elapsed().as_secs(), verdict.summary());
        }
    }
    Ok(samples)
}

fn look_back(emulator: &Emulator, verdict: &Verdict, counts: impl Fn(&Violation) -> bool) {
    for violation in emulator.violations().iter().filter(|violation| counts(violation)) {
        verdict.fail(violation.to_string());
    }
}

/// Whether the client takes more and more.
fn compare(samples: &[Sample], verdict: &Verdict) {
    let quarter = samples.len() / 4;
    let mean = |from: usize, of: fn(&Sample) -> u64| {
        let part = samples.get(from..from + quarter).unwrap_or_default();
        part.iter().map(of).sum::<u64>() as f64 / part.len().max(1) as f64
    };
    let check = |what: &str, of: fn(&Sample) -> u64, margin: f64, slack: f64| {
        let (second, last) = (mean(quarter, of), mean(samples.len() - quarter, of));
        println!("{what}: {second:.0} in the second quarter, {last:.0} in the last");
        if last > second * margin + slack {
            verdict.fail(format!("{what} grew from {second:.0} to {last:.0}"));
        }
    };
    check("KiB of memory", |sample| sample.memory_kib, MEMORY_MARGIN, MEMORY_SLACK);
    check("descriptors", |sample| sample.descriptors, DESCRIPTOR_MARGIN, DESCRIPTOR_SLACK);
}

impl std::fmt::Display for Sample {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:.1} MiB, {} descriptors", self.memory_kib as f64 / 1024.0, self.descriptors)
    }
}
