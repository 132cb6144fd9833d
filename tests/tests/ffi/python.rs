//! The package for Python, as pip installs its wheel: on every Python that is there, with paramiko, asyncssh and psycopg.
//! It leaves out how the wheel is made.

use std::path::{Path, PathBuf};

use bastide_tests::{Lab, Postgres, Program};

use crate::kit::{Kit, root, shipped};

/// A script of `python`, with the package and the library.
pub(crate) fn script(kit: &Kit, python: &Path, name: &str) -> Program {
    let program =
        kit.lab.program(python).arg("-W").arg("error").arg(root().join("tests/tests/ffi/python").join(name));
    program
        .env("PYTHONPATH", shipped("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HEADER", shipped("prefix/include/bastide.h"))
        .env("VM", kit.lab.vm("web-01"))
        .env("KEY", kit.lab.key())
        .env("TOKEN", kit.token())
}

/// The one with the packages of tests/python-requirements.txt.
fn venv() -> PathBuf {
    bastide_tests::python("python3")
}

#[test]
fn the_package_declares_what_the_header_does() {
    let kit = Kit::new();
    script(&kit, &venv(), "header.py").run().expect_code(0);
}

#[test]
fn sockets_tunnels_streams_errors_and_the_rest_on_every_python() {
    let kit = Kit::new();
    let mut tried = 0;
    for name in ["python3", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13", "python3.14"]
    {
        let is_there = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join(name))
            .filter(|path| path.is_file())
            .find(|path| kit.lab.program(path).arg("-c").arg("import ssl, ctypes").run().code() == 0);
        if let Some(python) = is_there {
            script(&kit, &python, "basics.py").run().expect_code(0);
            tried += 1;
        }
    }
    assert!(tried > 0, "there is no Python: apt-get install python3");
}

#[test]
fn paramiko_and_asyncssh_sign_in_over_a_socket() {
    let kit = Kit::new();
    script(&kit, &venv(), "ssh.py").run().expect_code(0);
}

#[test]
fn psycopg_asks_a_database_through_a_tunnel() {
    let database = Postgres::start();
    let ports = format!("5432 = \"127.0.0.1:{}\"", database.port());
    let vm = format!(
        "[[virtual_machines]]\nname = \"web-01\"\nprivate_ip = \"10.0.0.4\"\nports = {{ {ports} }}\n"
    );
    let kit = Kit::with(Lab::with(&vm));
    let script = script(&kit, &venv(), "database.py");
    script.env("PGUSER", Postgres::USER).env("PGPASSWORD", Postgres::PASSWORD).run().expect_code(0);
}

#[test]
fn the_types_are_sound() {
    let kit = Kit::new();
    let check = kit.lab.program(venv()).words("-m mypy --strict --no-incremental --cache-dir=/dev/null");
    check.arg(shipped("python/bastide")).run().expect_code(0);
}
