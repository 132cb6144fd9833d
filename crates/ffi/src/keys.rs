//! The options by name: those of the command line's flags (cli.md, "Flags"), with the values that they take. It leaves out
//! what the values do (`place`, `client`).

use crate::error::Failure;

/// An option.
#[derive(Debug)]
pub struct Key {
    /// The long name of the flag.
    pub name: &'static str,
    /// To what it belongs.
    pub scope: Scope,
    value: Value,
}

/// To what an option belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A client, once and for all.
    Client,
    /// A connection or a tunnel; a client has it as the default for its own.
    Connection,
    /// A tunnel.
    Tunnel,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    /// Anything but nothing.
    Text,
    /// A whole number from the first to the last.
    Number(u64, u64),
    Switch,
    OneOf(&'static [&'static str]),
}

use Scope::{Client, Connection, Tunnel};
use Value::{Number, OneOf, Switch, Text};

const fn key(name: &'static str, scope: Scope, value: Value) -> Key {
    Key { name, scope, value }
}

const SECONDS: Value = Number(1, u64::MAX);

/// All of them. The limits are those of the command line.
pub const KEYS: &[Key] = &[
    key("cloud", Client, Text),
    key("tenant", Client, Text),
    key("credential", Client, Text),
    key("client-id", Client, Text),
    key("exec-command", Client, Text),
    key("no-cache", Client, Switch),
    key("ca-bundle", Client, Text),
    key("proxy", Client, Text),
    key("subscription", Client, Text),
    key("keepalive", Client, OneOf(&["ping", "tcp", "off"])),
    key("target", Connection, Text),
    key("name", Connection, Text),
    key("resource-group", Connection, Text),
    key("target-resource-id", Connection, Text),
    key("target-ip-address", Connection, Text),
    key("resource-port", Connection, Number(1, 65_535)),
    key("timeout", Connection, SECONDS),
    key("idle-timeout", Connection, SECONDS),
    key("max-frame", Connection, Number(128, 65_535)),
    key("connect-timeout", Connection, SECONDS),
    key("retries", Connection, Number(0, 4_294_967_295)),
    key("port", Tunnel, Number(0, 65_535)),
    key("bind", Tunnel, Text),
    key("forward", Tunnel, Text),
    key("allow-other-users", Tunnel, Switch),
    key("prefetch", Tunnel, Number(0, 20)),
];

impl Key {
    /// The option of this name, in which `_` may stand for `-`.
    pub(crate) fn named(name: &str) -> Result<&'static Self, Failure> {
        let flag = name.replace('_', "-");
        KEYS.iter().find(|key| key.name == flag).ok_or_else(|| {
            let near = KEYS.iter().max_by(|one, other| {
                strsim::jaro(one.name, &flag).total_cmp(&strsim::jaro(other.name, &flag))
            });
            let near = near.map_or("target", |key| key.name);
            Failure::usage(
                format!("there is no option '{name}'"),
                format!("is '{near}' meant? Names in capitals are environment variables"),
            )
        })
    }

    /// Whether `value` is one for it.
    pub(crate) fn check(&self, value: &str) -> Result<(), Failure> {
        let wrong = |wanted: String| {
            Err(Failure::usage(format!("'{value}' is no value for the option '{}'", self.name), wanted))
        };
        match self.value {
            Text if value.trim().is_empty() => wrong("leave the option out instead".into()),
            Text => Ok(()),
            Number(least, most) => match value.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(()),
                _ if most == u64::MAX => wrong(format!("it has to be a whole number from {least}")),
                _ => wrong(format!("it has to be a whole number from {least} to {most}")),
            },
            Switch if matches!(value, "true" | "false") => Ok(()),
            Switch => wrong("it has to be true or false".into()),
            OneOf(names) if names.contains(&value) => Ok(()),
            OneOf(names) => wrong(format!("it has to be one of {}", names.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_checked() {
        let check = |name: &str, value: &str, said: &str| {
            let outcome = Key::named(name).and_then(|key| key.check(value));
            let words = outcome.err().map_or_else(String::new, |failure| {
                let hint = failure.hint().unwrap().to_str().unwrap().to_owned();
                format!("{}: {hint}", failure.message())
            });
            assert!(words.contains(said) && (said.is_empty() == words.is_empty()), "{name}={value}: {words}");
        };
        check("target-resource-id", "/subscriptions/x", "");
        check("resource_port", "22", "");
        check("resource-port", "0", "it has to be a whole number from 1 to 65535");
        check("timeout", "0", "it has to be a whole number from 1");
        check("timeout", "18446744073709551615", "");
        check("timeout", "-1", "'-1' is no value for the option 'timeout'");
        check("no-cache", "yes", "true or false");
        check("keepalive", "udp", "ping, tcp, off");
        check("tenant", " ", "leave the option out");
        check("resource-prot", "22", "is 'resource-port' meant?");
        check("", "", "there is no option ''");
    }

    #[test]
    fn no_name_comes_twice() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS.iter().skip(index + 1).all(|other| other.name != key.name), "{}", key.name);
        }
    }
}
