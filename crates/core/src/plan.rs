//! The policy of Azure Bastion in one pure function: what a host allows for a target and a port, and how a
//! connection is then opened (protocol.md §2, §3, §5). Behind it nothing asks for the SKU again. It leaves out
//! rights, which only the service knows, and sending.

use std::net::Ipv4Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use url::form_urlencoded;

use crate::{BastionHost, Fault, Grant, RdpSignIn, ResourceId, Secret, Sku, Target, TargetKind};

/// How connections to one port of one target are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    dns_name: String,
    bastion: ResourceId,
    entry: Entry,
    resource_id: String,
    machine: Option<ResourceId>,
    hostname: Option<Ipv4Addr>,
    port: u16,
    target_name: String,
    host_key_alias: String,
    advice: Option<String>,
}

/// The two ways into the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Standard and Premium: the host itself, by node (protocol.md §3).
    Node,
    /// Developer and QuickConnect: the host names a data pod, which serves the connection (protocol.md §5).
    Pod,
}

impl Plan {
    /// Decides whether `host` can open `port` of `target`, and how.
    ///
    /// # Errors
    /// A [`Refusal`] for everything that the service would refuse, or answer with its catch-all error, for
    /// reasons that ARM's description of the host already shows.
    pub fn new(host: &BastionHost, target: &Target, port: u16) -> Result<Self, Refusal> {
        let name = || host.id.name().to_owned();
        let entry = match &host.sku {
            Sku::Basic => return Err(Refusal::BasicSku { host: name(), group: host.id.group().to_owned() }),
            Sku::Developer | Sku::QuickConnect => Entry::Pod,
            Sku::Standard | Sku::Premium => Entry::Node,
            // A newer edition than this program: the service decides, by the rules of the paid ones.
            Sku::Unknown(_) => Entry::Node,
        };
        if host.session_recording {
            return Err(Refusal::SessionRecording { host: name(), group: host.id.group().to_owned() });
        }
        if !host.is_tunneling_on() {
            let (host_name, group) = (name(), host.id.group().to_owned());
            return Err(match host.tunneling {
                None => Refusal::TunnelingUnset { host: host_name, group },
                Some(_) => Refusal::TunnelingOff { host: host_name, group },
            });
        }
        let (resource_id, hostname) = match target {
            Target::Resource(id) if id.kind() == TargetKind::BastionHost => {
                return Err(Refusal::BastionAsTarget { id: id.clone() });
            }
            Target::Resource(id) => (id.as_str().to_owned(), None),
            Target::Address(address) => {
                if !host.ip_connect {
                    return Err(Refusal::IpConnectOff { host: name(), group: host.id.group().to_owned() });
                }
                if !IP_CONNECT_PORTS.contains(&port) {
                    return Err(Refusal::IpConnectPort { port });
                }
                let id = format!(
                    "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Network/bh-hostConnect/{address}",
                    host.id.subscription(),
                    host.id.group()
                );
                (id, Some(*address))
            }
        };
        let Some(dns_name) = host.dns_name.clone() else {
            let state = host.provisioning_state.clone().unwrap_or_else(|| "unknown".into());
            return Err(Refusal::NoDataPlane { host: name(), state });
        };
        let advice = match (target.kind(), &host.sku) {
            (TargetKind::Other, _) => Some(format!(
                "Bastion is not known to reach '{target}': it is neither a VM, a scale-set instance nor an AKS \
                 cluster"
            )),
            (_, Sku::Unknown(sku)) => {
                Some(format!("the SKU '{sku}' of '{}' is new to this version of bastide", host.id.name()))
            }
            _ => None,
        };
        Ok(Self {
            dns_name,
            bastion: host.id.clone(),
            entry,
            resource_id,
            machine: match target {
                Target::Resource(id)
                    if matches!(id.kind(), TargetKind::VirtualMachine | TargetKind::ScaleSetInstance) =>
                {
                    Some(id.clone())
                }
                Target::Resource(_) | Target::Address(_) => None,
            },
            hostname,
            port,
            target_name: target.display_name(),
            host_key_alias: host_key_alias(target, &host.id),
            advice,
        })
    }

