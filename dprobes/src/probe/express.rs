//! The express way of a hit.
//!
//! Most probes that are hit a million times count. When such a probe is alone at its site, wants every hit, and its handler is one addition to one
//! variable, everything that its hit has to do is known when it is inserted: two additions, and where the CPU goes on. A site
//! remembers that, and the breakpoint handler does it at once instead of finding it out again. What is counted is the same on both ways.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::site::Resumption;
use crate::insn::DirectCall;
use crate::rpn::Addition;

/// The one addition that a handler consists of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    variable: NonNull<AtomicU64>,
    /// One, or minus one.
    step: u64,
}

// SAFETY: the variable is atomic, and whoever may use the tally may use it, on any CPU: see `new`.
unsafe impl Send for Tally {}
// SAFETY: as above.
unsafe impl Sync for Tally {}

impl Tally {
    /// # Safety
    /// The variable lives, and stays where it is, as long as the probe that the tally is for.
    pub(crate) unsafe fn new(addition: Addition<'_>) -> Self {
        Tally {
            variable: NonNull::from(addition.variable),
            step: addition.step,
        }
    }

    /// Adds.
    #[inline]
    pub(crate) fn add(&self) {
        // SAFETY: who has the tally has its probe, and by the contract of `new` the variable lives as long as that.
        unsafe { self.variable.as_ref() }.fetch_add(self.step, Ordering::Relaxed);
    }
}

/// Where the CPU goes on, if that can be said without looking at it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Onward {
    /// In the slot.
    Slot(u64),
    /// At the target, with the return address on the stack.
    Call(DirectCall),
    /// It depends.
    Open,
}

impl Onward {
    pub(crate) fn of(address: u64, may_fault: bool, resumption: &Resumption) -> Self {
        match resumption {
            Resumption::Copied { slot } if !may_fault => Onward::Slot(*slot),
            // Who makes the attempt has to be noted.
            Resumption::Copied { .. } => Onward::Open,
            // Of code in the lower half nothing is known about the stack: it may be a program's.
            Resumption::Emulated { emulation, .. } if address >> 63 != 0 => {
                emulation.direct_call(address).map_or(Onward::Open, Onward::Call)
            }
            Resumption::Emulated { .. } => Onward::Open,
            Resumption::Stepped { .. }
            | Resumption::CopiedBehindSti { .. }
            | Resumption::Shadowing { .. }
            | Resumption::Rewritten { .. }
            | Resumption::Reported => Onward::Open,
        }
    }
}
