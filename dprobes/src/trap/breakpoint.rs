//! #BP: find the site, run its programs, carry out the instruction.

use core::sync::atomic::Ordering;

use super::Verdict;
use super::emulated::Emulated;
use super::environment::Environment;
use super::facility;
use super::shadow::run_copy;
use super::step::TooDeep;
use crate::frame::{RFLAGS_RF, RFLAGS_TF, TrapFrame};
use crate::host::{ExitTo, Host};
use crate::probe::{
    Collecting, Cpu, Engine, Hit, Loaded, Onward, Outcome, Probe, Resumption, Rewritten, Site, Turn, count,
};
use crate::record::header::{Header, RecordState};
use crate::record::ring::MODE_NEWEST;
use crate::rpn::interp::{self, End, Variables};
use crate::rpn::op::facility::SNAPSHOT;
use crate::text::transaction::INT3;

/// Where a hit is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Where<'a> {
    /// The address that programs and records are told.
    pub(super) address: u64,
    /// The instruction there, if it is known.
    pub(super) code: Option<&'a [u8]>,
    /// Whether it is still to be carried out, and may fault then.
    pub(super) may_fault: bool,
    /// Where the probe is armed, if it is a probepoint.
    pub(super) site: Option<&'a Site>,
    /// Has the code been in user mode, and does the kernel handle its hit as it handles a system call: with GS its own?
    pub(super) from_user: bool,
}

impl<'a> Where<'a> {
    fn at(site: &'a Site) -> Self {
        Where {
            address: site.address,
            // One that is rewritten is never where a function returns or has its frame not set up yet.
            code: site.rewritten.is_none().then(|| site.insn.bytes()),
            may_fault: site.may_fault,
            site: Some(site),
            from_user: false,
        }
    }
}

impl<H: Host> Engine<H> {
    /// Handles a breakpoint exception, with interrupts off and `frame.rip` behind the `int3`, as the CPU leaves it.
    ///
    /// A trap that is late, because the breakpoint has been taken away since the CPU ran into it, is handled as well, whoever's it was: the
    /// CPU goes on with the instruction that is there now.
    // Whoever calls it is the entry of a trap, of which a kernel has one or two.
    #[inline(always)]
    pub fn on_breakpoint(&self, frame: &mut TrapFrame) -> Verdict {
        let address = frame.rip.wrapping_sub(1);
        let Some(site) = self.site(address) else {
            return self.without_a_site(address, frame);
        };
        let Some(cpu) = self.this_cpu() else {
            return Verdict::NotOurs;
        };
        let Some((probe, tally)) = site.express() else {
            return self.hit(site, cpu, frame);
        };
        if cpu.is_busy() || self.is_halted() {
            return self.hit(site, cpu, frame);
        }
        probe.take_unlimited_turn();
        tally.add();
        match site.onward {
            Onward::Slot(slot) => frame.rip = slot,
            // A watchpoint is to be hit by what the CPU does, not by this.
            Onward::Call(call) if !self.watches.watch_memory() && push(frame, call.next) => frame.rip = call.target,
            _ => return self.resume_in_full(site, probe, cpu, frame),
        }
        Verdict::Handled
    }

    /// Carries out the instruction of a site whose one probe has been hit and has not logged.
    #[inline(never)]
    fn resume_in_full(&self, site: &Site, probe: &Probe, cpu: &Cpu, frame: &mut TrapFrame) -> Verdict {
        frame.rip = site.address;
        if site.may_fault {
            cpu.note_attempt(site, probe, self.who(frame));
        }
        self.carry_out(site, cpu, frame, cpu.ring.mark())
    }

    /// Carries out the instruction of a site whose programs have logged since `mark`.
    #[inline]
    fn carry_out(&self, site: &Site, cpu: &Cpu, frame: &mut TrapFrame, mark: u64) -> Verdict {
        match self.resume(site, cpu, frame, mark) {
            Ok(()) => Verdict::Handled,
            Err(TooDeep) => self.give_up(site, cpu, frame),
        }
    }