    /// The VM or scale-set instance that is the target; none for an address, and for ids of other kinds.
    pub fn machine(&self) -> Option<&ResourceId> {
        self.machine.as_ref()
    }

    /// The host name (and port, in an emulator) of the Bastion host's data plane.
    pub fn dns_name(&self) -> &str {
        &self.dns_name
    }

    /// The Bastion host.
    pub fn bastion(&self) -> &ResourceId {
        &self.bastion
    }

    /// The target's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The target's name for messages.
    pub fn target_name(&self) -> &str {
        &self.target_name
    }

    /// Something the user should know before it fails in a strange way.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// The name under which the target's SSH host keys are kept, and which OpenSSH shows when it asks for a
    /// password: made of the VM's identity, such as `web-01.vm.GROUP.SUBSCRIPTION`, never of an address that
    /// another VM could have tomorrow. For IP connect the address as this Bastion host sees it.
    pub fn host_key_alias(&self) -> &str {
        &self.host_key_alias
    }

    /// Which way in.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// The JSON body that asks for a data pod; only for [`Entry::Pod`] (protocol.md §5).
    pub fn pod_request(&self, token: &Secret) -> Secret {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct PodRequest<'a> {
            resource_id: &'a str,
            bastion_resource_id: &'a str,
            vm_port: String,
            az_token: &'a str,
            connection_type: &'static str,
        }
        let request = PodRequest {
            resource_id: &self.resource_id,
            bastion_resource_id: self.bastion.as_str(),
            vm_port: self.port.to_string(),
            az_token: token.expose(),
            connection_type: "nativeclient",
        };
        // Five strings: serialising them can't fail, and an empty body would be refused by the service.
        Secret::new(serde_json::to_string(&request).unwrap_or_default())
    }

    /// The form body that mints a grant, fields in the reference client's order (protocol.md §3).
    pub fn mint_form(&self, token: &Secret) -> Secret {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("resourceId", &self.resource_id)
            .append_pair("protocol", "tcptunnel")
            .append_pair("workloadHostPort", &self.port.to_string())
            .append_pair("aztoken", token.expose());
        if let Some(address) = self.hostname {
            form.append_pair("hostname", &address.to_string());
        }
        Secret::new(form.finish())
    }

    /// Path and query of the upgrade (protocol.md §3 step 2, §5).
    pub fn upgrade_path(&self, grant: &Grant) -> Secret {
        let token = utf8_percent_encode(grant.websocket_token.expose(), SEGMENT);
        Secret::new(match self.entry {
            Entry::Node => {
                let node = utf8_percent_encode(&grant.node_id, SEGMENT);
                format!("/webtunnelv2/{token}?X-Node-Id={node}")
            }
            Entry::Pod => format!("/omni/webtunnel/{token}"),
        })
    }

    /// Path and query of the `.rdp` file that leads through the RDP gateway (protocol.md §6).
    ///
    /// # Errors
    /// A [`Refusal`] where there is no gateway, but a tunnel.
    pub fn rdp_file_path(&self, sign_in: RdpSignIn) -> Result<String, Refusal> {
        if let Some(address) = self.hostname {
            return Err(Refusal::GatewayByAddress { address });
        }
        if self.entry == Entry::Pod {
            let (host, group) = (self.bastion.name().to_owned(), self.bastion.group().to_owned());
            return Err(Refusal::NoGateway { host, group });
        }
        let resource = utf8_percent_encode(&self.resource_id, SEGMENT);
        // Spelt as the reference client does.
        let entra = match sign_in {
            RdpSignIn::Password => "False",
            RdpSignIn::Entra => "True",
        };
        let port = self.port;
        Ok(format!("/api/rdpfile?resourceId={resource}&format=rdp&rdpport={port}&enablerdsaad={entra}"))
    }

    /// Path of the release of a grant (protocol.md §3 step 4).
    pub fn release_path(auth_token: &Secret) -> Secret {
        Secret::new(format!("/api/tokens/{}", utf8_percent_encode(auth_token.expose(), SEGMENT)))
    }
}

