//! Instructions in an interrupt shadow, and those that cast one: what `sti` and `mov ss` hold off stays held off.
//!
//! A breakpoint is taken in a shadow as anywhere else, and the return from it ends the shadow. So that an interrupt which would
//! have waited could come in between: after `sti; hlt` that is a wake-up which is lost. Two things prevent it:
//!
//! - An instruction that may be in a shadow is copied behind an `sti` in its slot, and entered with interrupts off. Where it was in
//!   no shadow this holds an interrupt off for one instruction, which nobody can tell from one that came later.
//! - An instruction that casts a shadow is carried out together with the next one, whose probes fire in the same trap.

use super::emulated::Emulated;
use super::step::TooDeep;
use crate::frame::{RFLAGS_IF, RFLAGS_TF, TrapFrame};
use crate::host::Host;
use crate::insn::Shadow;
use crate::probe::{Collecting, Cpu, Engine, Resumption, Site, count};
use crate::text::transaction::INT3;

/// May this code execute `sti`? (SDM volume 2, STI, without virtual interrupts: those are the CPU's own affair.)
fn may_enable_interrupts(frame: &TrapFrame) -> bool {
    const IOPL_SHIFT: u32 = 12;
    frame.cs & 3 <= frame.rflags >> IOPL_SHIFT & 3
}

/// Sends the CPU to the copy in the slot, with the shadow that it may have been in: if interrupts are on, through the `sti` in
/// front of the copy, with interrupts off until then.
#[cold]
pub(super) fn run_copy(site: &Site, slot: u64, frame: &mut TrapFrame) {
    let is_on = frame.rflags & RFLAGS_IF != 0 && may_enable_interrupts(frame);
    // A debugger that is stepping takes the shadow away itself, and would see the step of the `sti`.
    if site.at != 0 && is_on && frame.rflags & RFLAGS_TF == 0 {
        frame.rflags &= !RFLAGS_IF;
        frame.rip = slot;
    } else {
        frame.rip = slot.wrapping_add(u64::from(site.at));
    }
}

impl<H: Host> Engine<H> {
    /// Carries out an instruction that casts a shadow, and the next one.
    #[cold]
    #[inline(never)]
    pub(super) fn resume_with_next(
        &self,
        site: &Site,
        cpu: &Cpu,
        frame: &mut TrapFrame,
        (slot, shadow): (u64, Shadow),
        mark: u64,
    ) -> Result<(), TooDeep> {
        let Some(shaded) = site.shaded.as_deref() else {
            return Ok(());
        };
        match shadow {
            Shadow::Interrupts => self.enable_interrupts(site, shaded, cpu, frame, slot, mark),
            Shadow::Events => self.load_stack_segment(site, shaded, cpu, frame, slot, mark),
        }
    }

    /// Carries out an `sti`, and the instruction behind it.
    fn enable_interrupts(
        &self,
        site: &Site,
        shaded: &Site,
        cpu: &Cpu,
        frame: &mut TrapFrame,
        slot: u64,
        mark: u64,
    ) -> Result<(), TooDeep> {
        if !may_enable_interrupts(frame) {
            // The CPU raises #GP, or sets a virtual flag.
            frame.rip = slot;
            return Ok(());
        }
        cpu.ring.publish_since(mark);
        let was_on = frame.rflags & RFLAGS_IF != 0;
        frame.rflags |= RFLAGS_IF;
        if frame.rflags & RFLAGS_TF != 0 {
            // Somebody is stepping this code: #DB comes after the `sti`, and takes the shadow away. QEMU would hold it off; that of the
            // jump back it does not.
            let jump = u64::from(shaded.at) + shaded.insn.len() as u64;
            return self.begin_step(site, cpu, frame, slot.wrapping_add(jump), true);
        }
        frame.rip = shaded.address;
        if was_on || !self.is_unchanged(shaded) {
            // No shadow, or somebody else's breakpoint in it, which takes it away.
            return Ok(());
        }
        let mark = cpu.ring.mark();
        self.fire_shaded(shaded, cpu, frame, mark, false);
        if frame.rip != shaded.address {
            cpu.ring.publish_since(mark);
        } else if let Resumption::Copied { .. } = shaded.resumption {
            frame.rflags &= !RFLAGS_IF;
            frame.rip = slot;
        } else {
            return self.resume(shaded, cpu, frame, mark);
        }
        Ok(())
    }

