//! `cargo xtask dist --verify`: the packages of the last commit, made twice from clean clones in two folders, under two
//! users' habits, to the same bytes; then installed on a fresh Debian, used from three languages, and removed; then given
//! to the tests. It takes about an hour. It leaves out what is not committed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::build::Speed;
use super::{SUMS, sum};
use crate::environment::NO_IMDS;
use crate::packages::only;
use crate::steps::Steps;
use crate::{cargo, needs};

/// Makes, compares, installs, uses and removes.
pub(super) fn run(root: &Path, speed: Speed, steps: &mut Steps) -> Result<()> {
    ensure!(needs::is_root(), "a Debian of its own can be made by root only: sudo cargo xtask dist --verify");
    needs::provide(root, needs::VERIFY)?;
    let place = cargo::programs()?.parent().context("this program is not in a target folder")?.join("verify");
    remove(&place)?;
    std::fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;

    let one = steps.take("packages, once", || packages(root, &place.join("one"), speed, &[]))?;
    let other = steps.take("packages, in another folder", || {
        packages(root, &place.join("in/another/folder"), speed, OTHER_HABITS)
    })?;
    steps.take("both are the same", || are_same(&one, &other))?;
    remove(&place.join("in"))?;

    let debian = steps.take("a fresh Debian", || Debian::new(&place.join("debian")))?;
    let before = debian.files()?;
    steps.take("install", || debian.install(&one))?;
    steps.take("programs in C, C++ and Python", || debian.use_it(root))?;
    steps.take("remove", || {
        debian.run(&["dpkg", "--purge", "bastide"])?;
        let after = debian.files()?;
        let left: Vec<&String> = after.symmetric_difference(&before).collect();
        ensure!(left.is_empty(), "the machine is not as it was: {left:?}");
        Ok(())
    })?;
    remove(&debian.root)?;
    steps.take("tests of the packages", || {
        let clone = place.join("one");
        let mut test = cargo::command(&clone, &["xtask", "test", "--packages"]);
        cargo::run({
            test.arg(&one).env("CARGO_TARGET_DIR", clone.join("target"));
            test
        })
    })?;
    eprintln!("\nthe packages are in {}", one.display());
    Ok(())
}

/// What another user may have set: none of it must be seen.
const OTHER_HABITS: &[(&str, &str)] = &[
    ("TZ", "Pacific/Auckland"),
    ("LC_ALL", "C.UTF-8"),
    ("RUSTFLAGS", "--cfg another_habit"),
    ("CFLAGS", "-O0 -DANOTHER_HABIT"),
    ("RUST_BACKTRACE", "1"),
];

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Clones the last commit into a folder and makes its packages there; where they are.
fn packages(root: &Path, folder: &Path, speed: Speed, habits: &[(&str, &str)]) -> Result<PathBuf> {
    let mut clone = Command::new("git");
    clone.args(["clone", "--quiet"]).arg(root).arg(folder);
    cargo::run(clone)?;
    let out = folder.join("dist");
    let mut dist = cargo::command(folder, &["xtask", "dist"]);
    if speed == Speed::Quick {
        dist.arg("--quick");
    }
    dist.env("CARGO_TARGET_DIR", folder.join("target")).env_remove("SOURCE_DATE_EPOCH");
    dist.envs(habits.iter().copied());
    cargo::run(dist)?;
    Ok(out)
}

fn are_same(one: &Path, other: &Path) -> Result<()> {
    let sums = |folder: &Path| std::fs::read_to_string(folder.join(SUMS)).context("there are no sums");
    let (first, second) = (sums(one)?, sums(other)?);
    if first == second {
        eprint!("{first}");
        return Ok(());
    }
    let differ = files(one, one)?.symmetric_difference(&files(other, other)?).cloned().collect::<Vec<_>>();
    bail!("the folder, the time or the user shows in\n{}", differ.join("\n"));
}

/// The paths, kinds and sums of all files below a folder, without what systems and Debian's tools write for themselves.
fn files(folder: &Path, top: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.strip_prefix(top).unwrap_or(&path).display().to_string();
        if NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        let kind = path.symlink_metadata()?.file_type();
        if kind.is_dir() {
            found.extend(files(&path, top)?);
        }
        found.insert(if kind.is_symlink() {
            format!("{name} -> {}", path.read_link()?.display())
        } else if kind.is_file() {
            format!("{name} {}", sum(&std::fs::read(&path)?))
        } else {
            name
        });
    }
    Ok(found)
}

