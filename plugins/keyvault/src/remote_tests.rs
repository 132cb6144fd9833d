//! Public halves against what `ssh-keygen` writes of the same keys, and the request for each algorithm.

use serde_json::{Value, json};

use super::*;
use crate::desk::Desk;
use crate::settings::Sort;

const RSA_KEY: &str = r#"{"kty":"RSA","e":"AQAB","n":"2KVBwYy9cdUz-YIoVKa7UIQXtsZflLy_x5Dj6DsCF_bD-WvnUYbZUOKODBFzWJeo0Xmil3LcZUdHX8vA3-J21dR-EqJOPOAYLgJkD7GVTrL5OM8yYR66RaSmLB3RvPeLwTp1u1DLFZoH5-eZqCqVUeZmPT_Uh2NpFVvSphbfUdnETpiOYuxn8nWy_2qK10Dk6G-10GPuujEfBPqZy47kGUhBnk9vDcHGdxSXKyPK6MiCCFA-gOGFtHVcxkpLaK_TnR4-ntqp3_jIjvBbFZi8hR-JGmOjph8iR2gZRB4O7NfcQBw8DrHppBLK416iiEc-I0pJH0lsJRk9upLMB7tUuw"}"#;
const P256: &str = r#"{"kty":"EC-HSM","crv":"P-256","x":"6gOM-h8bZ5fp40veWRZnAfbN-7eCpKLcjY3bwR-zGdM","y":"N3DTqQij1n5dcEVwDFOwLy9cynKoIMowNuVkyJ1F2js"}"#;
const P384: &str = r#"{"kty":"EC","crv":"P-384","x":"KUVKYruoysOIIi8wtnSZxmkvpZvwWDcrhr44aDxqymJFrElZ8bDVcU5rpO4sNBv3","y":"Al1_9l-vKiaWJuheScu_G1NvxdLSdVabZcq8z29Ut6q4nbx45kzsMz1-UfX_INI1"}"#;
const P521: &str = r#"{"kty":"EC","crv":"P-521","x":"AcpHhbcMZpLLziPojQHml9SCAsN9G7KaOu7jccs6yVMF6na39AdgMl6zdqqvj9oPHflOEw1m3hqdzkk4QX4wm12w","y":"AcQd-DOD-aZ78Z9MXhQ3hGbcnRH3sS7P73fdjrxt-yMnzHgX8rhQEfi-pfRYId_JF9RlGW0_YMK-JqL4VzSlnKle"}"#;
const VERSION: &str = "9885aa558e8d448789683188f8c194b0";

fn item() -> Item {
    Item { sort: Sort::Key, name: "ssh".to_owned(), version: None }
}

fn bundle(key: &str) -> Value {
    let mut key: Value = serde_json::from_str(key).unwrap();
    key["kid"] = format!("https://contoso.vault.azure.net/keys/ssh/{VERSION}").into();
    json!({"key": key, "attributes": {"enabled": true, "created": 1, "recoveryLevel": "Recoverable"}})
}

fn fetch(body: Value) -> Result<RemoteKey, Failure> {
    let desk = Desk::answering([(200, body)]);
    RemoteKey::fetch(&desk, &mut desk.vault(), &item())
}

#[test]
fn public_halves_are_those_of_ssh_keygen() {
    #[track_caller]
    fn check(key: &str, line: &str) {
        let key = fetch(bundle(key)).unwrap().public_key().unwrap();
        assert_eq!(key.to_openssh().unwrap(), line.trim());
    }
    check(RSA_KEY, include_str!("../testdata/openssh-rsa.pub"));
    check(P256, include_str!("../testdata/openssh-p256.pub"));
    check(P384, include_str!("../testdata/openssh-p384.pub"));
    check(P521, include_str!("../testdata/openssh-p521.pub"));
}

#[test]
fn short_coordinates_are_filled_up() {
    // 1 as a number that has lost its zeros.
    let short = r#"{"kty":"EC","crv":"P-521","x":"AQ","y":"AcQd-DOD-aZ78Z9MXhQ3hGbcnRH3sS7P73fdjrxt-yMnzHgX8rhQEfi-pfRYId_JF9RlGW0_YMK-JqL4VzSlnKle"}"#;
    let key = fetch(bundle(short)).unwrap();
    let Form::Curve { point, .. } = &key.form else { panic!("a curve") };
    assert_eq!((point.len(), point[0], point[65], point[66], point[67]), (133, 4, 0, 1, 1));
}

