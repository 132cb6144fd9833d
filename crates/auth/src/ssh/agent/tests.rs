//! The agent, fed byte by byte: what it answers to its own user's OpenSSH, what it does not sign, and what it makes of
//! the agent behind it. Bytes are written out from the agent protocol (draft-ietf-sshm-ssh-agent), RFC 4252 and
//! OpenSSH's PROTOCOL.agent and PROTOCOL.certkeys; nothing here uses `wire.rs`.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bastide_core::{AccessToken, AuthError, Provider, Secret, TokenRequest};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::super::EntraIdentity;
use super::*;
use crate::{Cache, CacheOptions};

const HOUR: u64 = 3600;
const SESSION: &[u8] = b"the session's id";
const USER: &[u8] = b"ada@example.org";

const FAILURE: &[u8] = &[5];
const SUCCESS: &[u8] = &[6];
const LIST: &[u8] = &[11];
const NO_IDENTITIES: &[u8] = &[12, 0, 0, 0, 0];

/// `SSH_AGENT_RSA_SHA2_256`, `SSH_AGENT_RSA_SHA2_512`, and neither: SHA-1.
const SHA256: u8 = 2;
const SHA512: u8 = 4;
const SHA1: u8 = 0;

/// RFC 4251 §5.
fn string(field: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, (field.len() >> 8) as u8, field.len() as u8];
    bytes.extend(field);
    bytes
}

fn strings(fields: &[&[u8]]) -> Vec<u8> {
    fields.iter().flat_map(|field| string(field)).collect()
}

/// Certificates of an hour for whatever key is asked about, from what the clock says on.
struct Issuer {
    clock: Arc<Mutex<u64>>,
    asked: AtomicUsize,
    failing: Mutex<bool>,
    /// Modulus and exponent of the key, as an mpint.
    key: Mutex<(Vec<u8>, Vec<u8>)>,
    issued: Mutex<Vec<u8>>,
}

#[async_trait]
impl Provider for Issuer {
    fn name(&self) -> &str {
        "issuer"
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if *self.failing.lock().unwrap() {
            let message = "the cable is cut".to_owned();
            return Err(AuthError::Refused { provider: "issuer".into(), message, hint: None });
        }
        let key: serde_json::Value =
            serde_json::from_str(&request.certificate.as_ref().unwrap().key).unwrap();
        let number_of = |name: &str| URL_SAFE.decode(key[name].as_str().unwrap()).unwrap();
        let (n, e) = (number_of("n"), number_of("e"));
        let now = *self.clock.lock().unwrap();
        let mut blob = strings(&[b"ssh-rsa-cert-v01@openssh.com", b"a nonce", &e, &n]);
        blob.extend((number as u64).to_be_bytes());
        blob.extend([0, 0, 0, 1]); // SSH_CERT_TYPE_USER
        blob.extend(strings(&[b"key id", &string(b"Ada@Example.org")]));
        blob.extend(now.to_be_bytes());
        blob.extend((now + HOUR).to_be_bytes());
        let (authority, signature) =
            (strings(&[b"ssh-ed25519", &[7; 32]]), strings(&[b"ssh-ed25519", &[9; 64]]));
        blob.extend(strings(&[b"", b"", b"", &authority, &signature]));
        *self.key.lock().unwrap() = (n, e);
        self.issued.lock().unwrap().clone_from(&blob);
        let expires_on = UNIX_EPOCH + Duration::from_secs(now + HOUR);
        Ok(AccessToken { secret: Secret::new(STANDARD.encode(blob)), expires_on })
    }
}

struct Bench {
    shared: Arc<Shared>,
    issuer: Arc<Issuer>,
    folder: TempDir,
}

