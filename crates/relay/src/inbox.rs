//! Bytes on their way from the service to the local side: WebSocket frames taken apart in place, payload
//! handed on without waiting for the end of a frame. It leaves out what control frames mean.

use std::collections::VecDeque;
use std::io::{Cursor, IoSlice};
use std::ops::Range;

use bastide_net::Buffer;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Slices in one vectored write; Linux takes 1,024 (`IOV_MAX`).
const MOST_SLICES: usize = 128;

/// Frames being taken apart.
#[derive(Default)]
pub(crate) struct Inbox {
    /// Lent while there are bytes in it.
    buffer: Option<Buffer>,
    /// Bytes in the buffer.
    filled: usize,
    /// Of these, the bytes that were taken apart.
    parsed: usize,
    /// Payload bytes of the current data frame that are still to come.
    frame_left: u64,
    /// Where payload for the local side is, in order.
    payload: VecDeque<Range<usize>>,
    /// Whether a whole frame header was seen: before it, `HTTP/1.` is possible.
    framed: bool,
}

/// What was found between the data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// More bytes are needed.
    Nothing,
    /// A ping that wants these bytes back.
    Ping(Vec<u8>),
    /// An answer to a ping.
    Pong,
    /// A close frame: code (1005 when there was none) and reason.
    Close(u16, String),
    /// `HTTP/1.` instead of a frame, with the status if it was there in full.
    Http(Option<u16>),
    /// Against RFC 6455.
    Malformed(&'static str),
}

impl Inbox {
    /// Where bytes from the service go; empty while the local side has not taken what is there.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let buffer = self.buffer.get_or_insert_with(Buffer::lend);
        if self.payload.is_empty() && self.parsed > 0 {
            buffer.copy_within(self.parsed..self.filled, 0);
            self.filled -= self.parsed;
            self.parsed = 0;
        }
        buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Makes `bytes` the first ones, however many; [`Inbox::fill`] has yet to be called.
    pub(crate) fn preload(&mut self, bytes: &[u8]) {
        self.buffer = Some(Buffer::beginning_with(bytes));
    }

    /// Gives the buffer back if nothing is in it.
    pub(crate) fn rest(&mut self) {
        if self.payload.is_empty() && self.parsed == self.filled {
            (self.parsed, self.filled) = (0, 0);
            self.buffer = None;
        }
    }

    /// `count` bytes were put into [`Inbox::space`]. Call [`Inbox::next`] until it finds nothing.
    pub(crate) fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.as_ref().map_or(0, |buffer| buffer.len()));
    }

    /// Takes frames apart up to the next one that is not data, and how many payload bytes that gave.
    pub(crate) fn next(&mut self) -> (usize, Found) {
        let mut gained = 0;
        loop {
            gained += self.take_payload();
            let rest = bytes(&self.buffer, self.parsed..self.filled);
            if rest.is_empty() || self.frame_left > 0 {
                return (gained, Found::Nothing);
            }
            if !self.framed {
                match http_head(rest) {
                    Http::No => {}
                    Http::Undecided => return (gained, Found::Nothing),
                    Http::Status(status) => return (gained, Found::Http(status)),
                }
            }
            let mut cursor = Cursor::new(rest);
            let (header, length) = match FrameHeader::parse(&mut cursor) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => return (gained, Found::Nothing),
                Err(_) => return (gained, Found::Malformed("a frame of an unknown kind")),
            };
            let header_length = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            if let Some(malformed) = breach(&header, length) {
                return (gained, Found::Malformed(malformed));
            }
            match header.opcode {
                OpCode::Data(_) => {
                    self.framed = true;
                    self.parsed += header_length;
                    self.frame_left = length;
                }
                OpCode::Control(control) => {
                    // At most 125 bytes, or `breach` had something to say.
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    let Some(payload) = rest.get(header_length..header_length + length) else {
                        return (gained, Found::Nothing);
                    };
                    let found = match control {
                        Control::Ping => Found::Ping(payload.to_vec()),
                        Control::Close => close(payload),
                        Control::Pong | Control::Reserved(_) => Found::Pong,
                    };
                    self.framed = true;
                    self.parsed += header_length + length;
                    return (gained, found);
                }
            }
        }
    }

    /// After the end of the service's bytes: whether they were the beginning of an HTTP answer.
    pub(crate) fn is_http_cut_short(&self) -> bool {
        let rest = bytes(&self.buffer, self.parsed..self.filled);
        !self.framed && rest.starts_with(HTTP)
    }

    /// Whether the bytes end within a frame.
    pub(crate) fn is_within_frame(&self) -> bool {
        self.frame_left > 0 || self.parsed < self.filled
    }

    /// Whether there is payload for the local side.
    pub(crate) fn has_payload(&self) -> bool {
        !self.payload.is_empty()
    }

    /// Payload for the local side, ready for a vectored write.
    pub(crate) fn payload(&self) -> Vec<IoSlice<'_>> {
        let ranges = self.payload.iter().take(MOST_SLICES).cloned();
        ranges.map(|range| IoSlice::new(bytes(&self.buffer, range))).collect()
    }

    /// `count` bytes of [`Inbox::payload`] were delivered.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.payload.front_mut() {
            if count < first.len() {
                first.start += count;
                return;
            }
            count -= first.len();
            self.payload.pop_front();
        }
    }

    /// Forgets payload that nobody will take.
    pub(crate) fn discard_payload(&mut self) {
        self.payload.clear();
    }

    /// Bytes of memory in use.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn memory(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
            + self.payload.capacity() * size_of::<Range<usize>>()
    }

    /// Marks the payload of the current frame that is in the buffer; how much that is.
    fn take_payload(&mut self) -> usize {
        let available = self.filled - self.parsed;
        let count = usize::try_from(self.frame_left).map_or(available, |left| left.min(available));
        if count > 0 {
            let range = self.parsed..self.parsed + count;
            match self.payload.back_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => self.payload.push_back(range),
            }
            self.parsed += count;
            self.frame_left -= count as u64;
        }
        count
    }
}

