//! Values for flags in the configuration: `[defaults]`, over them `[profiles.NAME]`, over both, and over the
//! environment, `[hosts.NAME]`, which says what `TARGET` stands for. Keys are the long flags without their dashes. It
//! leaves out what flags there are: it asks the command line's own definition.

use std::collections::BTreeMap;

use clap::builder::{OsStr, Resettable};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use super::{Wrong, inner, known, nearest, table_in, wrong};
use crate::exit::Failure;

/// One table: the values of each flag, by its long name.
pub(super) type Layer = BTreeMap<String, Vec<String>>;

/// All tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Flags {
    defaults: Layer,
    /// The profile that holds where none is named.
    profile: Option<String>,
    profiles: BTreeMap<String, Layer>,
    hosts: BTreeMap<String, Host>,
}

/// What a name of the user's own stands for.
#[derive(Debug, Clone, Default, PartialEq)]
struct Host {
    target: Option<String>,
    profile: Option<String>,
    flags: Layer,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `[hosts.NAME]`.
    Host(String),
    /// `[profiles.NAME]`.
    Profile(String),
    /// `[defaults]`.
    Defaults,
}

impl Source {
    /// Whether it says what a name stands for, which is as good as typed.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self, Source::Host(_))
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Host(name) => write!(formatter, "[hosts.{name}]"),
            Source::Profile(name) => write!(formatter, "[profiles.{name}]"),
            Source::Defaults => formatter.write_str("[defaults]"),
        }
    }
}

/// Flags that say what to do this time, or how to read the file itself.
const NOT_HERE: &[&str] = &[
    "color",
    "config",
    "help",
    "output",
    "password-stdin",
    "profile",
    "quiet",
    "save",
    "verbose",
    "version",
    "write",
    "alias",
    "if-needed",
    "only",
    "remove",
    "target-resource-id",
    "target-ip-address",
];

/// Keys of a host that are no flags.
const HOST_KEYS: &[&str] = &["profile", "target"];

/// Variables of the Azure SDKs that a default gives way to, as it would to our own (cli.md: the environment is
/// honoured).
const VARIABLES: &[(&str, &[&str])] = &[
    ("client-id", &["AZURE_CLIENT_ID"]),
    ("proxy", &["HTTPS_PROXY", "https_proxy"]),
    ("subscription", &["AZURE_SUBSCRIPTION_ID"]),
    ("tenant", &["AZURE_TENANT_ID"]),
];

impl Flags {
    /// Reads the tables, and lets `command` judge each value.
    pub(super) fn read(table: &Table, command: &Command) -> Result<Self, Wrong> {
        let mut flags = Self::default();
        let known = all(command);
        if let Some(defaults) = inner(table, "defaults")? {
            flags.defaults = layer("[defaults]", defaults, &known, &[])?;
        }
        for (name, value) in inner(table, "profiles")?.into_iter().flatten() {
            let place = format!("[profiles.{name}]");
            flags.profiles.insert(name.clone(), layer(&place, table_in(&place, value)?, &known, &[])?);
        }
        for (name, value) in inner(table, "hosts")?.into_iter().flatten() {
            let place = format!("[hosts.{name}]");
            let table = table_in(&place, value)?;
            let word = |key: &str| table.get(key).map(|value| one(&place, key, value)).transpose();
            let host = Host {
                target: word("target")?,
                profile: word("profile")?,
                flags: layer(&place, table, &known, HOST_KEYS)?,
            };
            if let Some(profile) = &host.profile {
                flags.must_have(&place, profile)?;
            }
            flags.hosts.insert(name.clone(), host);
        }
        flags.profile = table.get("profile").map(|value| one("it", "profile", value)).transpose()?;
        if let Some(profile) = &flags.profile {
            flags.must_have("it", profile)?;
        }
        Ok(flags)
    }

