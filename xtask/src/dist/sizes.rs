//! How large what is shipped has become since somebody last looked at it. It leaves out why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Release;
use super::product::Product;

/// Bytes by name.
pub(super) type Sizes = BTreeMap<String, u64>;

/// The sizes of programs, libraries and packages.
pub(super) fn of(product: &Product, packages: &[PathBuf]) -> Result<Sizes> {
    let built = &product.built;
    let mut sizes = Sizes::new();
    for (name, path) in [
        ("bastide", &built.client),
        ("bastide-emulator", &built.emulator),
        ("libbastide.a", &built.archive),
        ("libbastide.so", &built.shared),
        ("libbastide_keyvault.so", &built.keyvault),
    ] {
        sizes.insert(name.to_owned(), length(path)?);
    }
    for path in packages {
        // Without the version, so that releases can be compared.
        if let Some(kind) = KINDS.iter().find(|kind| path.to_string_lossy().ends_with(**kind)) {
            sizes.insert((*kind).to_owned(), length(path)?);
        }
    }
    Ok(sizes)
}

/// Ends of packages' names.
const KINDS: &[&str] = &[".deb", ".tar.zst", ".whl"];

fn length(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len())
}

/// Where the sizes of the last time are, below the root.
const RECORD: &str = "xtask/dist-sizes.toml";

const OPENING: &str = "# Bytes of what is shipped, written by `cargo xtask dist --record`.\n";

/// Growth that a change should have a reason for: a new dependency shows, a new function does not.
const PERCENT: u64 = 3;

/// A table of the sizes against those of the last time, with what has grown.
pub(super) fn compare(release: &Release, sizes: &Sizes) -> Result<String> {
    let text = std::fs::read_to_string(release.root.join(RECORD)).unwrap_or_default();
    Ok(table(sizes, &read(&text)?.remove(release.target.triple).unwrap_or_default()))
}

/// Keeps the sizes for the next time.
pub(super) fn record(release: &Release, sizes: &Sizes) -> Result<()> {
    let path = release.root.join(RECORD);
    let mut all = read(&std::fs::read_to_string(&path).unwrap_or_default())?;
    all.insert(release.target.triple.to_owned(), sizes.clone());
    let text = OPENING.to_owned() + &toml::to_string(&all).context("cannot write sizes")?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {RECORD}"))?;
    eprintln!("{RECORD} is written");
    Ok(())
}

fn read(text: &str) -> Result<BTreeMap<String, Sizes>> {
    toml::from_str(text).with_context(|| format!("{RECORD} cannot be read"))
}

fn table(sizes: &Sizes, before: &Sizes) -> String {
    let width = sizes.keys().map(String::len).max().unwrap_or_default();
    let mut text = String::new();
    let mut grown = Vec::new();
    for (name, now) in sizes {
        let change = match before.get(name) {
            None => "new".to_owned(),
            Some(then) if then == now => "as before".to_owned(),
            Some(then) => {
                if *now > then + then * PERCENT / 100 {
                    grown.push(name.as_str());
                }
                let percent = (*now as f64 / *then as f64 - 1.0) * 100.0;
                format!("{percent:+.2} %")
            }
        };
        text += &format!("  {name:width$}  {now:>11}  {change}\n");
    }
    if !grown.is_empty() {
        text += &format!(
            "grown by more than {PERCENT} %: {}; if it has to be, `cargo xtask dist --record` and commit {RECORD}\n",
            grown.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_named() -> Result<()> {
        let of = |sizes: &[(&str, u64)]| -> Sizes {
            sizes.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
        };
        let before = of(&[("a", 1000), ("b", 1000), ("c", 1000), ("gone", 1)]);
        let text = table(&of(&[("a", 1000), ("b", 1030), ("c", 1031), ("d", 5)]), &before);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4].iter().map(|line| line.split_whitespace().count()).max(), Some(4));
        assert!(
            lines[0].ends_with("as before") && lines[1].ends_with("+3.00 %") && lines[3].ends_with("new")
        );
        assert!(lines[4].starts_with("grown by more than 3 %: c;"), "{text}");
        let read_again = read(&toml::to_string(&BTreeMap::from([("x".to_owned(), before.clone())]))?)?;
        assert_eq!(read_again["x"], before);
        Ok(())
    }
}