async fn bench(with_users_agent: Option<UsersAgent>) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Mutex::new(1_800_000_000));
    let issuer = Arc::new(Issuer {
        clock: Arc::clone(&clock),
        asked: AtomicUsize::new(0),
        failing: Mutex::new(false),
        key: Mutex::default(),
        issued: Mutex::default(),
    });
    let clock = move || -> SystemTime { UNIX_EPOCH + Duration::from_secs(*clock.lock().unwrap()) };
    let options = CacheOptions { clock: Arc::new(clock), ..CacheOptions::default() };
    let cache = Cache::new(Arc::clone(&issuer) as Arc<dyn Provider>, options);
    let identity = EntraIdentity::new(Arc::new(cache), TokenRequest::new("pas")).await.unwrap();
    let beyond = with_users_agent.map(|agent| agent.start(folder.path()));
    let agent = Agent::open(folder.path(), VmSignIn::Entra(identity), beyond).unwrap();
    Bench { shared: agent.shared, issuer, folder }
}

impl Bench {
    fn talk(&self) -> Talk {
        let (client, served) = UnixStream::pair().unwrap();
        let shared = Arc::clone(&self.shared);
        Talk { client, conversation: tokio::spawn(async move { shared.converse(served).await }) }
    }

    fn pass(&self, seconds: u64) {
        *self.issuer.clock.lock().unwrap() += seconds;
    }

    fn issued(&self) -> Vec<u8> {
        self.issuer.issued.lock().unwrap().clone()
    }

    fn asked(&self) -> usize {
        self.issuer.asked.load(Ordering::Relaxed)
    }

    /// The answer that lists our identity alone.
    fn list(&self) -> Vec<u8> {
        [&[12, 0, 0, 0, 1][..], &string(&self.issued()), &string(USER)].concat()
    }

    fn progress(&self) -> u8 {
        self.shared.progress.load(Ordering::Relaxed)
    }
}

/// One client and its conversation.
struct Talk {
    client: UnixStream,
    conversation: JoinHandle<io::Result<()>>,
}

