//! Who signs in, and to which tenant and subscription: service principal and Azure CLI, subscriptions by name, id,
//! environment and the CLI's default, hub and spoke in different tenants (cli.md, "Flags"). It leaves out sign-ins
//! that are refused (`refusals`).

use std::os::unix::fs::PermissionsExt;

use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Program, SUBSCRIPTION};

/// Sends nothing, reads the six bytes that the VM's port 20 says, and is over.
#[track_caller]
pub(crate) fn connects(program: Program) {
    let outcome = program.run().expect_code(0);
    assert_eq!(outcome.stdout, [0, 1, 2, 3, 4, 5], "{outcome}");
}

const PORTS: &str = "ports = { 20 = \"produce:6\", 22 = \"produce:6\" }";

pub(crate) fn lab() -> Lab {
    Lab::with(&format!("[[virtual_machines]]\nname = \"web-01\"\nprivate_ip = \"10.0.0.4\"\n{PORTS}\n"))
}

const HUB: &str = "33333333-3333-4333-8333-333333333333";
const HUB_TENANT: &str = "99999999-9999-4999-8999-999999999999";

/// A VM in one subscription and tenant, its Bastion host in another, and an application with a service principal in
/// both.
fn hub_and_spoke() -> Lab {
    let principal = |object_id: &str, tenant: &str| {
        format!(
            "[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\n\
             object_id = \"{object_id}\"\ntenant = \"{tenant}\"\n"
        )
    };
    Lab::with(&format!(
        "[[tenants]]\nid = \"11111111-1111-4111-8111-111111111111\"\ndomain = \"spoke.example\"\n\
         [[tenants]]\nid = \"{HUB_TENANT}\"\ndomain = \"hub.example\"\n\
         [[subscriptions]]\nid = \"{SUBSCRIPTION}\"\nname = \"Spoke\"\ntenant = \"spoke.example\"\n\
         [[subscriptions]]\nid = \"{HUB}\"\nname = \"Hub\"\ntenant = \"hub.example\"\n\
         [[virtual_networks]]\nname = \"demo-vnet\"\naddress_prefixes = [\"10.0.0.0/16\"]\n\
         peerings = [{{ to = \"/subscriptions/{HUB}/resourceGroups/demo/providers/Microsoft.Network/virtualNetworks/demo-vnet\" }}]\n\
         [[virtual_networks]]\nname = \"demo-vnet\"\nsubscription = \"Hub\"\naddress_prefixes = [\"10.1.0.0/16\"]\n\
         {}{}[[bastion_hosts]]\nname = \"hub\"\nsubscription = \"Hub\"\ndns_name = \"localhost\"\n\
         [[virtual_machines]]\nname = \"web-01\"\nprivate_ip = \"10.0.0.4\"\n{PORTS}\n",
        principal("55555555-5555-4555-8555-555555555555", "spoke.example"),
        principal("66666666-6666-4666-8666-666666666666", "hub.example"),
    ))
}

fn bastion_id(subscription: &str, name: &str) -> String {
    format!(
        "/subscriptions/{subscription}/resourceGroups/demo/providers/Microsoft.Network/bastionHosts/{name}"
    )
}

/// The program without what the emulator's environment says about subscription and sign-in.
pub(crate) fn bare(program: Program) -> Program {
    ["AZURE_SUBSCRIPTION_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"]
        .iter()
        .fold(program, |program, name| program.env_remove(name))
}

/// An `az` that gets real tokens from the emulator, for the tenant that it is asked for, and writes down what it was
/// asked; `PATH` with it in front.
fn fake_az(lab: &Lab) -> String {
    let folder = lab.home().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let script = format!(
        r#"#!/bin/sh
echo "$*" >> '{home}/az.log'
tenant='{tenant}' scope=
while [ $# -gt 0 ]; do
    case "$1" in --tenant) tenant=$2 ;; --scope) scope=$2 ;; esac
    shift
done
answer=$(curl --silent --fail --noproxy '*' --cacert '{ca}' \
    --data-urlencode grant_type=client_credentials --data-urlencode 'client_id={client}' \
    --data-urlencode 'client_secret={secret}' --data-urlencode "scope=$scope" \
    "{url}/$tenant/oauth2/v2.0/token") || exit 1
token=$(printf '%s' "$answer" | sed 's/.*"access_token": *"\([^"]*\)".*/\1/')
printf '{{"accessToken":"%s","expiresOn":"2033-05-18 03:33:20.000000","expires_on":%s,"subscription":"s","tenant":"%s","tokenType":"Bearer"}}' \
    "$token" "$(($(date +%s) + 3599))" "$tenant"
"#,
        home = lab.home().display(),
        ca = lab.emulator().ca_file().display(),
        url = lab.emulator().url(),
        client = lab.env("AZURE_CLIENT_ID"),
        secret = lab.env("AZURE_CLIENT_SECRET"),
        tenant = lab.env("AZURE_TENANT_ID"),
    );
    let az = lab.file("bin/az", script);
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o700)).unwrap();
    format!("{}:/usr/bin:/bin", folder.display())
}

/// What `az login` leaves behind, with its byte order mark.
fn azure_profile(lab: &Lab) {
    std::fs::create_dir(lab.home().join(".azure")).unwrap();
    let profile = format!(
        "\u{feff}{{\"installationId\": \"i\", \"subscriptions\": [\
         {{\"id\": \"{HUB}\", \"name\": \"Other\", \"state\": \"Enabled\", \"isDefault\": false, \
           \"tenantId\": \"t\", \"environmentName\": \"BastideEmulator\"}}, \
         {{\"id\": \"{SUBSCRIPTION}\", \"name\": \"Emulator\", \"state\": \"Enabled\", \"isDefault\": true, \
           \"tenantId\": \"t\", \"environmentName\": \"BastideEmulator\", \
           \"user\": {{\"name\": \"ada@contoso.example\", \"type\": \"user\"}}}}]}}"
    );
    lab.file(".azure/azureProfile.json", profile);
}

