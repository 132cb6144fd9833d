//! `bastide ssh --auth-type plugin:vault` to a real `sshd`, with keys that exist only in the emulated Key Vault: each
//! kind of key, secrets, shared connections, and each answer of a vault that is none. It leaves out plugins as such
//! (`plugins`).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use bastide_emulator::faults::{Body, Fault};
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Outcome, Program, Sshd, Tinyproxy};

/// A VM with a real server, and vaults. The service principal may use `vault`, which goes by roles.
struct Site {
    lab: Lab,
    sshd: Sshd,
}

/// Says what the server has accepted (`ExposeAuthInfo` of sshd_config(5)).
const HOW: &str = "cat \"$SSH_USER_AUTH\"";

/// A command that says when the session is there, and lasts as long as its input.
const HOLD: &str = "echo ready; cat";

impl Site {
    /// `keys` and `secrets` of the vault `vault` in the words of a scenario, and further sections.
    fn new(keys: &str, secrets: &str, more: &str) -> Self {
        let sshd = Sshd::start_with("ExposeAuthInfo yes");
        let vault = "/subscriptions/22222222-2222-4222-8222-222222222222/resourceGroups/demo/providers/\
                     Microsoft.KeyVault/vaults/vault";
        let lab = Lab::with(&format!(
            "[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\n\
             object_id = \"55555555-5555-4555-8555-555555555555\"\ntenant = \"emulator.example\"\n\
             roles = [{{ scope = \"/\" }}, {{ scope = \"{vault}\", actions = [], data_actions = [\
             \"Microsoft.KeyVault/vaults/keys/read\", \"Microsoft.KeyVault/vaults/keys/sign/action\", \
             \"Microsoft.KeyVault/vaults/secrets/getSecret/action\", \
             \"Microsoft.KeyVault/vaults/secrets/readMetadata/action\"] }}]\n\
             [[virtual_machines]]\nname = \"box\"\nprivate_ip = \"10.0.0.4\"\n\
             ports = {{ 22 = \"127.0.0.1:{}\" }}\n\
             [[key_vaults]]\nname = \"vault\"\nkeys = [{keys}]\nsecrets = [{secrets}]\n{more}",
            sshd.port()
        ));
        Self { lab, sshd }
    }

    /// The line of `authorized_keys` for a key that the emulator has made.
    fn public_line(&self, name: &str) -> String {
        let prefix = format!("key-vault.vault.{name}.");
        let mut files =
            std::fs::read_dir(self.lab.emulator().state()).unwrap().map(|entry| entry.unwrap().path());
        let file =
            files.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix)).unwrap();
        self.lab.program("ssh-keygen").args(["-y", "-f"]).arg(file).run().expect_code(0).text()
    }

    /// A configuration with the plugin; `config` is what it is told.
    fn configure(&self, config: &str) -> PathBuf {
        let path = bastide_tests::plugin("bastide_keyvault");
        let text = format!("[plugins.vault]\npath = \"{}\"\nconfig = {{ {config} }}\n", path.display());
        self.lab.file("config.toml", text)
    }

    /// The address of a vault, and what its tokens are for: no cloud's vaults are below `localhost`.
    fn vault(&self, name: &str) -> String {
        let port = self.lab.emulator().port();
        format!("vault = \"https://{name}.vault.localhost:{port}\", resource = \"https://vault.azure.net\"")
    }

    /// With what the plugin is told besides the vault `vault` and the user.
    fn ssh(&self, item: &str) -> Program {
        self.ssh_with(&format!("{}, user = \"{}\", {item}", self.vault("vault"), self.sshd.user()))
    }

    fn ssh_with(&self, config: &str) -> Program {
        let config = self.configure(config);
        let line = "ssh -n bastion -g demo --auth-type plugin:vault --target-resource-id";
        self.lab.bastide(line).arg(self.lab.vm("box")).arg("--config").arg(config)
    }

    fn signatures(&self) -> usize {
        let transcript = self.lab.transcript();
        let signed = |request: &&bastide_emulator::transcript::Request| {
            request.kind == Kind::KeyVault && request.path.ends_with("/sign") && request.status == 200
        };
        transcript.requests.iter().filter(signed).count()
    }
}

