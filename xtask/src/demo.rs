//! `cargo xtask demo`: a real SSH session and a real file copy through an Azure that runs here.
//!
//! Everything a user would type is shown and run as shown, by `sh`, with the emulator's `env.sh`
//! sourced, in a temporary home. Nothing is left afterwards, at Ctrl-C and on failure too: no
//! process, no folder, no token; the last step looks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::environment::Home;
use crate::shell::{Shell, quoted};
use crate::steps::Steps;
use crate::sys::{self, Ask, Interrupts};
use crate::{cargo, needs};

/// Builds the two programs, then shows them.
pub(crate) fn run() -> Result<()> {
    needs::require(needs::DEMO)?;
    let root = cargo::root()?;
    let interrupts = Interrupts::watch()?;
    let mut steps = Steps::default();
    let result = steps
        .take("build bastide and its emulator", || build(&root, &interrupts))
        .and_then(|()| show(&interrupts, &mut steps));
    eprint!("\n{}", steps.summary());
    result
}

/// Shows the programs that the last `cargo build` of the whole workspace has made.
pub(crate) fn with_programs_that_are_built() -> Result<()> {
    needs::require(needs::DEMO)?;
    let mut steps = Steps::default();
    let result = show(&Interrupts::watch()?, &mut steps);
    eprint!("\n{}", steps.summary());
    result
}

fn build(root: &Path, interrupts: &Interrupts) -> Result<()> {
    let result = cargo::run(cargo::command(
        root,
        &["build", "--locked", "--package", "bastide-cli", "--package", "bastide-emulator", "--bins"],
    ));
    interrupts.check()?;
    result
}

fn show(interrupts: &Interrupts, steps: &mut Steps) -> Result<()> {
    let home = Home::new()?;
    let shown = play(&home, interrupts, steps);
    // Whatever happened: what was started has been stopped when `play` returned.
    let cleaned = steps.take("look for what is left", || nothing_is_left(home));
    match shown {
        Ok(story) => {
            cleaned?;
            eprint!("\n{story}");
            Ok(())
        }
        Err(error) => {
            if let Err(also) = cleaned {
                eprintln!("error: {also:#}");
            }
            Err(error)
        }
    }
}

/// The demo itself; returns what happened, for the reader who comes back from a cup of tea.
fn play(home: &Home, interrupts: &Interrupts, steps: &mut Steps) -> Result<String> {
    let machine =
        Shell { home, programs: cargo::programs()?, before: String::new(), interrupts: interrupts.clone() };

    let (emulator, url) = steps.take("start an Azure: Entra ID, ARM, a Bastion host, a VM", || {
        let mut emulator = machine.start("bastide-emulator --state \"$HOME/azure\" -o json")?;
        let url = emulator.find("that it is ready", |line| {
            let event = event(line, "ready")?;
            Some(event.get("url")?.as_str()?.to_owned())
        })?;
        Ok((emulator, url))
    })?;

    let environment = home.path().join("azure").join("env.sh");
    let user = Shell { before: format!(". {}", quoted(&environment.to_string_lossy())), ..machine };

    let uname = steps.take("an SSH session through Bastion", || {
        let lines = user.run(&format!(
            "bastide ssh {TARGET} \\\n    --auth-type ssh-key --username azureuser \
             --ssh-key \"$BASTIDE_EMULATOR_STATE/id_ed25519\" \\\n    -- 'uname -sr; hostname; echo \"{HELLO}\"'"
        ))?;
        ensure!(lines.iter().any(|line| line == HELLO), "the VM did not say {HELLO:?}");
        Ok(lines.into_iter().next().unwrap_or_default())
    })?;

    let (tunnel, port) = steps.take("a tunnel to port 22 of the VM", || {
        let mut tunnel =
            user.start(&format!("bastide tunnel {TARGET} \\\n    --resource-port 22 --port 0 -o json"))?;
        let port = tunnel.find("that it is ready", |line| {
            let event = event(line, "ready")?;
            event.get("address")?.as_str()?.rsplit_once(':')?.1.parse::<u16>().ok()
        })?;
        Ok((tunnel, port))
    })?;

    steps.take("copy a file there and back with scp", || {
        std::fs::write(home.path().join("sent"), noise(FILE_SIZE)).context("cannot write a file to copy")?;
        let scp = format!(
            "scp -q -F /dev/null -P {port} -i \"$BASTIDE_EMULATOR_STATE/id_ed25519\" \\\n    \
             -o UserKnownHostsFile=\"$HOME/known_hosts\" -o StrictHostKeyChecking=accept-new \\\n   "
        );
        user.run(&format!("{scp} sent azureuser@127.0.0.1:kept"))?;
        user.run(&format!("{scp} azureuser@127.0.0.1:kept came-back"))?;
        let sums = user.run("cksum sent came-back")?;
        let sums: Vec<&str> =
            sums.iter().filter_map(|line| line.rsplit_once(' ')).map(|(sum, _)| sum).collect();
        ensure!(matches!(sums.as_slice(), [one, other] if one == other), "the file came back different");
        Ok(())
    })?;

    steps.take("Ctrl-C in the tunnel", || {
        let (status, _) = tunnel.stop(Ask::Interrupt)?;
        // The exit code of SIGINT, after everything was released.
        ensure!(status.code() == Some(130), "the tunnel ended with {status}, not with exit code 130");
        Ok(())
    })?;

    let verdict = steps.take("ask that Azure what it has seen", || {
        let (status, lines) = emulator.stop(Ask::Terminate)?;
        ensure!(status.success(), "the emulator failed ({status})");
        let stopped = lines.iter().rev().find_map(|line| event(line, "stopped"));
        judge(&stopped.context("the emulator did not say what it has seen")?)
    })?;

    Ok(format!(
        "An Azure of its own ran at {url}. A real `ssh` talked to a VM behind its Bastion host ({uname}),\n\
         `scp` carried {} MiB there and back through a tunnel, unchanged. {verdict}\n\
         No process and no file is left.\n",
        FILE_SIZE >> 20
    ))
}

