//! Every minted token is given back exactly once, at its node, whatever happens to the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bastide_core::{End, Sku};
use bastide_relay::{Error, Event, Local, Options};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bench::{Bench, PATIENCE, ended, options};
use crate::service::{Ask, Kind, Reply, Service, Vm, http};

#[tokio::test]
async fn after_a_refused_upgrade() {
    const WRONG: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    type Refusal = fn() -> Reply;
    let cases: [(Refusal, usize, &str); 4] = [
        (|| http("403 Forbidden", "not you"), 1, "refused the WebSocket: status 403, \"not you\""),
        (|| http("500 Oops", ""), 3, "refused the WebSocket: status 500"),
        (|| http("200 OK", "hello"), 3, "refused the WebSocket: status 200, \"hello\""),
        (|| Reply::Switch(WRONG.into(), b"", Vm::Gone), 3, "wrong Sec-WebSocket-Accept"),
    ];
    for (refusal, mints, words) in cases {
        let service = Service::new(move |ask| match ask.kind {
            Kind::Upgrade => refusal(),
            _ => Reply::Usual,
        });
        let bench = Bench::new(service.await, options());
        let error = bench.fails(1).await.outcome.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        bench.judge(mints).await;
        let upgrades = bench.service.asks(Kind::Upgrade);
        let mut lines: Vec<_> = upgrades.iter().map(|ask| &ask.line).collect();
        lines.dedup();
        assert_eq!(lines.len(), mints, "no token is used twice");
    }
}

/// A service that holds its answers of one kind until it may go on.
async fn holding(kind: Kind) -> (Service, Arc<Semaphore>) {
    let turns = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&turns);
    let service = Service::later(move |ask: Ask| {
        let held = Arc::clone(&held);
        Box::pin(async move {
            if ask.kind == kind {
                held.acquire().await.unwrap().forget();
            }
            Reply::Usual
        })
    });
    (service.await, turns)
}

/// Polls `work` until the service was asked for `kind`.
async fn until_asked(service: &Service, kind: Kind, work: impl Future) {
    let mut work = std::pin::pin!(work);
    let asked = std::future::poll_fn(|context| {
        assert!(work.as_mut().poll(context).is_pending(), "it is held");
        if service.count(kind) > 0 {
            return Poll::Ready(());
        }
        // The service runs on the same thread; it gets its turn.
        context.waker().wake_by_ref();
        Poll::Pending
    });
    timeout(PATIENCE, asked).await.expect("it is asked");
}

#[tokio::test]
async fn of_a_connection_that_is_dropped_at_any_moment() {
    for (kind, sku, minted) in [
        (Kind::Pod, Sku::Developer, 0),
        (Kind::Mint, Sku::Developer, 1),
        (Kind::Mint, Sku::Standard, 1),
        (Kind::Upgrade, Sku::Standard, 1),
    ] {
        let (service, turns) = holding(kind).await;
        let bench = Bench::of_sku(service, options(), sku.clone());
        let (_local, near) = duplex(64);
        // The future is dropped at its end, with the answer still held.
        until_asked(&bench.service, kind, bench.carry(1, near)).await;
        turns.add_permits(10);
        if minted > 0 {
            bench.released().await;
        }
        bench.judge(minted).await;

        let (service, turns) = holding(kind).await;
        let bench = Bench::of_sku(service, options(), sku);
        if kind != Kind::Upgrade {
            until_asked(&bench.service, kind, bench.relay.prepare(PATIENCE)).await;
            turns.add_permits(10);
            bench.judge(minted).await;
        }
    }
}

#[tokio::test]
async fn of_a_connection_that_is_dropped_while_it_lives() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    let (mut local, near) = duplex(64);
    let echoed = async {
        local.write_all(b"hello").await.unwrap();
        local.read_exact(&mut [0; 5]).await.unwrap();
    };
    tokio::select! {
        account = bench.carry(1, near) => panic!("{account:?}"),
        () = echoed => {}
    }
    assert_eq!(bench.released().await, 1);
    bench.judge(1).await;
}

/// A local side with a bug.
struct Faulty;

impl AsyncRead for Faulty {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        panic!("a bug in a local side");
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Local for Faulty {}

#[tokio::test]
async fn of_a_connection_that_panics() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    let relay = bench.relay.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let stop = relay.stop_token();
        relay.carry(1, "a test".into(), Faulty, &|_| {}, &stop).await
    });
    assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());
    assert_eq!(bench.released().await, 1);
    assert_eq!(ended(&bench.hello(2).await), &End::LocalClosed, "the others go on");
    bench.judge(2).await;
}

#[tokio::test]
async fn of_a_connection_that_comes_too_late() {
    let (service, turns) = holding(Kind::Mint).await;
    let bench = Bench::new(service, Options { connect_timeout: Duration::from_millis(20), ..options() });
    let account = bench.fails(1).await;
    assert!(matches!(account.outcome, Err(Error::TimedOut { .. })), "{account:?}");
    assert!(matches!(bench.relay.prepare(PATIENCE).await, Err(Error::TimedOut { .. })));
    turns.add_permits(10);
    assert_eq!(bench.relay.close(PATIENCE).await, 0);
    bench.service.assert_released(bench.service.count(Kind::Mint));
}

