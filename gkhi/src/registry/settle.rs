//! Waiting until no pass uses what was published before.

use core::cell::Cell;
use core::ops::Range;
use core::sync::atomic::{Ordering, fence};

use super::{Registry, exits_of};
use crate::counters;
use crate::error::Error;
use crate::grace::{self, Phases};
use crate::hook::Hook;
use crate::host::Host;
use crate::site::Image;

/// Looks without success before the caller is suspected to wait for itself.
const PATIENCE: u32 = 1000;

/// How long to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until every pass has left, or it is clear that the caller is inside one.
    UntilLeft,
    /// For a few looks.
    Briefly,
}

/// Looks that are brief.
const GLANCES: u32 = 10;

/// One hook's passes.
struct Passes<'r, H: Host> {
    registry: &'r Registry<H>,
    hook: &'static Hook,
    wait: Wait,
    looks: Cell<u32>,
}

impl<H: Host> Phases for Passes<'_, H> {
    type Stop = Error;

    fn choose(&self, phase: usize) {
        // SAFETY: the registry's exclusive reference is held by whoever settles.
        let counters = unsafe { self.hook.control() }.counters;
        self.hook
            .counter
            .store(counters.wrapping_add(phase * 8), Ordering::SeqCst);
    }

    fn is_drained(&self, phase: usize) -> bool {
        let host = &self.registry.host;
        // SAFETY: as above.
        let (control, exits) = unsafe { (self.hook.control(), exits_of(self.hook)) };
        let [before_0, before_1] = control.left_before;
        let mut left = if phase == 0 { before_0 } else { before_1 };
        left = left.wrapping_add(counters::sum(host, control.counters, 2 + phase));
        for exit in exits {
            // SAFETY: as above.
            let own = unsafe { exit.control() }.counters;
            left = left.wrapping_add(counters::sum(host, own, phase));
        }
        // A pass that is seen to have left is seen to have begun.
        fence(Ordering::SeqCst);
        counters::sum(host, control.counters, phase) == left
    }

    /// With half as many looks at the counters.
    fn are_drained(&self) -> bool {
        let host = &self.registry.host;
        // SAFETY: as above.
        let (control, exits) = unsafe { (self.hook.control(), exits_of(self.hook)) };
        let add = |[a, b]: [u64; 2], [c, d]: [u64; 2]| [a.wrapping_add(c), b.wrapping_add(d)];
        let left = exits
            // SAFETY: as above.
            .map(|exit| counters::sum_pair(host, unsafe { exit.control() }.counters, 0))
            .fold(control.left_before, add);
        let left = add(left, counters::sum_pair(host, control.counters, 2));
        // A pass that is seen to have left is seen to have begun.
        fence(Ordering::SeqCst);
        counters::sum_pair(host, control.counters, 0) == left
    }

    fn wait(&self) -> Result<(), Error> {
        self.looks.set(self.looks.get().saturating_add(1));
        let inside = Err(Error::Inside { hook: self.hook.name() });
        if self.wait == Wait::Briefly && self.looks.get() > GLANCES {
            return inside;
        }
        // A word on the stack may be left from an earlier pass: so that it counts only when others have had time to leave.
        if self.looks.get().is_multiple_of(PATIENCE) && self.registry.is_inside(self.hook) {
            return inside;
        }
        self.registry.host.relax();
        Ok(())
    }
}

impl<H: Host> Registry<H> {
    /// Waits until no pass uses what was published on this hook before; at once when nothing was since the last time.
    pub(super) fn settle_hook(&mut self, hook: &'static Hook) -> Result<(), Error> {
        self.settle(core::iter::once(hook), Wait::UntilLeft)
    }

    /// Waits for several hooks, with one barrier.
    ///
    /// # Errors
    /// [`Error::Inside`] for one that had to be given up; those after it are not waited for.
    pub(super) fn settle(
        &mut self,
        hooks: impl Iterator<Item = &'static Hook> + Clone,
        wait: Wait,
    ) -> Result<(), Error> {
        // SAFETY: `&mut self`.
        let mut unsettled = hooks.filter(|hook| unsafe { hook.control() }.unsettled).peekable();
        if unsettled.peek().is_none() {
            return Ok(());
        }
        if counters::SHARED {
            // Passes count themselves in with a locked instruction, which is as good.
            fence(Ordering::SeqCst);
        } else {
            self.host.sync_cores();
        }
        for hook in unsettled {
            let passes = Passes {
                registry: self,
                hook,
                wait,
                looks: Cell::new(0),
            };
            // SAFETY: `&mut self`.
            let mut phase = unsafe { hook.control() }.phase;
            let result = grace::settle(&passes, &mut phase);
            // SAFETY: `&mut self`.
            unsafe {
                hook.update(|control| {
                    control.phase = phase;
                    control.unsettled = result.is_err();
                });
            }
            result?;
        }
        Ok(())
    }

    /// Is the caller inside a pass of this hook? Looks for the return address of such a pass on the caller's stack.
    ///
    /// There may be one that an earlier pass has left in a part of a frame that is not used: then the answer is wrong. It is therefore asked
    /// only when somebody has been inside for long, and "inside" never means that something is unsafe, only that it is refused.
    #[inline(never)]
    fn is_inside(&self, hook: &Hook) -> bool {
        let here = 0usize;
        let from = core::hint::black_box(&raw const here) as usize;
        match self.host.stack() {
            Some(stack) if stack.contains(&from) => self.is_returning_to(hook, from..stack.end),
            _ => false,
        }
    }

    /// Is there a return address of a pass of this hook among these words? Not in the frame of this function, which handles such addresses
    /// itself.
    #[inline(never)]
    fn is_returning_to(&self, hook: &Hook, stack: Range<usize>) -> bool {
        const WORD: usize = size_of::<usize>();
        (stack.start.next_multiple_of(WORD)..stack.end & !(WORD - 1))
            .step_by(WORD)
            .any(|place| {
                // SAFETY: the host says that the stack reaches to there, and this thread is on it.
                let word = unsafe { core::ptr::with_exposed_provenance::<usize>(place).read_volatile() };
                self.shared
                    .images()
                    .flat_map(Image::calls)
                    .any(|call| call.return_address() == word && core::ptr::eq(call.hook(), hook))
            })
    }
}
