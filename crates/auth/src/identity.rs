//! Who a token speaks for, read from its claims. It leaves out signatures: the services check them; here a token comes
//! straight from its issuer over TLS (OpenID Connect Core 1.0 §3.1.3.7), and what it says is only shown.

/// Who a token speaks for, as far as it says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user, usually a mail address (`preferred_username`, or `upn` or `unique_name` in older tokens).
    pub user: Option<String>,
    /// The user's name for people.
    pub name: Option<String>,
    /// The tenant (`tid`).
    pub tenant: Option<String>,
    /// The object id in the tenant (`oid`).
    pub object_id: Option<String>,
    /// The application (`appid`, or `azp`).
    pub client_id: Option<String>,
}

impl Identity {
    /// Reads a JSON Web Token (RFC 7519). What is none says nothing.
    pub fn of_token(token: &str) -> Self {
        let Ok(claims) = jsonwebtoken::dangerous::insecure_decode_claims::<serde_json::Value>(token) else {
            return Self::default();
        };
        let text = |names: &[&str]| {
            let claim = names.iter().find_map(|name| claims.get(*name)?.as_str())?;
            // Shown on terminals.
            let clean: String =
                claim.chars().filter(|letter| !letter.is_control()).take(LENGTH_LIMIT).collect();
            Some(clean).filter(|claim| !claim.is_empty())
        };
        Self {
            user: text(&["preferred_username", "upn", "unique_name", "email"]),
            name: text(&["name"]),
            tenant: text(&["tid"]),
            object_id: text(&["oid", "sub"]),
            client_id: text(&["appid", "azp"]),
        }
    }

    /// What people call it: the user, else the application, else the object.
    pub fn label(&self) -> String {
        let application = || Some(format!("application {}", self.client_id.as_ref()?));
        let object = || Some(format!("object {}", self.object_id.as_ref()?));
        self.user.clone().or_else(application).or_else(object).unwrap_or_else(|| "somebody unnamed".into())
    }

    /// What keys are made of.
    pub(crate) fn id(&self) -> Option<String> {
        self.object_id.clone().or_else(|| self.user.clone())
    }
}

/// RFC 5321 allows 254 characters for a mail address.
const LENGTH_LIMIT: usize = 256;

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn claims_are_read_and_nothing_else_panics() {
        let check = |claims: &str, label: &str| {
            let token = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
            assert_eq!(Identity::of_token(&token).label(), label, "{claims}");
        };
        check(r#"{"upn":"a@b","oid":"o","appid":"c"}"#, "a@b");
        check(r#"{"preferred_username":"a@b\u001b[2J"}"#, "a@b[2J");
        check(r#"{"oid":"o","appid":"c"}"#, "application c");
        check(r#"{"oid":"o","upn":""}"#, "object o");
        check(r#"{"upn":7}"#, "somebody unnamed");
        for token in ["", "a", "a.b.c", "..", "AAAAB3NzaC1yc2EtY2VydC"] {
            assert_eq!(Identity::of_token(token), Identity::default(), "{token}");
        }
    }
}
