//! What stands in `config` of the plugin: which vault, which key or secret, which user. It leaves out whether they
//! exist.

use std::fmt;

use bastide_plugin_abi::{Code, Failure};
use url::Url;

use crate::vault::Vault;

/// The settings, checked.
pub(crate) struct Settings {
    pub(crate) vault: Vault,
    pub(crate) item: Item,
    pub(crate) user: Option<String>,
}

/// A key or secret, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) sort: Sort,
    pub(crate) name: String,
    /// The current one when there is none.
    pub(crate) version: Option<String>,
}

/// What a vault has a collection of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Key,
    Secret,
}

/// Suffixes of vaults' hosts, and what their tokens are for ("Azure national clouds: endpoints", and `az cloud show`:
/// `keyvaultDns`, `mhsmDns`).
const CLOUDS: [(&str, &str); 6] = [
    (".vault.azure.net", "https://vault.azure.net"),
    (".vault.azure.cn", "https://vault.azure.cn"),
    (".vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
    (".managedhsm.azure.net", "https://managedhsm.azure.net"),
    (".managedhsm.azure.cn", "https://managedhsm.azure.cn"),
    (".managedhsm.usgovcloudapi.net", "https://managedhsm.usgovcloudapi.net"),
];

/// The longest name of a key or secret (REST API: `^[0-9a-zA-Z-]{1,127}$`).
const LONGEST_NAME: usize = 127;

impl Settings {
    /// `setting` gives the value of a key.
    pub(crate) fn read(setting: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Failure> {
        // All are asked for, so that the host knows what is misspelt.
        let (vault, vault_url) = (setting("vault"), setting("vault_url"));
        let (key, secret) = (setting("key"), setting("secret"));
        let (user, resource) = (setting("user"), setting("resource"));
        let vault = match (vault, vault_url) {
            (Some(url), None) | (None, Some(url)) => url,
            (None, None) => return Err(missing("vault", "https://NAME.vault.azure.net")),
            (Some(_), Some(_)) => return Err(wrong("`vault` and `vault_url` are the same setting")),
        };
        let vault = vault_at(&vault, resource)?;
        let item = match (key, secret) {
            (Some(key), None) => item(Sort::Key, &key)?,
            (None, Some(secret)) => item(Sort::Secret, &secret)?,
            (None, None) => return Err(missing("key", "NAME").hint(
                "add key = \"NAME\", or secret = \"NAME\" for a private key that is kept as a secret, to config of this plugin",
            )),
            (Some(_), Some(_)) => return Err(wrong("`key` and `secret` are both set, and there can be one")),
        };
        Ok(Settings { vault, item, user: user.filter(|user| !user.is_empty()) })
    }
}

impl Item {
    /// The path of the current version or of the one that is set.
    pub(crate) fn path(&self) -> String {
        match &self.version {
            Some(version) => format!("/{}/{}/{version}", self.sort.collection(), self.name),
            None => self.current(),
        }
    }

    /// The path of the current version.
    pub(crate) fn current(&self) -> String {
        format!("/{}/{}", self.sort.collection(), self.name)
    }

    /// The path at which it is found after it was deleted.
    pub(crate) fn deleted(&self) -> String {
        format!("/deleted{}/{}", self.sort.collection(), self.name)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the {} '{}'", self.sort.word(), self.name)
    }
}

impl Sort {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Sort::Key => "key",
            Sort::Secret => "secret",
        }
    }

    fn collection(self) -> &'static str {
        match self {
            Sort::Key => "keys",
            Sort::Secret => "secrets",
        }
    }
}

