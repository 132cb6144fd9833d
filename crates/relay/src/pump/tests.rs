//! The pump between real streams, with tungstenite as the judge at the far end. Time is paused wherever a
//! deadline matters: then it moves only while nothing else does.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::*;
use crate::local::Halves;
use crate::session::{Ping, Replay, SessionOptions};
use crate::vigil::Vigil;

const OPTIONS: SessionOptions =
    SessionOptions { max_frame: 4096, first_byte: None, ping: Ping::Never, linger: Duration::from_secs(10) };

impl Line for DuplexStream {}
impl Line for TcpStream {}
impl Line for Counted<'_> {}
impl Line for Stubborn {}
impl Line for Bottomless {}

/// Nothing happens to the machine, and nobody is left who could say so.
fn no_news() -> watch::Receiver<News> {
    Vigil::new(Ping::WhenIdle).news()
}

/// A pump between `local` and `wire` until it ends; both sides are then closed as the relay does.
async fn run<L: Local, W: Line>(
    options: SessionOptions,
    mut local: L,
    mut wire: W,
    stop: &CancellationToken,
) -> (End, Session) {
    let mut session = Session::new(options, [1; 32], Replay::default(), Instant::now().into_std());
    let end = pump(&mut session, &mut local, &mut wire, stop, &mut no_news(), &|_| {}).await;
    close_wire(&mut wire).await;
    close_local(&mut local, &end).await;
    (end, session)
}

async fn judge<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    WebSocketStream::from_raw_socket(stream, Role::Server, None).await
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A VM that says what it hears, until the close frame.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Vec<u8> {
    let mut socket = judge(stream).await;
    let mut heard = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            assert!(bytes.len() <= 4096);
            heard.extend_from_slice(&bytes);
            socket.feed(Message::Binary(bytes)).await.unwrap();
        }
        socket.flush().await.ok();
    }
    heard
}

/// A local program that sends `bytes`, wants them back, and then closes.
async fn program<S: AsyncRead + AsyncWrite>(stream: S, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = split(stream);
    let mut back = vec![0; bytes.len()];
    let (sent, got) = tokio::join!(writer.write_all(bytes), reader.read_exact(&mut back));
    sent.unwrap();
    got.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "nothing but the FIN");
    back
}

fn noise(count: usize) -> Vec<u8> {
    let step = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    };
    std::iter::successors(Some(7u32), |state| Some(state.wrapping_mul(1_664_525).wrapping_add(1)))
        .scan(7, |state, _| step(state))
        .take(count)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_echo_through_small_and_large_buffers() {
    for (count, local_room, wire_room) in [
        (64 * 1024, 1, 1),
        (256 * 1024, 7, 100_000),
        (256 * 1024, 100_000, 7),
        (8 * 1024 * 1024, 4096, 4096),
        (8 * 1024 * 1024, 1 << 20, 1 << 20),
    ] {
        let bytes = noise(count);
        let (local, near) = duplex(local_room);
        let (wire, far) = duplex(wire_room);
        let stop = CancellationToken::new();
        let ((end, session), back, heard) =
            tokio::join!(run(OPTIONS, near, wire, &stop), program(local, &bytes), echo(far));
        assert_eq!(end, End::LocalClosed, "{count} {local_room} {wire_room}");
        assert!(back == bytes && heard == bytes, "{count} {local_room} {wire_room}");
        assert_eq!((session.sent(), session.received()), (count as u64, count as u64));
    }
}