/// One name for one target, readable from its left end.
fn host_key_alias(target: &Target, bastion: &ResourceId) -> String {
    let name = target.display_name();
    let alias = match target {
        Target::Resource(id) => match id.kind() {
            TargetKind::VirtualMachine => format!("{name}.vm.{}.{}", id.group(), id.subscription()),
            TargetKind::ScaleSetInstance => format!("{name}.vmss.{}.{}", id.group(), id.subscription()),
            TargetKind::ManagedCluster
            | TargetKind::BastionHost
            | TargetKind::Address
            | TargetKind::Other => id.as_str().trim_start_matches('/').to_owned(),
        },
        Target::Address(_) => {
            format!("{name}.{}.bastion.{}.{}", bastion.name(), bastion.group(), bastion.subscription())
        }
    };
    // OpenSSH compares them in lower case.
    alias.to_lowercase()
}

/// The only ports that IP connect opens (protocol.md §2).
const IP_CONNECT_PORTS: [u16; 2] = [22, 3389];

/// RFC 3986 "unreserved": everything else in a path segment or query value is percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a Bastion host can't open a connection, seen before one is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Basic hosts serve the portal only.
    #[error("the Bastion host '{host}' is of the Basic SKU, which has no native client support")]
    BasicSku {
        /// The host's name.
        host: String,
        /// Its resource group.
        group: String,
    },
    /// The owner switched native clients off.
    #[error("native client support (tunneling) is switched off on the Bastion host '{host}'")]
    TunnelingOff {
        /// The host's name.
        host: String,
        /// Its resource group.
        group: String,
    },
    /// ARM's answer does not have the switch at all: it was never set.
    #[error("native client support (tunneling) was never switched on for the Bastion host '{host}'")]
    TunnelingUnset {
        /// The host's name.
        host: String,
        /// Its resource group.
        group: String,
    },
    /// Recorded sessions run in the portal only.
    #[error("the Bastion host '{host}' records sessions, which turns native clients off")]
    SessionRecording {
        /// The host's name.
        host: String,
        /// Its resource group.
        group: String,
    },
    /// No connections by address.
    #[error("IP connect is switched off on the Bastion host '{host}'")]
    IpConnectOff {
        /// The host's name.
        host: String,
        /// Its resource group.
        group: String,
    },
    /// By address only SSH and RDP.
    #[error("port {port} cannot be opened by IP address: Bastion allows only 22 and 3389 there")]
    IpConnectPort {
        /// The port asked for.
        port: u16,
    },
    /// By address only a tunnel.
    #[error("by the IP address {address} Bastion opens a tunnel alone: its RDP gateway needs a resource id")]
    GatewayByAddress {
        /// The address asked for.
        address: Ipv4Addr,
    },
    /// Developer and QuickConnect hosts have no gateway for RDP clients (peers.md §0).
    #[error("the Bastion host '{host}' opens a tunnel alone: its SKU has no RDP gateway")]
    NoGateway {
        /// The host's name.
        host: String,
        /// Its resource group.
        group: String,
    },
    /// The id of the Bastion host where the VM's belongs.
    #[error("'{id}' is a Bastion host, not a VM to connect to")]
    BastionAsTarget {
        /// The id given.
        id: ResourceId,
    },
    /// Still being made, or failed.
    #[error("the Bastion host '{host}' has no data plane address (provisioning state: {state})")]
    NoDataPlane {
        /// The host's name.
        host: String,
        /// ARM's provisioning state.
        state: String,
    },
}

