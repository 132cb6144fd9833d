//! ARM resource ids: `/subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME[/TYPE/NAME…]`. It
//! leaves out ids of subscriptions, groups and extension resources: nothing here is connected to them.

use std::fmt;
use std::str::FromStr;

use crate::{Error, TargetKind};

/// An id of a resource in a resource group. ARM compares ids without regard to case, and so does `==`; the
/// spelling that came in is kept for the wire and for messages.
#[derive(Clone)]
pub struct ResourceId {
    text: String,
    subscription: Span,
    group: Span,
    namespace: Span,
    /// Pairs of type and name, outermost first; at least one.
    types_and_names: Vec<(Span, Span)>,
}

impl ResourceId {
    /// Reads an id. Surrounding white space, a trailing slash and the portal's `#` prefixes are not part of
    /// it; white space and a trailing slash are forgiven.
    ///
    /// # Errors
    /// [`Error::ResourceId`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::ResourceId { text: text.trim().to_owned(), reason };
        let trimmed = text.trim();
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if !trimmed.starts_with('/') {
            return Err(wrong("it does not begin with '/subscriptions/'"));
        }
        if trimmed.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '\\')) {
            return Err(wrong("it holds white space or a character that no resource name has"));
        }
        let segments = segments(trimmed);
        if segments.iter().any(|span| matches!(span.of(trimmed), "" | "." | "..")) {
            return Err(wrong("it has an empty segment"));
        }
        let [subscriptions, subscription, groups, group, providers, namespace, rest @ ..] =
            segments.as_slice()
        else {
            return Err(wrong("it is too short to name a resource"));
        };
        for (span, literal, reason) in [
            (subscriptions, "subscriptions", "it does not begin with '/subscriptions/'"),
            (groups, "resourceGroups", "'/resourceGroups/' is missing after the subscription"),
            (providers, "providers", "'/providers/' is missing after the resource group"),
        ] {
            if !span.of(trimmed).eq_ignore_ascii_case(literal) {
                return Err(wrong(reason));
            }
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        if pairs.is_empty() || !odd.is_empty() {
            return Err(wrong("a resource type and a name are needed after the provider"));
        }
        Ok(Self {
            subscription: *subscription,
            group: *group,
            namespace: *namespace,
            types_and_names: pairs.iter().map(|[kind, name]| (*kind, *name)).collect(),
            text: trimmed.to_owned(),
        })
    }

    /// The id as it was given, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The subscription's id.
    pub fn subscription(&self) -> &str {
        self.subscription.of(&self.text)
    }

    /// The resource group's name.
    pub fn group(&self) -> &str {
        self.group.of(&self.text)
    }

    /// The resource's own name: the last segment.
    pub fn name(&self) -> &str {
        self.types_and_names.last().map_or("", |(_, name)| name.of(&self.text))
    }

    /// A name that a person recognises: `NAME`, or `SET_INSTANCE` for a scale-set instance, as the portal
    /// writes it.
    pub fn display_name(&self) -> String {
        match (self.kind(), self.types_and_names.as_slice()) {
            (TargetKind::ScaleSetInstance, [(_, set), (_, instance)]) => {
                format!("{}_{}", set.of(&self.text), instance.of(&self.text))
            }
            _ => self.name().to_owned(),
        }
    }

    /// The resource that it is a part of, such as a subnet's virtual network; none for one that stands by itself.
    pub fn parent(&self) -> Option<Self> {
        let [.., (_, parent), _] = self.types_and_names.as_slice() else { return None };
        Self::parse(self.text.get(..parent.end)?).ok()
    }

    /// The full type, such as `Microsoft.Compute/virtualMachines`, in the spelling given.
    pub fn resource_type(&self) -> String {
        let types = self.types_and_names.iter().map(|(kind, _)| kind.of(&self.text));
        std::iter::once(self.namespace.of(&self.text)).chain(types).collect::<Vec<_>>().join("/")
    }

    /// What kind of target it is.
    pub fn kind(&self) -> TargetKind {
        let known = [
            ("Microsoft.Compute/virtualMachines", TargetKind::VirtualMachine),
            ("Microsoft.Compute/virtualMachineScaleSets/virtualMachines", TargetKind::ScaleSetInstance),
            ("Microsoft.ContainerService/managedClusters", TargetKind::ManagedCluster),
            ("Microsoft.Network/bastionHosts", TargetKind::BastionHost),
        ];
        let resource_type = self.resource_type();
        known
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&resource_type))
            .map_or(TargetKind::Other, |(_, kind)| kind)
    }
}