    /// Carries out a `mov ss`, and the instruction behind it.
    fn load_stack_segment(
        &self,
        site: &Site,
        shaded: &Site,
        cpu: &Cpu,
        frame: &mut TrapFrame,
        slot: u64,
        first: u64,
    ) -> Result<(), TooDeep> {
        let mark = cpu.ring.mark();
        // Programs at the next instruction see the stack segment that it runs with.
        let before = frame.ss;
        let mut emulated = Emulated {
            frame,
            host: self.host(),
        };
        // The instruction itself hits the watchpoints that it hits.
        let ignored = self.watches.watch_memory().then(|| cpu.collect_watchpoints());
        if let Some(selector) = site.insn.stack_selector(site.address, &mut emulated) {
            frame.ss = u64::from(selector);
        }
        ignored.map(Collecting::end);
        frame.rip = shaded.address;
        self.fire_shaded(shaded, cpu, frame, mark, true);
        if frame.rip != shaded.address {
            // A program has sent the CPU elsewhere. The return from the trap loads the segment.
            cpu.ring.publish_since(first);
            return Ok(());
        }
        frame.ss = before;
        match shaded.resumption {
            Resumption::Stepped { .. } => {
                let traced = frame.rflags & RFLAGS_TF != 0;
                self.begin_step(site, cpu, frame, slot.wrapping_add(u64::from(site.at)), traced)
            }
            _ => {
                run_copy(site, slot, frame);
                Ok(())
            }
        }
    }

    /// Is the text of an instruction in a shadow still what was copied, but for a breakpoint of this engine?
    fn is_unchanged(&self, shaded: &Site) -> bool {
        let mut byte = [0];
        if self.host().read(shaded.address, &mut byte).is_err() {
            return false;
        }
        let is_ours = byte == [INT3] && self.site(shaded.address).is_some();
        is_ours || shaded.insn.bytes().first() == byte.first()
    }

    /// Fires the probes at an instruction that is about to be carried out in the shadow of the one before it, which may still fault.
    fn fire_shaded(&self, shaded: &Site, cpu: &Cpu, frame: &mut TrapFrame, mark: u64, may_fault_before: bool) {
        let Some(site) = self.site(shaded.address) else { return };
        let Some(mut hit) = cpu.enter() else {
            for probe in site.probes() {
                count(&probe.counts.missed);
            }
            return;
        };
        hit.note_stack_pointer(frame.rsp);
        if may_fault_before {
            hit.depend_on_another();
        }
        for probe in site.probes() {
            self.fire(site, probe, &mut hit, frame);
        }
        hit.note_shaded_attempt(site, self.who(frame), mark);
    }

    /// The single step of an instruction that casts a shadow has ended. The one in the shadow, and its copy, if that was not stepped
    /// with it.
    pub(super) fn finish_shadowing<'s>(
        &self,
        site: &'s Site,
        shadow: Shadow,
        frame: &mut TrapFrame,
    ) -> Option<(&'s Site, u64)> {
        let shaded = site.shaded.as_deref()?;
        match (shadow, shaded.resumption) {
            (Shadow::Events, Resumption::Stepped { slot, .. }) if frame.rip == slot => return Some((shaded, slot)),
            (Shadow::Events, Resumption::Stepped { slot, kind }) => self.rebase(shaded, slot, kind, frame),
            _ => frame.rip = shaded.address,
        }
        None
    }
}