#[test]
fn keys_that_never_leave_the_vault_sign_in() {
    let kinds = [
        ("rsa", "RSA-2048", "ssh-rsa"),
        ("p256", "P-256", "ecdsa-sha2-nistp256"),
        ("p384", "P-384", "ecdsa-sha2-nistp384"),
        ("p521", "P-521", "ecdsa-sha2-nistp521"),
    ];
    let keys = kinds.map(|(name, kind, _)| format!("{{ name = \"{name}\", kind = \"{kind}\" }}"));
    let site = Site::new(&keys.join(", "), "", "");
    for (count, (name, _, algorithm)) in kinds.iter().enumerate() {
        let line = site.public_line(name);
        site.sshd.authorize(&line);
        let outcome =
            site.ssh(&format!("key = \"{name}\"")).args(["--", "-F", "none", HOW]).run().expect_code(0);
        // The server names the key that it has taken.
        let blob = line.split_whitespace().nth(1).unwrap();
        assert_eq!(outcome.text().trim(), format!("publickey {algorithm} {blob}"));
        assert_eq!(site.signatures(), count + 1, "one signature a session");
    }
}

#[test]
fn the_public_half_is_shown_and_a_vm_that_lacks_it_is_named() {
    let site = Site::new("{ name = \"p256\", kind = \"P-256\" }", "", "");
    let line = site.public_line("p256");
    let outcome =
        site.ssh("key = \"p256\"").args(["-v", "--", "-F", "none", "-o", "BatchMode=yes", "true"]).run();
    let outcome =
        outcome.expect_code(255).expect_stderr("the VM did not take the key that plugin 'vault' offers");
    outcome.expect_stderr(line.split_whitespace().nth(1).unwrap());
    assert_eq!(site.signatures(), 0);
}

#[test]
fn an_old_version_signs_after_the_key_was_rotated() {
    let old = "00000000000000000000000000000001";
    let keys = format!(
        "{{ name = \"ssh\", kind = \"P-256\", version = \"{old}\" }}, {{ name = \"ssh\", kind = \"P-384\", \
         version = \"00000000000000000000000000000002\" }}"
    );
    let site = Site::new(&keys, "", "");
    site.sshd.authorize(&site.public_line(&format!("ssh.{old}")));
    let item = format!("key = \"ssh/{old}\"");
    let outcome = site.ssh(&item).args(["--", "-F", "none", HOW]).run().expect_code(0);
    assert!(outcome.text().starts_with("publickey ecdsa-sha2-nistp256 "), "{outcome}");
}

#[test]
fn private_keys_that_are_kept_as_secrets_sign_in() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [
        ("ed25519", "-t ed25519", "ssh-ed25519"),
        ("rsa", "-t rsa -b 2048", "ssh-rsa"),
        ("pem", "-t rsa -b 2048 -m PEM", "ssh-rsa"),
        ("ecdsa", "-t ecdsa -b 521 -m PKCS8", "ecdsa-sha2-nistp521"),
    ];
    let mut secrets = Vec::new();
    for (name, options, _) in kinds {
        let file = folder.path().join(name);
        let keygen = Program::new("ssh-keygen").args(["-q", "-N", "", "-C", ""]).words(options);
        keygen.arg("-f").arg(&file).run().expect_code(0);
        let value = std::fs::read_to_string(&file).unwrap();
        secrets.push(format!("{{ name = \"{name}\", value = '''{value}''' }}"));
    }
    let site = Site::new("", &secrets.join(", "), "");
    for (name, _, algorithm) in kinds {
        let line = std::fs::read_to_string(folder.path().join(format!("{name}.pub"))).unwrap();
        site.sshd.authorize(line.trim());
        let item = format!("secret = \"{name}\"");
        let outcome = site.ssh(&item).args(["--", "-F", "none", HOW]).run().expect_code(0);
        let blob = line.split_whitespace().nth(1).unwrap();
        assert_eq!(outcome.text().trim(), format!("publickey {algorithm} {blob}"));
    }
    assert_eq!(site.signatures(), 0);
}

