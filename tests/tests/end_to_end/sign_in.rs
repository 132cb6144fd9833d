//! Signing in to Azure without a person: secret, certificate, federated tokens, managed identities, any program; the
//! order of `auto` and what it says of itself; and everything that can be wrong with each. It leaves out people
//! (`device_code`) and the Azure CLI (`identity`).

use std::io::Read as _;

use bastide_emulator::Surroundings;
use bastide_emulator::faults::{Body, Fault, Requests};
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Program, Tunnel};
use rustix::process::Signal;
use serde_json::Value;

use crate::identity::{bare, connects, lab};
use crate::refusals::check;

const APPLICATION: &str = "44444444-4444-4444-8444-444444444444";
const MACHINE: &str = "77777777-7777-4777-8777-777777777777";
const DEPLOYMENT: &str = "88888888-8888-4888-8888-888888888888";
const TENANT: &str = "11111111-1111-4111-8111-111111111111";
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

pub(crate) const CONNECT: &str = "proxy -n bastion -g demo --target-resource-id {vm} --resource-port 20";

/// What `account` says.
#[track_caller]
pub(crate) fn account(program: Program) -> Value {
    let outcome = program.words("-o json").run().expect_code(0);
    let event: Value = serde_json::from_str(outcome.text().trim()).unwrap();
    assert_eq!(event["event"], "account", "{event}");
    event
}

/// The command in a place that has its own way to sign in, and no other.
fn at(lab: &Lab, place: Surroundings, line: &str) -> Program {
    let variables = lab.emulator().surroundings(place);
    variables.iter().fold(nowhere(lab, line), |program, (name, value)| program.env(name, value))
}

/// The command where there is no way to sign in.
fn nowhere(lab: &Lab, line: &str) -> Program {
    bare(lab.bastide(line)).env("PATH", "/usr/bin:/bin")
}

/// The command on a virtual machine.
fn on_machine(lab: &Lab, line: &str) -> Program {
    nowhere(lab, line).env("BASTIDE_IMDS_ENDPOINT", lab.emulator().identity_url())
}

/// A program that gets a token of the machine's identity, and prints what it was answered.
pub(crate) fn token_program(lab: &Lab) -> String {
    format!(
        "curl --silent --fail --noproxy '*' -H Metadata:true --get --data-urlencode api-version=2018-02-01 \
         --data-urlencode \"resource=${{BASTIDE_EXEC_SCOPE%/.default}}\" {}/metadata/identity/oauth2/token",
        lab.emulator().identity_url()
    )
}

#[test]
fn each_way_is_found_by_its_name_and_by_itself() {
    let lab = lab();
    for (place, credential, who) in [
        (Surroundings::ClientCertificate, "client-certificate", APPLICATION),
        (Surroundings::Kubernetes, "workload-identity", APPLICATION),
        (Surroundings::GithubActions, "workload-identity", APPLICATION),
        (Surroundings::AzurePipelines, "workload-identity", APPLICATION),
        (Surroundings::AppService, "managed-identity", MACHINE),
        (Surroundings::Arc, "managed-identity", MACHINE),
        (Surroundings::CloudShell, "managed-identity", MACHINE),
    ] {
        for named in [format!("--credential {credential}"), String::new()] {
            let event = account(at(&lab, place, &format!("account {named}")));
            assert_eq!(
                (&event["source"], &event["client_id"]),
                (&credential.into(), &who.into()),
                "{place:?}"
            );
            assert_eq!(event["tenant"], TENANT, "{event}");
        }
        connects(at(&lab, place, CONNECT));
    }
    let event = account(lab.bastide("account --credential client-secret"));
    assert_eq!((&event["source"], &event["client_id"]), (&"client-secret".into(), &APPLICATION.into()));
    for grant in ["client_secret", "client_certificate", "federated_token", "github_oidc", "pipelines_oidc"] {
        assert!(lab.transcript().issued(grant) > 0, "{grant}");
    }
}

#[test]
fn identities_of_a_machine() {
    let lab = lab();
    connects(on_machine(&lab, CONNECT));
    connects(on_machine(&lab, CONNECT).words("--credential managed-identity"));
    let resource = "/subscriptions/22222222-2222-4222-8222-222222222222/resourceGroups/demo/providers/\
                    Microsoft.ManagedIdentity/userAssignedIdentities/deployment";
    for (chosen, who) in [
        ("", MACHINE),
        ("--client-id 88888888-8888-4888-8888-888888888888", DEPLOYMENT),
        ("--client-id object:88888888-8888-4888-8888-888888888889", DEPLOYMENT),
        (&format!("--client-id {resource}"), DEPLOYMENT),
    ] {
        let line = format!("account --credential managed-identity {chosen}");
        assert_eq!(account(on_machine(&lab, &line))["client_id"], who, "{chosen}");
    }
    // As the Azure SDKs have it.
    let line = "account --credential managed-identity";
    let chosen = on_machine(&lab, line).env("AZURE_CLIENT_ID", DEPLOYMENT);
    assert_eq!(account(chosen)["client_id"], DEPLOYMENT);
    let app = at(&lab, Surroundings::AppService, &format!("{line} --client-id {DEPLOYMENT}"));
    assert_eq!(account(app)["client_id"], DEPLOYMENT);
}

