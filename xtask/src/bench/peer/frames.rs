//! The few frames that the far end needs (RFC 6455 section 5): rows of binary frames made once and sent over
//! and over, and small masked frames taken apart for an echo. Not a WebSocket: control frames are dropped.

/// Whole binary frames of `payload` bytes each, in one piece of about `total` bytes.
pub(crate) fn row(payload: usize, total: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(total + payload);
    while bytes.len() < total {
        push(&mut bytes, &vec![0x5A; payload]);
    }
    bytes
}

/// Appends an unmasked binary frame.
pub(crate) fn push(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x82);
    match payload.len() {
        short @ 0..126 => out.push(short as u8),
        middle @ 126..65_536 => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Takes a client's whole frames off the front of `bytes` and appends their echo to `out`. Data frames come
/// back; others vanish.
pub(crate) fn echo(bytes: &mut Vec<u8>, out: &mut Vec<u8>) {
    let mut taken = 0;
    while let Some((frame, length)) = bytes.get(taken..).and_then(parse) {
        if let Some(payload) = frame {
            push(out, &payload);
        }
        taken += length;
    }
    bytes.drain(..taken);
}

/// The payload of the first frame, if it is data, and the length of the frame; none when it is not whole.
fn parse(bytes: &[u8]) -> Option<(Option<Vec<u8>>, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        short => (usize::from(short), rest),
    };
    let (mask, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..length)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let whole = bytes.len() - rest.len() + length;
    Some(((first & 0x0f < 8).then_some(payload), whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_the_frame_of_rfc_6455() {
        // Section 5.7: "Hello", masked, then a ping and half a frame.
        let mut bytes = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        bytes.extend([0x89, 0x80, 0, 0, 0, 0, 0x82, 0x85, 0]);
        let mut out = Vec::new();
        echo(&mut bytes, &mut out);
        assert_eq!(out, [0x82, 5, b'H', b'e', b'l', b'l', b'o']);
        assert_eq!(bytes, [0x82, 0x85, 0]);
    }

    #[test]
    fn rows_hold_whole_frames() {
        assert_eq!(row(4096, 65_536).len(), 16 * (4096 + 4));
        assert_eq!(row(65_536, 1).len(), 65_536 + 10);
        assert_eq!(row(1, 1), [0x82, 1, 0x5A]);
    }
}
