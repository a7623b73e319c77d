//! An inserted program and its probes: limits and counts.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::chain::Linked;
use super::express::Tally;
use super::maps::NamedMap;
use super::site::Site;
use super::watch::WatchNumber;
use crate::host::Watchpoint;
use crate::rpn::Program;
use crate::rpn::object::Point;
use crate::rpn::variables::Pool;
use crate::wire::{State, label};

/// A program that has been inserted. Its probes refer back to it; it is boxed and does not move.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) program: Program,
    /// What its author calls it.
    pub(crate) program_id: u32,
    pub(crate) major: u16,
    pub(crate) module: Label,
    /// Where the module is, if it can go away.
    pub(crate) base: Option<u64>,
    pub(crate) locals: Box<[AtomicU64]>,
    /// Where each of its global variables is in the system's.
    pub(crate) global_slots: Box<[u16]>,
    /// What `alloc lv` takes variables from, if the program uses it.
    pub(crate) local_pool: Option<Box<Pool>>,
    /// What it is called in pools: not zero, and no other program has it.
    pub(crate) owner: u32,
    /// For each of its groups: is it suspended? Empty if none ever is.
    pub(crate) suspended: Box<[AtomicBool]>,
    pub(crate) maps: Box<[NamedMap]>,
    pub(crate) probes: Box<[Probe]>,
}

/// Text of at most 64 bytes, zero-padded, for status.
pub(crate) type Label = [u8; 64];

/// One probe of a program.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The next probe at the same site.
    next: AtomicPtr<Probe>,
    /// The program this belongs to; set once the program is in its place.
    pub(crate) loaded: AtomicPtr<Loaded>,
    /// Where it is armed; null once its module is gone.
    pub(crate) site: AtomicPtr<Site>,
    /// Which point of the program.
    pub(crate) point: usize,
    /// Which of the program's groups.
    pub(crate) group: u16,
    pub(crate) minor: u16,
    pub(crate) label: Label,
    pub(crate) address: u64,
    /// What it watches, if it is not a breakpoint.
    pub(crate) watchpoint: Option<Watchpoint>,
    pub(crate) watch: WatchNumber,
    pub(crate) resume_code: u32,
    pub(crate) log_on_fault: bool,
    /// Hits to let pass first.
    pub(crate) pass_count: u64,
    /// Hits to process after that; 0 is no limit.
    pub(crate) max_hits: u64,
    /// What its handler adds to, if that is all it does.
    pub(crate) tally: Option<Tally>,
    state: AtomicU32,
    pub(crate) counts: Counts,
}

/// What happened to a probe so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Hits that took a turn: the one counter from which skipped and processed ones follow.
    arrivals: AtomicU64,
    /// Hits while the group was suspended.
    pub(crate) suspended: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) faulted: AtomicU64,
    /// Hits after the program removed the probe.
    pub(crate) late: AtomicU64,
    pub(crate) exceptions: AtomicU64,
    pub(crate) overflows: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// Adds one to a count.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes one back from a count. Not below zero: the probe may have come to its site after the hit that is undone.
fn take_back(counter: &AtomicU64) {
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
}

impl Loaded {
    /// Is this group suspended?
    #[inline]
    pub(crate) fn is_suspended(&self, group: u16) -> bool {
        self.suspended
            .get(usize::from(group))
            .is_some_and(|suspended| suspended.load(Ordering::Relaxed))
    }
}

/// What a hit is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Run the program.
    Run,
    /// Run the program; it is the last time.
    RunLast,
    /// Let it pass: before the first or after the last that is wanted.
    Pass,
}

