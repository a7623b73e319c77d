//! #DB: the single step of a copy in its slot, and what it leaves to be corrected.

use super::Verdict;
use crate::frame::{RFLAGS_IF, RFLAGS_TF, TrapFrame};
use crate::host::Host;
use crate::insn::StepKind;
use crate::probe::{Cpu, Engine, Resumption, Site, Step};

/// DR6.BS: the trap comes from TF (SDM volume 3, 18.2.3).
const DR6_BS: u64 = 1 << 14;

impl<H: Host> Engine<H> {
    /// Sends the CPU to the copy in the slot for one instruction. Interrupts are off meanwhile, so that the #DB comes on
    /// this CPU.
    pub(super) fn begin_step(&self, site: &Site, cpu: &Cpu, frame: &mut TrapFrame, slot: u64) {
        let begun = cpu.begin_step(Step {
            site,
            rflags: frame.rflags,
        });
        // Nesting is bounded by the kinds of exception that can interrupt a step, well below what there is room for.
        debug_assert!(begun, "too many single steps inside each other");
        frame.rip = slot;
        frame.rflags = (frame.rflags | RFLAGS_TF) & !RFLAGS_IF;
    }

    /// Handles a debug exception, with interrupts off. `dr6` is the register's value; after
    /// [`Handled`](Verdict::Handled) the host clears its BS bit.
    #[inline]
    pub fn on_debug(&self, frame: &mut TrapFrame, dr6: u64) -> Verdict {
        let Some(cpu) = self.this_cpu() else {
            return Verdict::NotOurs;
        };
        if dr6 & DR6_BS == 0 {
            return Verdict::NotOurs;
        }
        let Some(step) = cpu.end_step() else {
            self.leave_slot(frame);
            return Verdict::NotOurs;
        };
        // SAFETY: a site that is being stepped is not freed: the grace period waits for traps, and interrupts are off from
        // the breakpoint to here.
        let Some(site) = (unsafe { step.site.as_ref() }) else {
            return Verdict::NotOurs;
        };
        let (slot, kind) = match site.resumption {
            Resumption::Stepped { slot, kind }
            | Resumption::Emulated {
                slot,
                fallback: Some(kind),
                ..
            } => (slot, kind),
            Resumption::Copied { .. } | Resumption::Emulated { .. } => return Verdict::NotOurs,
        };
        self.finish(site, slot, kind, frame);
        let ours = RFLAGS_TF | RFLAGS_IF;
        frame.rflags = frame.rflags & !ours | step.rflags & ours;
        if step.rflags & RFLAGS_TF == 0 {
            Verdict::Handled
        } else {
            // Somebody else is stepping this code: the trap is theirs as well, at the place they expect.
            Verdict::NotOurs
        }
    }

    /// Corrects what the copy did differently from the original.
    fn finish(&self, site: &Site, slot: u64, kind: StepKind, frame: &mut TrapFrame) {
        let moved = site.address.wrapping_sub(slot);
        if let StepKind::Rebase | StepKind::RebaseAndReturnAddress = kind {
            frame.rip = frame.rip.wrapping_add(moved);
        }
        if let StepKind::ReturnAddress | StepKind::RebaseAndReturnAddress = kind {
            let next = site.address.wrapping_add(site.insn.len() as u64);
            // The CPU has just written there; were it unwritable now, the return would fault by itself.
            let _ = self.host().write(frame.rsp, &next.to_le_bytes());
        }
    }

    /// Somebody steps through code that goes through a slot: shows them the original's addresses.
    fn leave_slot(&self, frame: &mut TrapFrame) {
        let Some((site, slot)) = self.slots.owner(frame.rip) else {
            return;
        };
        // SAFETY: an owner is a site that lives until its slot is free, and the interrupted code is in the slot.
        let address = unsafe { (*site).address };
        frame.rip = address.wrapping_add(frame.rip - slot);
    }
}
