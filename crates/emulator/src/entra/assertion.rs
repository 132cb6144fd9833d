//! Client assertions (RFC 7523): JWTs that an application signs with a registered certificate, and
//! tokens of others that a federated credential trusts. Only the emulator's own issuers can be
//! trusted, since nothing is fetched from anywhere.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::ParsedCertificate;
use serde::Deserialize;
use serde_json::Value;

use super::fault::AssertionFault;
use crate::azure::{Azure, unix_now};
use crate::principals::{Credentials, Principal};
use crate::scenario::Tenant;

/// Checks an assertion; says which kind it is.
pub(super) fn check(
    azure: &Azure,
    tenant: &Tenant,
    principal: &Principal,
    credentials: &Credentials,
    assertion: &str,
) -> Result<&'static str, AssertionFault> {
    let payload = assertion.split('.').nth(1).ok_or(AssertionFault::Malformed)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| AssertionFault::Malformed)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| AssertionFault::Malformed)?;
    if claims.iss.eq_ignore_ascii_case(&principal.name) {
        by_certificate(azure, tenant, principal, credentials, assertion, &claims)?;
        Ok("client_certificate")
    } else {
        by_federation(azure, credentials, assertion, &claims)?;
        Ok("federated_token")
    }
}

/// The claims that decide. Until the signature was checked they are only somebody's words.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    /// A text or a list of texts (RFC 7519 section 4.1.3).
    aud: Value,
    exp: u64,
    nbf: Option<u64>,
    jti: Option<String>,
}

impl Claims {
    fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Value::String(one) => one == audience,
            Value::Array(all) => all.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        }
    }

    fn in_time(&self) -> Result<(), AssertionFault> {
        let now = unix_now();
        let begins = self.nbf.unwrap_or_default();
        match begins <= now + CLOCK_SKEW && now < self.exp + CLOCK_SKEW {
            true => Ok(()),
            false => Err(AssertionFault::Expired),
        }
    }
}

/// Seconds that clocks may differ: five minutes, as Entra ID allows.
const CLOCK_SKEW: u64 = 300;

fn by_certificate(
    azure: &Azure,
    tenant: &Tenant,
    principal: &Principal,
    credentials: &Credentials,
    assertion: &str,
    claims: &Claims,
) -> Result<(), AssertionFault> {
    let header = jsonwebtoken::decode_header(assertion).map_err(|_| AssertionFault::Malformed)?;
    let unregistered = || AssertionFault::NoMatchingKey { client: principal.name.clone() };
    let named = |pem: &&String| {
        let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
        let thumbprint = |algorithm| URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &der));
        header.x5t.as_ref().is_some_and(|text| *text == thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY))
            || header.x5t_s256.as_ref().is_some_and(|text| *text == thumbprint(&digest::SHA256))
    };
    let pem = credentials.certificates.iter().find(named).ok_or_else(unregistered)?;
    let key = public_key(pem).ok_or_else(unregistered)?;
    let mut validation = untimed(header.alg);
    validation.algorithms = vec![Algorithm::RS256, Algorithm::PS256];
    jsonwebtoken::decode::<Value>(assertion, &key, &validation).map_err(|_| AssertionFault::Signature)?;
    if !claims.sub.eq_ignore_ascii_case(&principal.name) {
        return Err(AssertionFault::Subject { client: principal.name.clone() });
    }
    if claims.jti.as_ref().is_none_or(String::is_empty) {
        return Err(AssertionFault::Malformed);
    }
    let base = format!("{}/{}", azure.url, tenant.id);
    let audiences = ["oauth2/v2.0/token", "oauth2/token", "v2.0"].map(|end| format!("{base}/{end}"));
    if !audiences.iter().any(|audience| claims.is_for(audience)) {
        return Err(AssertionFault::Audience);
    }
    claims.in_time()
}

fn by_federation(
    azure: &Azure,
    credentials: &Credentials,
    assertion: &str,
    claims: &Claims,
) -> Result<(), AssertionFault> {
    let mut trusted = credentials.federated.iter().filter(|one| one.issuer == claims.iss).peekable();
    if trusted.peek().is_none() {
        return Err(AssertionFault::Issuer(claims.iss.clone()));
    }
    let mut of_subject = trusted.filter(|one| one.subject == claims.sub).peekable();
    if of_subject.peek().is_none() {
        return Err(AssertionFault::FederatedSubject(claims.sub.clone()));
    }
    if !of_subject.any(|one| claims.is_for(&one.audience)) {
        return Err(AssertionFault::FederatedAudience(claims.aud.as_str().unwrap_or_default().to_owned()));
    }
    azure.issuer.read::<Value>(assertion).ok_or(AssertionFault::Signature)?;
    claims.in_time()
}

/// The RSA key of a certificate.
fn public_key(pem: &str) -> Option<DecodingKey> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let key = ParsedCertificate::try_from(&certificate).ok()?.subject_public_key_info();
    let key = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&key));
    DecodingKey::from_rsa_pem(key.as_bytes()).ok()
}

/// Signature only: time and audience have refusals of their own.
fn untimed(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}