const NOT_OURS: &[&str] =
    &["dev", "etc/ld.so.cache", "proc", "sys", "var/cache/ldconfig", "var/lib/dpkg", "var/log"];

/// A Debian in a folder, with compilers and Python, and nothing of ours.
struct Debian {
    root: PathBuf,
}

/// What the programs are built with and run by.
const INCLUDED: &str = "--include=ca-certificates,g++,libc6-dev,openssh-client,pkg-config,python3";

impl Debian {
    fn new(root: &Path) -> Result<Debian> {
        let (suite, mirror) = release_here()?;
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", INCLUDED, &suite]).arg(root).arg(mirror);
        // It has much to say, and the mirror is nobody's business.
        cargo::output(command)?;
        Ok(Debian { root: root.to_owned() })
    }

    /// Runs a program in it, with processes of its own, all of which end with it.
    fn run(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new("unshare");
        let mut processes = std::ffi::OsString::from("--mount-proc=");
        processes.push(self.root.join("proc"));
        command
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .arg(processes)
            .arg("chroot")
            .arg(&self.root);
        command.args(words).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("BASTIDE_IMDS_ENDPOINT", NO_IMDS);
        cargo::run(command)
    }

    fn files(&self) -> Result<BTreeSet<String>> {
        files(&self.root, &self.root)
    }

    /// The package of a folder, by dpkg alone: what it needs has to be there.
    fn install(&self, packages: &Path) -> Result<()> {
        let inside = self.root.join("bastide.deb");
        std::fs::copy(only(packages, ".deb")?, &inside)?;
        self.run(&["dpkg", "--install", "/bastide.deb"])?;
        std::fs::remove_file(inside)?;
        Ok(())
    }

    /// Builds and runs the programs of `inside.sh`.
    fn use_it(&self, root: &Path) -> Result<()> {
        let folder = self.root.join("verify");
        std::fs::create_dir(&folder)?;
        for name in ["copy.c", "common.h"] {
            std::fs::copy(root.join("tests/tests/ffi/programs").join(name), folder.join(name))?;
        }
        for (name, text) in [
            ("copy.cpp", include_str!("../../templates/dist/copy.cpp")),
            ("copy.py", include_str!("../../templates/dist/copy.py")),
            ("inside.sh", include_str!("../../templates/dist/inside.sh")),
        ] {
            std::fs::write(folder.join(name), text)?;
        }
        self.run(&["sh", "/verify/inside.sh"])?;
        remove(&folder)
    }
}

/// The suite of the Debian that this is, and where apt gets it from.
fn release_here() -> Result<(String, String)> {
    let system = std::fs::read_to_string("/etc/os-release").context("cannot tell which system this is")?;
    let suite = system.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.context("this system has no code name: is it Debian?")?.to_owned();
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]);
    let mirror = mirror(&cargo::output(ask)?, &suite);
    Ok((suite, mirror.context("apt knows no mirror of this system")?))
}

fn mirror(targets: &str, suite: &str) -> Option<String> {
    let start = format!("{suite} main ");
    targets.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_suite() {
        let targets = "x main https://example.org/other/\nbookworm-updates main https://example.org/updates/\n\
            bookworm main https://example.org/debian/\n";
        assert_eq!(mirror(targets, "bookworm").as_deref(), Some("https://example.org/debian/"));
        assert_eq!(mirror(targets, "trixie"), None);
    }

    #[test]
    fn folders_that_differ_say_where() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let place = folder.path().join(name);
            std::fs::create_dir_all(place.join("proc"))?;
            std::fs::write(place.join("proc/own"), name)?;
            std::fs::write(place.join("file"), text)?;
            std::fs::write(place.join(SUMS), text)?;
            Ok(place)
        };
        let (one, same, other) = (write("one", "a")?, write("same", "a")?, write("other", "b")?);
        are_same(&one, &same)?;
        let error = are_same(&one, &other).unwrap_err().to_string();
        assert!(error.contains("\nfile ") && !error.contains("proc"), "{error}");
        Ok(())
    }
}
