//! Counting passes: per CPU, without a lock, in any context.
//!
//! A counter is incremented by one instruction relative to GS, so that an interrupt, an NMI or a migration comes before it or after it.
//! Where each CPU has its own copy no bus lock is needed; the order between "counted" and "looked at the list" is then established
//! by the writer, which interrupts every CPU (see [`grace`](crate::grace)).

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::host::Host;

/// Do all CPUs share one copy of every counter?
pub(crate) const SHARED: bool = cfg!(any(not(target_os = "none"), feature = "shared-counters"));

/// One CPU's counters of a hook or an exit: one cache line.
///
/// | word | hook | exit |
/// |---|---|---|
/// | 0, 1 | passes begun, by phase | passes that called it alone and have left, by phase |
/// | 2, 3 | passes that have left through the registry's own code, by phase | calls from that code; slow calls |
/// | 4 | - | calls while another call of it was running on this CPU |
/// | 5 | - | calls from the registry's own code that have returned |
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Counters {
    words: [AtomicU64; 8],
}

/// Distance in bytes from a hook's word 0 to its word 2.
pub(crate) const HOOK_LEFT: usize = 16;
/// An exit's words, as indices.
pub(crate) const CALLED: usize = 2;
pub(crate) const SLOW: usize = 3;
pub(crate) const NESTED: usize = 4;
pub(crate) const RETURNED: usize = 5;

impl Counters {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        Counters {
            words: [const { AtomicU64::new(0) }; 8],
        }
    }

    /// Sets all to zero, for a host that hands out the same memory again. Nobody may be using them.
    pub fn clear(&self) {
        for word in &self.words {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// The sum over all CPUs of one word. It wraps, and so do sums of such sums: only differences count.
pub(crate) fn sum<H: Host>(host: &H, offset: usize, word: usize) -> u64 {
    (0..host.cpus())
        .filter_map(|cpu| host.counters(cpu, offset)?.words.get(word))
        .fold(0, |sum, count| sum.wrapping_add(count.load(Ordering::Acquire)))
}

/// The sums over all CPUs of a word and the one behind it.
pub(crate) fn sum_pair<H: Host>(host: &H, offset: usize, word: usize) -> [u64; 2] {
    (0..host.cpus())
        .filter_map(|cpu| host.counters(cpu, offset)?.words.get(word..)?.first_chunk())
        .fold([0; 2], |[first, second]: [u64; 2], [a, b]| {
            [
                first.wrapping_add(a.load(Ordering::Acquire)),
                second.wrapping_add(b.load(Ordering::Acquire)),
            ]
        })
}

/// Increments a word of this CPU's counters.
///
/// # Safety
/// `offset` came from [`Host::alloc_counters`], and is not freed while this runs; `word` is below 8.
#[inline]
pub(crate) unsafe fn increment(offset: usize, word: usize) {
    let at = offset.wrapping_add(word * 8);
    // SAFETY: the address is that of a counter, and nobody relies on it but through atomic reads.
    unsafe { asm!(crate::__increment!("{at}"), at = in(reg) at, options(nostack)) };
}

/// Reads a word of this CPU's counters.
///
/// # Safety
/// As for [`increment`].
#[inline]
pub(crate) unsafe fn current(offset: usize, word: usize) -> u64 {
    let at = offset.wrapping_add(word * 8);
    let value;
    // SAFETY: the address is that of a counter.
    unsafe {
        asm!("mov {value}, gs:[{at}]", at = in(reg) at, value = out(reg) value, options(nostack, readonly, preserves_flags))
    };
    value
}
