//! Refresh tokens. Each is a signed statement that clients take for a random text, so that none has to be
//! kept here and all outlive a restart; only what ended them before their time is remembered.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::{SignIns, lock};
use crate::azure::{Azure, unix_now};

/// Whose refresh token it is, and for which application.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefreshToken {
    /// Tells it from everything else that the same key signs.
    kind: Refresh,
    /// User principal name: the same person may ask in another tenant.
    pub(super) upn: String,
    /// Id of the tenant that the user signed in to.
    pub(super) tenant: String,
    pub(super) client: String,
    expires: u64,
    id: String,
    era: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Refresh {
    #[serde(rename = "emulator-refresh-token")]
    Token,
}

/// What ended refresh tokens before their time.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    /// Set when all tokens were ended: only those that carry it are accepted, the others met this end.
    era: Option<(String, RefreshEnd)>,
    /// Ids of tokens that were exchanged, when they must not be used again.
    used: VecDeque<String>,
}

/// How all refresh tokens so far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshEnd {
    /// `AADSTS700082`, as after a long silence.
    Expired,
    /// `AADSTS50173`, as after a change of password.
    Revoked,
}

/// Ids of used tokens that are remembered.
const MAX_USED: usize = 10_000;

impl SignIns {
    /// No refresh token that was issued before is accepted any more.
    pub(crate) fn end_refresh_tokens(&self, end: RefreshEnd) {
        lock(&self.refreshes).era = Some((uuid::Uuid::new_v4().to_string(), end));
    }
}

/// A new refresh token.
pub(super) fn issue(azure: &Azure, upn: &str, tenant: &str, client: &str) -> Result<String, Fault> {
    let sign_ins = &azure.sign_ins;
    let token = RefreshToken {
        kind: Refresh::Token,
        upn: upn.to_owned(),
        tenant: tenant.to_owned(),
        client: client.to_owned(),
        expires: unix_now() + u64::from(sign_ins.settings.refresh_token_lifetime_seconds),
        id: uuid::Uuid::new_v4().to_string(),
        era: lock(&sign_ins.refreshes).era.as_ref().map(|(era, _)| era.clone()),
    };
    let signed = azure.issuer.sign(&token).map_err(|_| Fault::Broken)?;
    Ok(format!("{PREFIX}{signed}"))
}

/// What a refresh token says, when it is still good. Where tokens work once, this was the time.
pub(super) fn redeem(azure: &Azure, text: &str) -> Result<RefreshToken, Fault> {
    let token: RefreshToken =
        text.strip_prefix(PREFIX).and_then(|text| azure.issuer.read(text)).ok_or(Fault::RefreshInvalid)?;
    let mut refreshes = lock(&azure.sign_ins.refreshes);
    if let Some((era, end)) = &refreshes.era
        && token.era.as_ref() != Some(era)
    {
        return Err(match end {
            RefreshEnd::Expired => Fault::RefreshExpired,
            RefreshEnd::Revoked => Fault::RefreshRevoked,
        });
    }
    if token.expires <= unix_now() {
        return Err(Fault::RefreshExpired);
    }
    if !azure.sign_ins.settings.refresh_token_reuse {
        if refreshes.used.contains(&token.id) {
            return Err(Fault::RefreshInvalid);
        }
        if refreshes.used.len() >= MAX_USED {
            refreshes.used.pop_front();
        }
        refreshes.used.push_back(token.id.clone());
    }
    Ok(token)
}

/// Entra ID's refresh tokens begin like this; nobody may read a meaning into what follows.
const PREFIX: &str = "1.A";
