//! What Key Vault refuses, in its own words where those are known: bodies, codes, and the challenge of
//! a 401. Who is refused is decided in `mod.rs`.

use hyper::StatusCode;
use serde_json::json;

use super::{AUDIENCE, Deed, Sort, Vault};
use crate::azure::Azure;
use crate::entra::TokenFault;
use crate::http::{Response, json as json_answer, set_header};

/// A refusal.
#[derive(Debug)]
pub(super) enum Fault {
    Token(TokenRefusal),
    /// The caller.
    Firewall(String),
    Role {
        caller: String,
        action: &'static str,
        resource: String,
    },
    Policy {
        caller: String,
        permission: String,
    },
    Disabled {
        sort: Sort,
        deed: Deed,
    },
    Expired,
    NotYetValid,
    /// `key_ops` has no `sign`.
    Operation,
    NotFound {
        sort: Sort,
        name: String,
    },
    NotDeleted {
        sort: Sort,
        name: String,
    },
    NoApiVersion,
    ApiVersion(String),
    Path,
    Body,
    /// A property of the body.
    Property(&'static str),
    Algorithm {
        id: String,
        is: String,
        algorithm: String,
        needs: &'static str,
    },
    UnknownAlgorithm(String),
    Digest {
        algorithm: String,
        found: usize,
        needed: usize,
    },
    /// A key that this emulator does not sign with.
    Unable,
}

/// Why a token is not accepted.
#[derive(Debug)]
pub(super) enum TokenRefusal {
    Missing,
    Invalid,
    Expired,
    /// The audience that it has.
    Audience(String),
    Issuer {
        found: String,
    },
}

impl From<TokenRefusal> for Fault {
    fn from(refusal: TokenRefusal) -> Fault {
        Fault::Token(refusal)
    }
}

impl From<TokenFault> for TokenRefusal {
    fn from(fault: TokenFault) -> TokenRefusal {
        match fault {
            TokenFault::Invalid => TokenRefusal::Invalid,
            TokenFault::Expired { .. } => TokenRefusal::Expired,
        }
    }
}

impl Fault {
    pub(super) fn response(&self, azure: &Azure, vault: &Vault) -> Response {
        let Said { status, code, message, inner } = self.said(vault);
        let mut error = json!({"code": code, "message": message});
        if let (Some(error), Some(inner)) = (error.as_object_mut(), inner) {
            error.insert("innererror".into(), json!({ "code": inner }));
        }
        let mut response = json_answer(status, &json!({ "error": error }));
        if status == StatusCode::UNAUTHORIZED {
            let challenge =
                format!("Bearer authorization=\"{}/{}\", resource=\"{AUDIENCE}\"", azure.url, vault.tenant);
            set_header(&mut response, "www-authenticate", &challenge);
        }
        response
    }

    fn said(&self, vault: &Vault) -> Said {
        let place = format!("{};location={}", vault.name, vault.location);
        match self {
            Fault::Token(refusal) => Said {
                status: StatusCode::UNAUTHORIZED,
                code: "Unauthorized",
                message: match refusal {
                    TokenRefusal::Missing => "AKV10000: Request is missing a Bearer or PoP token.".into(),
                    TokenRefusal::Invalid => {
                        "AKV10046: Unable to resolve the key used for signature validation.".into()
                    }
                    TokenRefusal::Expired => "[TokenExpired] Error validating token: IDX10223.".into(),
                    TokenRefusal::Audience(found) => {
                        format!("AKV10022: Invalid audience. Expected {AUDIENCE}, found: {found}.")
                    }
                    TokenRefusal::Issuer { found } => format!(
                        "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/{}/, found {found}.",
                        vault.tenant
                    ),
                },
                inner: None,
            },
            Fault::Firewall(caller) => forbidden(
                "ForbiddenByFirewall",
                format!(
                    "Client address is not authorized and caller is not a trusted service.\r\nClient address: 127.0.0.1\r\nCaller: {caller}\r\nVault: {place}"
                ),
            ),
            Fault::Role { caller, action, resource } => forbidden(
                "ForbiddenByRbac",
                format!(
                    "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: {caller}\r\nAction: '{action}'\r\nResource: '{resource}'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: {place}\r\n"
                ),
            ),
            Fault::Policy { caller, permission } => forbidden(
                "AccessDenied",
                format!(
                    "The user, group or application '{caller}' does not have {permission} permission on key vault '{place}'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287"
                ),
            ),
            Fault::Disabled { sort, deed } => forbidden(
                if *sort == Sort::Key { "KeyDisabled" } else { "SecretDisabled" },
                format!("Operation {} is not allowed on a disabled {}.", deed.permission(), sort.word()),
            ),
            Fault::Expired => {
                forbidden("KeyExpired", "Operation sign is not allowed on an expired key.".to_owned())
            }
            Fault::NotYetValid => forbidden(
                "KeyNotYetValid",
                "Operation sign is not allowed on a key that is not yet valid.".to_owned(),
            ),
            Fault::Operation => {
                forbidden("KeyOperationForbidden", "Operation sign is not permitted on this key.".to_owned())
            }
            Fault::NotFound { sort, name } => Said {
                status: StatusCode::NOT_FOUND,
                code: if *sort == Sort::Key { "KeyNotFound" } else { "SecretNotFound" },
                message: format!(
                    "A {0} with (name/id) {name} was not found in this key vault. If you recently deleted this {0} you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182",
                    sort.word()
                ),
                inner: None,
            },
            Fault::NotDeleted { sort, name } => Said {
                status: StatusCode::NOT_FOUND,
                code: if *sort == Sort::Key { "KeyNotFound" } else { "SecretNotFound" },
                message: format!("Deleted {} not found: {name}", sort.title()),
                inner: None,
            },
            Fault::NoApiVersion => bad("api-version must be specified".to_owned()),
            Fault::ApiVersion(found) => bad(format!(
                "The specified version ({found}) is not recognized. Consider using the latest supported version (2025-07-01)."
            )),
            Fault::Path => Said {
                status: StatusCode::NOT_FOUND,
                code: "NotFound",
                message: "The emulator has no such operation.".to_owned(),
                inner: None,
            },
            Fault::Body => bad("Request body is not JSON.".to_owned()),
            Fault::Property(name) => bad(format!("Property {name} has invalid value")),
            Fault::Algorithm { id, is, algorithm, needs } => bad(format!(
                "Key and signing algorithm are incompatible. Key {id} is of type '{is}', and algorithm '{algorithm}' can only be used with {needs}."
            )),
            Fault::UnknownAlgorithm(name) => {
                bad(format!("Property  has invalid value\r\n\r\nInvalid algorithm: {name}"))
            }
            Fault::Digest { algorithm, found, needed } => bad(format!(
                "Invalid length of 'value': {found} bytes. {algorithm} requires {needed} bytes, encoded with base64url."
            )),
            Fault::Unable => bad("Operation sign is not supported for this key type.".to_owned()),
        }
    }
}

/// A status, a code, a message, and the code of the `innererror`.
struct Said {
    status: StatusCode,
    code: &'static str,
    message: String,
    inner: Option<&'static str>,
}

fn forbidden(inner: &'static str, message: String) -> Said {
    Said { status: StatusCode::FORBIDDEN, code: "Forbidden", message, inner: Some(inner) }
}

fn bad(message: String) -> Said {
    Said { status: StatusCode::BAD_REQUEST, code: "BadParameter", message, inner: None }
}