impl Linked for Probe {
    #[inline]
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl Probe {
    /// A probe for a point of a program, armed as far as it is concerned.
    pub(crate) fn new(index: usize, group: u16, point: &Point<'_>, address: u64, resume_code: u32) -> Self {
        Probe {
            next: AtomicPtr::default(),
            loaded: AtomicPtr::default(),
            site: AtomicPtr::default(),
            point: index,
            group,
            minor: point.minor(),
            label: label(point.display().as_bytes()),
            address,
            watchpoint: None,
            watch: WatchNumber::default(),
            resume_code,
            log_on_fault: point.log_on_fault(),
            pass_count: point.pass_count(),
            max_hits: point.max_hits(),
            tally: None,
            state: AtomicU32::new(State::Armed as u32),
            counts: Counts::default(),
        }
    }

    /// Where it is armed. Valid as [`Engine::site`](super::Engine) says.
    pub(crate) fn site(&self) -> Option<&Site> {
        // SAFETY: null or a site that lives until a grace period after this pointer was cleared.
        unsafe { self.site.load(Ordering::Acquire).as_ref() }
    }

    /// Its program.
    #[inline]
    pub(crate) fn loaded(&self) -> Option<&Loaded> {
        // SAFETY: set to the program that owns this probe before anybody could find it, and never changed.
        unsafe { self.loaded.load(Ordering::Relaxed).as_ref() }
    }

    /// Does it still want to fire?
    pub(crate) fn is_active(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Armed as u32
    }

    /// Has its own program removed it?
    #[inline]
    pub(crate) fn is_removed(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::RemovedItself as u32
    }

    /// Moves from armed to another state; false when someone else already moved it.
    pub(crate) fn retire(&self, state: State) -> bool {
        let armed = State::Armed as u32;
        self.state
            .compare_exchange(armed, state as u32, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Its own program removes it. False when it has done so before; true as well when the probe is exhausted or its module gone, for
    /// then too no other run of the program is the one that removed it.
    pub(crate) fn remove_itself(&self) -> bool {
        let (armed, exhausted) = (State::Armed as u32, State::Exhausted as u32);
        let removed = State::RemovedItself as u32;
        let change = |state| (state == armed || state == exhausted).then_some(removed);
        match self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change) {
            Ok(_) => true,
            Err(state) => state != removed,
        }
    }

    /// Its [`State`] as a number.
    pub(crate) fn state_code(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }

    /// Is there nothing to be done about a hit but to count it twice, here and in a variable?
    pub(crate) fn goes_express(&self) -> bool {
        let suspends = self.loaded().is_none_or(|loaded| !loaded.suspended.is_empty());
        self.tally.is_some() && self.pass_count == 0 && self.max_hits == 0 && !suspends
    }

    /// Takes a turn, of which there is no limit.
    #[inline]
    pub(crate) fn take_unlimited_turn(&self) {
        self.counts.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a turn. Exact on any number of CPUs, since one atomic decides it.
    #[inline]
    pub(crate) fn take_turn(&self) -> Turn {
        let arrival = self.counts.arrivals.fetch_add(1, Ordering::Relaxed);
        let Some(processed) = arrival.checked_sub(self.pass_count) else {
            return Turn::Pass;
        };
        if self.max_hits == 0 || processed < self.max_hits.wrapping_sub(1) {
            Turn::Run
        } else if processed == self.max_hits - 1 {
            Turn::RunLast
        } else {
            Turn::Pass
        }
    }

    /// Takes a turn back, because the instruction faulted and will be hit again. True when the probe wants to fire again
    /// although it was exhausted.
    pub(crate) fn undo_turn(&self) -> bool {
        count(&self.counts.faulted);
        if self.state_code() == State::RemovedItself as u32 {
            // Its program ran and said that it was the last time.
            return false;
        }
        take_back(&self.counts.arrivals);
        let (exhausted, armed) = (State::Exhausted as u32, State::Armed as u32);
        self.state
            .compare_exchange(exhausted, armed, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes back that a hit came while the group was suspended, because the instruction faulted and will be hit again.
    pub(crate) fn undo_suspended(&self) {
        count(&self.counts.faulted);
        take_back(&self.counts.suspended);
    }

    /// Takes back that a hit was missed, because the instruction faulted and will be hit again.
    pub(crate) fn undo_missed(&self) {
        count(&self.counts.faulted);
        take_back(&self.counts.missed);
    }

    /// Hits let pass, hits processed, hits after the last that was wanted.
    pub(crate) fn turns(&self) -> (u64, u64, u64) {
        let arrivals = self.counts.arrivals.load(Ordering::Relaxed);
        let skipped = arrivals.min(self.pass_count);
        let rest = arrivals - skipped;
        let processed = if self.max_hits == 0 {
            rest
        } else {
            rest.min(self.max_hits)
        };
        (
            skipped,
            processed,
            rest - processed + self.counts.late.load(Ordering::Relaxed),
        )
    }
}
