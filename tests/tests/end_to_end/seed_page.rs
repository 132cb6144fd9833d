//! Every command of the seed page, word for word after `az network bastion` has become `bastide`, for each kind of
//! target that it names. The placeholders in angle brackets are filled in as a reader would.

use std::path::Path;

use bastide_tests::{Lab, Outcome, Program};

/// Splits a line as a shell does, as far as the page needs it, and fills in its placeholders.
pub(crate) fn page(lab: &Lab, line: &str, places: &[(&str, &str)]) -> Program {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 1 {
            let mut word = part.to_owned();
            for (place, value) in places {
                word = word.replace(place, value);
            }
            words.push(word);
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    assert_eq!(words.remove(0), "bastide");
    assert!(!words.iter().any(|word| word.contains('<')), "a placeholder is left: {words:?}");
    lab.bastide("").args(words)
}

/// What the page calls a VM resource id may be that of a scale-set instance.
pub(crate) fn targets(lab: &Lab) -> [String; 2] {
    [lab.vm("web-01"), lab.instance("workers", 1)]
}

fn says_hello(outcome: Outcome) {
    let outcome = outcome.expect_code(0);
    assert!(outcome.text().contains("hello"), "{outcome}");
}

#[test]
fn ssh_with_a_key_pair() {
    let lab = Lab::new();
    let key = lab.key().display().to_string();
    let line = r#"bastide ssh --name "<BastionName>" --resource-group "<ResourceGroupName>" --target-resource-id "<VMResourceId>" --auth-type "ssh-key" --username "<Username>" --ssh-key "<Filepath>""#;
    for target in targets(&lab) {
        let places = [
            ("<BastionName>", "bastion"),
            ("<ResourceGroupName>", "demo"),
            ("<VMResourceId>", &target),
            ("<Username>", "azureuser"),
            ("<Filepath>", key.as_str()),
        ];
        says_hello(page(&lab, line, &places).input("echo hello\nexit\n").run());
    }
    assert_eq!(lab.transcript().mints(), 2);
}

#[test]
fn ssh_to_an_address_with_the_page_s_abbreviation() {
    let lab = Lab::new();
    let key = lab.key().display().to_string();
    let line = r#"bastide ssh --name "<BastionName>" --resource-group "<ResourceGroupName>" --target-ip-addres "<VMIPAddress>" --auth-type "ssh-key" --username "<Username>" --ssh-key "<Filepath>""#;
    let places = [
        ("<BastionName>", "bastion"),
        ("<ResourceGroupName>", "demo"),
        ("<VMIPAddress>", "10.0.0.4"),
        ("<Username>", "azureuser"),
        ("<Filepath>", key.as_str()),
    ];
    says_hello(page(&lab, line, &places).input("echo hello\nexit\n").run());
}

#[test]
fn ssh_with_a_password() {
    let lab = Lab::new();
    let line = r#"bastide ssh --name "<BastionName>" --resource-group "<ResourceGroupName>" --target-resource-id "<VMResourceId or VMSSInstanceResourceId>" --auth-type "password" --username "<Username>""#;
    // OpenSSH asks; without a terminal it asks this program (ssh(1), SSH_ASKPASS).
    let askpass = lab.file("askpass", "#!/bin/sh\nprintf '%s\\n' \"$BASTIDE_EMULATOR_VM_PASSWORD\"\n");
    make_executable(&askpass);
    for target in targets(&lab) {
        let places = [
            ("<BastionName>", "bastion"),
            ("<ResourceGroupName>", "demo"),
            ("<VMResourceId or VMSSInstanceResourceId>", &target),
            ("<Username>", "azureuser"),
        ];
        let program = page(&lab, line, &places)
            .env("SSH_ASKPASS", &askpass)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .input("echo hello\nexit\n");
        says_hello(program.run());
    }
}

#[test]
fn ssh_with_entra_id() {
    let lab = Lab::new();
    let line = r#"bastide ssh --name "<BastionName>" --resource-group "<ResourceGroupName>" --target-resource-id "<VMResourceId or VMSSInstanceResourceId>" --auth-type "AAD""#;
    for target in targets(&lab) {
        let places = [
            ("<BastionName>", "bastion"),
            ("<ResourceGroupName>", "demo"),
            ("<VMResourceId or VMSSInstanceResourceId>", target.as_str()),
        ];
        says_hello(page(&lab, line, &places).input("echo hello\nexit\n").run());
    }
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}
