//! The examples for authors in C and C++, as they stand in `crates/ffi/examples`. It leaves out what they leave out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::kit::Kit;

#[test]
fn a_descriptor_shows_the_banner_of_an_ssh_server() {
    let kit = Kit::new();
    let outcome = kit.run("connect.c", 22);
    assert!(outcome.text().starts_with("SSH-2.0-"), "{outcome}");
}

#[test]
fn the_library_can_be_inside_of_the_program() {
    let kit = Kit::new();
    let program = kit.compile_static("connect.c");
    let outcome = kit.for_port(&program, 22).run().expect_code(0);
    assert!(outcome.text().starts_with("SSH-2.0-"), "{outcome}");
}

#[test]
fn a_port_where_nobody_listens_is_said_with_its_hint() {
    let kit = Kit::new();
    let outcome = kit.for_port(&kit.compile("connect.c", &[]), 81).run().expect_code(22);
    outcome
        .expect_stderr("error: port 81 of 'web-01' was closed before anything came back")
        .expect_stderr("hint: ");
}

#[test]
fn a_tunnel_carries_and_counts() {
    let kit = Kit::new();
    let mut running = kit.for_port(&kit.compile("tunnel.c", &[]), 7).start();
    let (stdin, stdout) = running.pipes();
    let mut lines = BufReader::new(stdout).lines();
    let address = lines.next().unwrap().unwrap();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    drop(stream);
    // What a connection has carried is known for certain when it is over.
    kit.lab.wait_for_releases();
    drop(stdin);
    assert_eq!(lines.next().unwrap().unwrap(), "1 connections, 5 bytes sent, 5 received");
    running.finish().expect_code(0);
}

#[test]
fn a_tunnel_may_be_a_unix_socket() {
    let kit = Kit::new();
    let program = kit.compile("tunnel.c", &[]);
    let socket = kit.lab.home().join("db.sock");
    let mut running = kit.for_port(&program, 7).arg(format!("forward={}:7", socket.display())).start();
    let (stdin, stdout) = running.pipes();
    let mut lines = BufReader::new(stdout).lines();
    let address = lines.next().unwrap().unwrap();
    assert_eq!(address, socket.to_str().unwrap());
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    drop((stream, stdin));
    assert!(lines.next().unwrap().unwrap().starts_with("1 connections"));
    running.finish().expect_code(0);
    assert!(!socket.exists());
}

#[test]
fn a_function_of_the_program_signs_in() {
    let kit = Kit::new();
    let program = kit.compile("credential.c", &[]);
    let token = kit.token();
    let outcome = kit.for_port(&program, 7).env("TOKEN", token).run().expect_code(0);
    assert_eq!(outcome.text(), "connected\nthe token is forgotten\n");
    assert!(outcome.stderr.lines().all(|line| line.starts_with("log ")), "{outcome}");
    let outcome = kit.for_port(&program, 7).run().expect_code(10);
    outcome.expect_stderr("callback was refused: TOKEN is not set");
}

#[test]
fn events_are_pulled() {
    let kit = Kit::new();
    let events = |port: u16| -> Vec<serde_json::Value> {
        let outcome = kit.run("events.c", port);
        outcome.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let names = |events: &[serde_json::Value]| -> Vec<String> {
        events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    };
    let events_of_22 = events(22);
    let mut seen = names(&events_of_22);
    seen.sort();
    assert_eq!(seen, ["closed", "opened", "released"]);
    assert!(events_of_22.iter().all(|event| event["id"] == 1), "{events_of_22:?}");
    let events_of_81 = events(81);
    let error = events_of_81.iter().find(|event| event["event"] == "error").unwrap();
    assert_eq!(error["code"], 22);
    assert!(error["hint"].as_str().unwrap().contains("port 81"));
}

#[test]
fn a_report_names_the_broken_link() {
    let kit = Kit::new();
    let program = kit.compile("doctor.c", &[]);
    let report = |port: u16, code: i32| -> serde_json::Value {
        let outcome = kit.for_port(&program, port).run().expect_code(code);
        serde_json::from_str(&outcome.text()).unwrap()
    };
    let well = report(22, 0);
    assert!(well["broken"].is_null() && well["findings"].as_array().unwrap().len() > 10, "{well}");
    let ill = report(81, 22);
    assert_eq!(ill["broken"], "first-byte", "{ill}");
}

#[test]
fn a_program_in_c_plus_plus() {
    let kit = Kit::new();
    assert_eq!(kit.run("echo.cpp", 7).text(), "hello\n");
    let program = kit.compile("echo.cpp", &[]);
    let outcome = kit.lab.program(&program).arg("nmae=bastion").run().expect_code(2);
    outcome.expect_stderr("error: there is no option 'nmae'");
}
