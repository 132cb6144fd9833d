//! WebSocket frames (RFC 6455 section 5): reading a client's so that nothing about them is hidden,
//! and writing the server's. Headers are parsed and formatted by tungstenite. What a frame leads to
//! is `tunnel.rs`.

use std::io::Cursor;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// What comes next on the wire.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A frame begins: its header and the length of its payload. What it carries follows.
    Header(FrameHeader, u64),
    /// Payload of a data frame, unmasked; as much as has arrived.
    Data(BytesMut),
    /// A whole ping, to be answered with the same payload.
    Ping(Bytes),
    /// A whole pong.
    Pong(Bytes),
    /// A whole close frame and the status code in it.
    Close(Option<u16>),
}

/// Cuts a client's bytes into frames, however they arrive.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    opcode: OpCode,
    mask: [u8; 4],
    left: u64,
}

/// The client's bytes are no frame that RFC 6455 allows.
#[derive(Debug, thiserror::Error)]
#[error("not a frame that RFC 6455 allows")]
pub(crate) struct Broken;

impl FrameReader {
    /// The next piece, taken from the front of `wire`; none when more bytes are needed.
    pub(crate) fn next(&mut self, wire: &mut BytesMut) -> Result<Option<Piece>, Broken> {
        let Some(current) = &mut self.current else {
            return self.header(wire);
        };
        match current.opcode {
            OpCode::Data(_) => {
                let ready = usize::try_from(current.left).unwrap_or(usize::MAX).min(wire.len());
                if ready == 0 {
                    return Ok(None);
                }
                let mut payload = wire.split_to(ready);
                unmask(&mut payload, &mut current.mask);
                current.left -= ready as u64;
                if current.left == 0 {
                    self.current = None;
                }
                Ok(Some(Piece::Data(payload)))
            }
            OpCode::Control(control) => {
                let length = usize::try_from(current.left).map_err(|_| Broken)?;
                if wire.len() < length {
                    return Ok(None);
                }
                let mut payload = wire.split_to(length);
                unmask(&mut payload, &mut current.mask);
                self.current = None;
                match control {
                    Control::Ping => Ok(Some(Piece::Ping(payload.freeze()))),
                    Control::Pong => Ok(Some(Piece::Pong(payload.freeze()))),
                    Control::Close => {
                        Ok(Some(Piece::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code)))))
                    }
                    Control::Reserved(_) => Err(Broken),
                }
            }
        }
    }

    fn header(&mut self, wire: &mut BytesMut) -> Result<Option<Piece>, Broken> {
        let mut cursor = Cursor::new(&wire[..]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Broken)? else {
            return Ok(None);
        };
        let taken = usize::try_from(cursor.position()).map_err(|_| Broken)?;
        drop(wire.split_to(taken));
        if matches!(header.opcode, OpCode::Control(_)) && length > MAX_CONTROL {
            return Err(Broken);
        }
        if length > 0 || matches!(header.opcode, OpCode::Control(_)) {
            let mask = header.mask.unwrap_or_default();
            self.current = Some(Current { opcode: header.opcode, mask, left: length });
        }
        Ok(Some(Piece::Header(header, length)))
    }
}

/// How bytes become frames towards the client.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    /// Largest payload, in bytes; at least 1.
    pub(crate) frame_bytes: usize,
    /// What a fault makes of it; none in ordinary life.
    pub(crate) rare: Option<Rare>,
}

/// What is rare about frames towards the client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    /// Text frames instead of binary ones.
    pub(crate) text: bool,
    /// Each message in two frames.
    pub(crate) fragmented: bool,
    /// An empty message before each message.
    pub(crate) empty: bool,
    /// A ping before each frame.
    pub(crate) pings: bool,
    /// Number of the next ping, which is its payload: eight bytes, big endian.
    pub(crate) next_ping: u64,
}

