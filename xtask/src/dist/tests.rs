//! The packages as a whole, made of the programs that the tests are built with: what is in them, that twice they are the
//! same, and that dpkg installs and removes them clean. It leaves out optimised programs and fresh machines; those are
//! `verify`'s.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::build::{Built, Speed};
use super::layout::Layout;
use super::product::Product;
use super::{Release, SUMS, write};
use crate::{cargo, needs};

/// A release that is made of what is built.
pub(super) fn release() -> Result<Release> {
    Release::of_what_is_built(cargo::root()?)
}

/// What the build of the whole workspace has made.
fn product(release: &Release) -> Result<Product> {
    let programs = std::env::current_exe()?;
    let folder = programs.ancestors().nth(2).context("this program is in no target folder")?;
    let built = Built::within(folder);
    for path in [&built.client, &built.emulator, &built.shared, &built.archive, &built.keyvault] {
        assert!(path.is_file(), "{} is missing: `cargo xtask test` builds it first", path.display());
    }
    Product::new(release, built)
}

#[test]
fn packages_are_complete_the_same_twice_and_go_as_they_came() -> Result<()> {
    let release = release()?;
    let product = product(&release)?;
    let above = tempfile::tempdir()?;
    let (one, other) = (above.path().join("one"), above.path().join("another-folder"));
    let files = write(&release, &product, &one)?;
    write(&release, &product, &other)?;
    assert_eq!(std::fs::read_to_string(one.join(SUMS))?, std::fs::read_to_string(other.join(SUMS))?);
    let ends = [".tar.zst", ".deb", ".whl", ".cdx.json", SUMS];
    for (file, end) in files.iter().zip(ends) {
        assert!(file.to_string_lossy().ends_with(end) && file.is_file(), "{}", file.display());
    }
    let sums = Command::new("sha256sum").args(["--check", "--quiet", SUMS]).current_dir(&one).status()?;
    assert!(sums.success());
    archive_is_complete(&release, &product)?;
    links_lead_somewhere(&product.archive(&release)?)?;
    notices_are_complete(&product);
    works_where_it_is_unpacked(&one.join(release.name()))?;
    let package = files.iter().find(|file| file.extension().is_some_and(|end| end == "deb"));
    installs_and_goes(package.context("there is no package")?, above.path())
}

fn archive_is_complete(release: &Release, product: &Product) -> Result<()> {
    let layout = product.archive(release)?;
    let paths = layout.paths();
    for path in [
        "bin/bastide",
        "bin/bastide-emulator",
        "include/bastide.h",
        "include/bastide_plugin.h",
        "lib/bastide/libbastide_keyvault.so",
        "lib/libbastide.a",
        "lib/libbastide.so",
        "lib/libbastide.so.0",
        "lib/pkgconfig/bastide.pc",
        "share/bash-completion/completions/bastide",
        "share/bastide/completions/bastide.elv",
        "share/bastide/completions/bastide.ps1",
        "share/bastide/plugin-sdk/bastide-plugin-abi/Cargo.toml",
        "share/bastide/plugin-sdk/bastide-plugin-abi/src/lib.rs",
        "share/bastide/plugin-sdk/example-c/example.c",
        "share/bastide/plugin-sdk/include/bastide_plugin.h",
        "share/bastide/plugin-sdk/plugins.md",
        "share/doc/bastide/LICENSE-MIT",
        "share/doc/bastide/THIRD-PARTY.txt",
        "share/doc/bastide/bastide.cdx.json",
        "share/doc/bastide/examples/connect.c",
        "share/doc/bastide/plugins.md",
        "share/fish/vendor_completions.d/bastide.fish",
        "share/man/man1/bastide-emulator.1",
        "share/man/man1/bastide-ssh.1",
        "share/man/man1/bastide.1",
        "share/zsh/site-functions/_bastide",
    ] {
        assert!(paths.contains(&path), "{path} is not among\n{}", paths.join("\n"));
    }
    Ok(())
}

/// Those of the pages that are at other places in the sources.
fn links_lead_somewhere(layout: &Layout) -> Result<()> {
    let (paths, documents) = (layout.paths(), "share/doc/bastide");
    for file in layout.files() {
        let (path, bytes) = file?;
        if !path.starts_with(documents) || !path.ends_with(".md") || path.matches('/').count() != 3 {
            continue;
        }
        let page = String::from_utf8(bytes)?;
        for link in page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_here = link.is_empty() || link.contains(":/") || link.contains(char::is_whitespace);
            let place = format!("{documents}/{link}");
            assert!(is_here || paths.contains(&place.as_str()), "{path} links to {link}");
        }
    }
    Ok(())
}