    /// A hit at a site: its probes in turn, then its instruction.
    #[inline(never)]
    fn hit(&self, site: &Site, cpu: &Cpu, frame: &mut TrapFrame) -> Verdict {
        // Somebody else's breakpoint: on an instruction that is a trap by itself, or with which the host rewrites one that is not probed any
        // more. Both ends of what is ours are waited for with a core sync.
        if site.is_reported() || site.rewritten.is_some() && !site.is_armed() {
            return Verdict::NotOurs;
        }
        frame.rip = site.address;
        if site.sentry != 0 {
            self.host().sentry(site.sentry, frame);
            if frame.rip != site.address {
                return Verdict::Handled;
            }
        }
        let mark = cpu.ring.mark();
        self.fire_all(site, cpu, frame, mark);
        // A program that has written rip has sent the CPU elsewhere: the instruction is not carried out.
        if frame.rip != site.address {
            cpu.ring.publish_since(mark);
            return Verdict::Handled;
        }
        self.carry_out(site, cpu, frame, mark)
    }

    /// The probes of a site in turn, or, in another hit, none of them.
    #[inline(always)]
    fn fire_all(&self, site: &Site, cpu: &Cpu, frame: &mut TrapFrame, mark: u64) {
        match cpu.enter() {
            Some(mut hit) => {
                hit.note_stack_pointer(frame.rsp);
                for probe in site.probes() {
                    self.fire(site, probe, &mut hit, frame);
                }
                if site.may_fault {
                    hit.note_attempt(site, self.who(frame), mark);
                }
            }
            None => {
                for probe in site.probes() {
                    count(&probe.counts.missed);
                }
            }
        }
    }

    /// A `ud2` or `ud1` raised #UD, with interrupts off now and `frame` as the CPU left it: `rip` is the instruction's. To be called by a host that
    /// has answered [`Special::Reported`](crate::host::Special::Reported), before it does anything else about it.
    ///
    /// True when a program has sent the CPU elsewhere: the host resumes from the frame, and nothing was raised. False: the host
    /// goes on.
    #[inline(never)]
    pub fn on_undefined(&self, frame: &mut TrapFrame) -> bool {
        let Some(site) = self
            .site(frame.rip)
            .filter(|site| site.is_reported() && site.is_armed())
        else {
            return false;
        };
        let Some(cpu) = self.this_cpu() else { return false };
        self.fire_all(site, cpu, frame, cpu.ring.mark());
        frame.rip != site.address
    }

    /// The instruction cannot be carried out: nobody handles the breakpoint, and the host says so, which is better than going on with
    /// an instruction that was not executed. The hit counts as one whose instruction faulted.
    #[cold]
    #[inline(never)]
    fn give_up(&self, site: &Site, cpu: &Cpu, frame: &mut TrapFrame) -> Verdict {
        self.retract(site, cpu, frame);
        frame.rip = site.address.wrapping_add(1);
        Verdict::NotOurs
    }

    /// No probe is known where a breakpoint was hit. If none is there any more the trap is late: whoever had put it there, this engine
    /// or another facility, has taken it away since, and the CPU is sent back to what is there now.
    ///
    /// A host that lets interrupts in before it calls [`on_breakpoint`](Self::on_breakpoint) answers the core sync of a removal from inside
    /// the trap, so that nothing holds the removal up. The site is looked for once more, because the probe may have been inserted
    /// again meanwhile.
    #[cold]
    #[inline(never)]
    fn without_a_site(&self, address: u64, frame: &mut TrapFrame) -> Verdict {
        match (self.late_site(address, frame), self.this_cpu()) {
            (Some(site), Some(cpu)) => self.hit(site, cpu, frame),
            // A late trap has been sent back to its address, where there is no breakpoint any more.
            (None, _) if frame.rip == address => Verdict::Handled,
            _ => Verdict::NotOurs,
        }
    }

