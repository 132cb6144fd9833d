//! What users write: resource ids, and where to listen.

use std::net::{IpAddr, Ipv4Addr};

use bastide::{ForwardSpec, LocalSpec};
use bastide_core::{ResourceId, Target};
use bastide_net::Origin;

/// An id that is read reads again as itself, and holds what no path may hold.
pub(crate) fn resource_id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    drop(Target::address(text));
    let Ok(id) = ResourceId::parse(text) else { return };
    assert_eq!(ResourceId::parse(id.as_str()).expect("itself"), id);
    assert_eq!(id.as_str(), text.trim().strip_suffix('/').unwrap_or(text.trim()));
    for part in [id.subscription(), id.group(), id.name()] {
        assert!(!part.is_empty() && !part.contains(['/', '?', '#']) && part != "..", "{part:?}");
    }
    let target = Target::Resource(id.clone());
    assert!(!target.display_name().is_empty() && id.resource_type().contains('/'));
    assert_eq!(target.kind(), id.kind());
}

/// A forwarding means its parts; an address that is read reads again as itself.
pub(crate) fn endpoint(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(spec) = text.parse::<ForwardSpec>() {
        assert!(spec.remote_port > 0);
        if let LocalSpec::Socket(path) = &spec.local {
            assert!(text.starts_with(path.to_str().expect("it was text")));
        }
        drop(spec.endpoint(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_string());
    }
    if let Ok(origin) = Origin::parse(text) {
        let again = Origin::parse(&origin.to_string()).expect("itself");
        assert_eq!(
            (again.host(), again.port(), again.authority()),
            (origin.host(), origin.port(), origin.authority())
        );
    }
    drop(Origin::https(text));
}
