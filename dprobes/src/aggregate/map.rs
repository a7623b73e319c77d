//! A map: a table for each CPU.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use super::spec::Spec;
use super::table::Table;
use crate::mem::{self, OutOfMemory};

/// An aggregation, with all the memory it will ever need.
#[derive(Debug)]
pub struct Map {
    pub(super) spec: Spec,
    seed: u64,
    pub(super) tables: Box<[Table]>,
    /// Updates that named no CPU of ours, or another number of keys: there are none if the caller keeps to its contract.
    strays: AtomicU64,
}

impl Map {
    /// An empty map for so many CPUs. The seed is best a number that nobody can guess: keys that are chosen to be slow depend on it.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new(spec: Spec, cpus: usize, seed: u64) -> Result<Self, OutOfMemory> {
        let mut tables = mem::vec(cpus)?;
        for _ in 0..cpus {
            tables.push(Table::new(&spec)?);
        }
        Ok(Map {
            spec,
            seed,
            tables: tables.into_boxed_slice(),
            strays: AtomicU64::new(0),
        })
    }

    /// What it is.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Bytes that it takes, on all CPUs together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.spec.bytes_per_cpu().wrapping_mul(self.tables.len() as u64)
    }

    /// Adds a value to the entry with these keys in the table of a CPU; a count takes no notice of the value. An update that does not fit
    /// is counted in [`dropped`](Self::dropped).
    ///
    /// On the path of a hit. One caller at a time for each CPU: of two at once, one update may be lost, but nothing else goes wrong.
    #[inline]
    pub fn update(&self, cpu: usize, keys: &[u64], value: u64) {
        let (spec, seed) = (&self.spec, self.seed);
        let Some(table) = self.tables.get(cpu).filter(|_| keys.len() == spec.keys()) else {
            self.strays.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match *keys {
            [] => table.update(spec, seed, &[], value),
            [a] => table.update(spec, seed, &[a], value),
            [a, b] => table.update(spec, seed, &[a, b], value),
            [a, b, c] => table.update(spec, seed, &[a, b, c], value),
            [a, b, c, d] => table.update(spec, seed, &[a, b, c, d], value),
            // No map has more.
            [..] => {}
        }
    }

    /// Updates that did not fit: exact when nobody writes, and never less than it was.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.tables
            .iter()
            .map(Table::dropped)
            .fold(self.strays.load(Ordering::Relaxed), u64::wrapping_add)
    }
}
