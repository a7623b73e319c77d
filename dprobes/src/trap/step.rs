//! #DB: the single step of a copy in its slot, and what it leaves to be corrected.

use super::Verdict;
use crate::frame::{RFLAGS_IF, RFLAGS_TF, TrapFrame};
use crate::host::Host;
use crate::insn::StepKind;
use crate::probe::{Cpu, Engine, Resumption, Site, Step};

/// DR6.BS: the trap comes from TF (SDM volume 3, 18.2.3).
const DR6_BS: u64 = 1 << 14;

/// All of DR6 that says why there is a #DB: B0 to B3, BD, BS, BT.
const DR6_CAUSES: u64 = 0xf | 1 << 13 | DR6_BS | 1 << 15;

/// No more steps can be under way on this CPU: what interrupts a step has been interrupted in a step too often.
#[derive(Debug)]
pub(super) struct TooDeep;

impl<H: Host> Engine<H> {
    /// Sends the CPU to `at` for one instruction: to the copy in the slot, or to the jump behind it. Interrupts are off meanwhile, so
    /// that the #DB comes on this CPU. The flags it is to go on with are the frame's; `traced` says that it is stepped by somebody else
    /// too.
    pub(super) fn begin_step(
        &self,
        site: &Site,
        cpu: &Cpu,
        frame: &mut TrapFrame,
        at: u64,
        traced: bool,
    ) -> Result<(), TooDeep> {
        let begun = cpu.begin_step(Step {
            site,
            rflags: frame.rflags,
            rsp: frame.rsp,
            traced,
        });
        if !begun {
            return Err(TooDeep);
        }
        frame.rip = at;
        frame.rflags = (frame.rflags | RFLAGS_TF) & !RFLAGS_IF;
        Ok(())
    }

    /// Handles a debug exception, with interrupts off: the end of a step, hits of watchpoints, or both at once. `dr6` is the debug status
    /// with its bits in positive polarity (SDM volume 3, 18.2.3); what the engine has dealt with is cleared in it. [`Handled`](Verdict::Handled) when that is all there was. Otherwise the trap is
    /// somebody else's too: it has the bits that are left, and the frame is as if the engine were not there.
    ///
    /// The host writes `dr6` back to the register, or shows it to those behind, whatever the verdict.
    #[inline]
    pub fn on_debug(&self, frame: &mut TrapFrame, dr6: &mut u64) -> Verdict {
        let Some(cpu) = self.this_cpu() else {
            return Verdict::NotOurs;
        };
        let step = if *dr6 & DR6_BS == 0 {
            None
        } else {
            cpu.end_step(frame.rsp)
        };
        let causes = *dr6 & DR6_CAUSES;
        if let Some(step) = &step {
            // SAFETY: a site that is being stepped is not freed: the grace period waits for traps, and interrupts are off from
            // the breakpoint to here.
            if let Some(site) = unsafe { step.site.as_ref() }
                && let Some((shaded, slot)) = self.finish(site, frame)
            {
                // QEMU does not hold the #DB off until the second has completed.
                step.give_back_flags(frame);
                if causes == DR6_BS && self.begin_step(shaded, cpu, frame, slot, step.traced).is_ok() {
                    *dr6 &= !DR6_BS;
                    return Verdict::Handled;
                }
                frame.rip = shaded.address;
                self.retract_shaded(shaded, cpu, frame);
            }
            step.give_back_flags(frame);
            if !step.traced {
                *dr6 &= !DR6_BS;
            }
        }
        let hits = self.host().watchpoints_hit(*dr6);
        if hits.causes != 0 {
            *dr6 &= !hits.causes;
            self.watchpoints_hit(hits.watchpoints, cpu, frame);
        }
        if causes != 0 && *dr6 & DR6_CAUSES == 0 {
            return Verdict::Handled;
        }
        if step.is_none() {
            self.leave_slot(cpu, frame);
        }
        Verdict::NotOurs
    }

    /// Corrects what the step of a site's copy did differently from the original. What still has to be stepped, and where, if it was to be
    /// two instructions and one is done.
    fn finish<'s>(&self, site: &'s Site, frame: &mut TrapFrame) -> Option<(&'s Site, u64)> {
        match site.resumption {
            Resumption::Stepped { slot, kind }
            | Resumption::Emulated {
                slot,
                fallback: Some(kind),
                ..
            } => self.rebase(site, slot, kind, frame),
            Resumption::Shadowing { shadow, .. } => return self.finish_shadowing(site, shadow, frame),
            // What was stepped is the jump back.
            Resumption::Copied { .. }
            | Resumption::CopiedBehindSti { .. }
            | Resumption::Emulated { fallback: None, .. }
            | Resumption::Rewritten { .. }
            | Resumption::Reported => {}
        }
        None
    }

    /// Corrects what a step of the copy in the slot did differently from the original.
    pub(super) fn rebase(&self, site: &Site, slot: u64, kind: StepKind, frame: &mut TrapFrame) {
        let moved = site.address.wrapping_sub(slot);
        if let StepKind::Rebase | StepKind::RebaseAndReturnAddress = kind {
            frame.rip = frame.rip.wrapping_add(moved);
        }
        let len = site.insn.len() as u64;
        let next = site.address.wrapping_add(len).to_le_bytes();
        let size = match kind {
            StepKind::Rebase | StepKind::Absolute => 0,
            StepKind::ReturnAddress | StepKind::RebaseAndReturnAddress => 8,
            StepKind::FarReturnAddress { narrow } => {
                // Which of the sizes it was shows: CS, which is not 0, is above the address.
                let pushed = slot.wrapping_add(len).to_le_bytes();
                let mut found = [0; 8];
                let _ = self.host().read(frame.rsp, &mut found);
                match narrow {
                    _ if found == pushed => 8,
                    false => 4,
                    true => 2,
                }
            }
        };
        // The CPU has just written there; were it unwritable now, the return would fault by itself.
        let _ = self.host().write(frame.rsp, next.get(..size).unwrap_or(&[]));
    }

    /// A debug exception of somebody else's in code that goes through a slot: shows them the original's addresses.
    fn leave_slot(&self, cpu: &Cpu, frame: &mut TrapFrame) {
        let Some((site, slot)) = self.slots.owner(frame.rip) else {
            return;
        };
        // SAFETY: an owner is a site that lives until its slot is free, and the interrupted code is in the slot.
        let site = unsafe { &*site };
        let offset = frame.rip.wrapping_sub(slot);
        frame.rip = site.original(offset);
        // What has not completed (a string instruction between two iterations, an access to a debug register that is guarded by
        // DR7.GD) goes on at the original, where it is hit again.
        self.retract_from(site, offset, cpu, frame);
    }
}