/// That part of what is in the buffer.
fn bytes(buffer: &Option<Buffer>, range: Range<usize>) -> &[u8] {
    buffer.as_ref().and_then(|buffer| buffer.get(range)).unwrap_or_default()
}

/// What RFC 6455 does not allow a server to send. Text and continuation frames are taken as bytes
/// (protocol.md §3 step 3).
fn breach(header: &FrameHeader, length: u64) -> Option<&'static str> {
    let control = matches!(header.opcode, OpCode::Control(_));
    if header.rsv1 || header.rsv2 || header.rsv3 {
        Some("a frame with reserved bits set (section 5.2)")
    } else if header.mask.is_some() {
        Some("a masked frame from the service (section 5.1)")
    } else if control && (length > 125 || !header.is_final) {
        Some("a control frame that is too long or fragmented (section 5.5)")
    } else if length > i64::MAX as u64 {
        Some("a frame length with the highest bit set (section 5.2)")
    } else if matches!(header.opcode, OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)))
    {
        Some("a frame of an unknown kind (section 5.2)")
    } else {
        None
    }
}

/// RFC 6455 §5.5.1 and §7.4.1: 1005 stands for a close frame without a code.
fn close(payload: &[u8]) -> Found {
    match payload {
        [] => Found::Close(1005, String::new()),
        [_] => Found::Malformed("a close frame with half a code (section 5.5.1)"),
        [high, low, reason @ ..] => Found::Close(
            u16::from_be_bytes([*high, *low]),
            String::from_utf8_lossy(reason).chars().filter(|c| !c.is_control()).collect(),
        ),
    }
}

/// The first bytes of a raw HTTP answer (protocol.md §4, first row).
const HTTP: &[u8] = b"HTTP/1.";

enum Http {
    No,
    Undecided,
    Status(Option<u16>),
}

