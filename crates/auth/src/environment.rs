//! The environment variables that sign-in looks at, as the caller found them. Nothing in this crate reads the
//! process's own environment, so that a test needs no variable that other tests would see.

use std::collections::BTreeMap;
use std::fmt;

/// A set of environment variables. `Debug` shows names only: values may be secrets.
///
/// ```
/// use bastide_auth::Environment;
///
/// let environment: Environment = [("AZURE_CLIENT_ID", "44444444"), ("AZURE_TENANT_ID", "")].into_iter().collect();
/// assert_eq!(environment.get("AZURE_CLIENT_ID"), Some("44444444"));
/// assert_eq!(environment.get("AZURE_TENANT_ID"), None);
/// ```
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's variables. Those that are not Unicode are left out: no setting of ours is one.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Every variable, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a variable; an empty one counts as not set, as in the Azure SDKs.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_only() {
        let environment: Environment = [("AZURE_CLIENT_SECRET", "hunter2")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), r#"{"AZURE_CLIENT_SECRET"}"#);
    }

    #[test]
    fn the_process_has_a_path() {
        assert!(Environment::of_process().get("PATH").is_some());
    }
}
