//! Bytes on their way from the local side to the service: WebSocket frames built in place, so that many small
//! frames leave in one write (design.md §2, "Frames"). It leaves out reading, writing and the choice of when.

use std::io::{Cursor, IoSliceMut};

use bastide_net::Buffer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Payload bytes gathered before a write: 16 frames of 4,096 bytes, one TLS write (design.md §2).
pub(crate) const BATCH: usize = 64 * 1024;

/// More slots than this make `readv` slower, not faster.
const MOST_SLOTS: usize = 64;

/// Room behind the data for control frames: four of the largest (RFC 6455 §5.5: 125 bytes of payload behind a
/// header of 6), so that a ping is answered although data waits.
const CONTROL_ROOM: usize = 4 * LARGEST_CONTROL;
const LARGEST_CONTROL: usize = 6 + 125;

/// A batch of frames being filled, or being written.
///
/// The buffer is a row of slots, each a frame's header and the place of its payload. Local bytes are read right
/// into those places ([`Outbox::slots`]); [`Outbox::seal`] adds headers and masks.
pub(crate) struct Outbox {
    /// Lent while there are bytes in it.
    buffer: Option<Buffer>,
    max_frame: usize,
    slots: usize,
    /// The bytes not yet written are `start..end`.
    start: usize,
    end: usize,
    masks: StdRng,
}

impl Outbox {
    /// An empty outbox. `seed` must come from the operating system's random numbers (RFC 6455 §5.3).
    pub(crate) fn new(max_frame: u16, seed: [u8; 32]) -> Self {
        let max_frame = usize::from(max_frame.max(1));
        Self {
            buffer: None,
            max_frame,
            slots: (BATCH / max_frame).clamp(1, MOST_SLOTS),
            start: 0,
            end: 0,
            masks: StdRng::from_seed(seed),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The places for payload, in order. Only an empty outbox has any.
    pub(crate) fn slots(&mut self) -> Vec<IoSliceMut<'_>> {
        if !self.is_empty() {
            return Vec::new();
        }
        let (header, stride) = self.layout();
        let buffer = self.buffer.get_or_insert_with(Buffer::lend);
        let data = buffer.get_mut(..self.slots * stride).unwrap_or_default();
        data.chunks_exact_mut(stride).filter_map(|slot| slot.get_mut(header..)).map(IoSliceMut::new).collect()
    }

    /// Copies what fits of `bytes` into the slots and seals it; how many bytes that were.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        for mut slot in self.slots() {
            let (now, later) = rest.split_at(rest.len().min(slot.len()));
            if let Some(place) = slot.get_mut(..now.len()) {
                place.copy_from_slice(now);
            }
            rest = later;
        }
        let count = bytes.len() - rest.len();
        self.seal(count);
        count
    }

    /// The payload in the slots before it is sealed: `count` bytes, appended to `copy`.
    pub(crate) fn copy_unsealed(&self, count: usize, copy: &mut Vec<u8>) {
        let (header, stride) = self.layout();
        let mut left = count;
        for slot in self.buffer.iter().flat_map(|buffer| buffer.chunks_exact(stride)) {
            let payload = slot.get(header..).unwrap_or_default();
            let payload = payload.get(..left.min(payload.len())).unwrap_or_default();
            copy.extend_from_slice(payload);
            left -= payload.len();
            if left == 0 {
                break;
            }
        }
    }

    /// Makes frames of the first `count` payload bytes in the slots.
    pub(crate) fn seal(&mut self, count: usize) {
        let (header, stride) = self.layout();
        let mut left = count;
        let mut end = 0;
        for slot in self.buffer.iter_mut().flat_map(|buffer| buffer.chunks_exact_mut(stride)) {
            if left == 0 {
                break;
            }
            let length = left.min(self.max_frame);
            let own_header = header_length(length);
            // Only the last frame can have the shorter header; its payload moves up to it, so that the batch
            // stays one piece.
            slot.copy_within(header..header + length, own_header);
            let mask = self.masks.next_u32().to_ne_bytes();
            write_header(slot, OpCode::Data(Data::Binary), length, mask);
            apply_mask(slot.get_mut(own_header..own_header + length).unwrap_or_default(), mask);
            left -= length;
            end += own_header + length;
        }
        self.start = 0;
        self.end = end;
    }

    /// Appends a control frame. A pong or ping for which there is no room is left out: the peer will not have
    /// read the one before either. There is always room for one close frame.
    pub(crate) fn push_control(&mut self, control: Control, payload: &[u8]) {
        let (_, stride) = self.layout();
        let limit = self.slots * stride + CONTROL_ROOM;
        let reserved = if control == Control::Close { 0 } else { LARGEST_CONTROL };
        let length = payload.len().min(125);
        let size = 6 + length;
        if self.end + size + reserved > limit {
            return;
        }
        let buffer = self.buffer.get_or_insert_with(Buffer::lend);
        let mask = self.masks.next_u32().to_ne_bytes();
        if let (Some(place), Some(payload)) =
            (buffer.get_mut(self.end..self.end + size), payload.get(..length))
        {
            write_header(place, OpCode::Control(control), length, mask);
            if let Some(body) = place.get_mut(6..) {
                body.copy_from_slice(payload);
                apply_mask(body, mask);
            }
            self.end += size;
        }
    }

    /// What is to be written.
    pub(crate) fn pending(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|buffer| buffer.get(self.start..self.end)).unwrap_or_default()
    }

    /// `count` bytes of [`Outbox::pending`] were written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Gives the buffer back if nothing is in it.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            self.buffer = None;
        }
    }

    /// Forgets what was not written. An empty outbox begins at 0: what its next buffer holds is not its own.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Forgets the frames of which nothing was written. What is left of a half-written one stays: without it,
    /// the service would take the next frame for its payload.
    pub(crate) fn drop_unstarted(&mut self) {
        let mut boundary = 0;
        while boundary < self.start {
            let unsent = self.buffer.as_ref().and_then(|buffer| buffer.get(boundary..self.end));
            let mut frame = Cursor::new(unsent.unwrap_or_default());
            let Ok(Some((_, length))) = FrameHeader::parse(&mut frame) else {
                return;
            };
            // Both are bounded by the buffer that holds the frame.
            boundary += (frame.position() + length) as usize;
        }
        self.end = boundary.max(self.start);
    }

    /// The length of a full frame's header, and of header and payload.
    fn layout(&self) -> (usize, usize) {
        let header = header_length(self.max_frame);
        (header, header + self.max_frame)
    }
}

