//! The library as its packages install it, and a compiler for programs that use it. It leaves out the programs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bastide_tests::{Lab, Outcome, Program, packages};

/// A small Azure, the library, and a C compiler.
pub(crate) struct Kit {
    pub(crate) lab: Lab,
}

impl Kit {
    /// In front of one Bastion host, which is found by itself.
    pub(crate) fn new() -> Self {
        Self::with(Lab::with("[[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\n"))
    }

    /// In front of this Azure.
    pub(crate) fn with(lab: Lab) -> Self {
        Self { lab }
    }

    /// What pkg-config says.
    fn flags(&self, arguments: &[&str]) -> Vec<String> {
        let program = self.lab.program("pkg-config").env("PKG_CONFIG_PATH", shipped("prefix/lib/pkgconfig"));
        let outcome = program.args(arguments).arg("bastide").run().expect_code(0);
        outcome.text().split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles a program: an example, or one of `programs`.
    pub(crate) fn compile(&self, source: &str, flags: &[&str]) -> PathBuf {
        let linked = self.flags(&["--cflags", "--libs"]);
        let loader = format!("-Wl,-rpath,{}", shipped("prefix/lib").display());
        let mut flags: Vec<&str> = flags.to_vec();
        flags.push(&loader);
        self.compile_with(source, &flags, &linked)
    }

    /// The same with the library inside of it.
    pub(crate) fn compile_static(&self, source: &str) -> PathBuf {
        // Where there is no shared one, the linker takes the other.
        let folder = self.lab.home().join("static");
        std::fs::create_dir(&folder).unwrap();
        symlink(shipped("prefix/lib/libbastide.a"), folder.join("libbastide.a")).unwrap();
        let first = format!("-L{}", folder.display());
        self.compile_with(source, &[&first], &self.flags(&["--static", "--cflags", "--libs"]))
    }

    fn compile_with(&self, source: &str, flags: &[&str], linked: &[String]) -> PathBuf {
        let source = [shipped("prefix/share/doc/bastide/examples"), root().join("tests/tests/ffi/programs")]
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

/// A file of the packages.
pub(crate) fn shipped(path: &str) -> PathBuf {
    let packages = packages()
        .unwrap_or_else(|| panic!("no packages: `cargo xtask test -- --test ffi` makes them first"));
    let path = packages.join(path);
    assert!(path.exists(), "{} is missing", path.display());
    path
}
