//! Settings as the environment says them: what the library for C and the examples begin with. It leaves
//! out flags, which win over all of it.

use std::path::PathBuf;

use bastide_auth::{Environment, Store, state_folder};
use bastide_net::{Options as NetworkOptions, ProxyRules};

use crate::{CloudChoice, Error, Settings};

impl Settings {
    /// Which Azure (`BASTIDE_CLOUD`), certificates to trust besides the system's (`SSL_CERT_FILE`,
    /// `REQUESTS_CA_BUNDLE`), proxies (`HTTPS_PROXY` and its kin), the variables of the Azure SDKs and
    /// `BASTIDE_EXEC_CREDENTIAL`; and, in the user's home, the sign-ins of `bastide login` and the ledger.
    ///
    /// # Errors
    /// [`Error::Words`] and [`Error::Network`] when one of them cannot be read.
    pub fn from_environment(environment: Environment) -> Result<Self, Error> {
        let get = |name: &str| environment.get(name).map(str::to_owned);
        let cloud = get("BASTIDE_CLOUD").map(|text| CloudChoice::parse(&text)).transpose()?;
        let ca_bundles = CA_BUNDLES.iter().filter_map(|name| get(name)).map(PathBuf::from).collect();
        Ok(Self {
            network: NetworkOptions {
                ca_bundles,
                proxy: ProxyRules::from_variables(get)?,
                ..NetworkOptions::default()
            },
            cloud: cloud.unwrap_or_default(),
            exec_command: get("BASTIDE_EXEC_CREDENTIAL"),
            store: Store::of_user(&environment),
            ledger: state_folder(&environment).map(|folder| folder.join("ledger")),
            environment,
            ..Self::default()
        })
    }
}

/// The variables that the Azure CLI and OpenSSL read (cli.md).
const CA_BUNDLES: [&str; 2] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"];

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_environment(variables.iter().copied().collect())
    }

    #[test]
    fn variables_are_settings() {
        let read = settings(&[
            ("BASTIDE_CLOUD", "azurechinacloud"),
            ("SSL_CERT_FILE", "/a.pem"),
            ("REQUESTS_CA_BUNDLE", "/b.pem"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("XDG_STATE_HOME", "/state"),
        ])
        .unwrap();
        assert!(matches!(read.cloud, CloudChoice::Known(cloud) if cloud.name == "AzureChinaCloud"));
        assert_eq!(read.network.ca_bundles, ["/a.pem", "/b.pem"].map(PathBuf::from));
        assert!(format!("{:?}", read.network.proxy).contains("proxy:3128"));
        assert_eq!(read.ledger, Some("/state/bastide/ledger".into()));
        assert_eq!(settings(&[]).unwrap().ledger, None);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(matches!(settings(&[("BASTIDE_CLOUD", "Cloud Nine")]), Err(Error::Words(_))));
        assert!(matches!(settings(&[("HTTPS_PROXY", "proxy on the wall")]), Err(Error::Network(_))));
    }
}
