//! What a vault's refusals mean and what to do about each: rights, firewalls, what is gone, switched off or out of
//! date. It leaves out how requests are made (`vault`).

use std::time::Duration;

use bastide_plugin_abi::{Code, Failure, HttpAnswer};
use serde::Deserialize;
use serde_json::Value;

use crate::settings::{Item, Sort};
use crate::vault::{Host, Trouble, Vault};

/// A refusal in the vault's words.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The code of the `innererror`, else that of the error.
    code: String,
    message: String,
    /// The tenant that the vault belongs to.
    tenant: Option<String>,
    /// How long it wants to be left alone, which is longer than there is time.
    pub(crate) after: Option<Duration>,
}

/// The longest message of a vault that is shown, in characters: a page of a proxy is longer.
const LONGEST_MESSAGE: usize = 300;

impl Refusal {
    pub(crate) fn read(answer: &HttpAnswer) -> Self {
        #[derive(Default, Deserialize)]
        struct Body {
            error: Error,
        }
        #[derive(Default, Deserialize)]
        struct Error {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
            // Spelt in both ways.
            #[serde(alias = "innerError")]
            innererror: Option<Inner>,
        }
        #[derive(Deserialize)]
        struct Inner {
            #[serde(default)]
            code: String,
        }
        let Body { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code =
            error.innererror.map(|inner| inner.code).filter(|code| !code.is_empty()).unwrap_or(error.code);
        Self { status: answer.status, code, message: error.message, tenant: None, after: None }
    }

    /// One in words of our own.
    pub(crate) fn said(status: u16, message: &str) -> Self {
        Self { status, message: message.to_owned(), ..Self::default() }
    }

    pub(crate) fn of_tenant(self, tenant: Option<&str>) -> Self {
        Self { tenant: tenant.map(str::to_owned), ..self }
    }

    pub(crate) fn after(self, wait: Duration) -> Self {
        Self { after: Some(wait), ..self }
    }

    /// What follows `Action: '` and the like in the message, up to any of `ends`.
    fn part(&self, start: &str, ends: &[char]) -> Option<&str> {
        let (_, rest) = self.message.split_once(start)?;
        let part = rest.split(ends).next()?.trim();
        // It becomes part of a command line in a hint.
        let is_plain = |byte: char| byte.is_ascii_alphanumeric() || "-_./:".contains(byte);
        (!part.is_empty() && part.chars().all(is_plain)).then_some(part)
    }

    /// The first line of the message.
    fn line(&self) -> String {
        let line = self.message.lines().next().unwrap_or_default().trim().trim_end_matches('.');
        line.chars().filter(|one| !one.is_control()).take(LONGEST_MESSAGE).collect()
    }

    /// ` and says '…'`
    fn words(&self) -> String {
        match self.line() {
            line if line.is_empty() => String::new(),
            line => format!(" and says '{line}'"),
        }
    }
}

/// Why an item cannot be used. It may ask the vault why it is not there.
pub(crate) fn explain(host: &dyn Host, vault: &mut Vault, item: &Item, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Failed(failure) => failure,
        Trouble::Refused(refusal) if refusal.status == 404 => missing(host, vault, item),
        Trouble::Refused(refusal) => failure(vault, item, &refusal),
    }
}

