//! Who may sign in: the one place where a password or a key is judged.
//!
//! `russh` has verified by then that the client holds the private key. OpenSSH user certificates are
//! refused: a trusted authority becomes a field of [`SignIn`], and its check one more method, when the
//! sign-in by Entra ID is built.

use std::path::{Path, PathBuf};

use russh::keys::PublicKey;
use russh::keys::ssh_key::AuthorizedKeys;
use subtle::ConstantTimeEq as _;

/// The one account of the server. It has no `Debug`: it holds a password.
pub(super) struct SignIn {
    username: String,
    password: String,
    authorized_keys: PathBuf,
}

impl SignIn {
    /// The account `username` with `password` and the keys in `{home}/.ssh/authorized_keys`.
    pub(super) fn new(username: String, password: String, home: &Path) -> Self {
        Self { username, password, authorized_keys: home.join(".ssh").join("authorized_keys") }
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

    use super::SignIn;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_password_needs_its_user() {
        let sign_in = SignIn::new("azureuser".into(), "secret".into(), "/nowhere".as_ref());
        for (username, password, accepted) in
            [("azureuser", "secret", true), ("azureuser", "secre", false), ("root", "secret", false)]
        {
            assert_eq!(sign_in.password(username, password.as_bytes()), accepted, "{username} {password}");
        }
    }

    #[tokio::test]
    async fn keys_are_read_each_time_and_options_pass_an_entry_over() {
        let home = tempfile::tempdir().unwrap();
        let sign_in = SignIn::new("azureuser".into(), "secret".into(), home.path());
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
