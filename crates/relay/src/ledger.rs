//! What is owed to the service, written down where it outlives the process: after a crash the next one gives it back
//! (ARCHITECTURE.md, "A lease is a value"). It leaves out where and how: that is for whoever implements [`Ledger`].

use std::fmt;

use bastide_core::Secret;
use bastide_net::Origin;

/// Where minted tokens stand written until they are given back.
///
/// Called on the runtime's threads between a mint and its use, so that every method has to be short. What fails
/// is the ledger's own business: no connection fails for it.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Writes down a token that was minted this moment; none where that was not possible.
    fn record(&self, debt: &Debt) -> Option<Entry>;

    /// Strikes out what was given back.
    fn strike_out(&self, entry: Entry);

    /// Takes over what processes that are gone have left; from now on it stands in this ledger. Asked once by each
    /// [`crate::Relay`].
    fn inherit(&self) -> Vec<(Entry, Debt)>;
}

/// A line of a [`Ledger`], by a number that it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry(pub u64);

/// What a release needs to know (protocol.md §3 step 4).
#[derive(Debug, Clone)]
pub struct Debt {
    /// The host that minted: the Bastion host, or a data pod.
    pub host: Origin,
    /// Names the grant. It opens nothing.
    pub auth_token: Secret,
    /// The node that minted; empty where the service named none.
    pub node_id: String,
}
