//! `cargo xtask fuzz`: lets libFuzzer look for bytes that a parser gets wrong, on the stable toolchain.
//!
//! All that an instrumented build needs are stable compiler flags. They are for the workspace's own crates: this
//! program is cargo's `RUSTC_WORKSPACE_WRAPPER` meanwhile, so that crates from outside are those of the tests' build.
//! There is no AddressSanitizer: it needs an unstable compiler, and there is no `unsafe` here for it to watch. What
//! the targets are and what has to hold is in `tests/fuzz`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cargo;
use crate::environment::Home;
use crate::sys::Interrupts;

/// Runs the targets that are named, or all, each for so long. `--input FILE` gives one target one input instead.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let root = cargo::root()?;
    let order = Order::read(arguments, &targets(&root)?)?;
    let interrupts = Interrupts::watch()?;
    let program = build(&root)?;
    let work = cargo::programs()?.parent().context("this program is not in a target folder")?.join("fuzz");
    let bench = Bench { root, program, work, home: Home::new()? };
    match order {
        Order::Replay { target, input } => bench.replay(&target, &input),
        Order::Search { targets, time } => {
            let result = bench.search(&targets, time, &interrupts);
            interrupts.check()?;
            result
        }
    }
}

/// When cargo has started this program in the compiler's place: how that went. See the module's text.
pub(crate) fn as_compiler(arguments: &[String]) -> Option<Result<ExitStatus>> {
    let wrapper = std::env::var_os(WRAPPER)?;
    let is_this = cargo::this_program().is_ok_and(|this| this == Path::new(&wrapper));
    let [compiler, rest @ ..] = arguments else { return None };
    let is_compiler = Path::new(compiler).file_stem().is_some_and(|name| name == "rustc");
    if !is_this || !is_compiler {
        return None;
    }
    let mut command = Command::new(compiler);
    command.args(rest);
    // cargo also asks it what it can do, without a crate.
    if std::env::var_os("CARGO_PKG_NAME").is_some() {
        command.args(INSTRUMENTED);
    }
    Some(command.status().context("cannot start the compiler"))
}

const WRAPPER: &str = "RUSTC_WORKSPACE_WRAPPER";

/// What cargo-fuzz 0.13 gives to the compiler without a sanitizer; nobody else compiles what `cfg(fuzzing)` lets in,
/// so warnings show here.
const INSTRUMENTED: &[&str] = &[
    "--cfg=fuzzing",
    "-Dwarnings",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// How long each target runs when nobody says.
const SEARCH_TIME: Duration = Duration::from_secs(10);

/// Seconds for one input: a thousand times what the slowest takes.
const INPUT_SECONDS: u32 = 10;

/// MiB of memory: the targets need a few tens.
const MEMORY: u32 = 1024;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    Search { targets: Vec<String>, time: Duration },
    Replay { target: String, input: PathBuf },
}

impl Order {
    fn read(arguments: &[&str], known: &[String]) -> Result<Order> {
        let (mut targets, mut time, mut input) = (Vec::new(), SEARCH_TIME, None);
        let mut words = arguments.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--seconds" => {
                    let seconds =
                        words.next().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
                    time = Duration::from_secs(seconds.context("--seconds needs a number")?);
                }
                "--input" => input = Some(PathBuf::from(words.next().context("--input needs a file")?)),
                name if known.iter().any(|known| known == name) => targets.push(name.to_owned()),
                name => bail!("no such target: {name}; there are {}", known.join(", ")),
            }
        }
        match (input, targets.as_slice()) {
            (None, []) => Ok(Order::Search { targets: known.to_vec(), time }),
            (None, _) => Ok(Order::Search { targets, time }),
            (Some(input), [target]) => Ok(Order::Replay { target: target.clone(), input }),
            (Some(_), _) => bail!("--input is for one target"),
        }
    }
}

/// The targets: each has a folder of seeds.
fn targets(root: &Path) -> Result<Vec<String>> {
    let seeds = root.join(SEEDS);
    let mut names: Vec<String> = std::fs::read_dir(&seeds)
        .with_context(|| format!("cannot read {}", seeds.display()))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

const SEEDS: &str = "tests/fuzz/seeds";

/// Builds the program and says where it is.
fn build(root: &Path) -> Result<PathBuf> {
    // The whole workspace's features, as the tests are built with.
    let arguments =
        ["build", "--locked", "--workspace", "--features", "bastide-fuzz/libfuzzer", "--test", "fuzz"];
    let mut command = cargo::command(root, &arguments);
    command.args(["--message-format", "json-render-diagnostics"]);
    command.env(WRAPPER, cargo::this_program()?);
    eprintln!("$ cargo {}", arguments.join(" "));
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the fuzz targets can't be built ({})", output.status);
    executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo did not say where the fuzz targets are")
}

/// The path in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message.pointer("/target/name").is_some_and(|name| name == "fuzz"))
        .find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
}

