//! Taking probes out: disarming, unlinking, and freeing what no trap and no slot needs any more.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::Ordering;

use super::engine::{Control, Engine};
use super::error::RemoveError;
use super::program::{Loaded, Probe};
use super::rewritten::Unchanging;
use super::site::Site;
use crate::host::Host;
use crate::mem;
use crate::sort;
use crate::text::transaction::{CommitError, INT3, Transaction};
use crate::wire::ProbeStatus;

/// Slots that wait for a grace period before one is forced: waiting takes long on some hosts, slots are plenty.
const LIMBO_MAX: usize = 1024;

/// Which probes of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// The ones with this minor code.
    Minor(u16),
    /// Those of this group.
    Group(u16),
    /// Those of this type.
    Type(u16),
}

impl Selection {
    fn has(self, probe: &Probe) -> bool {
        match self {
            Selection::All => true,
            Selection::Minor(minor) => probe.minor == minor,
            Selection::Group(group) => probe.selected.0 == group,
            Selection::Type(type_) => probe.selected.1 == type_,
        }
    }
}

impl<H: Host> Engine<H> {
    /// Removes the program with `major` for `module`. When this returns, its probes do not fire any more. `last` is shown the
    /// final state of each of them: every hit there ever was is in its counts.
    ///
    /// # Errors
    /// [`RemoveError`]. Nothing has changed then.
    pub fn remove(&self, module: &[u8], major: u16, last: &mut dyn FnMut(&ProbeStatus)) -> Result<(), RemoveError> {
        let mut control = self.lock();
        self.take_out_of_program(&mut control, module, major, Selection::All)?;
        self.drop_unarmed(&mut control, |loaded| loaded.is(module, major), last);
        Ok(())
    }

    /// Removes every program, and waits until no CPU and no task needs anything of them: the engine can be dropped, and the
    /// slot area freed, after that.
    ///
    /// # Errors
    /// [`RemoveError`]. Nothing has changed then.
    pub fn remove_all(&self) -> Result<(), RemoveError> {
        let mut control = self.lock();
        self.rearm(&control.programs, |_| false).map_err(RemoveError::from)?;
        let programs = core::mem::take(&mut control.programs);
        self.release_watchpoints(&mut control, |_| true);
        self.release_user_sites(&mut control, |_| true);
        self.forget(&mut control, programs.iter().map(|loaded| &**loaded));
        self.forget_calls(&control);
        let table = self.table.shrink();
        self.reclaim(&mut control);
        if !table.is_empty() {
            // A trap that may be reading it has ended after this.
            self.host().sync_cores();
        }
        drop(table);
        self.go_on();
        Ok(())
    }

    /// Takes probes of a program out, for good, and keeps the program until it is removed: what they have counted does not change any more and
    /// can be read. When this returns they do not fire any more.
    ///
    /// # Errors
    /// [`RemoveError`]. Nothing has changed then.
    pub fn disarm(&self, module: &[u8], major: u16, selection: Selection) -> Result<(), RemoveError> {
        let mut control = self.lock();
        self.take_out_of_program(&mut control, module, major, selection)?;
        let programs = core::mem::take(&mut control.programs);
        let parts = programs.iter().filter(|loaded| loaded.is(module, major));
        let going = || {
            parts
                .clone()
                .flat_map(|loaded| &loaded.probes)
                .filter(|probe| selection.has(probe))
        };
        self.unlink(&mut control, going());
        going().for_each(Probe::disarm);
        control.programs = programs;
        Ok(())
    }

    /// Takes the breakpoints and watchpoints of a program's probes away. They are linked still.
    fn take_out_of_program(
        &self,
        control: &mut Control,
        module: &[u8],
        major: u16,
        selection: Selection,
    ) -> Result<(), RemoveError> {
        let parts = || control.programs.iter().filter(|loaded| loaded.is(module, major));
        if !parts()
            .flat_map(|loaded| &loaded.probes)
            .any(|probe| selection.has(probe))
        {
            return Err(RemoveError::NotFound);
        }
        let of_program = |probe: &Probe| probe.loaded().is_some_and(|loaded| loaded.is(module, major));
        let is_going = |probe: &Probe| selection.has(probe) && of_program(probe);
        let wanted = |site: &Site| site.probes().any(|probe| probe.is_active() && !is_going(probe));
        self.rearm(parts(), wanted).map_err(RemoveError::from)?;
        self.release_watchpoints(control, is_going);
        self.release_user_sites(control, is_going);
        Ok(())
    }

