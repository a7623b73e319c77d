//! Attempts: hits whose instruction may still fault in its slot, and what has to be taken back then.
//!
//! An attempt is known by the [number](Site::number) of its site and by who made it: no two tasks have the same kernel stack pointer, and a process is told from others
//! by its task. The same task makes another attempt only after the one before has ended, so that of all that are known, on
//! any CPU, the newest is the one that has just faulted: a site numbers its attempts.
//!
//! A CPU remembers a few, each in the place that a hash of the stack pointer says, because a task may be preempted in a slot, and others
//! run into probes before it goes on.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::site::Site;
use crate::mem::{self, OutOfMemory};

/// Attempts that a CPU remembers, as a power of two.
const LOG2_PLACES: u32 = 4;

/// How it went for one of the probes of a hit, where that is not the usual: that its program ran, and what it logged had room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Outcome {
    /// Its group was suspended.
    Suspended,
    /// It let the hit pass: before the first that is wanted.
    Skipped,
    /// As well, after the last.
    Late,
    /// Its program removed it.
    Removed,
    /// Its record, which was provisional, did not fit.
    Lost,
    /// The record of its stack traces did not.
    TracesLost,
}

/// The outcomes of a hit: for each kind the probes of the site, a bit each, for the first 64.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcomes([u64; Outcome::TracesLost as usize + 1]);

impl Outcomes {
    /// Notes that it went in this way for the probe at this position of the site.
    pub(crate) fn note(&mut self, outcome: Outcome, position: usize) {
        if let Some(bits) = self.0.get_mut(outcome as usize) {
            *bits |= bit(position);
        }
    }

    /// Did it go in this way for the probe at this position?
    pub(crate) fn has(&self, outcome: Outcome, position: usize) -> bool {
        self.0
            .get(outcome as usize)
            .is_some_and(|bits| bits & bit(position) != 0)
    }
}

fn bit(position: usize) -> u64 {
    u32::try_from(position)
        .ok()
        .and_then(|position| 1_u64.checked_shl(position))
        .unwrap_or(0)
}

/// Who makes an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    /// The interrupted stack pointer.
    pub(crate) rsp: u64,
    /// The task's cookie for code in user mode, otherwise zero.
    pub(crate) task: u64,
}

/// What a hit has left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'h> {
    /// The rank of the newest probe that was hit: those that have come to the site since know nothing of the attempt.
    pub(crate) newest: u64,
    /// Its records are in its CPU's ring, between these marks.
    pub(crate) records: (u64, u64),
    /// If it did not go as usual for all probes.
    pub(crate) outcomes: Option<&'h Outcomes>,
}

/// An attempt that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Later attempts at the same site have higher numbers.
    pub(crate) number: u64,
    /// See [`Left::newest`].
    pub(crate) newest: u64,
    /// Its records are in its CPU's ring from here
    pub(crate) from: u64,
    /// to here.
    pub(crate) to: u64,
    pub(crate) outcomes: Outcomes,
}

/// The attempts that a CPU remembers. The hits of that CPU write them; a fault on any CPU reads them.
///
/// Boxed piece by piece: an engine is made on a kernel's stack, which has no room for them.
pub(crate) struct Attempts(Box<[Place]>);

#[derive(Default)]
#[repr(align(128))]
struct Place {
    /// Zero while the place is being written.
    number: AtomicU64,
    site: AtomicU64,
    newest: AtomicU64,
    rsp: AtomicU64,
    task: AtomicU64,
    from: AtomicU64,
    to: AtomicU64,
    /// Are there any outcomes?
    unusual: AtomicU64,
    outcomes: [AtomicU64; Outcome::TracesLost as usize + 1],
}

impl Attempts {
    pub(crate) fn new() -> Result<Self, OutOfMemory> {
        Ok(Attempts(mem::boxed_slice(1 << LOG2_PLACES, |_| Place::default())?))
    }