struct Bench {
    root: PathBuf,
    program: PathBuf,
    /// Where corpora, logs and crashes are kept.
    work: PathBuf,
    home: Home,
}

impl Bench {
    /// As many targets at a time as there are processors.
    fn search(&self, targets: &[String], time: Duration, interrupts: &Interrupts) -> Result<()> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let waiting = Mutex::new(targets.iter());
        let next = || waiting.lock().ok()?.next().filter(|_| interrupts.check().is_ok());
        let work = || {
            std::iter::from_fn(next)
                .filter_map(|target| match self.search_one(target, time) {
                    Ok(line) => {
                        eprintln!("{target:width$}  {line}", width = longest(targets));
                        None
                    }
                    Err(error) => Some(error),
                })
                .collect::<Vec<_>>()
        };
        let errors: Vec<anyhow::Error> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        interrupts.check()?;
        for error in &errors {
            eprintln!("\n{error:#}");
        }
        ensure!(errors.is_empty(), "{} of {} fuzz targets failed", errors.len(), targets.len());
        Ok(())
    }

    /// One target; what was done in words.
    fn search_one(&self, target: &str, time: Duration) -> Result<String> {
        let corpus = self.work.join("corpus").join(target);
        let crashes = self.work.join("crashes");
        for folder in [&corpus, &crashes] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut command = self.command(target);
        command
            .arg(format!("-max_total_time={}", time.as_secs()))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .args(["-print_final_stats=1", "-use_value_profile=1"])
            .arg(format!("-artifact_prefix={}/{target}-", crashes.display()))
            .arg(&corpus)
            .arg(self.root.join(SEEDS).join(target));
        let output = command.stdin(Stdio::null()).output().context("cannot start the fuzz targets")?;
        let log = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(format!("{} inputs in {} s, nothing found", inputs(&log), time.as_secs()));
        }
        let kept =
            log.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path));
        let start = log.lines().position(|line| line.contains("panicked at") || line.starts_with("=="));
        let story: Vec<&str> = log.lines().skip(start.unwrap_or_default()).take(STORY).collect();
        bail!(
            "{target}: {}\n{}\n\nAgain: cargo xtask fuzz {target} --input {}\nOnce mended, keep it in \
             {SEEDS}/{target}.",
            output.status,
            story.join("\n"),
            kept.unwrap_or("FILE"),
        )
    }

    fn replay(&self, target: &str, input: &Path) -> Result<()> {
        ensure!(input.is_file(), "{} is no file", input.display());
        let mut command = self.command(target);
        command.arg(input).env("RUST_BACKTRACE", "1");
        let status = command.status().context("cannot start the fuzz targets")?;
        ensure!(status.success(), "{target}: {status}");
        Ok(())
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        self.home.apply(&mut command);
        command.env("BASTIDE_FUZZ_TARGET", target);
        command
    }
}

/// Lines of a failure that are shown: the panic's words, and libFuzzer's dump of the input.
const STORY: usize = 60;

fn longest(names: &[String]) -> usize {
    names.iter().map(String::len).max().unwrap_or_default()
}

/// How many inputs were tried, as libFuzzer's statistics say.
fn inputs(log: &str) -> &str {
    log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")).map_or("no", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_orders() -> Result<()> {
        let known = ["a".to_owned(), "b".to_owned()];
        let check = |line: &str| Order::read(&line.split_whitespace().collect::<Vec<_>>(), &known);
        let search = |targets: &[&str], seconds| Order::Search {
            targets: targets.iter().map(|&name| name.to_owned()).collect(),
            time: Duration::from_secs(seconds),
        };
        assert_eq!(check("")?, search(&["a", "b"], 10));
        assert_eq!(check("b --seconds 3")?, search(&["b"], 3));
        assert_eq!(check("a --input f")?, Order::Replay { target: "a".into(), input: "f".into() });
        for wrong in ["c", "--seconds", "--seconds 0", "--input f", "a b --input f", "--input"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn reads_what_others_say() {
        let messages =
            "{\"reason\":\"x\"}\nno JSON\n{\"target\":{\"name\":\"fuzz\"},\"executable\":\"/t/fuzz-1\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/fuzz-1")));
        assert_eq!(executable("{}"), None);
        assert_eq!(inputs("Done\nstat::number_of_executed_units: 42\n"), "42");
    }

    #[test]
    fn is_no_compiler_by_itself() {
        assert!(as_compiler(&["/bin/rustc".into(), "-vV".into()]).is_none());
    }
}
