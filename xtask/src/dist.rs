//! `cargo xtask dist`: everything that a packager or a user wants, in one folder: an archive, a Debian package, a Python
//! wheel, a bill of materials, and the sums of them all. It leaves out what is in each, which is below.
//!
//! The same commit gives the same bytes, in any folder and at any time: `build` says how programs get there, and
//! everything else is sorted, belongs to root and is as old as the commit. `--verify` proves it.

mod archive;
mod build;
mod closure;
mod deb;
mod documents;
mod layout;
mod notices;
mod product;
mod sbom;
mod sizes;
mod target;
#[cfg(test)]
mod tests;
mod verify;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::steps::Steps;
use crate::sys::Interrupts;
use crate::{cargo, needs};

use build::{Built, Speed};
use product::Product;
use target::Target;

/// Makes the packages, or verifies them.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let order = Order::read(words)?;
    let root = cargo::root()?;
    needs::provide(&root, needs::DIST)?;
    // Ctrl-C ends what runs, and then this, by way of what it has to remove.
    let interrupts = Interrupts::watch()?;
    let mut steps = Steps::default();
    let result = match order {
        Order::Make(make) => make.run(root, &mut steps),
        Order::Verify(speed) => verify::run(&root, speed, &mut steps),
    };
    eprint!("\n{}", steps.summary());
    interrupts.check()?;
    result
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    Make(Make),
    Verify(Speed),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Make {
    /// A triple as rustc has it; this machine's when left out.
    target: Option<String>,
    out: Option<PathBuf>,
    speed: Speed,
    sizes: Sizes,
}

/// What becomes of the sizes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sizes {
    #[default]
    Compare,
    Record,
}

impl Order {
    fn read(words: &[&str]) -> Result<Order> {
        let (mut make, mut verifies) = (Make::default(), false);
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--target" => make.target = Some(words.next().context("--target needs a triple")?.to_owned()),
                "--out" => make.out = Some(words.next().context("--out needs a folder")?.into()),
                "--quick" => make.speed = Speed::Quick,
                "--record" => make.sizes = Sizes::Record,
                "--verify" => verifies = true,
                _ => bail!("cargo xtask dist does not know '{word}'"),
            }
        }
        if verifies {
            let alone = Make { speed: make.speed, ..Make::default() };
            ensure!(make == alone, "--verify goes with --quick alone");
            return Ok(Order::Verify(make.speed));
        }
        ensure!(
            make.speed == Speed::Shipped || make.sizes == Sizes::Compare,
            "sizes of a quick build are not worth recording: leave out --quick or --record"
        );
        Ok(Order::Make(make))
    }
}

/// What all packages of a run have in common.
struct Release {
    root: PathBuf,
    target: Target,
    version: &'static str,
    /// Seconds since 1970: how old everything in the packages is (reproducible-builds.org, SOURCE_DATE_EPOCH).
    epoch: u64,
    speed: Speed,
}

impl Release {
    fn new(root: PathBuf, target: Option<&str>, speed: Speed) -> Result<Release> {
        let epoch = epoch(&root)?;
        Ok(Release { target: Target::named(target)?, root, version: VERSION, epoch, speed })
    }

    /// For the tests: for this machine, on any day.
    fn of_what_is_built(root: PathBuf) -> Result<Release> {
        let target = Target::named(None)?;
        Ok(Release { root, target, version: VERSION, epoch: ANY_DAY, speed: Speed::Quick })
    }

    /// The name of the archive and of the folder in it.
    fn name(&self) -> String {
        format!("bastide-{}-{}", self.version, self.target.triple)
    }
}

/// The time of the commit, unless somebody has said another one.
fn epoch(root: &Path) -> Result<u64> {
    if let Some(said) = std::env::var_os("SOURCE_DATE_EPOCH") {
        return said.to_str().and_then(|text| text.parse().ok()).context("SOURCE_DATE_EPOCH is no number");
    }
    let mut log = Command::new("git");
    log.args(["log", "-1", "--format=%ct"]).current_dir(root);
    let time = cargo::output(log).context(
        "the commit's time is what the files in the packages get; outside of git set SOURCE_DATE_EPOCH",
    )?;
    time.trim().parse().context("git does not say when the commit was made")
}

impl Make {
    fn run(self, root: PathBuf, steps: &mut Steps) -> Result<()> {
        let out = self.out.unwrap_or_else(|| root.join("dist"));
        let release = Release::new(root, self.target.as_deref(), self.speed)?;
        let built = steps.take("build", || build::all(&release))?;
        let product = steps.take("documents", || Product::new(&release, built))?;
        let files = steps.take("packages", || write(&release, &product, &out))?;
        for file in &files {
            println!("{}", file.display());
        }
        let sizes = sizes::of(&product, &files)?;
        match (self.speed, self.sizes) {
            (Speed::Shipped, Sizes::Compare) => eprint!("\n{}", sizes::compare(&release, &sizes)?),
            (Speed::Shipped, Sizes::Record) => sizes::record(&release, &sizes)?,
            (Speed::Quick, _) => eprintln!("\na quick build: nothing that is to be shipped"),
        }
        Ok(())
    }
}

/// For the tests: what a build of the whole workspace has made, unpacked into `prefix`, and its wheel in the folder `out`.
pub(crate) fn of_what_is_built(root: &Path, prefix: &Path, out: &Path) -> Result<PathBuf> {
    let release = Release::of_what_is_built(root.to_owned())?;
    let product = Product::new(&release, Built::within(&cargo::programs()?))?;
    product.archive(&release)?.write(prefix, release.epoch)?;
    wheel::write(&release, &product, out)
}

/// The workspace has one version, and this program is of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A day in 2026: tests are also run where there is no commit.
const ANY_DAY: u64 = 1_767_323_045;

/// Writes all packages into a folder, and their sums.
fn write(release: &Release, product: &Product, out: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let sbom = out.join(format!("{}.cdx.json", release.name()));
    std::fs::write(&sbom, &product.documents.sbom).context("cannot write the bill of materials")?;
    let files = vec![
        archive::write(release, &product.archive(release)?, out)?,
        deb::write(release, product, out)?,
        wheel::write(release, product, out)?,
        sbom,
    ];
    let mut sums = String::new();
    for file in &files {
        let name = file.file_name().context("a package has a name")?.to_string_lossy();
        sums += &format!("{}  {name}\n", sum(&std::fs::read(file)?));
    }
    let place = out.join(SUMS);
    std::fs::write(&place, sums).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(files.into_iter().chain([place]).collect())
}

/// As `sha256sum --check` reads it.
const SUMS: &str = "SHA256SUMS";

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
