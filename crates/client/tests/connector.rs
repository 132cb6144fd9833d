//! Streams without a port, against an emulator in this process: opened, half-closed, dropped, counted, stopped. It leaves
//! out listening and the command line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bastide::{
    Client, Connector, End, Environment, Error, Found, Meter, RelayOptions, Settings, StopCause,
    TunnelOptions, Words,
};
use bastide_emulator::{Emulator, Options, Scenario};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// No wait of a test is longer: it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);

struct Azure {
    emulator: Emulator,
    client: Client,
    found: Found,
    _state: tempfile::TempDir,
}

impl Azure {
    async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let scenario =
            Scenario::parse("[[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\n").unwrap();
        let options = Options { state: state.path().into(), scenario, ..Options::default() };
        let emulator = Emulator::start(options).await.unwrap();
        let environment: Environment = emulator.env().into_iter().collect();
        let client = Client::new(Settings::from_environment(environment).unwrap()).await.unwrap();
        let found = client.find(&Words::parse("web-01", None, None).unwrap()).await.unwrap();
        Self { emulator, client, found, _state: state }
    }

    async fn connector(&self, port: u16) -> Connector {
        self.client.connector(&mut self.found.clone(), port).await.unwrap()
    }

    /// Ends it, and judges what was done.
    async fn judge(self, connector: Connector) {
        assert_eq!(connector.close(PATIENCE).await, 0);
        assert_eq!(self.emulator.violations().len(), 0);
        assert_eq!(self.emulator.transcript().unreleased().count(), 0);
        self.emulator.shutdown().await;
    }
}

fn counts(meter: &Meter) -> (u64, u64, u64, u64) {
    (meter.accepted(), meter.open(), meter.sent(), meter.received())
}

#[tokio::test]
async fn a_stream_carries_both_ways_and_is_counted() {
    let azure = Azure::start().await;
    let connector = azure.connector(7).await;
    for round in 1..=2_u64 {
        let mut stream = connector.connect().await.unwrap();
        let ongoing = stream.ongoing().clone();
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        assert_eq!(counts(ongoing.meter()), (1, 1, 5, 5));
        assert!(ongoing.id() >= round && ongoing.outcome().is_none());
        // A FIN, not the end: what is on its way still comes.
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = [0; 3];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"bye");
        drop(stream);
        ongoing.ended().await.unwrap();
        assert_eq!(counts(ongoing.meter()), (1, 0, 8, 8));
    }
    assert_eq!(counts(connector.meter()), (2, 0, 16, 16));
    azure.judge(connector).await;
}

#[tokio::test]
async fn a_dropped_stream_gives_its_session_back() {
    let azure = Azure::start().await;
    let connector = azure.connector(7).await;
    let stream = connector.connect().await.unwrap();
    let ongoing = stream.ongoing().clone();
    drop(stream);
    assert_eq!(ongoing.ended().await.unwrap(), End::LocalClosed);
    let released = azure.emulator.wait_for(|transcript| transcript.unreleased().next().is_none());
    tokio::time::timeout(PATIENCE, released).await.unwrap();
    assert_eq!(connector.finish().await, 0);
    azure.judge(connector).await;
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_explained() {
    let azure = Azure::start().await;
    let connector = azure.connector(81).await;
    let error = match connector.connect().await {
        Err(error) => error,
        Ok(mut stream) => {
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            stream.ongoing().ended().await.expect_err("nobody listens there")
        }
    };
    assert!(
        matches!(error, Error::Connection(bastide::ConnectionError::PortClosed { port: 81, .. })),
        "{error}"
    );
    azure.judge(connector).await;
}

#[tokio::test]
async fn one_connection_is_stopped_and_the_others_go_on() {
    let azure = Azure::start().await;
    let connector = azure.connector(7).await;
    let (first, mut second) = (connector.connect().await.unwrap(), connector.connect().await.unwrap());
    first.ongoing().stop();
    assert_eq!(first.ongoing().ended().await.unwrap(), End::Stopped);
    second.write_all(b"x").await.unwrap();
    second.read_exact(&mut [0]).await.unwrap();
    // And who has not connected yet, when all are stopped, is told.
    let ongoing = second.ongoing().clone();
    assert_eq!(connector.close(PATIENCE).await, 0);
    assert_eq!(ongoing.outcome().unwrap().unwrap(), End::Stopped);
    assert!(connector.connect().await.is_err());
    azure.judge(connector).await;
}

#[tokio::test]
async fn a_limit_ends_the_connection_that_reaches_it() {
    let azure = Azure::start().await;
    let Found { host, target, .. } = &azure.found;
    let plan = host.plan(target, 7).unwrap();
    let relay = azure.client.relay(host, plan, RelayOptions::default(), Arc::new(|_| {})).unwrap();
    let idle = TunnelOptions { idle: Some(Duration::from_millis(1)), ..TunnelOptions::default() };
    let connector = Connector::new(relay, idle);
    // It may be over before it has been opened.
    let error = match connector.connect().await {
        Err(error) => error,
        Ok(mut stream) => {
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            stream.ongoing().ended().await.expect_err("it was idle")
        }
    };
    assert!(matches!(error, Error::LimitReached { cause: StopCause::Idle }), "{error}");
    assert_eq!(error.fault().code(), 124);
    azure.judge(connector).await;
}