    fn must_have(&self, place: &str, profile: &str) -> Result<(), Wrong> {
        if self.profiles.contains_key(profile) {
            return Ok(());
        }
        Err(wrong(
            format!("{place} names the profile '{profile}', which is not there"),
            self.profiles_there(profile),
        ))
    }

    fn profiles_there(&self, wanted: &str) -> String {
        let names: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
        nearest(wanted, &names).unwrap_or_else(|| match names.as_slice() {
            [] => format!("a line [profiles.{wanted}] begins one"),
            names => format!("there are {}", names.join(", ")),
        })
    }

    /// The tables that count for `target`, the first one most.
    ///
    /// # Errors
    /// Usage, for a profile that is not there.
    pub(crate) fn for_target<'a>(
        &'a self,
        target: Option<&str>,
        profile: Option<&str>,
    ) -> Result<Effective<'a>, Failure> {
        let host = target.and_then(|target| self.hosts.get_key_value(target));
        let mut layers = Vec::new();
        if let Some((name, host)) = host {
            layers.push((Source::Host(name.clone()), &host.flags));
        }
        let own = host.and_then(|(_, host)| host.profile.as_deref());
        if let Some(profile) = profile.or(own).or(self.profile.as_deref()) {
            let Some(layer) = self.profiles.get(profile) else {
                return Err(Failure::usage(
                    format!("there is no profile '{profile}' in the configuration"),
                    self.profiles_there(profile),
                ));
            };
            layers.push((Source::Profile(profile.to_owned()), layer));
        }
        layers.push((Source::Defaults, &self.defaults));
        Ok(Effective { layers })
    }

    /// What a name of the user's own stands for; any other word stands for itself.
    pub(crate) fn stands_for<'a>(&'a self, target: &'a str) -> &'a str {
        self.hosts.get(target).and_then(|host| host.target.as_deref()).unwrap_or(target)
    }

    /// The names of the user's own.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// The profiles' names.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }
}

/// The tables that count this time.
#[derive(Debug)]
pub(crate) struct Effective<'a> {
    layers: Vec<(Source, &'a Layer)>,
}

impl Effective<'_> {
    /// The value of a flag by its long name, and where it stands.
    pub(crate) fn value(&self, flag: &str, variable: &dyn Fn(&str) -> bool) -> Option<(&[String], &Source)> {
        let (source, values) =
            self.layers.iter().find_map(|(source, layer)| Some((source, layer.get(flag)?)))?;
        let yields = !source.is_host() && shadow(flag, variable).is_some();
        (!yields).then_some((values.as_slice(), source))
    }

    /// The command line's definition, in which flags that are left out have the values of the file.
    pub(crate) fn apply(&self, command: Command, variable: &dyn Fn(&str) -> bool) -> Command {
        let named = |arg: Arg| {
            let found = arg.get_long().and_then(|long| self.value(long, variable));
            let Some((values, source)) = found else { return arg };
            let from_host = source.is_host();
            let arg = arg.default_values(values.iter().map(OsStr::from).collect::<Vec<_>>());
            // A host's value is meant as if it had been typed.
            if from_host { arg.env(Resettable::Reset) } else { arg }
        };
        command.mut_args(named).mut_subcommands(|command| command.mut_args(named))
    }
}

/// The variable that is set and says what the flag would say.
pub(crate) fn shadow(flag: &str, variable: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let (_, names) = VARIABLES.iter().find(|(known, _)| *known == flag)?;
    names.iter().copied().find(|name| variable(name))
}

/// Flags by their long names, each with a command that has it.
pub(crate) type Known<'a> = BTreeMap<&'a str, (&'a Command, &'a Arg)>;

/// Every flag that may stand in the configuration, once.
pub(crate) fn all(command: &Command) -> Known<'_> {
    known_of(std::iter::once(command).chain(command.get_subcommands()))
}

/// The flags of one command, and those that every command has.
pub(super) fn of_command<'a>(command: &'a Command, name: &str) -> Known<'a> {
    known_of(std::iter::once(command).chain(command.find_subcommand(name)))
}