impl Style {
    /// Appends data frames.
    pub(crate) fn write(&mut self, payload: &[u8], out: &mut BytesMut) {
        for chunk in payload.chunks(self.frame_bytes) {
            match &mut self.rare {
                None => write_frame(OpCode::Data(Data::Binary), Last::Yes, chunk, out),
                Some(rare) => rare.write(chunk, out),
            }
        }
    }
}

impl Rare {
    fn write(&mut self, message: &[u8], out: &mut BytesMut) {
        let data = OpCode::Data(if self.text { Data::Text } else { Data::Binary });
        if self.empty {
            write_frame(data, Last::Yes, b"", out);
        }
        self.ping(out);
        if !self.fragmented {
            return write_frame(data, Last::Yes, message, out);
        }
        let (first, second) = message.split_at(message.len() / 2);
        write_frame(data, Last::No, first, out);
        self.ping(out);
        write_frame(OpCode::Data(Data::Continue), Last::Yes, second, out);
    }

    fn ping(&mut self, out: &mut BytesMut) {
        if self.pings {
            write_frame(OpCode::Control(Control::Ping), Last::Yes, &self.next_ping.to_be_bytes(), out);
            self.next_ping += 1;
        }
    }
}

/// Appends the first bytes of a binary frame whose rest is never written.
pub(crate) fn write_truncated(out: &mut BytesMut) {
    let from = out.len();
    write_frame(OpCode::Data(Data::Binary), Last::Yes, &[0; 100], out);
    out.truncate(from + 12);
}

/// Appends a pong.
pub(crate) fn write_pong(payload: &[u8], out: &mut BytesMut) {
    write_frame(OpCode::Control(Control::Pong), Last::Yes, payload, out);
}

/// Appends a close frame.
pub(crate) fn write_close(code: u16, out: &mut BytesMut) {
    write_frame(OpCode::Control(Control::Close), Last::Yes, &code.to_be_bytes(), out);
}

/// RFC 6455 section 5.5: payload of a control frame.
const MAX_CONTROL: u64 = 125;

/// FIN: whether a frame is the last one of its message.
#[derive(PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

fn write_frame(opcode: OpCode, last: Last, payload: &[u8], out: &mut BytesMut) {
    let header = FrameHeader { opcode, is_final: last == Last::Yes, ..FrameHeader::default() };
    // Writing to memory can't fail.
    let _ = header.format(payload.len() as u64, &mut out.writer());
    out.extend_from_slice(payload);
}

