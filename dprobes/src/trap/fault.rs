//! A fault in a slot must look as if the original instruction had faulted.

use crate::frame::{RFLAGS_IF, TrapFrame};
use crate::host::Host;
use crate::insn::Shadow;
use crate::probe::{Cpu, Engine, Outcome, Outcomes, Resumption, Site, Who};

impl<H: Host> Engine<H> {
    /// To be called first in every fault handler, with interrupts off. When the fault is in a slot, `frame` is corrected to
    /// the original instruction, its provisional record is discarded, the attempt is counted as faulted, and the result
    /// is true; the host then goes on with the corrected frame, its exception tables included. When the instruction is
    /// restarted its probe fires again, so that it leaves one record for one completion.
    #[inline]
    pub fn on_fault(&self, frame: &mut TrapFrame) -> bool {
        let Some((site, slot)) = self.slots.owner(frame.rip) else {
            return false;
        };
        // SAFETY: an owner is a site that lives until its slot is free, and the interrupted code is in the slot.
        let site = unsafe { &*site };
        let offset = frame.rip - slot;
        frame.rip = site.original(offset);
        if let Some(cpu) = self.this_cpu() {
            let of_shaded = |shaded: &Site| core::ptr::eq(cpu.stepping(), shaded);
            let is_stepped = core::ptr::eq(cpu.stepping(), site) || site.shaded.as_deref().is_some_and(of_shaded);
            if is_stepped && let Some(step) = cpu.end_step(frame.rsp) {
                step.give_back_flags(frame);
            }
            // The jump back cannot fault unless the text is gone.
            self.retract_from(site, offset, cpu, frame);
        }
        true
    }

    /// Takes back the hits on what has not completed in the slot of a site, in which the CPU is at `offset`: on its instruction, and on
    /// the one in the shadow of that.
    pub(super) fn retract_from(&self, site: &Site, offset: u64, cpu: &Cpu, frame: &mut TrapFrame) {
        if offset < u64::from(site.at) {
            // In front of the `sti` that is not in the original.
            frame.rflags |= RFLAGS_IF;
        }
        let Some(incomplete) = site.copied_at(offset) else {
            return;
        };
        let none_has = core::ptr::eq(incomplete, site);
        if none_has {
            self.retract(site, cpu, frame);
        }
        let both_were_hit = match site.resumption {
            // It faults only where it would not get as far as the next one.
            Resumption::Shadowing { shadow, .. } => shadow == Shadow::Events || !none_has,
            _ => false,
        };
        if let Some(shaded) = site.shaded.as_deref().filter(|_| both_were_hit) {
            self.retract_shaded(shaded, cpu, frame);
        }
    }

    /// Takes the hit back on an instruction that was hit in the shadow of the one before.
    pub(super) fn retract_shaded(&self, shaded: &Site, cpu: &Cpu, frame: &TrapFrame) {
        if let Some(site) = self.site(shaded.address) {
            self.retract(site, cpu, frame);
        }
    }

    /// Takes the hit back whose instruction has not completed in its slot, and will be hit again: its counts and its records.
    ///
    /// An instruction that is there to raise an exception has completed by that.
    pub(super) fn retract(&self, site: &Site, cpu: &Cpu, frame: &TrapFrame) {
        if site.insn.raises() {
            return;
        }
        if cpu.is_busy() {
            // The attempt was inside a hit: it was counted as missed, and left no record.
            for probe in site.probes() {
                probe.undo_missed();
            }
            return;
        }
        let who = self.who(frame);
        let known = self
            .cpus
            .iter()
            .filter_map(|cpu| Some((cpu, cpu.attempts.find(site, who)?)));
        // The task may have been interrupted in the slot and have continued on another CPU, and have made earlier attempts elsewhere.
        let (newest, outcomes) = match known.max_by_key(|(_, attempt)| attempt.number) {
            Some((cpu, attempt)) => {
                cpu.ring.discard_range(attempt.from, attempt.to);
                let lost =
                    (0..64).map(|at| [Outcome::Lost, Outcome::TracesLost].map(|lost| attempt.outcomes.has(lost, at)));
                cpu.ring
                    .take_back_losses(lost.flatten().filter(|lost| *lost).count() as u64);
                (attempt.newest, attempt.outcomes)
            }
            // Code in user mode can go to a slot without a hit.
            None if frame.is_user() => return,
            None => (u64::MAX, self.discard_newest(site)),
        };
        // The ranks ascend: who has come to the site since was not hit.
        let hit = site.probes().take_while(|probe| probe.rank() <= newest);
        for (position, probe) in hit.enumerate() {
            if let Some(number) = &probe.returns {
                self.host().follow_again(number.get(), frame);
                continue;
            }
            if probe.undo(&outcomes, position) {
                self.host().request_reap();
            }
        }
    }

    /// Who makes an attempt in code with these registers.
    #[inline]
    pub(super) fn who(&self, frame: &TrapFrame) -> Who {
        Who {
            rsp: frame.rsp,
            task: if frame.is_user() { self.host().task().cookie } else { 0 },
        }
    }

    /// No CPU remembers the attempt any more: the newest record of each probe that it can have left is taken for the one, and that it
    /// went as it would go now.
    fn discard_newest(&self, site: &Site) -> Outcomes {
        let cookie = self.host().task().cookie;
        let mut outcomes = Outcomes::default();
        for (position, probe) in site.probes().enumerate() {
            if probe.loaded().is_some_and(|loaded| loaded.is_suspended(probe.group)) {
                outcomes.note(Outcome::Suspended, position);
            } else if !probe.log_on_fault && probe.returns.is_none() {
                let _ = self.cpus.iter().any(|cpu| cpu.ring.discard(site.address, cookie));
            }
        }
        outcomes
    }
}
