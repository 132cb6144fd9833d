//! A real OpenSSH server as the VM behind the emulator, one `sshd -i` for each connection, so that no port is guessed
//! and no daemon outlives the test. It leaves out what is done over it.

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// A listening OpenSSH server for the user who runs the test.
pub struct Sshd {
    port: u16,
    folder: TempDir,
    stop: Arc<AtomicBool>,
    children: Arc<Mutex<Vec<Child>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Sshd {
    /// Starts to listen. [`Sshd::key`] signs in.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With further lines of sshd_config(5).
    pub fn start_with(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("sshd-").tempdir_in("/tmp").unwrap();
        let (host_key, client_key) = (folder.path().join("host_key"), folder.path().join("id_ed25519"));
        for key in [&host_key, &client_key] {
            make_key(key);
        }
        let show = |path: &Path| path.display().to_string();
        let lines = format!(
            "HostKey {}\nAuthorizedKeysFile {}.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             PermitRootLogin yes\nMaxStartups 100:30:200\nMaxSessions 100\nPidFile none\n\
             Subsystem sftp /usr/lib/openssh/sftp-server\n{config}\n",
            show(&host_key),
            show(&client_key),
        );
        let file = folder.path().join("sshd_config");
        std::fs::write(&file, lines).unwrap();
        if rustix::process::geteuid().is_root() {
            // Debian's sshd drops its privileges into it; the package's service makes it.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, children) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, started) = (Arc::clone(&stop), Arc::clone(&children));
        let acceptor = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let socket = OwnedFd::from(stream);
                let child = Command::new("/usr/sbin/sshd")
                    .args(["-i", "-e", "-f"])
                    .arg(&file)
                    .stdin(Stdio::from(socket.try_clone().unwrap()))
                    .stdout(Stdio::from(socket))
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("sshd is needed: apt-get install openssh-server");
                started.lock().unwrap().push(child);
            }
        });
        Self { port, folder, stop, children, acceptor: Some(acceptor) }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The private key that it accepts.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("id_ed25519")
    }

    /// Lets a further key in: a line of `authorized_keys`.
    pub fn authorize(&self, line: &str) {
        let file = self.folder.path().join("id_ed25519.pub");
        let mut keys = std::fs::OpenOptions::new().append(true).open(file).unwrap();
        writeln!(keys, "{line}").unwrap();
    }

    /// Takes certificates of an authority (`TrustedUserCAKeys`) from now on.
    pub fn trust(&self, authority: &Path) {
        let file = self.folder.path().join("sshd_config");
        let mut config = std::fs::OpenOptions::new().append(true).open(file).unwrap();
        writeln!(config, "TrustedUserCAKeys {}", authority.display()).unwrap();
    }

    /// Makes a new host key, as a VM has that was set up anew.
    pub fn change_host_key(&self) {
        let host_key = self.folder.path().join("host_key");
        std::fs::remove_file(&host_key).unwrap();
        make_key(&host_key);
    }

    /// The user it lets in: the one who runs the test.
    pub fn user(&self) -> String {
        let output = Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

fn make_key(path: &Path) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).stdin(Stdio::null());
    assert!(keygen.status().expect("ssh-keygen is needed: apt-get install openssh-client").success());
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which may be gone already.
        drop(std::net::TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        for mut child in self.children.lock().unwrap().drain(..) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
