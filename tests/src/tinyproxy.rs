//! A real HTTP proxy, Debian's tinyproxy, and its log, which says what went through it. It leaves out who is sent
//! through it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// A running tinyproxy that asks for a user name and a password. Killed when dropped.
pub struct Tinyproxy {
    port: u16,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Tinyproxy {
    /// Its user.
    pub const USER: &str = "me";
    /// Its password.
    pub const PASSWORD: &str = "pr0xy-s3cret";

    /// Starts one that listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("tinyproxy-").tempdir_in("/tmp").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = folder.path().join("tinyproxy.conf");
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nLogLevel Info\nBasicAuth {} {}\nDisableViaHeader Yes\n",
            Self::USER,
            Self::PASSWORD
        );
        std::fs::write(&settings, text).unwrap();
        let mut process = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("tinyproxy is needed: apt-get install tinyproxy");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("Accepting connections")), "tinyproxy ended");
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines {
                written.lock().unwrap().push(line);
            }
        });
        Self { port, process, log, reader: Some(reader), _folder: folder }
    }

    /// Its address with user and password.
    pub fn url(&self) -> String {
        self.url_for(&format!("{}:{}@", Self::USER, Self::PASSWORD))
    }

    /// Its address with `user:password@`, or nothing, of the caller's choice.
    pub fn url_for(&self, credentials: &str) -> String {
        format!("http://{credentials}127.0.0.1:{}", self.port)
    }

    /// Ends it, and tells how many connections to an origin it has made.
    pub fn finish(mut self) -> usize {
        self.end();
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains("Established connection to host")).count()
    }

    /// Ends it, and tells whether it was asked for a connection to this host.
    pub fn was_asked_for(mut self, host: &str) -> bool {
        self.end();
        let asked = format!("CONNECT {host}:");
        let log = self.log.lock().unwrap();
        log.iter().any(|line| line.contains(&asked))
    }

    fn end(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        self.end();
    }
}
