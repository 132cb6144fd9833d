//! What an examination finds: one finding for each link of the chain, as data. It leaves out how they are found.

use std::time::Duration;

use bastide_core::Fault;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::Error;

/// A link of the chain between a user and a port of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// An access token for Azure.
    SignIn,
    /// A subscription whose tenant accepts it.
    Tenant,
    /// The VM, and the right to read it.
    Vm,
    /// The same of its network interface.
    Nic,
    /// The same of the Bastion host.
    Bastion,
    /// The VM's virtual network: the Bastion host's own, or one that is peered with it and may be read.
    Vnet,
    /// What the Bastion host's SKU and settings allow.
    Settings,
    /// Room for another session.
    Sessions,
    /// Whether the VM runs.
    Power,
    /// Network security groups between the two.
    SecurityGroups,
    /// The name of the Bastion host, or of the proxy on the way to it.
    Dns,
    /// TCP, and the proxy.
    Connection,
    /// TLS, and who vouches for the Bastion host.
    Tls,
    /// A token of the data plane.
    Mint,
    /// The WebSocket.
    Upgrade,
    /// What the VM says, or that the port stays open.
    FirstByte,
    /// The token is given back.
    Release,
}

impl Link {
    /// All, in the order in which they are walked.
    pub const ALL: [Link; 17] = [
        Link::SignIn,
        Link::Tenant,
        Link::Vm,
        Link::Nic,
        Link::Bastion,
        Link::Vnet,
        Link::Settings,
        Link::Sessions,
        Link::Power,
        Link::SecurityGroups,
        Link::Dns,
        Link::Connection,
        Link::Tls,
        Link::Mint,
        Link::Upgrade,
        Link::FirstByte,
        Link::Release,
    ];

    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Link::SignIn => "sign-in",
            Link::Tenant => "tenant",
            Link::Vm => "vm",
            Link::Nic => "nic",
            Link::Bastion => "bastion",
            Link::Vnet => "vnet",
            Link::Settings => "settings",
            Link::Sessions => "sessions",
            Link::Power => "power",
            Link::SecurityGroups => "nsg",
            Link::Dns => "dns",
            Link::Connection => "connection",
            Link::Tls => "tls",
            Link::Mint => "mint",
            Link::Upgrade => "upgrade",
            Link::FirstByte => "first-byte",
            Link::Release => "release",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Link::SignIn => "sign-in",
            Link::Tenant => "tenant",
            Link::Vm => "VM",
            Link::Nic => "network interface",
            Link::Bastion => "Bastion host",
            Link::Vnet => "virtual network",
            Link::Settings => "SKU and settings",
            Link::Sessions => "room for sessions",
            Link::Power => "power state",
            Link::SecurityGroups => "NSG and port",
            Link::Dns => "DNS",
            Link::Connection => "TCP or proxy",
            Link::Tls => "TLS chain",
            Link::Mint => "mint",
            Link::Upgrade => "upgrade",
            Link::FirstByte => "first byte",
            Link::Release => "release",
        }
    }
}

/// What became of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    Ok,
    /// It may hold, or not for long.
    Warning,
    /// It is broken, and whose fault that is.
    Failed(Fault),
    /// It was not tried.
    Skipped,
}

impl Status {
    /// Its name: `ok`, `warning`, `failed`, `skipped`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed(_) => "failed",
            Status::Skipped => "skipped",
        }
    }
}

/// What was found about one link. Holds ids and names of resources, addresses and object ids, and neither secrets nor
/// names of people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub link: Link,
    /// What became of it.
    pub status: Status,
    /// What was seen.
    pub message: String,
    /// Why, from the outermost cause to the innermost.
    pub causes: Vec<String>,
    /// What mends it, or what to try: a line for `az`, where there is one.
    pub fix: Option<String>,
    /// How long it took; none when it was not tried, or was known already.
    pub took: Option<Duration>,
}

