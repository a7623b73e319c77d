//! Insertions that have to do with a program that is there: parts that are merged into it, and programs that take its place.
//!
//! Place by place the change is one store: a hit sees what was there before, or what is there afterwards, and never both or neither.

use alloc::boxed::Box;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use super::engine::{Control, Engine, status};
use super::error::{InsertError, MergeError, PointError};
use super::maps::NamedMap;
use super::program::{Loaded, Probe};
use super::user::UserFile;
use crate::host::Host;
use crate::mem;
use crate::rpn::Program;
use crate::rpn::object::Object;
use crate::sort;
use crate::wire::{ProbeStatus, label};

/// What an insertion has to do with a program that is inserted with the same major code for the same module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Insertion {
    /// There must be none.
    #[default]
    New,
    /// The probes are added to it. It must be there, have the variables and maps that the new ones use, in the same order, and none of their
    /// minor codes and places.
    Merge,
    /// It is removed, if it is there. A place that both have is never without one of the two: each hit is one of either. Counts, variables
    /// and maps begin anew.
    Replace,
}

/// What a program has, of its own or of the program that it was merged into.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    items: NonNull<[T]>,
    own: bool,
}

// SAFETY: it is a box, or a reference that is valid as long as this is used.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: it gives out references, as a box does.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The first `len` of what another has.
    ///
    /// # Safety
    /// Neither this nor anything that comes from it is used when the owner has been dropped.
    unsafe fn first_of(owner: &Self, len: usize) -> Self {
        Shared {
            items: NonNull::from(owner.get(..len).unwrap_or(owner)),
            own: false,
        }
    }
}

impl<T> From<Box<[T]>> for Shared<T> {
    fn from(items: Box<[T]>) -> Self {
        Shared {
            items: NonNull::from(Box::leak(items)),
            own: true,
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: a box that lives until this is dropped, or by the contract of `first_of`.
        unsafe { self.items.as_ref() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.own {
            // SAFETY: it was a box, and nobody else frees it.
            drop(unsafe { Box::from_raw(self.items.as_ptr()) });
        }
    }
}

/// What a program counts in.
pub(super) struct Storage {
    pub(super) locals: Shared<AtomicU64>,
    pub(super) maps: Shared<NamedMap>,
    pub(super) part: bool,
}

impl<H: Host> Engine<H> {
    /// What the program in `object` counts in, if it is to be merged: that of the program which is there.
    ///
    /// # Errors
    /// [`InsertError::Merge`], [`InsertError::NotFound`].
    pub(super) fn storage_of_merged(
        &self,
        control: &Control,
        object: &Object<'_>,
        program: &Program,
        file: Option<&UserFile>,
    ) -> Result<Storage, InsertError> {
        let module = label(object.name().as_bytes());
        let parts = || {
            let all = control.programs.iter();
            all.filter(|loaded| loaded.major == object.major() && loaded.module == module)
        };
        // What others were merged into comes before them.
        let first = parts().next().ok_or(InsertError::NotFound)?;
        let refused = |error| InsertError::Merge { point: None, error };
        if file.is_some_and(|file| file.id != first.file) {
            return Err(refused(MergeError::File));
        }
        let (locals, maps) = (object.locals().len(), object.maps().len());
        let named = object
            .locals()
            .zip(first.local_names())
            .all(|(ours, there)| ours == there);
        if locals > first.locals.len() || !named {
            return Err(refused(MergeError::Variables));
        }
        for (index, map) in object.maps().enumerate() {
            let spec = map.spec()?;
            let same = |there: &NamedMap| there.name == label(map.name.as_bytes()) && *there.map.spec() == spec;
            if !first.maps.get(index).is_some_and(same) {
                return Err(refused(MergeError::Maps));
            }
        }
        if program.suspends() || parts().any(|part| part.program.suspends()) {
            return Err(refused(MergeError::Groups));
        }
        let mut minors = mem::vec(parts().map(|part| part.probes.len()).sum())?;
        minors.extend(parts().flat_map(|part| &part.probes).map(|probe| probe.minor));
        sort::by_key(&mut minors, |minor| *minor);
        let taken = |minor| minors.binary_search(&minor).is_ok();
        if let Some(point) = object.points().position(|point| taken(point.minor())) {
            return Err(InsertError::Merge {
                point: Some(point),
                error: MergeError::Minor,
            });
        }
        // SAFETY: all parts of a program are unlinked before the first is dropped, and none is looked at afterwards.
        let (locals, maps) = unsafe {
            (
                Shared::first_of(&first.locals, locals),
                Shared::first_of(&first.maps, maps),
            )
        };
        Ok(Storage {
            locals,
            maps,
            part: true,
        })
    }

    /// Is no place of a part that is being merged, where its probes are not linked yet, one of the program's already?
    pub(super) fn check_places_of_part(&self, part: &Loaded) -> Result<(), InsertError> {
        if !part.part {
            return Ok(());
        }
        let same = |there: &Probe| there.loaded().is_some_and(|loaded| loaded.is_same_as(part));
        let taken = |probe: &&Probe| {
            let same = |there: &Probe| same(there) && there.is_like(probe);
            let site = Some(probe).filter(|probe| probe.is_in_text());
            let site = site.and_then(|probe| self.site(probe.address));
            site.is_some_and(|site| site.probes().any(same))
                || self.watch_of(probe).is_some_and(|watch| watch.chain.iter().any(same))
                || self.user_site_of(probe).is_some_and(|site| site.chain.iter().any(same))
        };
        match part.probes.iter().find(taken) {
            None => Ok(()),
            Some(probe) => Err(InsertError::Point {
                point: probe.point,
                address: probe.address,
                error: PointError::Twice,
            }),
        }
    }

    /// Unlinks programs that are not armed, all of them first, and drops them.
    pub(super) fn drop_unarmed(
        &self,
        control: &mut Control,
        going: impl Fn(&Loaded) -> bool,
        last: &mut dyn FnMut(&ProbeStatus),
    ) {
        let programs = core::mem::take(&mut control.programs);
        let gone = || programs.iter().filter(|loaded| going(loaded));
        self.forget(control, gone().map(|loaded| &**loaded));
        for loaded in gone() {
            loaded
                .probes
                .iter()
                .for_each(|probe| last(&status(loaded, probe, self.is_halted())));
        }
        control.programs = programs;
        control.programs.retain(|loaded| !going(loaded));
        self.forget_calls(control);
    }
}

impl Loaded {
    /// Is the other one the same program, or a part of it?
    pub(super) fn is_same_as(&self, other: &Loaded) -> bool {
        self.major == other.major && self.module == other.module
    }
}
