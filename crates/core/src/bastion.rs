//! A Bastion host as ARM describes it (protocol.md §2). It leaves out how the description is fetched.

use serde::Deserialize;
use serde::de::Error as _;

use crate::{Error, ResourceId};

/// A Bastion host: where its data plane is, and what its owner switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BastionHost {
    /// Its ARM id: names subscription and group, for messages and for IP connect.
    pub id: ResourceId,
    /// `properties.dnsName`: the data plane's host name, and a port in an emulator. Never built from the
    /// resource's name (peers.md F25). `None` while the host is being created.
    pub dns_name: Option<String>,
    /// `sku.name`.
    pub sku: Sku,
    /// `properties.enableTunneling`: native clients allowed. Missing counts as off, with its own message.
    pub tunneling: Option<bool>,
    /// `properties.enableIpConnect`.
    pub ip_connect: bool,
    /// `properties.enableSessionRecording`: turns native clients off (protocol.md §4).
    pub session_recording: bool,
    /// `properties.provisioningState`, such as `Succeeded`.
    pub provisioning_state: Option<String>,
    /// `properties.scaleUnits`: how many instances share the sessions (protocol.md §4, limits).
    pub scale_units: Option<u32>,
    /// The subnet from which it reaches VMs. Shared hosts (Developer, QuickConnect) have none.
    pub subnet: Option<ResourceId>,
}

impl BastionHost {
    /// Reads ARM's JSON for one host.
    ///
    /// # Errors
    /// The JSON error, or [`Error::ResourceId`] as a JSON error, when it is not such a description.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<Resource>(json)?.try_into().map_err(serde_json::Error::custom)
    }

    /// Whether native clients are switched on. Where a data pod carries them there is no switch (protocol.md §2).
    pub fn is_tunneling_on(&self) -> bool {
        self.sku.has_data_pod() || self.tunneling == Some(true)
    }
}

/// The edition of a Bastion host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sku {
    /// One VM at a time, free, another end point (protocol.md §5).
    Developer,
    /// The older name of Developer's data path (protocol.md §5).
    QuickConnect,
    /// Portal only.
    Basic,
    /// Native clients, when switched on.
    Standard,
    /// Standard with session recording and private-only hosts.
    Premium,
    /// A name that this version does not know.
    Unknown(String),
}

impl Sku {
    /// The one that ARM calls so, in any case.
    pub fn named(name: &str) -> Self {
        [
            ("Developer", Sku::Developer),
            ("QuickConnect", Sku::QuickConnect),
            ("Basic", Sku::Basic),
            ("Standard", Sku::Standard),
            ("Premium", Sku::Premium),
        ]
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map_or_else(|| Sku::Unknown(name.to_owned()), |(_, sku)| sku)
    }

    /// Whether connections go through a data pod, which reaches the host's own network only (protocol.md §5).
    pub fn has_data_pod(&self) -> bool {
        matches!(self, Sku::Developer | Sku::QuickConnect)
    }

    /// ARM's name for it.
    pub fn name(&self) -> &str {
        match self {
            Sku::Developer => "Developer",
            Sku::QuickConnect => "QuickConnect",
            Sku::Basic => "Basic",
            Sku::Standard => "Standard",
            Sku::Premium => "Premium",
            Sku::Unknown(name) => name,
        }
    }
}

#[derive(Deserialize)]
struct Resource {
    id: String,
    sku: Option<SkuName>,
    #[serde(default)]
    properties: Properties,
}

#[derive(Deserialize)]
struct SkuName {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Properties {
    dns_name: Option<String>,
    enable_tunneling: Option<bool>,
    enable_ip_connect: Option<bool>,
    enable_session_recording: Option<bool>,
    provisioning_state: Option<String>,
    scale_units: Option<u32>,
    #[serde(default)]
    ip_configurations: Vec<IpConfiguration>,
}

#[derive(Deserialize)]
struct IpConfiguration {
    #[serde(default)]
    properties: IpConfigurationProperties,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IpConfigurationProperties {
    subnet: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    id: String,
}

impl TryFrom<Resource> for BastionHost {
    type Error = Error;

    fn try_from(resource: Resource) -> Result<Self, Error> {
        let subnets = resource.properties.ip_configurations.into_iter();
        let subnet = subnets.filter_map(|one| ResourceId::parse(&one.properties.subnet?.id).ok()).next();
        Ok(Self {
            id: ResourceId::parse(&resource.id)?,
            dns_name: resource.properties.dns_name.filter(|name| !name.is_empty()),
            // A host without a SKU was made before there was a choice: Basic.
            sku: resource.sku.map_or(Sku::Basic, |sku| Sku::named(&sku.name)),
            tunneling: resource.properties.enable_tunneling,
            ip_connect: resource.properties.enable_ip_connect.unwrap_or(false),
            session_recording: resource.properties.enable_session_recording.unwrap_or(false),
            provisioning_state: resource.properties.provisioning_state,
            scale_units: resource.properties.scale_units,
            subnet,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_arm_sends() {
        let host = BastionHost::from_json(
            br#"{"name":"b","id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b",
                "etag":"W/\"1\"","sku":{"name":"standard"},"properties":{"dnsName":"bst-1.bastion.azure.com",
                "enableTunneling":true,"enableIpConnect":null,"scaleUnits":2,"provisioningState":"Succeeded",
                "ipConfigurations":[{"name":"IpConf","properties":{"subnet":{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/AzureBastionSubnet"}}}]}}"#,
        )
        .unwrap();
        assert_eq!(host.sku, Sku::Standard);
        assert_eq!(host.tunneling, Some(true));
        assert_eq!(host.dns_name.as_deref(), Some("bst-1.bastion.azure.com"));
        assert!(!host.ip_connect && !host.session_recording);
        assert_eq!(host.scale_units, Some(2));
        assert_eq!(host.subnet.unwrap().parent().unwrap().name(), "v");
    }

    #[test]
    fn missing_parts_are_off() {
        let host = BastionHost::from_json(
            br#"{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b"}"#,
        )
        .unwrap();
        assert_eq!((host.sku, host.tunneling, host.dns_name), (Sku::Basic, None, None));
        assert!(BastionHost::from_json(br#"{"id":"b"}"#).is_err());
        assert!(BastionHost::from_json(b"<html>").is_err());
    }
}
