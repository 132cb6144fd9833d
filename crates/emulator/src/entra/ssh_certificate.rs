//! SSH certificates for the sign-in to Linux machines (protocol.md §7; OpenSSH's PROTOCOL.certkeys): the
//! authority that signs them, and the key that a request brings. Who may have one is `grants.rs`, who gets
//! in with it is `ssh`.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::public::{KeyData, RsaPublicKey};
use russh::keys::ssh_key::{self, Algorithm, EcdsaCurve, LineEnding, Mpint};
use serde::Deserialize;

use crate::principals::{Principal, PrincipalKind};
use crate::state::{self, State};

/// The authority that machines trust (`TrustedUserCAKeys` of sshd_config(5)).
pub(crate) struct SshAuthority {
    key: PrivateKey,
    public: String,
}

/// The key of a request, checked.
#[derive(Debug)]
pub(super) struct SshKey {
    key: RsaPublicKey,
    key_id: String,
}

impl SshAuthority {
    /// With the key of a state folder, made at the first time; `ca.pub` beside it is for a real sshd.
    pub(crate) fn new(state: &State) -> Result<SshAuthority, state::Error> {
        let broken = |source: ssh_key::Error| state::Error::File {
            path: state.path(KEY_FILE),
            source: std::io::Error::other(source),
        };
        let text = state.kept(KEY_FILE, || {
            let curve = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
            let key = PrivateKey::random(&mut rand::rng(), curve).map_err(broken)?;
            key.to_openssh(LineEnding::LF).map(|text| text.to_string()).map_err(broken)
        })?;
        let key = PrivateKey::from_openssh(text).map_err(broken)?;
        let public = key.public_key().to_openssh().map_err(broken)?;
        state.write(PUBLIC_FILE, &format!("{public} bastide-emulator\n"))?;
        Ok(SshAuthority { key, public })
    }

    /// One line as in `ca.pub`: type and base64.
    pub(crate) fn public_line(&self) -> &str {
        &self.public
    }

    /// A certificate for a key, base64 without its type, good for so many seconds from `now`.
    pub(super) fn sign(
        &self,
        key: &SshKey,
        principal: &Principal,
        now: u64,
        lifetime: u64,
    ) -> Result<String, ssh_key::Error> {
        let subject = KeyData::Rsa(key.key.clone());
        let mut builder =
            Builder::new_with_random_nonce(&mut rand::rng(), subject, now - CLOCK_SLACK, now + lifetime)?;
        builder.serial(now)?;
        builder.cert_type(CertType::User)?;
        builder.key_id(principal.object_id.as_str())?;
        // The first one is the user name.
        builder.valid_principal(principal.name.as_str())?;
        if matches!(principal.kind, PrincipalKind::User(_)) {
            builder.valid_principal(principal.object_id.as_str())?;
        }
        for extension in EXTENSIONS {
            builder.extension(extension, "")?;
        }
        Ok(STANDARD.encode(builder.sign(&self.key)?.to_bytes()?))
    }
}

const KEY_FILE: &str = "ssh-ca.key";
const PUBLIC_FILE: &str = "ca.pub";
/// Seconds before now that a certificate begins, for clocks that disagree.
const CLOCK_SLACK: u64 = 60;
/// What a certificate of ssh-keygen(1) allows by default.
const EXTENSIONS: [&str; 5] = [
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
];

/// RFC 7517 as clients send it (protocol.md §7): with or without padding, with or without a leading zero.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    n: String,
    e: String,
    kid: String,
}

const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// protocol.md §7: RSA of 2,048 bits or more.
const MIN_MODULUS_BYTES: usize = 256;
/// OpenSSH's `SSHBUF_MAX_BIGNUM`: 16,384 bits.
const MAX_MODULUS_BYTES: usize = 2048;

impl SshKey {
    /// From `req_cnf` and `key_id`; an error says what is wrong with them.
    pub(super) fn parse(req_cnf: &str, key_id: &str) -> Result<SshKey, String> {
        let jwk: Jwk =
            serde_json::from_str(req_cnf).map_err(|fault| format!("req_cnf is not a JWK: {fault}"))?;
        if jwk.kty != "RSA" {
            return Err(format!("req_cnf has the key type '{}', not RSA", jwk.kty));
        }
        let number = |name: &str, text: &str| {
            ANY_PADDING.decode(text).map_err(|_| format!("'{name}' of req_cnf is not base64url"))
        };
        let (n, e) = (number("n", &jwk.n)?, number("e", &jwk.e)?);
        let plain = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let (n, e) = (plain(&n), plain(&e));
        if !(MIN_MODULUS_BYTES..=MAX_MODULUS_BYTES).contains(&n.len()) {
            return Err(format!("req_cnf has a modulus of {} bytes", n.len()));
        }
        if jwk.kid != key_id {
            return Err("key_id is not the 'kid' of req_cnf".into());
        }
        if key_id != fingerprint(&jwk.n, &jwk.e) {
            return Err("key_id is not the SHA-256 of 'n' and 'e'".into());
        }
        let (n, e) = (Mpint::from_positive_bytes(&n), Mpint::from_positive_bytes(&e));
        let key = RsaPublicKey::new(e, n).map_err(|fault| fault.to_string())?;
        Ok(SshKey { key, key_id: key_id.to_owned() })
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// Hexadecimal SHA-256 over the base64url texts of modulus, then exponent (protocol.md §7).
fn fingerprint(n: &str, e: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(n.as_bytes());
    context.update(e.as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_requests() {
        #[track_caller]
        fn check(req_cnf: &str, key_id: &str, expected: Option<&str>) {
            let said = SshKey::parse(req_cnf, key_id).err();
            match expected {
                None => assert_eq!(said, None),
                Some(part) => assert!(said.as_ref().is_some_and(|text| text.contains(part)), "{said:?}"),
            }
        }
        let jwk =
            |n: &str, kid: &str| format!(r#"{{"kty": "RSA", "n": "{n}", "e": "AQAB", "kid": "{kid}"}}"#);
        // 256 bytes of 0xff behind the zero byte of an mpint: 343 characters of six bits, one of padding.
        let n = format!("AP{}8=", "_".repeat(340));
        assert_eq!(n.len(), 344);
        let kid = fingerprint(&n, "AQAB");
        check(&jwk(&n, &kid), &kid, None);
        let bare = n.trim_end_matches('=');
        let bare_kid = fingerprint(bare, "AQAB");
        check(&jwk(bare, &bare_kid), &bare_kid, None);
        check(&jwk(&n, &kid), "other", Some("kid"));
        check(&jwk(&n, &bare_kid), &bare_kid, Some("SHA-256"));
        check(&jwk("AP8", "x"), "x", Some("1 bytes"));
        check(&jwk("A P8", "x"), "x", Some("base64url"));
        check(r#"{"kty": "EC", "n": "", "e": "", "kid": ""}"#, "", Some("key type 'EC'"));
        check("{}", "", Some("not a JWK"));
        // The example of SHA-256 in FIPS 180-2, appendix B.1.
        assert_eq!(
            fingerprint("ab", "c"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
