//! The rules for `Cargo.toml` files: each dependency has a reason, one version and a user.
//!
//! Manifests are read as lines, as people read them; what cargo makes of them comes from cargo.

use super::source::Source;
use super::{File, Finding, file};
use crate::cargo::Package;

pub(super) fn check(packages: &[Package], sources: &[Source], files: &[File], findings: &mut Vec<Finding>) {
    if let Some(root) = file(files, "Cargo.toml") {
        reasons(root, findings);
        users_in_workspace(root, packages, findings);
    }
    for package in packages {
        let path = format!("{}/Cargo.toml", package.folder);
        if let Some(manifest) = file(files, &path) {
            inheritance(manifest, findings);
            users_in_source(manifest, package, sources, findings);
        }
    }
}

/// Every member says what it is for, and every dependency, or the group it stands in, why.
fn reasons(root: &File, findings: &mut Vec<Finding>) {
    let mut section = "";
    let mut has_reason = false;
    for (index, line) in root.text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = header(line) {
            section = name;
        } else if line.starts_with("members") {
            section = "members";
        } else if line == "]" {
            section = "";
        } else if section == "members" && line.starts_with('"') && !line.contains(" # ") {
            let mend = "say behind it what it is for";
            findings.push(Finding::new(&root.path, index + 1, "every member has a reason", mend));
        } else if section == "workspace.dependencies" {
            if line.starts_with('#') {
                has_reason = true;
            } else if line.is_empty() {
                has_reason = false;
            } else if key(line).is_some() && !has_reason {
                let mend = "say above it why it is there";
                findings.push(Finding::new(&root.path, index + 1, "every dependency has a reason", mend));
            }
        }
    }
}

/// A dependency of the workspace that no member names is a leftover.
fn users_in_workspace(root: &File, packages: &[Package], findings: &mut Vec<Finding>) {
    for (index, name) in entries(&root.text, |section| section == "workspace.dependencies") {
        if !packages
            .iter()
            .any(|package| package.dependencies.iter().any(|dependency| dependency.name == name))
        {
            let mend = format!("no member uses {name}: remove it");
            findings.push(Finding::new(&root.path, index + 1, "every dependency has a user", mend));
        }
    }
}

/// Versions, reasons and lints are in one place.
fn inheritance(manifest: &File, findings: &mut Vec<Finding>) {
    let lines: Vec<&str> = manifest.text.lines().collect();
    for (index, name) in entries(&manifest.text, |section| section.ends_with("dependencies")) {
        let inherits = lines.get(index).is_some_and(|line| line.contains("workspace = true"));
        if !inherits {
            let mend = format!("`{name} = {{ workspace = true, … }}`, with version and reason in the root");
            findings.push(Finding::new(&manifest.path, index + 1, "one version for the workspace", mend));
        }
    }
    if !manifest.text.contains("[lints]\nworkspace = true") {
        let mend = "add `[lints]` with `workspace = true`";
        findings.push(Finding::new(&manifest.path, lines.len(), "one set of lints", mend));
    }
}

/// A dependency that no file of its package names costs everybody's time.
fn users_in_source(manifest: &File, package: &Package, sources: &[Source], findings: &mut Vec<Finding>) {
    let folder = format!("{}/", package.folder);
    for dependency in &package.dependencies {
        let name = &dependency.identifier;
        let words = [format!("{name}::"), format!("use {name};"), format!("use {name} as ")];
        let is_used = sources
            .iter()
            .filter(|source| source.path.starts_with(&folder))
            .any(|source| words.iter().any(|word| !source.lines_with(word).is_empty()));
        if !is_used && !FEATURES_ONLY.contains(&dependency.name.as_str()) {
            let place = entries(&manifest.text, |section| section.ends_with("dependencies"))
                .into_iter()
                .find(|(_, name)| *name == dependency.name);
            let line = place.map_or(1, |(index, _)| index + 1);
            let mend = format!("no file of {} names {}: remove it", package.name, dependency.name);
            findings.push(Finding::new(&manifest.path, line, "every dependency has a user", mend));
        }
    }
}

/// Crates that are named only to choose their features.
const FEATURES_ONLY: &[&str] = &[];

/// The name between `[` and `]`.
fn header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']').filter(|name| !name.contains('"') || name.starts_with("target"))
}

/// The dependency that a line declares.
fn key(line: &str) -> Option<&str> {
    let name = line.split(['=', '.', ' ']).next()?;
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    (is_name && line.contains('=')).then_some(name)
}

/// Index of the line and name of what is declared in the sections that `wanted` chooses.
fn entries(text: &str, wanted: impl Fn(&str) -> bool) -> Vec<(usize, &str)> {
    let mut is_inside = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(section) = header(line.trim()) {
            is_inside = wanted(section);
        } else if is_inside && let Some(name) = key(line) {
            found.push((index, name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::Dependency;

    fn manifest(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn rules(root: &str, member: &str, source: &str) -> Vec<(&'static str, usize)> {
        let dependency =
            Dependency { name: "http-body".into(), identifier: "http_body".into(), ..Default::default() };
        let package = Package { name: "a".into(), folder: "crates/a".into(), dependencies: vec![dependency] };
        let files = [manifest("Cargo.toml", root), manifest("crates/a/Cargo.toml", member)];
        let mut findings = Vec::new();
        check(&[package], &[Source::new("crates/a/src/lib.rs", source)], &files, &mut findings);
        findings.iter().map(|finding| (finding.rule, finding.line)).collect()
    }

    const ROOT: &str = "[workspace]\nmembers = [\n    \"crates/a\", # a\n]\n[workspace.dependencies]\n# Why.\nhttp-body = \"1\"\n";
    const MEMBER: &str = "[dependencies]\nhttp-body.workspace = true\n\n[lints]\nworkspace = true\n";
    const SOURCE: &str = "use http_body::Body;";

    #[test]
    fn good_manifests() {
        assert_eq!(rules(ROOT, MEMBER, SOURCE), []);
        let target = MEMBER.replace("[dependencies]", "[target.'cfg(unix)'.dependencies]");
        assert_eq!(rules(ROOT, &target, SOURCE), []);
        let features =
            MEMBER.replace(".workspace = true", " = { workspace = true, features = [\n    \"a\",\n] }");
        assert_eq!(rules(ROOT, &features, SOURCE), []);
    }

    #[test]
    fn bad_manifests() {
        let group = ROOT.replace("# Why.\nhttp-body", "# Why.\n\nhttp-body");
        let leftover = format!("{ROOT}\n# Why.\nleft-over = \"1\"\n");
        let version = MEMBER.replace(".workspace = true", " = \"1\"");
        for (root, member, source, rule, line) in [
            (&*ROOT.replace(" # a", ""), MEMBER, SOURCE, "every member has a reason", 3),
            (&*ROOT.replace("# Why.\n", ""), MEMBER, SOURCE, "every dependency has a reason", 6),
            (&*group, MEMBER, SOURCE, "every dependency has a reason", 8),
            (&*leftover, MEMBER, SOURCE, "every dependency has a user", 10),
            (ROOT, &*version, SOURCE, "one version for the workspace", 2),
            (ROOT, &*MEMBER.replace("[lints]\nworkspace = true\n", ""), SOURCE, "one set of lints", 3),
            (ROOT, MEMBER, "use my_http_body::A;\n// http_body::B", "every dependency has a user", 2),
        ] {
            assert_eq!(rules(root, member, source), [(rule, line)]);
        }
    }
}
