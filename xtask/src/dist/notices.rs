//! The notices of those whose code is in the programs: which licence we take where there is a choice, and its text as
//! it stands in the crate. It leaves out whether we may ship a licence at all; that is `deny.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use spdx::{Expression, Licensee, ParseMode};

use super::closure::Crate;

/// The text of THIRD-PARTY.txt.
pub(super) fn write(crates: &[Crate]) -> Result<String> {
    // Crates with the same words in the same place are told once.
    let mut told: BTreeMap<Vec<String>, Vec<&Crate>> = BTreeMap::new();
    for one in crates.iter().filter(|one| !one.is_ours()) {
        let texts = texts(one).with_context(|| format!("cannot tell the licence of {}", one.name))?;
        told.entry(texts).or_default().push(one);
    }
    let mut sections: Vec<(Vec<String>, Vec<&Crate>)> = told.into_iter().collect();
    sections.sort_by(|(_, a), (_, b)| a.cmp(b));
    let mut text = OPENING.to_owned();
    for (texts, crates) in sections {
        text += &format!("\n{}\n\n", "=".repeat(WIDTH));
        for one in crates {
            let place = one.repository.as_deref().unwrap_or("https://crates.io");
            text += &format!("{} {} ({}), {place}\n", one.name, one.version, one.license);
        }
        for part in texts {
            text += &format!("\n{}\n\n{part}\n", "-".repeat(WIDTH));
        }
    }
    Ok(text)
}

const OPENING: &str = "\
What is in the programs and libraries of bastide and was written by others.

Rust's standard library, https://www.rust-lang.org: MIT or Apache-2.0, Copyright (c) The Rust Project Contributors;
rust-standard-library.html has its notices. The rest, with the licence that was chosen where there is a choice:
";
const WIDTH: usize = 100;

/// The licences that we take, the shortest duties first.
const TAKEN: &[&str] =
    &["MIT", "ISC", "BSD-3-Clause", "Unicode-3.0", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];

/// Words in the names of files, and the licence that they speak of.
const MARKS: &[(&str, &str)] = &[
    ("APACHE", "Apache-2.0"),
    ("MIT", "MIT"),
    ("ISC", "ISC"),
    ("BSD", "BSD-3-Clause"),
    ("UNICODE", "Unicode-3.0"),
    ("UNLICENSE", "Unlicense"),
    ("ZLIB", "Zlib"),
    ("BOOST", "BSL-1.0"),
];

/// How files that hold licences begin.
const NAMES: &[&str] = &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// What there is to say of a crate: its own files, or, where it has brought none, the licence's words.
fn texts(one: &Crate) -> Result<Vec<String>> {
    let chosen = choose(&one.license)?;
    let mut texts = Vec::new();
    for name in files(&one.folder)? {
        let marks: Vec<&str> = MARKS
            .iter()
            .filter(|(mark, _)| name.to_uppercase().contains(mark))
            .map(|(_, license)| *license)
            .collect();
        // COPYING and the like speak of all; LICENSE-APACHE does not interest whoever takes MIT.
        if marks.is_empty() || marks.iter().any(|license| chosen.iter().any(|one| one == license)) {
            let bytes = std::fs::read(one.folder.join(&name))?;
            texts.push(String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim().to_owned());
        }
    }
    texts.retain(|text| !text.is_empty());
    texts.dedup();
    if texts.is_empty() {
        for license in &chosen {
            let known = spdx::license_id(license).with_context(|| format!("{license} has no words"))?;
            texts.push(format!("Copyright (c) {}\n\n{}", one.authors.join(", "), known.text().trim()));
        }
    }
    Ok(texts)
}

/// The licences that suffice.
fn choose(expression: &str) -> Result<Vec<String>> {
    ensure!(!expression.is_empty(), "it names none in its Cargo.toml");
    let read = Expression::parse_mode(expression, ParseMode::LAX)
        .map_err(|error| anyhow::anyhow!("{expression} is no SPDX expression: {}", error.reason))?;
    let taken = TAKEN.iter().map(|name| Licensee::parse(name)).collect::<Result<Vec<_>, _>>()?;
    let needed = read
        .minimized_requirements(&taken)
        .with_context(|| format!("{expression}: xtask/src/dist/notices.rs takes none of these"))?;
    Ok(needed.iter().map(ToString::to_string).collect())
}

fn files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_license = NAMES.iter().any(|start| name.to_uppercase().starts_with(start));
        if is_license && entry.file_type()?.is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(folder: &Path, name: &str, license: &str, files: &[(&str, &str)]) -> Result<Crate> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        for (file, text) in files {
            std::fs::write(folder.join(file), text)?;
        }
        Ok(Crate {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.to_owned(),
            authors: vec!["Ada".to_owned()],
            folder,
            checksum: Some("5a".to_owned()),
            ..Crate::default()
        })
    }

    #[test]
    fn the_shortest_duties_are_chosen() -> Result<()> {
        for (expression, chosen) in [
            ("MIT OR Apache-2.0", &["MIT"][..]),
            ("Unlicense OR MIT", &["MIT"]),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", &["MIT", "Unicode-3.0"]),
            ("ISC AND (Apache-2.0 OR ISC)", &["ISC"]),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", &["MIT"]),
        ] {
            assert_eq!(choose(expression)?, chosen, "{expression}");
        }
        assert!(choose("GPL-3.0-only").is_err() && choose("").is_err() && choose("what?").is_err());
        Ok(())
    }

    #[test]
    fn notices_are_the_crates_own_words_each_once() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let make =
            |name: &str, license: &str, files: &[(&str, &str)]| shipped(folder.path(), name, license, files);
        let crates = [
            make("a", "MIT OR Apache-2.0", &[("LICENSE-MIT", "mit\r\nwords\n"), ("LICENSE-APACHE", "long")])?,
            make("b", "Apache-2.0 OR MIT", &[("LICENSE-MIT", "mit\nwords"), ("COPYRIGHT", "")])?,
            make("c", "Apache-2.0", &[("NOTICE", "notice"), ("LICENSE", "apache"), ("README.md", "no")])?,
            make("d", "ISC", &[])?,
            Crate { checksum: None, ..make("ours", "MIT", &[("LICENSE", "ours")])? },
        ];
        let text = write(&crates)?;
        assert_eq!(text.matches("mit\nwords").count(), 1);
        assert!(text.contains("a 1.0.0 (MIT OR Apache-2.0), https://crates.io\nb 1.0.0 (Apache-2.0 OR MIT)"));
        assert!(text.contains("notice") && text.contains("apache") && text.contains("Copyright (c) Ada"));
        for absent in ["long", "README", "ours", "no\n"] {
            assert!(!text.contains(absent), "{absent}");
        }
        Ok(())
    }
}