fn failure(vault: &Vault, item: &Item, refusal: &Refusal) -> Failure {
    let (name, address) = (vault.name(), vault.host());
    let (word, of) = (item.sort.word(), &item.name);
    match (refusal.status, refusal.code.as_str()) {
        (401, _) => {
            let tenant = refusal.tenant.as_deref().unwrap_or("another tenant");
            Failure::new(Code::Refused, format!("{address} does not accept the sign-in{}", refusal.words()))
                .hint(format!(
                    "the vault belongs to {tenant}: sign in there, `bastide login --tenant {tenant}`"
                ))
        }
        (403, "ForbiddenByRbac") => {
            let action = refusal.part("Action: '", &['\'']).unwrap_or("an action that it does not name");
            let role = match item.sort {
                Sort::Key => "Key Vault Crypto User",
                Sort::Secret => "Key Vault Secrets User",
            };
            let who = refusal.part("oid=", &[';', '\r', '\n']).unwrap_or("OBJECT-ID");
            let scope = refusal.part("Resource: '", &['\'']).unwrap_or("VAULT-ID");
            Failure::new(Code::Right, format!("you may not use {item} of {address}: `{action}` is not allowed"))
                .hint(format!(
                    "an owner of the vault can allow it, which takes some minutes to work: az role assignment create --role \"{role}\" --assignee {who} --scope {scope}"
                ))
        }
        (403, "AccessDenied") => {
            let who = refusal.part("oid=", &[';', '\'', '\r', '\n']).unwrap_or("OBJECT-ID");
            let permission = refusal.message.split_once("does not have ").and_then(|(_, rest)| {
                let (permission, _) = rest.split_once(" permission")?;
                permission
                    .bytes()
                    .all(|byte| byte.is_ascii_alphabetic() || byte == b' ')
                    .then_some(permission)
            });
            let permissions = match item.sort {
                Sort::Key => "--key-permissions get sign",
                Sort::Secret => "--secret-permissions get",
            };
            let missing =
                permission.map(|one| format!(": the permission `{one}` is missing")).unwrap_or_default();
            Failure::new(Code::Right, format!("you may not use {item} of {address}{missing}")).hint(format!(
                "an owner of the vault can allow it: az keyvault set-policy --name {name} --object-id {who} {permissions}"
            ))
        }
        (403, "ForbiddenByFirewall") => {
            let from = refusal.part("Client address: ", &['\r', '\n']);
            let shown = from.map(|from| format!(" for {from}")).unwrap_or_default();
            let from = from.unwrap_or("ADDRESS");
            Failure::new(Code::Network, format!("the firewall of {address} is closed{shown}")).hint(format!(
                "go through a network that it lets in, or open it: az keyvault network-rule add --name {name} --ip-address {from}"
            ))
        }
        (403, "KeyDisabled" | "SecretDisabled") => disabled(vault, item),
        (403, "KeyExpired") => expired(vault, item, None),
        (403, "KeyNotYetValid") => not_yet_valid(vault, item, None),
        (403, "KeyOperationForbidden") => not_for_signing(vault, item),
        (403, _) => {
            Failure::new(Code::Right, format!("{address} does not let you use {item}{}", refusal.words()))
                .hint(format!("`az keyvault {word} show --vault-name {name} --name {of}` shows more"))
        }
        (429, _) => {
            let failure = Failure::new(
                Code::Service,
                match refusal.after {
                    Some(after) => format!(
                        "{address} is throttled and wants no request for {} s, which is longer than there is time",
                        after.as_secs()
                    ),
                    None => format!("{address} is throttled: it was asked four times"),
                },
            );
            failure.hint("too many requests reach the vault: try again in a minute")
        }
        (500..=599, _) => Failure::new(
            Code::Service,
            format!("{address} answers with status {}{}", refusal.status, refusal.words()),
        )
        .hint("try again in a minute"),
        (200, _) => {
            Failure::new(Code::Service, format!("{address} answers about {item}, and {}", refusal.line()))
                .hint("something else than a vault may have answered: check `vault` in config of this plugin")
        }
        (status, _) => Failure::new(
            Code::Service,
            format!("{address} refuses a request for {item} with status {status}{}", refusal.words()),
        ),
    }
}

/// The vault says `not found` alike of what was deleted, of an unknown version and of what never was.
fn missing(host: &dyn Host, vault: &mut Vault, item: &Item) -> Failure {
    let (name, word, of) = (vault.name().to_owned(), item.sort.word(), &item.name);
    let address = vault.host().to_owned();
    if let Some(version) = &item.version
        && matches!(
            vault.get::<Value>(host, &item.current()),
            // A secret that is switched off is there.
            Ok(_) | Err(Trouble::Refused(Refusal { status: 403, .. }))
        )
    {
        return Failure::new(Code::NotFound, format!("{item} of {address} has no version '{version}'")).hint(format!(
            "without a version the newest one is used; az keyvault {word} list-versions --vault-name {name} --name {of}"
        ));
    }
    #[derive(Deserialize)]
    struct Deleted {
        #[serde(rename = "scheduledPurgeDate")]
        until: Option<i64>,
    }
    if let Ok(deleted) = vault.get::<Deleted>(host, &item.deleted()) {
        let until = deleted.until.map(|until| format!(", and will be gone for good on {}", day(until)));
        return Failure::new(
            Code::NotFound,
            format!("{item} of {address} was deleted{}", until.unwrap_or_default()),
        )
        .hint(format!("get it back: az keyvault {word} recover --vault-name {name} --name {of}"));
    }
    Failure::new(Code::NotFound, format!("{address} has no {word} '{of}'"))
        .hint(format!("az keyvault {word} list --vault-name {name} shows what it has"))
}

