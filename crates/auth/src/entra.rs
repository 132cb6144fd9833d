//! What Entra ID says when it refuses, made readable: one line with its `AADSTS` code, and what to do about the
//! usual ones. It leaves out sending; the same texts come from the token end point and out of the Azure CLI.

use bastide_core::{TokenRequest, service_message};
use serde::Deserialize;

use crate::azure_cli;

/// One line of the body of a refusal of the token end point: the description with its code, and the correlation
/// id that an administrator can look up; or whatever a page or a proxy said instead. `None` when it says nothing.
pub(crate) fn message(body: &[u8]) -> Option<String> {
    let Ok(Refusal { error_description: Some(description), correlation_id, .. }) =
        serde_json::from_slice(body)
    else {
        return service_message(body);
    };
    // "AADSTS…: text Trace ID: … Correlation ID: … Timestamp: …", on one line or on several.
    let text = description.split("Trace ID:").next().unwrap_or_default();
    let text = service_message(text.as_bytes())?;
    Some(match correlation_id {
        Some(id) if id.len() <= ID_LIMIT && !id.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            format!("{text} (correlation id {id})")
        }
        _ => text,
    })
}

/// What the Azure CLI wrote to its standard error, without its warnings, on one line.
pub(crate) fn tool_message(stderr: &str) -> Option<String> {
    let lines = stderr.lines().filter(|line| !line.trim_start().starts_with("WARNING:"));
    let text = lines.map(|line| line.trim().trim_start_matches("ERROR:")).collect::<Vec<_>>().join("\n");
    let text = text.split("Trace ID:").next().unwrap_or_default();
    service_message(text.as_bytes())
}

