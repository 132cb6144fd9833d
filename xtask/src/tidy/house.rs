//! The rules for the crates: who may depend on whom, and what must not be in which.
//!
//! They are the invariants of ARCHITECTURE.md that would otherwise be only said. What a crate from
//! outside may be used by is in `deny.toml` as well, where cargo-deny sees through re-exports.

use super::code::{Forbidden, Tests};
use super::source::Source;
use super::{File, Finding, file};
use crate::cargo::{Kind, Package};

pub(super) fn check(packages: &[Package], sources: &[Source], files: &[File], findings: &mut Vec<Finding>) {
    for rule in [arrows, pure_core, one_way_out] {
        rule(packages, files, findings);
    }
    for source in sources {
        for rule in FORBIDDEN {
            rule.check(source, findings);
        }
    }
    let session = "crates/relay/src/session.rs";
    if file(files, session).is_none() && packages.iter().any(|package| package.name == "bastide-relay") {
        let mend = "the protocol's state is one file that neither waits nor reads a clock";
        findings.push(Finding::new(session, 1, "the session is sans-io", mend));
    }
}

/// Which of our crates each of our crates may depend on. What tests may use besides is
/// [`TESTS_MAY_USE`].
const ARROWS: &[(&str, &[&str])] = &[
    ("bastide-core", &[]),
    ("bastide-net", &[]),
    ("bastide-arm", &["bastide-core", "bastide-net"]),
    ("bastide-auth", &["bastide-core", "bastide-net", "bastide-plugin-abi"]),
    ("bastide-relay", &["bastide-core", "bastide-net"]),
    ("bastide", &["bastide-arm", "bastide-auth", "bastide-core", "bastide-net", "bastide-relay"]),
    ("bastide-cli", &["bastide"]),
    ("bastide-ffi", &["bastide"]),
    // It must not agree with the client by sharing its mistakes.
    ("bastide-emulator", &[]),
    // Plugins are built as others build theirs.
    ("bastide-keyvault", &["bastide-plugin-abi"]),
    ("bastide-bad-panics", &["bastide-plugin-abi"]),
    ("bastide-plugin-abi", &[]),
    ("bastide-tests", &["bastide", "bastide-emulator", "bastide-ffi"]),
    (
        "bastide-fuzz",
        &["bastide", "bastide-arm", "bastide-auth", "bastide-core", "bastide-net", "bastide-relay"],
    ),
    ("xtask", &["bastide-emulator"]),
];

/// The emulator is everybody's peer in tests; its own closure has none of our crates.
const TESTS_MAY_USE: &str = "bastide-emulator";

fn arrows(packages: &[Package], files: &[File], findings: &mut Vec<Finding>) {
    for package in packages {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            let mend = format!("say in xtask/src/tidy/house.rs which of our crates {} may use", package.name);
            findings.push(at_dependency(files, package, "name", "every crate has its place", mend));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let is_ours = packages.iter().any(|other| other.name == name);
            let is_peer =
                name == TESTS_MAY_USE && dependency.kind == Kind::Test && package.name != "bastide-core";
            if is_ours && !allowed.contains(&name) && !is_peer {
                let mend =
                    format!("{} must not depend on {name}: see the picture in ARCHITECTURE.md", package.name);
                findings.push(at_dependency(files, package, name, "the arrows between our crates", mend));
            }
        }
    }
}

/// Crates that bring sockets, clocks, tasks or chance.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-rustls",
    "tokio-tungstenite",
    "mio",
    "socket2",
    "hyper",
    "hyper-util",
    "reqwest",
    "rustls",
    "azure_core",
    "azure_identity",
    "rand",
    "getrandom",
    "fastrand",
    "rustix",
    "libc",
    "nix",
    "tempfile",
    "clap",
    "dirs",
];

