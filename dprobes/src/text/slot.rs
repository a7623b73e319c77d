//! Slots: where copies of probed instructions are executed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::host::Patch;
use crate::mem::{self, OutOfMemory};

/// Bytes per slot: the longest instruction (15), a jump back (5), rounded up.
pub(crate) const SLOT_SIZE: u64 = Patch::MAX as u64;

/// A slot that is in use, by its number in the area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// The slot area: which slots are free, and whose the used ones are.
pub(crate) struct SlotArea<T> {
    area: Range<u64>,
    owners: Box<[AtomicPtr<T>]>,
}

impl<T> SlotArea<T> {
    /// Cuts the host's area into slots.
    pub(crate) fn new(area: Range<u64>) -> Result<Self, OutOfMemory> {
        let start = area.start.next_multiple_of(SLOT_SIZE);
        let count = (area.end.saturating_sub(start) / SLOT_SIZE) as u32;
        Ok(SlotArea {
            area: start..start + u64::from(count) * SLOT_SIZE,
            owners: mem::boxed_slice(count as usize, |_| AtomicPtr::new(ptr::null_mut()))?,
        })
    }

    /// The numbers of all slots, for a free list.
    pub(crate) fn free_list(&self) -> Result<Vec<Slot>, OutOfMemory> {
        let mut free = mem::vec(self.owners.len())?;
        free.extend((0..self.owners.len() as u32).rev().map(Slot));
        Ok(free)
    }

    /// How many slots there are.
    pub(crate) fn count(&self) -> usize {
        self.owners.len()
    }

    /// Some slot, whether it is free or not.
    pub(crate) fn any(&self) -> Slot {
        Slot(0)
    }

    /// Where a slot begins.
    pub(crate) fn address(&self, slot: Slot) -> u64 {
        self.area.start + u64::from(slot.0) * SLOT_SIZE
    }

    /// Says whose a slot is; null when it is nobody's.
    pub(crate) fn set_owner(&self, slot: Slot, owner: *mut T) {
        if let Some(place) = self.owners.get(slot.0 as usize) {
            place.store(owner, Ordering::Release);
        }
    }

    /// Whose slot contains `address`, and where the slot begins. For the path of a hit.
    pub(crate) fn owner(&self, address: u64) -> Option<(*mut T, u64)> {
        if !self.area.contains(&address) {
            return None;
        }
        let index = (address - self.area.start) / SLOT_SIZE;
        let owner = self.owners.get(index as usize)?.load(Ordering::Acquire);
        (!owner.is_null()).then_some((owner, self.area.start + index * SLOT_SIZE))
    }
}
