//! A small Azure and a user in front of it: an emulator in this process, a home folder, and commands that see nothing
//! else. It leaves out what the tests do with them.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bastide_emulator::{Emulator, Options, Scenario, Transcript};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{Outcome, Program, Tunnel};

/// The subscription of the emulator's default scenario.
pub const SUBSCRIPTION: &str = "22222222-2222-4222-8222-222222222222";

/// Its resource group.
pub const GROUP: &str = "demo";

/// An emulator and a user's home. Dropping it checks the emulator's verdict.
pub struct Lab {
    // In the order in which they go.
    emulator: Option<Emulator>,
    runtime: Runtime,
    home: TempDir,
    _state: TempDir,
    forgiving: bool,
}

impl Lab {
    /// With the emulator's default scenario.
    pub fn new() -> Self {
        Self::with_scenario(Scenario::default())
    }

    /// With sections of a scenario (see `scenario.example.toml` of the emulator); what is left out is the default.
    pub fn with(toml: &str) -> Self {
        Self::with_scenario(Scenario::parse(toml).unwrap())
    }

    /// With one VM, `box` at 10.0.0.4, and what answers on its ports, in the words of a scenario.
    pub fn with_box(ports: &str) -> Self {
        let private_ip = "10.0.0.4";
        Self::with(&format!(
            "[[virtual_machines]]\nname = \"box\"\nprivate_ip = \"{private_ip}\"\nports = {{ {ports} }}\n"
        ))
    }

    /// With two VMs of the name `box` and built-in SSH servers: one in `demo`, one in the group `other`.
    pub fn with_twins() -> Self {
        Self::with(
            r#"
            [[virtual_machines]]
            name = "box"
            private_ip = "10.0.0.4"
            ports = { 22 = "ssh" }
            [[virtual_machines]]
            name = "box"
            group = "other"
            private_ip = "10.0.0.5"
            ports = { 22 = "ssh" }
            "#,
        )
    }

    fn with_scenario(scenario: Scenario) -> Self {
        // The one guard that every test passes: nothing here can reach a real cloud.
        let imds = std::env::var("BASTIDE_IMDS_ENDPOINT").unwrap_or_default();
        assert_eq!(
            imds, "https://localhost:9",
            "run the tests by `cargo xtask test`: it keeps them on this machine"
        );
        let runtime = Runtime::new().unwrap();
        let state = short_folder();
        let options = Options { state: state.path().into(), scenario, ..Options::default() };
        let emulator = runtime.block_on(Emulator::start(options)).unwrap();
        Self { emulator: Some(emulator), runtime, home: short_folder(), _state: state, forgiving: false }
    }

    /// Lets broken rules and unreleased tokens pass: for tests of what breaks them on purpose.
    pub fn forgive(&mut self) {
        self.forgiving = true;
    }

