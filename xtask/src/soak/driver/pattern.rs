//! The bytes that are carried: each place of each stream has its own, so that one that is lost, doubled, moved or
//! another stream's shows. It leaves out who sends them.

/// One direction of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pattern(u64);

impl Pattern {
    pub(crate) fn to_vm(connection: u64) -> Pattern {
        Pattern(2 * connection)
    }

    pub(crate) fn to_local(connection: u64) -> Pattern {
        Pattern(2 * connection + 1)
    }

    /// The bytes from `offset` on.
    pub(crate) fn fill(self, offset: u64, buffer: &mut [u8]) {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let word = self.word(at / 8).to_le_bytes();
            let skip = (at % 8) as usize;
            let count = (8 - skip).min(rest.len());
            rest[..count].copy_from_slice(&word[skip..skip + count]);
            at += count as u64;
            rest = &mut rest[count..];
        }
    }

    /// Where `bytes`, which stand at `offset`, are not the right ones.
    pub(crate) fn differs(self, offset: u64, bytes: &[u8], scratch: &mut Vec<u8>) -> Option<u64> {
        scratch.resize(bytes.len(), 0);
        self.fill(offset, scratch);
        if scratch == bytes {
            return None;
        }
        let place = scratch.iter().zip(bytes).position(|(right, is)| right != is);
        place.map(|place| offset + place as u64)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): a good mixture of a counter, fast.
    fn word(self, counter: u64) -> u64 {
        let mut word =
            (self.0 << 40).wrapping_add(counter).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}
