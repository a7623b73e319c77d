//! What each CPU has for its hits: preallocated, and touched by nobody else.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use zerocopy::FromZeros;

use super::attempt::{Attempts, Left, Outcome, Outcomes, Who};
use super::program::{Loaded, Probe};
use super::site::Site;
use crate::frame::{RFLAGS_IF, RFLAGS_TF, TrapFrame};
use crate::host::CallWords;
use crate::mem::{self, OutOfMemory};
use crate::record::ring::Ring;
use crate::rpn::interp::Workspace;
use crate::rpn::limits::CALL_VARIABLES_MAX;

/// Steps inside steps: a step is interrupted only by an NMI or a machine check, whose handlers may hit a probe each. A host on which NMIs
/// are nested without a bound runs out of stack first: each level takes the frames of two traps.
const STEPS: usize = 32;

/// How far below the interrupted stack pointer code that interrupts it cannot be: the frame that the CPU pushes is there.
const TRAP_FRAME: u64 = 40;

/// How far above it the stack pointer may be after one instruction: `ret imm16`.
const RELEASED: u64 = 0xffff + 8;

/// Words in a CPU's ring, as a power of two: 256 KiB.
const RING_LOG2_WORDS: u32 = 15;

/// The engine's state for one CPU.
///
/// Only traps on that CPU use it, with interrupts off. They can nest (NMI), so that everything here is either guarded by
/// [`enter`](Cpu::enter) or works when interrupted between any two instructions.
#[repr(align(128))]
pub(crate) struct Cpu {
    busy: AtomicBool,
    workspace: UnsafeCell<Box<Workspace>>,
    steps: Box<[PendingStep]>,
    depth: AtomicUsize,
    pub(crate) attempts: Attempts,
    /// Are hits of watchpoints collected?
    collecting: AtomicBool,
    collected: AtomicU8,
    pub(crate) ring: Ring,
}

// SAFETY: the workspace is reached through `Hit` alone, of which there is one at a time (`busy`); the rest is atomic.
unsafe impl Sync for Cpu {}

/// The right to use a CPU's workspace. Dropping it ends the hit.
pub(crate) struct Hit<'c> {
    cpu: &'c Cpu,
    /// The rank of the last probe that was hit.
    newest: u64,
    /// How it went for the probes of the site, if not as usual.
    outcomes: Option<Outcomes>,
    /// See [`Hit::depend_on_another`].
    depends_on_another: bool,
    /// The stack pointer of the code that was hit.
    stack_pointer: u64,
    /// The program that the words for a call in the workspace are of; 0 for none.
    words_of: u32,
}

#[derive(Default)]
struct PendingStep {
    site: AtomicPtr<Site>,
    rflags: AtomicU64,
    rsp: AtomicU64,
    traced: AtomicBool,
}

impl PendingStep {
    /// Is code with this stack pointer what is being stepped, and not what has interrupted it? That is below it on the same stack, or
    /// on another one.
    fn is_of(&self, rsp: u64) -> bool {
        let lowest = self.rsp.load(Ordering::Relaxed).wrapping_sub(TRAP_FRAME - 1);
        rsp.wrapping_sub(lowest) < TRAP_FRAME + RELEASED
    }
}

/// A single step that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) site: *const Site,
    /// The RFLAGS that the interrupted code goes on with, from before TF was set and IF cleared.
    pub(crate) rflags: u64,
    /// Its stack pointer, which the instruction moves by little.
    pub(crate) rsp: u64,
    /// Is somebody else stepping it too?
    pub(crate) traced: bool,
}

impl Step {
    /// Gives the interrupted code the flags back that were borrowed for the step.
    pub(crate) fn give_back_flags(&self, frame: &mut TrapFrame) {
        const BORROWED: u64 = RFLAGS_TF | RFLAGS_IF;
        frame.rflags = frame.rflags & !BORROWED | self.rflags & BORROWED;
    }
}