/// What the emulator has to say against the client: nothing.
fn judge(stopped: &Value) -> Result<String> {
    let number = |key: &str| {
        stopped.get(key).and_then(Value::as_u64).with_context(|| format!("the emulator did not say {key:?}"))
    };
    let (sessions, mints, releases) = (number("sessions")?, number("mints")?, number("releases")?);
    let violations =
        stopped.get("violations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if let [first, ..] = violations {
        bail!("{} violations of the protocol, the first: {first}", violations.len());
    }
    ensure!(
        sessions == 0 && mints == releases,
        "{mints} tokens minted, {releases} released, {sessions} left"
    );
    // One for the session and one for each of the two copies, at least.
    ensure!(mints >= 3, "only {mints} tokens were minted: something did not go through Bastion");
    Ok(format!("{mints} tokens minted, {releases} released: 0 tokens left, 0 violations."))
}

fn nothing_is_left(home: Home) -> Result<()> {
    let folder = home.path().to_string_lossy().into_owned();
    // A child of what was just stopped may still be on its way out.
    let deadline = Instant::now() + LAST_BREATH;
    let mut processes = sys::processes_with(&folder);
    while !processes.is_empty() && Instant::now() < deadline {
        std::thread::sleep(LAST_BREATH / 100);
        processes = sys::processes_with(&folder);
    }
    let files: Vec<String> = std::fs::read_dir(home.temporary())
        .context("cannot look into the temporary folder")?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    home.remove()?;
    ensure!(processes.is_empty(), "processes are left:\n    {}", processes.join("\n    "));
    ensure!(files.is_empty(), "temporary files were left: {}", files.join(", "));
    Ok(())
}

/// The event of that name, when the line is one.
fn event(line: &str, name: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event.get("event")?.as_str()? == name).then_some(event)
}

/// Pseudo-random bytes (xorshift, Marsaglia 2003): no zeros to be compressed, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

const TARGET: &str = "--name bastion --resource-group demo \\\n    --target-resource-id \
    \"/subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/demo/providers/Microsoft.Compute/virtualMachines/web-01\"";
const HELLO: &str = "hello from the other side";
/// Enough for a thousand frames of 4,096 bytes each way, little enough for a slow machine.
const FILE_SIZE: usize = 4 << 20;
/// Many times what a process takes to end that has lost its parent and its connection.
const LAST_BREATH: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn judges_by_what_the_emulator_has_seen() {
        let clean = json!({"event": "stopped", "sessions": 0, "violations": [], "mints": 4, "releases": 4});
        assert!(judge(&clean).is_ok_and(|verdict| verdict.contains("0 tokens left, 0 violations")));
        for (change, complaint) in [
            (json!({"violations": ["token released twice"]}), "token released twice"),
            (json!({"releases": 3}), "4 tokens minted, 3 released"),
            (json!({"sessions": 1}), "1 left"),
            (json!({"mints": 0, "releases": 0}), "did not go through Bastion"),
            (json!({"mints": null}), "did not say"),
        ] {
            let mut stopped = clean.clone();
            for (key, value) in change.as_object().into_iter().flatten() {
                stopped[key] = value.clone();
            }
            let error = judge(&stopped).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn reads_events() {
        let line = r#"{"event":"ready","address":"127.0.0.1:4711"}"#;
        assert!(event(line, "ready").is_some());
        for other in [r#"{"event":"stopped"}"#, "Opening tunnel on port: 4711", "{}", "[]"] {
            assert!(event(other, "ready").is_none(), "{other}");
        }
    }

    #[test]
    fn noise_has_the_length_that_was_asked_for() {
        assert_eq!(noise(13).len(), 13);
        assert_eq!(noise(64), noise(64));
    }
}
