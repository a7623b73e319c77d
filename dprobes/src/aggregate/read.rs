//! Reading: the tables of all CPUs, merged by key, while they are written.

use alloc::vec::Vec;
use core::cmp::Ordering as Order;
use core::sync::atomic::{AtomicU64, Ordering};

use super::average::{self, ATTEMPTS};
use super::map::Map;
use super::spec::Kind;
use crate::mem::OutOfMemory;
use crate::sort;

/// What a reading has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Entries written.
    pub count: usize,
    /// Entries after those, for which there was no room.
    pub left: usize,
}

/// Why a map could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// There is no memory to put the entries in order.
    NoMemory,
    /// An average was updated in the middle of each of [`ATTEMPTS`] attempts at reading it. Reading again will succeed sooner or later.
    Busy,
}

impl From<OutOfMemory> for ReadError {
    fn from(_: OutOfMemory) -> Self {
        ReadError::NoMemory
    }
}

/// Where an entry is.
#[derive(Clone, Copy)]
struct Place {
    cpu: u32,
    number: u32,
}

impl Map {
    /// Writes the entries of all CPUs, merged by key, to `out`: as many as fit, in ascending order of their keys as words without sign. With
    /// `after`, only those whose keys are greater: what was left is read on from the last keys.
    ///
    /// An entry is its keys, then its value, in words of eight bytes, little-endian; [`Spec::entry_bytes`](super::Spec::entry_bytes) in all.
    /// The value is, by kind:
    ///
    /// | kind | words |
    /// |---|---|
    /// | count | how many |
    /// | sum | the sum, signed |
    /// | min, max | the value, signed |
    /// | avg | how many; the sum, signed, 128 bits, low half first |
    /// | log2 | 65 counts: of values below 0, of 0, of 1, of 2..=3, of 4..=7, ..., of 2^62..=2^63-1 |
    /// | linear | counts: of values below `min`, of each range, of values from `max` on |
    ///
    /// Takes memory: for the control path. `after` has as many keys as the map; with another number it is not found where to go on, and
    /// reading begins at the first.
    ///
    /// # Errors
    /// [`ReadError`]. What is in `out` then is of no use.
    pub fn read(&self, after: Option<&[u64]>, out: &mut [u8]) -> Result<Reading, ReadError> {
        let mut places = self.places(after.filter(|after| after.len() == self.spec.keys()))?;
        // Keys never change once they are seen, so that the order stands.
        sort::by(&mut places, |a, b| self.keys(*a).cmp(self.keys(*b)));
        let mut groups = places.chunk_by(|a, b| self.keys(*a).cmp(self.keys(*b)) == Order::Equal);
        let (chunks, _) = out.as_chunks_mut::<8>();
        let mut count = 0;
        for entry in chunks.chunks_exact_mut(self.spec.entry_bytes() / 8) {
            let Some(group) = groups.next() else { break };
            self.merge(group, entry)?;
            count += 1;
        }
        Ok(Reading {
            count,
            left: groups.count(),
        })
    }

    /// Every entry that there is now.
    fn places(&self, after: Option<&[u64]>) -> Result<Vec<Place>, ReadError> {
        let mut places: Vec<Place> = Vec::new();
        for (cpu, table) in (0..).zip(&self.tables) {
            let len = table.len();
            places.try_reserve(len).map_err(|_| OutOfMemory)?;
            let all = (0..len as u32).map(|number| Place { cpu, number });
            let wanted = |place: &Place| {
                after.is_none_or(|after| self.keys(*place).cmp(after.iter().copied()) == Order::Greater)
            };
            // Room for all of them was reserved.
            places.extend(all.filter(wanted));
        }
        Ok(places)
    }

    fn words(&self, place: Place) -> (&[AtomicU64], &[AtomicU64]) {
        let table = self.tables.get(place.cpu as usize);
        let found = table.and_then(|table| table.get(&self.spec, place.number as usize));
        found.unwrap_or((&[], &[]))
    }

    fn keys(&self, place: Place) -> impl Iterator<Item = u64> {
        self.words(place).0.iter().map(|key| key.load(Ordering::Relaxed))
    }

    /// Writes one entry out of those of several CPUs with the same keys.
    fn merge(&self, group: &[Place], entry: &mut [[u8; 8]]) -> Result<(), ReadError> {
        let Some((keys, value)) = entry.split_at_mut_checked(self.spec.keys()) else {
            return Ok(());
        };
        if let Some(first) = group.first() {
            for (to, key) in keys.iter_mut().zip(self.keys(*first)) {
                *to = key.to_le_bytes();
            }
        }
        let mut average = (0, 0);
        for (nth, place) in group.iter().enumerate() {
            let (_, words) = self.words(*place);
            if self.spec.kind() == Kind::Avg {
                let (count, sum) = average::read(words, ATTEMPTS).ok_or(ReadError::Busy)?;
                average = (u64::wrapping_add(average.0, count), i128::wrapping_add(average.1, sum));
                continue;
            }
            for (to, word) in value.iter_mut().zip(words) {
                let word = word.load(Ordering::Relaxed);
                let merged = match (nth, u64::from_le_bytes(*to)) {
                    (0, _) => word,
                    (_, old) => combine(self.spec.kind(), old, word),
                };
                *to = merged.to_le_bytes();
            }
        }
        if let (Kind::Avg, [to_count, low, high]) = (self.spec.kind(), value) {
            let (count, sum) = average;
            *to_count = u64::to_le_bytes(count);
            *low = (sum as u64).to_le_bytes();
            *high = ((sum >> 64) as u64).to_le_bytes();
        }
        Ok(())
    }
}

/// One word of a value out of those of two CPUs.
fn combine(kind: Kind, a: u64, b: u64) -> u64 {
    match kind {
        Kind::Min => a.cast_signed().min(b.cast_signed()).cast_unsigned(),
        Kind::Max => a.cast_signed().max(b.cast_signed()).cast_unsigned(),
        Kind::Count | Kind::Sum | Kind::Avg | Kind::Log2 | Kind::Linear(_) => a.wrapping_add(b),
    }
}
