//! Who can sign in, and what each may do: users, service principals and managed identities of the
//! scenario with nothing left to default. How they sign in is `entra` and `identity`.

use crate::inventory::{Inventory, is_below, matches};
use crate::oidc;
use crate::scenario::{FederatedCredential, Role, Scenario, Secret, User};

/// What stands in where the scenario leaves credentials out.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) client_secret: Secret,
    /// PEM.
    pub(crate) certificate: String,
    /// `https://localhost:PORT`, which the emulator's own issuers begin with.
    pub(crate) url: String,
}

/// Who can have a token.
#[derive(Debug)]
pub(crate) struct Principal {
    /// User principal name, or application id: what ARM calls it in messages.
    pub(crate) name: String,
    pub(crate) object_id: String,
    /// Id of the tenant.
    pub(crate) tenant: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) kind: PrincipalKind,
}

/// What a principal is, and what only that has.
#[derive(Debug)]
pub(crate) enum PrincipalKind {
    User(User),
    Application(Credentials),
    ManagedIdentity { system_assigned: bool, resource_id: String },
}

/// What an application proves itself with.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) client_secret: Secret,
    /// PEM.
    pub(crate) certificates: Vec<String>,
    pub(crate) federated: Vec<FederatedCredential>,
}

/// Everybody in a scenario: applications first, since the first one is that of `env.sh`.
pub(crate) fn all(scenario: &Scenario, keys: &Keys) -> Vec<Principal> {
    let tenant_id =
        |named: &str| scenario.tenant(named).map_or_else(|| named.to_owned(), |one| one.id.clone());
    let applications = scenario.service_principals.iter().map(|one| Principal {
        name: one.client_id.clone(),
        object_id: one.object_id.clone(),
        tenant: tenant_id(&one.tenant),
        roles: one.roles.clone(),
        kind: PrincipalKind::Application(Credentials {
            client_secret: one.client_secret.clone().unwrap_or_else(|| keys.client_secret.clone()),
            certificates: one.certificates.clone().unwrap_or_else(|| vec![keys.certificate.clone()]),
            federated: one
                .federated_credentials
                .clone()
                .unwrap_or_else(oidc::credentials)
                .into_iter()
                .map(|one| FederatedCredential { issuer: oidc::issuer_url(&keys.url, &one.issuer), ..one })
                .collect(),
        }),
    });
    let users = scenario.users.iter().map(|one| Principal {
        name: one.upn.clone(),
        object_id: one.object_id.clone(),
        tenant: tenant_id(&one.tenant),
        roles: one.roles.clone(),
        kind: PrincipalKind::User(one.clone()),
    });
    let subscription = scenario.subscriptions.first().map(|one| one.id.as_str()).unwrap_or_default();
    let identities = scenario.managed_identities.iter().map(|one| Principal {
        name: one.client_id.clone(),
        object_id: one.object_id.clone(),
        tenant: tenant_id(&one.tenant),
        roles: one.roles.clone(),
        kind: PrincipalKind::ManagedIdentity {
            system_assigned: one.system_assigned,
            resource_id: format!(
                "/subscriptions/{subscription}/resourceGroups/demo/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}",
                one.name
            ),
        },
    });
    applications.chain(users).chain(identities).collect()
}

impl Principal {
    /// Whether a role on the scope or above it allows an action.
    pub(crate) fn may(&self, action: &str, id: &str) -> bool {
        self.roles_on(id).any(|role| role.actions.iter().any(|pattern| matches(pattern, action)))
    }

    /// Whether it has a role that lets it sign in to a machine.
    pub(crate) fn may_sign_in_to(&self, machine: &str) -> bool {
        let allowed = |pattern: &String| LOGIN_ACTIONS.iter().any(|action| matches(pattern, action));
        self.roles_on(machine).any(|role| role.data_actions.iter().any(allowed))
    }

    /// Whether a role on the scope or above it allows an action on data.
    pub(crate) fn may_use(&self, action: &str, id: &str) -> bool {
        self.roles_on(id).any(|role| role.data_actions.iter().any(|pattern| matches(pattern, action)))
    }

    /// Its roles on a scope and above it.
    pub(crate) fn roles_on<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Role> {
        self.roles.iter().filter(move |role| is_below(id, &role.scope))
    }

    /// Whether it has a role on anything at or below a scope, which makes the scope visible.
    pub(crate) fn sees(&self, id: &str) -> bool {
        self.roles.iter().any(|role| is_below(id, &role.scope) || is_below(&role.scope, id))
    }
}

impl Inventory {
    /// Whoever has this object id in a tenant: a user, or the application with this client id.
    pub(crate) fn principal(&self, tenant: &str, object_id: &str, client_id: &str) -> Option<&Principal> {
        self.principals.iter().find(|one| {
            one.tenant.eq_ignore_ascii_case(tenant)
                && one.object_id.eq_ignore_ascii_case(object_id)
                && (matches!(one.kind, PrincipalKind::User(_)) || one.name.eq_ignore_ascii_case(client_id))
        })
    }

    /// An application of a tenant, and its credentials.
    pub(crate) fn application(&self, tenant: &str, client_id: &str) -> Option<(&Principal, &Credentials)> {
        self.principals.iter().find_map(|one| match &one.kind {
            PrincipalKind::Application(credentials)
                if one.tenant.eq_ignore_ascii_case(tenant) && one.name.eq_ignore_ascii_case(client_id) =>
            {
                Some((one, credentials))
            }
            _ => None,
        })
    }

    /// All users, with what the scenario says of them.
    pub(crate) fn users(&self) -> impl Iterator<Item = (&Principal, &User)> {
        self.principals.iter().filter_map(|one| match &one.kind {
            PrincipalKind::User(user) => Some((one, user)),
            _ => None,
        })
    }

    /// A user of a tenant; of any tenant, the one where the account is at home.
    pub(crate) fn user(&self, tenant: Option<&str>, upn: &str) -> Option<(&Principal, &User)> {
        self.users().find(|(one, user)| {
            one.name.eq_ignore_ascii_case(upn)
                && tenant.map_or(!user.guest, |tenant| one.tenant.eq_ignore_ascii_case(tenant))
        })
    }
}

/// The data actions of the roles `Virtual Machine User Login` and `Virtual Machine Administrator Login`
/// (protocol.md §7).
const LOGIN_ACTIONS: [&str; 2] = [
    "Microsoft.Compute/virtualMachines/login/action",
    "Microsoft.Compute/virtualMachines/loginAsAdmin/action",
];
