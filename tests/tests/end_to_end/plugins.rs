//! Plugins: the example in C signs in to a real `sshd`, versions that differ get along, and each way to break the
//! contract gives its own error and leaves the program well. It leaves out Key Vault.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bastide_tests::{Lab, Program};

use crate::sign_in::{self, token_program};
use crate::site::Site;

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn header() -> PathBuf {
    root().join("crates/plugin-abi/include")
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Compiles a C file below `plugins/` into a file of the lab's home.
fn compile(lab: &Lab, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let path = lab.home().join(name);
    let compiler =
        lab.program("cc").args(["-std=c11", "-g", "-fPIC", "-Wall", "-Wextra", "-pedantic", "-Werror"]);
    let compiler = compiler.arg("-o").arg(&path).arg(root().join("plugins").join(source));
    // A folder with another header comes before ours.
    compiler.args(flags).arg("-I").arg(header()).args(["-ldl", "-pthread"]).run().expect_code(0);
    mode(&path, 0o755);
    path
}

/// A plugin out of `bad.c`, by the name of its macro.
fn bad(lab: &Lab, name: &str, flags: &[&str]) -> PathBuf {
    let define = format!("-DBAD_{name}");
    compile(lab, "bad/bad.c", &format!("{name}.so"), &[&["-shared", define.as_str()], flags].concat())
}

/// Writes the configuration, which has to be nobody else's.
fn configure(lab: &Lab, text: &str) {
    let folder = lab.home().join(".config/bastide");
    std::fs::create_dir_all(&folder).unwrap();
    for path in [lab.home(), &lab.home().join(".config"), &folder] {
        mode(path, 0o700);
    }
    let file = folder.join("config.toml");
    std::fs::write(&file, text).unwrap();
    mode(&file, 0o600);
}

/// A configuration with one plugin.
fn one(lab: &Lab, path: &Path, more: &str) {
    configure(lab, &format!("[plugins.one]\npath = \"{}\"\n{more}\n", path.display()));
}

// RFC 8032 §7.1, test 1: the secret key within PKCS #8 (RFC 8410 §7), and the public one as SSH has it (RFC 8709).
const SECRET: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea example";

/// A VM that the example signs in to.
fn example() -> Site {
    let site = Site::with_config("ExposeAuthInfo yes");
    site.sshd.authorize(PUBLIC);
    let lab = &site.lab;
    let library = compile(lab, "example-c/example.c", "example.so", &["-shared", "-lcrypto"]);
    let key = lab.file("key.pem", SECRET);
    let config = format!("config = {{ key = \"{}\", user = \"{}\" }}", key.display(), site.sshd.user());
    one(lab, &library, &config);
    site
}

fn ssh(site: &Site) -> Program {
    let line = "ssh --name bastion --resource-group demo --auth-type plugin:one --target-resource-id";
    site.lab.bastide(line).arg(site.target())
}

/// Says what the server has accepted.
const HOW: &str = "cat \"$SSH_USER_AUTH\"";

#[test]
fn the_example_in_c_signs_in_to_a_real_server() {
    let site = example();
    let outcome = ssh(&site).args(["--", "-F", "none", HOW]).run().expect_code(0);
    assert!(outcome.text().starts_with("publickey ssh-ed25519 "), "{outcome}");
    // The user's own keys and habits are no obstacle.
    let config = site.lab.file(
        "ssh_config",
        "Host *\n  IdentitiesOnly yes\n  PreferredAuthentications password\n  PubkeyAcceptedAlgorithms ssh-rsa\n",
    );
    let outcome = ssh(&site).args(["-v", "--", "-F"]).arg(config).arg(HOW).run().expect_code(0);
    outcome.expect_stderr("plugin 'one': the sign-in is signed");
}

#[test]
fn files_are_copied_by_the_example_over_a_shared_connection() {
    let site = example();
    let lab = &site.lab;
    let config = lab.file(
        "ssh_config",
        format!(
            "Host *\n  ControlMaster auto\n  ControlPersist 60\n  ControlPath {}/master-%C\n",
            lab.home().display()
        ),
    );
    // The connection outlives the command, so a `bastide proxy` carries it.
    let ssh = |words: &[&str]| ssh(&site).args(["--", "-F"]).arg(&config).args(words).run();
    for word in ["one", "two"] {
        assert_eq!(ssh(&[&format!("echo {word}")]).expect_code(0).text(), format!("{word}\n"));
    }
    assert_eq!(lab.transcript().mints(), 1);
    let master = std::fs::read_dir(lab.home()).unwrap().flatten().map(|entry| entry.path());
    let master = master.into_iter().find(|path| path.to_string_lossy().contains("master-")).unwrap();
    let (from, to) = (lab.file("from", "by scp"), lab.home().join("to"));
    let control = format!("ControlPath={}", master.display());
    let scp = lab.program("scp").args(["-q", "-F", "none", "-o", &control, "-o", "ProxyCommand=false"]);
    scp.arg(&from).arg(format!("box:{}", to.display())).run().expect_code(0);
    assert_eq!(std::fs::read(to).unwrap(), b"by scp");
    ssh(&["-O", "exit"]).expect_code(0);
    lab.wait_for_releases();
}

#[test]
fn a_key_that_the_vm_does_not_know_is_explained() {
    let site = example();
    site.sshd.authorize("# nothing");
    let other = SECRET.replace("J1hsZ3v", "J1hsZ3w");
    site.lab.file("key.pem", other);
    let outcome = ssh(&site).args(["--", "-F", "none", "true"]).run().expect_code(255);
    outcome.expect_stderr("the VM did not take the key that plugin 'one' offers");
}

#[test]
fn a_plugins_token_opens_connections() {
    let lab = crate::identity::lab();
    // A token that the emulator has issued, as a plugin would have got it.
    let line = token_program(&lab);
    let program = lab.program("sh").args(["-c", &line]);
    let answer =
        program.env("BASTIDE_EXEC_SCOPE", "https://management.azure.com/.default").run().expect_code(0);
    let answer: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    let library = bad(&lab, "NOTHING", &[]);
    one(&lab, &library, &format!("config = {{ token = {}, tokn = 1 }}", answer["access_token"]));
    let outcome = lab.bastide(sign_in::CONNECT).args(["--credential", "plugin:one"]).run().expect_code(0);
    outcome.expect_stderr("plugin 'one' does not know the setting 'tokn'");
}

/// Ways to break the contract, the exit code, and what is said.
const BROKEN: &[(&str, i32, &str)] = &[
    ("NOTHING", 0, ""),
    ("TWICE", 10, "error: plugin 'one': it answered twice"),
    ("OTHER_THREAD", 10, "error: plugin 'one': it answered from another thread than it was called on"),
    ("SILENT", 10, "error: plugin 'one': it returned without an answer"),
    ("NULL", 10, "error: plugin 'one': it answered with NULL"),
    ("TEXT", 10, "error: plugin 'one': it answered with text that is not UTF-8"),
    ("OTHER_ANSWER", 10, "error: plugin 'one': it answered something else than it was asked"),
    ("SHORT_ANSWER", 10, "error: plugin 'one': it answered with a struct that is too short"),
    ("STDOUT", 0, "a plugin writes to standard output, which carries data only: it is thrown away"),
    ("OLD_CALL", 0, "a plugin used a call that is over: it is left aside"),
    ("MAJOR", 2, "it was built for version 2 of the plugin interface; this program has version 1"),
    ("SHORT", 2, "its table is too short: 24 bytes, where version 1.0 has 56"),
    ("NO_NAME", 2, "its table holds no name"),
    ("TABLE", 2, "bastide_plugin_v1 returned no table"),
    ("NEVER", 10, "it gave no answer within 1 s, and does not come back: its thread is left behind"),
    ("LATE", 10, "it gave no answer within 1 s, and does not come back: its thread is left behind"),
];

/// Has each of them give a token.
fn break_all(flags: &[&str], prepare: impl Fn(&Lab) -> Program) {
    let lab = Lab::new();
    for (name, code, said) in BROKEN {
        let library = bad(&lab, name, flags);
        one(&lab, &library, "time_limit = 1");
        let outcome = prepare(&lab).words("account --credential plugin:one").run().expect_code(*code);
        let outcome = outcome.expect_stderr(said);
        assert!(!outcome.text().contains("a line of the plugin's"), "{outcome}");
        for trouble in ["AddressSanitizer", "a fault of bastide", "Invalid read", "Invalid write"] {
            assert!(!outcome.stderr.contains(trouble), "{name}: {outcome}");
        }
    }
}

#[test]
fn each_broken_plugin_has_its_own_error() {
    break_all(&[], |lab| lab.bastide(""));
}

#[test]
fn broken_plugins_leave_memory_alone_as_addresssanitizer_sees_it() {
    let lab = Lab::new();
    let library = lab.program("cc").arg("-print-file-name=libasan.so").run().expect_code(0);
    let library = library.text().trim().to_owned();
    break_all(&["-fsanitize=address"], |lab| {
        lab.bastide("").env("LD_PRELOAD", &library).env("ASAN_OPTIONS", "detect_leaks=0")
    });
}

#[test]
fn valgrind_finds_nothing() {
    let lab = Lab::new();
    let valgrind = || {
        lab.program("valgrind")
            .words("--quiet --error-exitcode=99 --leak-check=no --num-callers=30")
            .arg(bastide_tests::binary("bastide"))
    };
    for (name, code) in [("NOTHING", 0), ("MAJOR", 2), ("SHORT", 2), ("TABLE", 2), ("NO_NAME", 2)] {
        let library = bad(&lab, name, &[]);
        valgrind().words("plugin check").arg(&library).run().expect_code(code);
    }
    for (name, code) in [("TWICE", 10), ("OTHER_THREAD", 10), ("STDOUT", 0), ("OLD_CALL", 0)] {
        one(&lab, &bad(&lab, name, &[]), "");
        valgrind().words("account --credential plugin:one").run().expect_code(code);
    }
}

#[test]
fn a_panic_is_an_error() {
    let lab = Lab::new();
    let library = bastide_tests::built("libbastide_bad_panics.so");
    let copy = lab.home().join("panics.so");
    std::fs::copy(library, &copy).unwrap();
    mode(&copy, 0o755);
    for (when, said) in [
        ("open", "error: plugin 'one': it panicked: plugins/bad-panics/src/lib.rs:"),
        ("call", ": no token for https://localhost:"),
    ] {
        one(&lab, &copy, &format!("config = {{ when = \"{when}\" }}"));
        let outcome = lab.bastide("account --credential plugin:one").run().expect_code(10);
        outcome.expect_stderr(said).expect_stderr("hint: report this to the author of the plugin");
    }
}

#[test]
fn what_may_not_be_loaded_is_not() {
    let lab = Lab::new();
    let check = |path: &Path, said: &[&str]| {
        let outcome = lab.bastide("plugin check -o json").arg(path).run().expect_code(2);
        let event: serde_json::Value = serde_json::from_str(outcome.text().trim()).unwrap();
        assert_eq!((&event["event"], &event["fit"]), (&"plugin".into(), &false.into()), "{event}");
        let reasons = event["reasons"].as_array().unwrap();
        assert_eq!(reasons.len(), said.len(), "{event}");
        for (reason, said) in reasons.iter().zip(said) {
            assert!(reason["message"].as_str().unwrap().contains(said), "{said}: {event}");
            assert!(!reason["hint"].as_str().unwrap().is_empty(), "{event}");
        }
        let outcome = lab.bastide("plugin check").arg(path).run().expect_code(2);
        assert!(outcome.text().contains("is not loaded\n") && outcome.text().contains(said[0]), "{outcome}");
    };
    let good = bad(&lab, "NOTHING", &[]);
    let outcome = lab.bastide("plugin check").arg(&good).run().expect_code(0);
    assert!(outcome.text().ends_with("/NOTHING.so: bad, plugin interface 1.0\n"), "{outcome}");
    let text = lab.file("text.so", "#!/bin/sh\n");
    check(&text, &["not a library"]);
    check(&lab.home().join("missing.so"), &["No such file"]);
    let folder = lab.home().join("folder");
    std::fs::create_dir(&folder).unwrap();
    mode(&folder, 0o755);
    check(&folder, &["is not a file"]);
    let source = lab.file("other.c", "int other(void);\nint other(void) { return 1; }\n");
    let other = compile(&lab, source.to_str().unwrap(), "other.so", &["-shared"]);
    check(&other, &["does not export bastide_plugin_v1"]);
    let program = lab.file("program.c", "int main(void) { return 0; }\n");
    let program = compile(&lab, program.to_str().unwrap(), "program", &[]);
    check(&program, &["it "]);
    // A library that needs what is not there does not end the program later.
    let source = lab.file(
        "needy.c",
        "void *missing_function(void);\nvoid *bastide_plugin_v1(void);\n\
         void *bastide_plugin_v1(void) { return missing_function(); }\n",
    );
    let needy = compile(&lab, source.to_str().unwrap(), "needy.so", &["-shared"]);
    check(&needy, &["missing_function"]);

    mode(&good, 0o777);
    check(&good, &["can be written by everybody (mode 0777)"]);
    mode(&text, 0o664);
    check(&text, &["can be written by its group (mode 0664)", "not a library"]);
    mode(&good, 0o755);
    mode(lab.home(), 0o1777);
    check(&good, &["can be written by everybody (mode 1777)"]);
    mode(lab.home(), 0o700);

    // The configuration names what is loaded: nobody else may write it either, nor may it lead anywhere by accident.
    one(&lab, &good, "");
    let list = lab.bastide("plugin list").run().expect_code(0);
    assert!(list.text().starts_with("one  /"), "{list}");
    mode(&lab.home().join(".config/bastide/config.toml"), 0o666);
    let outcome = lab.bastide("account --credential plugin:one").run().expect_code(2);
    outcome.expect_stderr("the configuration names plugins, so nobody else may change it");
    configure(&lab, "[plugins.one]\npath = \"NOTHING.so\"\n");
    let outcome = lab.bastide("account --credential plugin:one").run().expect_code(2);
    outcome.expect_stderr("'NOTHING.so' is not an absolute path");
    configure(&lab, "[plugin.one]\npath = \"NOTHING.so\"\n");
    let outcome = lab.bastide("plugin list").run().expect_code(2);
    outcome.expect_stderr("it may not hold 'plugin'").expect_stderr("hint: is 'plugins' meant?");
    configure(&lab, "");
    let outcome = lab.bastide("account --credential plugin:two").run().expect_code(2);
    outcome.expect_stderr("plugin 'two': the configuration has no such plugin");
}

#[test]
fn versions_that_differ_get_along() {
    let lab = Lab::new();
    // A later header: the next minor version, with a field more in each table.
    let later = lab.home().join("later");
    std::fs::create_dir(&later).unwrap();
    let text = std::fs::read_to_string(header().join("bastide_plugin.h")).unwrap();
    let mut longer = text.replace("#define BASTIDE_ABI (1 << 16)", "#define BASTIDE_ABI ((1 << 16) | 1)");
    for name in ["bastide_host", "bastide_plugin"] {
        longer = longer.replace(&format!("\n}} {name};"), &format!("\n    void (*later)(void);\n}} {name};"));
    }
    assert_eq!(longer.matches("(*later)").count(), 2);
    std::fs::write(later.join("bastide_plugin.h"), longer).unwrap();
    let include = format!("-I{}", later.display());

    let host = compile(&lab, "bad/host.c", "host", &[&include]);
    let old = bad(&lab, "NOTHING", &[]);
    let outcome = lab.program(&host).arg(&old).run().expect_code(0);
    assert_eq!(outcome.text(), "7 token-of-a-plugin 4102444800\n");

    let new = bad(&lab, "NOTHING", &[&include]);
    one(&lab, &new, "");
    let outcome = lab.bastide("plugin list").run().expect_code(0);
    assert!(outcome.text().ends_with("bad, plugin interface 1.1\n"), "{outcome}");
    lab.bastide("account --credential plugin:one").run().expect_code(0);
}

#[test]
fn a_question_without_a_terminal_is_said() {
    let lab = Lab::new();
    let skeleton = std::fs::read_to_string(root().join("xtask/templates/plugin.c")).unwrap();
    let source = lab.file("plugin.c", skeleton.replace("@NAME@", "skeleton"));
    let library = compile(&lab, source.to_str().unwrap(), "skeleton.so", &["-shared"]);
    one(&lab, &library, "");
    let line = "--wait bastide ssh -n bastion -g demo --auth-type plugin:one --target-resource-id {vm}";
    let line = line.replace("{vm}", &lab.vm("web-01"));
    let outcome = lab.program("setsid").words(&line).run().expect_code(10);
    outcome.expect_stderr("plugin 'one': nobody has answered its question 'password'");
}
