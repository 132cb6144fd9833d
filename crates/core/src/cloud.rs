//! The clouds that Azure runs in: where ARM and Entra ID are, and what a token is for (protocol.md §8). It
//! leaves out fetching `/metadata/endpoints`; here it is only read.

use serde::Deserialize;
use url::Url;

use crate::Error;

/// One Azure cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// The name that the Azure CLI uses, such as `AzureCloud`.
    pub name: String,
    /// ARM's address, without a trailing slash.
    pub arm: String,
    /// Entra ID's address, without a trailing slash.
    pub authority: String,
    /// The scope of a token for ARM, which is also the `aztoken` of the data plane (protocol.md §7).
    pub arm_scope: String,
    /// The scope of an SSH certificate (protocol.md §7).
    pub ssh_scope: String,
}

impl Cloud {
    /// The public cloud.
    pub fn public() -> Self {
        Self::known(
            "AzureCloud",
            "https://management.azure.com",
            "https://login.microsoftonline.com",
            PUBLIC_SSH,
        )
    }

    /// One of the built-in clouds, in any case.
    pub fn by_name(name: &str) -> Option<Self> {
        [
            Self::public(),
            Self::known(
                "AzureUSGovernment",
                "https://management.usgovcloudapi.net",
                "https://login.microsoftonline.us",
                "https://pasff.usgovcloudapi.net",
            ),
            Self::known(
                "AzureChinaCloud",
                "https://management.chinacloudapi.cn",
                "https://login.chinacloudapi.cn",
                "https://pas.chinacloudapi.cn",
            ),
        ]
        .into_iter()
        .find(|cloud| cloud.name.eq_ignore_ascii_case(name))
    }

    /// The address at which the cloud with this resource manager describes itself (protocol.md §8).
    ///
    /// # Errors
    /// [`Error::Cloud`] when `arm` is not an `https://` address.
    pub fn metadata_url(arm: &str) -> Result<String, Error> {
        let arm = https_base(arm).ok_or_else(|| Error::Cloud {
            text: arm.to_owned(),
            reason: "it is neither a built-in name nor an https:// address".into(),
        })?;
        Ok(format!("{arm}/metadata/endpoints?api-version=2022-09-01"))
    }

    /// Reads the answer of [`Cloud::metadata_url`]: one object, or a list from which the entry of this
    /// resource manager is taken, or the only one.
    ///
    /// # Errors
    /// [`Error::Cloud`] when it is no such answer.
    pub fn from_metadata(arm: &str, json: &[u8]) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Cloud { text: arm.to_owned(), reason };
        let answer: Metadata = serde_json::from_slice(json)
            .map_err(|error| wrong(format!("its /metadata/endpoints answers something else: {error}")))?;
        let mut entries = match answer {
            Metadata::One(entry) => vec![*entry],
            Metadata::List(entries) => entries,
        };
        let wanted = https_base(arm);
        let position = entries
            .iter()
            .position(|entry| entry.resource_manager.as_deref().and_then(https_base) == wanted)
            .or((entries.len() == 1).then_some(0))
            .ok_or_else(|| wrong("its /metadata/endpoints does not list it".into()))?;
        let entry = entries.swap_remove(position);
        let arm = entry.resource_manager.as_deref().and_then(https_base).or(wanted);
        let authority = https_base(&entry.authentication.login_endpoint);
        let (Some(arm), Some(authority)) = (arm, authority) else {
            return Err(wrong("its /metadata/endpoints names an address without https://".into()));
        };
        // ARM's own address where it is an audience; otherwise the first one, to the letter: a trailing
        // slash makes the double slash that the reference client sends (az-requests.md).
        let audience = entry
            .authentication
            .audiences
            .iter()
            .find(|audience| audience.trim_end_matches('/') == arm)
            .map(|audience| audience.trim_end_matches('/').to_owned())
            .or(entry.authentication.audiences.first().cloned())
            .unwrap_or_else(|| arm.clone());
        Ok(Self {
            name: entry.name.unwrap_or_else(|| arm.clone()),
            arm_scope: format!("{audience}/.default"),
            arm,
            authority,
            // The metadata names no such service.
            ssh_scope: ssh_scope(PUBLIC_SSH),
        })
    }

    fn known(name: &str, arm: &str, authority: &str, ssh: &str) -> Self {
        Self {
            name: name.into(),
            arm: arm.into(),
            authority: authority.into(),
            arm_scope: format!("{arm}/.default"),
            ssh_scope: ssh_scope(ssh),
        }
    }
}

/// The public cloud's service that decides who may sign in to a VM.
const PUBLIC_SSH: &str = "https://pas.windows.net";

fn ssh_scope(service: &str) -> String {
    format!("{service}/CheckMyAccess/Linux/.default")
}

/// `https://host[:port][/path]` without a trailing slash; nothing for anything else.
fn https_base(text: &str) -> Option<String> {
    let url = Url::parse(text.trim()).ok()?;
    (url.scheme() == "https" && url.has_host() && url.query().is_none())
        .then(|| url.as_str().trim_end_matches('/').to_owned())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Metadata {
    List(Vec<Entry>),
    One(Box<Entry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    resource_manager: Option<String>,
    authentication: Authentication,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authentication {
    login_endpoint: String,
    #[serde(default)]
    audiences: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_clouds_are_those_of_the_protocol() {
        let china = Cloud::by_name("azurechinacloud").unwrap();
        assert_eq!(china.arm_scope, "https://management.chinacloudapi.cn/.default");
        assert_eq!(china.authority, "https://login.chinacloudapi.cn");
        assert_eq!(Cloud::by_name("AzureMarsCloud"), None);
        assert!(Cloud::metadata_url("http://arm.local").is_err());
        assert_eq!(
            Cloud::metadata_url("https://arm.local:8443/").unwrap(),
            "https://arm.local:8443/metadata/endpoints?api-version=2022-09-01"
        );
    }

    #[test]
    fn reads_one_object_and_a_list() {
        let entry = r#"{"name":"Lab","resourceManager":"https://arm.local/","authentication":
            {"loginEndpoint":"https://login.local/","audiences":["https://management.core.windows.net/"]}}"#;
        let other = entry.replace("arm.local", "arm.other").replace("Lab", "Other");
        let check = |json: &str| {
            let cloud = Cloud::from_metadata("https://arm.local", json.as_bytes()).unwrap();
            assert_eq!((cloud.name.as_str(), cloud.authority.as_str()), ("Lab", "https://login.local"));
            assert_eq!(cloud.arm_scope, "https://management.core.windows.net//.default");
        };
        check(entry);
        check(&format!("[{other},{entry}]"));
        for json in
            [format!("[{other},{other}]"), "[]".into(), "<html>".into(), entry.replace("https", "ftp")]
        {
            assert!(Cloud::from_metadata("https://arm.local", json.as_bytes()).is_err(), "{json}");
        }
    }
}
