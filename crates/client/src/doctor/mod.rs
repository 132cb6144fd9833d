//! The chain from a sign-in to the first byte of a VM, walked link by link: which one is broken, and what mends it. It
//! changes nothing: the one session that it opens is given back. It leaves out printing.
//!
//! `azure` and `between` walk what Azure Resource Manager knows, `way` the network, `session` the data plane; here is what
//! they report.

mod azure;
mod between;
mod finding;
mod session;
mod way;

use std::time::Duration;

use bastide_core::{Fault, Target};
use bastide_net::{Network, Origin};
use tokio_util::sync::CancellationToken;

use crate::{Client, CloudChoice, Error, Host, RelayOptions, Settings, Words};

pub use finding::{Diagnosis, Finding, Link, Status};

/// What is to be examined.
#[derive(Debug, Clone)]
pub struct Patient {
    /// The VM and the Bastion host. What an earlier run has found for them does not count.
    pub words: Words,
    /// The VM's port.
    pub port: u16,
    /// How connections are opened. With [`RelayOptions::first_byte`] the VM has to speak first.
    pub relay: RelayOptions,
}

impl Client {
    /// Walks the chain of links between this client and a port of a VM, and tells each finding as soon as there is one.
    /// `stop` ends it early: what was not examined is skipped, and the session is given back.
    ///
    /// Cancel safe: the session is given back, though nobody waits for it.
    pub async fn doctor(
        &self,
        patient: &Patient,
        tell: &mut (dyn FnMut(&Finding) + Send + Sync),
        stop: CancellationToken,
    ) -> Diagnosis {
        let mut report = Report::new(tell);
        let looking = Box::pin(async {
            let place = azure::examine(self, patient, &mut report).await?;
            way::examine(self, &place.host, &mut report).await;
            Some(place)
        });
        if let Some(Some(place)) = stop.run_until_cancelled(looking).await {
            session::examine(self, &place, patient, &stop, &mut report).await;
        }
        report.close()
    }
}

/// As [`Client::doctor`], from the settings of a client: one that cannot be made is a broken link too.
///
/// Cancel safe, as [`Client::doctor`].
///
/// # Errors
/// Settings that mean nothing, such as a CA bundle that cannot be read: there is nothing to examine then.
pub async fn examine(
    settings: Settings,
    patient: &Patient,
    tell: &mut (dyn FnMut(&Finding) + Send + Sync),
    stop: CancellationToken,
) -> Result<Diagnosis, Error> {
    let (options, cloud) = (settings.network.clone(), settings.cloud.clone());
    let made = stop.run_until_cancelled(Client::new(settings)).await;
    let Some(made) = made else { return Ok(Report::new(tell).close()) };
    match made {
        Ok(client) => Ok(client.doctor(patient, tell, stop).await),
        Err(error) if error.fault() == Fault::Usage => Err(error),
        Err(error) => {
            let network = Network::new(options)?;
            let asked = match &cloud {
                CloudChoice::At(address) => Origin::parse(address).ok(),
                CloudChoice::Known(_) => None,
            };
            let mut report = Report::new(tell);
            let finding = Finding::failed(Link::SignIn, Duration::ZERO, &error);
            way::blame(&network, asked.as_ref(), finding, &mut report).await;
            Ok(report.close())
        }
    }
}

/// What the words of a patient mean.
struct Place {
    host: Host,
    target: Target,
}

/// The findings so far, in the order of the links.
struct Report<'a> {
    tell: &'a mut (dyn FnMut(&Finding) + Send + Sync),
    findings: Vec<Finding>,
    /// Why links are skipped that no broken one stands before.
    unknown: Option<String>,
    /// What stands in errors of the user, and belongs into no report that is passed on.
    hidden: Option<String>,
}

impl<'a> Report<'a> {
    fn new(tell: &'a mut (dyn FnMut(&Finding) + Send + Sync)) -> Self {
        Self { tell, findings: Vec::new(), unknown: None, hidden: None }
    }

    /// Adds a finding; links before it of which nothing was said are skipped. One that comes too late is not needed any
    /// more: the network was blamed for it already.
    fn add(&mut self, finding: Finding) {
        if !self.is_past(finding.link) {
            self.skip_until(Some(finding.link));
            self.push(finding);
        }
    }

    /// Whether something was said of this link already.
    fn is_past(&self, link: Link) -> bool {
        Link::ALL.iter().position(|one| *one == link).is_some_and(|position| position < self.findings.len())
    }

    /// The first broken link so far.
    fn broken(&self) -> Option<Link> {
        self.findings
            .iter()
            .find(|finding| matches!(finding.status, Status::Failed(_)))
            .map(|finding| finding.link)
    }

    /// Skips what is left.
    fn close(mut self) -> Diagnosis {
        self.skip_until(None);
        Diagnosis { findings: self.findings }
    }

    fn skip_until(&mut self, next: Option<Link>) {
        let done = self.findings.len();
        let until = next
            .map_or(Link::ALL.len(), |next| Link::ALL.iter().position(|link| *link == next).unwrap_or(done));
        let why = match (self.broken(), &self.unknown) {
            (Some(broken), _) => format!("not tried: '{}' comes first", broken.title()),
            (None, Some(unknown)) => format!("not tried: {unknown}"),
            (None, None) => "not tried".to_owned(),
        };
        for link in Link::ALL.get(done..until).unwrap_or_default() {
            self.push(Finding::skipped(*link, why.clone()));
        }
    }

    fn push(&mut self, mut finding: Finding) {
        if let Some(hidden) = &self.hidden {
            finding.hide(hidden);
        }
        (self.tell)(&finding);
        self.findings.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_is_reported_once_and_in_order() {
        let mut told = Vec::new();
        let mut tell = |finding: &Finding| told.push((finding.link, finding.status));
        let mut report = Report::new(&mut tell);
        report.add(Finding::ok(Link::SignIn, Duration::ZERO, "in"));
        report.add(Finding::failed(Link::Bastion, Duration::ZERO, &Error::NoBastion));
        report.add(Finding::ok(Link::Tls, Duration::ZERO, "TLS"));
        let diagnosis = report.close();
        let links: Vec<Link> = diagnosis.findings.iter().map(|finding| finding.link).collect();
        assert_eq!(links, Link::ALL);
        assert_eq!(told.len(), Link::ALL.len());
        let broken = diagnosis.broken().unwrap();
        assert_eq!((broken.link, diagnosis.fault()), (Link::Bastion, Some(Fault::Usage)));
        let said = |link: Link| {
            diagnosis
                .findings
                .iter()
                .find(|finding| finding.link == link)
                .map(|finding| finding.message.as_str())
        };
        assert_eq!(said(Link::Tenant), Some("not tried"));
        assert_eq!(said(Link::Mint), Some("not tried: 'Bastion host' comes first"));
    }
}
