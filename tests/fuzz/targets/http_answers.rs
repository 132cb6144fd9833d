//! HTTP answers: to a request, to an upgrade, and a proxy's to `CONNECT`. The same however they are cut, and never a
//! wait: they come over loopback and end with a FIN.

use std::net::SocketAddr;

use bastide_net::{Network, Options, Origin, ProxyRules, Upgrade};
use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// Which question, where to cut (two bytes), and the answer.
pub(crate) fn http(input: &[u8]) {
    let [question, high, low, answer @ ..] = input else { return };
    let question = [Question::Request, Question::Upgrade, Question::Connect][usize::from(*question) % 3];
    let cut = usize::from(u16::from_be_bytes([*high, *low])) % (answer.len() + 1);
    let whole = BENCH.with(|bench| bench.ask(question, &[answer]));
    let (first, second) = answer.split_at(cut);
    let parts = BENCH.with(|bench| bench.ask(question, &[first, second]));
    // Bytes behind a proxy's answer are an error when they come with it, and the tunnel's own when they come later.
    if !matches!(question, Question::Connect) {
        assert_eq!(whole, parts, "cut at {cut}");
    }
}

#[derive(Clone, Copy)]
enum Question {
    Request,
    Upgrade,
    Connect,
}

thread_local! {
    static BENCH: Bench = Bench::new();
}

struct Bench {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    direct: Network,
    proxied: Network,
}

impl Bench {
    fn new() -> Self {
        // Sockets are looked at after every step, so that pieces arrive as pieces.
        let runtime =
            Builder::new_current_thread().enable_all().event_interval(1).build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port of loopback");
        let address = listener.local_addr().expect("its address");
        let proxy = ProxyRules::from_url(&format!("http://{address}"), "").expect("a proxy");
        let direct = Network::new(Options::default()).expect("roots");
        let proxied = Network::new(Options { proxy, ..Options::default() }).expect("roots");
        Self { runtime, listener, address, direct, proxied }
    }

    /// What comes of a question that is answered with these bytes.
    fn ask(&self, question: Question, answer: &[&[u8]]) -> String {
        let asking = async {
            match question {
                Question::Request => self.request().await,
                Question::Upgrade => self.upgrade().await,
                Question::Connect => self.connect().await,
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                outcome = asking => outcome,
                never = self.serve(answer) => never,
            }
        })
    }

    async fn request(&self) -> String {
        // Kept-alive connections of its own.
        let network = self.direct.without_proxy();
        let request =
            Request::get(format!("http://{}/", self.address)).body(Bytes::new()).expect("a literal");
        match network.send(request).await {
            Ok(answer) => format!("{answer:?}"),
            // Which error it is may depend on what came before the FIN.
            Err(_) => "an error".into(),
        }
    }

    async fn upgrade(&self) -> String {
        let url = format!("http://{}/", self.address);
        let origin = Origin::parse(&url).expect("a literal");
        let wire = self.direct.dial(&origin).await.expect("loopback");
        let request = Request::get(url).header("upgrade", "websocket").header("connection", "upgrade");
        match self.direct.upgrade(wire, request.body(()).expect("a literal")).await {
            Ok(Upgrade::Switched { mut wire, head, early }) => {
                let mut bytes = early.to_vec();
                wire.read_to_end(&mut bytes).await.expect("a FIN");
                format!("{:?} {:?} {bytes:?}", head.status, head.headers)
            }
            Ok(Upgrade::Refused(answer)) => format!("{answer:?}"),
            // Which error it is may depend on what came before the FIN.
            Err(_) => "an error".into(),
        }
    }

    async fn connect(&self) -> String {
        // Plain, so that what follows the proxy's answer is not taken for TLS.
        let origin = Origin::parse("http://vm.invalid:1").expect("a literal");
        match self.proxied.dial(&origin).await {
            Ok(_) => "a tunnel".into(),
            Err(error) => error.to_string(),
        }
    }

    /// Answers each connection's first request with these pieces.
    async fn serve(&self, answer: &[&[u8]]) -> String {
        loop {
            let (mut stream, _) = self.listener.accept().await.expect("loopback");
            stream.set_nodelay(true).expect("loopback");
            // A client that has read enough closes early.
            drop(respond(&mut stream, answer).await);
        }
    }
}

async fn respond(stream: &mut TcpStream, answer: &[&[u8]]) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    for piece in answer {
        stream.write_all(piece).await?;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }
    stream.shutdown().await?;
    // Closing with unread bytes would reset the connection.
    let mut sink = [0; 512];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

/// Turns in which the client can take a piece.
const TURNS: usize = 4;