impl Talk {
    /// A message, a byte at a time, and its answer.
    async fn ask(&mut self, message: &[u8]) -> Vec<u8> {
        for byte in string(message) {
            self.client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut length = [0; 4];
        self.client.read_exact(&mut length).await.unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.client.read_exact(&mut answer).await.unwrap();
        answer
    }

    /// What comes after these bytes: an end without an answer.
    async fn ends_after(mut self, bytes: &[u8]) -> io::Result<()> {
        self.client.write_all(bytes).await.unwrap();
        self.client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // A reset is an end too: bytes of ours may never have been read.
        drop(self.client.read_to_end(&mut rest).await);
        assert_eq!(rest, b"");
        self.conversation.await.unwrap()
    }
}

/// OpenSSH's PROTOCOL.agent, `session-bind@openssh.com`.
fn bind(session: &[u8], forwarding: u8) -> Vec<u8> {
    let fields = strings(&[b"session-bind@openssh.com", b"host key", session, b"signature"]);
    [&[27][..], &fields, &[forwarding]].concat()
}

/// RFC 4252 §7.
fn sign_in(session: &[u8], algorithm: &[u8], certificate: &[u8]) -> Vec<u8> {
    let head = [&string(session)[..], &[50], &strings(&[USER, b"ssh-connection", b"publickey"]), &[1]];
    [&head.concat()[..], &string(algorithm), &string(certificate)].concat()
}

/// `SSH_AGENTC_SIGN_REQUEST`
fn sign(certificate: &[u8], data: &[u8], flag: u8) -> Vec<u8> {
    [&[13][..], &string(certificate), &string(data), &[0, 0, 0, flag]].concat()
}

const BY_256: &[u8] = b"rsa-sha2-256-cert-v01@openssh.com";
const BY_512: &[u8] = b"rsa-sha2-512-cert-v01@openssh.com";
const BY_SHA1: &[u8] = b"ssh-rsa-cert-v01@openssh.com";

#[tokio::test]
async fn the_identity_is_listed_and_signs_its_sign_in() {
    let bench = bench(None).await;
    let mut talk = bench.talk();
    assert_eq!(bench.progress(), Progress::Idle as u8);
    assert_eq!(talk.ask(&bind(SESSION, 0)).await, SUCCESS);
    assert_eq!(talk.ask(LIST).await, bench.list());
    assert_eq!(bench.progress(), Progress::Offered as u8);
    let certificate = bench.issued();
    for (flag, algorithm, name, scheme) in [
        (SHA256, BY_256, &b"rsa-sha2-256"[..], &RSA_PKCS1_2048_8192_SHA256),
        (SHA512, BY_512, b"rsa-sha2-512", &RSA_PKCS1_2048_8192_SHA512),
    ] {
        let data = sign_in(SESSION, algorithm, &certificate);
        let answer = talk.ask(&sign(&certificate, &data, flag)).await;
        // SSH_AGENT_SIGN_RESPONSE with 284 bytes: two lengths, a name of 12, a signature of 256 (RFC 8332 §3).
        let expected = [&[14, 0, 0, 1, 20][..], &string(name), &[0, 0, 1, 0]].concat();
        let (head, signature) = answer.split_at(expected.len());
        assert_eq!((head, signature.len()), (&expected[..], 256));
        let (n, e) = bench.issuer.key.lock().unwrap().clone();
        let key = RsaPublicKeyComponents { n: &n[1..], e: &e };
        key.verify(scheme, &data, signature).unwrap();
    }
    assert_eq!(bench.progress(), Progress::Signed as u8);
    drop(talk.client);
    talk.conversation.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_else_is_asked_is_refused_and_the_conversation_goes_on() {
    let bench = bench(None).await;
    let mut talk = bench.talk();
    // Before anything is listed, there is nothing that anybody could know.
    assert_eq!(talk.ask(&sign(b"a certificate", b"data", SHA512)).await, FAILURE);
    assert_eq!(talk.ask(&bind(SESSION, 0)).await, SUCCESS);
    talk.ask(LIST).await;
    let certificate = bench.issued();
    for (why, data, flag) in [
        ("SHA-1", sign_in(SESSION, BY_SHA1, &certificate), SHA1),
        ("SHA-1 under another name", sign_in(SESSION, BY_512, &certificate), SHA1),
        ("another hash than is named", sign_in(SESSION, BY_256, &certificate), SHA512),
        ("another session", sign_in(b"another session", BY_512, &certificate), SHA512),
        ("no sign-in", b"SSHSIG of a file".to_vec(), SHA512),
        ("nothing", Vec::new(), SHA512),
    ] {
        assert_eq!(talk.ask(&sign(&certificate, &data, flag)).await, FAILURE, "{why}");
    }
    // SSH_AGENTC_ADD_IDENTITY, SSH_AGENTC_REMOVE_ALL_IDENTITIES, SSH_AGENTC_LOCK, an unknown extension, no such number.
    for message in [&[17, 1, 2][..], &[19], &[22, 0, 0, 0, 0], &[27, 0, 0, 0, 1, b'x'], &[255], &[13], &[27]]
    {
        assert_eq!(talk.ask(message).await, FAILURE, "{message:?}");
    }
    assert_eq!(talk.ask(LIST).await, bench.list());
    assert_eq!(bench.progress(), Progress::Offered as u8);
}

#[tokio::test]
async fn a_forwarded_connection_sees_nothing_of_it() {
    let bench = bench(None).await;
    let mut talk = bench.talk();
    talk.ask(LIST).await;
    let certificate = bench.issued();
    let good = sign(&certificate, &sign_in(SESSION, BY_512, &certificate), SHA512);
    assert_eq!(talk.ask(&good).await[0], 14);
    assert_eq!(talk.ask(&bind(SESSION, 1)).await, SUCCESS);
    assert_eq!(talk.ask(&good).await, FAILURE);
    assert_eq!(talk.ask(LIST).await, NO_IDENTITIES);
    // Nor after the far end has bound a session of its own.
    assert_eq!(talk.ask(&bind(SESSION, 0)).await, SUCCESS);
    assert_eq!(talk.ask(LIST).await, NO_IDENTITIES);
    // Others do not suffer from it.
    let mut other = bench.talk();
    assert_eq!(other.ask(&bind(SESSION, 0)).await, SUCCESS);
    assert_eq!(other.ask(LIST).await, bench.list());
}

#[tokio::test]
async fn another_user_is_not_answered() {
    let mut bench = bench(None).await;
    Arc::get_mut(&mut bench.shared).unwrap().owner ^= 1;
    bench.talk().ends_after(&string(LIST)).await.unwrap();
    assert_eq!((bench.progress(), bench.asked()), (Progress::Idle as u8, 0));
}

#[tokio::test]
async fn lengths_that_no_agent_takes_end_the_conversation() {
    let bench = bench(None).await;
    // 256 KiB and one byte; all that a length can say; nothing.
    for length in [&[0, 4, 0, 1][..], &[0xff; 4], &[0; 4]] {
        let error = bench.talk().ends_after(length).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length:?}");
    }
    // Cut in the middle of the length: the client has gone. In the middle of a message: it broke.
    bench.talk().ends_after(&[0, 0]).await.unwrap();
    bench.talk().ends_after(&[0, 0, 0, 9, 13]).await.unwrap_err();
}

/// What the user's own agent does about its messages.
enum UsersAgent {
    /// Lists a key, and answers everything else with `SUCCESS` and what it was asked.
    Works,
    /// Never says anything.
    Silent,
    /// Answers with these bytes, which are no message or not the one that was asked for.
    Says(&'static [u8]),
    /// Is a file where a socket should be.
    Absent,
}

const THEIR_LIST: &[u8] = b"\x0c\0\0\0\x01\0\0\0\x09their key\0\0\0\x0dtheir comment";

impl UsersAgent {
    fn start(self, folder: &Path) -> PathBuf {
        let path = folder.join("users-agent");
        if matches!(self, UsersAgent::Absent) {
            return path;
        }
        let listener = UnixListener::bind(&path).unwrap();
        // It ends with the test's runtime.
        tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                match self {
                    UsersAgent::Says(bytes) => {
                        stream.read_u8().await.unwrap();
                        // The rest goes away unread.
                        stream.write_all(bytes).await.unwrap();
                    }
                    UsersAgent::Works => {
                        while let Ok(length) = stream.read_u32().await {
                            let mut message = vec![0; length as usize];
                            stream.read_exact(&mut message).await.unwrap();
                            let answer = match message[..] {
                                [11] => THEIR_LIST.to_vec(),
                                _ => [SUCCESS, &message].concat(),
                            };
                            stream.write_all(&string(&answer)).await.unwrap();
                        }
                    }
                    UsersAgent::Silent | UsersAgent::Absent => kept.push(stream),
                }
            }
        });
        path
    }
}

