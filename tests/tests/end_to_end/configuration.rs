//! The configuration file: hosts, profiles and defaults in place of flags, and `config show`. Plugins in it have tests of
//! their own (`plugins`).

use bastide_tests::{Lab, Outcome};

/// Puts the file where it is looked for.
fn configure(lab: &Lab, text: &str) {
    let folder = lab.home().join(".config/bastide");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), text).unwrap();
}

fn complete(lab: &Lab) {
    configure(
        lab,
        &format!(
            "profile = 'demo'\n\
             [defaults]\nresource-port = 2022\nretries = 1\n\
             [profiles.demo]\nname = 'bastion'\nresource-group = 'demo'\n\
             [profiles.other]\nname = 'nowhere'\n\
             [hosts.web]\ntarget = '{}'\nusername = 'azureuser'\nssh-key = '{}'\n",
            lab.vm("web-01"),
            lab.key().display()
        ),
    );
}

fn hello(outcome: Outcome) {
    assert_eq!(outcome.expect_code(0).text(), "hello\n");
}

#[test]
fn a_host_of_the_configuration_is_a_target() {
    let lab = Lab::new();
    complete(&lab);
    hello(lab.bastide("ssh web -- echo hello").run());
    hello(lab.bastide("ssh web --resource-port 22 --profile demo -- echo hello").run());
    let ports: Vec<u16> = lab.transcript().sessions.values().map(|session| session.port).collect();
    assert_eq!(ports, [2022, 22]);
    let outcome = lab.bastide("ssh web --profile other -- echo hello").run().expect_code(13);
    assert!(outcome.stderr.contains("nowhere"), "{outcome}");
}

#[test]
fn every_value_says_where_it_stands() {
    let lab = Lab::new();
    complete(&lab);
    let outcome = lab
        .bastide("config show web -o json --credential client-secret")
        .env("BASTIDE_PROFILE", "other")
        .run()
        .expect_code(0);
    let found = |flag: &str| {
        let rows = outcome.events();
        let row =
            rows.iter().find(|row| row["flag"] == flag).unwrap_or_else(|| panic!("no {flag}: {outcome}"));
        (row["value"].as_str().unwrap().to_owned(), row["source"].as_str().unwrap().to_owned())
    };
    let check = |flag: &str, value: &str, source: &str| {
        assert_eq!(found(flag), (value.to_owned(), source.to_owned()));
    };
    check("target", &lab.vm("web-01"), "[hosts.web]");
    check("username", "azureuser", "[hosts.web]");
    check("name", "nowhere", "[profiles.other]");
    check("retries", "1", "[defaults]");
    check("keepalive", "ping", "built in");
    check("credential", "client-secret", "--credential");
    check("cloud", &lab.env("BASTIDE_CLOUD"), "BASTIDE_CLOUD");
    check("tenant", &lab.env("AZURE_TENANT_ID"), "AZURE_TENANT_ID");
    let text = lab.bastide("config show").run().expect_code(0);
    assert!(text.stderr.contains("config.toml"), "{text}");
    assert!(
        text.text().lines().any(|line| line.starts_with("retries ") && line.ends_with("  [defaults]")),
        "{text}"
    );
}

#[test]
fn mistakes_in_the_file_are_named_whatever_is_asked() {
    let lab = Lab::new();
    configure(&lab, "[defaults]\nretires = 1\n");
    let outcome = lab.bastide("tunnel {vm} -n bastion -g demo --resource-port 22").run().expect_code(2);
    assert!(outcome.stderr.contains("[defaults] may not hold 'retires'"), "{outcome}");
    assert!(outcome.stderr.contains("hint: is 'retries' meant?"), "{outcome}");
    configure(&lab, "[defaults]\n");
    let outcome = lab.bastide("tunnel {vm} -n bastion -g demo").run().expect_code(2);
    assert!(outcome.stderr.contains("--resource-port"), "{outcome}");
    assert_eq!(lab.transcript().mints(), 0);
}
