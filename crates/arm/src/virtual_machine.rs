//! Virtual machines and scale-set instances: what runs on them, and whether they run at all. It leaves out their
//! network but for the names of its interfaces.

use bastide_core::{ResourceId, TargetKind};
use serde::Deserialize;

use crate::client::Question;
use crate::{Arm, Error};

/// A VM, or an instance of a scale set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachine {
    /// Its id, as it was asked for.
    pub id: ResourceId,
    /// What it boots; unknown for a disk without that label.
    pub operating_system: Option<OperatingSystem>,
    /// Whether it runs.
    pub power: PowerState,
    /// Its network interfaces, the primary one first.
    pub network_interfaces: Vec<ResourceId>,
}

/// What a VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatingSystem {
    /// Linux.
    Linux,
    /// Windows.
    Windows,
}

/// Whether a VM runs, as its instance view has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerState {
    /// It runs, as far as Azure knows.
    Running,
    /// It does not: `stopped`, `deallocated`, or on the way to one of them or back.
    Off(String),
    /// Azure does not say.
    Unknown,
}

impl PowerState {
    /// Reads `PowerState/running`; any other code says nothing.
    pub(crate) fn of_code(code: &str) -> Self {
        match code.split_once('/') {
            Some((group, state)) if group.eq_ignore_ascii_case("PowerState") => {
                match state.to_ascii_lowercase().as_str() {
                    "running" => PowerState::Running,
                    "unknown" | "" => PowerState::Unknown,
                    off => PowerState::Off(off.to_owned()),
                }
            }
            _ => PowerState::Unknown,
        }
    }
}

impl Arm {
    /// The VM, or the scale-set instance, with this id.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Rejected`] from ARM for an id of anything else; those of an exchange.
    pub async fn virtual_machine(&self, id: &ResourceId) -> Result<VirtualMachine, Error> {
        let kind = match id.kind() {
            TargetKind::ScaleSetInstance => "scale-set instance",
            _ => "VM",
        };
        let what = format!("{kind} '{}' in resource group '{}'", id.display_name(), id.group());
        let question = Question {
            what: &what,
            path: id.as_str(),
            api_version: API_VERSION,
            expand: Some("instanceView"),
            subscription: Some(id.subscription()),
        };
        let machine: Machine = question.parse(&self.get(&question).await?)?;
        Ok(machine.read(id))
    }
}

/// A stable version of Microsoft.Compute that has both kinds and their instance view (azure-rest-api-specs, ComputeRP).
const API_VERSION: &str = "2024-07-01";

#[derive(Deserialize)]
struct Machine {
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    storage_profile: Option<StorageProfile>,
    instance_view: Option<InstanceView>,
    network_profile: Option<NetworkProfile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkProfile {
    #[serde(default)]
    network_interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
struct Interface {
    id: String,
    #[serde(default)]
    properties: InterfaceProperties,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct InterfaceProperties {
    primary: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StorageProfile {
    os_disk: Option<OsDisk>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OsDisk {
    os_type: Option<String>,
}

#[derive(Deserialize)]
struct InstanceView {
    #[serde(default)]
    statuses: Vec<Status>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: String,
}

impl Machine {
    fn read(self, id: &ResourceId) -> VirtualMachine {
        let label = self.properties.storage_profile.and_then(|profile| profile.os_disk?.os_type);
        let operating_system = match label.unwrap_or_default().to_ascii_lowercase().as_str() {
            "linux" => Some(OperatingSystem::Linux),
            "windows" => Some(OperatingSystem::Windows),
            _ => None,
        };
        let statuses = self.properties.instance_view.map(|view| view.statuses).unwrap_or_default();
        let power = statuses.iter().map(|status| PowerState::of_code(&status.code));
        let power = power.reduce(|known, next| if known == PowerState::Unknown { next } else { known });
        let power = power.unwrap_or(PowerState::Unknown);
        let mut interfaces =
            self.properties.network_profile.map(|profile| profile.network_interfaces).unwrap_or_default();
        interfaces.sort_by_key(|interface| !interface.properties.primary);
        let network_interfaces =
            interfaces.iter().filter_map(|interface| ResourceId::parse(&interface.id).ok()).collect();
        VirtualMachine { id: id.clone(), operating_system, power, network_interfaces }
    }
}

/// What a description says, without the question around it.
#[cfg(fuzzing)]
pub(crate) fn read(id: &ResourceId, body: &[u8]) -> Option<VirtualMachine> {
    serde_json::from_slice::<Machine>(body).ok().map(|machine| machine.read(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Reply, Script};

    const VM: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-01";

    #[tokio::test]
    async fn system_and_power_are_read() {
        let check = async |properties: &str, system: Option<OperatingSystem>, power: PowerState| {
            let body = format!(r#"{{"id":"{VM}","name":"web-01","properties":{properties}}}"#);
            let script = Script::start(vec![Reply::json(200, &body)]).await;
            let machine = script.arm().virtual_machine(&VM.parse().unwrap()).await.unwrap();
            assert_eq!((machine.operating_system, machine.power), (system, power), "{properties}");
            assert_eq!(script.paths(), [format!("{VM}?api-version=2024-07-01&$expand=instanceView")]);
        };
        check(
            r#"{"storageProfile":{"osDisk":{"osType":"Linux","diskSizeGB":30}},"instanceView":{"statuses":[
                {"code":"ProvisioningState/succeeded","level":"Info"},
                {"code":"PowerState/running","level":"Info","displayStatus":"VM running"}]}}"#,
            Some(OperatingSystem::Linux),
            PowerState::Running,
        )
        .await;
        check(
            r#"{"storageProfile":{"osDisk":{"osType":"Windows"}},"instanceView":{"statuses":[{"code":"PowerState/deallocated"}]}}"#,
            Some(OperatingSystem::Windows),
            PowerState::Off("deallocated".into()),
        )
        .await;
        check(r#"{"instanceView":{"statuses":[{"code":"PowerState/"},{}]}}"#, None, PowerState::Unknown)
            .await;
        check(r#"{"storageProfile":null}"#, None, PowerState::Unknown).await;
    }

    #[test]
    fn the_primary_interface_comes_first() {
        let nic = |name: &str| {
            format!("/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkInterfaces/{name}")
        };
        let body = format!(
            r#"{{"properties":{{"networkProfile":{{"networkInterfaces":[
                {{"id":"{}"}},{{"id":"{}","properties":{{"primary":true}}}},{{"id":"?"}}]}}}}}}"#,
            nic("second"),
            nic("first")
        );
        let machine: Machine = serde_json::from_str(&body).unwrap();
        let machine = machine.read(&VM.parse().unwrap());
        let names: Vec<_> = machine.network_interfaces.iter().map(|id| id.name()).collect();
        assert_eq!(names, ["first", "second"]);
    }

    #[tokio::test]
    async fn a_missing_instance_is_named_as_the_portal_names_it() {
        let script = Script::start(vec![Reply::json(404, "{}")]).await;
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/set/virtualMachines/3";
        let error = script.arm().virtual_machine(&id.parse().unwrap()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "scale-set instance 'set_3' in resource group 'g' was not found: (status 404)"
        );
    }
}