    /// Disarms probes that are exhausted or that removed themselves. To be called after
    /// [`Host::request_reap`], from a context that may sleep.
    ///
    /// Where the last hit's instruction may still fault, and be hit again, this waits a grace period first.
    pub fn reap(&self) {
        let mut control = self.lock();
        self.release_watchpoints(&mut control, |_| false);
        self.release_user_sites(&mut control, |_| false);
        let unwanted = || {
            let sites = control.programs.iter().flat_map(|loaded| &loaded.probes);
            sites
                .filter_map(Probe::site)
                .filter(|site| site.is_armed() && !site.is_wanted())
        };
        // Failures leave breakpoints in place whose hits are counted as late; the next reap tries again.
        let Ok(mut over) = mem::vec(unwanted().count()) else {
            return;
        };
        // Others may become unwanted meanwhile: they have their turn later.
        over.extend(
            unwanted()
                .map(|site| (site.address, site.faults()))
                .take(over.capacity()),
        );
        sort::by_key(&mut over, |pair| *pair);
        if unwanted().any(|site| site.may_fault) {
            self.host().grace_period();
        }
        // A hit that was taken back meanwhile may have been taken again, and that one's instruction may fault too.
        let is_over = |site: &Site| over.binary_search(&(site.address, site.faults())).is_ok();
        let wanted = |site: &Site| site.is_wanted() || site.is_armed() && !is_over(site);
        let _ = self.rearm(&control.programs, wanted);
        if unwanted().any(|site| !is_over(site)) {
            self.host().request_reap();
        }
    }

    /// Makes the text at the sites of these programs agree with what is wanted there: one transaction.
    pub(super) fn rearm<'p>(
        &self,
        programs: impl IntoIterator<Item = &'p Box<Loaded>> + Clone,
        wanted: impl Fn(&Site) -> bool,
    ) -> Result<(), CommitError> {
        let sites = || {
            programs
                .clone()
                .into_iter()
                .flat_map(|loaded| &loaded.probes)
                .filter_map(Probe::site)
        };
        // What is compared and changed below must stay what it is until it is noted as changed.
        let rewritten = sites().any(|site| site.rewritten.is_some());
        let _unchanging = rewritten.then(|| Unchanging::new(self.host()));
        let mut changing: Vec<(&Site, bool)> = mem::vec(sites().count()).map_err(CommitError::NoMemory)?;
        // Decided once: probes may be exhausted while this runs.
        let decided = sites().map(|site| (site, site.sentry != 0 || wanted(site)));
        changing.extend(decided.filter(|(site, armed)| *armed != site.is_armed()));
        let mut transaction = Transaction::begin(self.host(), changing.len()).map_err(CommitError::NoMemory)?;
        for (site, _) in &changing {
            if site.is_reported() {
                continue;
            }
            if !site.is_armed() {
                self.refresh(site);
            }
            let insn = site.current();
            let insn = insn.bytes();
            let first = insn.first().copied().unwrap_or(INT3);
            let queued = if site.is_armed() && self.is_overwritten(site) {
                Ok(())
            } else if site.is_armed() {
                transaction.queue(site.address, &[INT3], first)
            } else {
                transaction.queue(site.address, insn, INT3)
            };
            queued.map_err(CommitError::NoMemory)?;
        }
        // A breakpoint there that is not said to be armed is the host's own, with which it rewrites.
        for (site, _) in changing
            .iter()
            .filter(|(site, armed)| *armed && site.rewritten.is_some())
        {
            site.set_armed(true);
        }
        let committed = transaction.commit();
        for (site, armed) in &changing {
            site.set_armed(*armed == committed.is_ok());
        }
        committed
    }

    /// Has somebody written over the breakpoint of an armed site, code that modifies itself perhaps? What is there now stays.
    fn is_overwritten(&self, site: &Site) -> bool {
        let mut found = [INT3];
        self.host().read(site.address, &mut found).is_ok() && found != [INT3]
    }

    /// Unlinks disarmed programs from everything a trap can find. They can be freed after that.
    pub(super) fn forget<'p>(&self, control: &mut Control, programs: impl Iterator<Item = &'p Loaded> + Clone) {
        self.unlink(control, programs.clone().flat_map(|loaded| &loaded.probes));
        for loaded in programs {
            self.globals.pool.free_all(loaded.owner);
        }
        if control.limbo.len() > LIMBO_MAX {
            self.reclaim(control);
        }
    }

    /// Unlinks disarmed probes from everything a trap can find, and waits until none has found them before that.
    pub(super) fn unlink<'p>(&self, control: &mut Control, probes: impl Iterator<Item = &'p Probe>) {
        for probe in probes {
            self.leave_watchpoint(probe);
            self.leave_user_site(probe);
            control.limbo.extend(self.detach(probe));
        }
        self.host().sync_cores();
    }

    /// Unlinks a probe from its site, and the site from the table when that was its last probe; gives the site then.
    pub(super) fn detach(&self, probe: &Probe) -> Option<*mut Site> {
        let site = probe.site()?;
        self.detach_return(probe);
        let pointer = probe.site.swap(ptr::null_mut(), Ordering::AcqRel);
        site.unlink(probe);
        if !site.is_empty() {
            return None;
        }
        self.table.remove(site.address);
        Some(pointer)
    }

    /// Frees the sites in limbo and their slots, after a grace period.
    pub(super) fn reclaim(&self, control: &mut Control) {
        if control.limbo.is_empty() {
            return;
        }
        self.host().grace_period();
        for site in control.limbo.drain(..) {
            // SAFETY: the pointer comes from `Box::into_raw` in `insert`, it left the table before it came into limbo, and
            // after the grace period neither a trap nor an instruction in the slot refers to it.
            let site = unsafe { Box::from_raw(site) };
            self.slots.set_owner(site.slot, ptr::null_mut());
            control.free_slots.push(site.slot);
        }
    }
}
