//! What the tests share: a relay, a service, sign-in, and what was told. It holds no test.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bastide_core::{
    AccessToken, AuthError, BastionHost, End, Freshness, Plan, Provider, ResourceId, RetryPolicy, Sku,
    Target, TokenRequest,
};
use bastide_net::Network;
use bastide_relay::{Account, Event, Options, Relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::service::{Kind, Service};

/// A relay, its service, and what happened.
pub(crate) struct Bench {
    pub(crate) relay: Relay,
    pub(crate) service: Arc<Service>,
    pub(crate) provider: Arc<Tokens>,
    events: AsyncMutex<mpsc::UnboundedReceiver<Event>>,
}

/// No retry waits.
pub(crate) fn options() -> Options {
    let retry = RetryPolicy { retries: 2, first_pause: Duration::ZERO, ..RetryPolicy::default() };
    Options { retry, linger: Duration::ZERO, ..Options::default() }
}

impl Bench {
    pub(crate) fn new(service: Service, options: Options) -> Self {
        Self::of_sku(service, options, Sku::Standard)
    }

    pub(crate) fn of_sku(service: Service, options: Options, sku: Sku) -> Self {
        let bundle = service.bundle();
        Self::trusting(service, options, sku, vec![bundle])
    }

    pub(crate) fn trusting(
        service: Service,
        options: Options,
        sku: Sku,
        ca_bundles: Vec<std::path::PathBuf>,
    ) -> Self {
        let network = Network::new(bastide_net::Options { ca_bundles, ..Default::default() }).unwrap();
        let provider = Arc::new(Tokens::default());
        let (sender, events) = mpsc::unbounded_channel();
        let relay = Relay::new(
            network,
            Arc::clone(&provider) as Arc<dyn Provider>,
            TokenRequest::new("https://management.azure.com/.default"),
            plan(service.port, sku),
            options,
            Arc::new(move |event| drop(sender.send(event))),
            None,
        )
        .unwrap();
        Self { relay, service: Arc::new(service), provider, events: AsyncMutex::new(events) }
    }

    /// Carries connection `id` for a local program that says `hello`, wants it back, and closes.
    pub(crate) async fn hello(&self, id: u64) -> Account {
        let (local, near) = duplex(4096);
        let (account, back) = tokio::join!(self.carry(id, near), hello(local));
        assert_eq!(back, b"hello", "{account:?}");
        account
    }

    /// Carries connection `id` for a local program that says `hello` and waits for the end.
    pub(crate) async fn fails(&self, id: u64) -> Account {
        let (mut local, near) = duplex(4096);
        let program = async {
            local.write_all(b"hello").await.unwrap();
            local.read_to_end(&mut Vec::new()).await.unwrap();
            drop(local);
        };
        tokio::join!(self.carry(id, near), program).0
    }

    pub(crate) async fn carry(&self, id: u64, near: DuplexStream) -> Account {
        let stop = self.relay.stop_token();
        let carried = self.relay.carry(id, "a test".into(), near, &|_| {}, &stop);
        timeout(PATIENCE, carried).await.expect("a connection ends")
    }

    /// The next event that `wanted` makes something of.
    pub(crate) async fn event<T>(&self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let mut events = self.events.lock().await;
        let search = async {
            loop {
                if let Some(found) = wanted(events.recv().await.expect("the relay lives")) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("an event")
    }

    /// The events that nobody has waited for.
    pub(crate) async fn told(&self) -> Vec<Event> {
        let mut events = self.events.lock().await;
        std::iter::from_fn(|| events.try_recv().ok()).collect()
    }

    /// Waits for the next release.
    pub(crate) async fn released(&self) -> u64 {
        self.event(|event| match event {
            Event::Released { id } => Some(id),
            Event::Leaked { .. } => panic!("{event:?}"),
            _ => None,
        })
        .await
    }

    /// Closes, and judges the transcript: each of so many tokens was given back once.
    pub(crate) async fn judge(&self, minted: usize) {
        assert_eq!(self.relay.close(PATIENCE).await, 0, "tokens left");
        assert_eq!(self.service.count(Kind::Mint), minted);
        self.service.assert_released(minted);
    }
}

/// Nothing here takes a second; a machine that is busy with other things may.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn hello(mut local: DuplexStream) -> Vec<u8> {
    local.write_all(b"hello").await.unwrap();
    let mut back = vec![0; 5];
    let count = local.read_exact(&mut back).await.unwrap_or_default();
    back.truncate(count);
    local.shutdown().await.unwrap();
    local.read_to_end(&mut back).await.unwrap();
    back
}

pub(crate) fn ended(account: &Account) -> &End {
    account.outcome.as_ref().unwrap()
}

/// Gives out `cached`, `new` when asked for a new one, and the claims that it is asked for; keeps what it was asked.
#[derive(Default)]
pub(crate) struct Tokens {
    pub(crate) asked: Mutex<Vec<Freshness>>,
}

#[async_trait]
impl Provider for Tokens {
    fn name(&self) -> &str {
        "a test"
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        assert_eq!(request.scope, "https://management.azure.com/.default");
        self.asked.lock().unwrap().push(request.freshness);
        let secret = match (request.freshness, &request.claims) {
            (_, Some(claims)) => claims,
            (Freshness::Cached, _) => "cached&=",
            (Freshness::New, _) => "new",
        };
        Ok(AccessToken { secret: secret.to_owned().into(), expires_on: SystemTime::now() })
    }
}

fn plan(port: u16, sku: Sku) -> Plan {
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b";
    let vm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm";
    let host = BastionHost {
        id: ResourceId::parse(id).unwrap(),
        dns_name: Some(format!("localhost:{port}")),
        sku,
        tunneling: Some(true),
        ip_connect: false,
        session_recording: false,
        provisioning_state: Some("Succeeded".into()),
        scale_units: Some(2),
        subnet: None,
    };
    Plan::new(&host, &Target::Resource(ResourceId::parse(vm).unwrap()), 22).unwrap()
}