#[test]
fn files_are_copied_over_a_shared_connection() {
    let site = Site::new("{ name = \"p256\", kind = \"P-256\" }", "", "");
    site.sshd.authorize(&site.public_line("p256"));
    let lab = &site.lab;
    let master = lab.home().join("master").display().to_string();
    let mut session =
        site.ssh("key = \"p256\"").args(["--", "-F", "none", "-M", "-S", &master, HOLD]).start();
    let (stdin, stdout) = session.pipes();
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let file = lab.file("one", "signed by a vault");
    let control = format!("ControlPath={master}");
    let two = lab.home().join("two");
    // Should the master not be there, there is no other way either.
    let scp = lab.program("scp").args(["-q", "-F", "none", "-o", &control, "-o", "ProxyCommand=false"]);
    scp.arg(&file).arg(format!("anything:{}", two.display())).run().expect_code(0);
    assert_eq!(std::fs::read(two).unwrap(), b"signed by a vault");
    drop((stdin, stdout));
    session.finish().expect_code(0);
    assert_eq!(site.signatures(), 1);
}

#[test]
fn a_connection_that_outlives_the_command_needs_no_plugin_any_more() {
    let site = Site::new("{ name = \"rsa\", kind = \"RSA-3072\" }", "", "");
    site.sshd.authorize(&site.public_line("rsa"));
    let config = site.lab.file(
        "ssh_config",
        format!(
            "Host *\n  ControlMaster auto\n  ControlPersist 60\n  ControlPath {}/master-%C\n",
            site.lab.home().display()
        ),
    );
    // The connection is carried by a `bastide proxy`.
    let ssh = |words: &[&str]| site.ssh("key = \"rsa\"").args(["--", "-F"]).arg(&config).args(words).run();
    for word in ["one", "two"] {
        assert_eq!(ssh(&[&format!("echo {word}")]).expect_code(0).text(), format!("{word}\n"));
    }
    assert_eq!(site.signatures(), 1);
    ssh(&["-O", "exit"]).expect_code(0);
    site.lab.wait_for_releases();
}

/// Keys and secrets that cannot be used, and vaults that let nobody in.
fn sick_site() -> Site {
    Site::new(
        "{ name = \"good\", kind = \"P-256\" }, { name = \"off\", kind = \"P-256\", enabled = false }, \
         { name = \"old\", kind = \"P-256\", expires = 1700000000 }, \
         { name = \"young\", kind = \"P-256\", not_before = 4000000000 }, \
         { name = \"verify\", kind = \"P-256\", operations = [\"verify\"] }, \
         { name = \"gone\", kind = \"P-256\", deleted = true }, { name = \"koblitz\", kind = \"P-256K\" }, \
         { name = \"symmetric\", kind = \"oct\" }",
        "{ name = \"words\", value = \"hunter2\" }, { name = \"off\", value = \"hunter2\", enabled = false }, \
         { name = \"gone\", value = \"hunter2\", deleted = true }",
        "[[key_vaults]]\nname = \"foreign\"\nkeys = [{ name = \"good\", kind = \"P-256\" }]\n\
         secrets = [{ name = \"words\", value = \"hunter2\" }]\n\
         [[key_vaults]]\nname = \"walled\"\nfirewall = \"closed\"\n\
         [[key_vaults]]\nname = \"policies\"\naccess_policies = [{ object_id = \
         \"55555555-5555-4555-8555-555555555555\", keys = [\"get\"] }]\n\
         keys = [{ name = \"good\", kind = \"P-256\" }]\nsecrets = [{ name = \"words\", value = \"hunter2\" }]\n",
    )
}

#[track_caller]
fn refused(outcome: Outcome, code: i32, message: &str, hint: &str) {
    let outcome = outcome.expect_code(code).expect_stderr(message).expect_stderr(hint);
    assert!(!outcome.stderr.contains("hunter2"), "{outcome}");
}

