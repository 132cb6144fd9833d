//! The Debian package: one for all, since whoever wants the command may want the library, and the other way round.
//! `dpkg-deb` packs and `dpkg-shlibdeps` says what has to be there. It leaves out the files, which are `product`'s.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::Release;
use super::build::Speed;
use super::layout::Layout;
use super::product::{Product, SONAME};
use crate::cargo;

/// Writes `bastide_VERSION-REVISION_ARCHITECTURE.deb`.
pub(super) fn write(release: &Release, product: &Product, out: &Path) -> Result<PathBuf> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let tree = folder.path().join("bastide");
    let layout = product.debian(release)?;
    layout.write(&tree, release.epoch)?;
    let mut size = 0;
    let mut programs = Vec::new();
    for file in layout.files() {
        let (path, bytes) = file?;
        size += (bytes.len() as u64).div_ceil(KIBIBYTE);
        if bytes.starts_with(ELF) {
            programs.push(tree.join(path));
        }
    }
    let mut about = Layout::default();
    about.text("DEBIAN/control", control(release, size, &needed(release, folder.path(), &programs)?));
    about.text("DEBIAN/triggers", "activate-noawait ldconfig\n");
    let (library, generation) = library()?;
    about.text("DEBIAN/shlibs", format!("{library} {generation} bastide (>= {})\n", release.version));
    about.script("DEBIAN/prerm", PRERM);
    about.write(&tree, release.epoch)?;

    let packed = out.join(format!("bastide_{}_{}.deb", version(release), release.target.debian));
    let compression = if release.speed == Speed::Quick { "-Znone" } else { "-Zxz" };
    let mut command = Command::new("dpkg-deb");
    // One thread: how the work was shared out would show.
    command.args(["--root-owner-group", "--threads-max=1", compression, "--build"]).arg(&tree).arg(&packed);
    command.env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    cargo::output(command)?;
    Ok(packed)
}

/// That of the sources, and of how they are packed.
fn version(release: &Release) -> String {
    format!("{}-1", release.version)
}

const MAINTAINER: &str = "The bastide authors <bastide@bastide.invalid>";

/// Debian's own changelog (deb-changelog(5)).
pub(super) fn changes(release: &Release) -> Result<String> {
    let made = OffsetDateTime::from_unix_timestamp(i64::try_from(release.epoch)?)?.format(&Rfc2822)?;
    Ok(format!(
        "bastide ({}) unstable; urgency=medium\n\n  * bastide {}: what is new in it stands in changelog.gz.\n\n \
         -- {MAINTAINER}  {made}\n",
        version(release),
        release.version
    ))
}

/// What lintian finds wrong, and is meant.
pub(super) fn on_purpose(release: &Release) -> Result<String> {
    let (library, generation) = library()?;
    Ok(format!(
        "# One package for all: whoever downloads it has the command, the library and its header in one go.\n\
         bastide: package-name-doesnt-match-sonames {library}{generation}\n\
         bastide: link-to-shared-library-in-wrong-package usr/lib/{gnu}/{SONAME} [usr/lib/{gnu}/{library}.so]\n",
        gnu = release.target.gnu
    ))
}

/// The library's name, and the number of its interface.
fn library() -> Result<(&'static str, &'static str)> {
    SONAME.split_once(".so.").context("the library has no generation")
}

const KIBIBYTE: u64 = 1024;

/// How programs and shared libraries begin.
const ELF: &[u8] = b"\x7fELF";

/// The packages with the libraries that the programs want.
fn needed(release: &Release, folder: &Path, programs: &[PathBuf]) -> Result<String> {
    // It wants to be in the sources of a package.
    let source = "Source: bastide\n\nPackage: bastide\nArchitecture: any\n";
    let mut debian = Layout::default();
    debian.text("debian/control", source);
    debian.write(folder, release.epoch)?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.arg("-O").args(programs).current_dir(folder).env("DEB_HOST_ARCH", release.target.debian);
    let said = cargo::output(command)?;
    let line = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    line.map(str::to_owned).context("dpkg-shlibdeps does not say what is needed")
}

fn control(release: &Release, size: u64, needed: &str) -> String {
    let description: String = DESCRIPTION.lines().map(|line| format!(" {line}\n")).collect();
    format!(
        "Package: bastide\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {size}\n\
         Depends: {needed}\n\
         Recommends: ca-certificates, openssh-client\n\
         Suggests: python3\n\
         Section: net\n\
         Priority: optional\n\
         Description: native client for Azure Bastion\n{description}",
        version(release),
        release.target.debian,
    )
}

const DESCRIPTION: &str = "\
SSH sessions and tunnels to virtual machines that have no public address: the
command bastide, the library libbastide for C, C++ and Python, a kit for
sign-in plugins, and bastide-emulator, a small Azure to try and test with.
";

/// What Python writes beside the modules is in no package's list.
const PRERM: &str = "\
#!/bin/sh
set -e
rm -rf \"$DPKG_ROOT/usr/lib/python3/dist-packages/bastide/__pycache__\"
";
