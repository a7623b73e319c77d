//! A count and a sum that are read together while they are written.
//!
//! Seven words: a version, and two copies of count, low half and high half of the sum. The version's lowest bit says which copy stands.

use super::sync::{AtomicU64, Ordering, fence};

/// Words that it takes.
pub(super) const WORDS: usize = 7;

/// How often a reader begins anew before it gives up. Each time at least one whole update has come in between the first and the last
/// of its few loads.
pub const ATTEMPTS: u32 = 10_000;

/// The copy of a version.
fn copy(copies: &[AtomicU64], version: u64) -> Option<&[AtomicU64; 3]> {
    let (copies, _) = copies.as_chunks::<3>();
    copies.get(version as usize & 1)
}

fn load([count, low, high]: &[AtomicU64; 3]) -> (u64, i128) {
    let sum = u128::from(low.load(Ordering::Relaxed)) | u128::from(high.load(Ordering::Relaxed)) << 64;
    (count.load(Ordering::Relaxed), sum.cast_signed())
}

/// Adds a value. One writer at a time.
#[inline]
pub(super) fn add(words: &[AtomicU64], value: i64) {
    let Some((version, copies)) = words.split_first() else {
        return;
    };
    let now = version.load(Ordering::Relaxed);
    let next = now.wrapping_add(1);
    let (Some(old), Some(new)) = (copy(copies, now), copy(copies, next)) else {
        return;
    };
    let (count, sum) = load(old);
    // 2^64 values of 64 bits do not overflow it.
    let sum = sum.wrapping_add(i128::from(value)).cast_unsigned();
    // Who sees any of the stores below sees the version that was stored before them too, and so that the copy is being replaced.
    fence(Ordering::Release);
    let [new_count, low, high] = new;
    new_count.store(count.wrapping_add(1), Ordering::Relaxed);
    low.store(sum as u64, Ordering::Relaxed);
    high.store((sum >> 64) as u64, Ordering::Relaxed);
    version.store(next, Ordering::Release);
}

/// Count and sum, of one moment; `None` if the writer was faster so many times.
pub(super) fn read(words: &[AtomicU64], attempts: u32) -> Option<(u64, i128)> {
    let (version, copies) = words.split_first()?;
    for _ in 0..attempts {
        let before = version.load(Ordering::Acquire);
        let found = load(copy(copies, before)?);
        // The copy of `before` is written again only after the version has gone on.
        fence(Ordering::Acquire);
        if version.load(Ordering::Relaxed) == before {
            return Some(found);
        }
    }
    None
}