#[test]
fn the_metadata_service_is_never_asked_through_a_proxy() {
    let lab = lab();
    // Nobody listens there: what goes through it fails.
    let line = "account --credential managed-identity --proxy http://127.0.0.1:9 --cloud";
    let program = on_machine(&lab, line).arg(lab.emulator().url()).env("NO_PROXY", "localhost");
    assert_eq!(account(program)["client_id"], MACHINE);
}

#[test]
fn a_machine_whose_identity_service_is_busy_or_ill() {
    let lab = lab();
    let status = |status, retry_after: Option<&str>| Fault::Status {
        on: Kind::Identity.into(),
        status,
        body: Body::Json,
        message: "not now".into(),
        retry_after: retry_after.map(str::to_owned),
    };
    let line = "account --credential managed-identity";
    for fault in [status(429, Some("0")), status(500, None), status(503, Some("1"))] {
        lab.emulator().set_faults([fault.clone().times(1)]);
        assert_eq!(account(on_machine(&lab, line))["client_id"], MACHINE, "{fault:?}");
    }
    for fault in [status(429, Some("0")), status(500, None), status(410, None)] {
        lab.emulator().set_faults([fault]);
        check(on_machine(&lab, line), 21, "managed-identity got no token", "try again");
    }
    lab.emulator().set_faults([status(429, Some("3600"))]);
    check(on_machine(&lab, line), 21, "answered 429", "try again in an hour");
    lab.emulator()
        .set_faults([Fault::MissingField { on: Kind::Identity.into(), field: "access_token".into() }]);
    let says = "the instance metadata service answered something else than a token";
    check(on_machine(&lab, line), 10, says, "check that this machine has an identity");
    lab.emulator().set_faults([Fault::Half { on: Kind::Identity.into() }]);
    check(
        on_machine(&lab, line),
        20,
        "managed-identity cannot reach the sign-in service",
        "check the network",
    );
}

