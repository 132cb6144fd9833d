//! The sign-in to machines: certificates from Entra ID, and OpenSSH's `ssh` with them at the built-in
//! server, through a tunnel of literal frames being somebody else's business.

use std::process::Stdio;

use bastide_emulator::ssh::{EntraSignIn, SshOptions, SshServer, generate_client_key};
use bastide_emulator::{Emulator, Scenario};
use serde_json::Value;

use super::{ADA, patient, refresh, refused, signed_in};
use crate::client::*;

const LINUX: &str = "https://pas.windows.net/CheckMyAccess/Linux/.default";

/// `req_cnf` and `key_id` of the public key of an OpenSSH file (RFC 4253 section 6.6: type, e, n).
fn confirmation(public: &str) -> (String, String) {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    let blob = STANDARD.decode(public.split_whitespace().nth(1).unwrap()).unwrap();
    let mut rest = blob.as_slice();
    let mut next = || {
        let (length, tail) = rest.split_at(4);
        let (part, tail) = tail.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
        rest = tail;
        part
    };
    let (_, e, n) = (next(), URL_SAFE.encode(next()), URL_SAFE.encode(next()));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{n}{e}").as_bytes());
    let kid: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    (format!(r#"{{"kty": "RSA", "n": "{n}", "e": "{e}", "kid": "{kid}"}}"#), kid)
}

fn keygen(arguments: &[&str]) -> String {
    let output = std::process::Command::new("ssh-keygen")
        .args(arguments)
        .output()
        .expect("apt-get install openssh-client");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A key pair in a folder, and the certificate that Entra ID gives for it beside it.
async fn certified(lab: &Emulator, token: &Value, folder: &std::path::Path) -> String {
    let key = folder.join("id_rsa");
    keygen(&["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", key.to_str().unwrap()]);
    let (req_cnf, key_id) = confirmation(&std::fs::read_to_string(folder.join("id_rsa.pub")).unwrap());
    let fields = [("scope", LINUX), ("token_type", "ssh-cert"), ("req_cnf", &req_cnf), ("key_id", &key_id)];
    let answer = refresh(lab, TENANT, token, &fields).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["token_type"], "ssh-cert");
    let certificate = folder.join("id_rsa-cert.pub");
    let body = answer["access_token"].as_str().unwrap();
    std::fs::write(&certificate, format!("ssh-rsa-cert-v01@openssh.com {body}\n")).unwrap();
    keygen(&["-L", "-f", certificate.to_str().unwrap()])
}

#[tokio::test]
async fn a_certificate_as_openssh_reads_it() {
    let lab = lab(patient()).await;
    let token = signed_in(&lab, ADA).await;
    let folder = tempfile::tempdir().unwrap();
    let said = certified(&lab, &token, folder.path()).await;
    assert!(said.contains("ssh-rsa-cert-v01@openssh.com user certificate"), "{said}");
    let principals = said.split_once("Principals:").unwrap().1;
    assert_eq!(principals.split_whitespace().next(), Some(ADA), "{said}");
    assert!(said.contains("permit-pty") && said.contains("Critical Options: (none)"), "{said}");
    let authority = keygen(&["-l", "-f", lab.state().join("ca.pub").to_str().unwrap()]);
    let fingerprint = authority.split_whitespace().nth(1).unwrap();
    assert!(said.contains(fingerprint), "{said} is not signed by {authority}");
    assert_eq!(lab.transcript().issued("ssh_certificate"), 1);

    let (req_cnf, key_id) = confirmation(&std::fs::read_to_string(folder.path().join("id_rsa.pub")).unwrap());
    let ask = async |scope: &str, key_id: &str| {
        let fields =
            [("scope", scope), ("token_type", "ssh-cert"), ("req_cnf", &req_cnf), ("key_id", key_id)];
        refresh(&lab, TENANT, &token, &fields).await
    };
    refused(&ask(LINUX, "other").await, "invalid_request", 90023);
    refused(&ask("https://management.azure.com/.default", &key_id).await, "invalid_resource", 500_011);

    // A service principal may have one too.
    let secret = lab.env().into_iter().find(|(name, _)| name == "AZURE_CLIENT_SECRET").unwrap().1;
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("client_secret", &secret),
        ("scope", LINUX),
        ("token_type", "ssh-cert"),
        ("req_cnf", &req_cnf),
        ("key_id", &key_id),
    ];
    assert_eq!(ask_token(&lab, TENANT, &fields).await.json()["token_type"], "ssh-cert");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_server_asks_for_role_user_and_a_good_signature() {
    let lab = lab(patient()).await;
    let token = signed_in(&lab, ADA).await;
    let folder = tempfile::tempdir().unwrap();
    certified(&lab, &token, folder.path()).await;
    generate_client_key(folder.path().join("unused")).unwrap();
    let authority = std::fs::read_to_string(lab.state().join("ca.pub")).unwrap();
    let sign_in = async |user: &str, users: Option<&[&str]>, more: &str| {
        let server = SshServer::new(SshOptions {
            home: folder.path().into(),
            username: "azureuser".into(),
            password: "secret".into(),
            host_key: folder.path().join("host_key"),
            hostname: "vm".into(),
            entra: users.map(|users| EntraSignIn {
                authority: authority.clone(),
                users: users.iter().map(|user| (*user).to_owned()).collect(),
            }),
        })
        .unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            server.serve(stream).await;
        };
        let mut command = tokio::process::Command::new("ssh");
        command.args([
            "-F",
            "/dev/null",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
            "-o",
            "BatchMode=yes",
        ]);
        command.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
        ]);
        command.arg("-p").arg(port.to_string()).arg("-i").arg(folder.path().join("id_rsa"));
        command
            .args(["-o", more, "-l", user, "127.0.0.1", "echo $USER"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let (output, ()) = tokio::join!(command.output(), served);
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let any = "PubkeyAcceptedAlgorithms=+ssh-rsa-cert-v01@openssh.com";
    assert_eq!(sign_in(ADA, Some(&["Ada@emulator.example"]), any).await, "ada@emulator.example\n");
    assert_eq!(sign_in(ADA, Some(&[]), any).await, "");
    assert_eq!(sign_in("azureuser", Some(&[ADA, "azureuser"]), any).await, "");
    assert_eq!(sign_in(ADA, None, any).await, "");
    // A certificate alone is no better with a signature of SHA-1.
    let weak = "PubkeyAcceptedAlgorithms=ssh-rsa-cert-v01@openssh.com,ssh-rsa";
    assert_eq!(sign_in(ADA, Some(&[ADA]), weak).await, "");

    // One that has expired already.
    let mut scenario = patient();
    scenario.sign_in.ssh_certificate_lifetime_seconds = 0;
    let lab: Lab = crate::client::lab(scenario).await;
    let token = signed_in(&lab, ADA).await;
    let old = tempfile::tempdir().unwrap();
    let said = certified(&lab, &token, old.path()).await;
    assert!(said.contains("Valid: from"), "{said}");
    assert_eq!(Scenario::default().sign_in.ssh_certificate_lifetime_seconds, 3600);
}