impl Refusal {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Refusal::BasicSku { host, group } => format!(
                "az network bastion update --name {host} --resource-group {group} --sku Standard \
                 --enable-tunneling true"
            ),
            Refusal::TunnelingOff { host, group } | Refusal::TunnelingUnset { host, group } => format!(
                "az network bastion update --name {host} --resource-group {group} --enable-tunneling true"
            ),
            Refusal::SessionRecording { host, group } => format!(
                "use the portal for this host, another Bastion host, or switch recording off: az network bastion \
                 update --name {host} --resource-group {group} --session-recording false"
            ),
            Refusal::IpConnectOff { host, group } => format!(
                "name the VM with --target-resource-id, or: az network bastion update --name {host} \
                 --resource-group {group} --enable-ip-connect true"
            ),
            Refusal::IpConnectPort { .. } => {
                "name the VM with --target-resource-id: other ports are open that way".into()
            }
            Refusal::GatewayByAddress { .. } => {
                "name the VM with --target-resource-id; or sign in by password over the tunnel, without --enable-mfa, \
                 --auth-type aad and --disable-gateway false"
                    .into()
            }
            Refusal::NoGateway { host, group } => format!(
                "sign in by password over the tunnel, without --enable-mfa, --auth-type aad and --disable-gateway \
                 false; or az network bastion update --name {host} --resource-group {group} --sku Standard \
                 --enable-tunneling true"
            ),
            Refusal::BastionAsTarget { .. } => {
                "name the Bastion host with --name and --resource-group, and the VM with --target-resource-id"
                    .into()
            }
            Refusal::NoDataPlane { host, .. } => {
                format!(
                    "wait until it is created (az network bastion wait --name {host} --created), or recreate it"
                )
            }
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Refusal::BasicSku { .. }
            | Refusal::TunnelingOff { .. }
            | Refusal::TunnelingUnset { .. }
            | Refusal::SessionRecording { .. }
            | Refusal::IpConnectOff { .. }
            | Refusal::IpConnectPort { .. }
            | Refusal::GatewayByAddress { .. }
            | Refusal::NoGateway { .. }
            | Refusal::NoDataPlane { .. } => Fault::Settings,
            Refusal::BastionAsTarget { .. } => Fault::Usage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b";
    const VM: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm";

    fn host(sku: Sku) -> BastionHost {
        BastionHost {
            id: ResourceId::parse(HOST).unwrap(),
            dns_name: Some("bst-1.bastion.azure.com".into()),
            sku,
            tunneling: Some(true),
            ip_connect: true,
            session_recording: false,
            provisioning_state: Some("Succeeded".into()),
            scale_units: Some(2),
            subnet: None,
        }
    }

    fn vm() -> Target {
        Target::Resource(ResourceId::parse(VM).unwrap())
    }

    fn grant() -> Grant {
        Grant {
            auth_token: "a/b+".to_owned().into(),
            node_id: "node 0".into(),
            websocket_token: "w/1=".to_owned().into(),
        }
    }

    #[test]
    fn forms_are_those_of_the_protocol() {
        let plan = Plan::new(&host(Sku::Standard), &vm(), 5432).unwrap();
        assert_eq!(
            plan.mint_form(&Secret::new("eyJ.x")).expose(),
            "resourceId=%2Fsubscriptions%2Fs%2FresourceGroups%2Fg%2Fproviders%2FMicrosoft.Compute%2F\
             virtualMachines%2Fvm&protocol=tcptunnel&workloadHostPort=5432&aztoken=eyJ.x"
        );
        assert_eq!(plan.upgrade_path(&grant()).expose(), "/webtunnelv2/w%2F1%3D?X-Node-Id=node%200");
        assert_eq!(Plan::release_path(&grant().auth_token).expose(), "/api/tokens/a%2Fb%2B");
    }

    #[test]
    fn an_address_is_asked_for_by_name_of_the_bastion_host() {
        let target = Target::address("10.0.0.4").unwrap();
        let plan = Plan::new(&host(Sku::Premium), &target, 22).unwrap();
        assert_eq!(
            plan.mint_form(&Secret::new("t")).expose(),
            "resourceId=%2Fsubscriptions%2Fs%2FresourceGroups%2Fg%2Fproviders%2FMicrosoft.Network%2F\
             bh-hostConnect%2F10.0.0.4&protocol=tcptunnel&workloadHostPort=22&aztoken=t&hostname=10.0.0.4"
        );
    }

    #[test]
    fn host_keys_are_kept_by_identity() {
        let check = |target: Target, expected: &str| {
            let plan = Plan::new(&host(Sku::Standard), &target, 22).unwrap();
            assert_eq!(plan.host_key_alias(), expected);
        };
        let id = |text: &str| Target::Resource(ResourceId::parse(text).unwrap());
        check(id(&VM.to_uppercase()), "vm.vm.g.s");
        let instance = VM.replace("virtualMachines/vm", "virtualMachineScaleSets/set/virtualMachines/0");
        check(id(&instance), "set_0.vmss.g.s");
        check(Target::address("10.0.0.4").unwrap(), "10.0.0.4.b.bastion.g.s");
    }

