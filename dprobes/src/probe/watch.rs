//! Watchpoints: which of the few there are is on what, and the probes that fire there.

use core::sync::atomic::{AtomicU8, Ordering};

use super::chain::Chain;
use super::engine::{Control, Engine};
use super::error::{InsertError, PointError};
use super::program::{Loaded, Probe};
use crate::host::{Host, WatchError, WatchKind, Watchpoint};

/// How many locations can be watched at a time: a CPU has four debug registers.
pub(crate) const WATCHPOINTS: usize = 4;

/// The number of a probe that is on no watchpoint.
const NONE: u8 = u8::MAX;

/// One watchpoint. Traps look at it.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) chain: Chain<Probe>,
    /// A [`WatchKind`] as a number, or 0.
    kind: AtomicU8,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            chain: Chain::new(),
            kind: AtomicU8::new(0),
        }
    }
}

impl Watch {
    /// Does it interrupt before the instruction, and not behind it?
    pub(crate) fn is_execute(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == WatchKind::Execute as u8
    }

    /// Is it on memory?
    fn is_data(&self) -> bool {
        let kind = self.kind.load(Ordering::Relaxed);
        kind == WatchKind::Write as u8 || kind == WatchKind::ReadWrite as u8
    }
}

/// All watchpoints.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    all: [Watch; WATCHPOINTS],
    /// How many of them are on memory.
    data: AtomicU8,
}

impl Watches {
    /// A watchpoint by its number.
    pub(crate) fn get(&self, number: usize) -> Option<&Watch> {
        self.all.get(number)
    }

    /// Is memory watched?
    #[inline]
    pub(crate) fn watch_memory(&self) -> bool {
        self.data.load(Ordering::Relaxed) != 0
    }

    fn set_kind(&self, number: usize, kind: u8) {
        let Some(watch) = self.all.get(number) else { return };
        watch.kind.store(kind, Ordering::Relaxed);
        let data = self.all.iter().filter(|watch| watch.is_data()).count();
        self.data.store(data as u8, Ordering::Relaxed);
    }
}

/// On which watchpoint a probe is, if it is on one. Only the control path looks.
#[derive(Debug)]
pub(crate) struct WatchNumber(AtomicU8);

impl Default for WatchNumber {
    fn default() -> Self {
        WatchNumber(AtomicU8::new(NONE))
    }
}

impl WatchNumber {
    fn get(&self) -> Option<usize> {
        let number = self.0.load(Ordering::Relaxed);
        (number != NONE).then_some(number.into())
    }

    fn set(&self, number: usize) {
        self.0.store(number as u8, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(NONE, Ordering::Relaxed);
    }
}

impl<H: Host> Engine<H> {
    /// Has the host watch what the probes of a program are to watch. They do not fire yet. On failure, and until they do, what has been set
    /// is [released](Self::release_watchpoints).
    pub(super) fn set_watchpoints(&self, control: &mut Control, loaded: &Loaded) -> Result<(), InsertError> {
        for probe in &loaded.probes {
            let Some(what) = &probe.watchpoint else { continue };
            match self.watchpoint_for(control, what, loaded.process) {
                Ok(number) => probe.watch.set(number),
                // What has been set for it has no probes, and is taken back by the caller.
                Err(error) => {
                    return Err(InsertError::Point {
                        point: probe.point,
                        address: what.address(),
                        error: PointError::Watch(error),
                    });
                }
            }
        }
        Ok(())
    }

    /// The number of the watchpoint on this: one that is there, or a new one.
    fn watchpoint_for(&self, control: &mut Control, what: &Watchpoint, process: u32) -> Result<usize, WatchError> {
        if let Some(number) = control
            .watchpoints
            .iter()
            .position(|there| *there == Some((*what, process)))
        {
            return Ok(number);
        }
        let slots = self.host().slot_area();
        if what.kind() != WatchKind::Io && what.address() < slots.end && what.last() >= slots.start {
            // Instructions are fetched from there that have another address.
            return Err(WatchError::Excluded);
        }
        // The host knows who has the registers, also when all of these are taken.
        let number = control.watchpoints.iter().position(Option::is_none);
        let number = number.ok_or(WatchError::InUse {
            others: 0,
            ours: (1 << WATCHPOINTS) - 1,
            process: 0,
        })?;
        // Before a CPU can run into it.
        self.watches.set_kind(number, what.kind() as u8);
        if let Err(error) = self.host().set_watchpoint(number, what, process) {
            self.watches.set_kind(number, 0);
            return Err(error);
        }
        if let Some(place) = control.watchpoints.get_mut(number) {
            *place = Some((*what, process));
        }
        Ok(number)
    }

    /// The watchpoint that a probe is on, or is to be.
    pub(super) fn watch_of(&self, probe: &Probe) -> Option<&Watch> {
        self.watches.get(probe.watch.get()?)
    }

    /// From now on the watchpoints of a program are its probes' as well, or instead of those that are going.
    pub(super) fn link_watchpoints(&self, loaded: &Loaded, going: &dyn Fn(&Probe) -> bool) {
        for probe in &loaded.probes {
            if let Some(watch) = self.watch_of(probe) {
                watch.chain.link_instead(probe, going);
            }
        }
    }

    /// Takes back the watchpoints on which no probe wants to fire that is not `going`; and their probes off them, which wait for a core
    /// sync before they can be freed.
    pub(super) fn release_watchpoints(&self, control: &mut Control, going: impl Fn(&Probe) -> bool) {
        for (number, place) in control.watchpoints.iter_mut().enumerate() {
            let Some(watch) = self.watches.get(number).filter(|_| place.is_some()) else {
                continue;
            };
            if watch.chain.iter().any(|probe| probe.is_active() && !going(probe)) {
                continue;
            }
            // After this no CPU runs into it.
            self.host().clear_watchpoint(number);
            self.watches.set_kind(number, 0);
            *place = None;
            for probe in watch.chain.iter() {
                probe.watch.clear();
            }
            while let Some(probe) = watch.chain.iter().next() {
                watch.chain.unlink(probe);
            }
            // The number may be given away next: whoever is still handling a hit of it has ended after this.
            self.host().sync_cores();
        }
    }

    /// Takes a probe off its watchpoint, if it is on one, which others may want.
    pub(super) fn leave_watchpoint(&self, probe: &Probe) {
        if let Some(watch) = self.watch_of(probe) {
            probe.watch.clear();
            watch.chain.unlink(probe);
        }
    }
}
