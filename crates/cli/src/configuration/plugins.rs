//! `[plugins.NAME]` of the configuration. It leaves out loading them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bastide::plugin::PluginSettings;
use toml::{Table, Value};

use super::{Wrong, inner, known, wrong};

/// What the table of a plugin may hold.
const KEYS: &[&str] = &["config", "path", "time_limit"];

/// A plugin's answer may take as long as a person takes to find a token: an hour is no time for either.
const MAX_TIME_LIMIT: i64 = 3600;

/// All of them, by name.
pub(super) fn read(table: &Table) -> Result<Vec<PluginSettings>, Wrong> {
    inner(table, "plugins")?.into_iter().flatten().map(|(name, value)| plugin(name, value)).collect()
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
    known(&place, table, KEYS)?;
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

/// Text as it is, numbers as they are written, and JSON for the rest (`setting` of `bastide_plugin.h`).
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => value.to_string(),
        Value::Array(_) | Value::Table(_) => serde_json::to_string(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<PluginSettings>, Wrong> {
        read(&text.parse().unwrap())
    }

    #[test]
    fn plugins_are_read() {
        let text = "[plugins.vault]\npath = \"/a/b.so\"\ntime_limit = 5\n\
                    config = { key = \"k\", size = 7, on = true, list = [\"a\", 1] }\n\
                    [plugins.other]\npath = \"/c.so\"\n";
        let plugins = parse(text).unwrap();
        let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        assert_eq!(names, ["other", "vault"]);
        let vault = &plugins[1];
        assert_eq!((vault.path.to_str(), vault.time_limit.as_secs()), (Some("/a/b.so"), 5));
        let config: Vec<(&str, &str)> =
            vault.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(config, [("key", "k"), ("list", "[\"a\",1]"), ("on", "true"), ("size", "7")]);
        assert_eq!(plugins[0].time_limit.as_secs(), 30);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, message: &str, hint: &str| {
            assert_eq!(parse(text), Err(wrong(message, hint)), "{text}");
        };
        check("[plugins.v]\npth = \"/a\"", "[plugins.v] may not hold 'pth'", "is 'path' meant?");
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
    }
}