#[tokio::test]
async fn an_echo_over_sockets() {
    let bytes = noise(8 * 1024 * 1024);
    let options = SessionOptions { linger: Duration::ZERO, ..OPTIONS };
    let stop = CancellationToken::new();
    let ((local, near), (wire, far)) = (tcp().await, tcp().await);
    let ((end, _), back, heard) =
        tokio::join!(run(options.clone(), near, wire, &stop), program(local, &bytes), echo(far));
    assert_eq!(end, End::LocalClosed);
    assert!(back == bytes && heard == bytes);

    let ((local, near), (wire, far)) = (tcp().await, tcp().await);
    let (reader, writer) = near.into_split();
    let near = Halves { reader, writer };
    let ((end, _), back, heard) =
        tokio::join!(run(options.clone(), near, wire, &stop), program(local, &bytes), echo(far));
    assert_eq!(end, End::LocalClosed);
    assert!(back == bytes && heard == bytes);

    #[cfg(unix)]
    {
        let (local, near) = tokio::net::UnixStream::pair().unwrap();
        let (wire, far) = tcp().await;
        let ((end, _), back, heard) =
            tokio::join!(run(options, near, wire, &stop), program(local, &bytes), echo(far));
        assert_eq!(end, End::LocalClosed);
        assert!(back == bytes && heard == bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_side_that_never_reads_stops_the_service() {
    for wire_room in [1000, 1 << 20] {
        let (local, near) = duplex(1000);
        let (wire, far) = duplex(wire_room);
        let stop = CancellationToken::new();
        // That nobody reads is no sign of a dead service, though it can't answer a ping that way.
        let options = SessionOptions { ping: Ping::WhenIdle, ..OPTIONS };
        let service = async {
            let mut socket = judge(far).await;
            let mut accepted = 0;
            let message = Message::Binary(Bytes::from(vec![1; 1000]));
            while timeout(Duration::from_secs(3600), socket.send(message.clone())).await.is_ok() {
                accepted += 1000;
            }
            stop.cancel();
            accepted
        };
        let ((end, _), accepted) = tokio::join!(run(options, near, wire, &stop), service);
        assert_eq!(end, End::Stopped);
        // What the far end's buffer, ours and the local side's hold, and the message that was cut.
        assert!(accepted <= wire_room + 256 * 1024 + 2000, "{accepted} bytes");
        drop(local);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_reads_stops_the_local_side() {
    let (mut local, near) = duplex(1000);
    let (wire, far) = duplex(1000);
    let stop = CancellationToken::new();
    let program = async {
        let mut accepted = 0;
        while timeout(Duration::from_secs(3600), local.write_all(&[1; 1000])).await.is_ok() {
            accepted += 1000;
        }
        stop.cancel();
        accepted
    };
    let ((end, session), accepted) = tokio::join!(run(OPTIONS, near, wire, &stop), program);
    assert_eq!(end, End::Stopped);
    // One batch, what the duplex holds, and the write that was cut.
    assert!(accepted <= 64 * 1024 + 3000, "{accepted} bytes");
    assert!(session.sent() <= accepted as u64 + 1000);
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn the_answer_comes_back_behind_a_fin() {
    let (mut local, near) = duplex(64);
    let (wire, far) = duplex(64);
    let stop = CancellationToken::new();
    let service = async {
        let mut socket = judge(far).await;
        let question = socket.next().await.unwrap().unwrap();
        assert_eq!(question.into_data().as_ref(), b"how many?");
        // The VM thinks for a while, and in parts.
        for part in 0..10u8 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            socket.send(Message::Binary(Bytes::from(vec![part; 1000]))).await.unwrap();
        }
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
        assert!(socket.next().await.is_none());
    };
    let program = async {
        local.write_all(b"how many?").await.unwrap();
        local.shutdown().await.unwrap();
        let mut answer = Vec::new();
        local.read_to_end(&mut answer).await.unwrap();
        answer.len()
    };
    let ((end, _), length, ()) = tokio::join!(run(OPTIONS, near, wire, &stop), program, service);
    assert_eq!((end, length), (End::LocalClosed, 10_000));
}

#[tokio::test]
async fn a_close_behind_megabytes_loses_nothing() {
    let bytes = noise(4 * 1024 * 1024);
    let ((mut local, near), (wire, far)) = (tcp().await, tcp().await);
    let stop = CancellationToken::new();
    let service = async {
        let mut socket = judge(far).await;
        for piece in bytes.chunks(100_000) {
            socket.feed(Message::Binary(Bytes::copy_from_slice(piece))).await.unwrap();
        }
        let goodbye = CloseFrame { code: CloseCode::Away, reason: "maintenance".into() };
        socket.close(Some(goodbye)).await.unwrap();
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => assert_eq!(frame.code, CloseCode::Away),
            other => panic!("{other:?}"),
        }
    };
    let program = async {
        let mut got = Vec::new();
        local.read_to_end(&mut got).await.unwrap();
        local.shutdown().await.unwrap();
        got
    };
    let ((end, _), got, ()) = tokio::join!(run(OPTIONS, near, wire, &stop), program, service);
    assert_eq!(end, End::Closed { code: 1001, reason: "maintenance".into() });
    assert!(got == bytes);
}

#[tokio::test]
async fn resets_end_the_other_side() {
    let stop = CancellationToken::new();
    let ((mut local, near), (wire, far)) = (tcp().await, tcp().await);
    let service = async {
        far.set_zero_linger().unwrap();
        drop(far);
    };
    let program = async {
        assert_eq!(local.read(&mut [0]).await.unwrap(), 0);
        local.shutdown().await.unwrap();
    };
    let ((end, _), (), ()) = tokio::join!(run(OPTIONS, near, wire, &stop), program, service);
    assert_eq!(end, End::Broken("connection reset".into()));

    let ((local, near), (wire, far)) = (tcp().await, tcp().await);
    let program = async {
        local.set_zero_linger().unwrap();
        drop(local);
    };
    let service = async { judge(far).await.next().await };
    let ((end, _), (), last) = tokio::join!(run(OPTIONS, near, wire, &stop), program, service);
    assert_eq!(end, End::LocalBroken("connection reset".into()));
    assert!(matches!(last, Some(Ok(Message::Close(_)))), "{last:?}");
}

#[tokio::test]
async fn what_arrived_before_a_failed_write_is_delivered() {
    let ((mut local, near), (wire, mut far)) = (tcp().await, tcp().await);
    let stop = CancellationToken::new();
    let service = async {
        let mut frame = vec![0x82, 0x7e, 0xff, 0xff];
        frame.extend(vec![3; 65_535]);
        far.write_all(&frame).await.unwrap();
        // Bytes that nobody reads: closing now resets the connection behind the frame.
        far.peek(&mut [0]).await.unwrap();
        drop(far);
    };
    let program = async {
        local.write_all(&[0; 1000]).await.unwrap();
        let mut got = Vec::new();
        let mut buffer = [0; 1000];
        while let Ok(count @ 1..) = local.read(&mut buffer).await {
            got.extend_from_slice(&buffer[..count]);
            // Every write of ours fails from some moment on.
            local.write_all(&[0; 1000]).await.ok();
        }
        local.shutdown().await.ok();
        got.len()
    };
    let ((end, session), got, ()) = tokio::join!(run(OPTIONS, near, wire, &stop), program, service);
    assert!(matches!(end, End::Broken(_)), "{end:?}");
    assert_eq!(session.received(), got as u64, "the kernel may drop bytes at a reset; we don't");
}

#[tokio::test(start_paused = true)]
async fn pings_over_an_hour_of_silence_and_death() {
    let options = SessionOptions { ping: Ping::WhenIdle, ..OPTIONS };
    let (local, near) = duplex(64);
    let (wire, far) = duplex(64);
    let stop = CancellationToken::new();
    let started = Instant::now();
    let service = async {
        let mut socket = judge(far).await;
        let mut pings = 0;
        while pings < 100 {
            // tungstenite answers when it is asked for the next message.
            match socket.next().await.unwrap().unwrap() {
                Message::Ping(_) => pings += 1,
                other => panic!("{other:?}"),
            }
        }
        socket.flush().await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 3000);
        // From here on it reads nothing and says nothing.
        std::future::pending::<()>().await;
    };
    let ended = async {
        let (end, _) = run(options, near, wire, &stop).await;
        (end, started.elapsed().as_secs())
    };
    tokio::select! {
        (end, seconds) = ended => {
            assert_eq!(end, End::Dead);
            // 30 s to the next ping and 20 s without an answer, then 5 s for a local side that stays.
            assert_eq!(seconds, 3055);
        }
        () = service => {}
    }
    drop(local);
}

#[tokio::test(start_paused = true)]
async fn a_silent_vm_is_given_up_in_time() {
    let options = SessionOptions { first_byte: Some(Duration::from_secs(20)), ..OPTIONS };
    let (local, near) = duplex(64);
    let (wire, far) = duplex(64);
    let started = Instant::now();
    let stop = CancellationToken::new();
    drop(local);
    let service = async { judge(far).await.next().await };
    let ((end, _), last) = tokio::join!(run(options, near, wire, &stop), service);
    // The local side has sent its FIN meanwhile, and its time comes first.
    assert_eq!((end, started.elapsed().as_secs()), (End::LocalClosed, 10));
    assert!(matches!(last, Some(Ok(Message::Close(_)))));

    let (local, near) = duplex(64);
    let (wire, far) = duplex(64);
    let options = SessionOptions { first_byte: Some(Duration::from_secs(20)), ..OPTIONS };
    let started = Instant::now();
    let mut session = Session::new(options, [1; 32], Replay::default(), Instant::now().into_std());
    let (mut near, mut wire) = (near, wire);
    let end = pump(&mut session, &mut near, &mut wire, &stop, &mut no_news(), &|_| {}).await;
    assert_eq!((end, started.elapsed().as_secs()), (End::Silent, 20));
    drop((local, far));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_it_at_once() {
    let (mut local, near) = duplex(64);
    let (wire, far) = duplex(64);
    let stop = CancellationToken::new();
    let service = async {
        let mut socket = judge(far).await;
        assert_eq!(socket.next().await.unwrap().unwrap().into_data().as_ref(), b"hello");
        stop.cancel();
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    };
    let started = Instant::now();
    let program = async {
        local.write_all(b"hello").await.unwrap();
        assert_eq!(local.read(&mut [0]).await.unwrap(), 0);
        local.shutdown().await.unwrap();
    };
    let ((end, _), (), ()) = tokio::join!(run(OPTIONS, near, wire, &stop), program, service);
    assert_eq!((end, started.elapsed().as_secs()), (End::Stopped, 0));
}

/// Counts how often it is asked for bytes.
struct Counted<'a> {
    stream: DuplexStream,
    reads: &'a AtomicUsize,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_not_polled() {
    let reads = AtomicUsize::new(0);
    let (local, near) = duplex(64);
    let (stream, far) = duplex(64);
    let wire = Counted { stream, reads: &reads };
    let stop = CancellationToken::new();
    let service = async {
        let mut socket = judge(far).await;
        // One hour with a ping and its answer every 30 s.
        let hour = async { while let Some(Ok(_)) = socket.next().await {} };
        assert!(timeout(Duration::from_secs(3600), hour).await.is_err());
        stop.cancel();
    };
    let options = SessionOptions { ping: Ping::WhenIdle, ..OPTIONS };
    let ((end, _), ()) = tokio::join!(run(options, near, wire, &stop), service);
    assert_eq!(end, End::Stopped);
    let reads = reads.load(Ordering::Relaxed);
    // 120 pings, each with a turn for the timer, one for the answer, and one to see that there is no more. The
    // other branches of this test's `join!` wake it now and then.
    assert!(reads < 120 * 12, "{reads} reads");
    drop(local);
}

/// A wire that takes what a script says, and answers nothing.
struct Stubborn(Vec<Poll<usize>>);

impl AsyncRead for Stubborn {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Stubborn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.0.pop() {
            Some(Poll::Ready(count)) => Poll::Ready(Ok(count.min(bytes.len()))),
            Some(Poll::Pending) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_wire_that_fails_to_flush_or_to_write_is_noticed() {
    for script in [
        vec![],
        vec![Poll::Ready(0)],
        vec![Poll::Ready(5)],
        vec![Poll::Ready(1 << 20), Poll::Pending, Poll::Ready(3), Poll::Pending],
    ] {
        let (mut local, near) = duplex(64);
        local.write_all(b"hello").await.unwrap();
        let started = Instant::now();
        let stop = CancellationToken::new();
        let (end, _) = tokio::join!(run(OPTIONS, near, Stubborn(script), &stop), async {
            local.read_to_end(&mut Vec::new()).await.unwrap();
            drop(local);
        })
        .0;
        assert!(matches!(end, End::Broken(_)), "{end:?}");
        assert_eq!(started.elapsed().as_secs(), 5, "the service had its time to say what it had to say");
    }
}

/// A wire that takes everything at once and is over when it has so many bytes. It wakes nobody.
struct Bottomless(usize);

impl AsyncRead for Bottomless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0 == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for Bottomless {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0 = self.0.saturating_sub(bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_bounded_and_followed_by_the_next() {
    let stop = CancellationToken::new();
    let bytes = noise(4 * 1024 * 1024);
    let near = Halves { reader: bytes.as_slice(), writer: Vec::new() };
    // A header of 8 bytes for each 4,096.
    let wire = Bottomless(bytes.len() + bytes.len() / 4096 * 8);
    let carried = run(OPTIONS, near, wire, &stop);
    let mut carried = pin!(timeout(Duration::from_secs(3600), carried));
    let mut turns = 0;
    let (end, session) = poll_fn(|context| {
        turns += 1;
        carried.as_mut().poll(context)
    })
    .await
    .expect("nobody but the pump itself wakes it");
    assert_eq!((end, session.sent()), (End::Eof, bytes.len() as u64));
    // 16 frames in each step, and a turn that finds the end.
    assert_eq!(turns, bytes.len() / (STEPS_A_TURN * 64 * 1024) + 1, "turns");
}

#[tokio::test(start_paused = true)]
async fn what_the_local_side_buffers_is_flushed() {
    let (mut local, near) = duplex(1000);
    let (wire, far) = duplex(1000);
    let stop = CancellationToken::new();
    let (reader, writer) = split(near);
    let near = Halves { reader, writer: tokio::io::BufWriter::new(writer) };
    let service = async {
        let mut socket = judge(far).await;
        socket.send(Message::Binary(Bytes::from_static(b"login: "))).await.unwrap();
        socket.next().await
    };
    let program = async {
        let mut prompt = [0; 7];
        timeout(Duration::from_secs(1), local.read_exact(&mut prompt)).await.expect("it comes").unwrap();
        stop.cancel();
        local.shutdown().await.unwrap();
        prompt
    };
    let ((end, _), prompt, _) = tokio::join!(run(OPTIONS, near, wire, &stop), program, service);
    assert_eq!((end, &prompt), (End::Stopped, b"login: "));
}

#[tokio::test(start_paused = true)]
async fn news_reach_a_connection_that_is_asleep() {
    let (local, mut near) = duplex(64);
    let (mut wire, far) = duplex(64);
    let stop = CancellationToken::new();
    let vigil = Vigil::new(Ping::WhenIdle);
    let options = SessionOptions { ping: Ping::WhenIdle, ..OPTIONS };
    let mut session = Session::new(options, [1; 32], Replay::default(), Instant::now().into_std());
    let started = Instant::now();
    let mut news = vigil.news();
    let service = async {
        let mut socket = judge(far).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        vigil.tell_of_a_sleep();
        assert!(matches!(socket.next().await, Some(Ok(Message::Ping(_)))));
        assert_eq!(started.elapsed().as_secs(), 7);
        socket.flush().await.unwrap();
        // Without another ping, the hour passes in peace.
        vigil.forbid_pings();
        assert!(timeout(Duration::from_secs(3600), socket.next()).await.is_err());
        stop.cancel();
    };
    let pumping = pump(&mut session, &mut near, &mut wire, &stop, &mut news, &|_| {});
    let (end, ()) = tokio::join!(pumping, service);
    assert_eq!(end, End::Stopped);
    drop(local);
}
