//! Who may sign in: the one place where a password, a key or a certificate is judged.
//!
//! `russh` has verified by then that the client holds the private key, that a certificate was signed by
//! the key that it names, and that it is neither too old nor too young.

use std::path::{Path, PathBuf};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{self, AuthorizedKeys};
use russh::keys::{Algorithm, Certificate, PublicKey};
use subtle::ConstantTimeEq as _;

use super::EntraSignIn;

/// The one account of the server, and who may be it. It has no `Debug`: it holds a password.
pub(super) struct SignIn {
    username: String,
    password: String,
    authorized_keys: PathBuf,
    entra: Option<CertificateSignIn>,
}

/// The authority that is trusted, and the users that it may vouch for.
pub(super) struct CertificateSignIn {
    authority: KeyData,
    users: Vec<String>,
}

impl CertificateSignIn {
    /// With the authority's line parsed.
    pub(super) fn new(options: EntraSignIn) -> Result<Self, ssh_key::Error> {
        let authority = PublicKey::from_openssh(&options.authority)?.key_data().clone();
        Ok(Self { authority, users: options.users })
    }
}

impl SignIn {
    /// The account `username` with `password` and the keys in `{home}/.ssh/authorized_keys`.
    pub(super) fn new(
        username: String,
        password: String,
        home: &Path,
        entra: Option<CertificateSignIn>,
    ) -> Self {
        Self { username, password, authorized_keys: home.join(".ssh").join("authorized_keys"), entra }
    }

    /// Is it worth the client's while to sign with this key? A certificate's key can't be told from a bare
    /// one here, so that every RSA key is, where certificates are taken. Not with SHA-1, as OpenSSH since 8.8.
    pub(super) async fn offer(&self, username: &str, key: &PublicKey, algorithm: &Algorithm) -> bool {
        match algorithm {
            Algorithm::Rsa { hash: None } => false,
            Algorithm::Rsa { .. } if self.entra.is_some() => true,
            _ => self.public_key(username, key).await,
        }
    }

    /// Does the certificate vouch for the user, who has a role on the machine?
    pub(super) fn certificate(&self, username: &str, certificate: &Certificate) -> bool {
        let Some(entra) = &self.entra else { return false };
        let names = |list: &[String]| list.iter().any(|one| one.eq_ignore_ascii_case(username));
        certificate.signature_key() == &entra.authority
            && certificate.cert_type() == CertType::User
            // Options that this server would have to enforce (PROTOCOL.certkeys): it knows none.
            && certificate.critical_options().is_empty()
            && names(certificate.valid_principals())
            && names(&entra.users)
    }

    /// Is this the account's password? Takes the same time for each wrong one of the same length.
    pub(super) fn password(&self, username: &str, password: &[u8]) -> bool {
        bool::from(self.password.as_bytes().ct_eq(password)) & (self.username == username)
    }

    /// Is `key` listed for the account? The file is read at each call, so that a key works as soon as it
    /// is added. An entry with options is passed over, for the options would not be enforced.
    pub(super) async fn public_key(&self, username: &str, key: &PublicKey) -> bool {
        if self.username != username {
            return false;
        }
        let Ok(text) = tokio::fs::read_to_string(&self.authorized_keys).await else { return false };
        AuthorizedKeys::new(&text)
            .flatten()
            .any(|entry| entry.config_opts().is_empty() && entry.public_key().key_data() == key.key_data())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use russh::keys::PublicKey;

    use russh::keys::ssh_key::certificate::{Builder, CertType};
    use russh::keys::{Algorithm, PrivateKey};

    use super::{CertificateSignIn, EntraSignIn, SignIn};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_password_needs_its_user() {
        let sign_in = SignIn::new("azureuser".into(), "secret".into(), "/nowhere".as_ref(), None);
        for (username, password, accepted) in
            [("azureuser", "secret", true), ("azureuser", "secre", false), ("root", "secret", false)]
        {
            assert_eq!(sign_in.password(username, password.as_bytes()), accepted, "{username} {password}");
        }
    }

    #[test]
    fn a_certificate_needs_its_authority_its_user_and_a_role() {
        let key = || PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let (authority, stranger, user) = (key(), key(), key());
        let options = EntraSignIn {
            authority: authority.public_key().to_openssh().unwrap(),
            users: vec!["Ada@emulator.example".into()],
        };
        let entra = CertificateSignIn::new(options).unwrap();
        let sign_in = SignIn::new("azureuser".into(), "secret".into(), "/nowhere".as_ref(), Some(entra));
        let check = |signer: &PrivateKey, kind, principal: &str, option: Option<&str>, expected: bool| {
            let subject = user.public_key().key_data().clone();
            let mut builder = Builder::new(vec![0; 16], subject, 0, u64::from(u32::MAX)).unwrap();
            builder.cert_type(kind).unwrap().valid_principal(principal).unwrap();
            if let Some(option) = option {
                builder.critical_option(option, "").unwrap();
            }
            let certificate = builder.sign(signer).unwrap();
            let accepted = sign_in.certificate("ada@emulator.example", &certificate);
            assert_eq!(accepted, expected, "{kind:?} {principal} {option:?}");
        };
        let ada = "ada@emulator.example";
        check(&authority, CertType::User, ada, None, true);
        check(&stranger, CertType::User, ada, None, false);
        check(&authority, CertType::Host, ada, None, false);
        check(&authority, CertType::User, "bob@emulator.example", None, false);
        check(&authority, CertType::User, ada, Some("force-command"), false);
    }

    #[tokio::test]
    async fn keys_are_read_each_time_and_options_pass_an_entry_over() {
        let home = tempfile::tempdir().unwrap();
        let sign_in = SignIn::new("azureuser".into(), "secret".into(), home.path(), None);
        let key = PublicKey::from_openssh(KEY).unwrap();
        assert!(!sign_in.public_key("azureuser", &key).await);
        fs::create_dir(home.path().join(".ssh")).unwrap();
        let file = home.path().join(".ssh/authorized_keys");
        for (content, accepted) in [
            (format!("{KEY} me@laptop\n"), true),
            (format!("# a comment\nnonsense\n{KEY}\n"), true),
            (format!("command=\"ls\" {KEY}\n"), false),
            (String::new(), false),
        ] {
            fs::write(&file, &content).unwrap();
            assert_eq!(sign_in.public_key("azureuser", &key).await, accepted, "{content}");
            assert!(!sign_in.public_key("root", &key).await);
        }
    }
}
