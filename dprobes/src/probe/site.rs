//! A site: one armed address, its instruction, and the chain of probes that fire there.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use super::chain::Chain;
use super::express::{Onward, Tally};
use super::program::Probe;
use super::rewritten::Rewritten;
use crate::insn::{Emulation, Insn, Shadow, StepKind};
use crate::text::slot::{Area, Slot};

/// How the probed instruction is carried out after the programs have run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resumption {
    /// A copy in the slot runs and a jump behind it leads back: no second trap.
    Copied { slot: u64 },
    /// The handler does what the instruction would have done. Where it cannot, because memory turns out to be bad, the copy in
    /// the slot runs instead, so that the CPU itself raises the fault: stepped, or with the jump back (`None`).
    Emulated {
        emulation: Emulation,
        slot: u64,
        fallback: Option<StepKind>,
    },
    /// A copy in the slot is single-stepped with TF.
    Stepped { slot: u64, kind: StepKind },
    /// As `Copied`, but the slot begins with an `sti`, and the copy is behind it: where interrupts are on, that turns them on
    /// anew, so that the copy runs in the shadow in which the original may have been.
    CopiedBehindSti { slot: u64 },
    /// The instruction casts a shadow on the next one, which is [`Site::shaded`]: both are carried out in one go, from the slot
    /// if they can, where the copy of the one is followed by that of the other.
    Shadowing { slot: u64, shadow: Shadow },
    /// The handler does what the instruction is now: see [`rewritten`](super::rewritten). In the slot is the jump back behind it.
    Rewritten { slot: u64 },
    /// There is no breakpoint: the instruction traps by itself, and nobody but the host carries it out.
    Reported,
}

/// One probed address. Traps on any CPU look at it; only the control path changes it, and frees it after a grace period.
#[derive(Debug)]
pub(crate) struct Site {
    /// No other site of the engine has had it or will have it, as one may have had the address in memory.
    pub(crate) number: u64,
    pub(crate) address: u64,
    /// The instruction when the site was made, which stays so unless it is [rewritten](Site::current).
    pub(crate) insn: Insn,
    pub(crate) rewritten: Option<Rewritten>,
    /// Whether carrying it out may raise a fault; every hit asks.
    pub(crate) may_fault: bool,
    pub(crate) resumption: Resumption,
    pub(crate) slot: Slot,
    /// The one probe here, if its hits go the [express](super::express) way.
    express: AtomicPtr<Probe>,
    pub(crate) onward: Onward,
    /// Where in the slot its copy begins.
    pub(crate) at: u8,
    /// The instruction that is carried out in the shadow of this one, with its copy in the same slot. Whatever probes there are at
    /// its address are another site's.
    pub(crate) shaded: Option<Box<Site>>,
    /// What the host calls its own breakpoint here, or 0 if it has none.
    pub(crate) sentry: u64,
    chain: Chain<Probe>,
    /// Is the breakpoint in place? Changed with the control lock held.
    armed: AtomicBool,
    attempts: AtomicU64,
    /// The rank of the newest probe that came here. Control lock held.
    ranks: AtomicU64,
}

impl Site {
    /// A site in which nobody is interested yet. The stack of a process may be paged in when it is used, which [`Insn::may_fault`] does not
    /// count on: in user text everything may fault.
    pub(crate) fn new(number: u64, address: u64, insn: Insn, resumption: Resumption, slot: Slot, area: Area) -> Self {
        let is_certain = matches!(resumption, Resumption::Rewritten { .. } | Resumption::Reported) || insn.raises();
        let may_fault = !is_certain && (area == Area::User || insn.may_fault());
        Site {
            number,
            address,
            rewritten: None,
            may_fault,
            insn,
            onward: Onward::of(address, may_fault, &resumption),
            resumption,
            slot,
            express: AtomicPtr::default(),
            at: 0,
            shaded: None,
            sentry: 0,
            chain: Chain::new(),
            armed: AtomicBool::new(false),
            attempts: AtomicU64::new(0),
            ranks: AtomicU64::new(0),
        }
    }

    /// The number a query shows: 1 copied, 2 emulated, 3 stepped, 4 left to the host.
    pub(crate) fn resume_code(&self) -> u32 {
        match (self.resumption, &self.shaded) {
            (Resumption::Shadowing { .. }, Some(shaded)) => shaded.resume_code(),
            (Resumption::Copied { .. } | Resumption::CopiedBehindSti { .. } | Resumption::Shadowing { .. }, _) => 1,
            (Resumption::Emulated { .. } | Resumption::Rewritten { .. }, _) => 2,
            (Resumption::Stepped { .. }, _) => 3,
            (Resumption::Reported, _) => 4,
        }
    }

