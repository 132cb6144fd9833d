//! The network between here and a host: its name, TCP or the proxy, TLS. It leaves out what is said over it.

use std::time::Duration;

use bastide_core::Fault;
use bastide_net::{Chain, Network, Origin};
use tokio::time::Instant;

use super::{Finding, Link, Report, Status};
use crate::{Client, Error, Host};

/// Walks to the Bastion host.
pub(super) async fn examine(client: &Client, host: &Host, report: &mut Report<'_>) {
    let Some(name) = &host.description().dns_name else { return };
    let findings = match Origin::https(name) {
        Ok(origin) => walk(&client.network, &origin).await,
        Err(error) => vec![Finding::failed(Link::Dns, Duration::ZERO, &error.into())],
    };
    findings.into_iter().for_each(|finding| report.add(finding));
}

/// Reports a failed link, or the link of the network on the way to `asked` that has made it fail.
pub(super) async fn blame(
    network: &Network,
    asked: Option<&Origin>,
    finding: Finding,
    report: &mut Report<'_>,
) {
    let network_failed = finding.status == Status::Failed(Fault::Network);
    let walked = match asked.filter(|_| network_failed) {
        Some(origin) => walk(network, origin).await,
        None => Vec::new(),
    };
    let culprit = walked.iter().find(|step| matches!(step.status, Status::Failed(_)));
    match (culprit, asked) {
        (Some(culprit), Some(asked)) => {
            let why = format!("{} is not reached: see '{}'", asked.authority(), culprit.link.title());
            report.add(Finding::skipped(finding.link, format!("not tried: {why}")));
            report.unknown = Some(why);
            walked.into_iter().for_each(|step| report.add(step));
        }
        // It works now, or it is not the network between here and there.
        _ => report.add(finding),
    }
}

/// The steps as far as they come.
async fn walk(network: &Network, origin: &Origin) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(failed) = try_walk(network, origin, &mut findings).await {
        findings.push(failed);
    }
    findings
}

async fn try_walk(network: &Network, origin: &Origin, findings: &mut Vec<Finding>) -> Result<(), Finding> {
    let failed = |link: Link, started: Instant| {
        move |error: bastide_net::Error| {
            let error = Error::from(error);
            let finding = Finding::failed(link, started.elapsed(), &error);
            // A proxy that wants a password is a matter of settings, and of this link of the chain as well.
            Finding { status: Status::Failed(Fault::Network), ..finding }
        }
    };
    let started = Instant::now();
    let walk = network.walk(origin).map_err(failed(Link::Connection, started))?;
    let addresses = walk.resolve().await.map_err(failed(Link::Dns, started))?;
    let first_hop = walk.proxy().unwrap_or(origin);
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let who = if walk.proxy().is_some() { "the proxy " } else { "" };
    let says = format!("{who}{} is {}", first_hop.host(), shown.join(", "));
    findings.push(Finding::ok(Link::Dns, started.elapsed(), says));

    let started = Instant::now();
    let reached = walk.connect(addresses).await.map_err(failed(Link::Connection, started))?;
    let address = reached.address().map_or_else(String::new, |address| address.to_string());
    let says = match walk.proxy() {
        Some(proxy) => format!("through the proxy {} at {address}", proxy.authority()),
        None => format!("directly to {address}"),
    };
    findings.push(Finding::ok(Link::Connection, started.elapsed(), says));

    let started = Instant::now();
    let chain = walk.secure(reached).await.map_err(failed(Link::Tls, started))?;
    findings.push(Finding::ok(Link::Tls, started.elapsed(), vouched(&chain)));
    Ok(())
}

/// Who vouches for whom: an authority that nobody expects there has broken the connection open.
fn vouched(chain: &Chain) -> String {
    let certificates = chain.certificates();
    let mut says: Vec<String> = certificates.iter().map(|one| format!("'{}'", one.subject)).collect();
    let last = certificates.last().filter(|last| last.issuer != last.subject);
    says.extend(last.map(|last| format!("'{}'", last.issuer)));
    let until = certificates.first().map_or_else(String::new, |own| format!(", valid to {}", own.not_after));
    format!("{}{until}", says.join(" issued by "))
}
