//! How full a Bastion host is, and how many scale units its sessions need (protocol.md §4, limits). It leaves out
//! asking for the sessions.

/// Open sessions of a Bastion host, by what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Sessions of SSH, and of everything that is not RDP.
    pub ssh: u32,
    /// Sessions of RDP.
    pub rdp: u32,
}

impl Occupancy {
    /// The scale units with which these sessions would not be near the limit; none when `scale_units` are enough.
    pub fn units_needed(self, scale_units: u32) -> Option<u64> {
        let load = u64::from(self.ssh) * RDP_PER_UNIT + u64::from(self.rdp) * SSH_PER_UNIT;
        // One more than those of which it is exactly the share that counts as near.
        let needed = load * 100 / (FULL * NEAR_PERCENT) + 1;
        (needed > u64::from(scale_units)).then_some(needed)
    }
}

/// Sessions of one kind that a scale unit carries, of medium load (protocol.md §4).
const SSH_PER_UNIT: u64 = 40;
const RDP_PER_UNIT: u64 = 20;

/// A full unit, where a session of either kind weighs what the other kind's limit is.
const FULL: u64 = SSH_PER_UNIT * RDP_PER_UNIT;

/// From this share of the limit on a host counts as nearly full: one burst of connections then fills it.
const NEAR_PERCENT: u64 = 80;

/// The most scale units that a Bastion host can have (protocol.md §4).
pub const MOST_SCALE_UNITS: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_from_four_fifths_on() {
        let check = |ssh, rdp, units, needed: Option<u64>| {
            assert_eq!(Occupancy { ssh, rdp }.units_needed(units), needed, "{ssh} {rdp} {units}");
        };
        check(0, 0, 1, None);
        check(31, 0, 1, None);
        check(32, 0, 1, Some(2));
        check(0, 15, 1, None);
        check(0, 16, 1, Some(2));
        check(63, 0, 2, None);
        check(64, 0, 2, Some(3));
        // Half full of each.
        check(40, 20, 2, Some(3));
        check(30, 10, 2, None);
        check(32, 16, 2, Some(3));
        check(1000, 0, 2, Some(32));
        check(u32::MAX, u32::MAX, 50, Some(402_653_184));
    }
}
