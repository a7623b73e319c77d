//! #DB: a watchpoint has been hit.

use super::breakpoint::Where;
use crate::frame::{RFLAGS_RF, TrapFrame};
use crate::host::Host;
use crate::probe::{Cpu, Engine, Hit, Probe, Turn, Watch, count};

impl<H: Host> Engine<H> {
    /// Handles hits of watchpoints: a bit for each, the lowest for number 0. For hosts that do not give all of #DB to
    /// [`on_debug`](Self::on_debug), but are told of each watchpoint; with interrupts off.
    pub fn on_watchpoint(&self, watchpoints: u8, frame: &mut TrapFrame) {
        if let Some(cpu) = self.this_cpu() {
            self.watchpoints_hit(watchpoints, cpu, frame);
        }
    }

    /// A CPU has come on line that does not watch for this watchpoint, because it has no register to give: one hit is counted as missed, so that whoever asks
    /// knows that the count is too low. How many there were nobody knows. With interrupts off.
    pub fn on_watchpoint_lost(&self, number: usize) {
        let probes = self.watches.get(number).map(|watch| watch.chain.iter());
        for probe in probes.into_iter().flatten() {
            count(&probe.counts.missed);
        }
    }

    /// The CPU has run into these watchpoints: handles that, or leaves it to an emulation that it has interrupted.
    pub(super) fn watchpoints_hit(&self, numbers: u8, cpu: &Cpu, frame: &mut TrapFrame) {
        if !cpu.has_collected(numbers) {
            self.watchpoints(numbers, cpu, frame);
        }
    }

    /// Runs the programs of all of these watchpoints, which one instruction has hit: one hit, in the order of their numbers.
    pub(super) fn watchpoints(&self, numbers: u8, cpu: &Cpu, frame: &mut TrapFrame) {
        let hit = || {
            (0..u8::BITS as usize)
                .filter(|number| numbers >> number & 1 != 0)
                .filter_map(|number| self.watches.get(number))
        };
        let interrupted = frame.rip;
        let shown = self.original(interrupted);
        frame.rip = shown;
        match cpu.enter() {
            Some(mut entered) => {
                for probe in hit().flat_map(|watch| watch.chain.iter()) {
                    // The copy of the instruction there, or at least not the breakpoint.
                    let code = self
                        .site(shown)
                        .filter(|site| site.rewritten.is_none())
                        .map(|site| site.insn.bytes());
                    let place = Where {
                        address: shown,
                        code,
                        may_fault: false,
                        site: None,
                        from_user: false,
                    };
                    self.fire_without_site(place, probe, &mut entered, frame);
                }
            }
            None => {
                // This includes what a program of the hit that is being handled has read or written.
                for probe in hit().flat_map(|watch| watch.chain.iter()) {
                    count(&probe.counts.missed);
                }
            }
        }
        if frame.rip != shown {
            // A program has sent the CPU elsewhere.
            return;
        }
        // A string instruction between two iterations goes on in the slot: at the original it would be hit again.
        frame.rip = interrupted;
        if hit().any(Watch::is_execute) {
            // The instruction is still to be executed: once without the trap (SDM volume 3, 18.3.1.1).
            frame.rflags |= RFLAGS_RF;
        }
    }

    /// One probe that is not on a site, where there is nothing to carry out: its turn, its program, its record.
    pub(super) fn fire_without_site(&self, place: Where<'_>, probe: &Probe, hit: &mut Hit<'_>, frame: &mut TrapFrame) {
        let Some(loaded) = probe.loaded() else { return };
        if probe.is_removed() {
            count(&probe.counts.late);
            return;
        }
        if loaded.is_suspended(probe.group) || self.is_halted() {
            count(&probe.counts.suspended);
            return;
        }
        let turn = probe.take_turn();
        if matches!(turn, Turn::Skip | Turn::Late) {
            return;
        }
        self.process(place, probe, loaded, hit, frame, turn);
    }

    /// The address that the code at this one has, if it is in a slot, or that it is going to.
    fn original(&self, rip: u64) -> u64 {
        let Some((site, slot)) = self.slots.owner(rip) else {
            return rip;
        };
        // SAFETY: an owner is a site that lives until its slot is free, and the interrupted code is in the slot.
        unsafe { &*site }.original(rip.wrapping_sub(slot))
    }
}
