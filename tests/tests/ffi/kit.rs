//! An installation of the library in a folder of its own, and a compiler for programs that use it. It leaves out the
//! programs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bastide_tests::{Lab, Outcome, Program};
use tempfile::TempDir;

/// A small Azure, the library, and a C compiler.
pub(crate) struct Kit {
    pub(crate) lab: Lab,
    prefix: TempDir,
}

impl Kit {
    /// In front of one Bastion host, which is found by itself.
    pub(crate) fn new() -> Self {
        Self::with(Lab::with("[[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\n"))
    }

    /// In front of this Azure.
    pub(crate) fn with(lab: Lab) -> Self {
        let prefix = tempfile::Builder::new().prefix("prefix-").tempdir_in("/tmp").unwrap();
        let at = |name: &str| prefix.path().join(name);
        for folder in ["include", "lib/pkgconfig"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        symlink(root().join("crates/ffi/include/bastide.h"), at("include/bastide.h")).unwrap();
        symlink(built("libbastide_ffi.so"), at("lib/libbastide.so.0")).unwrap();
        symlink("libbastide.so.0", at("lib/libbastide.so")).unwrap();
        let template = std::fs::read_to_string(root().join("crates/ffi/bastide.pc.in")).unwrap();
        let filled = template
            .replace("@prefix@", prefix.path().to_str().unwrap())
            .replace("@libdir@", "${prefix}/lib")
            .replace("@version@", env!("CARGO_PKG_VERSION"));
        std::fs::write(at("lib/pkgconfig/bastide.pc"), filled).unwrap();
        Self { lab, prefix }
    }

    /// The folder of the libraries.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.prefix.path().join("lib")
    }

    /// What pkg-config says.
    fn flags(&self, arguments: &[&str]) -> Vec<String> {
        let program =
            self.lab.program("pkg-config").env("PKG_CONFIG_PATH", self.libraries().join("pkgconfig"));
        let outcome = program.args(arguments).arg("bastide").run().expect_code(0);
        outcome.text().split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles a program: an example, or one of `programs`.
    pub(crate) fn compile(&self, source: &str, flags: &[&str]) -> PathBuf {
        let linked = self.flags(&["--cflags", "--libs"]);
        let loader = format!("-Wl,-rpath,{}", self.libraries().display());
        let mut flags: Vec<&str> = flags.to_vec();
        flags.push(&loader);
        self.compile_with(source, &flags, &linked)
    }

    /// The same with the library inside of it.
    pub(crate) fn compile_static(&self, source: &str) -> PathBuf {
        symlink(built("libbastide_ffi.a"), self.libraries().join("libbastide.a")).unwrap();
        std::fs::remove_file(self.libraries().join("libbastide.so")).unwrap();
        self.compile_with(source, &[], &self.flags(&["--static", "--cflags", "--libs"]))
    }

    fn compile_with(&self, source: &str, flags: &[&str], linked: &[String]) -> PathBuf {
        let source = [root().join("crates/ffi/examples"), root().join("tests/tests/ffi/programs")]
            .into_iter()
            .map(|folder| folder.join(source))
            .find(|path| path.is_file())
            .unwrap_or_else(|| panic!("there is no {source}"));
        let (compiler, standard) = match source.extension().and_then(|end| end.to_str()) {
            Some("cpp") => ("c++", "-std=c++17"),
            _ => ("cc", "-std=c11"),
        };
        let program = self.lab.home().join(source.file_stem().unwrap());
        let mut command = self.lab.program(compiler).arg(standard).arg("-o").arg(&program);
        command = command.words("-D_POSIX_C_SOURCE=200809L -Wall -Wextra -pedantic -Werror -g -pthread");
        command.args(flags).arg(&source).args(linked).run().expect_code(0);
        program
    }

    /// A program with options for a port of `web-01`.
    pub(crate) fn for_port(&self, program: &Path, port: u16) -> Program {
        self.lab.program(program).args(self.options(port))
    }

    /// The options, as `KEY=VALUE`.
    pub(crate) fn options(&self, port: u16) -> [String; 4] {
        [
            "name=bastion".into(),
            "resource-group=demo".into(),
            format!("target-resource-id={}", self.lab.vm("web-01")),
            format!("resource-port={port}"),
        ]
    }

    /// An access token of the emulated Entra ID, as a program's own sign-in would have it.
    pub(crate) fn token(&self) -> String {
        let env = |name: &str| self.lab.env(name);
        let url = format!("{}/{}/oauth2/v2.0/token", env("AZURE_AUTHORITY_HOST"), env("AZURE_TENANT_ID"));
        let mut curl =
            self.lab.program("curl").words("--silent --fail --noproxy * --cacert").arg(env("SSL_CERT_FILE"));
        for (name, value) in [
            ("grant_type", "client_credentials".into()),
            ("client_id", env("AZURE_CLIENT_ID")),
            ("client_secret", env("AZURE_CLIENT_SECRET")),
            ("scope", format!("{}/.default", env("BASTIDE_CLOUD"))),
        ] {
            curl = curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        let answer: serde_json::Value =
            serde_json::from_str(&curl.arg(url).run().expect_code(0).text()).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// Compiles a program and runs it for a port of `web-01`: it has to succeed and be silent on standard error.
    pub(crate) fn run(&self, source: &str, port: u16) -> Outcome {
        let outcome = self.for_port(&self.compile(source, &[]), port).run().expect_code(0);
        assert_eq!(outcome.stderr, "", "the library prints nothing");
        outcome
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A library of the workspace: as one that the tests depend on, it is beside them.
pub(crate) fn built(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().parent().unwrap().join(name);
    assert!(path.is_file(), "{} is missing: `cargo xtask test` builds it first", path.display());
    path
}
