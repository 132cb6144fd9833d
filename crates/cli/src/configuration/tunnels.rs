//! The file of `bastide up`: `[tunnels.NAME]`, each with the flags of `bastide tunnel` as keys. It leaves out opening
//! them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use clap::{ArgAction, Command};
use toml::Table;

use super::flags::{Layer, layer, of_command, one};
use super::{Wrong, inner, known, table_in, toml_table, wrong};
use crate::exit::Failure;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tunnels {
    /// `[health]` `listen`: where health and metrics are served.
    pub(crate) health: Option<SocketAddr>,
    /// By name: the words behind `bastide tunnel`.
    pub(crate) words: BTreeMap<String, Vec<String>>,
}

const KEYS: &[&str] = &["defaults", "health", "tunnels"];
const HEALTH_KEYS: &[&str] = &["listen"];
/// Keys of a tunnel that are no flags.
const TUNNEL_KEYS: &[&str] = &["target"];

/// Reads the file.
///
/// # Errors
/// Usage, for one that can't be read or means nothing.
pub(crate) fn read(path: &Path, command: &Command) -> Result<Tunnels, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(
            format!("the file '{shown}' cannot be read: {error}"),
            "see `bastide up --help` for an example",
        )
    })?;
    parse(&text, command)
        .map_err(|wrong| Failure::usage(format!("the file '{shown}': {}", wrong.message), wrong.hint))
}

fn parse(text: &str, command: &Command) -> Result<Tunnels, Wrong> {
    let table = toml_table(text)?;
    known("it", &table, KEYS)?;
    let flags = of_command(command, "tunnel");
    let defaults = match inner(&table, "defaults")? {
        Some(defaults) => layer("[defaults]", defaults, &flags, &[])?,
        None => Layer::new(),
    };
    let is_switch =
        |key: &str| flags.get(key).is_some_and(|(_, arg)| matches!(arg.get_action(), ArgAction::SetTrue));
    let mut tunnels = Tunnels { health: health(&table)?, words: BTreeMap::new() };
    for (name, value) in inner(&table, "tunnels")?.into_iter().flatten() {
        let place = format!("[tunnels.{name}]");
        let table = table_in(&place, value)?;
        let own = layer(&place, table, &flags, TUNNEL_KEYS)?;
        let Some(target) = table.get("target") else {
            return Err(wrong(
                format!("{place} has no target"),
                "add target = \"…\": a VM's name, id or private address",
            ));
        };
        let target = one(&place, "target", target)?;
        let named = |key: &str| own.contains_key(key) || defaults.contains_key(key);
        if !named("resource-port") && !named("forward") {
            return Err(wrong(
                format!("{place} names no port of the VM"),
                "add resource-port = … and port = …, or forward = [\"LOCAL:REMOTE\"]",
            ));
        }
        let mut words = Vec::new();
        let inherited = defaults.iter().filter(|(key, _)| !own.contains_key(*key));
        for (key, values) in inherited.chain(&own) {
            match (is_switch(key), values.as_slice()) {
                (true, [value]) if value == "true" => words.push(format!("--{key}")),
                (true, _) => {}
                (false, values) => words.extend(values.iter().map(|value| format!("--{key}={value}"))),
            }
        }
        words.push(target);
        tunnels.words.insert(name.clone(), words);
    }
    if tunnels.words.is_empty() {
        return Err(wrong("it has no tunnels", "[tunnels.NAME] begins one"));
    }
    Ok(tunnels)
}

fn health(table: &Table) -> Result<Option<SocketAddr>, Wrong> {
    let Some(health) = inner(table, "health")? else { return Ok(None) };
    known("[health]", health, HEALTH_KEYS)?;
    let Some(listen) = health.get("listen") else { return Ok(None) };
    let text = one("[health]", "listen", listen)?;
    let address = text.parse().map_err(|_| {
        wrong(format!("listen of [health] may not be '{text}'"), "write it as \"127.0.0.1:9110\"")
    });
    address.map(Some)
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn command() -> Command {
        let number = clap::value_parser!(u16).range(1..);
        Command::new("bastide").arg(Arg::new("tenant").long("tenant").global(true)).subcommand(
            Command::new("tunnel")
                .arg(Arg::new("target"))
                .arg(Arg::new("resource_port").long("resource-port").value_parser(number))
                .arg(Arg::new("forward").long("forward").action(ArgAction::Append))
                .arg(Arg::new("others").long("allow-other-users").action(ArgAction::SetTrue)),
        )
    }

    #[test]
    fn tunnels_are_read_as_command_lines() {
        let text = "[defaults]\ntenant = 't'\nallow-other-users = true\n[health]\nlisten = '127.0.0.1:9110'\n\
            [tunnels.db]\ntarget = 'db-01'\nresource-port = 5432\n\
            [tunnels.web]\ntarget = '10.0.0.4'\nforward = ['8080:80', '/w.sock:81']\nallow-other-users = false\n";
        let tunnels = parse(text, &command()).unwrap();
        assert_eq!(tunnels.health, Some(SocketAddr::from(([127, 0, 0, 1], 9110))));
        assert_eq!(
            tunnels.words["db"],
            ["--allow-other-users", "--tenant=t", "--resource-port=5432", "db-01"]
        );
        assert_eq!(
            tunnels.words["web"],
            ["--tenant=t", "--forward=8080:80", "--forward=/w.sock:81", "10.0.0.4"]
        );
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, message: &str, hint: &str| {
            assert_eq!(parse(text, &command()), Err(wrong(message, hint)), "{text}");
        };
        check("", "it has no tunnels", "[tunnels.NAME] begins one");
        check("[tunnel.a]", "it may not hold 'tunnel'", "is 'tunnels' meant?");
        check("[tunnels.a]\ntraget = 'x'", "[tunnels.a] may not hold 'traget'", "is 'target' meant?");
        check(
            "[tunnels.a]\nresource-port = 1",
            "[tunnels.a] has no target",
            "add target = \"…\": a VM's name, id or private address",
        );
        check(
            "[tunnels.a]\ntarget = 'x'",
            "[tunnels.a] names no port of the VM",
            "add resource-port = … and port = …, or forward = [\"LOCAL:REMOTE\"]",
        );
        check(
            "[tunnels.a]\ntarget = 'x'\nresource-port = 0",
            "resource-port of [tunnels.a] may not be '0': 0 is not in 1..=65535",
            "see --resource-port in --help",
        );
        check(
            "[health]\nlisten = 'x'\n",
            "listen of [health] may not be 'x'",
            "write it as \"127.0.0.1:9110\"",
        );
    }
}