fn pure_core(packages: &[Package], files: &[File], findings: &mut Vec<Finding>) {
    for package in packages.iter().filter(|package| package.name == "bastide-core") {
        for dependency in &package.dependencies {
            if IMPURE.contains(&dependency.name.as_str()) && dependency.kind != Kind::Test {
                let mend = format!("{} belongs to whoever calls core", dependency.name);
                findings.push(at_dependency(files, package, &dependency.name, "core is pure", mend));
            }
        }
    }
}

/// TLS and HTTP, which lead out of the process.
const WAYS_OUT: &[&str] =
    &["rustls", "tokio-rustls", "rustls-platform-verifier", "hyper", "hyper-util", "hyper-rustls", "reqwest"];

/// Crates with ends of their own: the other end of the wire, tests, and what a client is measured against.
const PEERS: &[&str] = &["bastide-emulator", "bastide-tests", "xtask"];

fn one_way_out(packages: &[Package], files: &[File], findings: &mut Vec<Finding>) {
    for package in packages {
        let name = package.name.as_str();
        if name == "bastide-net" || PEERS.contains(&name) {
            continue;
        }
        for dependency in &package.dependencies {
            if WAYS_OUT.contains(&dependency.name.as_str()) && dependency.kind != Kind::Test {
                let mend = format!("use what bastide-net offers instead of {}", dependency.name);
                findings.push(at_dependency(
                    files,
                    package,
                    &dependency.name,
                    "net is the only way out",
                    mend,
                ));
            }
        }
    }
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        rule: "core is pure",
        words: &[
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "ToSocketAddrs",
            "std::fs",
            "fs::File",
            "std::env",
            "env::var",
            "std::process",
            "process::Command",
            "std::thread",
            "SystemTime::now",
            "Instant::now",
            "now_utc(",
            "now_local(",
            "new_v4(",
            "println!",
            "eprintln!",
        ],
        within: &["crates/core/src/"],
        except: &[],
        tests: Tests::LetThrough,
        mend: "let the caller do it and hand over what came of it",
        sample: "let now = std::time::Instant::now();",
    },
    Forbidden {
        rule: "net is the only way out",
        words: &["TcpStream::connect", "TcpSocket::", "lookup_host(", "to_socket_addrs(", "UdpSocket::"],
        within: &["crates/"],
        except: &["crates/net/", "crates/emulator/"],
        tests: Tests::LetThrough,
        mend: "connect through bastide-net, where proxies, roots and time limits are",
        sample: "let stream = TcpStream::connect(address).await?;",
    },
    Forbidden {
        rule: "unsafe code where C is spoken",
        words: &["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern ", "#[unsafe("],
        within: &[],
        except: &["crates/plugin-abi/", "crates/auth/src/plugin/", "crates/ffi/src/"],
        tests: Tests::AsEverything,
        mend: "a library that is kept well has a safe way to it",
        sample: "let byte = unsafe { *pointer };",
    },
    Forbidden {
        rule: "the session is sans-io",
        words: &["tokio::net", "tokio::io", "tokio::time", "tokio::{", "Instant::now", "async fn"],
        within: &["crates/relay/src/session.rs", "crates/relay/src/session/"],
        except: &[],
        tests: Tests::AsEverything,
        mend: "the session is told what came and what time it is; the pump does the rest",
        sample: "use tokio::time::Instant;",
    },
];

