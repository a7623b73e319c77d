//! Elements being written, as far as they fit.

use zerocopy::{FromZeros, Immutable, KnownLayout};

use crate::record::element::{self, PREFIX, prefix};

/// Elements: `len` bytes behind the first `HEAD`, which are room for what stands before them.
#[derive(Debug, FromZeros, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Buffer<const HEAD: usize, const SIZE: usize> {
    pub(super) len: usize,
    pub(super) bytes: [u8; SIZE],
}

impl<const HEAD: usize, const SIZE: usize> Buffer<HEAD, SIZE> {
    pub(super) const fn new() -> Self {
        Self {
            len: 0,
            bytes: [0; SIZE],
        }
    }

    /// The elements.
    pub(super) fn elements(&self) -> &[u8] {
        self.bytes.get(HEAD..HEAD.wrapping_add(self.len)).unwrap_or(&[])
    }

    /// Bytes that elements of `max` bytes still take.
    pub(super) fn room(&self, max: u16) -> usize {
        usize::from(max).saturating_sub(self.len)
    }

    /// The bytes from `skip` behind the elements on, `count` of them.
    pub(super) fn unused(&mut self, skip: usize, count: usize) -> Option<&mut [u8]> {
        let start = HEAD.wrapping_add(self.len).wrapping_add(skip);
        self.bytes.get_mut(start..start.wrapping_add(count))
    }

    /// Appends bytes; the caller has made sure of the room.
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(to) = self.unused(0, N).and_then(|to| to.first_chunk_mut::<N>()) {
            *to = bytes;
            self.len += N;
        }
    }

    /// Appends an element of words if all of it fits.
    pub(super) fn put_words(&mut self, max: u16, token: u8, words: impl ExactSizeIterator<Item = u64>) -> bool {
        let fits = self.room(max) >= PREFIX + 8 * words.len();
        if fits {
            self.put(prefix(token, words.len() as u16));
            words.for_each(|word| self.put(word.to_le_bytes()));
        }
        fits
    }

    /// Cuts the elements to a length that is the beginning of one or their end; false when it is not.
    pub(super) fn cut(&mut self, len: u64) -> bool {
        let Ok(len) = usize::try_from(len) else { return false };
        let good = len <= self.len && element::is_boundary(self.elements(), len);
        if good {
            self.len = len;
        }
        good
    }
}
