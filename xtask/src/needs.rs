//! The programs that the demo and the tests work with, and how to get them.
//!
//! A test that misses its program would have to be skipped, and a skipped test says nothing: so
//! whatever is missing is installed (as root) or named in a command to copy, and the task stops.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::cargo;

/// A program, by name or by absolute path, or a command that has to succeed, and the Debian package that brings it.
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
}

/// A program that the package brings.
pub(crate) const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// What `cargo xtask demo` runs.
pub(crate) const DEMO: &[Need] = &[need("ssh", "openssh-client"), need("scp", "openssh-client")];

/// What the tests run.
pub(crate) const TESTS: &[Need] = &[
    need("ssh", "openssh-client"),
    need("scp", "openssh-client"),
    need("sftp", "openssh-client"),
    need("ssh-keygen", "openssh-client"),
    need("sshd", "openssh-server"),
    need("/usr/lib/openssh/sftp-server", "openssh-sftp-server"),
    need("ssh-agent", "openssh-client"),
    need("rsync", "rsync"),
    need("tmux", "tmux"),
    need("git", "git"),
    need("tinyproxy", "tinyproxy"),
    need("curl", "curl"),
    need("setpriv", "util-linux"),
    need("chromedriver", "chromium-driver"),
    need("chromium", "chromium"),
    need("strace", "strace"),
    need("dbus-run-session", "dbus-daemon"),
    need("gnome-keyring-daemon", "gnome-keyring"),
    need("secret-tool", "libsecret-tools"),
    // Compiles libFuzzer, and plugins in C and C++; the example signs with OpenSSL's libcrypto.
    need("c++", "g++"),
    need("cc", "gcc"),
    need("/usr/include/openssl/evp.h", "libssl-dev"),
    need("valgrind", "valgrind"),
    // Finds the library for C, as programs that use it do.
    need("pkg-config", "pkg-config"),
    need("go", "golang-go"),
    // A desktop and its RDP server, an RDP client, and a screen to see the one on the other.
    need("/usr/sbin/xrdp", "xrdp"),
    need("Xvnc", "tigervnc-standalone-server"),
    need("xterm", "xterm"),
    need("xlogo", "x11-apps"),
    need("xfreerdp", "freerdp2-x11"),
    need("Xvfb", "xvfb"),
    need("import", "imagemagick"),
    need("openssl", "openssl"),
    need("python3 -m ensurepip --version", "python3-venv"),
    need("psql", "postgresql-client"),
    need("/usr/lib/postgresql", "postgresql"),
    // Packages.
    need("dpkg-shlibdeps", "dpkg-dev"),
    need("zstd", "zstd"),
];

/// What `cargo xtask dist` runs.
pub(crate) const DIST: &[Need] = &[
    need("cc", "gcc"),
    need("strip", "binutils"),
    need("dpkg-shlibdeps", "dpkg-dev"),
    need("git", "git"),
    need("zstd", "zstd"),
];

/// What `cargo xtask dist --verify` runs besides.
pub(crate) const VERIFY: &[Need] =
    &[need("debootstrap", "debootstrap"), need("unshare", "util-linux"), need("chroot", "coreutils")];

/// Fails with the command to type when a program is missing.
pub(crate) fn require(needs: &[Need]) -> Result<()> {
    let packages = missing(needs, is_there);
    if packages.is_empty() {
        return Ok(());
    }
    bail!("programs are missing; install them with\n\n    sudo {}\n", install_line(&packages));
}

/// Installs what is missing when this is root on Debian, otherwise as [`require`].
pub(crate) fn provide(root: &Path, needs: &[Need]) -> Result<()> {
    let packages = missing(needs, is_there);
    if packages.is_empty() {
        return Ok(());
    }
    if !is_root() || !is_there("apt-get") {
        return require(needs);
    }
    eprintln!("missing: {}; installing", packages.join(", "));
    for arguments in
        [&["update"][..], &[&["install", "-y", "--no-install-recommends"], &packages[..]].concat()]
    {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").current_dir(root);
        cargo::run(command)?;
    }
    require(needs)
}

/// rustfmt and clippy are components of their own in rustup's minimal profile and in Debian.
pub(crate) fn require_components(root: &Path) -> Result<()> {
    for component in ["fmt", "clippy"] {
        let found =
            cargo::command(root, &[component, "--version"]).output().is_ok_and(|o| o.status.success());
        if !found {
            bail!(
                "`cargo {component}` is missing; install it with `rustup component add rustfmt clippy`, \
                 or, for Debian's own Rust, `sudo apt-get install rustfmt rust-clippy`"
            );
        }
    }
    Ok(())
}

/// The packages of the programs that `is_there` does not find, each once, in the table's order.
fn missing(needs: &[Need], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for need in needs {
        if !is_there(need.program) && !packages.contains(&need.package) {
            packages.push(need.package);
        }
    }
    packages
}

fn install_line(packages: &[&str]) -> String {
    format!("apt-get install -y --no-install-recommends {}", packages.join(" "))
}

fn is_there(program: &str) -> bool {
    if let Some((program, arguments)) = program.split_once(' ') {
        let mut command = Command::new(program);
        return command.args(arguments.split(' ')).output().is_ok_and(|output| output.status.success());
    }
    if Path::new(program).is_absolute() {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // `sshd` lives where only root's PATH leads.
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .any(|folder| folder.join(format!("{program}{}", std::env::consts::EXE_SUFFIX)).is_file())
}

/// Whether this is root, who may do anything.
#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// There is none here.
#[cfg(not(unix))]
pub(crate) fn is_root() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_missing_package_once() {
        let needs =
            [need("ssh", "client"), need("scp", "client"), need("sftp", "client"), need("git", "git")];
        assert_eq!(missing(&needs, |program| program == "scp"), ["client", "git"]);
        assert!(missing(TESTS, |_| true).is_empty());
        assert_eq!(
            install_line(&["rsync", "tinyproxy"]),
            "apt-get install -y --no-install-recommends rsync tinyproxy"
        );
    }

    #[test]
    fn looks_for_programs_on_the_path() {
        assert!(is_there("cargo"));
        assert!(!is_there("no-such-program-anywhere"));
        assert!(!is_there("/no/such/program"));
        assert!(
            is_there("cargo --version") && !is_there("cargo no-such-task") && !is_there("no-such-program x")
        );
    }
}