fn known_of<'a>(commands: impl Iterator<Item = &'a Command>) -> Known<'a> {
    let flags = commands.flat_map(|command| command.get_arguments().map(move |arg| (command, arg)));
    let mut known = BTreeMap::new();
    for (command, arg) in flags {
        if let Some(long) = arg.get_long().filter(|long| !NOT_HERE.contains(long)) {
            known.entry(long).or_insert((command, arg));
        }
    }
    known
}

/// Reads a table of flags, beside which other keys may stand.
pub(super) fn layer(place: &str, table: &Table, flags: &Known<'_>, beside: &[&str]) -> Result<Layer, Wrong> {
    let names: Vec<&str> = flags.keys().chain(beside).copied().collect();
    known(place, table, &names)?;
    let mut layer = Layer::new();
    for (key, value) in table {
        let Some((owner, arg)) = flags.get(key.as_str()) else { continue };
        let values = words(place, key, value)?;
        for value in &values {
            judge(place, key, value, owner, arg)?;
        }
        layer.insert(key.clone(), values);
    }
    Ok(layer)
}

/// Asks clap whether the flag takes the value.
fn judge(place: &str, key: &str, value: &str, owner: &Command, arg: &Arg) -> Result<(), Wrong> {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return match value {
            "true" | "false" => Ok(()),
            _ => Err(wrong(format!("{key} of {place} is neither true nor false"), "write it without quotes")),
        };
    }
    let words = [owner.get_name().to_owned(), format!("--{key}={value}")];
    match owner.clone().try_get_matches_from(words) {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) => {
            let why =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            Err(wrong(
                format!("{key} of {place} may not be '{value}'{why}"),
                format!("see --{key} in --help"),
            ))
        }
        _ => Ok(()),
    }
}

/// A flag's values, as they would be typed.
fn words(place: &str, key: &str, value: &Value) -> Result<Vec<String>, Wrong> {
    match value {
        Value::Array(values) => values.iter().map(|value| one(place, key, value)).collect(),
        value => Ok(vec![one(place, key, value)?]),
    }
}

