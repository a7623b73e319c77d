//! What programs keep for calls in user space, from the beginning of each to its end.
//!
//! The host's facility that notes such calls has no room for it. So there is a table of our own: a call is known by its task and by where its return
//! address is on the stack, which no other call has that is under way. A task has the places of one window, which others may
//! share; its own are changed by nobody else. Nothing waits for anybody.

use alloc::boxed::Box;
use core::num::NonZero;

use crate::mem::{self, OutOfMemory};
use crate::sync::{AtomicU64, Ordering};

/// Words that are kept for a call.
const WORDS: usize = 8;

/// Which call, of which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// The task's cookie: neither of the first two numbers.
    pub(crate) task: u64,
    /// Where its return address is.
    pub(crate) frame: u64,
    /// The program, and which of its functions.
    pub(crate) of: u64,
}

/// Nobody's.
const FREE: u64 = 0;
/// Being filled in.
const TAKEN: u64 = 1;

struct Place {
    /// Whose it is, [`FREE`] or [`TAKEN`]. Who reads its own task's number has what is behind it.
    task: AtomicU64,
    frame: AtomicU64,
    of: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The calls.
pub(crate) struct Calls {
    places: Box<[Place]>,
    /// How many places a task has: divides the number of places.
    window: NonZero<usize>,
}

impl Calls {
    /// A table with so many windows, a power of two, of so many places.
    pub(crate) fn new(windows: usize, window: usize) -> Result<Self, OutOfMemory> {
        let places = mem::boxed_slice(windows * window, |_| Place {
            task: AtomicU64::new(FREE),
            frame: AtomicU64::new(0),
            of: AtomicU64::new(0),
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        })?;
        let window = NonZero::new(window).unwrap_or(NonZero::<usize>::MIN);
        Ok(Calls { places, window })
    }

    /// The places that a task may have.
    fn window(&self, task: u64) -> &[Place] {
        let windows = self.places.len() / self.window;
        // Fibonacci hashing, as in the table of sites.
        let hash = (task.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let start = (hash & (windows - 1)) * self.window.get();
        self.places.get(start..start + self.window.get()).unwrap_or(&[])
    }

    /// A call has begun: keeps words for it. False when there is no room.
    ///
    /// Calls that its task began further down on the stack have ended, however they did: their places are free again.
    pub(crate) fn begin(&self, call: Call, words: &[u64; WORDS]) -> bool {
        let window = self.window(call.task);
        for place in window.iter().filter(|place| place.is_of(call.task)) {
            let frame = place.frame.load(Ordering::Relaxed);
            if frame < call.frame || frame == call.frame && place.of.load(Ordering::Relaxed) == call.of {
                place.task.store(FREE, Ordering::Release);
            }
        }
        let take = |place: &&Place| {
            place.task.load(Ordering::Relaxed) == FREE
                && place
                    .task
                    .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        };
        let Some(place) = window.iter().find(take) else {
            return false;
        };
        place.frame.store(call.frame, Ordering::Relaxed);
        place.of.store(call.of, Ordering::Relaxed);
        for (to, word) in place.words.iter().zip(words) {
            to.store(*word, Ordering::Relaxed);
        }
        place.task.store(call.task, Ordering::Release);
        true
    }

    /// A call has ended: what was kept for it, if it was.
    pub(crate) fn end(&self, call: Call) -> Option<[u64; WORDS]> {
        let is_it = |place: &&Place| {
            place.is_of(call.task)
                && place.frame.load(Ordering::Relaxed) == call.frame
                && place.of.load(Ordering::Relaxed) == call.of
        };
        let place = self.window(call.task).iter().find(is_it)?;
        let words = core::array::from_fn(|at| place.words.get(at).map_or(0, |word| word.load(Ordering::Relaxed)));
        place.task.store(FREE, Ordering::Release);
        Some(words)
    }

    /// A task has ended, and with it its calls.
    pub(crate) fn task_ended(&self, task: u64) {
        for place in self.window(task).iter().filter(|place| place.is_of(task)) {
            place.task.store(FREE, Ordering::Release);
        }
    }
}

impl Place {
    /// Is it this task's, which nobody but that changes?
    fn is_of(&self, task: u64) -> bool {
        task > TAKEN && self.task.load(Ordering::Acquire) == task
    }
}
