//! `cargo xtask picture`: a terminal session, run for real against an Azure that runs here, as `docs/session.svg`. It
//! leaves out whether what is shown works: that is for the tests.

use anstyle::{AnsiColor, Style};
use anstyle_svg::Term;
use anyhow::{Context, Result};

use crate::environment::Home;
use crate::shell::{Shell, quoted};
use crate::sys::{Ask, Interrupts};
use crate::{cargo, needs};

/// What is typed. Each ends by itself; `false` in front of a failure that is meant to be seen.
const SESSION: &[&str] = &[
    "bastide list vms",
    "bastide ssh web-01 -- uname -sr",
    "bastide rsync web-01 -- -a site/ vm:site/ && bastide ssh web-01 -- ls site",
    "bastide exec db-01 --resource-port 5432 -- sh -c 'echo connect to $BASTIDE_HOST'",
    "bastide ssh old-01 -- uname -sr",
    "bastide doctor web-01",
];

/// A company with one hub and three machines.
const SCENARIO: &str = r#"
[[bastion_hosts]]
name = "hub"
group = "network"
dns_name = "localhost"

[[virtual_machines]]
name = "web-01"
private_ip = "10.0.0.4"
ports = { 22 = "ssh" }

[[virtual_machines]]
name = "db-01"
private_ip = "10.0.0.5"
ports = { 22 = "ssh", 5432 = "echo" }

[[virtual_machines]]
name = "old-01"
power = "deallocated"
private_ip = "10.0.0.6"
ports = { 22 = "ssh" }
"#;

/// Who signs in to the machines, and how: in the user's own files, so that the lines above are all that is typed.
const CONFIGURATION: &str = "[defaults]\nusername = \"azureuser\"\n";

/// Runs the session with the programs that the last `cargo build` of the whole workspace has made, and writes the picture.
pub(crate) fn run() -> Result<()> {
    needs::require(needs::DEMO)?;
    let root = cargo::root()?;
    let home = Home::new()?;
    let scenario = home.path().join("scenario.toml");
    std::fs::write(&scenario, SCENARIO)?;
    let interrupts = Interrupts::watch()?;
    let machine = Shell {
        home: &home,
        programs: cargo::programs()?,
        before: String::new(),
        interrupts: interrupts.clone(),
    };
    let mut emulator =
        machine.start("bastide-emulator --state \"$HOME/azure\" --scenario \"$HOME/scenario.toml\"")?;
    emulator.find("that it is ready", |line| line.starts_with("ready").then_some(()))?;

    let state = home.path().join("azure");
    let key = state.join("id_ed25519");
    let folder = home.path().join(".config/bastide");
    std::fs::create_dir_all(&folder)?;
    let configuration = format!("{CONFIGURATION}ssh-key = \"{}\"\n", key.display());
    std::fs::write(folder.join("config.toml"), configuration)?;
    let site = home.path().join("site");
    std::fs::create_dir_all(&site)?;
    std::fs::write(site.join("index.html"), "<h1>Hello</h1>\n")?;

    let before = format!(". {}", quoted(&state.join("env.sh").to_string_lossy()));
    let user = Shell { before, ..machine };
    let mut screen = String::new();
    let prompt = Style::new().fg_color(Some(AnsiColor::Green.into())).bold();
    for line in SESSION {
        let colourful = line.replace("bastide ", "bastide --color always ");
        // Whatever its status: a refusal is worth seeing too.
        let said = user.run(&format!("sh -c {}", quoted(&format!("{{ {colourful}; }} 2>&1; true"))))?;
        screen.push_str(&format!("{prompt}${prompt:#} {line}\n{}\n\n", said.join("\n").trim_end()));
    }
    emulator.stop(Ask::Terminate)?;
    let screen = screen.replace(&*home.path().to_string_lossy(), "~");
    let picture = root.join("docs").join("session.svg");
    std::fs::write(&picture, Term::new().render_svg(screen.trim_end()))
        .with_context(|| format!("cannot write {}", picture.display()))?;
    home.remove()?;
    eprintln!("wrote {}", picture.display());
    Ok(())
}
