//! The lookup from an address to its site: lock-free, and O(1) at 10 or 100,000 probes.
//!
//! Open addressing with linear probing, at most half full. Readers are traps on any CPU; the one writer holds the
//! engine's control lock. An entry is never reused for another address while a reader may be looking: a removed one
//! becomes a tombstone, and when tombstones and entries fill half of the table a new one replaces it.

use alloc::boxed::Box;
use core::ptr;

use crate::mem::{self, OutOfMemory};
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

const EMPTY: u64 = 0;

struct Entry<T> {
    /// The address; [`EMPTY`] ends a search, and address 0 is never probed.
    key: AtomicU64,
    /// Null in a tombstone.
    value: AtomicPtr<T>,
}

struct Entries<T> {
    /// A power of two, at least one.
    slots: Box<[Entry<T>]>,
}

impl<T> Entries<T> {
    fn new(capacity: usize) -> Result<Box<Self>, OutOfMemory> {
        let slots = mem::boxed_slice(capacity.next_power_of_two(), |_| Entry {
            key: AtomicU64::new(EMPTY),
            value: AtomicPtr::new(ptr::null_mut()),
        })?;
        mem::boxed(Entries { slots })
    }

    /// Where a key may be: at this place best, or at one of those behind it.
    #[inline]
    fn best(&self, key: u64) -> usize {
        // Fibonacci hashing: the multiplier is 2^64 / phi; the high half mixes all bits of the key.
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
    }

    #[inline]
    fn at(&self, place: usize) -> &Entry<T> {
        // SAFETY: the number of slots is a power of two, so that what is masked with one less is below it.
        unsafe { self.slots.get_unchecked(place & (self.slots.len() - 1)) }
    }

    /// Every place a key may be at, best first.
    fn candidates(&self, key: u64) -> impl Iterator<Item = &Entry<T>> {
        let best = self.best(key);
        (0..self.slots.len()).map(move |step| self.at(best.wrapping_add(step)))
    }

    #[inline]
    fn find(&self, key: u64) -> Option<&Entry<T>> {
        // Mostly it is there, and a hit need not set up a search.
        let best = self.at(self.best(key));
        if best.key.load(Ordering::Acquire) == key {
            return Some(best);
        }
        for entry in self.candidates(key) {
            match entry.key.load(Ordering::Acquire) {
                found if found == key => return Some(entry),
                EMPTY => return None,
                _ => {}
            }
        }
        None
    }

    /// Adds a key that is not there. The table is never full.
    fn add(&self, key: u64, value: *mut T) {
        for entry in self.candidates(key) {
            if entry.key.load(Ordering::Relaxed) == EMPTY {
                entry.value.store(value, Ordering::Release);
                entry.key.store(key, Ordering::Release);
                return;
            }
        }
    }
}

/// A map from addresses to pointers. It does not own what they point to. `LEAST` is the smallest capacity: one with which a few probes
/// beside the engine's own breakpoints rarely collide, which costs each of their hits 20 instructions.
pub(crate) struct Table<T, const LEAST: usize = 1024> {
    entries: AtomicPtr<Entries<T>>,
    /// Entries and tombstones in the current table; only the writer looks.
    used: AtomicUsize,
    /// Entries.
    live: AtomicUsize,
}

/// A table that no new reader can find. It is freed when this is dropped: after a grace period.
#[must_use = "drop it after a grace period"]
pub(crate) struct Retired<T>(Option<Box<Entries<T>>>);

impl<T> Retired<T> {
    /// Is there no table to be freed, so that nothing has to be waited for?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl<T, const LEAST: usize> Table<T, LEAST> {
    /// An empty table.
    pub(crate) fn new() -> Result<Self, OutOfMemory> {
        Ok(Table {
            entries: AtomicPtr::new(Box::into_raw(Entries::new(LEAST)?)),
            used: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
        })
    }