/// What has words of its own, or none, or another licence than the rest.
fn notices_are_complete(product: &Product) {
    let notices = &product.documents.notices;
    for words in
        ["aws-lc-sys 0", "\ntokio 1", "Unicode, Inc.", "Copyright (c) Microsoft", "russh 0", "ISC License"]
    {
        assert!(notices.contains(words), "{words} is not in THIRD-PARTY.txt");
    }
    for not_linked in ["\ncc 1", "\nserde_derive 1", "\nproptest 1", "\nbastide"] {
        assert!(!notices.contains(not_linked), "{not_linked} is in THIRD-PARTY.txt");
    }
}

/// The library is found by pkg-config, and the crate of the kit builds.
fn works_where_it_is_unpacked(folder: &Path) -> Result<()> {
    let mut ask = Command::new("pkg-config");
    ask.args(["--cflags", "--libs", "bastide"]).env("PKG_CONFIG_PATH", folder.join("lib/pkgconfig"));
    let flags = cargo::output(ask)?;
    let program = folder.join("connect");
    let mut compile = Command::new("cc");
    compile.arg("-o").arg(&program).arg(folder.join("share/doc/bastide/examples/connect.c"));
    cargo::output({
        compile.args(flags.split_whitespace());
        compile
    })?;
    let usage = Command::new(&program).arg("x").env("LD_LIBRARY_PATH", folder.join("lib")).output()?;
    assert_eq!(usage.status.code(), Some(2), "{}", String::from_utf8_lossy(&usage.stderr));

    let kit = folder.join("share/bastide/plugin-sdk/bastide-plugin-abi");
    let mut check = cargo::command(&kit, &["check", "--offline", "--quiet"]);
    check.env("CARGO_TARGET_DIR", folder.join("target"));
    cargo::run(check)
}

/// Into an empty file system, as root of one's own where this is nobody's root.
fn installs_and_goes(package: &Path, above: &Path) -> Result<()> {
    let root = above.join("root");
    for folder in ["var/lib/dpkg/updates", "var/lib/dpkg/info", "var/lib/dpkg/triggers", "usr"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "")?;
    // dpkg removes folders that become empty, of an empty file system all.
    std::fs::write(root.join("usr/ours"), "")?;
    let dpkg = |arguments: &[&str]| -> Result<()> {
        let mut command = if needs::is_root() {
            Command::new("dpkg")
        } else {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "dpkg"]);
            command
        };
        command.args(["--force-depends", "--force-script-chrootless"]);
        command.arg(format!("--root={}", root.display())).args(arguments);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        cargo::output(command).map(|_| ())
    };
    let before = below(&root.join("usr"))?;
    dpkg(&["--install", &package.to_string_lossy()])?;
    let modules = root.join("usr/lib/python3/dist-packages/bastide");
    std::fs::create_dir(modules.join("__pycache__"))?;
    for path in [
        "usr/bin/bastide",
        "usr/include/bastide.h",
        "usr/lib/systemd/user/bastide-up.service",
        "usr/share/man/man1/bastide.1.gz",
    ] {
        assert!(root.join(path).is_file(), "{path} is not installed");
    }
    dpkg(&["--purge", "bastide"])?;
    assert_eq!(below(&root.join("usr"))?, before);
    Ok(())
}

fn below(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(below(&entry.path())?);
        }
        found.insert(entry.path());
    }
    Ok(found)
}

#[test]
fn orders_are_read() -> Result<()> {
    use super::{Make, Order, Sizes};
    let read = |line: &str| Order::read(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(read("")?, Order::Make(Make::default()));
    assert_eq!(read("--verify --quick")?, Order::Verify(Speed::Quick));
    let make =
        Make { target: Some("t".into()), out: Some("o".into()), sizes: Sizes::Record, ..Make::default() };
    assert_eq!(read("--out o --record --target t")?, Order::Make(make));
    for wrong in ["--out", "--target", "--quick --record", "--verify --record", "more"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    Ok(())
}