/// Header of a masked frame with so much payload, at most 65,535 bytes (RFC 6455 §5.2).
fn header_length(payload: usize) -> usize {
    if payload < 126 { 6 } else { 8 }
}

fn write_header(mut place: &mut [u8], opcode: OpCode, length: usize, mask: [u8; 4]) {
    let header = FrameHeader { is_final: true, opcode, mask: Some(mask), ..FrameHeader::default() };
    // Writing to a slice fails only when it is too short, and each caller has made room.
    let written = header.format(length as u64, &mut place);
    debug_assert!(written.is_ok(), "a slot has room for its header");
}

/// RFC 6455 §5.3, eight bytes at a time.
fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_as_the_rfc_does() {
        // RFC 6455 §5.7: a single-frame masked text message "Hello".
        let mut payload = *b"Hello";
        apply_mask(&mut payload, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(payload, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        let mut long = [0u8; 21];
        apply_mask(&mut long, [1, 2, 3, 4]);
        assert_eq!(long, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1]);
    }

    /// Reads frames as a server does, byte by byte from the RFC; panics on anything else.
    fn decode(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let [first, second, rest @ ..] = bytes {
            assert_eq!(first & 0xf0, 0x80, "FIN alone");
            assert_eq!(second & 0x80, 0x80, "masked");
            let (length, rest) = match second & 0x7f {
                126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
                127 => panic!("a frame above 65,535 bytes"),
                short => (usize::from(short), rest),
            };
            assert!(length < 126 || *second & 0x7f == 126, "shortest length");
            let (mask, rest) = rest.split_at(4);
            let payload = rest[..length].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
            frames.push((first & 0x0f, payload));
            bytes = &rest[length..];
        }
        assert!(bytes.is_empty());
        frames
    }

    #[test]
    fn batches_are_whole_frames_in_one_piece() {
        for max_frame in [1, 4, 125, 126, 4096, 65_535] {
            for count in [1, 2, 3, 124, 125, 126, 127, 4095, 4096, 4097, 8192, 8193, 65_000, 65_536] {
                let bytes: Vec<u8> = (0..count).map(|i| (i % 251) as u8).collect();
                let mut outbox = Outbox::new(max_frame, [7; 32]);
                let mut sent = Vec::new();
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    rest = &rest[outbox.put(rest)..];
                    for (opcode, payload) in decode(outbox.pending()) {
                        assert_eq!(opcode, 2);
                        assert!(!payload.is_empty() && payload.len() <= usize::from(max_frame));
                        sent.extend(payload);
                    }
                    outbox.advance(outbox.pending().len());
                }
                assert!(sent == bytes, "{max_frame} {count}");
            }
        }
    }

    #[test]
    fn sixteen_frames_of_four_kibibytes_are_one_write() {
        let mut outbox = Outbox::new(4096, [7; 32]);
        assert_eq!(outbox.put(&[9; 100_000]), 65_536);
        assert_eq!(outbox.pending().len(), 16 * (4096 + 8));
        assert!(outbox.slots().is_empty(), "no room until it is written");
        let mut copy = Vec::new();
        outbox.clear();
        outbox.slots();
        outbox.copy_unsealed(0, &mut copy);
        assert!(copy.is_empty());
    }

    #[test]
    fn control_frames_follow_the_data() {
        let mut outbox = Outbox::new(4096, [7; 32]);
        outbox.put(&[9; 65_536]);
        for _ in 0..9 {
            outbox.push_control(Control::Pong, &[1; 125]);
        }
        outbox.push_control(Control::Close, &1000u16.to_be_bytes());
        let frames = decode(outbox.pending());
        let opcodes: Vec<u8> = frames.iter().map(|(opcode, _)| *opcode).collect();
        assert_eq!(opcodes[16..], [10, 10, 10, 8], "what has no room is left out, but never the close");
        assert_eq!(frames.last().unwrap().1, [3, 232]);
        let mut outbox = Outbox::new(4096, [7; 32]);
        outbox.push_control(Control::Ping, b"");
        assert_eq!(decode(outbox.pending()), [(9, vec![])]);
    }

    #[test]
    fn a_half_written_frame_is_finished_before_the_last_word() {
        for written in [0, 1, 10, 11, 15, 20, 35, 40, 45, 46, 50] {
            let mut outbox = Outbox::new(4, [7; 32]);
            outbox.put(b"aaaabbbbccccdddd");
            outbox.push_control(Control::Pong, b"1234");
            let mut sent = outbox.pending()[..written].to_vec();
            outbox.advance(written);
            outbox.drop_unstarted();
            outbox.push_control(Control::Close, b"");
            sent.extend(outbox.pending());
            let opcodes: Vec<u8> = decode(&sent).iter().map(|(opcode, _)| *opcode).collect();
            let expected = [2, 2, 2, 2, 10].into_iter().take(written.div_ceil(10)).chain([8]);
            assert_eq!(opcodes, expected.collect::<Vec<_>>(), "after {written} bytes");
        }
    }

    #[test]
    fn what_another_connection_left_in_a_buffer_is_not_sent() {
        let mut outbox = Outbox::new(4096, [1; 32]);
        outbox.put(&[7; 100]);
        outbox.advance(outbox.pending().len());
        outbox.rest();
        // Reads as frames of eight bytes, none of which ends where ours did.
        Buffer::lend().fill(0x82);
        assert!(!outbox.slots().is_empty());
        outbox.drop_unstarted();
        assert_eq!(outbox.pending(), b"");
        outbox.push_control(Control::Close, &1000u16.to_be_bytes());
        assert_eq!(decode(outbox.pending().to_vec().as_slice()), [(0x08, vec![0x03, 0xe8])]);
    }

    #[test]
    fn the_mask_changes_with_every_frame() {
        let mut outbox = Outbox::new(4, [7; 32]);
        outbox.put(&[0; 64]);
        let masks: std::collections::HashSet<_> =
            outbox.pending().chunks(10).map(|frame| &frame[2..6]).collect();
        assert_eq!(masks.len(), 16);
    }
}