/// A token goes to this host, so it is known which ones it takes: from its name, or because the user says so.
fn vault_at(text: &str, resource: Option<String>) -> Result<Vault, Failure> {
    let not_a_vault = || {
        Failure::new(Code::Settings, format!("`vault` is '{text}', which is not the address of a vault"))
            .hint("it looks like https://NAME.vault.azure.net; `az keyvault show --name NAME --query properties.vaultUri` tells")
    };
    let url = Url::parse(text).map_err(|_| not_a_vault())?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if url.scheme() != "https" || !is_bare || !url.username().is_empty() || url.password().is_some() {
        return Err(not_a_vault());
    }
    let known = CLOUDS.iter().find(|(suffix, _)| host.ends_with(suffix) && host.len() > suffix.len());
    let resource = match (resource, known) {
        (Some(resource), _) => resource.trim_end_matches('/').to_owned(),
        (None, Some((_, resource))) => (*resource).to_owned(),
        (None, None) => {
            return Err(Failure::new(
                Code::Settings,
                format!("'{host}' is not the host of a vault in a cloud that is known"),
            )
            .hint("if it is one, add resource = \"https://…\", which its tokens are for, to config of this plugin"));
        }
    };
    Ok(Vault::new(url.origin().ascii_serialization(), host, resource))
}

fn item(sort: Sort, text: &str) -> Result<Item, Failure> {
    let (name, version) = match text.split_once('/') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    // Both become part of a path.
    let is_name = |text: &str| {
        (1..=LONGEST_NAME).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !is_name(name) || !version.is_none_or(is_name) {
        let word = sort.word();
        return Err(wrong(&format!("`{word}` is '{text}', which is neither NAME nor NAME/VERSION"))
            .hint("names are made of letters, digits and '-'"));
    }
    Ok(Item { sort, name: name.to_owned(), version: version.map(str::to_owned) })
}

fn wrong(what: &str) -> Failure {
    Failure::new(Code::Settings, what)
}

fn missing(key: &str, example: &str) -> Failure {
    Failure::new(Code::Settings, format!("`{key}` is not set"))
        .hint(format!("add {key} = \"{example}\" to config of this plugin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<Settings, Failure> {
        let of =
            |key: &str| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
        Settings::read(&of)
    }

    #[test]
    fn good_settings() {
        #[track_caller]
        fn check(settings: &[(&str, &str)], resource: &str, path: &str) {
            let read = read(settings).unwrap();
            assert_eq!((read.vault.resource(), read.item.path().as_str()), (resource, path));
        }
        let vault = ("vault", "https://contoso.vault.azure.net/");
        let version = "9885aa558e8d448789683188f8c194b0";
        check(&[vault, ("key", "ssh")], "https://vault.azure.net", "/keys/ssh");
        check(
            &[vault, ("secret", &format!("ssh/{version}"))],
            "https://vault.azure.net",
            &format!("/secrets/ssh/{version}"),
        );
        check(
            &[("vault_url", "https://contoso.vault.usgovcloudapi.net"), ("key", "ssh")],
            "https://vault.usgovcloudapi.net",
            "/keys/ssh",
        );
        check(
            &[
                ("vault", "https://v.example.org:8443"),
                ("resource", "https://vault.azure.net/"),
                ("key", "a-1"),
            ],
            "https://vault.azure.net",
            "/keys/a-1",
        );
    }

    #[test]
    fn bad_settings_are_named() {
        #[track_caller]
        fn check(settings: &[(&str, &str)], expected: &str) {
            let Err(failure) = read(settings) else { panic!("taken") };
            assert_eq!(failure.to_string(), expected);
        }
        let vault = ("vault", "https://contoso.vault.azure.net");
        check(&[("key", "ssh")], "`vault` is not set");
        check(&[vault], "`key` is not set");
        check(
            &[vault, ("key", "a"), ("secret", "b")],
            "`key` and `secret` are both set, and there can be one",
        );
        check(&[vault, ("vault_url", "https://x")], "`vault` and `vault_url` are the same setting");
        for text in ["contoso", "http://contoso.vault.azure.net", "https://contoso.vault.azure.net/keys/a"] {
            check(
                &[("vault", text), ("key", "a")],
                &format!("`vault` is '{text}', which is not the address of a vault"),
            );
        }
        for host in ["vault.azure.net.evil.example", "evilvault.azure.net.example"] {
            check(
                &[("vault", &format!("https://{host}")), ("key", "a")],
                &format!("'{host}' is not the host of a vault in a cloud that is known"),
            );
        }
        for name in ["", "a/b/c", "../x", "a b", "a?b", "a/"] {
            check(
                &[vault, ("key", name)],
                &format!("`key` is '{name}', which is neither NAME nor NAME/VERSION"),
            );
        }
    }
}