/// A finding on the line of a package's `Cargo.toml` that declares `key`.
fn at_dependency(
    files: &[File],
    package: &Package,
    key: &str,
    rule: &'static str,
    mend: impl Into<String>,
) -> Finding {
    let path = format!("{}/Cargo.toml", package.folder);
    let text = file(files, &path).map(|file| file.text.as_str()).unwrap_or_default();
    let declares = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    let line = text.lines().position(declares).map_or(1, |index| index + 1);
    Finding::new(&path, line, rule, mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::Dependency;

    fn package(name: &str, dependencies: &[(&str, Kind)]) -> Package {
        Package {
            name: name.to_owned(),
            folder: format!("crates/{}", name.trim_start_matches("bastide-")),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency {
                    name: (*name).to_owned(),
                    kind: *kind,
                    ..Dependency::default()
                })
                .collect(),
        }
    }

    fn session() -> File {
        File { path: "crates/relay/src/session.rs".to_owned(), text: "//! The session.\n".to_owned() }
    }

    fn rules(packages: &[Package]) -> Vec<&'static str> {
        let mut findings = Vec::new();
        check(packages, &[], &[session()], &mut findings);
        findings.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn bad_crates() {
        use Kind::{Build, Normal, Test};
        for (name, dependency, kind, rule) in [
            ("bastide-core", "bastide-net", Normal, "the arrows between our crates"),
            ("bastide-core", "bastide-emulator", Test, "the arrows between our crates"),
            ("bastide-net", "bastide-core", Normal, "the arrows between our crates"),
            ("bastide-relay", "bastide-arm", Normal, "the arrows between our crates"),
            ("bastide-relay", "bastide-emulator", Normal, "the arrows between our crates"),
            ("bastide-emulator", "bastide-core", Test, "the arrows between our crates"),
            ("bastide-cli", "bastide-relay", Normal, "the arrows between our crates"),
            ("bastide-core", "tokio", Normal, "core is pure"),
            ("bastide-core", "rand", Build, "core is pure"),
            ("bastide-arm", "hyper", Normal, "net is the only way out"),
            ("bastide-cli", "rustls", Normal, "net is the only way out"),
            ("bastide-surprise", "serde", Normal, "every crate has its place"),
        ] {
            let others = ["bastide-core", "bastide-net", "bastide-arm", "bastide-relay", "bastide-emulator"];
            let mut packages: Vec<Package> =
                others.iter().filter(|other| **other != name).map(|other| package(other, &[])).collect();
            packages.push(package(name, &[(dependency, kind)]));
            assert_eq!(rules(&packages), [rule], "{name} on {dependency}");
        }
    }

    #[test]
    fn good_crates() {
        use Kind::{Normal, Test};
        let packages = [
            package("bastide-core", &[("serde", Normal), ("proptest", Test), ("tokio", Test)]),
            package("bastide-net", &[("hyper", Normal), ("rustls", Normal)]),
            package(
                "bastide-relay",
                &[("bastide-core", Normal), ("tokio", Normal), ("bastide-emulator", Test)],
            ),
            package("bastide-emulator", &[("hyper", Normal), ("tokio-rustls", Normal)]),
        ];
        assert_eq!(rules(&packages), [] as [&str; 0]);
    }

    #[test]
    fn the_session_is_where_it_belongs() {
        let mut findings = Vec::new();
        check(&[package("bastide-relay", &[])], &[], &[], &mut findings);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn forbidden_words_are_found_where_they_are_forbidden() {
        for rule in FORBIDDEN {
            let inside = match rule.within {
                ["crates/"] => "crates/relay/src/pump.rs",
                [path, ..] => path,
                [] => "any.rs",
            };
            let outside = match rule.within {
                [] => rule.except,
                _ => &["crates/net/src/connect.rs", "xtask/src/main.rs"],
            };
            for (path, count) in outside.iter().map(|path| (*path, 0)).chain([(inside, 1)]) {
                let mut findings = Vec::new();
                rule.check(&Source::new(path, rule.sample), &mut findings);
                assert_eq!(findings.len(), count, "{} in {path}", rule.rule);
            }
        }
    }

    #[test]
    fn findings_name_the_line_of_the_dependency() {
        let manifest = File {
            path: "crates/arm/Cargo.toml".to_owned(),
            text: "[dependencies]\nhyper-util.workspace = true\nhyper = { workspace = true }\n".to_owned(),
        };
        let mut findings = Vec::new();
        one_way_out(&[package("bastide-arm", &[("hyper", Kind::Normal)])], &[manifest], &mut findings);
        assert_eq!(findings.first().map(|finding| finding.line), Some(3));
    }
}
