//! Everything that is signed as a JWT (RFC 7519, RS256) with a key of the state folder, so that a token
//! that a client has cached is still good after a restart. Who gets one is `grants.rs`.

use std::sync::{Mutex, PoisonError};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::azure::unix_now;
use crate::state::{self, State};

/// The claims of an access token that matter here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: String,
    pub(crate) iss: String,
    pub(crate) iat: u64,
    pub(crate) nbf: u64,
    pub(crate) exp: u64,
    pub(crate) appid: String,
    pub(crate) oid: String,
    pub(crate) sub: String,
    pub(crate) tid: String,
    pub(crate) idtyp: String,
    pub(crate) ver: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scp: Option<String>,
    /// The claims that the request asked for, as `name=value`.
    #[serde(rename = "emulator_claims", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) asked: Vec<String>,
}

/// Why a token is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TokenFault {
    /// Not a token, or not one of ours.
    Invalid,
    /// Expired, in seconds since 1970.
    Expired { expiry: u64, now: u64 },
}

/// What is wrong with the signing key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state folder.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The key in it can't be used.
    #[error("using the token signing key of the state folder")]
    Key(#[from] jsonwebtoken::errors::Error),
}

/// Signs and checks access tokens.
pub(crate) struct Issuer {
    signing: EncodingKey,
    checking: DecodingKey,
    jwk: Jwk,
    key_id: String,
    /// Set when all tokens were made to expire: only tokens that carry it are accepted.
    era: Mutex<Option<String>>,
}

impl Issuer {
    /// With the key of a state folder, made at the first time.
    pub(crate) fn new(state: &State) -> Result<Issuer, Error> {
        let pem = state.kept("token-signing.key", || {
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
                .map(|pair| pair.serialize_pem())
                .map_err(|source| state::Error::File {
                    path: "token-signing.key".into(),
                    source: std::io::Error::other(source),
                })
        })?;
        let signing = EncodingKey::from_rsa_pem(pem.as_bytes())?;
        let mut jwk = Jwk::from_encoding_key(&signing, Algorithm::RS256)?;
        let key_id = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(key_id.clone());
        Ok(Issuer { checking: DecodingKey::from_jwk(&jwk)?, signing, jwk, key_id, era: Mutex::default() })
    }

    /// The public key as RFC 7517 has it.
    pub(crate) fn key_set(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    /// From now on no token that was issued before is accepted.
    pub(crate) fn expire_all(&self) {
        let era = uuid::Uuid::new_v4().to_string();
        *self.era.lock().unwrap_or_else(PoisonError::into_inner) = Some(era);
    }

    fn era(&self) -> Option<String> {
        self.era.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A signed token.
    pub(crate) fn issue(&self, claims: &Claims) -> Result<String, Error> {
        self.sign(&Signed { claims: claims.clone(), era: self.era() })
    }

    /// Any other claims, signed with the same key.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::RS256) };
        Ok(jsonwebtoken::encode(&header, claims, &self.signing)?)
    }

    /// What [`Issuer::sign`] signed, whenever that was; none when it is something else.
    pub(crate) fn read<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        // Expiry and audience are looked at by hand: each service has words of its own for them.
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode::<T>(token, &self.checking, &validation).ok().map(|data| data.claims)
    }

    /// The claims of a token that was signed here and has not expired.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, TokenFault> {
        let Signed { claims, era } = self.read(token).ok_or(TokenFault::Invalid)?;
        let now = unix_now();
        if claims.exp <= now {
            return Err(TokenFault::Expired { expiry: claims.exp, now });
        }
        let expected = self.era();
        if expected.is_some() && era != expected {
            return Err(TokenFault::Expired { expiry: now, now });
        }
        Ok(claims)
    }
}

/// What is in a token: the claims, and the era that it belongs to.
#[derive(Serialize, Deserialize)]
struct Signed {
    #[serde(flatten)]
    claims: Claims,
    #[serde(rename = "emulator_era", default, skip_serializing_if = "Option::is_none")]
    era: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims_of(now: u64) -> Claims {
        Claims {
            aud: "https://management.azure.com".into(),
            iss: "https://sts.windows.net/t/".into(),
            iat: now,
            nbf: now,
            exp: now + 60,
            appid: "a".into(),
            oid: "o".into(),
            sub: "o".into(),
            tid: "t".into(),
            idtyp: "app".into(),
            ver: "1.0".into(),
            ..Claims::default()
        }
    }

    #[test]
    fn tells_its_own_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer::new(&State::open(folder.path()).unwrap()).unwrap();
        let now = unix_now();
        let claims = claims_of(now);
        let token = issuer.issue(&claims).unwrap();
        assert_eq!(issuer.verify(&token).unwrap().appid, "a");
        assert_eq!(issuer.verify("e30.e30.e30").unwrap_err(), TokenFault::Invalid);
        let old = issuer.issue(&Claims { exp: now - 1, ..claims }).unwrap();
        assert!(matches!(issuer.verify(&old), Err(TokenFault::Expired { .. })));
        issuer.expire_all();
        assert!(matches!(issuer.verify(&token), Err(TokenFault::Expired { .. })));
        let fresh = issuer.issue(&Claims { appid: "b".into(), ..claims_of(now) }).unwrap();
        assert_eq!(issuer.verify(&fresh).unwrap().appid, "b");
        issuer.expire_all();
        assert!(matches!(issuer.verify(&fresh), Err(TokenFault::Expired { .. })));
        // After a restart in the same folder.
        assert!(Issuer::new(&State::open(folder.path()).unwrap()).unwrap().verify(&token).is_ok());
        let other = tempfile::tempdir().unwrap();
        let stranger = Issuer::new(&State::open(other.path()).unwrap()).unwrap();
        assert_eq!(stranger.verify(&token).unwrap_err(), TokenFault::Invalid);
    }
}