impl FromStr for ResourceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.text.eq_ignore_ascii_case(&other.text)
    }
}

impl Eq for ResourceId {}

impl fmt::Display for ResourceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// A segment's place in the text.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or("")
    }
}

/// The segments between slashes of a text that begins with one.
fn segments(text: &str) -> Vec<Span> {
    let mut start = 1;
    let mut spans = Vec::new();
    for part in text.split('/').skip(1) {
        spans.push(Span { start, end: start + part.len() });
        start += part.len() + 1;
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VM: &str =
        "/subscriptions/2222/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-01";

    #[test]
    fn reads_every_kind_of_target() {
        let check = |text: &str, kind, name: &str, display: &str| {
            let id = ResourceId::parse(text).unwrap();
            assert_eq!((id.kind(), id.name(), id.display_name().as_str()), (kind, name, display), "{text}");
            assert_eq!((id.subscription(), id.group()), ("2222", "g"), "{text}");
        };
        check(VM, TargetKind::VirtualMachine, "web-01", "web-01");
        check(&format!(" {VM}/\n"), TargetKind::VirtualMachine, "web-01", "web-01");
        check(&VM.to_lowercase(), TargetKind::VirtualMachine, "web-01", "web-01");
        let base = "/subscriptions/2222/resourcegroups/g/providers";
        check(
            &format!("{base}/Microsoft.Compute/virtualMachineScaleSets/set/virtualMachines/0"),
            TargetKind::ScaleSetInstance,
            "0",
            "set_0",
        );
        check(
            &format!("{base}/Microsoft.ContainerService/managedClusters/aks"),
            TargetKind::ManagedCluster,
            "aks",
            "aks",
        );
        check(&format!("{base}/Microsoft.Sql/servers/db"), TargetKind::Other, "db", "db");
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "/",
            "web-01",
            "/subscriptions/1",
            "/subscriptions/1/resourceGroups/g",
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.Compute",
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.Compute/virtualMachines",
            "/subscriptions//resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a",
            "/subscriptions/1/resourceGroup/g/providers/Microsoft.Compute/virtualMachines/a",
            "/subscriptions/1/resourceGroups/g/provider/Microsoft.Compute/virtualMachines/a",
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a/b",
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/..",
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a b",
            "https://portal.azure.com/subscriptions/1/resourceGroups/g/providers/M.C/v/a",
        ] {
            assert!(matches!(ResourceId::parse(text), Err(Error::ResourceId { .. })), "{text}");
        }
    }

    #[test]
    fn a_part_knows_what_it_is_a_part_of() {
        assert_eq!(ResourceId::parse(VM).unwrap().parent(), None);
        let nic = ResourceId::parse(&format!("{VM}/networkInterfaces/nic")).unwrap();
        assert_eq!(nic.parent().unwrap().as_str(), VM);
    }

    #[test]
    fn case_does_not_matter() {
        assert_eq!(ResourceId::parse(VM).unwrap(), ResourceId::parse(&VM.to_uppercase()).unwrap());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            if let Ok(id) = ResourceId::parse(&text) {
                prop_assert!(!id.name().is_empty());
                prop_assert!(ResourceId::parse(id.as_str()).is_ok());
            }
        }
    }
}
