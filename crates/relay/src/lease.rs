//! A minted token and the duty to give it back (protocol.md §3 step 4). Dropping the [`Lease`] *is* the release:
//! there is nothing to forget. It leaves out minting (`mint`) and what the token opens.

use std::sync::Arc;
use std::time::Duration;

use bastide_core::{Grant, Plan, causes};
use bastide_net::{Network, Origin};
use bytes::Bytes;
use http::{Method, Request, header};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::dues::Due;
use crate::{Debt, Dues, Entry, Error, Event, Ledger, Observer, USER_AGENT};

/// A grant that is given back when this is dropped, wherever that happens: at the end of a connection, in a
/// cancelled future, in a panic.
pub(crate) struct Lease {
    /// The right to one WebSocket.
    pub(crate) grant: Grant,
    /// The host that serves it: the Bastion host, or a data pod.
    pub(crate) host: Origin,
    /// The connection that uses it; 0 while none does.
    pub(crate) connection: u64,
    /// Where it stands in the ledger.
    entry: Option<Entry>,
    reaper: Reaper,
    /// Makes [`Reaper::finish`] wait for leases in use. Dropped after the release has begun, so that there is
    /// no moment at which neither is waited for.
    _due: Due,
}

impl Lease {
    pub(crate) fn new(grant: Grant, host: Origin, reaper: Reaper) -> Self {
        let due = reaper.shared.dues.due();
        let mut lease = Self { grant, host, connection: 0, entry: None, reaper, _due: due };
        // Before anything else: a process killed until here leaves a token that nobody knows of.
        lease.entry = lease.reaper.shared.ledger.as_ref().and_then(|ledger| ledger.record(&lease.debt()));
        lease
    }

    fn debt(&self) -> Debt {
        Debt {
            host: self.host.clone(),
            auth_token: self.grant.auth_token.clone(),
            node_id: self.grant.node_id.clone(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let release = Release { debt: self.debt(), connection: self.connection, entry: self.entry };
        self.reaper.release(release);
    }
}

/// A token to give back.
pub(crate) struct Release {
    pub(crate) debt: Debt,
    /// The connection that used it; 0 for none.
    pub(crate) connection: u64,
    /// Where it stands in the ledger.
    pub(crate) entry: Option<Entry>,
}

/// Gives tokens back, each in a task of its own; there are never more tasks than there were leases.
#[derive(Clone)]
pub(crate) struct Reaper {
    shared: Arc<Shared>,
}

struct Shared {
    network: Network,
    observer: Observer,
    ledger: Option<Arc<dyn Ledger>>,
    runtime: Handle,
    dues: Dues,
    turns: Semaphore,
}

/// Releases under way at once: more only make a burst for a service that has just seen a burst of closes.
const RELEASES_AT_ONCE: usize = 16;

/// Attempts at one release, and the pause between them. The service ends the token by itself at its idle
/// time-out, so that patience has little worth.
const RELEASE_ATTEMPTS: u32 = 3;
const RELEASE_PAUSE: Duration = Duration::from_millis(500);

/// One attempt's limit: three times the slowest answer of a healthy service (peers.md F31, "about 3 s").
const RELEASE_WITHIN: Duration = Duration::from_secs(10);

/// What is being given back for an earlier process when this one ends has so long for its answer, without which it would
/// be given back twice.
const STOP_WITHIN: Duration = Duration::from_secs(1);

impl Reaper {
    pub(crate) fn new(
        network: Network,
        observer: Observer,
        ledger: Option<Arc<dyn Ledger>>,
        runtime: Handle,
        dues: Dues,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                network,
                observer,
                ledger,
                runtime,
                dues,
                turns: Semaphore::new(RELEASES_AT_ONCE),
            }),
        }
    }

    /// Starts giving a token back.
    pub(crate) fn release(&self, release: Release) {
        let shared = Arc::clone(&self.shared);
        self.adopt(async move { shared.give_back(release).await });
    }

    /// Gives back what processes that are gone have left, in the background. What is not done by `stop` stays in the
    /// ledger for the next process.
    pub(crate) fn work_off(&self, stop: CancellationToken) {
        let inherited = self.shared.ledger.as_ref().map(|ledger| ledger.inherit()).unwrap_or_default();
        if inherited.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.adopt(async move {
            let enough = async {
                stop.cancelled().await;
                sleep(STOP_WITHIN).await;
            };
            tokio::select! {
                () = enough => {}
                () = shared.work_off(inherited, &stop) => {}
            }
        });
    }

    /// Runs a mint to its end even if nobody waits for it any more: what it mints is then released.
    pub(crate) fn adopt<F: Future<Output = ()> + Send + 'static>(&self, mint: F) {
        self.shared.dues.spawn(&self.shared.runtime, mint);
    }

    /// Waits until every mint and release under way is done and no lease is left, or `grace` is over; how many
    /// tokens were not given back.
    pub(crate) async fn finish(&self, grace: Duration) -> u64 {
        self.shared.dues.settle(grace).await
    }
}

