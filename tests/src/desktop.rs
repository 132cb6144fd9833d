//! A desktop that can be reached by RDP, as a VM has one: Debian's xrdp in front of a desktop of TigerVNC's, with no
//! accounts. And a screen to see it on, Xvfb. It leaves out the RDP client.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Program, Running, free_port};

/// Width and height of the desktop in pixels.
const SIZE: (usize, usize) = (800, 600);

/// Its colour, which nothing else on a screen has.
const COLOUR: [u8; 3] = [0x20, 0x60, 0xa0];

/// A running desktop. Killed when dropped.
pub struct Desktop {
    port: u16,
    xrdp: Running,
    // The X server goes last, and takes what it shows with it.
    _window: Running,
    server: XServer,
    folder: TempDir,
}

impl Desktop {
    /// Starts one on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("desktop-").tempdir_in("/tmp").unwrap();
        let (port, vnc_port) = (free_port(), free_port());
        let server = XServer::start(
            "Xvnc",
            folder.path(),
            &format!(
                "-rfbport {vnc_port} -localhost -SecurityTypes None -depth 24 -geometry {}x{}",
                SIZE.0, SIZE.1
            ),
        );
        // A terminal larger than the desktop, and a picture on it.
        let [red, green, blue] = COLOUR;
        let window = server
            .program("xterm", folder.path())
            .words("-geometry 200x80+0+0 -fg white -bg")
            .arg(format!("#{red:02x}{green:02x}{blue:02x}"))
            .words("-e sh -c")
            .arg(
                r"printf '\n  a desktop of a VM, seen by RDP\n';
                xlogo -geometry 160x160+120+200 & xcalc -geometry 260x320+420+130 2>/dev/null; read -r _",
            )
            .start();
        std::fs::write(folder.path().join("xrdp.ini"), settings(folder.path(), port, vnc_port)).unwrap();
        renew_certificate(folder.path());
        let xrdp = xrdp(folder.path());
        Self { port, xrdp, _window: window, server, folder }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it anew, with another certificate.
    pub fn change_certificate(&mut self) {
        renew_certificate(self.folder.path());
        self.xrdp = xrdp_again(self.folder.path(), &mut self.xrdp);
    }

    /// The share of its own colour in it, as it is seen without RDP.
    pub fn coloured(&self) -> f64 {
        self.server.picture(self.folder.path()).share()
    }
}

/// A screen that nobody looks at. Killed when dropped.
pub struct Screen {
    server: XServer,
    folder: TempDir,
}

impl Screen {
    /// Starts one that is larger than a desktop.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("screen-").tempdir_in("/tmp").unwrap();
        let words = format!("-screen 0 {}x{}x24 -nolisten tcp", SIZE.0 + 100, SIZE.1 + 100);
        Self { server: XServer::start("Xvfb", folder.path(), &words), folder }
    }

    /// For `DISPLAY`.
    pub fn display(&self) -> &str {
        &self.server.display
    }

    /// What it shows.
    pub fn picture(&self) -> Picture {
        self.server.picture(self.folder.path())
    }
}

/// A screenshot.
pub struct Picture {
    png: PathBuf,
    pixels: Vec<u8>,
}

impl Picture {
    /// The share of a desktop's pixels that has its colour.
    pub fn share(&self) -> f64 {
        let count = self.pixels.chunks_exact(3).filter(|pixel| **pixel == COLOUR).count();
        count as f64 / (SIZE.0 * SIZE.1) as f64
    }

    /// Whether all of it is of one colour.
    pub fn is_blank(&self) -> bool {
        self.pixels.chunks_exact(3).all(|pixel| self.pixels.starts_with(pixel))
    }

    /// Keeps it as a PNG file.
    pub fn save(&self, path: &Path) {
        std::fs::copy(&self.png, path).unwrap();
    }
}

/// An X server on a display of its own.
struct XServer {
    display: String,
    running: Running,
}

impl XServer {
    fn start(name: &str, folder: &Path, words: &str) -> Self {
        // Without -noreset a server begins anew when its last client goes, and turns away who comes meanwhile.
        // Servers that look for a free display at the same time take it from each other.
        let display = format!(":{}", free_port() - NO_DISPLAYS);
        let mut running = Program::new(name)
            .env("HOME", folder)
            .arg(&display)
            .words("-noreset -displayfd 1")
            .words(words)
            .start();
        let (_, stdout) = running.pipes();
        let mut number = String::new();
        BufReader::new(stdout).read_line(&mut number).unwrap();
        assert_eq!(format!(":{}", number.trim()), display, "{name} does not serve it");
        Self { display, running }
    }

    fn program(&self, name: &str, home: &Path) -> Program {
        Program::new(name).env("DISPLAY", &self.display).env("HOME", home)
    }

    fn picture(&self, folder: &Path) -> Picture {
        let png = folder.join("picture.png");
        let shot = self.program("import", folder).words("-window root -depth 8").arg(&png).run();
        assert!(shot.status.success(), "{shot}");
        let raw = self.program("convert", folder).arg(&png).words("-depth 8 rgb:-").run();
        assert!(raw.status.success(), "{raw}");
        Picture { png, pixels: raw.stdout }
    }
}

/// Killed ones would leave their sockets.
impl Drop for XServer {
    fn drop(&mut self) {
        self.running.signal(Signal::TERM);
        self.running.wait();
    }
}

/// Displays end 6,000 before ports do; free ports are well above.
const NO_DISPLAYS: u16 = 6000;

fn xrdp(folder: &Path) -> Running {
    let mut xrdp =
        Program::new("/usr/sbin/xrdp").words("--nodaemon --config").arg(folder.join("xrdp.ini")).start();
    xrdp.stderr_line("listening to port");
    xrdp
}

/// The port has to be free first.
fn xrdp_again(folder: &Path, before: &mut Running) -> Running {
    before.signal(Signal::KILL);
    before.wait();
    xrdp(folder)
}

fn settings(folder: &Path, port: u16, vnc_port: u16) -> String {
    let folder = folder.display();
    format!(
        "[Globals]\n\
         ini_version=1\n\
         fork=false\n\
         port=tcp://127.0.0.1:{port}\n\
         security_layer=tls\n\
         certificate={folder}/certificate.pem\n\
         key_file={folder}/key.pem\n\
         ssl_protocols=TLSv1.2, TLSv1.3\n\
         autorun=desktop\n\
         allow_channels=true\n\
         max_bpp=32\n\
         use_fastpath=both\n\
         [Logging]\n\
         LogFile=/dev/stderr\n\
         LogLevel=INFO\n\
         EnableSyslog=false\n\
         [Channels]\n\
         [desktop]\n\
         name=desktop\n\
         lib=libvnc.so\n\
         ip=127.0.0.1\n\
         port={vnc_port}\n\
         username=na\n\
         password=\n"
    )
}

fn renew_certificate(folder: &Path) {
    let made = Program::new("openssl")
        .words("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=vm -keyout key.pem -out certificate.pem")
        .folder(folder)
        .run();
    assert!(made.status.success(), "{made}");
}