impl Cpu {
    pub(crate) fn new() -> Result<Self, OutOfMemory> {
        Ok(Cpu {
            busy: AtomicBool::new(false),
            workspace: UnsafeCell::new(Workspace::new_box_zeroed().map_err(|_| OutOfMemory)?),
            steps: mem::boxed_slice(STEPS, |_| PendingStep::default())?,
            depth: AtomicUsize::new(0),
            attempts: Attempts::new()?,
            collecting: AtomicBool::new(false),
            collected: AtomicU8::new(0),
            ring: Ring::new(RING_LOG2_WORDS)?,
        })
    }

    /// Begins a hit; `None` when this CPU is inside one already.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Hit<'_>> {
        // A load and a store, not a swap: the only other party is a trap that interrupts this CPU between the two, and
        // it has left again when this continues.
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        Some(Hit {
            cpu: self,
            newest: 0,
            outcomes: None,
            depends_on_another: false,
            stack_pointer: 0,
            words_of: 0,
        })
    }

    /// From now on hits of watchpoints are collected, and not handled: the accesses are made for an instruction that is being emulated.
    ///
    /// (Those of an NMI that comes in between are taken for the instruction's too.)
    pub(crate) fn collect_watchpoints(&self) -> Collecting<'_> {
        self.collected.store(0, Ordering::Relaxed);
        let before = self.collecting.swap(true, Ordering::Relaxed);
        Collecting { cpu: self, before }
    }

    /// Are hits collected? Then these are.
    pub(crate) fn has_collected(&self, watchpoints: u8) -> bool {
        let collecting = self.collecting.load(Ordering::Relaxed);
        if collecting {
            self.collected.fetch_or(watchpoints, Ordering::Relaxed);
        }
        collecting
    }

    /// Is this CPU inside a hit?
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Notes that the instruction of a site is about to be carried out in its slot, after a hit of this probe alone that left no records and
    /// went as usual. See [`Hit::note_attempt`].
    #[inline]
    pub(crate) fn note_attempt(&self, site: &Site, probe: &Probe, who: Who) {
        let mark = self.ring.mark();
        let left = Left {
            newest: probe.rank(),
            records: (mark, mark),
            outcomes: None,
        };
        self.attempts.note(site, who, left);
    }

    /// Remembers that a step begins; false when too many are under way.
    pub(crate) fn begin_step(&self, step: Step) -> bool {
        let depth = self.depth.load(Ordering::Relaxed);
        let Some(pending) = self.steps.get(depth) else {
            return false;
        };
        self.depth.store(depth + 1, Ordering::Relaxed);
        pending.site.store(step.site.cast_mut(), Ordering::Relaxed);
        pending.rflags.store(step.rflags, Ordering::Relaxed);
        pending.rsp.store(step.rsp, Ordering::Relaxed);
        pending.traced.store(step.traced, Ordering::Relaxed);
        true
    }

    /// Ends the newest step, if one is under way and the code with this stack pointer is what it steps.
    pub(crate) fn end_step(&self, rsp: u64) -> Option<Step> {
        let depth = self.depth.load(Ordering::Relaxed).checked_sub(1)?;
        let pending = self.steps.get(depth).filter(|pending| pending.is_of(rsp))?;
        let step = Step {
            site: pending.site.swap(ptr::null_mut(), Ordering::Relaxed),
            rflags: pending.rflags.load(Ordering::Relaxed),
            rsp: pending.rsp.load(Ordering::Relaxed),
            traced: pending.traced.load(Ordering::Relaxed),
        };
        self.depth.store(depth, Ordering::Relaxed);
        Some(step)
    }

    /// The site of the newest step, or null.
    pub(crate) fn stepping(&self) -> *const Site {
        let newest = self
            .depth
            .load(Ordering::Relaxed)
            .checked_sub(1)
            .and_then(|depth| self.steps.get(depth));
        newest.map_or(ptr::null(), |pending| pending.site.load(Ordering::Relaxed).cast_const())
    }
}

/// The time in which hits of watchpoints are collected.
pub(crate) struct Collecting<'c> {
    cpu: &'c Cpu,
    before: bool,
}

