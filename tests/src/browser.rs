//! A real browser without a window: Chromium, driven over WebDriver (W3C WebDriver, section 5). It leaves out which
//! pages it is sent to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ChildStdout;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Program, Running};

/// A browser with one page, and nothing kept from other runs. Closed when dropped.
pub struct Browser {
    port: u16,
    session: String,
    // In the order in which they go; the pipe stays open for what the driver may still say.
    _driver: Running,
    _stdout: BufReader<ChildStdout>,
    _home: TempDir,
}

/// What Chromium is started with. It has no way out of this machine: no name but `localhost` is resolved, and it
/// fetches nothing by itself.
const ARGUMENTS: [&str; 11] = [
    "--headless=new",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    // Its sandbox does not work for root, and its shared memory not in small containers.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
];

/// The name of a reference to an element (W3C WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How long the driver looks for an element: less than we wait for the driver.
const LOOKED_FOR: Duration = Duration::from_secs(60);

/// Turns a driver that hangs into a failure.
const PATIENCE: Duration = Duration::from_secs(120);

impl Browser {
    /// Starts one that takes the certificate of any server.
    pub fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let driver = Program::new("chromedriver").arg("--port=0");
        let mut driver = driver.env("HOME", home.path()).env("TMPDIR", home.path()).start();
        let (_, stdout) = driver.pipes();
        let mut stdout = BufReader::new(stdout);
        let port = loop {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "chromedriver did not start");
            let told = line.trim_end().trim_end_matches('.').split_once("started successfully on port ");
            if let Some((_, port)) = told {
                break port.parse().unwrap();
            }
        };
        let capabilities =
            json!({"acceptInsecureCerts": true, "goog:chromeOptions": {"args": ARGUMENTS.to_vec()}});
        let new = json!({"capabilities": {"alwaysMatch": capabilities}});
        let value = command(port, "POST", "/session", &new);
        let session = format!("/session/{}", word(&value, "sessionId"));
        // How long the driver itself looks for an element.
        command(port, "POST", &format!("{session}/timeouts"), &json!({"implicit": LOOKED_FOR.as_millis()}));
        Self { port, session, _driver: driver, _stdout: stdout, _home: home }
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({"url": url}));
    }

    /// The title of the page.
    pub fn title(&self) -> String {
        text(&self.ask("GET", "/title", &Value::Null))
    }

    /// Waits until an element with these words is on the page: `h1`, or `*[@role='alert']` for what XPath finds. A click
    /// or the Enter key may return before the page that it leads to has come.
    pub fn shows(&self, element: &str, words: &str) {
        let path = format!("//{element}[contains(normalize-space(.), \"{words}\")]");
        self.ask("POST", "/element", &json!({"using": "xpath", "value": path}));
    }

    /// Clicks on an element; waits for the page that it leads to.
    pub fn click(&self, selector: &str) {
        let element = self.find(selector);
        self.ask("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Types where the keyboard's focus is; a line feed is the Enter key.
    pub fn type_in(&self, keys: &str) {
        let active = self.ask("GET", "/element/active", &Value::Null);
        let element = word(&active, ELEMENT);
        self.ask("POST", &format!("/element/{element}/value"), &json!({"text": keys}));
    }

    fn find(&self, selector: &str) -> String {
        let found = self.ask("POST", "/element", &json!({"using": "css selector", "value": selector}));
        word(&found, ELEMENT)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        command(self.port, method, &format!("{}{path}", self.session), body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Otherwise Chromium would outlive its driver.
        if !std::thread::panicking() {
            self.ask("DELETE", "", &Value::Null);
        } else if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
            let line = format!("DELETE {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.session);
            drop((&stream).write_all(line.as_bytes()));
            drop(stream.set_read_timeout(Some(PATIENCE)));
            drop((&stream).read(&mut [0; 64]));
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn word(value: &Value, name: &str) -> String {
    text(value.get(name).unwrap())
}

/// One command of the driver's; the `value` of its answer.
fn command(port: u16, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (&stream).write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut reader = BufReader::new(&stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "chromedriver went away");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer).unwrap();
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    let value = answer.get_mut("value").map(Value::take).unwrap();
    assert!(value.get("error").is_none(), "{method} {path}: {value}");
    value
}
