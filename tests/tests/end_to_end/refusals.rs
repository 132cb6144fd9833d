//! What `bastide` refuses, and how: exit code, message and hint (cli.md, "Output" and "Exit codes"). What can be seen
//! before a token is minted is refused before a token is minted. It leaves out what the service does to connections
//! that are open.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Outcome, Program, SUBSCRIPTION, Stranger};

/// Runs it, and checks what it says and that it says it on standard error alone.
#[track_caller]
pub(crate) fn check(program: Program, code: i32, says: &str, hint: &str) -> Outcome {
    let outcome = program.run().expect_code(code);
    let told = |prefix: &str, words: &str| {
        outcome.stderr.lines().any(|line| line.starts_with(prefix) && line.contains(words))
    };
    assert!(told("error: ", says) || told("  caused by: ", says), "no '{says}': {outcome}");
    assert!(told("hint: ", hint), "no hint '{hint}': {outcome}");
    assert!(outcome.stdout.is_empty(), "{outcome}");
    outcome
}

/// Nobody asked the data plane for a token.
#[track_caller]
fn no_mint(lab: &Lab) {
    assert_eq!(lab.transcript().count(Kind::Mint), 0, "{:#?}", lab.transcript());
}

#[test]
fn settings_of_the_bastion_host() {
    let lab = Lab::new();
    let check = |line: &str, says: &str, hint: &str| {
        check(lab.bastide(line), 12, says, hint);
    };
    let port = "-g demo --target-resource-id {vm} --resource-port 22";
    check(
        &format!("tunnel -n basic {port}"),
        "the Bastion host 'basic' is of the Basic SKU",
        "az network bastion update --name basic --resource-group demo --sku Standard --enable-tunneling true",
    );
    check(
        &format!("proxy -n no-tunneling {port}"),
        "is switched off on the Bastion host 'no-tunneling'",
        "az network bastion update --name no-tunneling --resource-group demo --enable-tunneling true",
    );
    check(
        &format!("ssh -n tunneling-missing {port}"),
        "was never switched on for the Bastion host 'tunneling-missing'",
        "az network bastion update --name tunneling-missing --resource-group demo --enable-tunneling true",
    );
    check(
        &format!("tunnel -n recording {port}"),
        "the Bastion host 'recording' records sessions",
        "--session-recording false",
    );
    check(
        "tunnel -n no-ip-connect -g demo --target-ip-address 10.0.0.4 --resource-port 22",
        "IP connect is switched off on the Bastion host 'no-ip-connect'",
        "--enable-ip-connect true",
    );
    check(
        "tunnel -n bastion -g demo --target-ip-address 10.0.0.4 --resource-port 5432",
        "port 5432 cannot be opened by IP address: Bastion allows only 22 and 3389",
        "--target-resource-id",
    );
    // One of several forwardings is enough.
    check(
        "tunnel -n bastion -g demo --target-ip-address 10.0.0.4 -L 0:22 -L 0:80",
        "port 80 cannot be opened by IP address",
        "--target-resource-id",
    );
    no_mint(&lab);
}

#[test]
fn words_that_mean_nothing() {
    let lab = Lab::new();
    let check = |line: &str, says: &str, hint: &str| {
        check(lab.bastide(line), 2, says, hint);
    };
    let host = "tunnel -n bastion -g demo --resource-port 22";
    let id_hint = "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/";
    check(&format!("{host} --target-resource-id web-01"), "'web-01' is not a resource id", id_hint);
    check(&format!("{host} --target-resource-id /subscriptions/x"), "too short to name a resource", id_hint);
    check(
        &format!("{host} --target-resource-id {{vm}}/extensions"),
        "a resource type and a name are needed",
        id_hint,
    );
    check(&format!("{host} --target-ip-address 10.0.0.999"), "'10.0.0.999' is not an IP address", "10.0.0.4");
    check(
        &format!("{host} --target-ip-address fd00::4"),
        "Azure Bastion has no IPv6",
        "private IPv4 address",
    );
    check(&format!("{host} --target-ip-address 0.0.0.0"), "no VM can have it", "private IPv4 address");
    check(
        &format!("{host} web/01"),
        "'web/01' is neither the name of a VM nor a resource id",
        "bastide list vms",
    );
    check(host, "no VM is named", "--target-resource-id ID or --target-ip-address IP");
    check(
        "tunnel -g demo --target-resource-id {vm} --resource-port 22",
        "'web-01' is reached by 5 Bastion hosts: 'bastion' in resource group 'demo', 'developer' in",
        "--name bastion --resource-group demo",
    );
    let bastion = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/demo/providers/Microsoft.Network/bastionHosts/bastion"
    );
    check(&format!("{host} --target-resource-id {bastion}"), "is a Bastion host, not a VM", "--name");
    check(
        "tunnel -n {vm} -g demo --target-resource-id {vm} --resource-port 22",
        "is not the id of a Bastion host",
        "--target-resource-id",
    );
    check(
        &format!("{host} --cloud AzureMarsCloud 10.0.0.4"),
        "'AzureMarsCloud' is not a cloud",
        "AzureCloud,",
    );
    check(&format!("{host} --cloud http://localhost 10.0.0.4"), "is not a cloud", "https://");
    check(
        &format!("{host} --proxy ftp://localhost 10.0.0.4"),
        "the proxy address of --proxy",
        "http://host:port",
    );
    no_mint(&lab);
}