impl Collecting<'_> {
    /// Ends it; a bit for each watchpoint that was hit.
    pub(crate) fn end(self) -> u8 {
        self.cpu.collecting.store(self.before, Ordering::Relaxed);
        self.cpu.collected.swap(0, Ordering::Relaxed)
    }
}

impl<'c> Hit<'c> {
    /// The CPU.
    #[inline]
    pub(crate) fn cpu(&self) -> &'c Cpu {
        self.cpu
    }

    /// Notes that it went in an unusual way for a probe.
    #[cold]
    pub(crate) fn note(&mut self, outcome: Outcome, site: &Site, probe: &Probe) {
        if let Some(position) = site.probes().position(|other| ptr::eq(other, probe)) {
            self.outcomes.get_or_insert_default().note(outcome, position);
        }
    }

    /// Notes that an instruction before that of the site has not completed yet, and may fault: no record is final before it has.
    pub(crate) fn depend_on_another(&mut self) {
        self.depends_on_another = true;
    }

    /// Has [`depend_on_another`](Self::depend_on_another) been called?
    #[inline]
    pub(crate) fn depends_on_another(&self) -> bool {
        self.depends_on_another
    }

    /// As [`note`](Self::note), if the hit is one at a site.
    pub(crate) fn note_at(&mut self, outcome: Outcome, site: Option<&Site>, probe: &Probe) {
        if let Some(site) = site {
            self.note(outcome, site, probe);
        }
    }

    /// Notes that the instruction of the site is about to be carried out in its slot, and that the hit's records, if it left
    /// any, are those since `mark`.
    #[inline]
    pub(crate) fn note_attempt(&self, site: &Site, who: Who, mark: u64) {
        self.cpu.attempts.note(site, who, self.left(mark));
    }

    fn left(&self, mark: u64) -> Left<'_> {
        Left {
            newest: self.newest,
            records: (mark, self.cpu.ring.mark()),
            outcomes: self.outcomes.as_ref(),
        }
    }

    /// Notes that it is a probe's turn to be hit.
    #[inline]
    pub(crate) fn reach(&mut self, probe: &Probe) {
        self.newest = probe.rank();
    }

    /// As [`note_attempt`](Self::note_attempt), for the instruction that is carried out in the shadow of the one that was hit.
    pub(crate) fn note_shaded_attempt(&self, site: &Site, who: Who, mark: u64) {
        self.cpu.attempts.note_shaded(site, who, self.left(mark));
    }

    /// Notes the stack pointer of the code that was hit.
    #[inline]
    pub(crate) fn note_stack_pointer(&mut self, rsp: u64) {
        self.stack_pointer = rsp;
    }

    /// The stack pointer of the code that was hit, if it was noted.
    #[inline]
    pub(crate) fn stack_pointer(&self) -> u64 {
        self.stack_pointer
    }

    /// The handler of a program is about to run where a call may begin: what it keeps for the call is zero.
    pub(crate) fn begin_call(&mut self, loaded: &Loaded) {
        *self.workspace().call_words() = [0; CALL_VARIABLES_MAX];
        self.words_of = loaded.owner;
    }

    /// What the program of a probe has kept for the call that begins with this hit.
    pub(crate) fn words_of(&mut self, probe: &Probe) -> CallWords {
        let owner = probe.loaded().map_or(0, |loaded| loaded.owner);
        if owner != 0 && self.words_of == owner {
            *self.workspace().call_words()
        } else {
            [0; CALL_VARIABLES_MAX]
        }
    }

    /// The workspace of the CPU.
    #[inline]
    pub(crate) fn workspace(&mut self) -> &mut Workspace {
        // SAFETY: this `Hit` is the only one of its CPU until it is dropped (`busy`), it does not leave the trap that made
        // it, and it is borrowed mutably here.
        unsafe { &mut *self.cpu.workspace.get() }
    }
}

impl Drop for Hit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cpu.busy.store(false, Ordering::Relaxed);
    }
}
