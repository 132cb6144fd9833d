//! What the caller may do to a resource, as ARM sums up its roles. It leaves out why: which roles there are, and who
//! could give others.

use bastide_core::ResourceId;
use serde::Deserialize;

use crate::client::Question;
use crate::{Arm, Error};

/// What the caller may do to one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(Vec<Permission>);

/// One role's share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Permission {
    actions: Vec<String>,
    not_actions: Vec<String>,
}

impl Permissions {
    /// Whether a role allows `action` and does not take it back. Another role may still allow what one takes back
    /// (learn.microsoft.com/azure/role-based-access-control/role-definitions, "NotActions").
    pub fn allow(&self, action: &str) -> bool {
        self.0.iter().any(|role| {
            let named_in = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, action));
            named_in(&role.actions) && !named_in(&role.not_actions)
        })
    }
}

impl Arm {
    /// What the caller may do to `resource`, which need not be there.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// Those of an exchange with ARM; [`Error::Forbidden`] for who has no role there at all.
    pub async fn permissions(&self, resource: &ResourceId) -> Result<Permissions, Error> {
        let what = format!("the rights on '{}'", resource.display_name());
        let path = format!("{resource}/providers/Microsoft.Authorization/permissions");
        let question = Question {
            what: &what,
            path: &path,
            api_version: API_VERSION,
            expand: None,
            subscription: Some(resource.subscription()),
        };
        Ok(Permissions(self.list(&question).await?))
    }
}

/// The stable version of Microsoft.Authorization for permissions (azure-rest-api-specs).
const API_VERSION: &str = "2022-04-01";

/// Whether a pattern, in which each `*` stands for anything, is this action. Case does not matter.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == action };
    let Some(mut action) = action.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match action.split_once(part) {
            Some((_, behind)) => action = behind,
            None => return false,
        }
    }
    action.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::script::{Reply, Script};

    #[test]
    fn stars_stand_for_anything() {
        let check = |pattern: &str, action: &str, expected: bool| {
            assert_eq!(matches(pattern, action), expected, "{pattern} {action}");
        };
        let read = "Microsoft.Network/bastionHosts/read";
        check("*", read, true);
        check("*/read", read, true);
        check("*/READ", read, true);
        check("Microsoft.Network/*", read, true);
        check("Microsoft.Network/*/read", read, true);
        check("Microsoft.Network/bastionHosts/*", read, true);
        check(read, read, true);
        check("**", read, true);
        check("Microsoft.*/bastion*/r*d", read, true);
        check("", read, false);
        check("*/write", read, false);
        check("Microsoft.Network/read", read, false);
        check("Microsoft.Compute/*", read, false);
        check("*/read/*", read, false);
        check("Microsoft.Network/bastionHosts/read*d", read, false);
        check("*", "", true);
    }

    #[tokio::test]
    async fn what_one_role_takes_back_another_may_give() {
        let roles = |roles: &str| Reply::json(200, &format!(r#"{{"value":[{roles}]}}"#));
        let contributor =
            r#"{"actions":["*"],"notActions":["Microsoft.Authorization/*/Write"],"dataActions":[]}"#;
        let access = r#"{"actions":["Microsoft.Authorization/*"],"notActions":[]}"#;
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/bastionHosts/b";
        let script = Script::start(vec![
            roles(contributor),
            roles(&format!("{contributor},{access}")),
            roles(""),
            roles("{}"),
        ])
        .await;
        let (arm, id) = (script.arm(), id.parse().unwrap());
        let write = "Microsoft.Authorization/roleAssignments/write";
        for expected in [(true, false), (true, true), (false, false), (false, false)] {
            let permissions = arm.permissions(&id).await.unwrap();
            let read = permissions.allow("Microsoft.Network/bastionHosts/read");
            assert_eq!((read, permissions.allow(write)), expected);
        }
        assert_eq!(
            script.paths()[0],
            format!("{id}/providers/Microsoft.Authorization/permissions?api-version=2022-04-01")
        );
    }

    proptest! {
        #[test]
        fn never_panics(pattern in "[a*/é]{0,12}", action in "[a/é]{0,12}") {
            let _ = matches(&pattern, &action);
        }
    }
}
