//! The agent that signs in with Entra ID, spoken to as OpenSSH and as somebody who should get nothing speak to it: what
//! it lists, what it signs, and that its certificate is renewed. It leaves out OpenSSH's own sign-in (`aad_sshd`).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bastide_tests::Lab;

use crate::aad_sshd::{HOLD, Site, hold};

/// Messages of draft-ietf-sshm-ssh-agent, and flags.
const FAILURE: u8 = 5;
const SUCCESS: u8 = 6;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const EXTENSION: u8 = 27;
const RSA_SHA2_512: u32 = 4;

/// A session's id, as long as SHA-256 makes it (RFC 4253 §7.2).
const SESSION: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A string of RFC 4251 §5.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// The first string of some bytes, and what follows.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_at(4);
    rest.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize)
}

/// A client of an agent.
struct Client(UnixStream);

impl Client {
    fn connect(socket: &Path) -> Self {
        Self(UnixStream::connect(socket).unwrap())
    }

    fn ask(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.write_all(&string(message)).unwrap();
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).unwrap();
        answer
    }

    /// As ssh does for a connection of its own (PROTOCOL.agent of OpenSSH, `session-bind@openssh.com`).
    fn bind(&mut self) {
        let message = [
            &[EXTENSION][..],
            &string(b"session-bind@openssh.com"),
            &string(b"host key"),
            &string(SESSION),
            &string(b"signature"),
            &[0],
        ];
        assert_eq!(self.ask(&message.concat()), [SUCCESS]);
    }

    /// The identities' public parts.
    fn list(&mut self) -> Vec<Vec<u8>> {
        let answer = self.ask(&[REQUEST_IDENTITIES]);
        assert_eq!(answer[0], IDENTITIES_ANSWER);
        let count = u32::from_be_bytes(answer[1..5].try_into().unwrap());
        let mut rest = &answer[5..];
        let blobs = (0..count).map(|_| {
            let (blob, behind) = split(rest);
            rest = split(behind).1;
            blob.to_vec()
        });
        blobs.collect()
    }

    /// The first byte of the answer to a wish for the signature of a sign-in (RFC 4252 §7).
    fn sign_in(&mut self, user: &str, certificate: &[u8]) -> u8 {
        let data = [
            &string(SESSION)[..],
            &[50],
            &string(user.as_bytes()),
            &string(b"ssh-connection"),
            &string(b"publickey"),
            &[1],
            &string(b"rsa-sha2-512-cert-v01@openssh.com"),
            &string(certificate),
        ];
        let flags = RSA_SHA2_512.to_be_bytes();
        let request = [&[SIGN_REQUEST][..], &string(certificate), &string(&data.concat()), &flags];
        self.ask(&request.concat())[0]
    }
}

fn is_certificate(blob: &&Vec<u8>) -> bool {
    split(blob).0 == b"ssh-rsa-cert-v01@openssh.com"
}

/// Where our agent listens.
fn socket(lab: &Lab) -> PathBuf {
    let folders = std::fs::read_dir(lab.home()).unwrap().map(|entry| entry.unwrap().path());
    folders.map(|folder| folder.join("agent")).find(|path| path.exists()).unwrap()
}

#[test]
fn nothing_but_a_sign_in_is_signed_and_for_nobody_who_may_be_afar() {
    let site = Site::new();
    let mut session = site.ssh().args(["--", "-F", "none", HOLD]).start();
    let pipes = hold(&mut session);
    let (socket, user) = (socket(&site.lab), site.sshd.user());

    // Bound as ssh binds, it is another one's sign-in.
    let mut bound = Client::connect(&socket);
    bound.bind();
    let listed = bound.list();
    let certificate = listed.iter().find(is_certificate).unwrap().clone();
    assert_eq!(bound.sign_in("root2", &certificate), FAILURE);
    assert_eq!(bound.sign_in(&user, b"another key"), FAILURE);
    assert_eq!(bound.sign_in(&user, &certificate), SIGN_RESPONSE);

    // An ssh that binds nothing is older than 8.9: its forwarded connections can't be told from its own, but there
    // are none before it is signed in.
    let mut unbound = Client::connect(&socket);
    assert_eq!(unbound.list(), Vec::<Vec<u8>>::new());
    assert_eq!(unbound.sign_in(&user, &certificate), FAILURE);

    drop(pipes);
    session.finish().expect_code(0);
    assert!(!socket.exists());
}

