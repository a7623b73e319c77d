//! A fault in a slot must look as if the original instruction had faulted.

use crate::frame::TrapFrame;
use crate::host::Host;
use crate::probe::{Cpu, Engine, Site, bit};

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
        let cpu = self.this_cpu();
        if let Some(cpu) = cpu
            && core::ptr::eq(cpu.stepping(), site)
            && let Some(step) = cpu.end_step(frame.rsp)
        {
            step.give_back_flags(frame);
        }
        if frame.rip != slot {
            // The jump back cannot fault unless the text is gone. Show where it was going.
            frame.rip = site.address.wrapping_add(frame.rip - slot);
            return true;
        }
        frame.rip = site.address;
        if let Some(cpu) = cpu {
            self.retract(site, cpu, frame);
        }
        true
    }

    /// Takes the hit back whose instruction has not completed in its slot, and will be hit again: its counts and its records.
    pub(super) fn retract(&self, site: &Site, cpu: &Cpu, frame: &TrapFrame) {
        if cpu.is_busy() {
            // The attempt was inside a hit: it was counted as missed, and left no record.
            for probe in site.probes() {
                probe.undo_missed();
            }
            return;
        }
        let suspended = self.discard_records(site, cpu, frame.rsp);
        for (position, probe) in site.probes().enumerate() {
            if suspended & bit(position) != 0 {
                probe.undo_suspended();
            } else if probe.undo_turn() {
                self.host().request_reap();
            }
        }
    }

    /// Discards the records of the hit whose instruction has just faulted, and says which of the probes were suspended then.
    fn discard_records(&self, site: &Site, cpu: &Cpu, rsp: u64) -> u64 {
        // The task may have been interrupted in the slot and have continued on another CPU.
        let cpus = || core::iter::once(cpu).chain(&self.cpus);
        if let Some(suspended) = cpus().find_map(|cpu| cpu.discard_attempt(site, rsp)) {
            return suspended;
        }
        // Another hit has come between. The newest record that it can be is taken for the one, and that groups are as they were.
        let cookie = self.host().task().cookie;
        let mut suspended = 0;
        for (position, probe) in site.probes().enumerate() {
            if probe.loaded().is_some_and(|loaded| loaded.is_suspended(probe.group)) {
                suspended |= bit(position);
            } else if !probe.log_on_fault {
                let _ = cpus().any(|cpu| cpu.ring.discard(site.address, cookie));
            }
        }
        suspended
    }
}
