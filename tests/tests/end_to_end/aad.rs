//! `bastide ssh --auth-type AAD` to the emulator's own SSH server: who gets in, who does not and is told why, and what
//! certificates are asked for. It leaves out what OpenSSH's server makes of it (`aad_sshd`).

use std::os::unix::fs::PermissionsExt;

use bastide_emulator::scenario::Outcome as SignIn;
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Outcome, Program};

/// A lab in which whoever is named enters every code at once.
pub(crate) fn lab_of(person: &str, more: &str) -> Lab {
    Lab::with(&format!(
        "[sign_in]\ndevice_code_interval_seconds = 0\ndevice_code_approved_by = \"{person}\"\n{more}\n"
    ))
}

/// Signs the person in, whose refresh token is then in the store.
pub(crate) fn log_in(lab: &Lab) {
    personal(lab.bastide("login --no-browser")).run().expect_code(0);
}

/// Without the credentials of the emulator's service principal.
pub(crate) fn personal(program: Program) -> Program {
    ["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"].iter().fold(program, |program, name| program.env_remove(name))
}

fn ssh(lab: &Lab) -> Program {
    lab.bastide("ssh -n bastion -g demo --auth-type AAD --target-resource-id {vm}")
}

const REMOTE: [&str; 4] = ["--", "-F", "none", "echo in"];

#[track_caller]
fn gets_in(outcome: Outcome) -> Outcome {
    let outcome = outcome.expect_code(0);
    assert_eq!(outcome.text(), "in\n", "{outcome}");
    assert!(!outcome.stderr.contains("warning"), "{outcome}");
    outcome
}

#[test]
fn a_person_and_an_application_get_in() {
    let lab = lab_of("ada@emulator.example", "");
    log_in(&lab);
    gets_in(personal(ssh(&lab)).args(REMOTE).run());
    let transcript = lab.transcript();
    assert_eq!(transcript.issued("ssh_certificate"), 1);
    // What protocol.md §7 names, along with the usual fields.
    let asked = transcript.requests.iter().filter(|request| request.kind == Kind::Token);
    let asked: Vec<_> =
        asked.filter(|request| request.fields.iter().any(|field| field == "req_cnf")).collect();
    assert_eq!(asked.len(), 1);
    for field in ["token_type", "key_id", "claims", "refresh_token"] {
        assert!(asked[0].fields.iter().any(|known| known == field), "{field}: {:?}", asked[0].fields);
    }
    // The service principal, whom nobody has to sign in.
    gets_in(ssh(&lab).args(["--credential", "client-secret"]).args(REMOTE).run());
    assert_eq!(lab.transcript().issued("ssh_certificate"), 2);
}

#[test]
fn a_machine_known_by_its_address_takes_the_certificate_too() {
    let lab = Lab::new();
    let program = lab.bastide("ssh -n bastion -g demo --auth-type AAD --target-ip-address 10.0.0.4");
    gets_in(program.args(REMOTE).run());
}

#[test]
fn another_user_name_is_left_aside_with_a_word() {
    let lab = Lab::new();
    let outcome = ssh(&lab).args(["--username", "azureuser"]).args(REMOTE).run().expect_code(0);
    assert_eq!(outcome.text(), "in\n");
    outcome.expect_stderr("--username azureuser is left aside: Entra ID signs in as 44444444-");
}

#[test]
fn who_has_no_role_is_told_what_is_needed() {
    let lab = lab_of("cleo@emulator.example", "");
    log_in(&lab);
    let outcome = personal(ssh(&lab)).args(REMOTE).run().expect_code(255);
    outcome
        .expect_stderr("the VM did not take the certificate of cleo@emulator.example")
        .expect_stderr("Virtual Machine User Login");
}

#[test]
fn a_guest_who_is_not_taken_is_told_so() {
    let lab = lab_of("dan_partner.example#EXT#@emulator.example", "");
    // It is not the guest's home.
    let line = "login --no-browser --tenant emulator.example";
    personal(lab.bastide(line)).run().expect_code(0);
    let outcome = personal(ssh(&lab)).args(REMOTE).run().expect_code(255);
    outcome.expect_stderr("dan_partner.example#ext#@emulator.example is a guest in this tenant");
}