impl Shared {
    async fn give_back(&self, release: Release) {
        let id = release.connection;
        // The semaphore is never closed.
        let turn = self.turns.acquire().await;
        let mut reason = String::new();
        for attempt in 1..=RELEASE_ATTEMPTS {
            match try_release(&self.network, &release.debt).await {
                Ok(()) => {
                    drop(turn);
                    self.strike_out(release.entry);
                    return (self.observer)(Event::Released { id });
                }
                Err(error) => reason = error,
            }
            tracing::debug!(connection = id, attempt, reason, "release failed");
            if attempt < RELEASE_ATTEMPTS {
                sleep(RELEASE_PAUSE).await;
            }
        }
        drop(turn);
        self.dues.note_leak();
        (self.observer)(Event::Leaked { id, reason });
    }

    /// One after the other, and one try each: nobody waits for it, and the next process has another. A host that
    /// fails is not asked again.
    async fn work_off(&self, inherited: Vec<(Entry, Debt)>, stop: &CancellationToken) {
        let (count, mut done, mut failed) = (inherited.len(), 0, Vec::new());
        for (entry, debt) in inherited {
            if stop.is_cancelled() {
                break;
            }
            if failed.contains(&debt.host) {
                continue;
            }
            match try_release(&self.network, &debt).await {
                Ok(()) => {
                    self.strike_out(Some(entry));
                    done += 1;
                }
                Err(reason) => {
                    tracing::info!(host = %debt.host, reason, "a token of an earlier process is not given back yet");
                    failed.push(debt.host);
                }
            }
        }
        tracing::info!("{done} of {count} tokens that earlier processes had left are given back");
    }

    fn strike_out(&self, entry: Option<Entry>) {
        if let (Some(ledger), Some(entry)) = (&self.ledger, entry) {
            ledger.strike_out(entry);
        }
    }
}

/// Gives back what a process that is gone has left, when somebody asks for it: one try.
///
/// Cancel safe in that the token may be given back again.
///
/// # Errors
/// [`Error::NotReleased`].
pub async fn give_back(network: &Network, debt: &Debt) -> Result<(), Error> {
    let failed = |reason| Error::NotReleased { host: debt.host.authority(), reason };
    try_release(network, debt).await.map_err(failed)
}

async fn try_release(network: &Network, release: &Debt) -> Result<(), String> {
    let path = Plan::release_path(&release.auth_token);
    let mut request = Request::builder()
        .method(Method::DELETE)
        .uri(format!("{}{}", release.host, path.expose()))
        .header(header::USER_AGENT, USER_AGENT);
    // A grant without a node, which is none, is given back as far as possible.
    if !release.node_id.is_empty() {
        request = request.header("X-Node-Id", release.node_id.as_str());
    }
    let request = request
        .body(Bytes::new())
        // The error would show the path, and the token with it.
        .map_err(|_| "the service's token or node does not fit into a request".to_owned())?;
    let answer = timeout(RELEASE_WITHIN, network.send(request)).await;
    match answer {
        Err(_) => Err(format!("no answer within {} s", RELEASE_WITHIN.as_secs())),
        Ok(Err(error)) => Err(causes(&error).join(": ")),
        // 404: the service has forgotten it already (protocol.md §3 step 4).
        Ok(Ok(answer)) if matches!(answer.status().as_u16(), 200 | 204 | 404) => Ok(()),
        Ok(Ok(answer)) => Err(format!("status {}", answer.status().as_u16())),
    }
}
