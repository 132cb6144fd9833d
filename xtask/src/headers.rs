//! `cargo xtask headers`: `bastide_plugin.h`, written from the Rust that the loader is built with, so that the two can't
//! part. It leaves out what stands in the comments; that is `crates/plugin-abi/src/raw.rs`.

use std::path::Path;

use anyhow::{Context, Result};
use cbindgen::{Config, DocumentationStyle, Language, Style};

use crate::cargo;

/// Where it is, below the root.
const HEADER: &str = "crates/plugin-abi/include/bastide_plugin.h";
const SOURCE: &str = "crates/plugin-abi/src/raw.rs";

/// Writes the header anew.
pub(crate) fn run() -> Result<()> {
    let root = cargo::root()?;
    std::fs::write(root.join(HEADER), plugin(&root)?).with_context(|| format!("cannot write {HEADER}"))?;
    eprintln!("{HEADER} is written");
    Ok(())
}

/// The text of `bastide_plugin.h`.
fn plugin(root: &Path) -> Result<String> {
    let mut config = Config {
        language: Language::C,
        cpp_compat: true,
        style: Style::Both,
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::C99,
        line_length: 110,
        tab_width: 4,
        header: Some(OPENING.into()),
        trailer: Some(CLOSING.into()),
        ..Config::default()
    };
    let names = STRUCTS.iter().map(|name| ((*name).to_owned(), format!("bastide_{}", snake(name))));
    let constants = CONSTANTS.iter().map(|name| ((*name).to_owned(), format!("BASTIDE_{name}")));
    config.export.rename = names.chain(constants).collect();
    config.export.include = STRUCTS.iter().map(|name| (*name).to_owned()).collect();
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join(SOURCE))
        .generate()
        .with_context(|| format!("cbindgen cannot read {SOURCE}"))?;
    let mut bytes = Vec::new();
    bindings.write(&mut bytes);
    let text = String::from_utf8(bytes).context("cbindgen has written no text")?;
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    Ok(lines.join("\n").trim_end().to_owned() + "\n")
}

/// What is in the header, by its name in Rust.
const STRUCTS: &[&str] = &[
    "Call",
    "Host",
    "HttpAnswer",
    "HttpHeader",
    "HttpRequest",
    "OpenRequest",
    "Plugin",
    "Prompt",
    "SignIn",
    "SignInRequest",
    "SignRequest",
    "TokenRequest",
];
const CONSTANTS: &[&str] = &[
    "ABI",
    "ERROR_CANCELLED",
    "ERROR_INTERNAL",
    "ERROR_NETWORK",
    "ERROR_NOT_FOUND",
    "ERROR_REFUSED",
    "ERROR_RIGHT",
    "ERROR_SERVICE",
    "ERROR_SETTINGS",
    "ERROR_UNAVAILABLE",
    "ERROR_UNSUPPORTED",
    "LOG_DEBUG",
    "LOG_INFO",
    "LOG_WARN",
    "PROMPT_CHOICE",
    "PROMPT_SECRET",
    "PROMPT_TEXT",
    "TOKEN_FRESH",
];

fn snake(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

const OPENING: &str = "\
/* What a sign-in plugin of bastide is made of. The contract, with an example, is docs/plugins.md.
 *
 * Text is UTF-8 that ends with NUL; NULL means that there is none. Bytes are a pointer and a length.
 * Whatever a function is given is good until it returns. Nobody frees what another has allocated.
 *
 * Written by `cargo xtask headers` from crates/plugin-abi/src/raw.rs: change that. */

#ifndef BASTIDE_PLUGIN_H
#define BASTIDE_PLUGIN_H";

const CLOSING: &str = "\
/* Whether a struct or table that the other side has made is long enough to have a field. */
#define BASTIDE_HAS(pointer, type, field) \\
    ((pointer)->size >= offsetof(type, field) + sizeof((pointer)->field))

#if defined(_WIN32)
#define BASTIDE_EXPORT __declspec(dllexport)
#else
#define BASTIDE_EXPORT __attribute__((visibility(\"default\")))
#endif

#ifdef __cplusplus
extern \"C\" {
#endif

/* The one symbol of a plugin. It may be called on any thread, and returns the same table each time. */
BASTIDE_EXPORT const bastide_plugin *bastide_plugin_v1(void);

#ifdef __cplusplus
}
#endif

#endif /* BASTIDE_PLUGIN_H */
";

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::cargo::root;

    #[test]
    fn the_header_is_what_the_source_says() -> Result<()> {
        let committed = std::fs::read_to_string(root()?.join(HEADER))?;
        assert!(committed == plugin(&root()?)?, "run `cargo xtask headers` and commit {HEADER}");
        Ok(())
    }

    #[test]
    fn the_header_names_everything_and_nothing_by_its_name_in_rust() -> Result<()> {
        let text = plugin(&root()?)?;
        for name in STRUCTS {
            assert!(text.contains(&format!("bastide_{}", snake(name))), "{name}");
        }
        for name in CONSTANTS {
            assert!(text.contains(&format!("#define BASTIDE_{name} ")), "{name}");
        }
        let source = std::fs::read_to_string(root()?.join(SOURCE))?;
        for line in source.lines() {
            for start in ["pub struct ", "pub const ", "pub type "] {
                if let Some(rest) = line.strip_prefix(start) {
                    let name = rest.split([' ', ':', ';']).next().unwrap_or_default();
                    assert!(
                        STRUCTS.contains(&name) || CONSTANTS.contains(&name),
                        "{name} is not in the header"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn both_languages_take_it_without_a_warning() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for (compiler, standard, name) in [("cc", "c11", "a.c"), ("c++", "c++17", "a.cpp")] {
            let source = folder.path().join(name);
            std::fs::write(
                &source,
                "#include \"bastide_plugin.h\"\n#include \"bastide_plugin.h\"\n\
                 static const bastide_plugin table = {\n    BASTIDE_ABI, sizeof(bastide_plugin), \"empty\", \
                 NULL, NULL, NULL, NULL, NULL\n};\n\
                 const bastide_plugin *bastide_plugin_v1(void) { return &table; }\n\
                 int has(const bastide_host *host);\n\
                 int has(const bastide_host *host) { return BASTIDE_HAS(host, bastide_host, answer_error); }\n",
            )?;
            let output = Command::new(compiler)
                .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"])
                .arg(format!("-std={standard}"))
                .arg("-I")
                .arg(root()?.join(HEADER).parent().unwrap())
                .arg(&source)
                .output()?;
            assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