    fn entries(&self) -> &Entries<T> {
        // SAFETY: the pointer comes from a box and is never null. A replaced table is handed out as `Retired`, which its
        // holder keeps until a grace period has passed, so that a reader's reference stays valid while it is used.
        unsafe { &*self.entries.load(Ordering::Acquire) }
    }

    /// The value for `key`, or null. Lock-free, for the path of a hit.
    #[inline]
    pub(crate) fn get(&self, key: u64) -> *mut T {
        match self.entries().find(key) {
            Some(entry) => entry.value.load(Ordering::Acquire),
            None => ptr::null_mut(),
        }
    }

    /// How many entries a lookup of a key looks at, whether it finds anything or not.
    #[cfg(test)]
    #[allow(dead_code, reason = "tests/loom.rs compiles this file, and does not ask")]
    pub(crate) fn looks(&self, key: u64) -> usize {
        let ends = |entry: &Entry<T>| {
            let found = entry.key.load(Ordering::Relaxed);
            found == key || found == EMPTY
        };
        self.entries()
            .candidates(key)
            .position(ends)
            .map_or(usize::MAX, |skipped| skipped + 1)
    }

    /// Makes room for `more` keys, so that as many [`insert`](Self::insert)s cannot fail. Control lock held.
    pub(crate) fn reserve(&self, more: usize) -> Result<Retired<T>, OutOfMemory> {
        let old = self.entries();
        if (self.used.load(Ordering::Relaxed) + more) * 2 <= old.slots.len() {
            return Ok(Retired(None));
        }
        let live = self.live.load(Ordering::Relaxed);
        let new = Entries::new(((live + more) * 4).max(LEAST))?;
        for entry in &old.slots {
            let value = entry.value.load(Ordering::Relaxed);
            if !value.is_null() {
                new.add(entry.key.load(Ordering::Relaxed), value);
            }
        }
        Ok(self.replace(new, live))
    }

    /// Makes an empty table as small as a new one, if there is memory for that. Control lock held.
    pub(crate) fn shrink(&self) -> Retired<T> {
        if self.live.load(Ordering::Relaxed) > 0 || self.entries().slots.len() <= LEAST {
            return Retired(None);
        }
        let Ok(new) = Entries::new(LEAST) else {
            return Retired(None);
        };
        self.replace(new, 0)
    }

    /// Puts another table, with `used` entries, in the place of the current one. Control lock held.
    fn replace(&self, new: Box<Entries<T>>, used: usize) -> Retired<T> {
        let retired = self.entries.swap(Box::into_raw(new), Ordering::AcqRel);
        self.used.store(used, Ordering::Relaxed);
        // SAFETY: every table comes from `Box::into_raw`, and after the swap this is the only pointer to it that is not a
        // reader's; readers are gone when `Retired` is dropped.
        Retired(Some(unsafe { Box::from_raw(retired) }))
    }

    /// Adds a key, or gives an existing one another value. Room must have been reserved. Control lock held.
    pub(crate) fn insert(&self, key: u64, value: *mut T) {
        let entries = self.entries();
        self.live.fetch_add(1, Ordering::Relaxed);
        match entries.find(key) {
            Some(tombstone) => tombstone.value.store(value, Ordering::Release),
            None => {
                self.used.fetch_add(1, Ordering::Relaxed);
                entries.add(key, value);
            }
        }
    }

    /// Removes a key that is there. Readers may still hold the value until a grace period has passed. Control lock held.
    pub(crate) fn remove(&self, key: u64) {
        if let Some(entry) = self.entries().find(key)
            && !entry.value.swap(ptr::null_mut(), Ordering::AcqRel).is_null()
        {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<T, const LEAST: usize> Drop for Table<T, LEAST> {
    fn drop(&mut self) {
        // SAFETY: the pointer comes from a box, and nobody else can reach it through `&mut self`.
        drop(unsafe { Box::from_raw(self.entries.load(Ordering::Relaxed)) });
    }
}
