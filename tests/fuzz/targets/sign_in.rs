//! What signing in reads: the words, codes, tokens and certificates of Entra ID, what programs print, and what OpenSSH
//! and other agents say to ours.

use bastide_auth::fuzzing::{self, Talk};
use bastide_core::AuthError;

use crate::judge::fit_for_a_terminal;

/// The body of a refusal, or what `az` wrote to its standard error. What is granted to applications is read by
/// `azure_identity`.
pub(crate) fn entra(body: &[u8]) {
    let mut texts = vec![fuzzing::message(body)];
    if let Ok(text) = std::str::from_utf8(body) {
        texts.push(fuzzing::tool_message(text));
    }
    for text in texts.into_iter().flatten() {
        fit_for_a_terminal(&text);
        for provider in ["azure-cli", "device-code"] {
            fuzzing::hint(&text, provider, Some("t")).iter().for_each(|hint| fit_for_a_terminal(hint));
        }
    }
}

/// A status, and the body of an answer to a request for a code; or of a refusal of that code.
pub(crate) fn device_code(input: &[u8]) {
    let Some((status, body)) = answer(input) else { return };
    match fuzzing::device_code(status, body) {
        Ok(code) => {
            fit_for_a_terminal(&code.url);
            fit_for_a_terminal(&code.code);
            assert!(!code.code.is_empty() && code.url.contains(':'));
        }
        Err(error) => readable(&error),
    }
    readable(&fuzzing::device_refusal(body));
}

/// A status, and the body of an answer to a refresh token; or what a program has printed.
pub(crate) fn token(input: &[u8]) {
    let Some((status, body)) = answer(input) else { return };
    match fuzzing::token(status, body) {
        Ok((token, _)) => assert!(!token.secret.expose().is_empty()),
        Err(error) => readable(&error),
    }
    if let Some(token) = fuzzing::printed(body) {
        assert!(!token.secret.expose().is_empty());
    }
}

/// A public key in base64 on a line, and the certificate for it.
pub(crate) fn certificate(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (public, text) = text.split_once('\n').unwrap_or_default();
    match fuzzing::certificate(text, &base64(public)) {
        Ok(certificate) => {
            let user = certificate.user();
            fit_for_a_terminal(user);
            assert!(!user.is_empty() && !user.starts_with('-') && !user.contains(char::is_whitespace));
            let line = certificate.line();
            assert_eq!((line.split_ascii_whitespace().count(), line.lines().count()), (3, 1), "{line:?}");
        }
        Err(error) => fit_for_a_terminal(&error),
    }
}

const USER: &str = "ada@example.org";
/// As far as it is looked at: its type.
const CERTIFICATE: &[u8] = b"\0\0\0\x1cssh-rsa-cert-v01@openssh.com";

/// Messages, each behind two bytes of its length: from a client, and as if another agent had answered with them.
pub(crate) fn agent(input: &[u8]) {
    let mut talk = Talk::new(USER, CERTIFICATE);
    let (mut rest, mut forwarded) = (input, false);
    while let [high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (message, behind) = behind.split_at(length);
        rest = behind;
        if let Some(data) = talk.hear(message) {
            // A sign-in of this user (RFC 4252, section 7).
            assert!(!forwarded);
            let holds = |part: &[u8]| data.windows(part.len()).any(|window| window == part);
            assert!(holds(USER.as_bytes()) && holds(b"ssh-connection") && holds(b"-cert-v01@openssh.com"));
            assert!(holds(CERTIFICATE));
        }
        assert!(!(forwarded && talk.is_at_home()), "it came home");
        forwarded = !talk.is_at_home();
        assert_eq!(identities(&talk.list(message)), Some(CERTIFICATE.to_vec()));
    }
}

/// The first identity of a list, when the list holds as many as it counts and ends with the last.
fn identities(answer: &[u8]) -> Option<Vec<u8>> {
    let mut rest = answer.strip_prefix(&[12])?;
    let mut number = || {
        let (number, behind) = rest.split_first_chunk::<4>()?;
        rest = behind;
        usize::try_from(u32::from_be_bytes(*number)).ok()
    };
    let count = number()?;
    let mut fields = Vec::new();
    for _ in 0..count.checked_mul(2)? {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (field, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = behind;
        fields.push(field);
    }
    fields.first().map(|first| first.to_vec())
}

/// Two bytes of status, and a body.
fn answer(input: &[u8]) -> Option<(u16, &[u8])> {
    let ([high, low], body) = (input.first_chunk::<2>()?, &input[2..]);
    Some((u16::from_be_bytes([*high, *low]), body))
}

fn readable(error: &AuthError) {
    fit_for_a_terminal(&error.to_string());
    fit_for_a_terminal(&error.hint());
}

/// RFC 4648 §4, as far as a seed needs it: what is no letter of its is passed over.
fn base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let letters: Vec<u8> = text.bytes().filter_map(value).collect();
    let bits = |four: &[u8]| four.iter().fold(0_u32, |bits, letter| bits << 6 | u32::from(*letter));
    let bytes = |four: &[u8]| {
        let [_, all @ ..] = (bits(four) << (6 * (4 - four.len()))).to_be_bytes();
        all.into_iter().take(four.len() * 6 / 8).collect::<Vec<u8>>()
    };
    letters.chunks(4).flat_map(bytes).collect()
}
