//! The table of `bastide up` on a terminal: it shows what happens, follows the window, stays below warnings, and is gone in
//! the end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ChildStdout;

use bastide_tests::{Lab, free_port};

use crate::terminal::Terminal;

/// What the terminal is told, as it comes.
struct Copy {
    pipe: ChildStdout,
    /// What was read and not yet looked through.
    text: String,
}

impl Copy {
    /// Waits until it is told this, and drops what came before.
    fn until(&mut self, words: &str) {
        let mut bytes = [0; 4096];
        loop {
            if let Some((_, rest)) = self.text.split_once(words) {
                self.text = rest.to_owned();
                return;
            }
            let length = self.pipe.read(&mut bytes).unwrap();
            assert!(length > 0, "the terminal closed before it was told '{words}': {}", self.text);
            self.text += &String::from_utf8_lossy(&bytes[..length]);
        }
    }
}

#[test]
fn the_table_lives_and_ctrl_c_ends_it() {
    let lab = Lab::new();
    let (good, lost) = (free_port(), free_port());
    lab.file(
        "bastide.toml",
        format!(
            "[defaults]\nname = 'bastion'\nresource-group = 'demo'\nresource-port = 7\n\
             [tunnels.good]\ntarget = 'web-01'\nport = {good}\n[tunnels.lost]\ntarget = 'web-99'\nport = {lost}\n"
        ),
    );
    let pipe = lab.home().join("copy");
    lab.program("mkfifo").arg(&pipe).run().expect_code(0);
    let terminal = Terminal::open(&lab, "sh");
    terminal.resize("120", "20");
    terminal.copy_to(&pipe);
    let mut reader = lab.program("cat").arg(&pipe).start();
    let mut copy = Copy { pipe: reader.pipes().1, text: String::new() };
    terminal.types(&["bastide up; echo \"status $?.\"", "Enter"]);

    copy.until("lost");
    copy.until("listening");
    let screen = terminal.screen();
    assert!(screen.contains("TUNNEL"), "{screen}");
    let mut stream = TcpStream::connect(("127.0.0.1", good)).unwrap();
    stream.write_all(b"hello\n").unwrap();
    stream.read_exact(&mut [0; 6]).unwrap();
    copy.until("ready      1     6 B");

    // A failure stands above the table, and in it.
    let mut refused = TcpStream::connect(("127.0.0.1", lost)).unwrap();
    assert_eq!(refused.read(&mut [0; 1]).unwrap_or(0), 0);
    copy.until("error:");
    copy.until("failed");
    let screen = terminal.screen();
    let place = |words: &str| screen.find(words).unwrap_or_else(|| panic!("no '{words}': {screen}"));
    assert!(place("lost: no VM is called 'web-99'") < place("TUNNEL"), "{screen}");
    assert_eq!(screen.matches("TUNNEL").count(), 1, "{screen}");

    terminal.resize("70", "20");
    copy.until("…");

    terminal.types(&["C-c"]);
    copy.until("status 130.");
    let screen = terminal.screen();
    assert!(!screen.contains("TUNNEL"), "{screen}");
}