    fn late_site(&self, address: u64, frame: &mut TrapFrame) -> Option<&Site> {
        // The last byte of `int 3` in two bytes, which raises the same exception.
        const INT_3: [u8; 2] = [0xcd, 0x03];
        let mut there = [0];
        self.host().read(address, &mut there).ok()?;
        if there == [INT3] {
            return self.site(address);
        }
        let mut both = [0; 2];
        let in_two_bytes =
            there == [INT_3[1]] && self.host().read(address.wrapping_sub(1), &mut both).is_ok() && both == INT_3;
        if !in_two_bytes {
            frame.rip = address;
        }
        None
    }

    /// One probe of a site: its turn, its program, its record.
    #[inline]
    pub(super) fn fire(&self, site: &Site, probe: &Probe, hit: &mut Hit<'_>, frame: &mut TrapFrame) {
        hit.reach(probe);
        if let Some(number) = &probe.returns {
            return self.follow_call(site, probe, number.get(), hit, frame);
        }
        let Some(loaded) = probe.loaded() else { return };
        if probe.is_removed() {
            count(&probe.counts.late);
            hit.note(Outcome::Late, site, probe);
            return;
        }
        if loaded.is_suspended(probe.group) || self.is_halted() {
            count(&probe.counts.suspended);
            hit.note(Outcome::Suspended, site, probe);
            return;
        }
        let turn = probe.take_turn();
        match turn {
            Turn::Run | Turn::RunLast => {}
            Turn::Skip => return hit.note(Outcome::Skipped, site, probe),
            Turn::Late => return hit.note(Outcome::Late, site, probe),
        }
        self.process(Where::at(site), probe, loaded, hit, frame, turn);
    }

    /// Does what the handler of a probe does, whose turn it is.
    #[inline(always)]
    pub(super) fn process(
        &self,
        place: Where<'_>,
        probe: &Probe,
        loaded: &Loaded,
        hit: &mut Hit<'_>,
        frame: &mut TrapFrame,
        turn: Turn,
    ) {
        let Some(counting) = loaded.program.counting(probe.point) else {
            return self.run(place, probe, loaded, hit, frame, turn);
        };
        if !counting.run(&self.variables(loaded)) {
            count(&probe.counts.exceptions);
        }
        self.end_turn(probe, turn);
    }

    /// The last hit that was wanted has been processed: the probe goes.
    #[inline]
    fn end_turn(&self, probe: &Probe, turn: Turn) {
        if turn == Turn::RunLast && probe.agree_with_hits() {
            self.host().request_reap();
        }
    }

    /// What the programs of a hit reach.
    #[inline]
    fn variables<'v>(&'v self, loaded: &'v Loaded) -> Variables<'v> {
        Variables {
            locals: &loaded.locals,
            globals: &self.globals.values,
            global_slots: &loaded.global_slots,
            local_pool: loaded.local_pool.as_deref(),
            global_pool: Some(&self.globals.pool),
            owner: loaded.owner,
        }
    }

