//! The table of one CPU: entries in the order of their first update, and an index to find them by.
//!
//! Only the CPU writes. Readers look at the entries, never at the index: an entry is theirs once `len` says so, and its keys do not
//! change any more.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::average;
use super::spec::{Kind, Spec, log2_bucket};
use crate::mem::{self, OutOfMemory};

/// Words in a line. CPUs fetch lines of 64 bytes in pairs; what one writes is apart from what others do.
const LINE_WORDS: usize = 16;

/// Bytes of a line.
pub(super) const LINE_BYTES: usize = LINE_WORDS * 8;

#[derive(Debug)]
#[repr(C, align(128))]
struct Line([AtomicU64; LINE_WORDS]);

const _: () = assert!(size_of::<Line>() == LINE_BYTES && align_of::<Line>() == LINE_BYTES);

/// Lines that hold the entries.
pub(super) const fn lines(spec: &Spec) -> usize {
    (spec.capacity() * spec.stride()).div_ceil(LINE_WORDS)
}

/// Places in the index: a power of two, at least twice as many as there are entries; none when there is only one entry.
pub(super) const fn index_len(spec: &Spec) -> usize {
    if spec.keys() == 0 {
        0
    } else {
        (spec.capacity() * 2).next_power_of_two()
    }
}

/// In a place of the index: the number of the entry plus one, and above it bits of the hash.
const ENTRY_BITS: u32 = 17;
const ENTRY_MASK: u32 = (1 << ENTRY_BITS) - 1;

const _: () = assert!(super::spec::ENTRIES_MAX <= ENTRY_MASK);

/// What one CPU has of a map.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Table {
    entries: Box<[Line]>,
    index: Box<[AtomicU32]>,
    /// Entries that there are.
    len: AtomicU32,
    dropped: AtomicU64,
}