pub(crate) fn disabled(vault: &Vault, item: &Item) -> Failure {
    set_attributes(vault, item, "is disabled", "--enabled true")
}

/// `until` in seconds since 1970.
pub(crate) fn expired(vault: &Vault, item: &Item, until: Option<i64>) -> Failure {
    let on = until.map(|until| format!(" on {}", day(until))).unwrap_or_default();
    set_attributes(vault, item, &format!("has expired{on}"), "--expires DATE")
}

/// `from` in seconds since 1970.
pub(crate) fn not_yet_valid(vault: &Vault, item: &Item, from: Option<i64>) -> Failure {
    let on = from.map(|from| format!(" before {}", day(from))).unwrap_or_default();
    set_attributes(vault, item, &format!("is not valid yet{on}"), "--not-before DATE")
}

pub(crate) fn not_for_signing(vault: &Vault, item: &Item) -> Failure {
    set_attributes(vault, item, "is not meant for signing", "--ops sign verify")
}

fn set_attributes(vault: &Vault, item: &Item, state: &str, option: &str) -> Failure {
    let (name, word) = (vault.name(), item.sort.word());
    Failure::new(Code::Refused, format!("{item} of {} {state}", vault.host()))
        .hint(format!("az keyvault {word} set-attributes --vault-name {name} --name {} {option}", item.name))
}