    /// Whose copy begins at an offset into the slot: this site's, with what makes a shadow before it, or the shaded one's. `None`
    /// in the jump back.
    pub(crate) fn copied_at(&self, offset: u64) -> Option<&Site> {
        if offset <= u64::from(self.at) {
            return Some(self);
        }
        self.shaded.as_deref().filter(|shaded| u64::from(shaded.at) == offset)
    }

    /// What an offset into the slot is in the original text. In the jump back that is where it goes.
    pub(crate) fn original(&self, offset: u64) -> u64 {
        match &self.shaded {
            Some(shaded) if offset >= u64::from(shaded.at) => shaded.original(offset),
            _ => self.address.wrapping_add(offset.saturating_sub(u64::from(self.at))),
        }
    }

    /// The probes here, in the order of insertion; valid as [`Chain::iter`] says.
    #[inline]
    pub(crate) fn probes(&self) -> impl Iterator<Item = &Probe> {
        self.chain.iter()
    }

    /// The one probe here and what its hits add to, if there is nothing else to be done about one. Valid as [`probes`](Self::probes) are.
    #[inline]
    pub(crate) fn express(&self) -> Option<(&Probe, &Tally)> {
        // SAFETY: null, or the probe that is the chain, for which the same holds.
        let probe = unsafe { self.express.load(Ordering::Acquire).as_ref() }?;
        // SAFETY: a probe that goes express has a tally (`choose_way`), and keeps it.
        Some((probe, unsafe { probe.tally.as_ref().unwrap_unchecked() }))
    }

    /// Decides anew whether hits go the express way. Control lock held.
    fn choose_way(&self) {
        let mut probes = self.probes();
        let only = probes.next().filter(|_| probes.next().is_none());
        let express = only.filter(|probe| probe.goes_express() && self.is_plain());
        let pointer = express.map_or(ptr::null_mut(), |probe| ptr::from_ref(probe).cast_mut());
        self.express.store(pointer, Ordering::Release);
    }

    /// A number for an attempt to carry the instruction out in the slot: later ones have higher numbers. Not zero.
    #[inline]
    pub(crate) fn next_attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Is there nothing here for which it would be kept?
    pub(crate) fn is_empty(&self) -> bool {
        self.chain.is_empty() && self.sentry == 0
    }

    /// Appends a probe. Control lock held.
    pub(crate) fn link(&self, probe: &Probe) {
        probe
            .rank
            .store(self.ranks.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.chain.link(probe);
        self.choose_way();
    }

    /// Puts a probe in the place of another: each hit is one of either. Control lock held.
    pub(crate) fn replace(&self, gone: &Probe, new: &Probe) {
        // The ranks ascend. Where there are later ones, a fault in flight that the one before has attempted is told to this one, which knows
        // nothing of it.
        let is_last = gone.rank() == self.ranks.load(Ordering::Relaxed);
        let rank = match is_last {
            true => self.ranks.fetch_add(1, Ordering::Relaxed) + 1,
            false => gone.rank(),
        };
        new.rank.store(rank, Ordering::Relaxed);
        if self.chain.replace(gone, new) {
            self.choose_way();
        } else {
            self.link(new);
        }
    }

    /// Takes a probe out. Control lock held.
    pub(crate) fn unlink(&self, probe: &Probe) {
        self.chain.unlink(probe);
        self.choose_way();
    }

    /// Is there never a breakpoint, because the host reports hits?
    pub(crate) fn is_reported(&self) -> bool {
        matches!(self.resumption, Resumption::Reported)
    }

    /// Is a hit nothing but a hit of the probes here?
    fn is_plain(&self) -> bool {
        !self.is_reported() && self.rewritten.is_none() && self.sentry == 0
    }

    /// Is the breakpoint in place, or would it be if there were one here?
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// Notes that the breakpoint has been put in place or taken away.
    pub(crate) fn set_armed(&self, armed: bool) {
        self.armed.store(armed, Ordering::Release);
    }

    /// How often its instruction has faulted after a hit of a probe that is here.
    pub(crate) fn faults(&self) -> u64 {
        self.probes().map(Probe::faults).sum()
    }

    /// Is anybody here who still wants to be told of hits?
    pub(crate) fn is_wanted(&self) -> bool {
        self.sentry != 0 || self.probes().any(Probe::is_active)
    }
}
