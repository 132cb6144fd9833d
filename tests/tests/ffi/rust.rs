//! The examples of the package `bastide`, which is the library for those who write in Rust. It leaves out its own tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use bastide_tests::built;

use crate::kit::Kit;

/// An example, where cargo puts it.
fn example(name: &str) -> PathBuf {
    built(&format!("examples/{name}"))
}

#[test]
fn a_stream_shows_the_banner_of_an_ssh_server() {
    let kit = Kit::new();
    let outcome = kit.lab.program(example("stream")).arg("web-01").run().expect_code(0);
    assert!(outcome.text().starts_with("SSH-2.0-"), "{outcome}");
}

#[test]
fn a_tunnel_for_one_connection() {
    let kit = Kit::new();
    let mut running = kit.lab.program(example("tunnel")).args(["web-01", "7"]).start();
    let (_, stdout) = running.pipes();
    let mut lines = BufReader::new(stdout).lines();
    let mut stream = TcpStream::connect(lines.next().unwrap().unwrap()).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    drop(stream);
    let names: Vec<String> = lines
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap()["event"].to_string())
        .collect();
    assert_eq!(names.first().map(String::as_str), Some("\"opened\""), "{names:?}");
    running.finish().expect_code(0);
}

#[test]
fn a_sign_in_of_its_own() {
    let kit = Kit::new();
    let vm = kit.lab.vm("web-01");
    let program = kit.lab.program(example("own_sign_in")).env("TOKEN", kit.token());
    let outcome = program.arg(&vm).run().expect_code(0);
    assert!(outcome.text().ends_with("/bastionHosts/bastion\n"), "{outcome}");
}
