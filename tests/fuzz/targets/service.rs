//! Answers of the services behind the sockets: the data plane's mint and pod, ARM, and Resource Graph.

use std::time::{Duration, SystemTime};

use bastide_arm::{PowerState, Ruling, Wanted};
use bastide_core::{BastionHost, Cloud, Grant, Plan, ResourceId, Target, service_message};
use http::{HeaderMap, HeaderValue, Uri, header};

use crate::judge::fit_for_a_terminal;

const VM: &str = "/subscriptions/2/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-01";
const STANDARD: &str = r#"{"id":"/subscriptions/2/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b",
    "sku":{"name":"Standard"},"properties":{"dnsName":"localhost","enableTunneling":true,"provisioningState":"Succeeded"}}"#;

/// A line for both `Retry-After` and a request id, and the body of a mint or of `/api/connection`.
pub(crate) fn mint(input: &[u8]) {
    let ([wait], body) = lines(input);
    let mut headers: HeaderMap = wait.clone().map(|value| (header::RETRY_AFTER, value)).into_iter().collect();
    headers.extend(wait.map(|value| (header::HeaderName::from_static("x-ms-request-id"), value)));
    let _ = bastide_relay::fuzzing::retry_after(&headers, now());
    bastide_relay::fuzzing::request_id(&headers).iter().for_each(|id| fit_for_a_terminal(id));
    if let Some(message) = service_message(body) {
        fit_for_a_terminal(&message);
    }
    if let Some(pod) = bastide_relay::fuzzing::pod(body) {
        assert!(pod.to_string().starts_with("https://"));
        fit_for_a_terminal(&pod.to_string());
    }
    match Grant::parse(body) {
        Ok(grant) => {
            assert!(!grant.auth_token.expose().is_empty() && !grant.node_id.is_empty());
            let host = BastionHost::from_json(STANDARD.as_bytes()).expect("a literal");
            let vm = Target::Resource(ResourceId::parse(VM).expect("a literal"));
            let plan = Plan::new(&host, &vm, 22).expect("a plan");
            // One path segment each, however the tokens look.
            let upgrade = plan.upgrade_path(&grant);
            let upgrade: Uri = upgrade.expose().parse().expect("a path");
            assert_eq!(upgrade.path().split('/').count(), 3, "{upgrade}");
            let release = Plan::release_path(&grant.auth_token);
            let release: Uri = release.expose().parse().expect("a path");
            assert_eq!(release.path().split('/').count(), 4, "{release}");
        }
        Err(error) => {
            fit_for_a_terminal(&error.to_string());
            assert!(error.releasable.is_none_or(|(token, _)| !token.expose().is_empty()));
        }
    }
}

/// Two bytes of status; lines for `WWW-Authenticate`, `Retry-After` and a request id; a body, which is also read as
/// each thing that ARM describes.
pub(crate) fn arm(input: &[u8]) {
    let [high, low, rest @ ..] = input else { return };
    let status = u16::from_be_bytes([*high, *low]);
    let ([challenge, wait, id], body) = lines(rest);
    let mut headers = HeaderMap::new();
    let names =
        [header::WWW_AUTHENTICATE, header::RETRY_AFTER, "x-ms-request-id".parse().expect("a literal")];
    for (name, value) in names.into_iter().zip([challenge, wait, id]) {
        value.map(|value| headers.insert(name, value));
    }
    let (answer, error) = bastide_arm::fuzzing::refusal(status, &headers, body);
    fit_for_a_terminal(&error.to_string());
    error.hint().iter().for_each(|hint| fit_for_a_terminal(hint));
    drop((error.fault(), answer.tenant.inspect(|tenant| fit_for_a_terminal(tenant))));

    let vm = ResourceId::parse(VM).expect("a literal");
    drop(bastide_arm::fuzzing::virtual_machine(&vm, body));
    drop(bastide_arm::fuzzing::azure_cli_default(body, "AzureCloud"));
    match bastide_arm::fuzzing::security_group(&vm, body, 22) {
        Some(Ruling::Denied { rule, .. } | Ruling::Unclear { rule }) => fit_for_a_terminal(&rule),
        Some(Ruling::Allowed) | None => {}
    }
    if let Err(error) = Cloud::from_metadata("https://localhost:1", body) {
        fit_for_a_terminal(&error.to_string());
    }
    if let Ok(host) = BastionHost::from_json(body) {
        for target in [Target::Resource(vm), Target::Address([10, 0, 0, 4].into())] {
            match Plan::new(&host, &target, 22) {
                Ok(plan) => drop((plan.mint_form(&"t".to_owned().into()), plan.host_key_alias().to_owned())),
                Err(refusal) => {
                    fit_for_a_terminal(&refusal.to_string());
                    fit_for_a_terminal(&refusal.hint());
                }
            }
        }
    }
}

/// A line for the words that a user typed, and Resource Graph's answer.
pub(crate) fn graph(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (words, answer) = input.split_at(end);
    let Ok(words) = std::str::from_utf8(words) else { return };
    let Ok(wanted) = Wanted::parse(words) else { return };
    let Some((topology, located)) = bastide_arm::fuzzing::locate(&wanted, answer) else { return };
    let is_plain = |text: &str| assert!(!text.chars().any(char::is_control), "{text:?}");
    match located {
        Ok(located) => {
            // Nothing but what was asked for, and nowhere but where the answer says.
            match &wanted {
                Wanted::Name(name) => assert_eq!(located.target.display_name(), *name),
                Wanted::Target(target) => assert_eq!(located.target, *target),
            }
            let host = located.host.expect("none was named");
            assert!(topology.hosts().iter().any(|known| known.description.id == host));
        }
        Err(error) => {
            is_plain(&error.to_string());
            is_plain(&error.hint());
            let _ = error.fault();
        }
    }
    for machine in topology.machines() {
        is_plain(&machine.id.display_name());
        is_plain(&machine.location);
        if let PowerState::Off(state) = &machine.power {
            is_plain(state);
        }
        assert!(topology.hosts_of(machine).count() <= topology.hosts().len());
    }
    for host in topology.hosts() {
        is_plain(&host.location);
        is_plain(host.description.sku.name());
        is_plain(host.description.provisioning_state.as_deref().unwrap_or_default());
    }
}

/// As many lines as header values, where they can be any, and the rest.
fn lines<const N: usize>(input: &[u8]) -> ([Option<HeaderValue>; N], &[u8]) {
    let mut rest = input;
    let values = std::array::from_fn(|_| {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (line, behind) = rest.split_at(end);
        rest = behind.get(1..).unwrap_or_default();
        HeaderValue::from_bytes(line).ok().filter(|value| !value.is_empty())
    });
    (values, rest)
}

/// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110 §5.6.7.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}
