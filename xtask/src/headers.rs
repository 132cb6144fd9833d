//! `cargo xtask headers`: `bastide_plugin.h` and `bastide.h`, written from the Rust that the loader and the library are built
//! with, so that the two can't part. It leaves out what stands in the comments; that is in the sources.

use std::path::Path;

use anyhow::{Context, Result};
use cbindgen::{Config, DocumentationStyle, Language, Style};

use crate::cargo;
use crate::reference::{PAGE, page};

/// Writes the headers anew.
pub(crate) fn run() -> Result<()> {
    let root = cargo::root()?;
    for header in HEADERS {
        let path = header.path;
        std::fs::write(root.join(path), header.text(&root)?)
            .with_context(|| format!("cannot write {path}"))?;
        eprintln!("{path} is written");
    }
    std::fs::write(root.join(PAGE), page(&LIBRARY.text(&root)?))
        .with_context(|| format!("cannot write {PAGE}"))?;
    eprintln!("{PAGE} is written");
    Ok(())
}

/// A header that is generated.
struct Header {
    /// Where it is, below the root.
    path: &'static str,
    sources: &'static [&'static str],
    /// Its types, by their names in Rust.
    types: &'static [&'static str],
    /// Its constants, by their names in Rust.
    constants: &'static [&'static str],
    opening: &'static str,
    closing: &'static str,
}

impl Header {
    fn text(&self, root: &Path) -> Result<String> {
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
            header: Some(self.opening.into()),
            trailer: Some(self.closing.into()),
            ..Config::default()
        };
        let names = self.types.iter().map(|name| ((*name).to_owned(), format!("bastide_{}", snake(name))));
        let constants = self.constants.iter().map(|name| ((*name).to_owned(), format!("BASTIDE_{name}")));
        config.export.rename = names.chain(constants).collect();
        config.export.include = self.types.iter().map(|name| (*name).to_owned()).collect();
        let mut builder = cbindgen::Builder::new().with_config(config);
        for source in self.sources {
            builder = builder.with_src(root.join(source));
        }
        let bindings = builder
            .generate()
            .with_context(|| format!("cbindgen cannot read the sources of {}", self.path))?;
        let mut bytes = Vec::new();
        bindings.write(&mut bytes);
        let text = String::from_utf8(bytes).context("cbindgen has written no text")?;
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        Ok(lines.join("\n").trim_end().to_owned() + "\n")
    }
}

const HEADERS: &[Header] = &[PLUGIN, LIBRARY];

const PLUGIN: Header = Header {
    path: "crates/plugin-abi/include/bastide_plugin.h",
    sources: &["crates/plugin-abi/src/raw.rs"],
    types: &[
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
    ],
    constants: &[
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
    ],
    opening: "\
/* What a sign-in plugin of bastide is made of. The contract, with an example, is docs/plugins.md.
 *
 * Text is UTF-8 that ends with NUL; NULL means that there is none. Bytes are a pointer and a length.
 * Whatever a function is given is good until it returns. Nobody frees what another has allocated.
 *
 * Written by `cargo xtask headers` from crates/plugin-abi/src/raw.rs: change that. */

#ifndef BASTIDE_PLUGIN_H
#define BASTIDE_PLUGIN_H",
    closing: "\
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
",
};

