//! What is kept ready for the next connection: a spare TLS connection, and leases minted ahead. That it saves round
//! trips shows in which connection carries what; that it may have gone stale shows nowhere.

use std::sync::Arc;
use std::time::Duration;

use bastide_core::{End, RdpSignIn, Sku};
use bastide_relay::{Event, Options};
use tokio::sync::Semaphore;

use crate::bench::{Bench, PATIENCE, ended, options};
use crate::service::{Ask, Kind, Reply, Service, http};

/// What cli.md gives a lease that nobody uses.
const KEPT: Duration = Duration::from_secs(30);

fn prefetching(prefetch: usize) -> Options {
    Options { prefetch, ..options() }
}

/// Nobody is told of an attempt that failed.
async fn assert_silent(bench: &Bench) {
    let told = bench.told().await;
    let loud = |event: &&Event| matches!(event, Event::Retry { .. } | Event::Leaked { .. });
    assert_eq!(told.iter().filter(loud).count(), 0, "{told:?}");
}

#[tokio::test]
async fn the_next_upgrade_finds_a_connection_open() {
    for sku in [Sku::Standard, Sku::Developer] {
        let bench = Bench::of_sku(Service::new(|_| Reply::Usual).await, options(), sku);
        bench.relay.expect_more();
        for id in 1..=3 {
            bench.hello(id).await;
            // One for mints and releases, one for each upgrade, one for the next.
            assert_eq!(bench.released().await, id);
            bench.service.connected(2 + usize::try_from(id).unwrap()).await;
        }
        let upgrades = bench.service.asks(Kind::Upgrade);
        let connections: Vec<_> = upgrades.iter().map(|ask| ask.connection).collect();
        assert_eq!(connections[1..], [3, 4]);
        let mints = bench.service.asks(Kind::Mint);
        assert!(mints.iter().all(|mint| mint.connection == mints[0].connection), "kept alive");
        bench.judge(3).await;
    }
}

#[tokio::test]
async fn a_connection_that_comes_alone_leaves_none_behind() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    bench.hello(1).await;
    bench.judge(1).await;
    assert_eq!(bench.service.connections(), 2);
}

#[tokio::test]
async fn a_spare_connection_that_was_closed_is_not_missed() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    bench.relay.expect_more();
    bench.hello(1).await;
    bench.released().await;
    bench.service.connected(3).await;
    bench.service.hang_up().await;
    assert_eq!(ended(&bench.hello(2).await), &End::LocalClosed);
    assert_silent(&bench).await;
    bench.judge(2).await;
}

/// Closed at the moment of the upgrade: what no look beforehand can see.
#[tokio::test]
async fn a_spare_connection_that_brings_no_answer_is_not_missed() {
    let silent = |ask: &Ask| match (ask.kind, ask.number) {
        (Kind::Upgrade, 2) => Reply::Nothing,
        _ => Reply::Usual,
    };
    let bench = Bench::new(Service::new(silent).await, options());
    bench.relay.expect_more();
    bench.hello(1).await;
    bench.service.connected(3).await;
    let account = bench.hello(2).await;
    assert_eq!((ended(&account), account.sent, account.received), (&End::LocalClosed, 5, 5));
    assert_silent(&bench).await;
    bench.judge(3).await;
    assert_eq!(bench.service.asks(Kind::Upgrade)[1].connection, 3);

    // A new one that brings no answer is a failed attempt, and told.
    let bench = Bench::new(Service::new(silent).await, options());
    bench.hello(1).await;
    bench.hello(2).await;
    let retry = bench.event(|event| match event {
        Event::Retry { id, attempt, .. } => Some((id, attempt)),
        _ => None,
    });
    assert_eq!(retry.await, (2, 1));
    bench.judge(3).await;
}

#[tokio::test]
async fn a_lease_that_the_service_has_forgotten_is_not_missed() {
    let service = Service::new(|ask| match (ask.kind, ask.number) {
        (Kind::Upgrade, 1) => http("404 Not Found", "no such token"),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    bench.relay.prepare(PATIENCE).await.unwrap();
    assert_eq!(ended(&bench.hello(1).await), &End::LocalClosed);
    assert_silent(&bench).await;
    bench.judge(2).await;
}

#[tokio::test]
async fn leases_minted_ahead_are_used_and_replaced() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, prefetching(2));
    bench.relay.prepare(KEPT).await.unwrap();
    bench.service.asked(Kind::Mint, 2).await;
    bench.hello(1).await;
    let upgrade = &bench.service.asks(Kind::Upgrade)[0];
    assert_eq!(upgrade.line, "GET /webtunnelv2/ws%2F1?X-Node-Id=node%201 HTTP/1.1", "the oldest");
    bench.service.asked(Kind::Mint, 3).await;
    bench.hello(2).await;
    bench.service.asked(Kind::Mint, 4).await;
    bench.judge(4).await;
    assert_eq!(bench.service.count(Kind::Upgrade), 2);
}

#[tokio::test]
async fn leases_minted_ahead_are_given_back_when_nobody_comes() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, prefetching(3));
    // Without a proof too: the first connection mints for itself and the next ones.
    bench.hello(1).await;
    assert_eq!(bench.released().await, 1);
    bench.service.asked(Kind::Mint, 4).await;
    bench.hello(2).await;
    assert_eq!(bench.released().await, 2);
    bench.service.asked(Kind::Mint, 5).await;
    // Behind one more request, the answers to all others have been read: only time is left to wait for.
    bench.relay.rdp_file(RdpSignIn::Password).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(KEPT).await;
    tokio::time::resume();
    for _ in 0..3 {
        assert_eq!(bench.released().await, 0);
    }
    // The next one has them minted again.
    let before = bench.service.count(Kind::Mint);
    bench.hello(3).await;
    bench.service.asked(Kind::Mint, before + 4).await;
    bench.judge(bench.service.count(Kind::Mint)).await;
}

#[tokio::test]
async fn no_more_leases_are_minted_than_wanted() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, prefetching(usize::MAX));
    bench.relay.prepare(KEPT).await.unwrap();
    bench.service.asked(Kind::Mint, 20).await;
    bench.judge(20).await;
}

#[tokio::test]
async fn a_stop_gives_back_what_is_being_minted_ahead() {
    let turns = Arc::new(Semaphore::new(1));
    let held = Arc::clone(&turns);
    let service = Service::later(move |ask| {
        let held = Arc::clone(&held);
        Box::pin(async move {
            if ask.kind == Kind::Mint {
                held.acquire().await.unwrap().forget();
            }
            Reply::Usual
        })
    });
    let bench = Bench::new(service.await, prefetching(3));
    bench.relay.prepare(KEPT).await.unwrap();
    bench.service.asked(Kind::Mint, 3).await;
    bench.relay.stop();
    turns.add_permits(2);
    bench.judge(3).await;
}

#[tokio::test]
async fn a_service_that_mints_no_more_is_not_pressed() {
    let service = Service::new(|ask| match (ask.kind, ask.number) {
        (Kind::Mint, 2..) => http("429 Too Many Requests", ""),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, prefetching(2));
    bench.relay.prepare(KEPT).await.unwrap();
    bench.service.asked(Kind::Mint, 2).await;
    assert_eq!(bench.relay.close(PATIENCE).await, 0);
    assert_silent(&bench).await;
    assert_eq!((bench.service.count(Kind::Mint), bench.service.count(Kind::Release)), (2, 1));
}