#[test]
fn a_service_principal_of_the_environment() {
    let lab = lab();
    let line = "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 20";
    connects(lab.bastide(line));
    connects(lab.bastide(line).words("--credential client-secret"));
    // Flags win over variables.
    let (tenant, client) = (lab.env("AZURE_TENANT_ID"), lab.env("AZURE_CLIENT_ID"));
    let program = lab.bastide(line).env("AZURE_TENANT_ID", HUB_TENANT).env("AZURE_CLIENT_ID", HUB);
    connects(program.args(["--tenant", &tenant, "--client-id", &client]));
    // One sign-in for ARM and data plane each time.
    assert_eq!(lab.transcript().count(Kind::Token), 3);
}

#[test]
fn the_azure_cli() {
    let lab = lab();
    let path = fake_az(&lab);
    let line = "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 20";
    connects(bare(lab.bastide(line)).env("PATH", &path).words("--credential azure-cli"));
    // Found without being named, when there is no service principal.
    connects(bare(lab.bastide(line)).env("PATH", &path));
    let asked = std::fs::read_to_string(lab.home().join("az.log")).unwrap();
    let asked: Vec<&str> = asked.lines().collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].starts_with("account get-access-token -o json --scope https://"), "{asked:?}");
    // With one it is not asked.
    connects(lab.bastide(line).env("PATH", &path));
    assert_eq!(std::fs::read_to_string(lab.home().join("az.log")).unwrap().lines().count(), 2);
}

#[test]
fn an_azure_cli_that_fails() {
    let lab = lab();
    fake_az(&lab);
    let check = |script: &str, says: &str, hint: &str| {
        let az = lab.file("bin/az", format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o700)).unwrap();
        let line = "proxy -n bastion -g demo {vm} --resource-port 20 --credential azure-cli";
        let path = format!("{}:/usr/bin:/bin", lab.home().join("bin").display());
        let outcome = bare(lab.bastide(line)).env("PATH", path).run().expect_code(10);
        assert!(outcome.stderr.contains(says) && outcome.stderr.contains(hint), "{outcome}");
        assert!(!outcome.stderr.contains("t0ken") && outcome.stdout.is_empty(), "{outcome}");
    };
    check(
        "echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1",
        "nobody is signed in there: Please run 'az login' to setup account.",
        "hint: sign in with `bastide login` or `az login`",
    );
    check(
        "echo 'ERROR: AADSTS700082: The refresh token has expired due to inactivity.' >&2; exit 1",
        "azure-cli was refused: AADSTS700082",
        "the sign-in has expired: run `az login` again",
    );
    check("echo t0ken", "its answer is not the JSON that was expected", "az account get-access-token");
}

#[test]
fn subscriptions() {
    let lab = lab();
    azure_profile(&lab);
    // An address says nothing of a subscription, unlike a VM's id.
    let line = "proxy -n bastion -g demo --target-ip-address 10.0.0.4 --resource-port 22";
    let check = |flags: &str, variable: Option<&str>| {
        let program = lab.bastide(line).words(flags).env_remove("AZURE_SUBSCRIPTION_ID");
        connects(match variable {
            Some(value) => program.env("AZURE_SUBSCRIPTION_ID", value),
            None => program,
        });
    };
    check("", None);
    check("", Some(SUBSCRIPTION));
    check("--subscription Emulator", Some(HUB));
    check("--subscription eMULATOR", None);
    check(&format!("--subscription {SUBSCRIPTION}"), Some(HUB));
    // A whole id needs nothing else, and wins.
    let id = bastion_id(SUBSCRIPTION, "bastion");
    let line =
        "proxy --target-ip-address 10.0.0.4 --resource-port 22 --subscription Elsewhere -g nowhere --name";
    connects(lab.bastide(line).arg(&id));
    // Without any of them there is nowhere to look.
    let line = "proxy -n bastion -g demo --target-ip-address 10.0.0.4 --resource-port 22";
    let nowhere = lab.bastide(line).env_remove("AZURE_SUBSCRIPTION_ID").env("AZURE_CONFIG_DIR", lab.home());
    nowhere.run().expect_code(2).expect_stderr("error: no subscription is named").expect_stderr(
        "hint: name it with --subscription, set AZURE_SUBSCRIPTION_ID, or choose one with `az account set`",
    );
}

#[test]
fn a_bastion_host_in_another_subscription_and_tenant() {
    let lab = hub_and_spoke();
    let rest = "--target-resource-id {vm} --resource-port 20";
    // The tenant is not told: ARM's 401 names it.
    connects(lab.bastide(&format!("proxy -n hub -g demo --subscription {HUB} {rest}")));
    connects(lab.bastide(&format!("proxy -n {} {rest}", bastion_id(HUB, "hub"))));
    connects(lab.bastide(&format!("proxy -n hub -g demo {rest}")).env("AZURE_SUBSCRIPTION_ID", HUB));
    // A name is looked up in the tenant that one signs in to.
    connects(lab.bastide(&format!("proxy -n hub -g demo --subscription Hub --tenant {HUB_TENANT} {rest}")));
    let path = fake_az(&lab);
    let line = format!("proxy -n hub -g demo --subscription {HUB} {rest} --credential azure-cli");
    connects(bare(lab.bastide(&line)).env("PATH", &path));
    let asked = std::fs::read_to_string(lab.home().join("az.log")).unwrap();
    assert!(asked.lines().last().unwrap().ends_with(&format!("--tenant {HUB_TENANT}")), "{asked}");
}