/// Text, or what is written like it.
pub(super) fn one(place: &str, key: &str, value: &Value) -> Result<String, Wrong> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Boolean(_) => Ok(value.to_string()),
        _ => Err(wrong(
            format!("{key} of {place} is neither text nor a number"),
            format!("write {key} = \"…\""),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let number = clap::value_parser!(u16).range(1..);
        Command::new("bastide")
            .arg(
                Arg::new("cloud")
                    .long("cloud")
                    .env("FLAGS_TEST_CLOUD")
                    .default_value("AzureCloud")
                    .global(true),
            )
            .arg(Arg::new("tenant").long("tenant").global(true))
            .arg(Arg::new("ca").long("ca-bundle").action(ArgAction::Append).global(true))
            .arg(Arg::new("cache").long("no-cache").action(ArgAction::SetTrue).global(true))
            .subcommand(
                Command::new("ssh")
                    .arg(Arg::new("target"))
                    .arg(Arg::new("user").long("username"))
                    .arg(Arg::new("port").long("resource-port").value_parser(number).default_value("22")),
            )
    }

    fn read(text: &str) -> Result<Flags, Wrong> {
        Flags::read(&text.parse().unwrap(), &command())
    }

    const FILE: &str = "profile = 'work'\n\
        [defaults]\ntenant = 'd'\nca-bundle = ['/a', '/b']\nno-cache = true\nresource-port = 2022\n\
        [profiles.work]\ntenant = 'w'\nusername = 'me'\n\
        [profiles.home]\nusername = 'you'\n\
        [hosts.web]\ntarget = 'web-01'\nprofile = 'home'\ntenant = 't'\n";

    #[test]
    fn the_nearest_table_counts() {
        let flags = read(FILE).unwrap();
        let check = |target, profile, flag: &str, expected: Option<(&str, Source)>| {
            let effective = flags.for_target(target, profile).unwrap();
            let found = effective.value(flag, &|_| false);
            let found = found.map(|(values, source)| (values.join(" "), source.clone()));
            assert_eq!(
                found,
                expected.map(|(value, source)| (value.to_owned(), source)),
                "{target:?} {flag}"
            );
        };
        check(None, None, "tenant", Some(("w", Source::Profile("work".into()))));
        check(Some("web"), None, "tenant", Some(("t", Source::Host("web".into()))));
        check(Some("web"), None, "username", Some(("you", Source::Profile("home".into()))));
        check(Some("web"), Some("work"), "username", Some(("me", Source::Profile("work".into()))));
        check(Some("web-01"), Some("home"), "tenant", Some(("d", Source::Defaults)));
        check(None, None, "ca-bundle", Some(("/a /b", Source::Defaults)));
        check(None, None, "cloud", None);
        assert_eq!((flags.stands_for("web"), flags.stands_for("db")), ("web-01", "db"));
        assert!(flags.for_target(None, Some("wrok")).is_err());
    }

    #[test]
    fn flags_win_and_defaults_yield_to_the_environment() {
        let flags = read(FILE).unwrap();
        let parse = |line: &str, is_set: &dyn Fn(&str) -> bool| {
            let target = line.contains("web").then_some("web");
            let command = flags.for_target(target, None).unwrap().apply(command(), is_set);
            command.try_get_matches_from(line.split(' ')).unwrap()
        };
        let matches = parse("bastide ssh", &|_| false);
        let (_, ssh) = matches.subcommand().unwrap();
        assert_eq!(ssh.get_one::<u16>("port"), Some(&2022));
        assert_eq!(ssh.get_one::<String>("tenant").map(String::as_str), Some("w"));
        assert_eq!(ssh.get_many::<String>("ca").unwrap().count(), 2);
        assert!(ssh.get_flag("cache"));
        let matches = parse("bastide ssh --tenant x --resource-port 22", &|_| false);
        let (_, ssh) = matches.subcommand().unwrap();
        assert_eq!(ssh.get_one::<u16>("port"), Some(&22));
        assert_eq!(ssh.get_one::<String>("tenant").map(String::as_str), Some("x"));
        let is_set = |name: &str| name == "AZURE_TENANT_ID";
        assert_eq!(parse("bastide ssh", &is_set).subcommand().unwrap().1.get_one::<String>("tenant"), None);
        let matches = parse("bastide ssh web", &is_set);
        let (_, ssh) = matches.subcommand().unwrap();
        assert_eq!(ssh.get_one::<String>("tenant").map(String::as_str), Some("t"));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, message: &str, hint: &str| {
            assert_eq!(read(text), Err(wrong(message, hint)), "{text}");
        };
        check("[defaults]\ntenat = 'x'", "[defaults] may not hold 'tenat'", "is 'tenant' meant?");
        check("[hosts.a]\ntraget = 'x'", "[hosts.a] may not hold 'traget'", "is 'target' meant?");
        check("[hosts]\na = 'x'", "[hosts.a] is no table", "write [hosts.a] on a line of its own");
        check(
            "[profiles.a]\nresource-port = 0",
            "resource-port of [profiles.a] may not be '0': 0 is not in 1..=65535",
            "see --resource-port in --help",
        );
        check(
            "[defaults]\nno-cache = 'perhaps'",
            "no-cache of [defaults] is neither true nor false",
            "write it without quotes",
        );
        check(
            "[defaults]\ntenant = 1.5",
            "tenant of [defaults] is neither text nor a number",
            "write tenant = \"…\"",
        );
        check(
            "profile = 'x'",
            "it names the profile 'x', which is not there",
            "a line [profiles.x] begins one",
        );
    }
}
