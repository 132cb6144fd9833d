//! The user's configuration file: which plugins there are. It leaves out what flags and the environment say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bastide::Environment;
use bastide::plugin::{PluginSettings, check_trust};
use toml::{Table, Value};

use crate::arguments::Global;
use crate::exit::Failure;
use crate::sys;

/// What the file says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Configuration {
    /// `[plugins.NAME]`, by name.
    pub(crate) plugins: Vec<PluginSettings>,
}

/// What each table may hold.
const KEYS: &[&str] = &["plugins"];
const PLUGIN_KEYS: &[&str] = &["config", "path", "time_limit"];

/// A plugin's answer may take as long as a person takes to find a token: an hour is no time for either.
const MAX_TIME_LIMIT: i64 = 3600;

/// The file of `--config`, or the user's own, which need not be there.
///
/// # Errors
/// Usage, for a file that can't be read or means nothing.
pub(crate) fn read(global: &Global, environment: &Environment) -> Result<Configuration, Failure> {
    let own = || Some(sys::configuration_folder(environment)?.join("config.toml"));
    let (path, is_named) = match &global.config {
        Some(path) => (path.clone(), true),
        None => match own() {
            Some(path) => (path, false),
            None => return Ok(Configuration::default()),
        },
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => {
            return Ok(Configuration::default());
        }
        Err(error) => {
            return Err(Failure::usage(
                format!("the configuration '{}' cannot be read: {error}", path.display()),
                "check the path and who may read it",
            ));
        }
    };
    let configuration = parse(&text).map_err(|wrong| {
        Failure::usage(format!("the configuration '{}': {}", path.display(), wrong.message), wrong.hint)
    })?;
    if !configuration.plugins.is_empty() {
        only_ours(&path)?;
    }
    Ok(configuration)
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
struct Wrong {
    message: String,
    hint: String,
}

fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), hint: hint.into() }
}

fn parse(text: &str) -> Result<Configuration, Wrong> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        wrong(format!("line {line}: {}", error.message()), "it is written in TOML, https://toml.io")
    })?;
    known("it", &table, KEYS)?;
    let mut plugins = Vec::new();
    for (name, value) in inner(&table, "plugins")?.into_iter().flatten() {
        plugins.push(plugin(name, value)?);
    }
    Ok(Configuration { plugins })
}

fn plugin(name: &str, value: &Value) -> Result<PluginSettings, Wrong> {
    let place = format!("[plugins.{name}]");
    let Value::Table(table) = value else {
        return Err(wrong(format!("{place} is no table"), format!("write {place} on a line of its own")));
    };
    if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')) {
        return Err(wrong(
            format!("'{name}' is no name for a plugin"),
            "letters, digits, - and _ make a name",
        ));
    }
    known(&place, table, PLUGIN_KEYS)?;
    let Some(Value::String(path)) = table.get("path") else {
        return Err(wrong(
            format!("{place} has no path"),
            "add path = \"/…\", the whole path of the plugin's library",
        ));
    };
    let mut settings = PluginSettings::new(name, PathBuf::from(path));
    if let Some(value) = table.get("time_limit") {
        let seconds = value.as_integer().filter(|seconds| (1..=MAX_TIME_LIMIT).contains(seconds));
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        settings.time_limit = seconds.map(Duration::from_secs).ok_or_else(|| {
            wrong(
                format!("time_limit of {place} is no number of seconds from 1 to {MAX_TIME_LIMIT}"),
                "leave it out for 30",
            )
        })?;
    }
    settings.config = inner(table, "config")?
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), words(value)))
        .collect::<BTreeMap<_, _>>();
    Ok(settings)
}

/// A table in a table, if it is there.
fn inner<'a>(table: &'a Table, key: &str) -> Result<Option<&'a Table>, Wrong> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::Table(inner)) => Ok(Some(inner)),
        Some(_) => Err(wrong(format!("{key} is no table"), format!("write {key} = {{ key = \"value\" }}"))),
    }
}

/// Text as it is, numbers as they are written, and JSON for the rest (`setting` of `bastide_plugin.h`).
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            value.to_string()
        }
        Value::Array(_) | Value::Table(_) => serde_json::to_string(value).unwrap_or_default(),
    }
}

/// A key that is not known is a mistake, and the one that was meant is near.
fn known(place: &str, table: &Table, keys: &[&str]) -> Result<(), Wrong> {
    let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(()) };
    let nearest = keys.iter().min_by_key(|known| strsim::damerau_levenshtein(key, known));
    let hint = match nearest {
        Some(known) if strsim::damerau_levenshtein(key, known) <= NEAR => format!("is '{known}' meant?"),
        _ => format!("it may hold {}", keys.join(", ")),
    };
    Err(wrong(format!("{place} may not hold '{key}'"), hint))
}

/// Letters that a slip of the fingers changes.
const NEAR: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_read() {
        let text = "[plugins.vault]\npath = \"/a/b.so\"\ntime_limit = 5\n\
                    config = { key = \"k\", size = 7, on = true, list = [\"a\", 1] }\n\
                    [plugins.other]\npath = \"/c.so\"\n";
        let plugins = parse(text).unwrap().plugins;
        let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        assert_eq!(names, ["other", "vault"]);
        let vault = &plugins[1];
        assert_eq!((vault.path.to_str(), vault.time_limit.as_secs()), (Some("/a/b.so"), 5));
        let config: Vec<(&str, &str)> =
            vault.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(config, [("key", "k"), ("list", "[\"a\",1]"), ("on", "true"), ("size", "7")]);
        assert_eq!(plugins[0].time_limit.as_secs(), 30);
        assert_eq!(parse(""), Ok(Configuration::default()));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, message: &str, hint: &str| {
            assert_eq!(parse(text), Err(wrong(message, hint)), "{text}");
        };
        check("plugin = 1", "it may not hold 'plugin'", "is 'plugins' meant?");
        check("colour = 1", "it may not hold 'colour'", "it may hold plugins");
        check(
            "[plugins.v]\npth = \"/a\"",
            "[plugins.v] may not hold 'pth'",
            "is 'path' meant?",
        );
        check(
            "[plugins.v]",
            "[plugins.v] has no path",
            "add path = \"/…\", the whole path of the plugin's library",
        );
        check(
            "[plugins.v]\npath = \"/a\"\ntime_limit = 0",
            "time_limit of [plugins.v] is no number of seconds from 1 to 3600",
            "leave it out for 30",
        );
        check(
            "[plugins.'v w']\npath = \"/a\"",
            "'v w' is no name for a plugin",
            "letters, digits, - and _ make a name",
        );
        let broken = parse("\n[plugins").unwrap_err();
        assert!(broken.message.starts_with("line 2: "), "{broken:?}");
    }
}
