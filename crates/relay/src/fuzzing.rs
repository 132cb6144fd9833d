//! Doors for the fuzz targets of `tests/fuzz`, there with `--cfg fuzzing` only: what reads bytes from outside, without
//! the sockets around it. The targets say what has to hold.

use std::time::{Duration, SystemTime};

use bastide_net::Origin;
use http::HeaderMap;

use crate::inbox::{Found, Inbox};
use crate::session::model::{self, Last, Step};

/// What frames from the service were taken for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unframed {
    /// Payload of the data frames, for the local side.
    pub payload: Vec<u8>,
    /// What stood between the data, in order; the last one may be an end.
    pub controls: Vec<Control>,
    /// The bytes are over within a frame.
    pub within_frame: bool,
    /// The bytes are over within an HTTP answer.
    pub within_http: bool,
}

/// What is no data.
#[derive(Debug, PartialEq, Eq)]
pub enum Control {
    /// A ping with its payload.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// An end: code and reason.
    Close(u16, String),
    /// An end: raw HTTP with its status.
    Http(Option<u16>),
    /// An end: against RFC 6455.
    Malformed,
}

/// Takes frames apart that come in pieces of these sizes (the first again after the last; 0 counts as 1), until
/// something ends it.
pub fn unframe(bytes: &[u8], pieces: &[usize]) -> Unframed {
    let mut inbox = Inbox::default();
    let mut seen = Unframed::default();
    let mut sizes = pieces.iter().copied().cycle();
    let mut rest = bytes;
    'bytes: while !rest.is_empty() {
        let space = inbox.space();
        let count = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len()).min(space.len());
        let (now, later) = rest.split_at(count);
        space[..count].copy_from_slice(now);
        rest = later;
        inbox.fill(count);
        loop {
            let (gained, found) = inbox.next();
            let payload: Vec<u8> = inbox.payload().iter().flat_map(|slice| slice.to_vec()).collect();
            assert!(gained <= payload.len() && inbox.has_payload() != payload.is_empty());
            let half = payload.len() / 2;
            inbox.advance(half);
            inbox.advance(payload.len() - half);
            seen.payload.extend(payload);
            seen.controls.push(match found {
                Found::Nothing => break,
                Found::Ping(payload) => Control::Ping(payload),
                Found::Pong => Control::Pong,
                Found::Close(code, reason) => Control::Close(code, reason),
                Found::Http(status) => Control::Http(status),
                Found::Malformed(_) => Control::Malformed,
            });
            if !matches!(seen.controls.last(), Some(Control::Ping(_) | Control::Pong)) {
                return seen;
            }
        }
        if inbox.space().is_empty() {
            panic!("no room although everything was taken");
        }
        if rest.is_empty() {
            break 'bytes;
        }
    }
    seen.within_frame = inbox.is_within_frame();
    seen.within_http = inbox.is_http_cut_short();
    seen
}

/// Lets the session live through what `script` says, beside its model: a byte for each step, two more for a size.
pub fn session(script: &[u8]) {
    let [frames, last, script @ ..] = script else { return };
    let max_frame = [1, 5, 125, 126, 4096, 65_535][usize::from(*frames) % 6];
    let last = match last % 8 {
        0 => Last::Eof,
        1 => Last::Reset,
        2 => Last::Deaf,
        3 => Last::Malformed,
        4 => Last::LocalBroken,
        5 => Last::LocalFin,
        6 => Last::Stop,
        _ => Last::Close([1000, 1001, 1005, 1006, 1011, 4000][usize::from(*last / 8) % 6]),
    };
    let steps = script.as_chunks::<3>().0.iter().take(MOST_STEPS).map(|[step, high, low]| {
        let small = usize::from(*low);
        let size = usize::from(u16::from_be_bytes([*high, *low])).max(1);
        match step % 13 {
            0 | 1 => Step::Say(size),
            2 | 3 => Step::Frame([0x82, 0x81, 0x02, 0x00, 0x80][usize::from(step / 13) % 5], size),
            4 => Step::Frame(0x82, 0),
            5 => Step::Ping(small % 126),
            6 => Step::Pong,
            7 => Step::Arrive(size),
            8 => Step::Leave(size),
            9 => Step::Take(size),
            10 => Step::Pass(small as u64 % 25),
            11 => Step::Arrive(usize::MAX),
            _ => Step::Finish,
        }
    });
    model::live(max_frame, &steps.collect::<Vec<_>>(), &last);
}

/// As many as the random tests of the session take: the model's time grows with their square.
const MOST_STEPS: usize = 60;

/// The data pod that an answer names (protocol.md §5).
pub fn pod(body: &[u8]) -> Option<Origin> {
    crate::mint::pod(body)
}

/// How long a refusal of a mint asks to wait.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    bastide_net::retry_after(headers, now)
}

/// The id under which the service logged a refusal.
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    crate::mint::request_id(headers)
}
