//! The memory that bytes pass through: large buffers, lent for as long as bytes are in them. Leaves out what the
//! bytes are.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A large buffer, lent by the thread until it is dropped.
///
/// A fast connection wants hundreds of kilobytes, and an idle one wants none: whoever holds no bytes gives the
/// buffer back, so that memory follows the connections that are moving bytes right now. What was in it before
/// is still there.
pub struct Buffer {
    bytes: Box<[u8]>,
}

impl Buffer {
    /// Bytes in each buffer: sixteen full TLS records (RFC 8446 §5.1), so that one system call moves as much as
    /// Linux hands out on a fast line.
    pub const SIZE: usize = 256 * 1024;

    /// A buffer that was used before, or a new one.
    #[must_use]
    pub fn lend() -> Buffer {
        let bytes = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        // Zeroed by the kernel, page by page as they are touched.
        Buffer { bytes: bytes.unwrap_or_else(|| vec![0; Buffer::SIZE].into_boxed_slice()) }
    }

    /// A buffer that begins with `first`, larger than the others where those need it.
    #[must_use]
    pub fn beginning_with(first: &[u8]) -> Buffer {
        let mut buffer = Buffer::lend();
        match buffer.get_mut(..first.len()) {
            Some(place) => place.copy_from_slice(first),
            None => buffer = Buffer { bytes: first.into() },
        }
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that is ending keeps nothing.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT && bytes.len() == Buffer::SIZE {
                free.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Free buffers that a thread keeps: what one connection uses at most in one turn, two in each direction.
const KEPT: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_a_few() {
        let mut first = Buffer::lend();
        first[7] = 7;
        let place = first.as_ptr();
        drop(first);
        let again = Buffer::lend();
        assert_eq!((again.as_ptr(), again[7], again.len()), (place, 7, Buffer::SIZE));
        let many: Vec<Buffer> = (0..2 * KEPT).map(|_| Buffer::lend()).collect();
        drop((again, many));
        assert_eq!(FREE.with(|free| free.borrow().len()), KEPT);
        let large = Buffer::beginning_with(&[9; Buffer::SIZE + 1]);
        assert_eq!((large.len(), large[Buffer::SIZE]), (Buffer::SIZE + 1, 9));
        let small = Buffer::beginning_with(&[9; 3]);
        assert_eq!((small.len(), &small[..3]), (Buffer::SIZE, &[9; 3][..]));
        drop((large, small));
        assert!(FREE.with(|free| free.borrow().iter().all(|bytes| bytes.len() == Buffer::SIZE)));
    }
}
