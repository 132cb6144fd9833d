//! The binary `bastide-emulator`: flags, the line that says it is ready, and signals. Everything
//! else is the library.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bastide_emulator::faults::Order;
use bastide_emulator::{Emulator, Error, Options, Scenario, Transcript, scenario, violations};
use clap::{CommandFactory as _, Parser, ValueEnum};

/// A small Azure on this machine: Entra ID, ARM and Azure Bastion with virtual machines behind it.
///
/// It listens on one TLS port of loopback, with a certificate authority of its own. When it is ready it
/// prints one line; the state folder then holds everything that a client needs.
#[derive(Debug, Parser)]
#[command(name = "bastide-emulator", version, after_long_help = EXAMPLES)]
struct Arguments {
    /// Folder for the CA, keys, homes of the virtual machines, `env.sh` and `port`
    /// [default: bastide-emulator below $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// What the small Azure holds (TOML); without it, what --print-scenario shows
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,

    /// A fault from the start, besides those of the scenario (see the README); may be repeated
    #[arg(long = "fault", value_name = "NAME[:KEY=VALUE,...]")]
    faults: Vec<Order>,

    /// Port to listen on, 0 for any free one
    #[arg(long, default_value_t = 0)]
    port: u16,

    /// Address to listen on; anything but loopback needs --allow-remote
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,

    /// Let other machines in: they can then use every virtual machine that they know the password of
    #[arg(long)]
    allow_remote: bool,

    /// Form of the line that says that it is ready
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Print the documented default scenario and exit
    #[arg(long)]
    print_scenario: bool,

    /// Print the manual page, as `man -l -` reads it, and exit
    #[arg(long)]
    print_manual: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  Run it, then use bastide or an Azure SDK in another shell:
    bastide-emulator --state /tmp/azure
    . /tmp/azure/env.sh

  See what a client did, and what it should not have done:
    curl --cacert /tmp/azure/ca.pem https://localhost:$(cat /tmp/azure/port)/_emulator/violations

  Misbehave: refuse the first two tokens, and end each tunnel after 1 MiB from the VM:
    bastide-emulator --fault status:on=mint,status=503,times=2 \\
        --fault ending:how=close:1011,at=vm:1048576

  Change what it holds:
    bastide-emulator --print-scenario > scenario.toml
    bastide-emulator --scenario scenario.toml";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  caused by: {cause}");
            }
            if let Some(hint) = error.downcast_ref::<Error>().and_then(Error::hint) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.print_scenario {
        std::io::stdout().write_all(scenario::EXAMPLE.as_bytes())?;
        return Ok(());
    }
    if arguments.print_manual {
        clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout())?;
        return Ok(());
    }
    if !arguments.bind.is_loopback() && !arguments.allow_remote {
        anyhow::bail!(
            "{} is not a loopback address: add --allow-remote if other machines may use the emulator",
            arguments.bind
        );
    }
    let mut options = Options { bind: arguments.bind, port: arguments.port, ..Options::default() };
    if let Some(state) = arguments.state {
        options.state = state;
    }
    if let Some(path) = &arguments.scenario {
        options.scenario = Scenario::read(path).map_err(Error::from)?;
    }
    options.scenario.faults.extend(arguments.faults);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting")?;
    runtime.block_on(serve(options, arguments.output))
}

async fn serve(options: Options, output: Output) -> anyhow::Result<()> {
    let stop = std::pin::pin!(bastide_emulator::stop_signal());
    let emulator = Emulator::start(options).await?;
    let (url, state) = (emulator.url(), emulator.state());
    let line = match output {
        Output::Text => format!("ready {url} (state {})", state.display()),
        Output::Json => serde_json::json!({
            "event": "ready", "url": url, "port": emulator.port(), "state": state, "ca": emulator.ca_file(),
        })
        .to_string(),
    };
    print(&line)?;
    stop.await.context("waiting for a signal")?;
    // A second signal does not wait for clients that take their time.
    tokio::select! {
        transcript = emulator.shutdown() => print(&verdict(&transcript, output)),
        again = bastide_emulator::stop_signal() => again.context("waiting for a signal"),
    }
}

/// What the clients did in all, and what they should not have done.
fn verdict(transcript: &Transcript, output: Output) -> String {
    let (mints, releases) = (transcript.mints(), transcript.releases());
    let violations: Vec<String> = violations(transcript).iter().map(ToString::to_string).collect();
    match output {
        Output::Text => {
            let mut lines = format!(
                "stopped: {mints} tokens minted, {releases} released, {} violations",
                violations.len()
            );
            for violation in violations {
                lines.push_str("\n  ");
                lines.push_str(&violation);
            }
            lines
        }
        Output::Json => serde_json::json!({
            "event": "stopped", "sessions": transcript.unreleased().count(), "mints": mints,
            "releases": releases, "violations": violations,
        })
        .to_string(),
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    Ok(())
}