    /// The emulator.
    pub fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().expect("it lives as long as the lab")
    }

    /// What the emulator saw.
    pub fn transcript(&self) -> Transcript {
        self.emulator().transcript()
    }

    /// Waits until the transcript meets a condition.
    pub fn wait_for(&self, condition: impl FnMut(&Transcript) -> bool) {
        let limit = Duration::from_secs(60);
        let waiting = async { tokio::time::timeout(limit, self.emulator().wait_for(condition)).await };
        assert!(self.runtime.block_on(waiting).is_ok(), "never so: {:#?}", self.transcript());
    }

    /// Waits until every token that was minted has been given back: what runs in the background may still be at it.
    pub fn wait_for_releases(&self) {
        self.wait_for(|transcript| transcript.unreleased().next().is_none());
    }

    /// The user's home folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Makes a file in the home folder.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A private key that every built-in SSH server accepts.
    pub fn key(&self) -> PathBuf {
        self.emulator().state().join("id_ed25519")
    }

    /// The home folder, on the built-in SSH server of a VM, of its user.
    pub fn vm_home(&self, name: &str) -> PathBuf {
        self.emulator().state().join("vms").join(name)
    }

    /// The id of a VM.
    pub fn vm(&self, name: &str) -> String {
        format!("{}/Microsoft.Compute/virtualMachines/{name}", Self::providers())
    }

    /// The id of a scale-set instance.
    pub fn instance(&self, set: &str, number: u32) -> String {
        let providers = Self::providers();
        format!("{providers}/Microsoft.Compute/virtualMachineScaleSets/{set}/virtualMachines/{number}")
    }

    fn providers() -> String {
        format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers")
    }

    /// The value of a variable of the emulator's environment.
    pub fn env(&self, name: &str) -> String {
        let found = self.emulator().env().into_iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("the emulator exports no {name}")).1
    }

    /// `bastide` with the emulator's environment and these words, where `{vm}` stands for the id of `web-01`.
    pub fn bastide(&self, line: &str) -> Program {
        self.program(binary("bastide")).words(&self.words(line))
    }

    /// The line with `{vm}` filled in.
    pub(crate) fn words(&self, line: &str) -> String {
        line.replace("{vm}", &self.vm("web-01"))
    }

    /// Any program with the emulator's environment and the lab's home, and `bastide` on its `PATH`.
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Program {
        let mut path = vec![binary("bastide").parent().unwrap().to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut program = Program::new(program)
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", self.home())
            .env("TMPDIR", self.home())
            .env("TERM", "dumb");
        for (name, value) in self.emulator().env() {
            program = program.env(name, value);
        }
        program.env("BASTIDE_IMDS_ENDPOINT", "https://localhost:9").folder(self.home())
    }

    /// Opens a tunnel on a free local port.
    pub fn tunnel(&self, target: &str, resource_port: u16) -> Tunnel {
        let command = self
            .bastide("tunnel --name bastion --resource-group demo")
            .args(["--target-resource-id", target])
            .args(["--resource-port", &resource_port.to_string()]);
        Tunnel::start(command)
    }

    /// Runs `bastide ssh` as the built-in server's user with its key, and a command for the VM.
    pub fn ssh(&self, target: &str, command: &str) -> Outcome {
        self.bastide("ssh --name bastion --resource-group demo --auth-type ssh-key --username azureuser")
            .arg("--target-resource-id")
            .arg(target)
            .arg("--ssh-key")
            .arg(self.key())
            .arg("--")
            .arg(command)
            .run()
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(emulator) = self.emulator.take() else { return };
        let (violations, sessions) = (emulator.violations(), emulator.sessions());
        self.runtime.block_on(emulator.shutdown());
        if std::thread::panicking() || self.forgiving {
            return;
        }
        let violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "rules of the protocol were broken: {violations:#?}");
        assert!(sessions.is_empty(), "tokens were not released: {sessions:#?}");
        assert_nothing_left(self.home.path());
    }
}

/// Private folders and sockets of `bastide` are below `TMPDIR`, which is the lab's home.
fn assert_nothing_left(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(!name.starts_with("bastide-"), "'{name}' was left behind");
    }
}

/// Below `/tmp` whatever `TMPDIR` is: the path of a Unix socket has 108 bytes (unix(7)).
fn short_folder() -> TempDir {
    tempfile::Builder::new().prefix("lab-").tempdir_in("/tmp").unwrap()
}

/// The folder of everything that is built: Cargo puts tests three folders below it.
pub(crate) fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().to_owned()
}

/// A program or library of the workspace that is not shipped: Cargo puts it two folders above the test.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is missing: `cargo xtask test` builds it first", path.display());
    path
}

/// The packages that `cargo xtask test` has made or was given: the archive as it unpacks in `prefix`, the wheel in
/// `python`.
pub fn packages() -> Option<PathBuf> {
    std::env::var_os("BASTIDE_TESTS_PACKAGES").map(PathBuf::from)
}

/// A plugin as it is shipped, or as it is built.
pub fn plugin(name: &str) -> PathBuf {
    let file = format!("{DLL_PREFIX}{name}{DLL_SUFFIX}");
    match packages() {
        Some(packages) => packages.join("prefix/lib/bastide").join(file),
        None => built(&file),
    }
}

/// A program as it is shipped; where there are no packages, because a developer runs one test by `cargo test`, as it is
/// built.
pub fn binary(name: &str) -> PathBuf {
    match packages() {
        Some(packages) => packages.join("prefix/bin").join(name),
        None => built(name),
    }
}
