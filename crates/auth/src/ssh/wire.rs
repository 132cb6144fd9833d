//! SSH's data types (RFC 4251 §5), as far as the agent protocol needs them. It leaves out what they mean.

/// Reads fields from the front of a message; `None` once something is missing.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn uint32(&mut self) -> Option<u32> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*field))
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.uint32()?).ok()?;
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    /// What has not been read.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

pub(super) fn put_uint32(bytes: &mut Vec<u8>, number: usize) {
    // Nothing here is longer than a message, whose bound is 256 KiB.
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

pub(super) fn put_string(bytes: &mut Vec<u8>, field: &[u8]) {
    put_uint32(bytes, field.len());
    bytes.extend_from_slice(field);
}

/// A positive integer: big-endian, with a zero byte before a set top bit.
pub(super) fn mpint(magnitude: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(magnitude.len() + 1);
    if magnitude.first().is_some_and(|first| first & 0x80 != 0) {
        bytes.push(0);
    }
    bytes.extend_from_slice(magnitude);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_out_as_they_went_in_and_not_when_cut() {
        let mut bytes = vec![7];
        put_uint32(&mut bytes, 300);
        put_string(&mut bytes, b"abc");
        assert_eq!(bytes, b"\x07\0\0\x01\x2c\0\0\0\x03abc");
        let read = |bytes| {
            let mut reader = Reader::new(bytes);
            Some((reader.byte()?, reader.uint32()?, reader.string()?, reader.rest()))
        };
        assert_eq!(read(&bytes), Some((7, 300, &b"abc"[..], &b""[..])));
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Reader::new(b"\xff\xff\xff\xff").string(), None);
    }

    #[test]
    fn a_positive_number_keeps_its_sign() {
        assert_eq!(mpint(&[0x80, 1]), [0, 0x80, 1]);
        assert_eq!(mpint(&[0x7f, 1]), [0x7f, 1]);
    }
}
