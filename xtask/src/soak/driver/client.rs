//! The program under test: `bastide tunnel` as a user starts it, what it says of each connection, and what it takes of
//! the machine. What it should have said is `load`'s business.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A tunnel that runs. Killed when dropped.
pub(crate) struct Client {
    child: Child,
    pub(crate) port: u16,
    pub(crate) said: Arc<Said>,
    reader: JoinSet<()>,
}

/// How a connection ended, in the client's words.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) reason: String,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What the client has said so far.
#[derive(Debug, Default)]
pub(crate) struct Said {
    words: Mutex<Words>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Words {
    /// Addresses of connections whose end is yet to be heard: the kernel gives a closed one's port away.
    awaited: HashSet<String>,
    opened: HashMap<String, u64>,
    closed: HashMap<u64, Closed>,
    ready: Option<u16>,
    retries: u64,
    leaked: Option<u64>,
    over: bool,
}

/// What a process takes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) memory_kib: u64,
    pub(crate) descriptors: u64,
}

impl Client {
    /// Starts it and waits until it is ready. `log` gets its standard error.
    pub(crate) async fn start(
        program: &Path,
        target: &str,
        port: u16,
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Client> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(program)
            .args([
                "tunnel",
                "--name",
                "bastion",
                "--resource-group",
                "demo",
                "--credential",
                "client-secret",
            ])
            .args(["--target-resource-id", target, "--resource-port", &port.to_string()])
            .args(["--port", "0", "-o", "json"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Nobody here is a managed identity.
            .env("BASTIDE_IMDS_ENDPOINT", "https://localhost:9")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        let said = Arc::new(Said::default());
        let listening = Arc::clone(&said);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                listening.hear(&line);
            }
            listening.lock().over = true;
            listening.more.notify_waiters();
        });
        let ready = said.wait(|words| words.ready.map(Ok).or(words.over.then_some(Err(())))).await;
        let Ok(port) = ready else { bail!("bastide ended before it was ready") };
        Ok(Client { child, port, said, reader })
    }

    pub(crate) fn sample(&self) -> Result<Sample> {
        let id = self.child.id().context("bastide has ended by itself")?;
        let status =
            std::fs::read_to_string(format!("/proc/{id}/status")).context("bastide has ended by itself")?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        let descriptors =
            std::fs::read_dir(format!("/proc/{id}/fd")).context("bastide has ended by itself")?;
        Ok(Sample {
            memory_kib: memory.and_then(|text| text.parse().ok()).context("bastide has ended by itself")?,
            descriptors: descriptors.count() as u64,
        })
    }

    /// Ctrl-C; what it says at its end: exit code, tokens that were not given back.
    pub(crate) async fn stop(mut self) -> Result<(Option<i32>, Option<u64>)> {
        use rustix::process::{Pid, Signal, kill_process};
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.context("bastide has ended by itself")?, Signal::INT)?;
        let status = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await;
        let status = status.context("bastide does not stop")??;
        while self.reader.join_next().await.is_some() {}
        Ok((status.code(), self.said.lock().leaked))
    }
}

/// Ten seconds for connections and releases, and as much again for a busy machine.
const STOP_WITHIN: Duration = Duration::from_secs(20);

impl Said {
    /// Takes an address for a connection, unless an earlier one's end is yet to be heard.
    pub(crate) fn claim(&self, peer: &str) -> bool {
        let mut words = self.lock();
        if !words.awaited.insert(peer.to_owned()) {
            return false;
        }
        if let Some(id) = words.opened.remove(peer) {
            words.closed.remove(&id);
        }
        true
    }

    /// Gives an address up whose end nobody will ask for.
    pub(crate) fn give_up(&self, peer: &str) {
        self.lock().awaited.remove(peer);
    }

    /// How the connection from this address ended, once it has.
    pub(crate) async fn closed(&self, peer: &str) -> Closed {
        self.wait(|words| {
            let closed = words.closed.remove(words.opened.get(peer)?)?;
            words.opened.remove(peer);
            words.awaited.remove(peer);
            Some(closed)
        })
        .await
    }

    pub(crate) fn retries(&self) -> u64 {
        self.lock().retries
    }

    fn hear(&self, line: &str) {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        let number = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or_default();
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut words = self.lock();
        match text("event").as_str() {
            "ready" => words.ready = text("address").rsplit_once(':').and_then(|(_, port)| port.parse().ok()),
            "opened" => drop(words.opened.insert(text("peer"), number("id"))),
            "retry" => words.retries += 1,
            "closed" => {
                let closed =
                    Closed { reason: text("reason"), sent: number("sent"), received: number("received") };
                words.closed.insert(number("id"), closed);
            }
            "stopped" => words.leaked = Some(number("leaked")),
            _ => return,
        }
        drop(words);
        self.more.notify_waiters();
    }

    async fn wait<T>(&self, mut find: impl FnMut(&mut Words) -> Option<T>) -> T {
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            if let Some(found) = find(&mut self.lock()) {
                return found;
            }
            more.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
