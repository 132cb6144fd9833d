//! Who can sign in, and how sign-in goes: users, applications, service principals, managed identities
//! and the settings of Entra ID. What a role allows is `principals.rs`.

use serde::Deserialize;

use super::Secret;

/// A person.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User principal name. One name may be in several tenants, as a guest in all but one.
    pub upn: String,
    /// Object id, a GUID.
    pub object_id: String,
    /// Id or domain of the tenant.
    pub tenant: String,
    /// Name for people; the user principal name when left out.
    #[serde(default)]
    pub display_name: String,
    /// What comes of a sign-in.
    #[serde(default)]
    pub sign_in: Outcome,
    /// Whether the account is at home in another tenant.
    #[serde(default)]
    pub guest: bool,
    /// What the user may do; Reader on everything when left out.
    #[serde(default = "Role::reader_everywhere")]
    pub roles: Vec<Role>,
}

/// What comes of a user's sign-in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Tokens.
    #[default]
    Granted,
    /// `AADSTS50057`: the account is disabled.
    Disabled,
    /// `AADSTS50076`: a refresh token is not enough, the user has to prove more. A device code is.
    Mfa,
    /// `AADSTS53003`: conditional access says no.
    ConditionalAccess,
    /// `AADSTS65001`: nobody has consented to the application.
    Consent,
}

/// A public client, known in every tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Application (client) id.
    pub client_id: String,
    /// Name for people.
    pub name: String,
}

/// An application that signs in with credentials of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePrincipal {
    /// Application (client) id.
    pub client_id: String,
    /// Object id of the service principal.
    pub object_id: String,
    /// Secret; random and kept in the state folder when left out.
    pub client_secret: Option<Secret>,
    /// Registered certificates, PEM. The one in the state folder when left out.
    pub certificates: Option<Vec<String>>,
    /// Tokens of others that are as good as a secret. Those of the emulator's own three issuers when left out.
    pub federated_credentials: Option<Vec<FederatedCredential>>,
    /// Id or domain of its tenant.
    pub tenant: String,
    /// What it may do; Reader on everything when left out.
    #[serde(default = "Role::reader_everywhere")]
    pub roles: Vec<Role>,
}

/// A federated identity credential: whose tokens an application may sign in with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederatedCredential {
    /// `iss` of the token; `github`, `pipelines` and `kubernetes` stand for the emulator's own issuers.
    pub issuer: String,
    /// `sub` of the token.
    pub subject: String,
    /// `aud` of the token.
    #[serde(default = "FederatedCredential::exchange")]
    pub audience: String,
}

impl FederatedCredential {
    /// What Entra ID recommends as the audience.
    pub(crate) fn exchange() -> String {
        "api://AzureADTokenExchange".into()
    }
}

/// An identity that Azure gives to what runs in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagedIdentity {
    /// Name; a user-assigned one has a resource of this name in the group `demo` of the first subscription.
    pub name: String,
    /// Application (client) id.
    pub client_id: String,
    /// Object (principal) id.
    pub object_id: String,
    /// Id or domain of its tenant.
    pub tenant: String,
    /// Whether it is the one that is meant when a request names none.
    #[serde(default)]
    pub system_assigned: bool,
    /// What it may do; Reader on everything when left out.
    #[serde(default = "Role::reader_everywhere")]
    pub roles: Vec<Role>,
}

/// Actions that are allowed on a scope and everything below it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// `/`, a subscription, a resource group or a resource id.
    pub scope: String,
    /// Control-plane actions with `*` as wildcard, such as `*/read`.
    #[serde(default = "Role::read")]
    pub actions: Vec<String>,
    /// Data-plane actions, such as `Microsoft.Compute/virtualMachines/login/action`.
    #[serde(default)]
    pub data_actions: Vec<String>,
}

impl Role {
    fn read() -> Vec<String> {
        vec!["*/read".into()]
    }

    fn reader_everywhere() -> Vec<Role> {
        vec![Role { scope: "/".into(), actions: Role::read(), data_actions: Vec::new() }]
    }
}

/// How sign-in goes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignInSettings {
    /// Seconds that a client has to leave between two questions for a device code's token. 5 is what Entra
    /// ID answers, and the default of RFC 8628 section 3.2.
    pub device_code_interval_seconds: u32,
    /// Life of a device code in seconds; Entra ID answers 900.
    pub device_code_lifetime_seconds: u32,
    /// Who approves every device code at once, by user principal name; nobody when left out.
    pub device_code_approved_by: Option<String>,
    /// The error after a refusal: `authorization_declined` is Entra ID's, `access_denied` that of RFC 8628.
    pub device_code_refusal: Refusal,
    /// Life of a refresh token in seconds; 90 days at Entra ID.
    pub refresh_token_lifetime_seconds: u32,
    /// Whether a refresh token works again after it was exchanged for another. At Entra ID it does.
    pub refresh_token_reuse: bool,
    /// Life of an SSH certificate in seconds; about one hour (protocol.md §7).
    pub ssh_certificate_lifetime_seconds: u32,
    /// By how many seconds the clock that dates SSH certificates is fast.
    pub ssh_certificate_clock_ahead_seconds: u32,
    /// A claims challenge (JSON) that ARM and the data plane send until a token carries the claims; none when left out.
    pub claims_challenge: Option<String>,
}

/// How a token request is told that the user refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Entra ID's word.
    #[default]
    AuthorizationDeclined,
    /// The word of RFC 8628 section 3.5.
    AccessDenied,
}

impl Default for SignInSettings {
    fn default() -> SignInSettings {
        SignInSettings {
            device_code_interval_seconds: 5,
            device_code_lifetime_seconds: 900,
            device_code_approved_by: None,
            device_code_refusal: Refusal::default(),
            refresh_token_lifetime_seconds: 90 * 24 * 3600,
            refresh_token_reuse: true,
            ssh_certificate_lifetime_seconds: 3600,
            ssh_certificate_clock_ahead_seconds: 0,
            claims_challenge: None,
        }
    }
}
