//! `docs/c-api.md`: the comments of `bastide.h` as a page to read. It leaves out examples, which are in `docs/languages.md`.

use std::fmt::Write as _;

/// Where it is, below the root.
pub(crate) const PAGE: &str = "docs/c-api.md";

/// A declaration of the header, and the comment above it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Item {
    comment: Vec<String>,
    code: Vec<String>,
}

/// The page for a header.
pub(crate) fn page(header: &str) -> String {
    let items = items(header);
    let mut page = OPENING.to_owned();
    let lines: Vec<&str> = opening(header).collect();
    page.push_str(lines.join("\n").trim_end());
    page.push('\n');
    let constants = |prefix: &str| -> Vec<&Item> {
        let start = format!("#define BASTIDE_{prefix}_");
        items.iter().filter(|item| item.first().starts_with(&start)).collect()
    };
    for (title, prefix) in [("Codes of errors", "ERROR"), ("Levels of log lines", "LOG")] {
        table(&mut page, title, &constants(prefix));
    }
    let types: Vec<&Item> = items.iter().filter(|item| item.first().starts_with("typedef ")).collect();
    chapter(&mut page, "Types", &types);
    for (title, prefixes) in CHAPTERS {
        let belongs = |item: &&Item| prefixes.iter().any(|prefix| item.name().starts_with(prefix));
        let functions: Vec<&Item> = items
            .iter()
            .filter(|item| item.first().contains('(') && !types.contains(item))
            .filter(belongs)
            .collect();
        chapter(&mut page, title, &functions);
    }
    page
}

const OPENING: &str = "\
# The C interface

Written by `cargo xtask headers` from the comments of `bastide.h`: change those in `crates/ffi/src/api`.
[From your language](languages.md) has examples.

";

/// The functions of a chapter begin with one of these.
const CHAPTERS: &[(&str, &[&str])] = &[
    ("Errors", &["bastide_error_"]),
    ("Options", &["bastide_options_"]),
    ("Signing in by a function", &["bastide_token_call_"]),
    ("Clients", &["bastide_client_"]),
    ("Connections", &["bastide_connect"]),
    ("Tunnels", &["bastide_tunnel_"]),
    ("Events", &["bastide_event_"]),
    ("Reports", &["bastide_doctor", "bastide_report_"]),
    ("Version", &["bastide_version"]),
];

impl Item {
    fn first(&self) -> &str {
        self.code.first().map_or("", String::as_str)
    }

    /// The name of a function.
    fn name(&self) -> &str {
        let before = self.first().split('(').next().unwrap_or_default();
        before.rsplit([' ', '*']).next().unwrap_or_default()
    }
}

/// The header's first comment, behind its first line, without the lines about who wrote it.
fn opening(header: &str) -> impl Iterator<Item = &str> {
    header
        .lines()
        .skip_while(|line| *line != " *")
        .skip(1)
        .take_while(|line| !line.starts_with(" * Written by"))
        .map(|line| line.trim_start_matches(" *").trim_start())
}

/// Declarations that have a comment.
fn items(header: &str) -> Vec<Item> {
    let mut found = Vec::new();
    let mut item = Item::default();
    for line in header.lines().chain([""]) {
        if let Some(words) = line.strip_prefix("//").filter(|_| item.code.is_empty()) {
            item.comment.push(words.strip_prefix(' ').unwrap_or(words).to_owned());
        } else if line.is_empty() {
            if !item.comment.is_empty() && !item.code.is_empty() {
                found.push(std::mem::take(&mut item));
            }
            item = Item::default();
        } else if !item.comment.is_empty() {
            item.code.push(line.to_owned());
        }
    }
    found
}

// Writing into a String cannot fail.

fn table(page: &mut String, title: &str, constants: &[&Item]) {
    let _ = write!(page, "\n## {title}\n\n| name | number | meaning |\n| --- | --- | --- |\n");
    for item in constants {
        let mut words = item.first().split(' ').skip(1);
        let (name, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let _ = writeln!(page, "| `{name}` | {number} | {} |", item.comment.join(" "));
    }
}

fn chapter(page: &mut String, title: &str, items: &[&Item]) {
    let _ = write!(page, "\n## {title}\n");
    for item in items {
        let _ = write!(page, "\n```c\n{}\n```\n\n{}\n", item.code.join("\n"), item.comment.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\
/* A library.
 *
 * What holds for all of it.
 *
 * Written by somebody. */

#ifndef BASTIDE_H

// Wrong
// use.
#define BASTIDE_ERROR_USAGE 2

// An event.
typedef struct bastide_event bastide_event;

#ifdef __cplusplus

// Its name.
//
// Good until then.
const char *bastide_event_name(const struct bastide_event *event,
                               int more);
";

    #[test]
    fn a_page_has_everything_in_its_place() {
        let page = page(HEADER);
        for part in [
            "\nWhat holds for all of it.\n",
            "| `BASTIDE_ERROR_USAGE` | 2 | Wrong use. |\n",
            "## Types\n\n```c\ntypedef struct bastide_event bastide_event;\n```\n\nAn event.\n",
            "## Events\n\n```c\nconst char *bastide_event_name(const struct bastide_event *event,\n",
            "int more);\n```\n\nIts name.\n\nGood until then.\n",
        ] {
            assert!(page.contains(part), "{part} is missing:\n{page}");
        }
        assert!(!page.contains("somebody") && page.ends_with("## Version\n"), "{page}");
    }
}