const LIBRARY: Header = Header {
    path: "crates/ffi/include/bastide.h",
    sources: &[
        "crates/ffi/src/api/error.rs",
        "crates/ffi/src/api/options.rs",
        "crates/ffi/src/api/client.rs",
        "crates/ffi/src/api/connection.rs",
        "crates/ffi/src/api/tunnel.rs",
        "crates/ffi/src/api/event.rs",
        "crates/ffi/src/api/doctor.rs",
        "crates/ffi/src/api/version.rs",
    ],
    types: &[
        "Client",
        "Connection",
        "Error",
        "Event",
        "Finalizer",
        "LogFunction",
        "Options",
        "Report",
        "Statistics",
        "TokenCall",
        "TokenFunction",
        "Tunnel",
    ],
    constants: &[
        "ERROR_BASTION",
        "ERROR_CLOSED",
        "ERROR_FORKED",
        "ERROR_HOST_REFUSES",
        "ERROR_MISSING_RIGHT",
        "ERROR_MISUSE",
        "ERROR_NOT_THERE",
        "ERROR_OURS",
        "ERROR_SIGN_IN",
        "ERROR_TIMEOUT",
        "ERROR_UNREACHABLE",
        "ERROR_USAGE",
        "ERROR_VM",
        "LOG_DEBUG",
        "LOG_ERROR",
        "LOG_INFO",
        "LOG_TRACE",
        "LOG_WARN",
    ],
    opening: "\
/* bastide for C: connections to virtual machines behind Azure Bastion. docs/languages.md has examples.
 *
 * A function that can fail returns an error, which the caller frees, or NULL; places for answers are written on
 * success alone. Text is UTF-8 that ends with NUL. A pointer may be NULL where it says so; any other is good for
 * what it is used for until the function returns.
 *
 * What a function gives out by a place for a pointer is freed by the ..._free of its kind, once. A handle
 * is a number that is looked up: one that was freed, and one of another kind, is BASTIDE_ERROR_MISUSE. Text that
 * belongs to one is good until it is freed.
 *
 * Everything may be called on any thread. bastide_client_new, bastide_client_next_event, bastide_connect,
 * bastide_doctor and the functions named ..._open, ..._wait and ..._close may wait, and must not be called from a
 * callback: a function of the program's or a finalizer, on whatever thread. bastide_client_free waits, too, except in a
 * callback.
 *
 * Callbacks may run on any thread and several at once, and a slow one makes whoever needs its answer wait. They have to
 * return: neither an exception nor longjmp nor pthread_exit may leave them. A context has to be good until its finalizer
 * was called, once, when nobody has its function any more: that may be after the client was freed, when a function was
 * still being called. Without a finalizer it has to be good as long as the process.
 *
 * After a fork the child gets BASTIDE_ERROR_FORKED for what its parent has made. It may make clients of its own if no
 * other thread of its parent was in a function of the library at that time; else it may only exec (POSIX, fork). What
 * it has inherited, such as descriptors, it keeps open until it closes it or execs.
 *
 * Nothing is printed, no signal handler is installed, and the process never ends because of the library.
 *
 * Written by `cargo xtask headers` from crates/ffi/src/api: change that. */

#ifndef BASTIDE_H
#define BASTIDE_H",
    closing: "#endif /* BASTIDE_H */",
};

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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::cargo::root;

    #[test]
    fn the_headers_are_what_the_sources_say() -> Result<()> {
        for header in HEADERS {
            let committed = std::fs::read_to_string(root()?.join(header.path))?;
            assert!(
                committed == header.text(&root()?)?,
                "run `cargo xtask headers` and commit {}",
                header.path
            );
        }
        Ok(())
    }

    #[test]
    fn the_page_is_what_the_header_says() -> Result<()> {
        let committed = std::fs::read_to_string(root()?.join(PAGE))?;
        assert!(committed == page(&LIBRARY.text(&root()?)?), "run `cargo xtask headers` and commit {PAGE}");
        Ok(())
    }

    #[test]
    fn a_header_names_everything_and_nothing_by_its_name_in_rust() -> Result<()> {
        for header in HEADERS {
            let text = header.text(&root()?)?;
            for name in header.types {
                assert!(text.contains(&format!("bastide_{}", snake(name))), "{name}");
            }
            for name in header.constants {
                assert!(text.contains(&format!("#define BASTIDE_{name} ")), "{name}");
            }
            for source in header.sources {
                let source = std::fs::read_to_string(root()?.join(source))?;
                for line in source.lines() {
                    for start in ["pub struct ", "pub const ", "pub type "] {
                        if let Some(rest) = line.strip_prefix(start) {
                            let name = rest.split([' ', ':', ';']).next().unwrap_or_default();
                            assert!(
                                header.types.contains(&name) || header.constants.contains(&name),
                                "{name} is not in the header"
                            );
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Compiles a source that includes headers, without a warning.
    fn compile(compiler: &str, standard: &str, source: &str) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(if compiler == "cc" { "a.c" } else { "a.cpp" });
        std::fs::write(&file, source)?;
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]);
        command.arg(format!("-std={standard}"));
        for header in HEADERS {
            command.arg("-I").arg(root()?.join(header.path).parent().unwrap());
        }
        let output = command.arg(&file).output()?;
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    #[test]
    fn both_languages_take_them_without_a_warning() -> Result<()> {
        for (compiler, standard) in [("cc", "c11"), ("c++", "c++17")] {
            compile(
                compiler,
                standard,
                "#include \"bastide_plugin.h\"\n#include \"bastide_plugin.h\"\n\
                 static const bastide_plugin table = {\n    BASTIDE_ABI, sizeof(bastide_plugin), \"empty\", \
                 NULL, NULL, NULL, NULL, NULL\n};\n\
                 const bastide_plugin *bastide_plugin_v1(void) { return &table; }\n\
                 int has(const bastide_host *host);\n\
                 int has(const bastide_host *host) { return BASTIDE_HAS(host, bastide_host, answer_error); }\n",
            )?;
            // A plugin may be a program's own: both headers in one source.
            compile(
                compiler,
                standard,
                "#include \"bastide.h\"\n#include \"bastide_plugin.h\"\n#include \"bastide.h\"\n\
                 uint64_t sum(bastide_client *client);\n\
                 uint64_t sum(bastide_client *client) {\n    bastide_statistics statistics = {0, 0, 0, 0};\n\
                 bastide_error_free(bastide_client_statistics(client, &statistics, sizeof statistics));\n\
                 return statistics.sent + statistics.received + BASTIDE_ERROR_MISUSE + BASTIDE_LOG_WARN;\n}\n",
            )?;
        }
        Ok(())
    }
}
