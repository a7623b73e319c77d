//! The maps of inserted programs: listed, and read while they are written.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::engine::Engine;
use super::error::InsertError;
use super::program::{Label, Loaded};
use crate::aggregate::{self, Map, ReadError};
use crate::host::Host;
use crate::mem;
use crate::rpn::object::Object;
use crate::wire::{MapStatus, label};

/// A map of an inserted program.
#[derive(Debug)]
pub(crate) struct NamedMap {
    /// See [`MapStatus::id`].
    pub(crate) id: u64,
    pub(crate) name: Label,
    pub(crate) map: Map,
}

/// Gives maps their numbers.
#[derive(Debug, Default)]
pub(crate) struct MapNumbers(AtomicU64);

/// What a reading of a map has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapReading {
    /// Bytes of an entry.
    pub entry_bytes: usize,
    /// Entries written.
    pub count: usize,
    /// Entries after those, for which there was no room.
    pub left: usize,
    /// Updates that did not fit into the map; not less than when the entries were read.
    pub dropped: u64,
}

/// Why a map was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// No map has this number: its program is not inserted any more.
    NotFound,
    /// The keys to go on after are fewer than the map has, or others follow that are not 0.
    After,
    /// Memory is short.
    NoMemory,
    /// An entry was changing all the time; see [`ReadError::Busy`].
    Busy,
}

impl From<ReadError> for MapError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoMemory => MapError::NoMemory,
            ReadError::Busy => MapError::Busy,
        }
    }
}

impl<H: Host> Engine<H> {
    /// Empty maps for a program, with all their memory.
    ///
    /// # Errors
    /// [`InsertError::Maps`], [`InsertError::NoMemory`].
    pub(super) fn new_maps(&self, object: &Object<'_>) -> Result<Box<[NamedMap]>, InsertError> {
        let mut specs = mem::vec(object.maps().len())?;
        for map in object.maps() {
            specs.push((map.name, map.spec()?));
        }
        aggregate::bytes_of_all(specs.iter().map(|(_, spec)| spec))?;
        let mut maps = mem::vec(specs.len())?;
        for (name, spec) in specs {
            let id = self.map_numbers.0.fetch_add(1, Ordering::Relaxed) + 1;
            // Who chooses keys knows neither the nanosecond nor where the kernel and its stacks are.
            let seed = self.host().now().rotate_left(32)
                ^ ptr::from_ref(&id).addr() as u64
                ^ ptr::from_ref(self).addr() as u64;
            maps.push(NamedMap {
                id,
                name: label(name.as_bytes()),
                map: Map::new(spec, self.cpus.len(), seed)?,
            });
        }
        Ok(maps.into_boxed_slice())
    }

    /// Shows every map, in the order of insertion.
    pub fn maps(&self, visit: &mut dyn FnMut(&MapStatus)) {
        for loaded in self.lock().programs.iter().filter(|loaded| !loaded.part) {
            for (index, map) in (0..).zip(&*loaded.maps) {
                visit(&status(loaded, index, map));
            }
        }
    }

    /// Writes the entries of the map with this [`id`](MapStatus::id) to `out`, as many as fit, in the form that
    /// [`Map::read`] describes; with `after` only those with greater keys. Probes go on meanwhile.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn read_map(&self, id: u64, after: Option<&[u64]>, out: &mut [u8]) -> Result<MapReading, MapError> {
        let control = self.lock();
        let mut maps = control.programs.iter().flat_map(|loaded| &*loaded.maps);
        let map = &maps.find(|map| map.id == id).ok_or(MapError::NotFound)?.map;
        let after = match after {
            None => None,
            Some(words) => match words.split_at_checked(map.spec().keys()) {
                Some((keys, rest)) if rest.iter().all(|word| *word == 0) => Some(keys),
                _ => return Err(MapError::After),
            },
        };
        let reading = map.read(after, out)?;
        Ok(MapReading {
            entry_bytes: map.spec().entry_bytes(),
            count: reading.count,
            left: reading.left,
            dropped: map.dropped(),
        })
    }
}

fn status(loaded: &Loaded, index: u16, named: &NamedMap) -> MapStatus {
    MapStatus {
        id: named.id,
        major: loaded.major,
        index,
        name: named.name,
        module: loaded.module,
        ..MapStatus::of(&named.map)
    }
}
