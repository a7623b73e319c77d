//! Breakpoints of the host's own: where the surrounding kernel is to come to the host before it goes on.
//!
//! A sentry is a site without a program. Programs may have probes at the same address; it is hit before them, and outside the guard against hits
//! inside hits, so that what it does may be a hit.

use alloc::boxed::Box;
use core::ptr;

use super::engine::{Control, Engine};
use super::error::PointError;
use super::find::Request;
use super::place::{StageError, first_bytes};
use super::site::Site;
use crate::host::{Host, Prohibited, Special};
use crate::mem::{self, OutOfMemory};
use crate::text::slot::Slot;
use crate::text::transaction::{CommitError, INT3, Transaction};

/// Why there is no sentry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentryError {
    /// There is no memory.
    NoMemory,
    /// There is no free slot.
    NoSlot,
    /// A probe, or another sentry, is there already.
    Exists,
    /// It is not a place that can be probed, or text cannot be written.
    Point(PointError),
}

impl From<OutOfMemory> for SentryError {
    fn from(_: OutOfMemory) -> Self {
        SentryError::NoMemory
    }
}

impl<H: Host> Engine<H> {
    /// Has every execution of the instruction at `address`, or behind what a probe there would go behind, call [`Host::sentry`] with `token`, which
    /// is not 0.
    ///
    /// # Errors
    /// [`SentryError`]. Nothing has changed then.
    pub fn set_sentry(&self, address: u64, token: u64) -> Result<(), SentryError> {
        let mut control = self.lock();
        control.sentries.try_reserve(1).map_err(|_| OutOfMemory)?;
        let request = Request { address, expected: &[] };
        let unknown = PointError::Prohibited(Prohibited::NoFunction);
        let found = self.find(&[request])?;
        let place = found.first().map_or(Err(unknown), |found| found.place);
        let place = place.map_err(SentryError::Point)?;
        if place.special != Special::None {
            return Err(SentryError::Point(PointError::Prohibited(Prohibited::Alternative)));
        }
        if self.site(place.address).is_some() {
            return Err(SentryError::Exists);
        }
        let area = self.slots.area_for(place.address);
        let slot = control.free_slots.take(area).ok_or(SentryError::NoSlot)?;
        let made = self.stage(&place, slot).map_err(|error| match error {
            StageError::NoMemory => SentryError::NoMemory,
            StageError::Point(error) => SentryError::Point(error),
        });
        let armed = made.and_then(|(mut site, image)| {
            site.sentry = token;
            let unwritable = |_| SentryError::Point(PointError::Unwritable);
            self.host().write_text(&[image]).map_err(unwritable)?;
            self.arm_sentry(&mut control, site, slot)
        });
        if armed.is_err() {
            control.free_slots.push(slot);
        }
        armed
    }

    fn arm_sentry(&self, control: &mut Control, site: Box<Site>, slot: Slot) -> Result<(), SentryError> {
        let old_table = self.table.reserve(1)?;
        let mut transaction = Transaction::begin(self.host(), 1)?;
        transaction.queue(site.address, site.insn.bytes(), INT3)?;
        let address = site.address;
        let pointer = Box::into_raw(site);
        self.slots.set_owner(slot, pointer);
        self.table.insert(address, pointer);
        let armed = transaction.commit();
        if armed.is_err() {
            self.table.remove(address);
        }
        if armed.is_err() || !old_table.is_empty() {
            // A trap that may be reading the old table, or has found the site, has ended after this.
            self.host().sync_cores();
        }
        drop(old_table);
        // SAFETY: it comes from `Box::into_raw` above, and is freed only below, or by `clear_sentries` when it has left the list.
        let site = unsafe { &*pointer };
        match armed {
            Ok(()) => {
                site.set_armed(true);
                control.sentries.push(pointer);
                Ok(())
            }
            Err(error) => {
                let bytes = first_bytes(site.insn.bytes());
                self.slots.set_owner(slot, ptr::null_mut());
                // SAFETY: the breakpoint was never there, and nothing refers to the site any more.
                drop(unsafe { Box::from_raw(pointer) });
                Err(match error {
                    CommitError::NoMemory(_) => SentryError::NoMemory,
                    CommitError::Unwritable { .. } | CommitError::Unreadable { .. } => {
                        SentryError::Point(PointError::Unwritable)
                    }
                    CommitError::Changed { .. } => SentryError::Point(PointError::Undecodable { bytes }),
                })
            }
        }
    }

    /// Takes all sentries away, and waits until nobody needs them. No program is inserted.
    ///
    /// # Errors
    /// [`OutOfMemory`], also when text cannot be written. Nothing has changed then.
    pub fn clear_sentries(&self) -> Result<(), OutOfMemory> {
        let mut control = self.lock();
        let mut transaction = Transaction::begin(self.host(), control.sentries.len())?;
        let mut limbo = mem::vec(control.sentries.len())?;
        for &pointer in &control.sentries {
            // SAFETY: the list has sites that live until they have left it.
            let site = unsafe { &*pointer };
            let first = site.insn.bytes().first().copied().unwrap_or(INT3);
            transaction.queue(site.address, &[INT3], first)?;
        }
        transaction.commit().map_err(|_| OutOfMemory)?;
        for pointer in control.sentries.drain(..) {
            // SAFETY: as above.
            let site = unsafe { &*pointer };
            site.set_armed(false);
            self.table.remove(site.address);
            limbo.push(pointer);
        }
        self.host().sync_cores();
        control.limbo.append(&mut limbo);
        self.reclaim(&mut control);
        Ok(())
    }
}