    /// Runs the program of a probe whose turn it is, and writes its record.
    #[inline(never)]
    fn run(
        &self,
        place: Where<'_>,
        probe: &Probe,
        loaded: &Loaded,
        hit: &mut Hit<'_>,
        frame: &mut TrapFrame,
        turn: Turn,
    ) {
        let (address, cpu) = (place.address, hit.cpu());
        let may_fault = place.may_fault || hit.depends_on_another();
        if probe.returns.is_none() && loaded.program.keeps_for_calls(probe.point) && !place.from_user {
            hit.begin_call(loaded);
        }
        let workspace = hit.workspace();
        let mut environment = Environment {
            frame,
            host: self.host(),
            address,
            code: place.code,
            from_user: place.from_user,
            loaded,
        };
        let variables = self.variables(loaded);
        let outcome = interp::run(&loaded.program, probe.point, workspace, &mut environment, &variables);
        self.end_turn(probe, turn);
        match outcome.end {
            End::Exit | End::ExitTo(_) => {}
            End::Abort => return,
            End::Remove => {
                if !probe.remove_itself() {
                    // Another CPU's program has just ended in the same way, and its record is the one that counts.
                    probe.turn_was_late();
                    hit.note_at(Outcome::Late, place.site, probe);
                    return;
                }
                hit.note_at(Outcome::Removed, place.site, probe);
                self.host().request_reap();
            }
            End::Exception { .. } => count(&probe.counts.exceptions),
        }
        if outcome.log_overflow || outcome.trace_overflow {
            count(&probe.counts.overflows);
        }
        let elements = hit.workspace().log();
        let codes = (
            outcome.major.unwrap_or(loaded.major),
            outcome.minor.unwrap_or(probe.minor),
        );
        let task = self.host().task();
        let mut header = Header::new(
            address,
            codes,
            self.host().cpu(),
            self.host().now(),
            &task,
            elements.len(),
        );
        if probe.log_on_fault || !may_fault {
            header.state = RecordState::Published as u32;
        }
        if loaded.targets.has_ring() && !cpu.ring.push(&header, elements) {
            count(&probe.counts.lost);
            if header.state == RecordState::Provisional as u32 {
                hit.note_at(Outcome::Lost, place.site, probe);
            }
        }
        if loaded.targets.of_host() != 0 {
            self.deliver(probe, loaded, &header, hit.workspace().log());
        }
        if outcome.traced {
            self.record_traces(place.site, probe, loaded, hit, header);
        }
        if let End::ExitTo(facility) = outcome.end {
            self.exit_to(facility, address, probe, loaded, hit.workspace().log(), frame);
        }
    }

    /// Passes a record to the targets that are the host's, and counts those that did not take it.
    #[cold]
    #[inline(never)]
    fn deliver(&self, probe: &Probe, loaded: &Loaded, header: &Header, elements: &[u8]) {
        let untaken = self
            .host()
            .deliver(loaded.targets.of_host(), &header.to_words(), elements);
        let number = u64::from(untaken.count_ones());
        probe.counts.undelivered.fetch_add(number, Ordering::Relaxed);
    }

    /// Triggers the exit facility that a program has ended with, or counts that there is none.
    #[cold]
    #[inline(never)]
    fn exit_to(
        &self,
        facility: u8,
        address: u64,
        probe: &Probe,
        loaded: &Loaded,
        elements: &[u8],
        frame: &mut TrapFrame,
    ) {
        if facility == SNAPSHOT {
            // Only where something would be lost without it. The next snapshot needs that somebody has read this one.
            if self.rings_mode() == MODE_NEWEST {
                self.freeze();
            } else {
                count(&probe.counts.unavailable);
            }
            return;
        }
        let exit = ExitTo {
            facility: u32::from(facility),
            major: loaded.major,
            minor: probe.minor,
            address,
        };
        if !facility::offer(&exit, frame) && !self.host().exit_to(&exit, frame, elements) {
            count(&probe.counts.unavailable);
        }
    }

    /// Writes the record of the program's own stack traces, which follows that of the hit and is final when that is.
    #[cold]
    #[inline(never)]
    fn record_traces(&self, site: Option<&Site>, probe: &Probe, loaded: &Loaded, hit: &mut Hit<'_>, of_hit: Header) {
        let facts = [
            of_hit.address,
            u64::from(loaded.program_id),
            u64::from(loaded.major),
            u64::from(probe.minor),
        ];
        let cpu = hit.cpu();
        let Some(elements) = hit.workspace().trace_record(text(&loaded.module), facts) else {
            return;
        };
        let header = of_hit.with_elements(Header::TRACES, elements.len());
        if loaded.targets.of_host() != 0 {
            self.deliver(probe, loaded, &header, elements);
        }
        if loaded.targets.has_ring() && !cpu.ring.push(&header, elements) {
            count(&probe.counts.lost);
            if header.state == RecordState::Provisional as u32 {
                hit.note_at(Outcome::TracesLost, site, probe);
            }
        }
    }