impl Table {
    pub(super) fn new(spec: &Spec) -> Result<Self, OutOfMemory> {
        Ok(Table {
            entries: mem::boxed_slice(lines(spec), |_| Line([const { AtomicU64::new(0) }; LINE_WORDS]))?,
            index: mem::boxed_slice(index_len(spec), |_| AtomicU32::new(0))?,
            len: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        let words = self.entries.len() * LINE_WORDS;
        // SAFETY: a `Line` is `LINE_WORDS` words and nothing else (asserted above), so that the lines are that many words in a row, borrowed
        // as long as `self`.
        unsafe { core::slice::from_raw_parts(self.entries.as_ptr().cast::<AtomicU64>(), words) }
    }

    /// The words of an entry: keys, then value.
    #[inline]
    fn entry(&self, spec: &Spec, number: usize) -> Option<&[AtomicU64]> {
        let stride = spec.stride();
        self.words().get(number * stride..)?.get(..stride)
    }

    /// How many entries a reader may look at.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire) as usize
    }

    /// Updates that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Keys and value of an entry below [`len`](Self::len).
    pub(super) fn get(&self, spec: &Spec, number: usize) -> Option<(&[AtomicU64], &[AtomicU64])> {
        self.entry(spec, number)?.split_at_checked(spec.keys())
    }

    /// Adds a value to the entry with these keys. One writer at a time.
    #[inline]
    pub(super) fn update<const KEYS: usize>(&self, spec: &Spec, seed: u64, keys: &[u64; KEYS], value: u64) {
        let (number, place) = if KEYS == 0 {
            (0, None)
        } else {
            match self.find(spec, seed, keys) {
                Found::Entry(number) => (number, None),
                Found::Free { place, tag } => (self.len.load(Ordering::Relaxed) as usize, Some((place, tag))),
                Found::Nothing => (usize::MAX, None),
            }
        };
        let entry = (number < spec.capacity()).then(|| self.entry(spec, number)).flatten();
        let Some((entry_keys, words)) = entry.and_then(|entry| entry.split_at_checked(KEYS)) else {
            // A plain addition: nobody else writes it.
            let dropped = self.dropped.load(Ordering::Relaxed);
            self.dropped.store(dropped + 1, Ordering::Relaxed);
            return;
        };
        let is_new = number == self.len.load(Ordering::Relaxed) as usize;
        add(spec.kind(), words, value.cast_signed(), is_new);
        if is_new {
            for (to, key) in entry_keys.iter().zip(keys) {
                to.store(*key, Ordering::Relaxed);
            }
            if let Some((place, tag)) = place
                && let Some(slot) = self.index.get(place)
            {
                slot.store((number as u32 + 1) | tag, Ordering::Relaxed);
            }
            // From here on readers see it.
            self.len.store(number as u32 + 1, Ordering::Release);
        }
    }

    #[inline]
    fn find<const KEYS: usize>(&self, spec: &Spec, seed: u64, keys: &[u64; KEYS]) -> Found {
        let hash = hash(seed, keys);
        let tag = (hash >> 32) as u32 & !ENTRY_MASK;
        let mask = self.index.len().wrapping_sub(1);
        let mut place = hash as usize & mask;
        // At most half of the places are taken, so that this ends before the index does.
        for _ in 0..self.index.len() {
            let slot = match self.index.get(place) {
                Some(slot) => slot.load(Ordering::Relaxed),
                None => return Found::Nothing,
            };
            if slot == 0 {
                return Found::Free { place, tag };
            }
            if slot & !ENTRY_MASK == tag {
                let number = (slot & ENTRY_MASK) as usize - 1;
                let entry = self.entry(spec, number).and_then(|entry| entry.first_chunk::<KEYS>());
                let same = entry.is_some_and(|entry| {
                    let mut pairs = entry.iter().zip(keys);
                    pairs.all(|(found, key)| found.load(Ordering::Relaxed) == *key)
                });
                if same {
                    return Found::Entry(number);
                }
            }
            place = (place + 1) & mask;
        }
        Found::Nothing
    }

    #[cfg(test)]
    pub(super) fn longest_run(&self) -> usize {
        let taken = self.index.iter().map(|slot| slot.load(Ordering::Relaxed) != 0);
        let (longest, _) = taken.fold((0, 0), |(longest, run), taken| {
            let run = if taken { run + 1 } else { 0 };
            (usize::max(longest, run), run)
        });
        longest
    }
}

enum Found {
    /// The entry of this number.
    Entry(usize),
    /// There is none; it would be noted here.
    Free { place: usize, tag: u32 },
    /// There is none, and no place either.
    Nothing,
}

/// One multiplication for each key, whose halves are folded together. The seed is not known to who chooses the keys: a user cannot make
/// keys that meet in one place of the index.
#[inline]
fn hash<const KEYS: usize>(seed: u64, keys: &[u64; KEYS]) -> u64 {
    // The fractional parts of the golden ratio and of the square root of 3, odd.
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
    const SECOND: u64 = 0xbb67_ae85_84ca_a73b;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    keys.iter()
        .fold(seed, |hash, key| fold(hash ^ key, FIRST).wrapping_add(SECOND))
}

/// Adds a value to those of an entry.
#[inline]
fn add(kind: Kind, words: &[AtomicU64], value: i64, is_new: bool) {
    // Nobody else writes, so that a load and a store are an addition.
    let change = |index: usize, new: &dyn Fn(u64) -> u64| {
        if let Some(word) = words.get(index) {
            word.store(new(word.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    };
    let count = |bucket| change(bucket, &|count| count.wrapping_add(1));
    match kind {
        Kind::Count => count(0),
        Kind::Sum => change(0, &|sum| sum.wrapping_add(value.cast_unsigned())),
        Kind::Min => change(0, &|min| best(is_new, i64::min, min, value)),
        Kind::Max => change(0, &|max| best(is_new, i64::max, max, value)),
        Kind::Avg => average::add(words, value),
        Kind::Log2 => count(log2_bucket(value)),
        Kind::Linear(linear) => count(linear.bucket(value)),
    }
}

#[inline]
fn best(is_new: bool, of: impl Fn(i64, i64) -> i64, old: u64, value: i64) -> u64 {
    if is_new {
        value.cast_unsigned()
    } else {
        of(old.cast_signed(), value).cast_unsigned()
    }
}
