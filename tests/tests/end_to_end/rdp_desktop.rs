//! `bastide rdp` with strangers at both ends: FreeRDP on a screen, and xrdp with a desktop behind it. It leaves out what
//! scripts can show (`rdp`).

use std::io::Write;
use std::path::Path;

use bastide_tests::{Desktop, Lab, Picture, Program, Running, Screen};
use rustix::process::Signal;

/// Screenshots until something is seen; one takes a tenth of a second at least, and a desktop some seconds.
const MOST_PICTURES: usize = 60;

/// Windows cover the rest of the desktop's colour.
const IS_SEEN: f64 = 0.6;

/// `bastide rdp` with FreeRDP, which takes the name and the password of anybody from its standard input.
fn rdp(lab: &Lab, screen: &Screen) -> Program {
    lab.bastide("rdp --name bastion --resource-group demo --target-resource-id")
        .arg(lab.vm("box"))
        .words("--username ada -- /from-stdin:force /size:800x600 -decorations")
        .env("DISPLAY", screen.display())
}

fn sign_in(running: &mut Running) {
    let (mut stdin, _) = running.pipes();
    stdin.write_all(b"anything\n").unwrap();
}

/// Waits until the screen shows the desktop; a client that cannot show it says why.
fn until_seen(screen: &Screen, client: Running) -> (Running, Picture) {
    match (0..MOST_PICTURES).map(|_| screen.picture()).find(|picture| picture.share() > IS_SEEN) {
        Some(picture) => (client, picture),
        None => {
            client.signal(Signal::TERM);
            panic!("no desktop was seen: {}", client.finish())
        }
    }
}

#[test]
fn a_desktop_is_seen_and_its_certificate_remembered() {
    let mut desktop = Desktop::start();
    let lab = Lab::with_box(&format!(r#"3389 = "127.0.0.1:{}""#, desktop.port()));
    let screen = Screen::start();
    assert!(screen.picture().is_blank());
    assert!((0..MOST_PICTURES).any(|_| desktop.coloured() > IS_SEEN), "the desktop has no colour of its own");

    for _ in 0..2 {
        let mut running = rdp(&lab, &screen).start();
        sign_in(&mut running);
        // What is not of its colour is text and a picture.
        let (running, seen) = until_seen(&screen, running);
        assert!(!seen.is_blank());
        seen.save(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("rdp-desktop.png"));
        running.signal(Signal::TERM);
        running.finish().expect_code(143);
        assert!((0..MOST_PICTURES).any(|_| screen.picture().is_blank()));
        lab.wait_for_releases();
    }

    // Somebody else answers in its place.
    desktop.change_certificate();
    let mut running = rdp(&lab, &screen).start();
    sign_in(&mut running);
    let outcome = running.finish();
    let outcome = outcome.expect_code(255).expect_stderr("has changed");
    // XF_EXIT_TLS_CONNECT_FAILED
    outcome.expect_stderr("xfreerdp ended with status 143");
    assert!(screen.picture().is_blank());
}

#[test]
fn a_vm_that_goes_away_ends_the_session() {
    let desktop = Desktop::start();
    let lab = Lab::with_box(&format!(r#"3389 = "127.0.0.1:{}""#, desktop.port()));
    let screen = Screen::start();
    let mut running = rdp(&lab, &screen).start();
    sign_in(&mut running);
    let (running, _) = until_seen(&screen, running);
    drop(desktop);
    running.finish().expect_code(255);
    lab.wait_for_releases();
}

/// Another bastide, another client: what is between them is the file.
#[test]
fn who_saves_the_file_can_use_it() {
    let desktop = Desktop::start();
    let lab = Lab::with_box(&format!(r#"3389 = "127.0.0.1:{}""#, desktop.port()));
    let screen = Screen::start();
    let mut tunnel = lab.bastide("rdp -n bastion -g demo 10.0.0.4 --save box.rdp --username ada").start();
    tunnel.stderr_line("Ctrl + C to close");
    let mut client = lab
        .program("xfreerdp")
        .words("box.rdp /cert:tofu /from-stdin:force /size:800x600 -decorations")
        .env("DISPLAY", screen.display())
        .start();
    sign_in(&mut client);
    let (client, _) = until_seen(&screen, client);
    drop(client);
    tunnel.signal(Signal::INT);
    tunnel.finish().expect_code(130);
}
