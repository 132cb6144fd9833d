//! A tunnel: a local port or socket that leads to a port of a VM. It leaves out what goes through it.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Duration;

use bastide::{Endpoint, Forward, Meter, PROOF_KEPT, Relay, Stopped, TunnelOptions};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Desk};
use crate::error::Failure;
use crate::handle::Thing;
use crate::options::Values;
use crate::{place, text};

/// What a tunnel handle stands for.
pub(crate) struct Tunnel {
    address: CString,
    port: u16,
    stop: CancellationToken,
    stopped: watch::Receiver<Option<Stopped>>,
    meter: Arc<Meter>,
    desk: Arc<Desk>,
}

impl Thing for Tunnel {
    const KIND: &'static str = "tunnel";
}

/// A tunnel that is not there yet: when nothing comes of it, what was minted for it is given back.
struct Opening {
    relay: Option<Relay>,
    grace: Duration,
    desk: Arc<Desk>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(relay) = self.relay.take() {
            let (grace, desk) = (self.grace, Arc::clone(&self.desk));
            self.desk.spawn(async move { desk.note_leaks(relay.close(grace).await) });
        }
    }
}

impl Tunnel {
    /// Listens, and proves by a lease that a connection could be opened.
    pub(crate) fn open(client: &Client, options: &Values) -> Result<Self, Failure> {
        let flags = client.refine(options)?;
        let (words, (endpoint, port)) = (place::words(&flags)?, place::endpoint(&flags)?);
        let keepalive = client.keepalive().map(str::to_owned);
        let desk = Arc::clone(&client.desk);
        client.desk.wait(async move {
            let azure = desk.azure()?;
            let mut found = azure.find(&words).await?;
            let options = place::relay_options(&flags, keepalive.as_deref(), port);
            let relay = azure.reach(&mut found, port, options, desk.observer()).await?;
            let limits = place::tunnel_options(&flags);
            let mut opening =
                Opening { relay: Some(relay.clone()), grace: limits.grace, desk: Arc::clone(&desk) };
            let forward = Forward::open(&endpoint, relay.clone()).await?.counted_in(&desk.meter);
            relay.prepare(PROOF_KEPT).await?;
            opening.relay = None;
            Ok(Self::start(forward, limits, desk))
        })
    }

    fn start(forward: Forward, limits: TunnelOptions, desk: Arc<Desk>) -> Self {
        let address = forward.endpoint().to_string();
        let port = match forward.endpoint() {
            Endpoint::Tcp(address) => address.port(),
            Endpoint::Unix(_) => 0,
        };
        let meter = forward.meter();
        let stop = desk.stop.child_token();
        let (stopping, stopped) = watch::channel(None);
        let (running, clerk, place) = (stop.clone(), Arc::clone(&desk), address.clone());
        desk.queue.tell("ready", json!({"address": address}));
        desk.spawn(async move {
            let outcome = bastide::Tunnel::new(vec![forward], limits).run(running).await;
            clerk.note_leaks(outcome.leaked);
            clerk.queue.tell("stopped", json!({"address": place, "leaked": outcome.leaked}));
            stopping.send_replace(Some(outcome));
        });
        Self { address: text::owned(&address), port, stop, stopped, meter, desk }
    }

    pub(crate) fn address(&self) -> &CStr {
        &self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Ends it, and waits at most so many milliseconds until its tokens are given back; how many were not.
    pub(crate) fn close(&self, grace: u64) -> Result<u64, Failure> {
        self.stop.cancel();
        if let Some(stopped) = *self.stopped.borrow() {
            return Ok(stopped.leaked);
        }
        let mut stopped = self.stopped.clone();
        let meter = Arc::clone(&self.meter);
        self.desk.wait(async move {
            let waiting = stopped.wait_for(Option::is_some);
            match tokio::time::timeout(Duration::from_millis(grace), waiting).await {
                Ok(outcome) => {
                    Ok(outcome.ok().and_then(|stopped| *stopped).map_or(0, |stopped| stopped.leaked))
                }
                // What is open still holds its token, and gives it back later.
                Err(_) => Ok(meter.open()),
            }
        })
    }

    /// Has it end by itself.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}