/// The number of the first `AADSTS` code in a text.
pub(crate) fn code(text: &str) -> Option<u32> {
    text.split("AADSTS").skip(1).find_map(|behind| {
        let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

/// What to do about a refusal, where its code is one of the usual ones
/// (learn.microsoft.com/entra/identity-platform/reference-error-codes). `provider` is who was refused, `tenant` the
/// one that was asked.
pub(crate) fn hint(text: &str, provider: &str, tenant: Option<&str>) -> Option<String> {
    let program = if provider == azure_cli::NAME { "az" } else { "bastide" };
    let login = match tenant {
        Some(tenant) => format!("`{program} login --tenant {tenant}`"),
        None => format!("`{program} login`"),
    };
    Some(match code(text)? {
        7000215 => "the secret is wrong: AZURE_CLIENT_SECRET has to be the secret's value, not its id".into(),
        7000222 => "the secret has expired: make a new one with `az ad app credential reset --id CLIENT_ID`, and \
                    set AZURE_CLIENT_SECRET to it"
            .into(),
        700016 => "this application is not known in this tenant: check AZURE_CLIENT_ID (or --client-id) and \
                   AZURE_TENANT_ID (or --tenant)"
            .into(),
        90002 | 900023 => "there is no such tenant in this cloud: check AZURE_TENANT_ID (or --tenant) and --cloud".into(),
        code if EXPIRED.contains(&code) => format!("the sign-in has expired: run {login} again"),
        code if INTERACTION.contains(&code) => {
            format!("the tenant asks for a second factor: sign in with {login} and answer it")
        }
        65001 => "nobody has allowed this application yet: an administrator of the tenant can, or name another \
                  with --client-id"
            .into(),
        700027 => "the certificate is not known to the application: register it there, and check that \
                   AZURE_CLIENT_CERTIFICATE_PATH holds the key that belongs to it"
            .into(),
        70021 | 700211 | 700212 | 700213 | 700214 => {
            "no federated credential of the application fits the token: issuer, subject and audience have to \
             be the same letter by letter"
                .into()
        }
        7000218 | 7000216 => "this application has to prove itself: use client-secret, client-certificate or \
                              workload-identity, or allow public client flows for it"
            .into(),
        53000 | 53001 | 53002 | 53003 | 530003 => {
            "a conditional access policy of the tenant stands in the way: sign in from a device and a network \
             that it accepts, or show its administrator the correlation id"
                .into()
        }
        50034 | 50126 => "user name or password is wrong, or the user is not of this tenant: check --tenant".into(),
        50057 => "the account is disabled: its administrator can enable it".into(),
        50020 => format!("this user does not belong to the tenant: sign in with {login} as one who does, or name another with --tenant"),
        500011 => "the tenant does not know what the token is for: check --cloud and --tenant".into(),
        _ => return None,
    })
}

/// Whether only a person can help: the sign-in has expired, or more than a refresh token is asked for.
pub(crate) fn needs_person(text: &str) -> bool {
    code(text).is_some_and(|code| EXPIRED.contains(&code) || INTERACTION.contains(&code))
}

/// What a token request carries besides its grant and scope (protocol.md §7).
pub(crate) fn fields(request: &TokenRequest) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if let Some(certificate) = &request.certificate {
        fields.push(("token_type", "ssh-cert".to_owned()));
        fields.push(("req_cnf", certificate.key.clone()));
        fields.push(("key_id", certificate.key_id.clone()));
    }
    match (&request.claims, &request.certificate) {
        (Some(claims), _) => fields.push(("claims", claims.clone())),
        // As recorded: the client says that it can answer challenges (CP1).
        (None, Some(_)) => fields.push(("claims", CAPABLE.to_owned())),
        (None, None) => {}
    }
    fields
}

const CAPABLE: &str = r#"{"access_token":{"xms_cc":{"values":["CP1"]}}}"#;

/// Refresh tokens that are no good any more: revoked, too old, unused for too long, or after a new password.
const EXPIRED: [u32; 8] = [50173, 700082, 700084, 70043, 70044, 50133, 700081, 700020];

/// A second factor, or another proof, is wanted now.
const INTERACTION: [u32; 6] = [50072, 50074, 50076, 50078, 50079, 50158];

/// A GUID with braces: longer is not an id.
const ID_LIMIT: usize = 38;

/// RFC 6749 §5.2, with Entra's additions.
#[derive(Deserialize)]
struct Refusal {
    error_description: Option<String>,
    correlation_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Entra ID sends it, with ids made up.
    const WRONG_SECRET: &str = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '44444444-4444-4444-8444-444444444444'. Trace ID: 5d7a1c0e-0000-4000-8000-000000000001 Correlation ID: 5d7a1c0e-0000-4000-8000-000000000002 Timestamp: 2026-11-22 10:00:00Z","error_codes":[7000215],"timestamp":"2026-11-22 10:00:00Z","trace_id":"5d7a1c0e-0000-4000-8000-000000000001","correlation_id":"5d7a1c0e-0000-4000-8000-000000000002","error_uri":"https://login.microsoftonline.com/error?code=7000215"}"#;

    #[test]
    fn a_refusal_is_one_line_with_code_and_correlation_id() {
        let text = message(WRONG_SECRET.as_bytes()).unwrap();
        assert!(text.starts_with("AADSTS7000215: Invalid client secret provided."), "{text}");
        assert!(
            text.ends_with(
                "'44444444-4444-4444-8444-444444444444'. (correlation id 5d7a1c0e-0000-4000-8000-000000000002)"
            ),
            "{text}"
        );
        assert!(hint(&text, "client-secret", None).unwrap().contains("AZURE_CLIENT_SECRET"));
    }

    #[test]
    fn other_bodies_are_readable_too() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(message(body.as_bytes()).as_deref(), expected, "{body}");
        };
        check(
            r#"{"error":"x","error_description":"AADSTS50076: Due to a\r\nTrace ID: 1"}"#,
            Some("AADSTS50076: Due to a"),
        );
        check(r#"{"error":"invalid_grant"}"#, Some("invalid_grant"));
        check("<html><title>Access denied by Corp</title>", Some("Access denied by Corp"));
        check("", None);
        check(r#"{"error_description":""}"#, None);
        check(r#"{"error_description":"a","correlation_id":"not an id"}"#, Some("a"));
    }

    #[test]
    fn the_azure_cli_is_quoted_without_its_warnings() {
        assert_eq!(
            tool_message(
                "WARNING: a new version is there\nERROR: AADSTS700082: The refresh token has expired.\n\
                 Trace ID: 1\nInteractive authentication is needed."
            )
            .as_deref(),
            Some("AADSTS700082: The refresh token has expired.")
        );
        assert_eq!(tool_message("WARNING: x\n"), None);
    }

    #[test]
    fn usual_codes_have_a_hint() {
        let check = |code: u32, part: &str| {
            let hint = hint(&format!("ERROR: AADSTS{code}: text"), "azure-cli", Some("t1")).unwrap();
            assert!(hint.contains(part), "{code}: {hint}");
        };
        check(7000215, "AZURE_CLIENT_SECRET");
        check(7000222, "expired");
        check(700016, "AZURE_CLIENT_ID");
        check(90002, "--tenant");
        check(50173, "az login --tenant t1");
        check(700082, "az login --tenant t1");
        check(50076, "second factor");
        check(50079, "second factor");
        check(53003, "conditional access");
        check(50057, "disabled");
        check(90002, "no such tenant");
        check(50020, "does not belong");
        check(700027, "certificate");
        check(70021, "federated");
        check(700213, "federated");
        check(70043, "again");
        let own = hint("AADSTS700082: text", "device-code", None).unwrap();
        assert_eq!(own, "the sign-in has expired: run `bastide login` again");
        assert!(needs_person("AADSTS700082: x") && needs_person("AADSTS50076: x"));
        assert!(!needs_person("AADSTS50057: x") && !needs_person("invalid_grant"));
        for text in ["", "AADSTS", "AADSTS: x", "AADSTS99999999999999", "AADSTS1: unknown"] {
            assert_eq!(hint(text, "azure-cli", None), None, "{text}");
        }
        assert_eq!(code("AADSTSx AADSTS50057"), Some(50057));
    }
}