/// `2026-11-22`
fn day(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds).map(|at| at.date().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::desk::{Desk, challenge, refusal};
    use crate::settings::Sort;

    fn item(sort: Sort, version: Option<&str>) -> Item {
        Item { sort, name: "ssh".to_owned(), version: version.map(str::to_owned) }
    }

    /// Message and hint.
    #[track_caller]
    fn check(item: &Item, answers: impl IntoIterator<Item = HttpAnswer>, message: &str, hint: &str) {
        let desk = Desk::default();
        desk.before(answers);
        let mut vault = desk.vault();
        let trouble = vault.get::<Value>(&desk, &item.path()).expect_err("a refusal");
        let failure = explain(&desk, &mut vault, item, trouble);
        let shown = format!("{failure:?}");
        assert_eq!(failure.to_string(), message);
        assert!(
            shown.contains(&format!("{hint:?}").trim_matches('"').to_owned()),
            "{hint}\nis not in\n{shown}"
        );
        assert!(desk.requests().len() <= 4);
    }

    /// Words of the live service: hashicorp/terraform-provider-azurerm#27817, microsoft/AL-Go#1343.
    const RBAC: &str = "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: appid=04b07795-8ddb-461a-bbee-02f9e1bf7b46;oid=33333333-3333-4333-8333-333333333333;iss=https://sts.windows.net/11111111-1111-4111-8111-111111111111/\r\nAction: 'Microsoft.KeyVault/vaults/keys/sign/action'\r\nResource: '/subscriptions/s/resourcegroups/rg/providers/microsoft.keyvault/vaults/contoso/keys/ssh'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: contoso;location=westeurope\r\n";

    /// As above: MicrosoftDocs/azure-docs#97977.
    const POLICY: &str = "The user, group or application 'appid=a;oid=33333333-3333-4333-8333-333333333333;iss=https://sts.windows.net/t/' does not have keys sign permission on key vault 'contoso;location=westeurope'. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287";

    #[test]
    fn a_missing_right_is_named_with_its_cure() {
        check(
            &item(Sort::Key, None),
            [refusal(403, "Forbidden", RBAC, Some("ForbiddenByRbac"))],
            "you may not use the key 'ssh' of contoso.vault.azure.net: `Microsoft.KeyVault/vaults/keys/sign/action` is not allowed",
            "az role assignment create --role \"Key Vault Crypto User\" --assignee 33333333-3333-4333-8333-333333333333 --scope /subscriptions/s/resourcegroups/rg/providers/microsoft.keyvault/vaults/contoso/keys/ssh",
        );
        check(
            &item(Sort::Secret, None),
            [refusal(403, "Forbidden", "Action: '$(reboot)'\r\noid=`x`;", Some("ForbiddenByRbac"))],
            "you may not use the secret 'ssh' of contoso.vault.azure.net: `an action that it does not name` is not allowed",
            "--role \"Key Vault Secrets User\" --assignee OBJECT-ID --scope VAULT-ID",
        );
        check(
            &item(Sort::Key, None),
            [refusal(403, "Forbidden", POLICY, Some("AccessDenied"))],
            "you may not use the key 'ssh' of contoso.vault.azure.net: the permission `keys sign` is missing",
            "az keyvault set-policy --name contoso --object-id 33333333-3333-4333-8333-333333333333 --key-permissions get sign",
        );
    }

    #[test]
    fn the_state_of_a_key_is_named() {
        let key = item(Sort::Key, None);
        let said = |inner: &str| refusal(403, "Forbidden", "Operation sign is not allowed.", Some(inner));
        let of = "the key 'ssh' of contoso.vault.azure.net";
        check(&key, [said("KeyDisabled")], &format!("{of} is disabled"), "--enabled true");
        check(&key, [said("KeyExpired")], &format!("{of} has expired"), "--expires DATE");
        check(&key, [said("KeyNotYetValid")], &format!("{of} is not valid yet"), "--not-before DATE");
        check(
            &key,
            [said("KeyOperationForbidden")],
            &format!("{of} is not meant for signing"),
            "--ops sign verify",
        );
        check(
            &key,
            [said("SomethingNew")],
            "contoso.vault.azure.net does not let you use the key 'ssh' and says 'Operation sign is not allowed'",
            "az keyvault key show --vault-name contoso --name ssh",
        );
    }

    #[test]
    fn a_firewall_is_named_with_the_address_that_it_saw() {
        let message = "Client address is not authorized and caller is not a trusted service.\r\nClient address: 40.74.28.0\r\nCaller: appid=a\r\nVault: contoso";
        check(
            &item(Sort::Key, None),
            [refusal(403, "Forbidden", message, Some("ForbiddenByFirewall"))],
            "the firewall of contoso.vault.azure.net is closed for 40.74.28.0",
            "az keyvault network-rule add --name contoso --ip-address 40.74.28.0",
        );
    }

    #[test]
    fn what_is_not_there_is_looked_for() {
        let gone =
            || refusal(404, "KeyNotFound", "A key with (name/id) ssh was not found in this key vault.", None);
        let there = |body: Value| HttpAnswer {
            status: 200,
            body: body.to_string().into_bytes(),
            ..HttpAnswer::default()
        };
        check(
            &item(Sort::Key, None),
            [gone(), gone()],
            "contoso.vault.azure.net has no key 'ssh'",
            "az keyvault key list --vault-name contoso",
        );
        check(
            &item(Sort::Key, None),
            // 22 November 2026.
            [gone(), there(json!({"recoveryId": "x", "scheduledPurgeDate": 1_795_362_791}))],
            "the key 'ssh' of contoso.vault.azure.net was deleted, and will be gone for good on 2026-11-22",
            "az keyvault key recover --vault-name contoso --name ssh",
        );
        check(
            &item(Sort::Secret, Some("9885aa558e8d448789683188f8c194b0")),
            [gone(), there(json!({"value": "x"}))],
            "the secret 'ssh' of contoso.vault.azure.net has no version '9885aa558e8d448789683188f8c194b0'",
            "az keyvault secret list-versions --vault-name contoso --name ssh",
        );
    }

    #[test]
    fn the_rest() {
        let key = item(Sort::Key, None);
        let denied = || challenge("https://login.windows.net/contoso.com");
        check(
            &key,
            [denied(), denied(), denied()],
            "contoso.vault.azure.net does not accept the sign-in and says 'AKV10032: Invalid issuer. Expected one of x, found y'",
            "bastide login --tenant contoso.com",
        );
        let page = || HttpAnswer { status: 502, body: b"<html>\x1b[31m".to_vec(), ..HttpAnswer::default() };
        check(
            &key,
            [page(), page(), page(), page()],
            "contoso.vault.azure.net answers with status 502",
            "try again",
        );
        let not_json = HttpAnswer { status: 200, body: b"<html>".to_vec(), ..HttpAnswer::default() };
        check(
            &key,
            [not_json],
            "contoso.vault.azure.net answers about the key 'ssh', and the answer cannot be read",
            "something else than a vault",
        );
        check(
            &key,
            [refusal(400, "BadParameter", "api-version\u{7} must be specified", None)],
            "contoso.vault.azure.net refuses a request for the key 'ssh' with status 400 and says 'api-version must be specified'",
            "None",
        );
    }
}
