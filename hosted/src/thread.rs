//! Which "CPU" a thread is while it handles a trap.
//!
//! The engine keeps its state per CPU and relies on this: what runs on a CPU in a trap is interrupted by other traps on that CPU
//! alone, and has gone on when it continues. Here a thread takes a number when it enters a trap handler and gives it back
//! when it leaves, unless a single step is under way. So there can be more threads than numbers: one that finds none free waits
//! for another trap to end, which never takes long, since a trap handler waits for nothing else.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Says that a thread holds, or has held, no number.
const NONE: usize = usize::MAX;

struct Thread {
    /// The number held, or [`NONE`].
    cpu: Cell<usize>,
    /// The number held last: a thread keeps it if it can.
    last: Cell<usize>,
    /// Trap handlers inside each other.
    depth: Cell<u32>,
    /// The signal mask from before a single step began, while it is under way.
    stepping: Cell<Option<u64>>,
}

thread_local! {
    // Constant and without a destructor: a signal handler may read it as the first thing a thread does.
    static THREAD: Thread = const {
        Thread { cpu: Cell::new(NONE), last: Cell::new(NONE), depth: Cell::new(0), stepping: Cell::new(None) }
    };
}

/// The numbers, and which are taken.
pub(crate) struct Cpus {
    taken: Box<[Taken]>,
    next: AtomicUsize,
}

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Taken(AtomicBool);

impl Cpus {
    pub(crate) fn new(count: usize) -> Self {
        Cpus {
            taken: (0..count.max(1)).map(|_| Taken::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.taken.len()
    }

    /// The number that this thread holds; too large a number outside a trap handler.
    pub(crate) fn current() -> usize {
        THREAD.with(|thread| thread.cpu.get())
    }

    /// Enters a trap handler. All asynchronous signals are blocked.
    pub(crate) fn enter(&self) -> Trap<'_> {
        THREAD.with(|thread| {
            if thread.cpu.get() == NONE {
                thread.cpu.set(self.take(thread.last.get()));
            }
            thread.depth.set(thread.depth.get() + 1);
        });
        Trap { cpus: self }
    }

    fn take(&self, last: usize) -> usize {
        let first = if last == NONE {
            self.next.fetch_add(1, Ordering::Relaxed)
        } else {
            last
        };
        let count = self.taken.len();
        loop {
            for cpu in (0..count).map(|step| first.wrapping_add(step) % count) {
                let free = |taken: &Taken| !taken.0.load(Ordering::Relaxed) && !taken.0.swap(true, Ordering::Acquire);
                if self.taken.get(cpu).is_some_and(free) {
                    return cpu;
                }
            }
            // SAFETY: the call has no preconditions, and may be made in a signal handler.
            unsafe { libc::sched_yield() };
        }
    }

    fn give_back(&self, cpu: usize) {
        if let Some(taken) = self.taken.get(cpu) {
            taken.0.store(false, Ordering::Release);
        }
    }
}

/// A trap that is being handled by this thread.
pub(crate) struct Trap<'c> {
    cpus: &'c Cpus,
}

impl Trap<'_> {
    /// The signal mask from before the single step that is under way, if one is.
    pub(crate) fn stepping(&self) -> Option<u64> {
        THREAD.with(|thread| thread.stepping.get())
    }

    /// Notes that a single step begins or has ended.
    pub(crate) fn set_stepping(&self, mask: Option<u64>) {
        THREAD.with(|thread| thread.stepping.set(mask));
    }
}

impl Drop for Trap<'_> {
    fn drop(&mut self) {
        THREAD.with(|thread| {
            thread.depth.set(thread.depth.get() - 1);
            if thread.depth.get() == 0 && thread.stepping.get().is_none() {
                let cpu = thread.cpu.replace(NONE);
                thread.last.set(cpu);
                self.cpus.give_back(cpu);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_number_and_nests() {
        let cpus = Cpus::new(4);
        assert_eq!(Cpus::current(), NONE);
        let outer = cpus.enter();
        let cpu = Cpus::current();
        drop(cpus.enter());
        assert_eq!(Cpus::current(), cpu);
        drop(outer);
        assert_eq!(Cpus::current(), NONE);
        drop(cpus.enter());
        let again = cpus.enter();
        assert_eq!(Cpus::current(), cpu);
        drop(again);
    }

    #[test]
    fn a_step_keeps_the_number() {
        let cpus = Cpus::new(1);
        let trap = cpus.enter();
        trap.set_stepping(Some(7));
        drop(trap);
        assert_eq!(Cpus::current(), 0);
        let trap = cpus.enter();
        assert_eq!(trap.stepping(), Some(7));
        trap.set_stepping(None);
        drop(trap);
        assert_eq!(Cpus::current(), NONE);
    }

    #[test]
    fn more_threads_than_numbers_take_turns() {
        let cpus = Cpus::new(2);
        let inside = [const { AtomicBool::new(false) }; 2];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let trap = cpus.enter();
                        let mine = &inside[Cpus::current()];
                        assert!(!mine.swap(true, Ordering::AcqRel));
                        mine.store(false, Ordering::Release);
                        drop(trap);
                    }
                });
            }
        });
    }
}