    #[inline]
    fn place(&self, rsp: u64) -> usize {
        // A multiplicative hash: the stacks of tasks that run the same code differ in the upper bits only.
        let hash = rsp.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - LOG2_PLACES);
        hash as usize
    }

    /// Remembers an attempt at a site. Never inside of itself.
    #[inline]
    pub(crate) fn note(&self, site: &Site, who: Who, left: Left<'_>) {
        if let Some(place) = self.0.get(self.place(who.rsp)) {
            place.note(site, who, left);
        }
    }

    /// Remembers one at an instruction that is carried out in the shadow of the one before, beside that one's.
    pub(crate) fn note_shaded(&self, site: &Site, who: Who, left: Left<'_>) {
        if let Some(place) = self.0.get(self.place(who.rsp) ^ 1) {
            place.note(site, who, left);
        }
    }

    /// The newest attempt at a site by the same one that this CPU remembers.
    pub(crate) fn find(&self, site: &Site, who: Who) -> Option<Found> {
        let place = self.place(who.rsp);
        let places = [place, place ^ 1].map(|place| self.0.get(place)?.find(site, who));
        places.into_iter().flatten().max_by_key(|found| found.number)
    }
}

impl Place {
    #[inline]
    fn note(&self, site: &Site, who: Who, left: Left<'_>) {
        let number = site.next_attempt();
        self.number.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        self.site.store(site.number, Ordering::Relaxed);
        self.rsp.store(who.rsp, Ordering::Relaxed);
        self.task.store(who.task, Ordering::Relaxed);
        self.newest.store(left.newest, Ordering::Relaxed);
        self.from.store(left.records.0, Ordering::Relaxed);
        self.to.store(left.records.1, Ordering::Relaxed);
        self.unusual
            .store(u64::from(left.outcomes.is_some()), Ordering::Relaxed);
        if let Some(outcomes) = left.outcomes {
            for (to, bits) in self.outcomes.iter().zip(outcomes.0) {
                to.store(bits, Ordering::Relaxed);
            }
        }
        self.number.store(number, Ordering::Release);
    }

    fn find(&self, site: &Site, who: Who) -> Option<Found> {
        let number = self.number.load(Ordering::Acquire);
        let mut found = Found {
            number,
            newest: self.newest.load(Ordering::Relaxed),
            from: self.from.load(Ordering::Relaxed),
            to: self.to.load(Ordering::Relaxed),
            outcomes: Outcomes::default(),
        };
        if self.unusual.load(Ordering::Relaxed) != 0 {
            for (bits, from) in found.outcomes.0.iter_mut().zip(&self.outcomes) {
                *bits = from.load(Ordering::Relaxed);
            }
        }
        let same = self.site.load(Ordering::Relaxed) == site.number
            && self.rsp.load(Ordering::Relaxed) == who.rsp
            && self.task.load(Ordering::Relaxed) == who.task;
        // Another task may have taken the place meanwhile.
        fence(Ordering::Acquire);
        (same && number != 0 && self.number.load(Ordering::Relaxed) == number).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::Insn;
    use crate::probe::site::Resumption;
    use crate::text::slot::{Area, SlotArea};

    fn site(number: u64) -> Site {
        let insn = Insn::decode(&[0x48, 0x8b, 0x07]).unwrap();
        let slot = SlotArea::<Site>::new(0..4096, 0..0).unwrap().any();
        Site::new(number, 0x1000, insn, Resumption::Copied { slot: 0 }, slot, Area::Main)
    }

    /// What was attempted at a site that is gone, by the same stack and with a higher number than anything at the one which is in its memory now.
    #[test]
    fn an_attempt_is_not_one_at_a_later_site_in_the_same_memory() {
        let [of_one_cpu, of_another] = [(); 2].map(|()| Attempts::new().unwrap());
        let who = Who { rsp: 0x8000, task: 0 };
        let mut late = Outcomes::default();
        late.note(Outcome::Late, 0);
        let left = |outcomes| Left {
            newest: 1,
            records: (0, 0),
            outcomes,
        };
        let mut memory = Box::new(site(1));
        for _ in 0..3 {
            of_one_cpu.note(&memory, who, left(Some(&late)));
        }
        assert_eq!(of_one_cpu.find(&memory, who).unwrap().number, 3);
        *memory = site(2);
        of_another.note(&memory, who, left(None));
        assert_eq!(of_one_cpu.find(&memory, who), None);
        let found = of_another.find(&memory, who).unwrap();
        assert_eq!((found.number, found.outcomes), (1, Outcomes::default()));
    }
}