#[test]
fn what_cannot_be_used_is_named_with_its_cure() {
    let site = sick_site();
    #[track_caller]
    fn check(site: &Site, item: &str, code: i32, message: &str, hint: &str) {
        let outcome = site.ssh(item).args(["--", "-F", "none", "true"]).run();
        refused(outcome, code, &format!("plugin 'vault': {message}"), hint);
    }
    let none = "vault.vault.localhost has no key 'nope'";
    check(&site, "key = \"nope\"", 13, none, "az keyvault key list --vault-name vault");
    let gone = "the key 'gone' of vault.vault.localhost was deleted, and will be gone for good on 20";
    check(&site, "key = \"gone\"", 13, gone, "az keyvault key recover --vault-name vault --name gone");
    let gone = "the secret 'gone' of vault.vault.localhost was deleted, and will be gone for good on 20";
    check(&site, "secret = \"gone\"", 13, gone, "az keyvault secret recover --vault-name vault --name gone");
    let version = "00000000000000000000000000000009";
    let unknown = format!("the key 'good' of vault.vault.localhost has no version '{version}'");
    check(&site, &format!("key = \"good/{version}\""), 13, &unknown, "az keyvault key list-versions");
    for (item, said, hint) in [
        ("key = \"off\"", "the key 'off' of vault.vault.localhost is disabled", "--enabled true"),
        ("secret = \"off\"", "the secret 'off' of vault.vault.localhost is disabled", "--enabled true"),
        ("key = \"old\"", "the key 'old' of vault.vault.localhost has expired on 2023-11-14", "--expires"),
        ("key = \"young\"", "is not valid yet before 2096-10-02", "--not-before"),
        (
            "key = \"verify\"",
            "the key 'verify' of vault.vault.localhost is not meant for signing",
            "--ops sign",
        ),
        ("key = \"koblitz\"", "is on the curve P-256K, which SSH does not know", "--kty EC --curve P-256"),
        ("key = \"symmetric\"", "is symmetric, which SSH does not know", "--kty EC --curve P-256"),
    ] {
        let outcome = site.ssh(item).args(["--", "-F", "none", "true"]).run();
        refused(outcome, 10, said, hint);
    }
    let words = "the secret 'words' of vault.vault.localhost holds no private key";
    check(
        &site,
        "secret = \"words\"",
        13,
        words,
        "az keyvault secret set --vault-name vault --name words --file",
    );
    check(&site, "key = \"a b\"", 2, "`key` is 'a b', which is neither NAME nor NAME/VERSION", "letters");
}

#[test]
fn a_vault_that_lets_nobody_in_is_named_with_its_cure() {
    let site = sick_site();
    let run = |config: &str| site.ssh_with(config).args(["--", "-F", "none", "true"]).run();
    let of = |vault: &str, item: &str| format!("{}, {item}", site.vault(vault));
    refused(
        run(&of("foreign", "key = \"good\"")),
        11,
        "you may not use the key 'good' of foreign.vault.localhost: `Microsoft.KeyVault/vaults/keys/read` is not allowed",
        "az role assignment create --role \"Key Vault Crypto User\" --assignee 55555555-5555-4555-8555-555555555555 \
         --scope /subscriptions/22222222-2222-4222-8222-222222222222/resourcegroups/demo/providers/microsoft.keyvault/vaults/foreign/keys/good",
    );
    refused(
        run(&of("foreign", "secret = \"words\"")),
        11,
        "`Microsoft.KeyVault/vaults/secrets/getSecret/action` is not allowed",
        "\"Key Vault Secrets User\"",
    );
    refused(
        run(&of("policies", "secret = \"words\"")),
        11,
        "you may not use the secret 'words' of policies.vault.localhost: the permission `secrets get` is missing",
        "az keyvault set-policy --name policies --object-id 55555555-5555-4555-8555-555555555555 --secret-permissions get",
    );
    refused(
        run(&of("walled", "key = \"good\"")),
        20,
        "the firewall of walled.vault.localhost is closed for 127.0.0.1",
        "az keyvault network-rule add --name walled --ip-address 127.0.0.1",
    );
    let port = site.lab.emulator().port();
    refused(
        run(&format!("vault = \"https://vault.vault.localhost:{port}\", key = \"good\"")),
        2,
        "'vault.vault.localhost' is not the host of a vault in a cloud that is known",
        "resource = ",
    );
    // A token for something else; nothing listens on port 9 (discard) of loopback.
    refused(
        run(&format!(
            "vault = \"https://vault.vault.localhost:{port}\", resource = \"https://management.azure.com\", key = \"good\""
        )),
        10,
        "vault.vault.localhost does not accept the sign-in and says 'AKV10022: Invalid audience",
        "bastide login --tenant 11111111-1111-4111-8111-111111111111",
    );
    refused(
        run(
            "vault = \"https://vault.vault.localhost:9\", resource = \"https://vault.azure.net\", key = \"good\"",
        ),
        20,
        "vault.vault.localhost:9",
        "hint: ",
    );
}

