//! The sessions of a Bastion host: those that the service lists, and the tokens that crashed processes of this user have
//! left behind. It leaves out printing.

use std::fmt;

use bastide_arm::{Session, SessionEnd};
use bastide_core::{MOST_SCALE_UNITS, Occupancy, ResourceId};
use bastide_relay::{Ledger as _, give_back};

use crate::{Client, Error, Host, LeftBehind};

/// What a Bastion host carries at one moment.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// One after the other, as the service lists them.
    pub list: Vec<Session>,
    host: ResourceId,
    scale_units: Option<u32>,
}

/// A Bastion host that is near its limit of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crowding {
    host: ResourceId,
    occupancy: Occupancy,
    scale_units: u32,
    /// How many scale units it would need to be clear of the limit.
    pub units_needed: u64,
}

impl Sessions {
    /// How near the host is to its limit of 40 SSH or 20 RDP sessions for each scale unit; none when there is room.
    pub fn crowding(&self) -> Option<Crowding> {
        let is_rdp = |session: &&Session| {
            session.protocol.as_deref().is_some_and(|protocol| protocol.eq_ignore_ascii_case("rdp"))
        };
        let rdp = self.list.iter().filter(is_rdp).count();
        let count = |sessions: usize| u32::try_from(sessions).unwrap_or(u32::MAX);
        let occupancy = Occupancy { ssh: count(self.list.len() - rdp), rdp: count(rdp) };
        let scale_units = self.scale_units?;
        let units_needed = occupancy.units_needed(scale_units)?;
        Some(Crowding { host: self.host.clone(), occupancy, scale_units, units_needed })
    }
}

impl fmt::Display for Crowding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, occupancy: Occupancy { ssh, rdp }, scale_units, units_needed } = self;
        write!(
            formatter,
            "the Bastion host '{}' is near its limit: {ssh} SSH and {rdp} RDP sessions on {}, of which each carries 40 \
             SSH or 20 RDP; {units_needed} are needed",
            host.name(),
            counted(*scale_units, "scale unit")
        )
    }
}

/// A number and what is counted.
pub(crate) fn counted(number: u32, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

impl Crowding {
    /// What to do.
    pub fn hint(&self) -> String {
        let Self { host, units_needed, .. } = self;
        if *units_needed > MOST_SCALE_UNITS {
            return format!(
                "a host has at most {MOST_SCALE_UNITS} scale units: a second Bastion host is needed"
            );
        }
        format!(
            "close sessions with `bastide sessions close ID`, or: az network bastion update --name {} \
             --resource-group {} --scale-units {units_needed}",
            host.name(),
            host.group()
        )
    }
}

impl Client {
    /// The sessions that `host` carries now.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Arm`].
    pub async fn sessions(&self, host: &Host) -> Result<Sessions, Error> {
        let description = host.description();
        let list = self.arm.sessions(&description.id).await?;
        Ok(Sessions { list, host: description.id.clone(), scale_units: description.scale_units })
    }

    /// Ends sessions of `host`, by their ids; what came of each.
    ///
    /// Not cancel safe: dropping the future leaves open which have ended.
    ///
    /// # Errors
    /// [`Error::Arm`].
    pub async fn end_sessions(&self, host: &Host, ids: &[String]) -> Result<Vec<SessionEnd>, Error> {
        Ok(self.arm.end_sessions(&host.description().id, ids).await?)
    }

    /// The tokens that crashed processes have left in the ledger of this client's settings: each counts as a session of
    /// its host. The next connection of any client with that ledger gives them back.
    pub fn left_behind(&self) -> Vec<LeftBehind> {
        self.ledger.as_ref().map(|ledger| ledger.left_behind()).unwrap_or_default()
    }

    /// Gives back one of [`Client::left_behind`], by its id; whether it was still there.
    ///
    /// Cancel safe: what is not given back stays in the ledger.
    ///
    /// # Errors
    /// [`Error::Connection`] when the service does not take it.
    pub async fn give_back(&self, id: &str) -> Result<bool, Error> {
        let Some((ledger, (entry, debt))) =
            self.ledger.as_ref().and_then(|ledger| Some((ledger, ledger.take_one(id)?)))
        else {
            return Ok(false);
        };
        give_back(&self.network, &debt).await?;
        ledger.strike_out(entry);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(ssh: usize, rdp: usize, scale_units: Option<u32>) -> Sessions {
        let session = |protocol: &str| Session { protocol: Some(protocol.into()), ..Session::default() };
        let list = (0..ssh).map(|_| session("SSH")).chain((0..rdp).map(|_| session("RDP"))).collect();
        let host = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b";
        Sessions { list, host: host.parse().unwrap(), scale_units }
    }

    #[test]
    fn a_crowded_host_says_what_it_needs() {
        assert_eq!(sessions(63, 0, Some(2)).crowding(), None);
        assert_eq!(sessions(1000, 0, None).crowding(), None);
        let crowding = sessions(40, 20, Some(2)).crowding().unwrap();
        assert_eq!(
            crowding.to_string(),
            "the Bastion host 'b' is near its limit: 40 SSH and 20 RDP sessions on 2 scale units, of which each \
             carries 40 SSH or 20 RDP; 3 are needed"
        );
        assert!(
            crowding
                .hint()
                .ends_with("az network bastion update --name b --resource-group g --scale-units 3")
        );
        assert!(sessions(0, 1000, Some(50)).crowding().unwrap().hint().contains("a second Bastion host"));
    }
}
