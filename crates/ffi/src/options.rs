//! What a client, a connection or a tunnel is told: options by name, variables, and callbacks. It leaves out what follows
//! from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Failure;
use crate::handle::Thing;
use crate::keys::{Key, Scope};
use crate::log::Log;
use crate::sign_in::SignIn;

/// What an options handle stands for.
#[derive(Default)]
pub(crate) struct Options(Mutex<Values>);

impl Thing for Options {
    const KIND: &'static str = "options";
}

impl Options {
    /// What was set so far.
    pub(crate) fn values(&self) -> Values {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Values)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The values of options.
#[derive(Clone, Default)]
pub(crate) struct Values {
    pub(crate) flags: Flags,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) sign_in: Option<Arc<SignIn>>,
    pub(crate) log: Option<Arc<Log>>,
}

/// Options by the names of flags, checked.
pub(crate) type Flags = BTreeMap<&'static str, String>;

impl Values {
    /// Sets an option, or a variable of the environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        if is_variable(name) {
            self.variables.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        let key = Key::named(name)?;
        key.check(value)?;
        self.flags.insert(key.name, value.to_owned());
        Ok(())
    }

    /// What is set for a flag.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The options of a connection or a tunnel of a client that has been told these: what belongs to clients alone can
    /// only be said again.
    pub(crate) fn refined_by(&self, more: &Self) -> Result<Flags, Failure> {
        let flags = more.flags.iter().filter(|(name, _)| scope(name) == Some(Scope::Client));
        let differs = flags.into_iter().find(|(name, value)| self.flags.get(*name) != Some(value));
        let variable = more.variables.iter().find(|(name, value)| self.variables.get(*name) != Some(value));
        let differs = differs.map(|(name, _)| *name).or(variable.map(|(name, _)| name.as_str()));
        let mend = "set it in the options that the client is made with";
        if let Some(name) = differs {
            return Err(Failure::usage(format!("'{name}' is an option of clients"), mend));
        }
        if !is_same(&self.sign_in, &more.sign_in) || !is_same(&self.log, &more.log) {
            return Err(Failure::usage("a function belongs to a client", mend));
        }
        let mut flags = self.flags.clone();
        if TARGETS.iter().any(|name| more.flags.contains_key(name)) {
            flags.retain(|name, _| !TARGETS.contains(name));
        }
        flags.extend(more.flags.iter().map(|(name, value)| (*name, value.clone())));
        flags.retain(|name, _| scope(name) != Some(Scope::Client));
        Ok(flags)
    }
}

/// Ways to name a VM, of which one replaces the others.
pub(crate) const TARGETS: [&str; 3] = ["target", "target-resource-id", "target-ip-address"];

/// Whether a function says nothing new.
fn is_same<T>(of_client: &Option<Arc<T>>, more: &Option<Arc<T>>) -> bool {
    match (of_client, more) {
        (_, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, Some(_)) => false,
    }
}

const PROXIES: [&str; 4] = ["all_proxy", "http_proxy", "https_proxy", "no_proxy"];

fn scope(name: &str) -> Option<Scope> {
    Key::named(name).ok().map(|key| key.scope)
}

/// Options are spelt in small letters, variables in capitals, but for those of proxies, which may be either.
fn is_variable(name: &str) -> bool {
    PROXIES.contains(&name)
        || name.starts_with(|letter: char| letter.is_ascii_uppercase())
            && name
                .chars()
                .all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let mut values = Values::default();
        for (name, value) in pairs {
            values.set(name, value).unwrap();
        }
        values
    }

    #[test]
    fn a_connection_refines_its_client() {
        let client = values(&[("name", "b"), ("tenant", "t"), ("target", "a"), ("retries", "1")]);
        let flags =
            client.refined_by(&values(&[("target-ip-address", "10.0.0.4"), ("retries", "2")])).unwrap();
        let pairs: Vec<(&str, &str)> = flags.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(pairs, [("name", "b"), ("retries", "2"), ("target-ip-address", "10.0.0.4")]);
        assert!(client.refined_by(&client).is_ok());
        for wrong in [("tenant", "u"), ("HOME", "/")] {
            let failure = client.refined_by(&values(&[wrong])).err().unwrap();
            assert_eq!(failure.message(), format!("'{}' is an option of clients", wrong.0));
        }
    }
}