/// RFC 6455 section 5.3. Turns the mask so that it fits the byte after the payload.
fn unmask(payload: &mut [u8], mask: &mut [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(wide.to_ne_bytes()) {
            *byte ^= key;
        }
    }
    let rest = words.into_remainder();
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 5.7: a single-frame masked text message "Hello".
    const MASKED_HELLO: &[u8] = &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

    /// What a sequence of bytes means, fed in steps of that size.
    fn read(bytes: &[u8], step: usize) -> String {
        let mut reader = FrameReader::default();
        let mut wire = BytesMut::new();
        let mut seen = String::new();
        for part in bytes.chunks(step) {
            wire.extend_from_slice(part);
            loop {
                match reader.next(&mut wire) {
                    Ok(None) => break,
                    Ok(Some(Piece::Header(header, length))) => {
                        let fin = if header.is_final { "" } else { " more" };
                        seen.push_str(&format!("[{:?}{fin} {length}]", header.opcode));
                    }
                    Ok(Some(Piece::Data(data))) => seen.push_str(&String::from_utf8_lossy(&data)),
                    Ok(Some(Piece::Ping(payload))) => seen.push_str(&String::from_utf8_lossy(&payload)),
                    Ok(Some(Piece::Pong(payload))) => {
                        seen.push_str(&format!("o{}", String::from_utf8_lossy(&payload)));
                    }
                    Ok(Some(Piece::Close(code))) => seen.push_str(&format!("{code:?}")),
                    Err(Broken) => return seen + "broken",
                }
            }
        }
        seen
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        for step in 1..=bytes.len() {
            assert_eq!(read(bytes, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn literals_of_rfc_6455() {
        check(MASKED_HELLO, "[Data(TEXT) 5]Hello".replace("TEXT", "Text").as_str());
        check(&[0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], "[Control(Ping) 5]Hello");
        check(
            &[0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f],
            "[Data(Text) more 3]Hel[Data(Continue) 2]lo",
        );
        check(&[0x88, 0x82, 0x00, 0x00, 0x00, 0x00, 0x03, 0xe8], "[Control(Close) 2]Some(1000)");
        check(&[0x88, 0x80, 1, 2, 3, 4], "[Control(Close) 0]None");
        check(&[0x82, 0x80, 1, 2, 3, 4, 0x8a, 0x80, 1, 2, 3, 4], "[Data(Binary) 0][Control(Pong) 0]o");
        check(&[0x8a, 0x81, 1, 2, 3, 4, b'x' ^ 1], "[Control(Pong) 1]ox");
    }

    #[test]
    fn what_rfc_6455_forbids() {
        assert_eq!(read(&[0x83, 0x80, 1, 2, 3, 4], 1), "broken");
        assert_eq!(read(&[0x89, 0xfe, 0x00, 0x7e, 1, 2, 3, 4], 8), "broken");
    }

    #[test]
    fn masks_turn_across_cuts() {
        let plain: Vec<u8> = (0..200).collect();
        let key = [0x11, 0x22, 0x33, 0x44];
        let mut bytes = vec![0x82, 0xfe, 0x00, 0xc8];
        bytes.extend_from_slice(&key);
        bytes.extend(plain.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
        for step in 1..40 {
            let mut reader = FrameReader::default();
            let mut wire = BytesMut::new();
            let mut seen = Vec::new();
            for part in bytes.chunks(step) {
                wire.extend_from_slice(part);
                while let Some(piece) = reader.next(&mut wire).unwrap() {
                    if let Piece::Data(data) = piece {
                        seen.extend_from_slice(&data);
                    }
                }
            }
            assert_eq!(seen, plain, "in steps of {step}");
        }
    }

    #[test]
    fn frames_of_the_server() {
        let mut out = BytesMut::new();
        Style { frame_bytes: 3, rare: None }.write(b"Hello", &mut out);
        write_close(1000, &mut out);
        write_pong(b"x", &mut out);
        let expected =
            [0x82, 0x03, b'H', b'e', b'l', 0x82, 0x02, b'l', b'o', 0x88, 0x02, 0x03, 0xe8, 0x8a, 0x01, b'x'];
        assert_eq!(out[..], expected);
    }

    #[test]
    fn rare_frames() {
        #[track_caller]
        fn check(rare: Rare, expected: &[u8]) {
            let mut out = BytesMut::new();
            Style { frame_bytes: 4, rare: Some(rare) }.write(b"Hello", &mut out);
            assert_eq!(out[..], *expected);
        }
        check(Rare { text: true, ..Rare::default() }, b"\x81\x04Hell\x81\x01o");
        check(Rare { empty: true, ..Rare::default() }, b"\x82\x00\x82\x04Hell\x82\x00\x82\x01o");
        let fragmented = Rare { fragmented: true, ..Rare::default() };
        check(fragmented.clone(), b"\x02\x02He\x80\x02ll\x02\x00\x80\x01o");
        check(
            Rare { pings: true, next_ping: 1, ..fragmented },
            &[
                b"\x89\x08\0\0\0\0\0\0\0\x01\x02\x02He\x89\x08\0\0\0\0\0\0\0\x02\x80\x02ll".as_slice(),
                b"\x89\x08\0\0\0\0\0\0\0\x03\x02\x00\x89\x08\0\0\0\0\0\0\0\x04\x80\x01o",
            ]
            .concat(),
        );
        let mut out = BytesMut::new();
        write_truncated(&mut out);
        assert_eq!(out[..], *b"\x82\x64\0\0\0\0\0\0\0\0\0\0");
    }
}