#[test]
fn a_machine_without_the_identity() {
    let lab = lab();
    let machine = |line: &str| on_machine(&lab, &format!("account --credential managed-identity {line}"));
    check(
        machine(&format!("--client-id {NOBODY}")),
        10,
        "this machine has no such identity",
        "bastide login",
    );
    let nobody = nowhere(&lab, "account --credential managed-identity");
    check(nobody, 20, "managed-identity cannot reach the sign-in service", "check the network");
    let line = "account --credential managed-identity";
    let app = at(&lab, Surroundings::AppService, line).env("IDENTITY_HEADER", "wrong");
    check(app, 10, "The X-IDENTITY-HEADER is missing or wrong", "");
    let chosen = at(&lab, Surroundings::Arc, line).args(["--client-id", DEPLOYMENT]);
    check(chosen, 10, "knows one identity only", "which one --client-id names");
    let elsewhere = at(&lab, Surroundings::Arc, line).env("BASTIDE_ARC_KEY_FOLDER", lab.home());
    check(elsewhere, 10, "names a key that is not its own", "check that this machine has an identity");
    // Tokens of another tenant can't be had.
    let hub = format!("{CONNECT} --credential managed-identity");
    lab.emulator().demand_claims(Some(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#));
    check(on_machine(&lab, &hub), 10, "cannot give a token with the claims", "sign in with `bastide login`");
}

#[test]
fn applications_that_are_refused() {
    let lab = lab();
    let secret = |name: &str, value: &str| lab.bastide("account").env(name, value);
    check(secret("AZURE_CLIENT_SECRET", "wrong"), 10, "AADSTS7000215", "AZURE_CLIENT_SECRET has to be the");
    check(secret("AZURE_CLIENT_ID", NOBODY), 10, "AADSTS700016", "check AZURE_CLIENT_ID (or --client-id)");
    check(secret("AZURE_TENANT_ID", NOBODY), 10, "AADSTS90002", "check AZURE_TENANT_ID (or --tenant)");
    check(secret("AZURE_TENANT_ID", "a/b"), 10, "client-secret was refused", "");
    check(lab.bastide(&format!("account --tenant {NOBODY}")), 10, "AADSTS90002", "no such tenant");
    let missing = nowhere(&lab, "account --credential client-secret");
    check(missing, 10, "without AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET", "bastide login");

    let certificate = |path: &std::path::Path| {
        at(&lab, Surroundings::ClientCertificate, "account").env("AZURE_CLIENT_CERTIFICATE_PATH", path)
    };
    check(certificate(&lab.file("empty.pem", "")), 10, "client-certificate was refused", "");
    check(certificate(&lab.home().join("absent.pem")), 10, "absent.pem", "");

    let file = |content: &str| {
        let path = lab.file("token", content);
        at(&lab, Surroundings::Kubernetes, "account").env("AZURE_FEDERATED_TOKEN_FILE", path)
    };
    check(file(""), 10, "token is empty", "");
    check(file("no.jwt"), 10, "AADSTS50027", "");
    let absent = at(&lab, Surroundings::Kubernetes, "account")
        .env("AZURE_FEDERATED_TOKEN_FILE", lab.home().join("absent"));
    check(absent, 10, "absent cannot be read", "");
    let github = at(&lab, Surroundings::GithubActions, "account");
    check(github.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "x"), 10, "the request token is missing or wrong", "");
    let pipelines = at(&lab, Surroundings::AzurePipelines, "account");
    let pipelines = pipelines.env("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", NOBODY);
    check(pipelines, 10, "The service connection does not exist", "");
}

#[test]
fn applications_that_trust_somebody_else() {
    let principal = |more: &str| {
        Lab::with(&format!(
            "[[service_principals]]\nclient_id = \"{APPLICATION}\"\nobject_id = \"o\"\ntenant = \"{TENANT}\"\n{more}\n"
        ))
    };
    for (credentials, code) in [
        ("[{ issuer = \"kubernetes\", subject = \"system:serviceaccount:default:other\" }]", "AADSTS700213"),
        ("[]", "AADSTS700211"),
    ] {
        let lab = principal(&format!("federated_credentials = {credentials}"));
        let program = at(&lab, Surroundings::Kubernetes, "account");
        check(program, 10, code, "no federated credential of the application fits the token");
    }
    let lab = principal("certificates = []");
    let program = at(&lab, Surroundings::ClientCertificate, "account");
    check(program, 10, "AADSTS700027", "the certificate is not known to the application: register it");
}

#[test]
fn a_sign_in_service_that_is_busy_or_ill() {
    let lab = lab();
    let status = |status, retry_after: Option<&str>| Fault::Status {
        on: Kind::Token.into(),
        status,
        body: Body::Json,
        message: "not now".into(),
        retry_after: retry_after.map(str::to_owned),
    };
    for fault in [status(429, Some("0")), status(503, None), status(500, None)] {
        lab.emulator().set_faults([fault.times(2)]);
        assert_eq!(account(lab.bastide("account"))["source"], "client-secret");
    }
    lab.emulator().set_faults([status(503, Some("0"))]);
    check(lab.bastide("account"), 21, "client-secret got no token", "https://status.azure.com");
    let page = Fault::Status {
        on: Requests::from(Kind::Token),
        status: 200,
        body: Body::Html,
        message: "Welcome to Hotel WiFi".into(),
        retry_after: None,
    };
    lab.emulator().set_faults([page]);
    check(lab.bastide("account"), 10, "something else than a token", "");
}

#[test]
fn any_program_that_prints_a_token() {
    let lab = lab();
    let exec = |line: &str| nowhere(&lab, &format!("{line} --credential exec --exec-command"));
    connects(exec(CONNECT).arg(token_program(&lab)));
    let variable =
        nowhere(&lab, "account --credential exec").env("BASTIDE_EXEC_CREDENTIAL", token_program(&lab));
    let event = account(variable);
    assert_eq!((&event["source"], &event["client_id"]), (&"exec".into(), &MACHINE.into()));
    let hint = "run the command of --exec-command";
    let strange = "the command printed something else than {\"access_token\", \"expires_on\"}";
    for garbage in ["echo t0ken", "true", "echo '{\"access_token\": \"t0ken\"}'", "head -c 100000 /dev/zero"]
    {
        let outcome = check(exec("account").arg(garbage), 10, strange, hint);
        assert!(!outcome.stderr.contains("t0ken"), "{outcome}");
    }
    let failing = "echo t0ken; echo 'vault is sealed' >&2; exit 3";
    let outcome = check(exec("account").arg(failing), 10, "exit status: 3: vault is sealed", hint);
    assert!(!outcome.stderr.contains("t0ken"), "{outcome}");
    check(exec("account").arg("/no/such/program"), 10, "exit status: 127", hint);
    check(
        nowhere(&lab, "account --credential exec"),
        10,
        "without --exec-command or BASTIDE_EXEC_CREDENTIAL",
        "",
    );
    // One that has ended is refused by ARM, and asked for once more.
    let ended = "echo \"$BASTIDE_EXEC_FRESH\" >> asked; echo '{\"access_token\": \"old\", \"expires_on\": 4102444800}'";
    check(exec(CONNECT).arg(ended), 10, "", "");
    let asked = std::fs::read_to_string(lab.home().join("asked")).unwrap();
    assert!(asked.starts_with("\n1\n"), "{asked:?}");
}

#[test]
fn a_program_that_hangs_is_ended() {
    let lab = lab();
    let line = "account --credential exec --exec-command";
    let hanging = format!("sleep 1000 & echo $! > sleeper; {}; wait", token_program(&lab));
    let mut running = nowhere(&lab, line).arg(hanging).start();
    lab.wait_for(|transcript| transcript.issued("managed_identity") == 1);
    running.signal(Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
    // All that it has started goes with it.
    let id = std::fs::read_to_string(lab.home().join("sleeper")).unwrap();
    while std::path::Path::new("/proc").join(id.trim()).join("exe").exists() {
        std::thread::yield_now();
    }
    // Left alone, it has half a minute.
    let says = "exec gave no answer within 30 s";
    check(nowhere(&lab, line).arg("sleep 1000"), 10, says, "try again");
}

#[test]
fn auto_takes_the_first_and_says_why() {
    let lab = lab();
    let nobody = nowhere(&lab, "account");
    for (place, name) in [(None, "none"), (Some(Surroundings::Kubernetes), "workload-identity")] {
        let program = match place {
            None => on_machine(&lab, "account -v"),
            Some(place) => {
                at(&lab, place, "account -v").env("BASTIDE_IMDS_ENDPOINT", lab.emulator().identity_url())
            }
        };
        let outcome = program.run().expect_code(0);
        let mut said = vec![
            "device-code is passed over: nobody has signed in with `bastide login`",
            "client-secret is passed over: without AZURE_",
            "client-certificate is passed over: without AZURE_",
        ];
        match place {
            None => said.extend([
                "workload-identity is passed over: without AZURE_",
                "azure-cli is passed over: `az` is not in PATH",
                "signed in by managed-identity",
            ]),
            Some(_) => said.push("signed in by workload-identity"),
        }
        let mut rest = outcome.stderr.as_str();
        for line in said {
            let (_, behind) = rest.split_once(line).unwrap_or_else(|| panic!("{name}: '{line}': {outcome}"));
            rest = behind;
        }
    }
    let says = "managed-identity: the instance metadata service does not answer";
    check(nobody, 10, says, "sign in with `bastide login` or `az login`");
    // Who has given a secret does not want to be somebody else.
    let refused = on_machine(&lab, "account")
        .env("AZURE_TENANT_ID", TENANT)
        .env("AZURE_CLIENT_ID", APPLICATION)
        .env("AZURE_CLIENT_SECRET", "wrong");
    check(refused, 10, "client-secret was refused: AADSTS7000215", "AZURE_CLIENT_SECRET");
}

#[test]
fn claims_that_arm_demands() {
    let lab = lab();
    lab.emulator().demand_claims(Some(r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#));
    connects(lab.bastide(CONNECT));
    connects(at(&lab, Surroundings::Kubernetes, CONNECT));
    let exec = nowhere(&lab, CONNECT).args(["--credential", "exec", "--exec-command"]);
    let told = format!("echo \"$BASTIDE_EXEC_CLAIMS\" >> asked; {}", token_program(&lab));
    check(exec.arg(told), 10, "", "");
    let asked = std::fs::read_to_string(lab.home().join("asked")).unwrap();
    assert!(asked.contains(r#""value":"c1""#), "{asked}");
}

#[test]
fn two_hundred_connections_across_an_end_ask_once() {
    let lab = lab();
    let tunnel = Tunnel::start(lab.bastide(
        "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 20 --connect-timeout 120",
    ));
    assert_eq!(lab.transcript().count(Kind::Token), 1);
    lab.emulator().expire_access_tokens();
    let streams: Vec<_> = (0..200).map(|_| tunnel.connect()).collect();
    for mut stream in streams {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5]);
    }
    assert_eq!(lab.transcript().count(Kind::Token), 2);
    tunnel.interrupt();
}
