//! The rules for what people read, and for every text file.
//!
//! Whether a document is true and well written stays with its readers.

use super::{File, Finding, file};
use crate::cargo::Package;

pub(super) fn check(packages: &[Package], files: &[File], findings: &mut Vec<Finding>) {
    for path in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        if file(files, path).is_none() {
            findings.push(Finding::new(path, 1, "every project has this document", "write it"));
        }
    }
    if let Some(architecture) = file(files, "ARCHITECTURE.md") {
        architecture_is_short(architecture, findings);
        architecture_is_complete(architecture, packages, findings);
    }
    for file in files.iter().filter(|file| !NOT_WRITTEN_HERE.contains(&file.path.as_str())) {
        line_ends(file, findings);
        places(file, findings);
    }
}

/// Made by cargo, or quoted word for word.
const NOT_WRITTEN_HERE: &[&str] = &["Cargo.lock", "LICENSE-APACHE"];

fn architecture_is_short(architecture: &File, findings: &mut Vec<Finding>) {
    let lines = architecture.text.lines().count();
    if lines > LINES {
        let mend = format!("it has {lines}: what changes with the code belongs next to the code");
        findings.push(Finding::new(&architecture.path, lines, "at most 200 lines of architecture", mend));
    }
}

const LINES: usize = 200;

/// Every crate has a paragraph under a heading that names its folder, and every product crate says
/// there what is deliberately not in it.
fn architecture_is_complete(architecture: &File, packages: &[Package], findings: &mut Vec<Finding>) {
    let lines: Vec<&str> = architecture.text.lines().collect();
    for package in packages {
        let name = format!("`{}`", package.folder);
        let Some(heading) = lines.iter().position(|line| line.starts_with('#') && line.contains(&name))
        else {
            let mend = format!("add a heading that names {name}, and what it is for");
            findings.push(Finding::new(&architecture.path, lines.len(), "every crate is explained", mend));
            continue;
        };
        let mut paragraph = lines.iter().skip(heading + 1).take_while(|line| !line.starts_with('#'));
        if package.folder.starts_with("crates/") && !paragraph.any(|line| line.contains("Invariant:")) {
            let mend = format!("say in `Invariant:` lines what is deliberately not in {name}");
            findings.push(Finding::new(
                &architecture.path,
                heading + 1,
                "every crate has an invariant",
                mend,
            ));
        }
    }
}

fn line_ends(file: &File, findings: &mut Vec<Finding>) {
    for (index, line) in file.text.split('\n').enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            let mend = "remove the blanks at its end";
            findings.push(Finding::new(&file.path, index + 1, "no trailing white space", mend));
        }
    }
    let last = file.text.strip_suffix('\n').unwrap_or_default();
    if !file.text.is_empty() && (last.is_empty() || last.ends_with('\n')) {
        let lines = file.text.lines().count();
        findings.push(Finding::new(
            &file.path,
            lines,
            "a file ends with its last line",
            "end it with one newline",
        ));
    }
}

/// What is somebody's machine today is nobody's tomorrow.
fn places(file: &File, findings: &mut Vec<Finding>) {
    for (index, line) in file.text.lines().enumerate() {
        if names_a_place(line) {
            let mend = "a path that exists on one machine only: make it relative, or an argument";
            findings.push(Finding::new(&file.path, index + 1, "no machine's own paths", mend));
        }
    }
}

fn names_a_place(line: &str) -> bool {
    let homes = [concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let folders = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let begins = |at: usize| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '/' | '$'))
    };
    let is_ours = |at: usize, home: &str| {
        let rest = line.get(at + home.len()..).unwrap_or_default();
        let name: &str = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        !name.is_empty() && !ANYBODY.contains(&name)
    };
    folders.iter().any(|folder| line.match_indices(folder).any(|(at, _)| begins(at)))
        || homes.iter().any(|home| line.match_indices(home).any(|(at, _)| begins(at) && is_ours(at, home)))
}

/// Users in examples, and on VMs.
const ANYBODY: &[&str] = &["azureuser", "user", "you", "me", "someone", "USER", "NAME"];

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Vec<Package> {
        ["crates/relay", "xtask"]
            .map(|folder| Package { name: folder.into(), folder: folder.into(), ..Package::default() })
            .to_vec()
    }

    fn rules(files: &[(&str, &str)]) -> Vec<(&'static str, usize)> {
        let good = [("README.md", "# A\n"), ("ARCHITECTURE.md", GOOD), ("CHANGELOG.md", "# B\n")];
        let files: Vec<File> = files
            .iter()
            .chain(good.iter().filter(|(path, _)| !files.iter().any(|(other, _)| path == other)))
            .map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        let mut findings = Vec::new();
        check(&packages(), &files, &mut findings);
        findings.iter().map(|finding| (finding.rule, finding.line)).collect()
    }

    const GOOD: &str = "# A\n## `crates/relay`\nMoves bytes.\nInvariant: no clock.\n## `xtask`\nTasks.\n";

    #[test]
    fn architecture() {
        assert_eq!(rules(&[]), []);
        let long = format!("{GOOD}{}end\n", "\n".repeat(200));
        for (text, rule, line) in [
            (&*long, "at most 200 lines of architecture", 207),
            (&*GOOD.replace("## `xtask`", "## Tasks"), "every crate is explained", 6),
            (&*GOOD.replace("Invariant: no clock.\n", ""), "every crate has an invariant", 2),
        ] {
            assert_eq!(rules(&[("ARCHITECTURE.md", text)]), [(rule, line)]);
        }
    }

    #[test]
    fn missing_documents() {
        let mut findings = Vec::new();
        check(&[], &[], &mut findings);
        assert_eq!(findings.len(), 3);
    }

    #[test]
    fn bad_text_files() {
        for (text, rule) in [
            ("a \n", "no trailing white space"),
            ("a\r\n", "no trailing white space"),
            ("a", "a file ends with its last line"),
            ("\n", "a file ends with its last line"),
            (concat!("see /wo", "rk/notes\n"), "no machine's own paths"),
            (concat!("(/ro", "ot/.cargo)\n"), "no machine's own paths"),
            (concat!("cd /ho", "me/alice/src\n"), "no machine's own paths"),
        ] {
            assert_eq!(rules(&[("notes.md", text)]), [(rule, 1)], "{text}");
        }
    }

    #[test]
    fn good_text_files() {
        for text in [
            "",
            "a\n",
            concat!("/ho", "me/azureuser/.ssh\n"),
            concat!("$HOME/wo", "rk/x\n"),
            concat!("https://example.org/wo", "rk/\n"),
        ] {
            assert_eq!(rules(&[("notes.md", text)]), [], "{text:?}");
        }
    }
}
