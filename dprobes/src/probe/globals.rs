//! Global variables: named, shared by every program that names them, and there as long as the engine is.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use zerocopy::FromZeros;

use super::engine::Engine;
use super::error::InsertError;
use crate::host::Host;
use crate::mem::{self, OutOfMemory};
use crate::rpn::limits::SYSTEM_GLOBALS_MAX;
use crate::rpn::variables::Pool;

/// The variables. Hits read and write them without a lock; all memory is there from the beginning.
#[derive(Debug)]
pub(crate) struct Globals {
    pub(crate) values: Box<[AtomicU64]>,
    /// Those that programs allocate and free.
    pub(crate) pool: Box<Pool>,
}

impl Globals {
    pub(crate) fn new() -> Result<Self, OutOfMemory> {
        Ok(Globals {
            values: mem::boxed_slice(SYSTEM_GLOBALS_MAX, |_| AtomicU64::new(0))?,
            pool: Pool::new_box_zeroed().map_err(|_| OutOfMemory)?,
        })
    }
}

/// The names, in the order of the values. Control lock held.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<Box<str>>);

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// The index of each variable; those that are new are added.
    ///
    /// # Errors
    /// [`InsertError::Globals`], [`InsertError::NoMemory`]. Names may have been added then: see [`truncate`](Self::truncate).
    pub(crate) fn indices<'n>(
        &mut self,
        names: impl ExactSizeIterator<Item = &'n str>,
    ) -> Result<Box<[u16]>, InsertError> {
        let mut indices = mem::vec(names.len())?;
        for name in names {
            let index = match self.0.iter().position(|known| **known == *name) {
                Some(index) => index,
                None => self.add(name)?,
            };
            indices.push(index as u16);
        }
        Ok(indices.into_boxed_slice())
    }

    fn add(&mut self, name: &str) -> Result<usize, InsertError> {
        let index = self.0.len();
        if index >= SYSTEM_GLOBALS_MAX {
            return Err(InsertError::Globals {
                names: SYSTEM_GLOBALS_MAX,
            });
        }
        let name = mem::text(name)?;
        self.0.try_reserve(1).map_err(|_| InsertError::NoMemory)?;
        self.0.push(name);
        Ok(index)
    }
}

impl<H: Host> Engine<H> {
    /// Takes back the names that a program which was not inserted has added.
    pub(super) fn truncate_globals(&self, names: &mut Names, len: usize) {
        names.0.truncate(len);
        for value in self.globals.values.iter().skip(len) {
            value.store(0, Ordering::Relaxed);
        }
    }

    /// Shows every global variable that a program has ever named, in the order in which they came: name and value.
    pub fn globals(&self, visit: &mut dyn FnMut(&str, u64)) {
        for (name, value) in self.lock().globals.0.iter().zip(&self.globals.values) {
            visit(name, value.load(Ordering::Relaxed));
        }
    }
}
