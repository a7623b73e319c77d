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

/// The areas that slots are in: for copies that run in ring 0, and for those that run in ring 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    /// The host's [slot area](crate::host::Host::slot_area).
    Main,
    /// Its [second one](crate::host::Host::user_slot_area), for text in the lower half of the address space.
    User,
}

/// The slots of both areas, and whose the used ones are. Those of the main area have the lower numbers.
pub(crate) struct SlotArea<T> {
    main: Range<u64>,
    user: Range<u64>,
    owners: Box<[AtomicPtr<T>]>,
}

/// The slots that are free.
pub(crate) struct FreeSlots {
    main: Vec<Slot>,
    user: Vec<Slot>,
    /// How many slots the main area has.
    main_count: u32,
}

impl FreeSlots {
    fn list(&mut self, area: Area) -> &mut Vec<Slot> {
        match area {
            Area::Main => &mut self.main,
            Area::User => &mut self.user,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.main.len() + self.user.len()
    }

    /// Are there as many in an area?
    pub(crate) fn suffice(&mut self, area: Area, count: usize) -> bool {
        self.list(area).len() >= count
    }

    /// Takes one.
    pub(crate) fn take(&mut self, area: Area) -> Option<Slot> {
        self.list(area).pop()
    }

    /// Gives one back.
    pub(crate) fn push(&mut self, slot: Slot) {
        let area = if slot.0 < self.main_count {
            Area::Main
        } else {
            Area::User
        };
        self.list(area).push(slot);
    }
}

/// The part of an area that is whole slots.
fn whole(area: Range<u64>) -> Range<u64> {
    let start = area.start.next_multiple_of(SLOT_SIZE);
    start..start + area.end.saturating_sub(start) / SLOT_SIZE * SLOT_SIZE
}

fn count(area: &Range<u64>) -> u32 {
    ((area.end - area.start) / SLOT_SIZE) as u32
}

impl<T> SlotArea<T> {
    /// Cuts the host's areas into slots.
    pub(crate) fn new(main: Range<u64>, user: Range<u64>) -> Result<Self, OutOfMemory> {
        let (main, user) = (whole(main), whole(user));
        let slots = count(&main) + count(&user);
        Ok(SlotArea {
            main,
            user,
            owners: mem::boxed_slice(slots as usize, |_| AtomicPtr::new(ptr::null_mut()))?,
        })
    }

    /// All slots.
    pub(crate) fn free_list(&self) -> Result<FreeSlots, OutOfMemory> {
        let (main_count, slots) = (count(&self.main), self.owners.len() as u32);
        let list = |numbers: Range<u32>| {
            let mut free = mem::vec(numbers.len())?;
            free.extend(numbers.rev().map(Slot));
            Ok(free)
        };
        Ok(FreeSlots {
            main: list(0..main_count)?,
            user: list(main_count..slots)?,
            main_count,
        })
    }

    /// How many slots there are.
    pub(crate) fn count(&self) -> usize {
        self.owners.len()
    }

    /// Some slot, whether it is free or not.
    pub(crate) fn any(&self) -> Slot {
        Slot(0)
    }

    /// Where the copy of an instruction at this address has to be.
    pub(crate) fn area_for(&self, address: u64) -> Area {
        let lower_half = address >> 63 == 0;
        if lower_half && !self.user.is_empty() {
            Area::User
        } else {
            Area::Main
        }
    }

    /// Where a slot begins.
    pub(crate) fn address(&self, slot: Slot) -> u64 {
        match slot.0.checked_sub(count(&self.main)) {
            None => self.main.start + u64::from(slot.0) * SLOT_SIZE,
            Some(of_user) => self.user.start + u64::from(of_user) * SLOT_SIZE,
        }
    }

    /// Says whose a slot is; null when it is nobody's.
    pub(crate) fn set_owner(&self, slot: Slot, owner: *mut T) {
        if let Some(place) = self.owners.get(slot.0 as usize) {
            place.store(owner, Ordering::Release);
        }
    }

    /// Whose slot contains `address`, and where the slot begins. For the path of a hit.
    pub(crate) fn owner(&self, address: u64) -> Option<(*mut T, u64)> {
        let (area, first) = if self.main.contains(&address) {
            (&self.main, 0)
        } else if self.user.contains(&address) {
            (&self.user, count(&self.main))
        } else {
            return None;
        };
        let index = (address - area.start) / SLOT_SIZE;
        let owner = self
            .owners
            .get(first as usize + index as usize)?
            .load(Ordering::Acquire);
        (!owner.is_null()).then_some((owner, area.start + index * SLOT_SIZE))
    }
}