impl Finding {
    pub(super) fn ok(link: Link, took: Duration, message: impl Into<String>) -> Self {
        Self::new(link, Status::Ok, Some(took), message)
    }

    pub(super) fn warning(link: Link, took: Duration, message: impl Into<String>) -> Self {
        Self::new(link, Status::Warning, Some(took), message)
    }

    pub(super) fn skipped(link: Link, message: impl Into<String>) -> Self {
        Self::new(link, Status::Skipped, None, message)
    }

    /// Broken, and no error says so.
    pub(super) fn broken(link: Link, took: Duration, fault: Fault, message: impl Into<String>) -> Self {
        Self::new(link, Status::Failed(fault), Some(took), message)
    }

    pub(super) fn failed(link: Link, took: Duration, error: &Error) -> Self {
        let mut message = error.to_string();
        if let Some(id) = error.request_id() {
            message = format!("{message} (request id {id})");
        }
        let mut finding = Self::new(link, Status::Failed(error.fault()), Some(took), message);
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            finding.causes.push(cause.to_string());
            source = cause.source();
        }
        finding.fix = error.hint();
        finding
    }

    pub(super) fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Takes a person's name out of everything that is said.
    pub(super) fn hide(&mut self, name: &str) {
        let texts = std::iter::once(&mut self.message).chain(&mut self.causes).chain(&mut self.fix);
        for text in texts.filter(|text| text.contains(name)) {
            *text = text.replace(name, "(you)");
        }
    }

    fn new(link: Link, status: Status, took: Option<Duration>, message: impl Into<String>) -> Self {
        Self { link, status, message: message.into(), causes: Vec::new(), fix: None, took }
    }

    /// How long it took, in milliseconds with one decimal.
    pub fn milliseconds(&self) -> Option<f64> {
        self.took.map(|took| (took.as_secs_f64() * 10_000.0).round() / 10.0)
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Finding", 6)?;
        fields.serialize_field("link", self.link.name())?;
        fields.serialize_field("status", self.status.name())?;
        fields.serialize_field("milliseconds", &self.milliseconds())?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("causes", &self.causes)?;
        fields.serialize_field("hint", &self.fix)?;
        fields.end()
    }
}

/// One finding for each link. As JSON: the findings, and the name of the link that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// In the order of the links.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// The first broken link.
    pub fn broken(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| matches!(finding.status, Status::Failed(_)))
    }

    /// Whose fault it is; nobody's, when nothing is broken.
    pub fn fault(&self) -> Option<Fault> {
        match self.broken()?.status {
            Status::Failed(fault) => Some(fault),
            Status::Ok | Status::Warning | Status::Skipped => None,
        }
    }
}

impl Serialize for Diagnosis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Diagnosis", 2)?;
        fields.serialize_field("broken", &self.broken().map(|finding| finding.link.name()))?;
        fields.serialize_field("findings", &self.findings)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_object() {
        let mut finding = Finding::broken(
            Link::Nic,
            Duration::from_micros(12_345),
            Fault::Right,
            "ada@example.org may not read it",
        )
        .with_fix("az role");
        finding.hide("ada@example.org");
        let json = serde_json::to_string(&finding).unwrap();
        let diagnosis = Diagnosis { findings: vec![finding] };
        assert_eq!(
            serde_json::to_string(&diagnosis).unwrap(),
            format!(r#"{{"broken":"nic","findings":[{json}]}}"#)
        );
        assert_eq!(
            json,
            r#"{"link":"nic","status":"failed","milliseconds":12.3,"message":"(you) may not read it","causes":[],"hint":"az role"}"#
        );
    }

    #[test]
    fn every_link_has_names_of_its_own() {
        let mut names: Vec<_> = Link::ALL.iter().flat_map(|link| [link.name(), link.title()]).collect();
        names.sort_unstable();
        names.dedup();
        // Some are called the same by people and by programs.
        assert!(names.len() > Link::ALL.len());
    }
}