#[test]
fn a_machine_without_the_extension_is_explained() {
    let lab = Lab::with(
        "[[virtual_machines]]\nname = \"web-01\"\nprivate_ip = \"10.0.0.4\"\naad_login = false\n\
         ports = { 22 = \"ssh\" }\n",
    );
    let outcome = ssh(&lab).args(REMOTE).run().expect_code(255);
    outcome.expect_stderr("it needs the extension AADSSHLoginForLinux");
}

#[test]
fn a_refusal_of_entra_id_is_no_failure_of_ssh() {
    let lab = lab_of("ada@emulator.example", "");
    log_in(&lab);
    for (outcome, said) in [
        (SignIn::Mfa, "the tenant asks for a second factor"),
        (SignIn::ConditionalAccess, "a conditional access policy of the tenant"),
        (SignIn::Disabled, "the account is disabled"),
    ] {
        lab.emulator().set_outcome("ada@emulator.example", outcome);
        personal(ssh(&lab)).args(REMOTE).run().expect_code(10).expect_stderr(said);
    }
    assert_eq!(lab.transcript().mints(), 0);
}

#[test]
fn a_certificate_that_has_ended_is_asked_for_again_and_explained() {
    let lab = Lab::with("[sign_in]\nssh_certificate_lifetime_seconds = 0\n");
    let outcome = ssh(&lab).args(REMOTE).run().expect_code(255);
    outcome.expect_stderr("the certificate has ended already: the clock of this machine is fast");
    // Once before OpenSSH starts, and once when it asks.
    assert_eq!(lab.transcript().issued("ssh_certificate"), 2);
}

#[test]
fn a_certificate_of_the_future_is_explained() {
    let lab = Lab::with("[sign_in]\nssh_certificate_clock_ahead_seconds = 600\n");
    let outcome = ssh(&lab).args(REMOTE).run().expect_code(255);
    outcome.expect_stderr("s from now: the clock of this machine is slow");
}

#[test]
fn a_certificate_in_files_signs_in_with_plain_openssh() {
    let lab = lab_of("ada@emulator.example", "");
    log_in(&lab);
    let folder = lab.home().join("entra");
    let outcome = personal(lab.bastide("ssh-cert -o json --write")).arg(&folder).run().expect_code(0);
    let event: serde_json::Value = serde_json::from_str(&outcome.text()).unwrap();
    assert_eq!((&event["event"], &event["user"]), (&"certificate".into(), &"ada@emulator.example".into()));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in ["id_rsa", "id_rsa.pub", "id_rsa-cert.pub"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
    let shown = lab.program("ssh-keygen").arg("-Lf").arg(folder.join("id_rsa-cert.pub")).run();
    let shown = shown.expect_code(0).text();
    for part in ["ssh-rsa-cert-v01@openssh.com user certificate", "ada@emulator.example", "permit-pty"] {
        assert!(shown.contains(part), "'{part}' is missing: {shown}");
    }
    // Key and public part belong together.
    let public = lab.program("ssh-keygen").arg("-yf").arg(folder.join("id_rsa")).run().expect_code(0);
    let kept = std::fs::read_to_string(folder.join("id_rsa.pub")).unwrap();
    assert_eq!(public.text().trim().split(' ').nth(1), kept.split(' ').nth(1));

    let proxy = format!(
        "ProxyCommand=bastide proxy -n bastion -g demo --target-resource-id {} --resource-port %p",
        lab.vm("web-01")
    );
    let known_hosts = format!("UserKnownHostsFile={}", lab.home().join("known").display());
    let plain = lab.program("ssh").args(["-F", "none", "-o", &proxy, "-o", &known_hosts]);
    let plain = plain.args(["-o", "StrictHostKeyChecking=accept-new", "-o", "IdentitiesOnly=yes", "-i"]);
    let plain = plain.arg(folder.join("id_rsa")).args(["ada@emulator.example@web-01", "echo in"]);
    assert_eq!(personal(plain).run().expect_code(0).text(), "in\n");

    // Again, over what is there: a new key, and no file besides.
    let before = std::fs::read(folder.join("id_rsa")).unwrap();
    personal(lab.bastide("ssh-cert --write")).arg(&folder).run().expect_code(0);
    assert_ne!(std::fs::read(folder.join("id_rsa")).unwrap(), before);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
}