/// What the parser of the command line refuses has its own form.
#[test]
fn flags_that_cannot_be_read() {
    let lab = Lab::new();
    let check = |line: &str, says: &str| {
        let outcome = lab.bastide(line).run().expect_code(2).expect_stderr(says);
        assert!(outcome.stdout.is_empty(), "{outcome}");
    };
    let host = "tunnel -n bastion -g demo --target-resource-id {vm}";
    check(host, "--resource-port");
    check(&format!("{host} --resource-port 22 --port 70000"), "70000 is not in 0..=65535");
    check(&format!("{host} --resource-port 22 --port ssh"), "invalid value 'ssh'");
    check(&format!("{host} --resource-port 0"), "0 is not in 1..=65535");
    check(&format!("{host} -L 8022"), "is not [BIND:]PORT:REMOTE-PORT");
    check(&format!("{host} -L 8022:0"), "'0' is not a port from 1 to 65535");
    check(&format!("{host} --resource-port 22 --bind nowhere"), "invalid value 'nowhere'");
    check(&format!("{host} --resource-port 22 --target-ip-address 10.0.0.4"), "cannot be used with");
    check(&format!("{host} --resource-port 22 --timeout 0"), "0 is not in 1..");
    check(&format!("{host} --resource-port 22 --credential password"), "auto, device-code, managed-identity");
    check(&format!("{host} --resource-port 22 --no-such-flag"), "there is no flag '--no-such-flag' here");
    check("ssh -n bastion -g demo {vm} --auth-type fingerprint", "invalid value 'fingerprint'");
    check("fly", "there is no command 'fly'");
    no_mint(&lab);
}

#[test]
fn things_that_are_not_there() {
    let lab = Lab::new();
    let check = |line: &str, says: &str, hint: &str| {
        check(lab.bastide(line), 13, says, hint);
    };
    let rest = "--target-resource-id {vm} --resource-port 22";
    check(
        &format!("tunnel -n nowhere -g demo {rest}"),
        "Bastion host 'nowhere' in resource group 'demo'",
        "",
    );
    check(&format!("tunnel -n nowhere {rest}"), "Bastion host 'nowhere' was not found in subscription", "");
    check(
        &format!("tunnel -n bastion -g no-group {rest}"),
        "Resource group 'no-group' could not be found",
        "--resource-group",
    );
    check(
        &format!("tunnel -n bastion -g demo --subscription Elsewhere {rest}"),
        "subscription 'Elsewhere' was not found",
        "az account list",
    );
    check(
        &format!("tunnel -n bastion -g demo --subscription 99999999-9999-4999-8999-999999999999 {rest}"),
        "99999999-9999-4999-8999-999999999999",
        "--tenant",
    );
    no_mint(&lab);
}

