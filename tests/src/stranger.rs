//! Another user of this machine, without rights and without a home: what is refused to strangers can only be tested
//! with one. It leaves out what is refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::{Lab, Program};

/// `nobody` of Debian (base-passwd), and of nearly every other system.
const UID: &str = "65534";

/// A folder of programs and files that everybody can read, and a user who has nothing else. It needs root, who alone
/// can become somebody else.
pub struct Stranger {
    folder: TempDir,
}

impl Stranger {
    /// A stranger; none when the test does not run as root.
    pub fn new() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("stranger-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        Some(Self { folder })
    }

    /// Makes a copy of a file with this mode; it belongs to root.
    pub fn copy(&self, file: &Path, mode: u32) -> PathBuf {
        let copy = self.folder.path().join(file.file_name().unwrap());
        std::fs::copy(file, &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode)).unwrap();
        copy
    }

    /// A program that the stranger runs.
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Program {
        Program::new("setpriv")
            .words(&format!("--reuid={UID} --regid={UID} --clear-groups --"))
            .arg(program)
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .folder(self.folder.path())
    }

    /// `bastide` with the environment of `lab`'s emulator and these words, run by the stranger.
    pub fn bastide(&self, lab: &Lab, line: &str) -> Program {
        let program = self.copy(&crate::binary("bastide"), 0o755);
        let certificate = self.copy(&lab.emulator().ca_file(), 0o644);
        let mut program = self.program(program);
        for (name, value) in lab.emulator().env() {
            program = program.env(name, value);
        }
        program
            .env("SSL_CERT_FILE", &certificate)
            .env("REQUESTS_CA_BUNDLE", &certificate)
            .env("BASTIDE_IMDS_ENDPOINT", "https://localhost:9")
            .words(&lab.words(line))
    }

    /// Sends `hello` and a line's end to a TCP port of 127.0.0.1, as the stranger, and reads a line back.
    pub fn greet(&self, port: u16) -> Program {
        self.program("bash").arg("-c").arg(format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && echo hello >&3 && read -r answer <&3 && echo \"$answer\""
        ))
    }
}
