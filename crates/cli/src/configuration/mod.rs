//! The user's configuration file (cli.md; `config.toml`): values for flags that are left out, hosts under names of the
//! user's own, and plugins. It leaves out the flags themselves, and what the environment says.

mod flags;
mod plugins;
pub(crate) mod tunnels;

use std::path::{Path, PathBuf};

use bastide::Environment;
use bastide::plugin::{PluginSettings, check_trust};
use toml::{Table, Value};

use crate::exit::Failure;
use crate::sys;

pub(crate) use flags::{Effective, Flags, all, shadow};

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Configuration {
    /// Where it is, or would be; none without a home.
    pub(crate) path: Option<PathBuf>,
    /// `[plugins.NAME]`, by name.
    pub(crate) plugins: Vec<PluginSettings>,
    /// `[defaults]`, `[profiles.NAME]` and `[hosts.NAME]`.
    pub(crate) flags: Flags,
}

/// What the file may hold.
const KEYS: &[&str] = &["defaults", "hosts", "plugins", "profile", "profiles"];

/// The file `named`, or the user's own, which need not be there.
///
/// # Errors
/// Usage, for a file that can't be read or means nothing.
pub(crate) fn read(
    named: Option<&Path>,
    environment: &Environment,
    command: &clap::Command,
) -> Result<Configuration, Failure> {
    let own = || Some(sys::configuration_folder(environment)?.join("config.toml"));
    let Some(path) = named.map(Path::to_owned).or_else(own) else { return Ok(Configuration::default()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => String::new(),
        Err(error) => {
            return Err(Failure::usage(
                format!("the configuration '{}' cannot be read: {error}", path.display()),
                "check the path and who may read it",
            ));
        }
    };
    let configuration = parse(&text, command).map_err(|wrong| {
        Failure::usage(format!("the configuration '{}': {}", path.display(), wrong.message), wrong.hint)
    })?;
    if !configuration.plugins.is_empty() {
        only_ours(&path)?;
    }
    Ok(Configuration { path: Some(path), ..configuration })
}

/// Who can write the file can have a library loaded.
fn only_ours(path: &Path) -> Result<(), Failure> {
    check_trust(path).map_err(|reasons| {
        let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        Failure::usage(
            format!("the configuration names plugins, so nobody else may change it: {}", words.join("; ")),
            reasons.first().map(bastide::plugin::Unfit::hint).unwrap_or_default(),
        )
    })
}

/// What is wrong with the text.
#[derive(Debug, PartialEq)]
pub(crate) struct Wrong {
    message: String,
    hint: String,
}

fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), hint: hint.into() }
}

fn parse(text: &str, command: &clap::Command) -> Result<Configuration, Wrong> {
    let table = toml_table(text)?;
    known("it", &table, KEYS)?;
    Ok(Configuration { path: None, plugins: plugins::read(&table)?, flags: Flags::read(&table, command)? })
}

fn toml_table(text: &str) -> Result<Table, Wrong> {
    text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        wrong(format!("line {line}: {}", error.message()), "it is written in TOML, https://toml.io")
    })
}

/// A value that has to be a table.
fn table_in<'a>(place: &str, value: &'a Value) -> Result<&'a Table, Wrong> {
    value
        .as_table()
        .ok_or_else(|| wrong(format!("{place} is no table"), format!("write {place} on a line of its own")))
}

/// A table in a table, if it is there.
fn inner<'a>(table: &'a Table, key: &str) -> Result<Option<&'a Table>, Wrong> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::Table(inner)) => Ok(Some(inner)),
        Some(_) => Err(wrong(format!("{key} is no table"), format!("write {key} = {{ key = \"value\" }}"))),
    }
}

/// A key that is not known is a mistake, and the one that was meant is near.
fn known(place: &str, table: &Table, keys: &[&str]) -> Result<(), Wrong> {
    let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(()) };
    let hint = nearest(key, keys).unwrap_or_else(|| format!("it may hold {}", keys.join(", ")));
    Err(wrong(format!("{place} may not hold '{key}'"), hint))
}

/// The hint to what was most likely meant.
fn nearest(word: &str, known: &[&str]) -> Option<String> {
    let distance = |known: &str| strsim::damerau_levenshtein(word, known);
    let nearest = known.iter().min_by_key(|known| distance(known))?;
    (distance(nearest) <= NEAR).then(|| format!("is '{nearest}' meant?"))
}

/// Letters that a slip of the fingers changes.
const NEAR: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, message: &str, hint: &str| {
            let parsed = parse(text, &clap::Command::new("bastide"));
            assert_eq!(parsed, Err(wrong(message, hint)), "{text}");
        };
        check("plugin = 1", "it may not hold 'plugin'", "is 'plugins' meant?");
        check(
            "colours = 1",
            "it may not hold 'colours'",
            "it may hold defaults, hosts, plugins, profile, profiles",
        );
        let broken = parse("\n[plugins", &clap::Command::new("bastide")).unwrap_err();
        assert!(broken.message.starts_with("line 2: "), "{broken:?}");
    }
}