/// Whether the first bytes from the service are a raw HTTP answer, however they are cut.
fn http_head(bytes: &[u8]) -> Http {
    let known = bytes.len().min(HTTP.len());
    if bytes.get(..known) != HTTP.get(..known) {
        return Http::No;
    }
    // "HTTP/1.1 400": nine bytes to the status, three digits.
    match bytes.get(9..12) {
        None => Http::Undecided,
        Some(digits) => Http::Status(std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `size`; what the local side got, and what was found.
    fn feed(bytes: &[u8], size: usize) -> (Vec<u8>, Vec<Found>) {
        let mut inbox = Inbox::default();
        let (mut out, mut all) = (Vec::new(), Vec::new());
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = inbox.space();
            let count = size.min(rest.len()).min(space.len());
            space[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            inbox.fill(count);
            loop {
                let (_, found) = inbox.next();
                let over = matches!(found, Found::Http(_) | Found::Malformed(_));
                if found != Found::Nothing {
                    all.push(found);
                } else {
                    break;
                }
                if over {
                    return (out, all);
                }
            }
            let payload: Vec<u8> = inbox.payload().iter().flat_map(|slice| slice.to_vec()).collect();
            // Delivered in two steps, as a socket with little room does.
            inbox.advance(payload.len() / 2);
            inbox.advance(payload.len() - payload.len() / 2);
            assert!(!inbox.has_payload());
            out.extend(payload);
        }
        (out, all)
    }

    #[test]
    fn frames_however_they_are_cut() {
        let check = |bytes: &[u8], payload: &[u8], found: &[Found]| {
            for size in 1..=bytes.len() {
                let (got, all) = feed(bytes, size);
                assert_eq!(got, payload, "{bytes:x?} in pieces of {size}");
                assert_eq!(all, found, "{bytes:x?} in pieces of {size}");
            }
        };
        // RFC 6455 §5.7: unmasked text, fragmented text, unmasked ping.
        check(&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], b"Hello", &[]);
        check(&[0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f], b"Hello", &[]);
        check(&[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], b"", &[Found::Ping(b"Hello".to_vec())]);
        check(&[0x8a, 0x00, 0x82, 0x01, 0x41], b"A", &[Found::Pong]);
        check(&[0x82, 0x00, 0x82, 0x01, 0x41], b"A", &[]);
        check(&[0x88, 0x00], b"", &[Found::Close(1005, String::new())]);
        check(&[0x82, 0x01, 0x41, 0x88, 0x04, 3, 0xe8, b'o', b'k'], b"A", &[Found::Close(1000, "ok".into())]);
        let mut long = vec![0x82, 0x7e, 0x01, 0x00];
        long.extend([7; 256]);
        check(&long, &[7; 256], &[]);
        let mut longer = vec![0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
        longer.extend(vec![7; 65_536]);
        for size in [1000, 65_536, 70_000] {
            assert_eq!(feed(&longer, size).0.len(), 65_536);
        }
    }

    #[test]
    fn a_raw_http_answer_however_it_is_cut() {
        let page = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>";
        for size in 1..=page.len() {
            assert_eq!(feed(page, size), (vec![], vec![Found::Http(Some(400))]), "in pieces of {size}");
        }
        assert_eq!(feed(b"HTTP/1.1 xyz", 3).1, [Found::Http(None)]);
        let mut inbox = Inbox::default();
        inbox.space()[..8].copy_from_slice(b"HTTP/1.1");
        inbox.fill(8);
        assert_eq!(inbox.next().1, Found::Nothing);
        assert!(inbox.is_http_cut_short());
        // Behind a frame it is no HTTP, but a frame with a reserved bit.
        assert!(matches!(feed(b"\x82\x01AHTTP/1.1 400 ", 4).1.as_slice(), [Found::Malformed(_)]));
    }

    #[test]
    fn what_the_rfc_forbids() {
        for bytes in [
            &[0xc2, 0x01, 0x41][..],
            &[0x48, 0x01, 0x41],
            &[0x82, 0x81, 1, 2, 3, 4, 0x41],
            &[0x83, 0x01, 0x41],
            &[0x8b, 0x00],
            &[0x09, 0x00],
            &[0x89, 0x7e, 0, 126],
            &[0x88, 0x01, 3],
            &[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(matches!(feed(bytes, 1).1.as_slice(), [Found::Malformed(_)]), "{bytes:x?}");
        }
    }

    #[test]
    fn memory_is_bounded_while_nobody_takes_the_payload() {
        let mut inbox = Inbox::default();
        // A frame of 2^40 bytes, of which nobody takes any.
        let header = [0x82, 0x7f, 0, 0, 1, 0, 0, 0, 0, 0];
        inbox.space()[..header.len()].copy_from_slice(&header);
        inbox.fill(header.len());
        let mut total = header.len();
        loop {
            inbox.next();
            let count = inbox.space().len().min(1000);
            if count == 0 {
                break;
            }
            inbox.fill(count);
            total += count;
        }
        // The header is gone as soon as it is understood.
        assert_eq!(total, header.len() + Buffer::SIZE);
        assert_eq!(inbox.memory() - inbox.payload.capacity() * size_of::<Range<usize>>(), Buffer::SIZE);
    }
}