#[tokio::test]
async fn the_users_own_agent_is_asked_for_the_rest() {
    let bench = bench(Some(UsersAgent::Works)).await;
    let mut talk = bench.talk();
    assert_eq!(talk.ask(&bind(SESSION, 0)).await, SUCCESS);
    let listed = talk.ask(LIST).await;
    let expected =
        [&[12, 0, 0, 0, 2][..], &string(&bench.issued()), &string(USER), &THEIR_LIST[5..]].concat();
    assert_eq!(listed, expected);
    for message in [&sign(b"their key", b"data", SHA512)[..], &[17, 1, 2], &[255]] {
        assert_eq!(talk.ask(message).await, [SUCCESS, message].concat());
    }
    // Our key is not for it to sign with.
    assert_eq!(talk.ask(&sign(&bench.issued(), b"data", SHA512)).await, FAILURE);
    // Through a forwarded connection its keys can be used, as they could without us.
    assert_eq!(talk.ask(&bind(SESSION, 1)).await, SUCCESS);
    assert_eq!(talk.ask(LIST).await, THEIR_LIST);
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_the_users_that_fails_does_no_harm() {
    for agent in [
        UsersAgent::Absent,
        UsersAgent::Silent,
        UsersAgent::Says(b""),
        UsersAgent::Says(&[0, 4, 0, 1, 12]),
        UsersAgent::Says(&[0xff; 9]),
        UsersAgent::Says(&[0, 0, 0, 0]),
        UsersAgent::Says(&[0, 0, 0, 1]),
        UsersAgent::Says(&[0, 0, 0, 1, 5]),
        // A list that counts more than it holds.
        UsersAgent::Says(&[0, 0, 0, 5, 12, 0, 0, 0, 9]),
        UsersAgent::Says(&[0, 0, 0, 9, 12, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]),
    ] {
        let bench = bench(Some(agent)).await;
        let mut talk = bench.talk();
        assert_eq!(talk.ask(&bind(SESSION, 0)).await, SUCCESS);
        assert_eq!(talk.ask(LIST).await, bench.list());
        let certificate = bench.issued();
        let good = sign(&certificate, &sign_in(SESSION, BY_512, &certificate), SHA512);
        assert_eq!(talk.ask(&good).await[0], 14);
        assert_eq!(talk.ask(LIST).await, bench.list());
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_the_users_that_is_silent_is_given_up_in_time() {
    let bench = bench(Some(UsersAgent::Silent)).await;
    let mut talk = bench.talk();
    let started = tokio::time::Instant::now();
    assert_eq!(talk.ask(LIST).await, bench.list());
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(talk.ask(&sign(b"their key", b"data", SHA512)).await, FAILURE);
    assert_eq!(started.elapsed().as_secs(), 125);
}

#[tokio::test]
async fn the_certificate_is_renewed_before_it_ends() {
    let bench = bench(None).await;
    let mut talk = bench.talk();
    talk.ask(LIST).await;
    let first = bench.issued();
    bench.pass(54 * 60);
    assert_eq!((talk.ask(LIST).await, bench.asked()), (bench.list(), 1));
    // Less than five minutes are left: the old one is listed, and the next one asked for.
    bench.pass(2 * 60);
    let old = bench.list();
    assert_eq!(talk.ask(LIST).await, old);
    while bench.asked() < 2 {
        tokio::task::yield_now().await;
    }
    // What was listed can be signed with, whatever has come meanwhile.
    let good = sign(&first, &sign_in(SESSION, BY_512, &first), SHA512);
    assert_eq!(talk.ask(&good).await[0], 14);
    assert_eq!(talk.ask(LIST).await, bench.list());
    assert_ne!(bench.list(), old);
    // And not with what was listed before.
    assert_eq!(talk.ask(&good).await, FAILURE);
    assert_eq!(bench.asked(), 2);
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_old_certificate() {
    let bench = bench(None).await;
    let mut talk = bench.talk();
    talk.ask(LIST).await;
    *bench.issuer.failing.lock().unwrap() = true;
    // Half a minute and less before the end the new one is waited for.
    bench.pass(HOUR - 10);
    assert_eq!((talk.ask(LIST).await, bench.asked()), (bench.list(), 2));
    bench.pass(10);
    assert_eq!((talk.ask(LIST).await, bench.asked()), (NO_IDENTITIES.to_vec(), 3));
    *bench.issuer.failing.lock().unwrap() = false;
    assert_eq!((talk.ask(LIST).await, bench.asked()), (bench.list(), 4));
}

#[tokio::test]
async fn serving_ends_when_it_is_told_to() {
    let bench = bench(None).await;
    let folder = bench.folder.path().join("other");
    std::fs::create_dir(&folder).unwrap();
    let provider = Arc::clone(&bench.issuer) as Arc<dyn Provider>;
    let identity = EntraIdentity::new(provider, TokenRequest::new("pas")).await.unwrap();
    let agent = Agent::open(&folder, VmSignIn::Entra(identity), None).unwrap();
    let stop = CancellationToken::new();
    let talk = async {
        let mut client = UnixStream::connect(agent.path()).await.unwrap();
        client.write_all(&string(LIST)).await.unwrap();
        assert_eq!(client.read_u32().await.unwrap() as usize, bench.list().len());
        assert_eq!(agent.progress(), Progress::Offered);
        stop.cancel();
        client.read_to_end(&mut Vec::new()).await.unwrap();
    };
    tokio::join!(agent.run(&stop), talk);
}
