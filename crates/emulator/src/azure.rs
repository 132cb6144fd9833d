//! What the three services have in common: the inventory, the keys, the sessions, the transcript,
//! and who may do what. The services themselves are `entra`, `arm` and `data_plane`.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::arm::Operations;
use crate::data_plane::Sessions;
use crate::entra::{Claims, Issuer, SignIns, TokenFault};
use crate::faults::{Fault, Faults, Order};
use crate::identity::IdentitySecrets;
use crate::inventory::Inventory;
use crate::key_vault::KeyVaults;
use crate::principals::Principal;
use crate::scenario::{Secret, Settings};
use crate::services::Services;
use crate::transcript::Recorder;

/// The emulated Azure while it runs.
pub(crate) struct Azure {
    /// `https://localhost:PORT`
    pub(crate) url: String,
    /// `http://127.0.0.1:PORT`: the managed identity endpoints.
    pub(crate) plain_url: String,
    pub(crate) settings: Settings,
    pub(crate) inventory: Inventory,
    pub(crate) issuer: Issuer,
    pub(crate) sign_ins: SignIns,
    pub(crate) identity: IdentitySecrets,
    /// What a job of GitHub Actions or Azure Pipelines asks its issuer with.
    pub(crate) job_token: Secret,
    pub(crate) key_vaults: KeyVaults,
    pub(crate) services: Services,
    pub(crate) sessions: Sessions,
    pub(crate) operations: Operations,
    pub(crate) recorder: Recorder,
    pub(crate) faults: Faults,
    /// Asks every connection that is not a tunnel to end.
    pub(crate) hang_up: watch::Sender<()>,
    /// Asks everything to end.
    pub(crate) stop: CancellationToken,
}

/// Who asks, after the token has been checked.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) principal: &'a Principal,
    /// What its token says.
    pub(crate) claims: Claims,
}

/// Why a request is refused. The texts are ARM's own.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("Authentication failed. The 'Authorization' header is missing.")]
    Missing,
    #[error("The access token is invalid.")]
    Invalid,
    #[error(
        "The access token has been obtained for wrong audience or resource '{audience}'. It should exactly match with one of the allowed audiences {allowed}."
    )]
    Audience { audience: String, allowed: String },
    #[error("The access token expiry UTC time '{expiry}' is earlier than current UTC time '{now}'.")]
    Expired { expiry: String, now: String },
    #[error(
        "The access token is from the wrong issuer 'https://sts.windows.net/{issued}/'. It must match the tenant 'https://sts.windows.net/{wanted}/' associated with this subscription. Please use the authority (URL) 'https://login.windows.net/{wanted}' to get the token. Note, if the subscription is transferred to another tenant there is no impact to the services, but information about new tenant could take time to propagate (up to an hour). If you just transferred your subscription and see this error message, please try back later."
    )]
    Tenant { issued: String, wanted: String },
    #[error(
        "The client '{client}' with object id '{object}' does not have authorization to perform action '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
    )]
    Right { client: String, object: String, action: String, scope: String },
    #[error("The presented access token does not carry the claims that are needed here.")]
    Claims { challenge: String },
}

impl Azure {
    /// Audiences that tokens for ARM and for `aztoken` may have, without a slash at the end
    /// (protocol.md §7): the public cloud's two spellings and the emulator itself.
    pub(crate) fn audiences(&self) -> [&str; 3] {
        ["https://management.core.windows.net", "https://management.azure.com", &self.url]
    }

    /// Replaces the orders for faults. What is to be done at once is done.
    pub(crate) fn misbehave(&self, mut orders: Vec<Order>) {
        if orders.extract_if(.., |order| order.fault == Fault::ExpiredTokens).count() > 0 {
            self.issuer.expire_all();
        }
        self.faults.replace(orders);
    }

    /// See [`Faults::strike`]; the transcript counts it.
    pub(crate) fn strike<T>(&self, pick: impl Fn(&Fault) -> Option<T>) -> Option<(T, CancellationToken)> {
        let named = |fault: &Fault| pick(fault).map(|picked| (picked, fault.name()));
        let ((picked, name), replaced) = self.faults.strike(named)?;
        self.recorder.struck(name);
        Some((picked, replaced))
    }

    /// See [`Faults::strike_all`]; the transcript counts each.
    pub(crate) fn strike_all<T>(&self, pick: impl Fn(&Fault) -> Option<T>) -> Vec<T> {
        let named = |fault: &Fault| pick(fault).map(|picked| (picked, fault.name()));
        let count = |(picked, name)| {
            self.recorder.struck(name);
            picked
        };
        self.faults.strike_all(named).into_iter().map(count).collect()
    }

    /// Who an access token belongs to.
    pub(crate) fn authenticate(&self, token: &str) -> Result<Caller<'_>, Denied> {
        let claims = self.issuer.verify(token).map_err(|fault| match fault {
            TokenFault::Invalid => Denied::Invalid,
            TokenFault::Expired { expiry, now } => {
                Denied::Expired { expiry: arm_time(expiry), now: arm_time(now) }
            }
        })?;
        if !self.audiences().contains(&claims.aud.trim_end_matches('/')) {
            return Err(Denied::Audience {
                audience: claims.aud,
                allowed: self.audiences().map(|one| format!("'{one}/'")).join(","),
            });
        }
        match self.inventory.principal(&claims.tid, &claims.oid, &claims.appid) {
            Some(principal) => Ok(Caller { principal, claims }),
            None => Err(Denied::Invalid),
        }
    }
}

impl Caller<'_> {
    /// Whether it signed in to the tenant that something belongs to.
    pub(crate) fn must_be_of(&self, tenant: &str) -> Result<(), Denied> {
        if self.principal.tenant.eq_ignore_ascii_case(tenant) {
            return Ok(());
        }
        Err(Denied::Tenant { issued: self.principal.tenant.clone(), wanted: tenant.to_owned() })
    }

    /// Whether it may do something to a scope.
    pub(crate) fn must_be_allowed(&self, action: &str, scope: &str) -> Result<(), Denied> {
        if self.principal.may(action, scope) {
            return Ok(());
        }
        Err(Denied::Right {
            client: self.principal.name.clone(),
            object: self.principal.object_id.clone(),
            action: action.to_owned(),
            scope: scope.to_owned(),
        })
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `11/22/2026 3:53:11 PM`, as ARM writes times in messages.
fn arm_time(seconds: u64) -> String {
    let form = time::macros::format_description!(
        "[month padding:none]/[day padding:none]/[year] [hour repr:12 padding:none]:[minute]:[second] [period]"
    );
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&form).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::arm_time;

    #[test]
    fn times_as_arm_writes_them() {
        assert_eq!(arm_time(1_795_362_791), "11/22/2026 3:53:11 PM");
    }
}