#[tokio::test]
async fn of_connections_that_are_stopped() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    let (mut one, near_one) = duplex(64);
    let (mut two, near_two) = duplex(64);
    let programs = async {
        for local in [&mut one, &mut two] {
            local.write_all(b"hello").await.unwrap();
            local.read_exact(&mut [0; 5]).await.unwrap();
        }
        bench.relay.stop();
        for local in [&mut one, &mut two] {
            assert_eq!(local.read(&mut [0]).await.unwrap(), 0);
            local.shutdown().await.unwrap();
        }
    };
    let (first, second, ()) = tokio::join!(bench.carry(1, near_one), bench.carry(2, near_two), programs);
    assert_eq!((ended(&first), ended(&second)), (&End::Stopped, &End::Stopped));
    bench.judge(2).await;
    assert_eq!(ended(&bench.carry(3, duplex(64).1).await), &End::Stopped);
    assert!(matches!(bench.relay.prepare(PATIENCE).await, Err(Error::Stopped)));
    assert_eq!(bench.service.count(Kind::Mint), 2, "nothing is minted after a stop");
}

#[tokio::test]
async fn close_waits_for_connections_that_are_ending() {
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    let (mut local, near) = duplex(64);
    let program = async {
        local.write_all(b"hello").await.unwrap();
        local.read_exact(&mut [0; 5]).await.unwrap();
        // Nobody joins the connection first.
        assert_eq!(bench.relay.close(PATIENCE).await, 0);
        bench.service.assert_released(1);
        drop(local);
    };
    tokio::join!(bench.carry(1, near), program);
}

#[tokio::test]
async fn of_a_prepared_lease() {
    // Nobody uses it.
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    bench.relay.prepare(PATIENCE).await.unwrap();
    assert_eq!(bench.service.count(Kind::Release), 0);
    bench.judge(1).await;

    // Nobody uses it in time; then there is none, and another is minted, which is enough for who asks again.
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    bench.relay.prepare(Duration::ZERO).await.unwrap();
    assert_eq!(bench.released().await, 0);
    bench.relay.prepare(PATIENCE).await.unwrap();
    bench.relay.prepare(PATIENCE).await.unwrap();
    bench.judge(2).await;

    // The first connection uses it.
    let bench = Bench::new(Service::new(|_| Reply::Usual).await, options());
    bench.relay.prepare(PATIENCE).await.unwrap();
    bench.hello(1).await;
    assert_eq!((bench.service.count(Kind::Mint), bench.released().await), (1, 1));
    bench.hello(2).await;
    bench.judge(2).await;

    // It fails as the first connection would.
    let service = Service::new(|ask| match (ask.kind, ask.number) {
        (Kind::Mint, 1) => http("503 Busy", ""),
        (Kind::Mint, _) => http("403 Forbidden", ""),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    assert!(matches!(bench.relay.prepare(PATIENCE).await, Err(Error::Mint { status: 403, .. })));
    assert_eq!(bench.service.count(Kind::Mint), 2);
}

#[tokio::test]
async fn a_stop_ends_what_is_being_prepared() {
    let (service, turns) = holding(Kind::Mint).await;
    let bench = Bench::new(service, options());
    let stopper = async {
        let service = Arc::clone(&bench.service);
        until_asked(&service, Kind::Mint, std::future::pending::<()>()).await;
        bench.relay.stop();
    };
    let (prepared, ()) = tokio::join!(bench.relay.prepare(PATIENCE), stopper);
    assert!(matches!(prepared, Err(Error::Stopped)));
    turns.add_permits(1);
    bench.judge(1).await;
}

#[tokio::test]
async fn what_the_service_says_to_a_release() {
    for status in ["200 OK", "204 No Content", "404 Not Found"] {
        let service = Service::new(move |ask| match ask.kind {
            Kind::Release => http(status, ""),
            _ => Reply::Usual,
        });
        let bench = Bench::new(service.await, options());
        bench.hello(1).await;
        assert_eq!(bench.released().await, 1);
        bench.judge(1).await;
    }
    // Once it fails, then it works.
    let service = Service::new(|ask| match (ask.kind, ask.number) {
        (Kind::Release, 1) => http("503 Busy", ""),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    bench.hello(1).await;
    assert_eq!(bench.released().await, 1);
    assert_eq!(bench.relay.close(PATIENCE).await, 0);
    assert_eq!(bench.service.count(Kind::Release), 2);

    // It never works.
    let service = Service::new(|ask| match ask.kind {
        Kind::Release => http("500 Oops", "secret"),
        _ => Reply::Usual,
    });
    let bench = Bench::new(service.await, options());
    bench.hello(9).await;
    let leaked = bench.event(|event| match event {
        Event::Leaked { id, reason } => Some((id, reason)),
        _ => None,
    });
    assert_eq!(leaked.await, (9, "status 500".into()));
    assert_eq!((bench.relay.close(PATIENCE).await, bench.service.count(Kind::Release)), (1, 3));
}

#[tokio::test]
async fn close_counts_what_is_still_under_way() {
    let (service, turns) = holding(Kind::Release).await;
    let bench = Bench::new(service, options());
    bench.hello(1).await;
    bench.hello(2).await;
    assert_eq!(bench.relay.close(Duration::ZERO).await, 2);
    turns.add_permits(2);
    bench.judge(2).await;
}

#[tokio::test]
async fn of_a_hundred_connections_at_once() {
    let bench = Arc::new(Bench::new(Service::new(|_| Reply::Usual).await, options()));
    let mut tasks = JoinSet::new();
    for id in 1..=100 {
        let bench = Arc::clone(&bench);
        tasks.spawn(async move { bench.hello(id).await });
    }
    for account in tasks.join_all().await {
        assert_eq!(ended(&account), &End::LocalClosed);
    }
    bench.judge(100).await;
}
