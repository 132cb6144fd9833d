//! Which crates are in what is shipped, as cargo sees it: for the notices and the bill of materials. It leaves out what
//! those say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::target::Target;
use crate::cargo::{self, items, text};

/// A crate whose code is in a program or library that is shipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    pub name: String,
    pub version: String,
    /// An SPDX expression.
    pub license: String,
    pub authors: Vec<String>,
    pub repository: Option<String>,
    /// Where its sources are.
    pub folder: PathBuf,
    /// SHA-256 of its package, unless it is ours.
    pub checksum: Option<String>,
    /// What of it is shipped, too: names and versions.
    pub dependencies: BTreeSet<(String, String)>,
}

impl Crate {
    pub(super) fn is_ours(&self) -> bool {
        self.checksum.is_none()
    }
}

/// What is shipped: each package is built by itself, so each has its own features.
pub(super) const SHIPPED: &[&str] = &["bastide-cli", "bastide-emulator", "bastide-ffi", "bastide-keyvault"];

/// The crates in what is shipped for a target, by name and version.
pub(super) fn shipped(root: &Path, target: &Target) -> Result<Vec<Crate>> {
    let mut linked = BTreeSet::new();
    for package in SHIPPED {
        let arguments = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none"];
        let mut tree = cargo::command(root, &arguments);
        tree.args(["--format", "{p}", "--package", package, "--target", target.triple]);
        linked.extend(names(&cargo::output(tree)?));
    }
    let arguments = ["metadata", "--locked", "--format-version", "1", "--filter-platform", target.triple];
    let metadata = serde_json::from_str(&cargo::output(cargo::command(root, &arguments))?)
        .context("`cargo metadata` did not answer with JSON")?;
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    Ok(read(&metadata, &linked, &checksums(&lock)?))
}

/// Names and versions in lines such as `syn v2.0.1 (proc-macro) (*)`.
fn names(tree: &str) -> impl Iterator<Item = (String, String)> {
    tree.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((name.to_owned(), version.to_owned()))
    })
}

/// The sums of the packages that registries have.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock is no TOML")?;
    let packages =
        lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    Ok(packages
        .iter()
        .filter_map(|package| {
            let text = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
            Some(((text("name")?, text("version")?), text("checksum")?))
        })
        .collect())
}

fn read(
    metadata: &Value,
    linked: &BTreeSet<(String, String)>,
    checksums: &BTreeMap<(String, String), String>,
) -> Vec<Crate> {
    let identity = |package: &Value| (text(package, "name").to_owned(), text(package, "version").to_owned());
    let by_id: BTreeMap<&str, (String, String)> =
        items(metadata, "packages").map(|package| (text(package, "id"), identity(package))).collect();
    let nodes = metadata.pointer("/resolve/nodes").and_then(Value::as_array).into_iter().flatten();
    let edges: BTreeMap<&str, BTreeSet<(String, String)>> = nodes
        .map(|node| {
            let normal = items(node, "deps")
                .filter(|to| items(to, "dep_kinds").any(|kind| kind.get("kind").is_none_or(Value::is_null)));
            let to = normal.filter_map(|to| by_id.get(text(to, "pkg"))).filter(|to| linked.contains(to));
            (text(node, "id"), to.cloned().collect())
        })
        .collect();
    let mut crates: Vec<Crate> = items(metadata, "packages")
        .filter(|package| linked.contains(&identity(package)))
        .map(|package| {
            let manifest = Path::new(text(package, "manifest_path"));
            Crate {
                name: text(package, "name").to_owned(),
                version: text(package, "version").to_owned(),
                // An old way to write OR, which is no SPDX.
                license: text(package, "license").replace('/', " OR "),
                authors: items(package, "authors").filter_map(Value::as_str).map(str::to_owned).collect(),
                repository: package.get("repository").and_then(Value::as_str).map(str::to_owned),
                folder: manifest.parent().unwrap_or(manifest).to_owned(),
                checksum: checksums.get(&identity(package)).cloned(),
                dependencies: edges.get(text(package, "id")).cloned().unwrap_or_default(),
            }
        })
        .collect();
    crates.sort();
    crates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_a_tree() {
        let tree = "bastide-ffi v0.1.0 (/w/crates/ffi)\nsyn v2.0.1 (proc-macro) (*)\n\n";
        let names: Vec<String> = names(tree).map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(names, ["bastide-ffi 0.1.0", "syn 2.0.1"]);
    }

    #[test]
    fn keeps_what_is_linked_and_what_that_needs() -> Result<()> {
        let metadata = serde_json::json!({
            "packages": [
                { "id": "b", "name": "b", "version": "2", "license": "MIT/Apache-2.0", "authors": ["B"],
                  "manifest_path": "/r/b-2/Cargo.toml", "repository": "https://example.org/b" },
                { "id": "a", "name": "a", "version": "1", "license": "MIT", "manifest_path": "/w/a/Cargo.toml" },
                { "id": "c", "name": "c", "version": "3", "license": "MIT", "manifest_path": "/r/c-3/Cargo.toml" },
            ],
            "resolve": { "nodes": [{ "id": "a", "deps": [
                { "pkg": "b", "dep_kinds": [{ "kind": null }] },
                { "pkg": "c", "dep_kinds": [{ "kind": "dev" }] },
            ]}]},
        });
        let lock = "[[package]]\nname = \"a\"\nversion = \"1\"\n\
            [[package]]\nname = \"b\"\nversion = \"2\"\nchecksum = \"5a\"\n";
        let linked = [("a", "1"), ("b", "2")].map(|(name, version)| (name.to_owned(), version.to_owned()));
        let crates = read(&metadata, &linked.into(), &checksums(lock)?);
        let [a, b] = crates.as_slice() else { panic!("{crates:?}") };
        assert!(a.is_ours() && a.dependencies == BTreeSet::from([("b".into(), "2".into())]));
        assert_eq!((b.license.as_str(), b.checksum.as_deref()), ("MIT OR Apache-2.0", Some("5a")));
        assert_eq!(b.folder, Path::new("/r/b-2"));
        Ok(())
    }
}