#[test]
fn each_algorithm_of_ssh_has_one_of_the_vault() {
    // SHA-256, SHA-384 and SHA-512 of `what is signed` in base64url, by `openssl dgst -binary | basenc --base64url`.
    #[track_caller]
    fn check(key: &str, algorithm: &str, size: usize, name: &str, digest: &str) {
        let desk = Desk::answering([(200, bundle(key))]);
        let mut vault = desk.vault();
        let remote = RemoteKey::fetch(&desk, &mut vault, &item()).unwrap();
        let signature = vec![7; size];
        let answer = json!({"kid": "x", "value": URL_SAFE_NO_PAD.encode(&signature)});
        desk.before([crate::desk::answer(200, &answer)]);
        assert_eq!(remote.sign(&desk, &mut vault, &item(), algorithm, b"what is signed").unwrap(), signature);
        let url = format!("https://contoso.vault.azure.net/keys/ssh/{VERSION}/sign?api-version=7.4");
        assert_eq!(desk.requests().last().unwrap(), &format!("POST {url} Bearer token-2"));
        assert_eq!(desk.bodies().last().unwrap(), &format!(r#"{{"alg":"{name}","value":"{digest}"}}"#));
        // A signature of another length.
        desk.before([crate::desk::answer(200, &json!({"kid": "x", "value": "AAAA"}))]);
        let short = remote.sign(&desk, &mut vault, &item(), algorithm, b"what is signed").unwrap_err();
        assert!(short.to_string().contains("something else than a signature"), "{short}");
        // SHA-1 is not asked for.
        let old = remote.sign(&desk, &mut vault, &item(), "ssh-rsa", b"x").unwrap_err();
        assert_eq!(old.to_string(), "the key 'ssh' of contoso.vault.azure.net does not sign by ssh-rsa");
    }
    check(RSA_KEY, "rsa-sha2-256", 256, "RS256", DIGEST_256);
    check(RSA_KEY, "rsa-sha2-512", 256, "RS512", DIGEST_512);
    check(P256, "ecdsa-sha2-nistp256", 64, "ES256", DIGEST_256);
    check(P384, "ecdsa-sha2-nistp384", 96, "ES384", DIGEST_384);
    check(P521, "ecdsa-sha2-nistp521", 132, "ES512", DIGEST_512);
}

const DIGEST_256: &str = "gZiTQ0xP6YGGqTzieCx6cwI6RrWIsIm7VZ-Y_EuJXDw";
const DIGEST_384: &str = "qxcKHv8eZxRB-N4OkO72YGLRkxgaj0j3CtKooMgBbVtSaJ8QKG68-kshPXI-TLRj";
const DIGEST_512: &str =
    "2Gx_Ht9BZ4xOaLd0q0iRHWhS-T9kGCw3dTfDibISCOnwDHYLRnwHUa28OY7PJKVrEo1ij5yc4vLMJ4Kb9Y_1EQ";

#[test]
fn keys_that_cannot_sign_are_refused_at_once() {
    #[track_caller]
    fn check(key: &str, change: impl FnOnce(&mut Value), expected: &str) {
        let mut body = bundle(key);
        change(&mut body);
        let Err(failure) = fetch(body) else { panic!("taken") };
        assert_eq!(failure.to_string(), format!("the key 'ssh' of contoso.vault.azure.net {expected}"));
    }
    check(P256, |body| body["attributes"]["enabled"] = false.into(), "is disabled");
    // 22 November 2023, and the year 2096.
    check(P256, |body| body["attributes"]["exp"] = 1_700_668_800_i64.into(), "has expired on 2023-11-22");
    check(
        P256,
        |body| body["attributes"]["nbf"] = 4_000_000_000_i64.into(),
        "is not valid yet before 2096-10-02",
    );
    check(P256, |body| body["key"]["key_ops"] = json!(["verify"]), "is not meant for signing");
    check(
        P256,
        |body| body["key"]["crv"] = "P-256K".into(),
        "is on the curve P-256K, which SSH does not know",
    );
    check(P256, |body| body["key"]["kty"] = "oct-HSM".into(), "is symmetric, which SSH does not know");
    check(P256, |body| body["key"]["kty"] = "OKP".into(), "is of the type OKP, which SSH does not know");
}

#[test]
fn times_are_compared_with_the_clock() {
    let desk = Desk::default();
    let attributes = Attributes { enabled: Some(true), nbf: Some(100), exp: Some(200) };
    let at = |now| attributes.check_at(now, &desk.vault(), &item()).is_ok();
    assert_eq!([99, 100, 199, 200].map(at), [false, true, true, false]);
}