    /// Sends the CPU to where the instruction is carried out, or does it.
    #[inline]
    pub(super) fn resume(&self, site: &Site, cpu: &Cpu, frame: &mut TrapFrame, mark: u64) -> Result<(), TooDeep> {
        match site.resumption {
            Resumption::Copied { slot } => {
                frame.rip = slot;
                Ok(())
            }
            Resumption::Stepped { slot, .. } => {
                let traced = frame.rflags & RFLAGS_TF != 0;
                self.begin_step(site, cpu, frame, slot, traced)
            }
            Resumption::Emulated { .. } | Resumption::Rewritten { .. } => self.emulate(site, cpu, frame, mark),
            Resumption::CopiedBehindSti { slot } => {
                run_copy(site, slot, frame);
                Ok(())
            }
            Resumption::Shadowing { slot, shadow } => self.resume_with_next(site, cpu, frame, (slot, shadow), mark),
            // No breakpoint leads here.
            Resumption::Reported => Ok(()),
        }
    }

    /// Does what the instruction of a site would have done.
    #[inline(never)]
    fn emulate(&self, site: &Site, cpu: &Cpu, frame: &mut TrapFrame, mark: u64) -> Result<(), TooDeep> {
        let rewritten;
        let (emulation, slot, fallback) = match &site.resumption {
            Resumption::Emulated {
                emulation,
                slot,
                fallback,
            } => (emulation, *slot, *fallback),
            Resumption::Rewritten { slot } => {
                rewritten = site.rewritten.as_ref().and_then(Rewritten::emulation).ok_or(TooDeep)?;
                (&rewritten, *slot, None)
            }
            _ => return Ok(()),
        };
        let traced = frame.rflags & RFLAGS_TF != 0;
        if traced && fallback.is_some() {
            // Somebody is stepping this code: the step must raise its #DB, which an emulation would not.
            return self.begin_step(site, cpu, frame, slot, traced);
        }
        let mut emulated = Emulated {
            frame,
            host: self.host(),
        };
        // A watchpoint that these accesses hit is hit by the instruction, and behind it.
        let watching = self.watches.watch_memory().then(|| cpu.collect_watchpoints());
        let done = emulation.run(site.address, &mut emulated);
        let touched = watching.map_or(0, Collecting::end);
        match (done, fallback) {
            (Ok(()), _) => {
                cpu.ring.publish_since(mark);
                if touched != 0 {
                    self.watchpoints(touched, cpu, frame);
                }
                if !traced {
                    return Ok(());
                }
                // The #DB that is due comes from the jump back, whatever the instruction has made of TF: it leads to
                // where the CPU is now.
                let jump = slot.wrapping_add(site.insn.len() as u64);
                let _ = self.begin_step(site, cpu, frame, jump, traced);
                Ok(())
            }
            (Err(_), Some(_)) => self.begin_step(site, cpu, frame, slot, traced),
            // What is in the slot is what the instruction was once. It is a push that fails, right above the frame of this very trap.
            (Err(_), None) if site.rewritten.is_some() => Err(TooDeep),
            (Err(_), None) => {
                frame.rip = slot;
                Ok(())
            }
        }
    }
}

/// Pushes onto the interrupted stack of kernel code, if it is the one this handler runs on, where nothing can be wrong with it. False, with
/// nothing changed, if it may be another one, or if the step or the resume flag is set.
#[inline(always)]
fn push(frame: &mut TrapFrame, value: u64) -> bool {
    const PAGE: u64 = 4096;
    let place = frame.rsp.wrapping_sub(8);
    let frame_end = (&raw const *frame).wrapping_add(1).addr() as u64;
    let same_page = (place.wrapping_add(7) ^ (frame_end - 1)) < PAGE;
    if place < frame_end || !same_page || frame.rflags & (RFLAGS_TF | RFLAGS_RF) != 0 {
        return false;
    }
    // SAFETY: the place is in the page in which the frame ends, which the entry of this trap has just written, and above the frame,
    // where this handler has nothing. What is there belongs to the interrupted code, which is about to push the same.
    unsafe { (place as *mut u64).write_unaligned(value) };
    frame.rsp = place;
    true
}

/// A label without its padding.
fn text(label: &[u8]) -> &[u8] {
    let end = label.iter().position(|byte| *byte == 0).unwrap_or(label.len());
    label.get(..end).unwrap_or(label)
}
