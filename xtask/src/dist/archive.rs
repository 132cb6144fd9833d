//! The archive: one folder that works wherever it is unpacked, as a tar file compressed by zstd. It leaves out what is in
//! it.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Release;
use super::build::Speed;
use super::layout::Layout;
use crate::cargo;

/// Writes the archive, and the same files unpacked beside it.
pub(super) fn write(release: &Release, layout: &Layout, out: &Path) -> Result<PathBuf> {
    let name = release.name();
    let unpacked = out.join(&name);
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked)
            .with_context(|| format!("cannot remove {}", unpacked.display()))?;
    }
    layout.write(&unpacked, release.epoch)?;

    let plain = out.join(format!("{name}.tar"));
    let file = File::create(&plain).with_context(|| format!("cannot make {}", plain.display()))?;
    layout.archive(&name, release.epoch, BufWriter::new(file))?;
    let packed = out.join(format!("{name}.tar.zst"));
    let level = if release.speed == Speed::Quick { "-1" } else { "-19" };
    let mut command = Command::new("zstd");
    // One thread: how the work was shared out would show.
    command.args([level, "--single-thread", "--quiet", "--force", "--rm", "-o"]).arg(&packed).arg(&plain);
    cargo::output(command)?;
    Ok(packed)
}