#[test]
fn signing_in() {
    let lab = Lab::new();
    let line = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 22";
    let tenant = lab.env("AZURE_TENANT_ID");
    check(
        lab.bastide(line).env("AZURE_CLIENT_SECRET", "wr0ng-s3cret"),
        10,
        "client-secret was refused: AADSTS7000215",
        "AZURE_CLIENT_SECRET has to be the secret's value",
    );
    let unknown = "99999999-9999-4999-8999-999999999999";
    check(
        lab.bastide(line).env("AZURE_TENANT_ID", unknown),
        10,
        &format!("AADSTS90002: Tenant '{unknown}' not found"),
        "AZURE_TENANT_ID",
    );
    check(lab.bastide(line).arg("--tenant").arg(unknown), 10, "AADSTS90002", "--tenant");
    check(lab.bastide(line).arg("--client-id").arg(unknown), 10, "AADSTS700016", "--client-id");
    // Nothing to sign in with: no variables, and a PATH without `az`.
    let nobody = || {
        let names = ["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"];
        names.iter().fold(lab.bastide(line).env("PATH", lab.home()), |program, name| program.env_remove(name))
    };
    check(
        nobody(),
        10,
        "not signed in to Azure: device-code: nobody has signed in with `bastide login`; client-secret: without \
         AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET; client-certificate: without AZURE_TENANT_ID, \
         AZURE_CLIENT_ID, AZURE_CLIENT_CERTIFICATE_PATH; workload-identity: without AZURE_TENANT_ID, \
         AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE; azure-cli: `az` is not in PATH; managed-identity: the \
         instance metadata service does not answer",
        "sign in with `bastide login` or `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    );
    check(
        nobody().words("--credential azure-cli"),
        10,
        "azure-cli is not set up: `az` is not in PATH",
        "az login",
    );
    check(
        nobody().words("--credential client-secret").env("AZURE_TENANT_ID", &tenant),
        10,
        "client-secret is not set up: without AZURE_CLIENT_ID, AZURE_CLIENT_SECRET",
        "AZURE_CLIENT_SECRET",
    );
    no_mint(&lab);
}

#[test]
fn a_token_that_has_expired() {
    let lab = Lab::with("[settings]\ntoken_lifetime_seconds = 0\n");
    let line = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 22";
    check(lab.bastide(line), 10, "the access token is not accepted", "az login");
    no_mint(&lab);
}

/// A service principal with these rights and no others.
fn with_rights(roles: &str) -> Lab {
    Lab::with(&format!(
        "[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\n\
         object_id = \"55555555-5555-4555-8555-555555555555\"\ntenant = \"emulator.example\"\nroles = [{roles}]\n"
    ))
}

#[test]
fn rights_that_are_missing() {
    let lab = with_rights("");
    let line = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 22";
    check(
        lab.bastide(line),
        11,
        "the right Microsoft.Network/bastionHosts/read on ",
        "az role assignment create --assignee 55555555-5555-4555-8555-555555555555 --role Reader --scope ",
    );
    no_mint(&lab);
}

/// The service has one answer for many causes; the hint names them (protocol.md §4).
#[test]
fn what_only_the_service_knows() {
    let catch_all = |lab: &Lab, target: &str| {
        let line =
            format!("tunnel -n bastion -g demo --target-resource-id {target} --resource-port 22 --retries 0");
        let outcome = check(
            lab.bastide(&line),
            21,
            "Unexpected internal error",
            "no Reader role on the VM's network interface",
        );
        assert!(outcome.stderr.contains("status 500"), "{outcome}");
        assert_eq!(lab.transcript().mints(), 0);
        assert!(lab.transcript().count(Kind::Mint) > 0);
    };
    let lab = Lab::new();
    catch_all(&lab, &lab.vm("no-such-vm"));
    let group = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/demo");
    let lab = with_rights(&format!(
        "{{ scope = \"{group}/providers/Microsoft.Network/bastionHosts/bastion\" }}, \
         {{ scope = \"{group}/providers/Microsoft.Compute/virtualMachines/web-01\" }}"
    ));
    catch_all(&lab, "{vm}");
}

#[test]
fn local_ports() {
    let lab = Lab::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let host = "tunnel -n bastion -g demo --target-resource-id {vm}";
    check(
        lab.bastide(&format!("{host} --resource-port 22 --port {}", taken.port())),
        2,
        &format!("{taken} is in use by another program"),
        "--port 0 takes any free port",
    );
    let file = lab.file("a-file", "not a socket");
    check(lab.bastide(&format!("{host} -L {}:22", file.display())), 2, "a-file is in use", "another path");
    assert_eq!(std::fs::read(file).unwrap(), b"not a socket");
    check(lab.bastide(&format!("{host} -L ./no/such/folder.sock:22")), 2, "cannot listen on", "its folder");

    let Some(port) = privileged_port() else { return };
    let program = match Stranger::new() {
        Some(stranger) => {
            let line = format!("{host} --resource-port 22 --port {port}");
            check(
                stranger.bastide(&lab, &line),
                2,
                &format!("local port {port} is privileged: only root may listen below 1024"),
                "or --port 0 for any free one",
            );
            no_mint(&lab);
            return;
        }
        None => lab.bastide(&format!("{host} --resource-port 22 --port {port}")),
    };
    check(program, 2, &format!("local port {port} is privileged"), "--port 0");
    no_mint(&lab);
}

/// The highest port that belongs to root; none on a machine, usually a container, that gives all to everybody
/// (ip_unprivileged_port_start in ip(7)).
fn privileged_port() -> Option<u16> {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first_free: u16 = setting.map_or(1024, |text| text.trim().parse().unwrap());
    first_free.min(1024).checked_sub(1).filter(|port| *port > 0)
}

#[test]
fn keys_that_openssh_would_not_take() {
    let lab = Lab::new();
    let ssh = |key: &std::path::Path| {
        let line = "ssh -n bastion -g demo --target-resource-id {vm} --auth-type ssh-key --username azureuser --ssh-key";
        lab.bastide(line).arg(key)
    };
    let missing = lab.home().join("no-key");
    check(ssh(&missing), 2, "no-key' cannot be read: No such file or directory", "to --ssh-key");
    check(ssh(lab.home()), 2, "is a folder", "to --ssh-key");
    let open = lab.file("open-key", std::fs::read(lab.key()).unwrap());
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    check(ssh(&open), 2, "open-key' can be read by others", "chmod 600");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything.
    match Stranger::new() {
        Some(stranger) => {
            let key = stranger.copy(&open, 0o600);
            let line = format!("ssh -n bastion -g demo {{vm}} --ssh-key {}", key.display());
            check(stranger.bastide(&lab, &line), 2, "cannot be read: Permission denied", "to --ssh-key");
        }
        None => drop(check(ssh(&open), 2, "cannot be read: Permission denied", "to --ssh-key")),
    }
    no_mint(&lab);
}

#[test]
fn openssh_that_is_missing_and_flags_that_bastion_takes_the_place_of() {
    let lab = Lab::new();
    let line = "ssh -n bastion -g demo --target-resource-id {vm}";
    check(
        lab.bastide(line).env("PATH", lab.home()),
        2,
        "there is no ssh in PATH",
        "apt-get install openssh-client",
    );
    check(lab.bastide(line).words("-- -J elsewhere"), 2, "ssh's -J has no place here", "ssh -J VM HOST");
    check(
        lab.bastide(line).words("--auth-type password --ssh-key key"),
        2,
        "--ssh-key goes with --auth-type ssh-key only",
        "leave one of them out",
    );
    no_mint(&lab);
}

#[test]
fn ports_that_the_vm_refuses() {
    let lab = Lab::new();
    let check = |target: &str, port: u16, name: &str| {
        let line = format!(
            "proxy -n bastion -g demo --target-resource-id {target} --resource-port {port} --retries 1"
        );
        check(
            lab.bastide(&line),
            22,
            &format!("port {port} of '{name}' was closed before anything came back"),
            &format!("most likely nothing listens on port {port} of the VM"),
        );
    };
    check("{vm}", 81, "web-01");
    check("{vm}", 4711, "web-01");
    // OpenSSH has a code of its own for it.
    let line = "ssh -n bastion -g demo --target-resource-id {vm} --resource-port 81 --retries 1 -- true";
    lab.bastide(line).run().expect_code(255).expect_stderr("port 81 of 'web-01' was closed");
}

#[test]
fn certificates_and_their_files() {
    let lab = Lab::new();
    let line = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 22";
    let trusting =
        |file: &std::path::Path| lab.bastide(line).env("SSL_CERT_FILE", file).env("REQUESTS_CA_BUNDLE", file);
    let missing = lab.home().join("missing.pem");
    let garbage = lab.file("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let empty = lab.file("empty.pem", "nothing here\n");
    check(trusting(&missing), 2, "No such file or directory", "PEM file");
    check(lab.bastide(line).arg("--ca-bundle").arg(&missing), 2, "missing.pem cannot be used", "PEM file");
    check(trusting(&garbage), 2, "none of its 1 certificates can be read", "PEM file");
    check(lab.bastide(line).arg("--ca-bundle").arg(&empty), 2, "it holds no certificate", "PEM file");

    // Somebody else's authority, as when a company's proxy opens TLS.
    let other = Lab::new();
    let outcome = check(
        trusting(&other.emulator().ca_file()),
        20,
        "it is signed by another 'bastide-emulator authority' than the one that this machine trusts",
        "--ca-bundle FILE",
    );
    assert!(outcome.stderr.contains("caused by: it presented 'localhost' (issued by "), "{outcome}");
    // It is enough to name the right one besides.
    let line = line.replace("-n bastion", "-n basic");
    let ca_file = lab.emulator().ca_file();
    check(
        lab.bastide(&line).env("SSL_CERT_FILE", other.emulator().ca_file()).arg("--ca-bundle").arg(ca_file),
        12,
        "Basic SKU",
        "--sku Standard",
    );
    no_mint(&lab);
}

#[test]
fn an_azure_that_is_not_there() {
    let lab = Lab::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 22";
    let cloud = format!("https://localhost:{nobody}");
    check(
        lab.bastide(line).env("BASTIDE_CLOUD", &cloud),
        20,
        &format!("localhost:{nobody} (tried "),
        "check host and port",
    );
    check(lab.bastide(line).arg("--cloud").arg(&cloud), 20, "refused the connection", "check host and port");
    check(lab.bastide(line).env("AZURE_AUTHORITY_HOST", &cloud), 20, "refused the connection", "HTTPS");
    check(
        lab.bastide(line).words("--cloud https://bastide.invalid"),
        20,
        "the name of bastide.invalid:443 cannot be resolved",
        "DNS",
    );
    no_mint(&lab);
}
