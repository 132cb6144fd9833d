//! Running cargo, and what cargo knows of this workspace: its root and its packages.
//!
//! Only `cargo metadata --no-deps` is asked: it needs no network and no downloaded crates.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The folder that holds the workspace's `Cargo.toml`.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = Path::new(&manifest).parent().context("xtask has no parent folder")?;
    Ok(root.to_path_buf())
}

/// Where cargo put this program. `main` asks first: a build of the whole workspace puts a new file there, after which
/// the system only knows of this one that it is gone.
pub(crate) fn this_program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| std::env::current_exe().ok())
        .as_deref()
        .context("cannot tell where this program is")
}

/// The folder of this program, where cargo puts the workspace's other programs too.
pub(crate) fn programs() -> Result<PathBuf> {
    Ok(this_program()?.parent().context("this program is in no folder")?.to_path_buf())
}

/// The cargo that runs this task, in the workspace's root.
pub(crate) fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root);
    // What `cargo run` set for this program is not meant for the cargo under it.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME"] {
        command.env_remove(name);
    }
    command
}

/// Says what is run, runs it to its end, and fails when it fails.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let line = line_of(&command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs a command that has something to say to its end, and returns that; what it says of a failure is the error.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let line = line_of(&command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A member of the workspace, as its `Cargo.toml` declares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    pub name: String,
    /// The package's folder below the root, with `/` between names.
    pub folder: String,
    pub dependencies: Vec<Dependency>,
}

/// A line of `[dependencies]` or of one of its sisters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dependency {
    pub name: String,
    /// The name by which the source speaks of it.
    pub identifier: String,
    pub kind: Kind,
}

/// For whom a dependency is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Normal,
    Build,
    Test,
}

/// The members of the workspace.
pub(crate) fn packages(root: &Path) -> Result<Vec<Package>> {
    let said = output(command(root, &["metadata", "--no-deps", "--offline", "--format-version", "1"]))?;
    let metadata = serde_json::from_str(&said).context("`cargo metadata` did not answer with JSON")?;
    Ok(parse(&metadata))
}

fn parse(metadata: &Value) -> Vec<Package> {
    let root = Path::new(text(metadata, "workspace_root"));
    items(metadata, "packages")
        .map(|package| {
            let manifest = Path::new(text(package, "manifest_path"));
            let folder = manifest.parent().unwrap_or(manifest);
            Package {
                name: text(package, "name").to_owned(),
                folder: slashed(folder.strip_prefix(root).unwrap_or(folder)),
                dependencies: items(package, "dependencies").map(dependency).collect(),
            }
        })
        .collect()
}

fn dependency(value: &Value) -> Dependency {
    let name = text(value, "name");
    let rename = value.get("rename").and_then(Value::as_str);
    Dependency {
        name: name.to_owned(),
        identifier: rename.unwrap_or(name).replace('-', "_"),
        kind: match value.get("kind").and_then(Value::as_str) {
            Some("dev") => Kind::Test,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        },
    }
}

/// A relative path as the rules write it: with `/` on every system.
pub(crate) fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A text of a JSON object, or none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list in a JSON object.
pub(crate) fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_packages() {
        let metadata = serde_json::json!({
            "workspace_root": "/w",
            "packages": [{
                "name": "bastide-relay", "manifest_path": "/w/crates/relay/Cargo.toml",
                "dependencies": [
                    { "name": "tokio-util", "kind": null, "rename": null },
                    { "name": "http-body", "kind": "dev", "rename": "body" },
                ],
            }],
        });
        let packages = parse(&metadata);
        assert_eq!(packages.len(), 1);
        assert_eq!(
            (packages[0].name.as_str(), packages[0].folder.as_str()),
            ("bastide-relay", "crates/relay")
        );
        let seen: Vec<_> = packages[0].dependencies.iter().map(|d| (d.identifier.as_str(), d.kind)).collect();
        assert_eq!(seen, [("tokio_util", Kind::Normal), ("body", Kind::Test)]);
    }

    #[test]
    fn shows_commands_without_folders() {
        let mut command = Command::new("/some/where/cargo");
        command.args(["test", "--locked"]);
        assert_eq!(line_of(&command), "cargo test --locked");
    }
}
