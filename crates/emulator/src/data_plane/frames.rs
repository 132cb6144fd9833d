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
    Pong,
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
                    Control::Pong => Ok(Some(Piece::Pong)),
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

/// Appends binary frames of at most `frame_bytes` each.
pub(crate) fn write_binary(payload: &[u8], frame_bytes: usize, out: &mut BytesMut) {
    for chunk in payload.chunks(frame_bytes) {
        write_frame(OpCode::Data(Data::Binary), chunk, out);
    }
}

/// Appends a pong.
pub(crate) fn write_pong(payload: &[u8], out: &mut BytesMut) {
    write_frame(OpCode::Control(Control::Pong), payload, out);
}

/// Appends a close frame.
pub(crate) fn write_close(code: u16, out: &mut BytesMut) {
    write_frame(OpCode::Control(Control::Close), &code.to_be_bytes(), out);
}

/// RFC 6455 section 5.5: payload of a control frame.
const MAX_CONTROL: u64 = 125;

fn write_frame(opcode: OpCode, payload: &[u8], out: &mut BytesMut) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
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
                    Ok(Some(Piece::Pong)) => seen.push('o'),
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
        write_binary(b"Hello", 3, &mut out);
        write_close(1000, &mut out);
        write_pong(b"x", &mut out);
        let expected =
            [0x82, 0x03, b'H', b'e', b'l', 0x82, 0x02, b'l', b'o', 0x88, 0x02, 0x03, 0xe8, 0x8a, 0x01, b'x'];
        assert_eq!(out[..], expected);
    }
}