#[test]
fn a_forwarded_agent_signs_in_nobody() {
    let site = Site::new();
    let remote = format!("echo \"$SSH_AUTH_SOCK\"; {HOLD}");
    let mut session = site.ssh().args(["--", "-F", "none", "-A", &remote]).start();
    let (stdin, stdout) = session.pipes();
    let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
    let forwarded = PathBuf::from(lines.next().unwrap());
    assert_ne!(forwarded, socket(&site.lab));
    let mut at_home = Client::connect(&socket(&site.lab));
    at_home.bind();
    let certificate = at_home.list().into_iter().find(|blob| is_certificate(&blob)).unwrap();

    // On the VM, with the certificate in hand, which is no secret.
    let mut client = Client::connect(&forwarded);
    assert_eq!(client.list(), Vec::<Vec<u8>>::new());
    assert_eq!(client.sign_in(&site.sshd.user(), &certificate), FAILURE);
    // Whatever a connection from afar says of itself.
    client.bind();
    assert_eq!(client.list(), Vec::<Vec<u8>>::new());
    assert_eq!(client.sign_in(&site.sshd.user(), &certificate), FAILURE);

    // A session lasts as long as what was forwarded.
    drop((stdin, lines, client));
    session.finish().expect_code(0);
}

#[test]
fn the_users_own_keys_are_reached_through_ours() {
    let site = Site::new();
    let keys = site.lab.home().join("keys");
    // LocalCommand runs on this machine with the agent that ssh has (ssh_config(5)).
    let local = format!("ssh-add -L && ssh-add -T '{0}/k1.pub' '{0}/k4.pub' && echo signed", keys.display());
    let line = format!(
        "exec bastide {} -- -F none -o PermitLocalCommand=yes -o \"LocalCommand={local}\" true",
        site.line()
    );
    let text = site.with_agent(&line).run().expect_code(0).text();
    for number in 1..=4 {
        assert!(text.contains(&format!("mine-{number}\n")), "{text}");
    }
    assert!(text.ends_with("signed\n"), "{text}");
}

#[test]
fn the_certificate_is_renewed_while_the_session_lasts() {
    // Half of its life is when a short-lived one is renewed.
    let site = Site::with("ssh_certificate_lifetime_seconds = 16");
    let mut session = site.ssh().args(["--", "-F", "none", HOLD]).start();
    let pipes = hold(&mut session);
    let mut client = Client::connect(&socket(&site.lab));
    client.bind();
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let listed = client.list();
        // At no time is there none.
        seen.insert(listed.iter().find(is_certificate).unwrap().clone());
    }
    assert_eq!(site.lab.transcript().issued("ssh_certificate"), 2);
    // Both are for the one key: what follows the nonce is its exponent and its modulus.
    let key = |blob: &Vec<u8>| {
        let (_, behind_kind) = split(blob);
        let (_, behind_nonce) = split(behind_kind);
        let (exponent, behind_exponent) = split(behind_nonce);
        (exponent.to_vec(), split(behind_exponent).0.to_vec())
    };
    assert_eq!(seen.iter().map(key).collect::<BTreeSet<_>>().len(), 1);
    let newest = client.list().into_iter().find(|blob| is_certificate(&blob)).unwrap();
    assert_eq!(client.sign_in(&site.sshd.user(), &newest), SIGN_RESPONSE);
    drop(pipes);
    session.finish().expect_code(0);
}
