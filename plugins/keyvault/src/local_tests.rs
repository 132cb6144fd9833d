//! Private keys in each form, against what `ssh-keygen` and `openssl` make of them (`testdata/README.md`).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519 as ED25519_VERIFY,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::json;

use super::*;
use crate::desk::Desk;
use crate::settings::Sort;

const DATA: &[u8] = b"what is signed";

macro_rules! key {
    ($name:literal) => {
        (include_str!(concat!("../testdata/", $name)), include_str!(concat!("../testdata/", $name, ".pub")))
    };
}

#[track_caller]
fn read((private, line): (&str, &str)) -> LocalKey {
    let key = LocalKey::parse(private).unwrap();
    assert_eq!(key.public_key().unwrap().to_openssh().unwrap(), line.trim());
    // The lines of a file that came by way of Windows, and one without an end.
    assert!(LocalKey::parse(&private.replace('\n', "\r\n")).is_ok());
    assert!(LocalKey::parse(private.trim()).is_ok());
    key
}

#[test]
fn rsa_signs_as_openssl_does() {
    for key in [key!("openssh-rsa"), key!("pem-pkcs1"), key!("pem-pkcs8-rsa")] {
        let key = read((key.0, include_str!("../testdata/openssh-rsa.pub")));
        for (algorithm, expected) in [
            ("rsa-sha2-256", include_str!("../testdata/rsa-sha2-256.hex")),
            ("rsa-sha2-512", include_str!("../testdata/rsa-sha2-512.hex")),
        ] {
            let signature = key.sign(algorithm, DATA).unwrap();
            let signature: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(signature, expected.replace('\n', ""));
        }
        assert!(key.sign("ssh-rsa", DATA).is_err());
    }
}

#[test]
fn curves_sign_what_others_verify() {
    #[track_caller]
    fn check(key: (&str, &str), algorithm: &str, size: usize, how: &'static dyn VerificationAlgorithm) {
        let key = read(key);
        let signature = key.sign(algorithm, DATA).unwrap();
        assert_eq!(signature.len(), size);
        let public = match &key {
            LocalKey::Ecdsa(pair, _) => pair.public_key().as_ref().to_vec(),
            LocalKey::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            LocalKey::Rsa(_) => panic!("no curve"),
        };
        UnparsedPublicKey::new(how, public).verify(DATA, &signature).unwrap();
        assert!(key.sign("rsa-sha2-512", DATA).is_err());
    }
    check(key!("openssh-ed25519"), "ssh-ed25519", 64, &ED25519_VERIFY);
    check(key!("pem-pkcs8-ed25519"), "ssh-ed25519", 64, &ED25519_VERIFY);
    check(key!("openssh-p256"), "ecdsa-sha2-nistp256", 64, &ECDSA_P256_SHA256_FIXED);
    check(key!("pem-sec1-p256"), "ecdsa-sha2-nistp256", 64, &ECDSA_P256_SHA256_FIXED);
    check(key!("openssh-p384"), "ecdsa-sha2-nistp384", 96, &ECDSA_P384_SHA384_FIXED);
    check(key!("pem-pkcs8-p384"), "ecdsa-sha2-nistp384", 96, &ECDSA_P384_SHA384_FIXED);
    check(key!("openssh-p521"), "ecdsa-sha2-nistp521", 132, &ECDSA_P521_SHA512_FIXED);
    check(key!("pem-sec1-p521"), "ecdsa-sha2-nistp521", 132, &ECDSA_P521_SHA512_FIXED);
}

#[test]
fn what_is_no_usable_key_is_named() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let desk = Desk::answering([(200, json!({"value": value, "attributes": {"enabled": true}}))]);
        let item = Item { sort: Sort::Secret, name: "ssh".to_owned(), version: None };
        let Err(failure) = LocalKey::fetch(&desk, &mut desk.vault(), &item) else { panic!("taken") };
        let message = failure.to_string();
        assert_eq!(message, format!("the secret 'ssh' of contoso.vault.azure.net {expected}"));
        assert!(!format!("{failure:?}").contains("hunter2"));
    }
    let passphrase = "holds a private key with a passphrase, which nobody can be asked for here";
    check(include_str!("../testdata/openssh-passphrase"), passphrase);
    check(include_str!("../testdata/pem-passphrase"), passphrase);
    check("hunter2", "holds no private key");
    check("", "holds no private key");
    check(include_str!("../testdata/openssh-p256.pub"), "holds no private key");
    let cut = include_str!("../testdata/openssh-rsa");
    check(&cut[..cut.len() / 2], "holds a private key that is broken");
    // What a line of a shell makes of a file.
    check(&include_str!("../testdata/pem-pkcs1").replace('\n', " "), "holds a private key that is broken");
    check(
        "-----BEGIN DSA PRIVATE KEY-----\nhunter2\n-----END DSA PRIVATE KEY-----",
        "holds a private key of a kind that is not supported: DSA",
    );
}

#[test]
fn remainders() {
    #[track_caller]
    fn check(number: &[u8], modulus: &[u8], expected: &[u8]) {
        assert_eq!(*remainder(number, modulus), expected);
    }
    check(&[], &[7], &[0, 0]);
    check(&[7], &[7], &[0, 0]);
    check(&[100], &[7], &[0, 2]);
    check(&[255, 255], &[255], &[0, 0]);
    check(&[1, 0, 0, 5], &[255, 255], &[0, 1, 5]);
    check(&[0x12, 0x34, 0x56, 0x78, 0x9a], &[0xfe, 0xdc], &[0, 0xf4, 0x7e]);
    assert_eq!(one_less(&[1, 1]).unwrap()[..], [1, 0]);
    assert!(one_less(&[2]).is_none());
}
