//! A real PostgreSQL server behind the emulator, with one user and a password. It leaves out what is asked of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::free_port;

/// A running server. Ended when dropped.
pub struct Postgres {
    port: u16,
    process: Child,
    reader: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// `nobody`, as whom it runs where the test runs as root, whom PostgreSQL refuses.
const NOBODY: u32 = 65534;

impl Postgres {
    /// Its user, who owns everything.
    pub const USER: &str = "shop";
    /// The user's password.
    pub const PASSWORD: &str = "p0stgres-s3cret";

    /// Makes a cluster and starts it on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("postgres-").tempdir_in("/tmp").unwrap();
        let (data, password) = (folder.path().join("data"), folder.path().join("password"));
        std::fs::write(&password, format!("{}\n", Self::PASSWORD)).unwrap();
        if geteuid().is_root() {
            for path in [folder.path(), &password] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let mut initdb = program("initdb", folder.path());
        initdb.arg("-D").arg(&data).args([
            "-U",
            Self::USER,
            "-A",
            "scram-sha-256",
            "--no-locale",
            "-E",
            "UTF8",
        ]);
        initdb.arg("--no-sync").arg("--pwfile").arg(&password).stdout(Stdio::null());
        assert!(initdb.status().unwrap().success());
        let port = free_port();
        let mut postgres = program("postgres", folder.path());
        postgres.arg("-D").arg(&data).args([
            "-p",
            &port.to_string(),
            "-F",
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        postgres.arg("-c").arg(format!("unix_socket_directories={}", folder.path().display()));
        let mut process = postgres.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("ready to accept connections")), "PostgreSQL ended");
        // What it says later is nobody's business, but somebody has to read it.
        let reader = std::thread::spawn(move || lines.for_each(drop));
        Self { port, process, reader: Some(reader), _folder: folder }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A program of the server's package, which puts it beside the path.
fn program(name: &str, folder: &Path) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found: Option<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).find(|path| path.is_file());
    let path = found.unwrap_or_else(|| panic!("{name} is needed: apt-get install postgresql"));
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
            .arg("--clear-groups")
            .arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir(folder).stdin(Stdio::null());
    command
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: at once, and with its children (postgres(1)).
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::QUIT);
        }
        drop(self.process.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}
