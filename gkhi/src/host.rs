//! The one seam: what the surrounding kernel must provide.

use core::ops::Range;

use crate::counters::Counters;
use crate::text::Text;

/// What the surrounding kernel provides. All of it is control: called by [`Registry`](crate::Registry)'s methods, in a context that
/// may sleep, one caller at a time. A pass through a hook calls none of it.
///
/// # Safety
/// The counters are as promised below, and stay so until they are freed: passes increment them without looking.
pub unsafe trait Host: Text {
    /// How many CPUs there may ever be; constant.
    fn cpus(&self) -> usize;

    /// Counters for one hook or exit, all zero, on every CPU: the address of one CPU's is its GS base plus what is returned.
    ///
    /// A kernel that keeps per-CPU memory at GS takes it from there (Linux: `alloc_percpu`). Where the GS base is zero everywhere,
    /// as in a Linux process, it is a plain address, the same for all CPUs. Never 0. `None` when there is no memory.
    fn alloc_counters(&self) -> Option<usize>;

    /// Takes counters back. No pass uses them any more.
    fn free_counters(&self, offset: usize);

    /// Where `cpu`'s copy of the counters at `offset` is. Where there is only one copy it is CPU 0's, and `None` for the others.
    fn counters(&self, cpu: usize, offset: usize) -> Option<&Counters>;

    /// Called while waiting for passes to end: lets others run for a moment (`schedule_timeout`, `sched_yield`, `pause`).
    fn relax(&self);

    /// The stack this runs on, to find out whether the caller is inside an exit; `None` when it is not known. Then a caller
    /// inside an exit that waits for that exit waits for ever.
    fn stack(&self) -> Option<Range<usize>> {
        None
    }
}
