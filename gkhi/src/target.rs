//! What a hook's published pointer points to: something that a pass calls.

use core::sync::atomic::{AtomicIsize, AtomicPtr, AtomicUsize, Ordering};

/// The head of everything that a pass may call: an exit, or the registry's own code.
///
/// A pass loads the hook's pointer to one, puts it into RDI, calls `entry`, and counts itself out at its own counter plus `delta`.
#[derive(Debug)]
#[repr(C)]
pub struct Target {
    /// Called with the target in RDI and the hook's arguments in RSI, RDX, RCX, R8, R9 and on the stack. It preserves every
    /// general-purpose register but R11, and on a conditional-return hook RAX and RDX, which hold an [`Answer`](crate::Answer).
    pub(crate) entry: AtomicPtr<()>,
    /// From the hook's "begun" counter to the "left" counter that goes with this target.
    pub(crate) delta: AtomicIsize,
    /// The counters of the exit that this is the head of; 0 for the registry's own.
    pub(crate) counters: AtomicUsize,
    /// An ordinary C function with the same arguments; returns an [`Answer`](crate::Answer).
    pub(crate) call: AtomicPtr<()>,
}

impl Target {
    pub(crate) const fn new(entry: *const (), call: *const ()) -> Self {
        Target {
            entry: AtomicPtr::new(entry.cast_mut()),
            delta: AtomicIsize::new(0),
            counters: AtomicUsize::new(0),
            call: AtomicPtr::new(call.cast_mut()),
        }
    }

    /// Fills in what a pass needs. The target is not published.
    pub(crate) fn prepare(&self, entry: *const (), delta: usize, counters: usize) {
        self.entry.store(entry.cast_mut(), Ordering::Relaxed);
        self.delta.store(delta as isize, Ordering::Relaxed);
        self.counters.store(counters, Ordering::Relaxed);
    }
}