    #[test]
    fn developer_hosts_ask_for_a_pod() {
        for sku in [Sku::Developer, Sku::QuickConnect] {
            let plan = Plan::new(&BastionHost { tunneling: None, ..host(sku) }, &vm(), 22).unwrap();
            assert_eq!(plan.entry(), Entry::Pod);
            assert_eq!(
                plan.pod_request(&Secret::new("t")).expose(),
                format!(
                    r#"{{"resourceId":"{VM}","bastionResourceId":"{HOST}","vmPort":"22","azToken":"t","connectionType":"nativeclient"}}"#
                )
            );
            assert_eq!(plan.upgrade_path(&grant()).expose(), "/omni/webtunnel/w%2F1%3D");
        }
    }

    #[test]
    fn the_gateway_is_asked_as_the_reference_client_does() {
        let path = |sku, target: &Target, sign_in| {
            Plan::new(&host(sku), target, 3389).unwrap().rdp_file_path(sign_in)
        };
        let expected = |entra: &str| {
            let resource = VM.replace('/', "%2F");
            format!("/api/rdpfile?resourceId={resource}&format=rdp&rdpport=3389&enablerdsaad={entra}")
        };
        assert_eq!(path(Sku::Standard, &vm(), RdpSignIn::Password).unwrap(), expected("False"));
        assert_eq!(path(Sku::Premium, &vm(), RdpSignIn::Entra).unwrap(), expected("True"));
        let address = Target::address("10.0.0.4").unwrap();
        let refusal = path(Sku::Standard, &address, RdpSignIn::Entra).unwrap_err();
        assert!(matches!(refusal, Refusal::GatewayByAddress { .. }), "{refusal}");
        for sku in [Sku::Developer, Sku::QuickConnect] {
            let refusal = path(sku, &vm(), RdpSignIn::Password).unwrap_err();
            assert!(matches!(refusal, Refusal::NoGateway { .. }), "{refusal}");
        }
    }

    #[test]
    fn refuses_what_the_service_would() {
        let check = |host: BastionHost, target: &Target, port, expected: &str| {
            let refusal = Plan::new(&host, target, port).unwrap_err();
            assert!(format!("{refusal:?}").starts_with(expected), "{refusal:?}");
            assert!(!refusal.hint().is_empty());
        };
        let address = Target::address("10.0.0.4").unwrap();
        check(host(Sku::Basic), &vm(), 22, "BasicSku");
        check(BastionHost { tunneling: Some(false), ..host(Sku::Standard) }, &vm(), 22, "TunnelingOff");
        check(BastionHost { tunneling: None, ..host(Sku::Premium) }, &vm(), 22, "TunnelingUnset");
        check(BastionHost { session_recording: true, ..host(Sku::Premium) }, &vm(), 22, "SessionRecording");
        check(BastionHost { ip_connect: false, ..host(Sku::Standard) }, &address, 22, "IpConnectOff");
        check(host(Sku::Standard), &address, 2022, "IpConnectPort");
        check(BastionHost { dns_name: None, ..host(Sku::Standard) }, &vm(), 22, "NoDataPlane");
        check(
            host(Sku::Standard),
            &Target::Resource(ResourceId::parse(HOST).unwrap()),
            22,
            "BastionAsTarget",
        );
    }

    #[test]
    fn a_kind_nobody_has_seen_is_let_through_with_advice() {
        let id = VM.replace("Compute/virtualMachines", "Sql/servers");
        let plan = Plan::new(&host(Sku::Standard), &Target::Resource(ResourceId::parse(&id).unwrap()), 1433)
            .unwrap();
        assert!(plan.advice().unwrap().contains("Sql"));
        assert_eq!(Plan::new(&host(Sku::Standard), &vm(), 22).unwrap().advice(), None);
        let plan = Plan::new(&host(Sku::Unknown("Ultra".into())), &vm(), 22).unwrap();
        assert!(plan.advice().unwrap().contains("Ultra"));
    }
}
