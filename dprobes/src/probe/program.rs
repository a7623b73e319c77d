//! An inserted program and its probes: limits and counts.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::attempt::{Outcome, Outcomes};
use super::chain::Linked;
use super::express::Tally;
use super::maps::NamedMap;
use super::part::Shared;
use super::returns::ReturnNumber;
use super::site::Site;
use super::user::UserNumber;
use super::watch::WatchNumber;
use crate::host::{FileId, Targets, Watchpoint};
use crate::rpn::Program;
use crate::rpn::object::Point;
use crate::rpn::variables::Pool;
use crate::wire::{Reply, State, label};

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
    /// Which file it is for; zero if it is not for one.
    pub(crate) file: FileId,
    /// The object, if the program [goes in and out](super::module) with its module.
    pub(crate) object: Option<Box<[u8]>>,
    /// Was it merged into another?
    pub(crate) part: bool,
    pub(crate) locals: Shared<AtomicU64>,
    /// What they are called, separated by NUL.
    pub(crate) names: Box<str>,
    /// Where each of its global variables is in the system's.
    pub(crate) global_slots: Box<[u16]>,
    /// What `alloc lv` takes variables from, if the program uses it.
    pub(crate) local_pool: Option<Box<Pool>>,
    /// No other program ever has the same.
    pub(crate) number: u64,
    /// Does it keep something for calls in user space?
    pub(crate) keeps_calls: bool,
    /// What it is called in pools: not zero, and no other program has it.
    pub(crate) owner: u32,
    /// For each of its groups: is it suspended? Empty if none ever is.
    pub(crate) suspended: Box<[AtomicBool]>,
    pub(crate) maps: Shared<NamedMap>,
    /// Where its records go.
    pub(crate) targets: Targets,
    /// The process in which its watchpoints watch; 0 means all.
    pub(crate) process: u32,
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
    /// Later ones at the same site have higher ranks; not zero once it is there. Written before anybody can find it.
    pub(crate) rank: AtomicU64,
    /// Which point of the program.
    pub(crate) point: usize,
    /// Which of the program's groups.
    pub(crate) group: u16,
    pub(crate) minor: u16,
    /// What its author selects it by.
    pub(crate) selected: (u16, u16),
    pub(crate) label: Label,
    pub(crate) address: u64,
    /// What it watches, if it is not a breakpoint.
    pub(crate) watchpoint: Option<Watchpoint>,
    pub(crate) watch: WatchNumber,
    /// Where it is in user space, if it is there.
    pub(crate) user: UserNumber,
    /// Is it in user space?
    pub(crate) in_file: bool,
    /// By which number its returns come, if it is on those of a function of the kernel; 0 while it is nowhere.
    pub(crate) returns: Option<ReturnNumber>,
    pub(crate) resume_code: u32,
    pub(crate) log_on_fault: bool,
    /// Hits to let pass first.
    pub(crate) pass_count: u64,
    /// Hits to process after that; 0 is no limit.
    pub(crate) max_hits: u64,
    /// What its handler adds to, if that is all it does.
    pub(crate) tally: Option<Tally>,
    /// Why it was refused the last time that its module was loaded, if it was.
    pub(crate) refusal: Reply,
    state: AtomicU32,
    pub(crate) counts: Counts,
}

/// What happened to a probe so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Hits that were processed: at most `max_hits`.
    hits: AtomicU64,
    /// Hits that were let pass before those: at most `pass_count`.
    skipped: AtomicU64,
    /// Hits while the group was suspended.
    pub(crate) suspended: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) faulted: AtomicU64,
    /// Hits after the last that was wanted, or after the program removed the probe.
    pub(crate) late: AtomicU64,
    pub(crate) exceptions: AtomicU64,
    pub(crate) overflows: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) lost: AtomicU64,
    /// Calls that were not followed to their return.
    pub(crate) unfollowed: AtomicU64,
    /// Records that a target other than the ring did not take, for each of these.
    pub(crate) undelivered: AtomicU64,
}