#[test]
fn a_right_that_is_missing_for_the_signature_alone_is_told() {
    let site = sick_site();
    let config = format!("{}, user = \"{}\", key = \"good\"", site.vault("policies"), site.sshd.user());
    let prefix = "key-vault.policies.good.";
    let mut files =
        std::fs::read_dir(site.lab.emulator().state()).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix)).unwrap();
    let line = site.lab.program("ssh-keygen").args(["-y", "-f"]).arg(file).run().expect_code(0).text();
    site.sshd.authorize(line.trim());
    let outcome = site.ssh_with(&config).args(["--", "-F", "none", "-o", "BatchMode=yes", "true"]).run();
    let outcome = outcome.expect_code(255).expect_stderr("the permission `keys sign` is missing");
    outcome.expect_stderr("--key-permissions get sign");
}

#[test]
fn a_throttled_vault_is_asked_again() {
    let site = Site::new("{ name = \"p256\", kind = \"P-256\" }", "", "");
    site.sshd.authorize(&site.public_line("p256"));
    let throttled = |retry_after: &str| Fault::Status {
        on: Kind::KeyVault.into(),
        status: 429,
        body: Body::Json,
        message: "Request was not processed because too many requests were received.".into(),
        retry_after: Some(retry_after.into()),
    };
    let ssh = || site.ssh("key = \"p256\"").args(["--", "-F", "none", HOW]).run();
    site.lab.emulator().set_faults([throttled("0").times(2)]);
    ssh().expect_code(0);
    assert_eq!(site.lab.transcript().count_status(Kind::KeyVault, 429), 2);
    site.lab.emulator().set_faults([throttled("600")]);
    let long = "vault.vault.localhost is throttled and wants no request for 600 s, which is longer than there is time";
    refused(ssh(), 21, long, "try again in a minute");
    site.lab.emulator().set_faults([throttled("0")]);
    refused(ssh(), 21, "vault.vault.localhost is throttled: it was asked four times", "try again");
    // A vault that hangs up.
    site.lab.emulator().set_faults([Fault::Reset { on: Kind::KeyVault.into() }]);
    refused(ssh(), 20, "plugin 'vault': ", "hint: ");
}

#[test]
fn a_vault_is_asked_through_the_users_proxy() {
    let site = Site::new("{ name = \"p256\", kind = \"P-256\" }", "", "");
    site.sshd.authorize(&site.public_line("p256"));
    let ssh = |proxy: &Tinyproxy| {
        let program = site.ssh("key = \"p256\"").env("HTTPS_PROXY", proxy.url());
        program.args(["--", "-F", "none", "true"])
    };
    // Whether the proxy's own resolver knows the name depends on the system.
    let proxy = Tinyproxy::start();
    ssh(&proxy).run();
    assert!(proxy.was_asked_for("vault.vault.localhost"));
    let proxy = Tinyproxy::start();
    ssh(&proxy).env("NO_PROXY", ".vault.localhost").run().expect_code(0);
    assert!(!proxy.was_asked_for("vault.vault.localhost"));
}