/// Adds one to a count.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes one back from a count. Not below zero: of a hit that nobody remembers it is not known whether the probe was at its site already.
fn take_back(counter: &AtomicU64) {
    let _ = counter.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |count| count.checked_sub(1));
}

/// Adds one to a count that is below its limit, and gives the sum.
fn below(counter: &AtomicU64, limit: u64) -> Option<u64> {
    let more = |count| (count < limit).then(|| count + 1);
    let before = counter.fetch_update(Ordering::SeqCst, Ordering::Relaxed, more);
    before.ok().map(|count| count + 1)
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
    /// Let it pass: before the first that is wanted.
    Skip,
    /// Let it pass: after the last that is wanted.
    Late,
}

impl Linked for Probe {
    #[inline]
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl Probe {
    /// A probe for a point of a program, which is nowhere yet.
    pub(crate) fn new(index: usize, group: u16, point: &Point<'_>) -> Self {
        Probe {
            next: AtomicPtr::default(),
            loaded: AtomicPtr::default(),
            site: AtomicPtr::default(),
            rank: AtomicU64::new(0),
            point: index,
            group,
            minor: point.minor(),
            selected: (point.group(), point.type_()),
            label: label(point.display().as_bytes()),
            address: 0,
            watchpoint: None,
            watch: WatchNumber::default(),
            user: UserNumber::default(),
            in_file: false,
            returns: None,
            resume_code: 0,
            log_on_fault: point.log_on_fault(),
            pass_count: point.pass_count(),
            max_hits: point.max_hits(),
            tally: None,
            refusal: Reply::default(),
            state: AtomicU32::new(State::Waiting as u32),
            counts: Counts::default(),
        }
    }

    /// Where it is armed. Valid as [`Engine::site`](super::Engine) says.
    pub(crate) fn site(&self) -> Option<&Site> {
        // SAFETY: null or a site that lives until a grace period after this pointer was cleared.
        unsafe { self.site.load(Ordering::Acquire).as_ref() }
    }

    /// Is its place in text of the kernel?
    pub(crate) fn is_in_text(&self) -> bool {
        self.watchpoint.is_none() && !self.in_file
    }

    /// Are both on returns, or neither?
    pub(crate) fn is_like(&self, other: &Probe) -> bool {
        self.returns.is_some() == other.returns.is_some()
    }

    /// Its rank among those that are, and were, at its site.
    #[inline]
    pub(crate) fn rank(&self) -> u64 {
        self.rank.load(Ordering::Relaxed)
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

    /// It is nowhere any more, and no trap knows it.
    pub(crate) fn leave(&mut self) {
        self.address = 0;
        self.resume_code = 0;
    }

    /// It is about to be linked, perhaps not for the first time: forgets what was behind it before. No trap knows it.
    pub(crate) fn begin_anew(&mut self) {
        *self.next.get_mut() = ptr::null_mut();
        self.watch = WatchNumber::default();
        self.user = UserNumber::default();
        self.refusal = Reply::default();
        self.returns = self.returns.take().map(|_| ReturnNumber::default());
    }

    /// It has been taken out, and does not come back.
    pub(crate) fn disarm(&self) {
        let (exhausted, removed) = (State::Exhausted as u32, State::RemovedItself as u32);
        if ![exhausted, removed, State::ModuleGone as u32].contains(&self.state_code()) {
            self.state.store(State::Disarmed as u32, Ordering::Release);
        }
    }

    /// Is it on no place because its module is not there, or does not have one for it?
    pub(crate) fn is_nowhere(&self) -> bool {
        let nowhere = [State::Waiting, State::Refused, State::Withheld, State::CodeFreed];
        nowhere.iter().any(|state| *state as u32 == self.state_code())
    }

    /// Moves to another state if it [is nowhere](Self::is_nowhere). Nobody else changes its state then.
    pub(crate) fn stay_or_come(&self, state: State) {
        if self.is_nowhere() {
            self.state.store(state as u32, Ordering::Release);
        }
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
        self.tally.is_some() && self.returns.is_none() && self.pass_count == 0 && self.max_hits == 0 && !suspends
    }

    /// Takes a turn, of which there is no limit.
    #[inline]
    pub(crate) fn take_unlimited_turn(&self) {
        count(&self.counts.hits);
    }

    /// Takes a turn. Exact on any number of CPUs: each turn is given out once, and is given out again after it was taken back.
    #[inline]
    pub(crate) fn take_turn(&self) -> Turn {
        if self.pass_count != 0 && below(&self.counts.skipped, self.pass_count).is_some() {
            return Turn::Skip;
        }
        if self.max_hits == 0 {
            self.take_unlimited_turn();
            return Turn::Run;
        }
        match below(&self.counts.hits, self.max_hits) {
            Some(hits) if hits == self.max_hits => Turn::RunLast,
            Some(_) => Turn::Run,
            None => {
                count(&self.counts.late);
                Turn::Late
            }
        }
    }

    /// Another hit's program has removed the probe while this one's ran.
    pub(crate) fn turn_was_late(&self) {
        take_back(&self.counts.hits);
        count(&self.counts.late);
    }

    /// Takes back what a hit was counted as, because the instruction faulted and will be hit again. True when the probe, which was
    /// exhausted or had removed itself, wants to fire again.
    pub(crate) fn undo(&self, outcomes: &Outcomes, position: usize) -> bool {
        let has = |outcome| outcomes.has(outcome, position);
        count(&self.counts.faulted);
        for lost in [Outcome::Lost, Outcome::TracesLost] {
            if has(lost) {
                take_back(&self.counts.lost);
            }
        }
        let unused = if has(Outcome::Suspended) {
            &self.counts.suspended
        } else if has(Outcome::Skipped) {
            &self.counts.skipped
        } else if has(Outcome::Late) {
            &self.counts.late
        } else {
            take_back(&self.counts.hits);
            let back = has(Outcome::Removed) && self.change_state(State::RemovedItself, State::Armed);
            return self.agree_with_hits() || back;
        };
        take_back(unused);
        false
    }

    fn change_state(&self, from: State, to: State) -> bool {
        self.state
            .compare_exchange(from as u32, to as u32, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// The number of hits has changed: makes the probe exhausted if it has had all, or armed again if not. True if that has changed its
    /// state.
    ///
    /// Whoever changes the number or the state looks at the number afterwards, so that the last one to do so leaves both as they belong
    /// together.
    pub(crate) fn agree_with_hits(&self) -> bool {
        let mut changed = false;
        if self.max_hits == 0 {
            return changed;
        }
        loop {
            let all = self.counts.hits.load(Ordering::SeqCst) >= self.max_hits;
            let (from, to) = if all {
                (State::Armed, State::Exhausted)
            } else {
                (State::Exhausted, State::Armed)
            };
            if !self.change_state(from, to) {
                return changed;
            }
            changed = true;
        }
    }

    /// How often its instruction has faulted.
    pub(crate) fn faults(&self) -> u64 {
        self.counts.faulted.load(Ordering::SeqCst)
    }

    /// Takes back that a hit was missed, because the instruction faulted and will be hit again.
    pub(crate) fn undo_missed(&self) {
        count(&self.counts.faulted);
        take_back(&self.counts.missed);
    }

    /// Hits let pass, hits processed, hits after the last that was wanted.
    pub(crate) fn turns(&self) -> (u64, u64, u64) {
        let Counts {
            skipped, hits, late, ..
        } = &self.counts;
        (
            skipped.load(Ordering::Relaxed),
            hits.load(Ordering::Relaxed),
            late.load(Ordering::Relaxed),
        )
    }
}
