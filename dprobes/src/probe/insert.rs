//! Inserting a program: every point is checked and prepared first, then all breakpoints go in with one transaction.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zerocopy::FromZeros;

use super::engine::{Control, Engine};
use super::error::{InsertError, PointError};
use super::express::Tally;
use super::find::Request;
use super::part::{Insertion, Storage};
use super::place::{Spot, StageError};
use super::program::{Loaded, Probe};
use super::returns::ReturnNumber;
use super::site::Site;
use super::user::UserFile;
use crate::host::{FileId, Host, Patch, Prohibited, Targets, Watchpoint};
use crate::mem;
use crate::rpn::Program;
use crate::rpn::object::{Location, ModType, Object, Place as At, Point};
use crate::rpn::op::facility;
use crate::rpn::variables::{Pool, Variables};
use crate::rpn::verify::verify;
use crate::sort;
use crate::text::slot::Area;
use crate::text::transaction::CommitError;
use crate::wire::{ProbeStatus, State, label};

/// What an insert has prepared and nobody else can see yet.
struct Staged {
    /// Where each point goes, in the order of the points.
    places: Vec<Spot>,
    /// Sites for the places that have none, where they will stay.
    #[expect(clippy::vec_box, reason = "traps will refer to a site by address: it must not move")]
    sites: Vec<Box<Site>>,
}

/// How a program is inserted: by default a new one, for no file, with records in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InsertOptions {
    /// For a program in user space, the file that it is for: the [host's word](Host::user_file) for it.
    pub file: Option<u64>,
    /// What it has to do with a program that is there.
    pub insertion: Insertion,
    /// Where its records go.
    pub targets: Targets,
    /// The process in which its watchpoints watch; 0 means all.
    pub process: u32,
}

impl<H: Host> Engine<H> {
    /// Inserts the program in `object`: untrusted bytes. All its probes are armed when this returns, or none is. Those of a module that is
    /// not loaded are armed [when it is](Self::module_coming).
    ///
    /// # Errors
    /// [`InsertError`] says which point was refused and why. Nothing has changed then.
    pub fn insert(&self, object: &[u8]) -> Result<(), InsertError> {
        self.insert_for(object, None)
    }

    /// As [`insert`](Self::insert); a program for user space is for this file, which is the [host's word](Host::user_file) for it.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_for(&self, object: &[u8], file: Option<u64>) -> Result<(), InsertError> {
        let options = InsertOptions {
            file,
            ..InsertOptions::default()
        };
        self.insert_as(object, options, &mut |_| ())
    }

    /// As [`insert_for`](Self::insert_for), in the place of a program that is there, or as a part of it. `last` is shown the final state of each
    /// probe that was replaced: every hit there ever was is in its counts.
    ///
    /// # Errors
    /// As [`insert`](Self::insert). What was to be replaced is still there then.
    pub fn insert_as(
        &self,
        object: &[u8],
        options: InsertOptions,
        last: &mut dyn FnMut(&ProbeStatus),
    ) -> Result<(), InsertError> {
        let InsertOptions {
            file,
            insertion,
            targets,
            process,
        } = options;
        let bytes = object;
        let object = Object::parse(bytes)?;
        let follows = object.follows_module();
        if let Some(relocation) = object.relocations().next().filter(|_| !follows) {
            return Err(InsertError::Point {
                point: point_with(&object, relocation.offset),
                address: 0,
                error: PointError::Unresolved,
            });
        }
        let program = verify(&object)?;
        for facility in program.facilities().filter(|facility| *facility != facility::SNAPSHOT) {
            self.host()
                .facility(facility)
                .map_err(|error| InsertError::Facility { facility, error })?;
        }
        for (_, target) in Targets::NAMES {
            if targets.of_host() & target != 0 {
                self.host()
                    .target(target)
                    .map_err(|error| InsertError::Target { target, error })?;
            }
        }
        let mut control = self.lock();
        let is_there = |loaded: &Loaded| loaded.is(object.name().as_bytes(), object.major());
        if insertion == Insertion::New && control.programs.iter().any(|loaded| is_there(loaded)) {
            return Err(InsertError::Exists);
        }
        control.programs.try_reserve(1).map_err(|_| InsertError::NoMemory)?;

        let file = match object.modtype() {
            ModType::User => Some(self.user_file(file)?),
            ModType::Kernel | ModType::Kmod => None,
        };
        let names = control.globals.len();
        let storage = match insertion {
            Insertion::Merge => self.storage_of_merged(&control, &object, &program, file.as_ref())?,
            Insertion::New | Insertion::Replace => self.new_storage(&object)?,
        };
        let new = unused_owner(&control);
        let is_replaced = |loaded: &Loaded| insertion == Insertion::Replace && is_there(loaded) && loaded.owner != new;
        let going = |probe: &Probe| probe.loaded().is_some_and(is_replaced);
        let inserted = self.load(&mut control, &object, program, storage, new);
        let inserted = inserted.and_then(|mut loaded| {
            loaded.targets = targets;
            loaded.process = process;
            if follows {
                loaded.object = Some(mem::bytes(bytes)?);
                if self.host().module_base(object.name().as_bytes()).is_none() {
                    return Ok(loaded);
                }
            }
            if let Err(error) = self.arm(&mut control, &mut loaded, &object, bytes, file.as_ref(), &going) {
                // Some may have fired before they were taken out again.
                self.globals.pool.free_all(loaded.owner);
                return Err(error);
            }
            Ok(loaded)
        });
        match inserted {
            Ok(loaded) => {
                control.programs.push(loaded);
                if insertion == Insertion::Replace {
                    self.release_watchpoints(&mut control, going);
                    self.release_user_sites(&mut control, going);
                    self.drop_unarmed(&mut control, is_replaced, last);
                }
            }
            Err(error) => {
                self.truncate_globals(&mut control.globals, names);
                self.forget_calls(&control);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Has all probes of a program, which are nowhere, go where the object, which has these bytes, says: all of them, or none. They take the
    /// places of those that are going, whose other breakpoints are taken out with the same transaction.
    ///
    /// # Errors
    /// [`InsertError`]. The probes are nowhere then.
    pub(super) fn arm(
        &self,
        control: &mut Control,
        loaded: &mut Box<Loaded>,
        object: &Object<'_>,
        bytes: &[u8],
        file: Option<&UserFile>,
        going: &dyn Fn(&Probe) -> bool,
    ) -> Result<(), InsertError> {
        loaded.base = match object.modtype() {
            ModType::Kmod => self.host().module_base(object.name().as_bytes()),
            ModType::Kernel | ModType::User => None,
        };
        let words = object.relocations().next().is_some();
        let resolved = self.resolve(object, bytes)?;
        let object = &match &resolved {
            Some(bytes) => Object::parse(bytes)?,
            None => *object,
        };
        if words {
            loaded.program = verify(object)?;
        }
        let places = match file {
            Some(file) => self.find_user_places(object, file)?,
            None => self.find_places(object, loaded.base)?,
        };
        let mut places = places;
        let entered = check_distinct(&mut places)?;
        check_calls(loaded, &places, &entered)?;
        let mut staged = Staged {
            sites: mem::vec(places.len())?,
            places,
        };
        let prepared = self.stage_sites(control, &mut staged).and_then(|()| {
            self.place_probes(loaded, &staged);
            let taken = taken_places(control, loaded, going)?;
            self.set_watchpoints(control, loaded)?;
            self.attach_returns(control, loaded, &staged.places)?;
            if let Some(file) = file {
                loaded.file = file.id;
                self.attach_user_sites(control, loaded, &staged.places, file)?;
            }
            self.check_places_of_part(loaded)?;
            Ok((self.table.reserve(staged.sites.len())?, taken))
        });
        let (old_table, taken) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                for site in staged.sites {
                    control.free_slots.push(site.slot);
                }
                self.release_watchpoints(control, |_| false);
                self.release_user_sites(control, |_| false);
                loaded.probes.iter().for_each(|probe| self.detach_return(probe));
                loaded.probes.iter_mut().for_each(Probe::leave);
                return Err(error);
            }
        };

        for site in staged.sites {
            let (address, slot) = (site.address, site.slot);
            let site = Box::into_raw(site);
            self.slots.set_owner(slot, site);
            self.table.insert(address, site);
        }
        loaded.probes.iter().for_each(|probe| probe.stay_or_come(State::Armed));
        for probe in in_order(loaded) {
            let Some(site) = self.site(probe.address) else { continue };
            probe.site.store(ptr::from_ref(site).cast_mut(), Ordering::Release);
            // Where another is in its place it waits until nothing can fail any more.
            if !site
                .probes()
                .any(|there| going(there) && there.is_active() && there.is_like(probe))
            {
                site.link(probe);
            }
        }
        let replaced = control
            .programs
            .iter()
            .filter(|loaded| loaded.probes.first().is_some_and(going));
        let stays = |site: &Site| {
            site.probes().any(|probe| probe.is_active() && !going(probe)) || taken.binary_search(&site.address).is_ok()
        };
        let armed = self.rearm(replaced.chain([&*loaded]), stays);
        if !old_table.is_empty() {
            // A trap that may be reading the old table has ended after this.
            self.host().sync_cores();
        }
        drop(old_table);
        match armed {
            Ok(()) => {
                for probe in in_order(loaded) {
                    if let Some(site) = probe.site()
                        && !site.probes().any(|there| ptr::eq(there, probe))
                    {
                        put_in_place(site, probe, going);
                    }
                }
                self.link_watchpoints(loaded, going);
                self.link_user_sites(loaded, going);
                Ok(())
            }
            Err(error) => {
                let error = refused(loaded, error);
                for probe in &loaded.probes {
                    probe.retire(State::Waiting);
                }
                self.release_watchpoints(control, |_| false);
                self.release_user_sites(control, |_| false);
                self.unlink(control, loaded.probes.iter());
                loaded.probes.iter_mut().for_each(Probe::leave);
                Err(error)
            }
        }
    }

    /// Checks every point of a program. `base` is where its module is, if it is for one that is loaded.
    fn find_places(&self, object: &Object<'_>, base: Option<u64>) -> Result<Vec<Spot>, InsertError> {
        let base = match object.modtype() {
            ModType::Kmod => base.ok_or(InsertError::NoModule)?,
            ModType::Kernel | ModType::User => 0,
        };
        let mut requests = mem::vec(object.points().len())?;
        let mut watched: Vec<Option<Watchpoint>> = mem::vec(object.points().len())?;
        for (point, of) in object.points().enumerate() {
            let refused = |address, error| InsertError::Point { point, address, error };
            let address = match of.location() {
                Location::Place(At::Absolute(address)) => address,
                Location::Place(At::ModuleOffset(offset)) => base.wrapping_add(offset),
                Location::Symbol { .. } | Location::Source { .. } => {
                    return Err(refused(0, PointError::Unresolved));
                }
            };
            let Some(watch) = of.watch() else {
                requests.push(Request {
                    address,
                    expected: of.opcode(),
                });
                watched.push(None);
                continue;
            };
            let len = watch.len();
            let what = Watchpoint::new(address, watch)
                .map_err(|error| refused(address, PointError::Location { error, len }))?;
            watched.push(Some(what));
        }
        let mut findings = self.find(&requests)?.into_iter();
        let mut places = mem::vec(watched.len())?;
        for (point, what) in watched.into_iter().enumerate() {
            // There is a finding for each request, in their order.
            let spot = match what {
                Some(what) => Spot::Watch(what),
                None => {
                    let Some(found) = findings.next() else { break };
                    let error = |error| InsertError::Point {
                        point,
                        address: found.requested,
                        error,
                    };
                    let place = found.place.map_err(error)?;
                    let returns = object.point(point as u32).is_some_and(|point| point.returns());
                    if returns {
                        self.check_returns(found.requested, &place)
                            .map_err(|why| error(PointError::Return(why)))?;
                        Spot::Return { place, entry: None }
                    } else {
                        Spot::Text(place)
                    }
                }
            };
            places.push(spot);
        }
        Ok(places)
    }

    /// Makes a site with a slot for every place that has none, and fills the slots.
    fn stage_sites(&self, control: &mut Control, staged: &mut Staged) -> Result<(), InsertError> {
        let new = staged
            .places
            .iter()
            .filter_map(Spot::first_text)
            .filter(|place| self.site(place.address).is_none())
            .count();
        for area in [Area::Main, Area::User] {
            let wanted = staged.places.iter().filter_map(Spot::first_text);
            let new = wanted
                .filter(|place| self.slots.area_for(place.address) == area)
                .filter(|place| self.site(place.address).is_none())
                .count();
            if !control.free_slots.suffice(area, new) {
                self.reclaim(control);
            }
        }
        let mut images: Vec<Patch> = mem::vec(new)?;
        for (point, spot) in staged.places.iter().enumerate() {
            let Some(place) = spot.first_text() else { continue };
            if self.site(place.address).is_some() {
                continue;
            }
            let area = self.slots.area_for(place.address);
            let slot = control.free_slots.take(area).ok_or(InsertError::NoSlot {
                slots: self.slots.count(),
            })?;
            let staged_site = self.stage(place, slot).map_err(|error| match error {
                StageError::NoMemory => InsertError::NoMemory,
                StageError::Point(error) => InsertError::Point {
                    point,
                    address: place.address,
                    error,
                },
            });
            match staged_site {
                Ok((site, image)) => {
                    staged.sites.push(site);
                    images.push(image);
                }
                Err(error) => {
                    control.free_slots.push(slot);
                    return Err(error);
                }
            }
        }
        sort::by_key(&mut images, |image| image.address);
        self.host().write_text(&images).map_err(|error| InsertError::Point {
            point: 0,
            address: images.get(error.index).map_or(0, |image| image.address),
            error: PointError::Unwritable,
        })
    }

    /// What a program counts in, at zero.
    fn new_storage(&self, object: &Object<'_>) -> Result<Storage, InsertError> {
        Ok(Storage {
            locals: mem::boxed_slice(object.locals().len(), |_| AtomicU64::new(0))?.into(),
            maps: self.new_maps(object)?.into(),
            part: false,
        })
    }

    /// Makes the program with its probes, which are nowhere, and nobody sees yet.
    fn load(
        &self,
        control: &mut Control,
        object: &Object<'_>,
        program: Program,
        storage: Storage,
        owner: u32,
    ) -> Result<Box<Loaded>, InsertError> {
        let global_slots = control.globals.indices(object.globals())?;
        let mut probes = mem::vec(object.points().len())?;
        probes.extend(object.points().enumerate().map(|(index, point)| {
            let group = program.group_of(index).unwrap_or(0);
            Probe::new(index, group, &point)
        }));
        let suspended = program.groups().iter().map(|group| group.suspended);
        let groups = if program.suspends() { suspended.len() } else { 0 };
        let mut flags = mem::vec(groups)?;
        flags.extend(suspended.take(groups).map(AtomicBool::new));
        let is_in_file = object.modtype() == ModType::User;
        let keeps_calls = is_in_file && (0..program.points()).any(|point| program.keeps_for_calls(point));
        if keeps_calls {
            self.keep_calls()?;
        }
        control.last_program += 1;
        let pool = || Pool::new_box_zeroed().map_err(|_| InsertError::NoMemory);
        Ok(mem::boxed(Loaded {
            program_id: object.id(),
            major: object.major(),
            module: label(object.name().as_bytes()),
            base: None,
            file: FileId::default(),
            object: None,
            locals: storage.locals,
            part: storage.part,
            names: mem::joined(|| object.locals(), '\0')?,
            global_slots,
            local_pool: program.allocates_locals().then(pool).transpose()?,
            owner,
            number: control.last_program,
            keeps_calls,
            suspended: flags.into_boxed_slice(),
            maps: storage.maps,
            targets: Targets::default(),
            process: 0,
            program,
            probes: probes.into_boxed_slice(),
        })?)
    }

    /// Says in the probes of a program, which nobody sees, where they go.
    fn place_probes(&self, loaded: &mut Loaded, staged: &Staged) {
        let mut new_sites = staged.sites.iter();
        let owner: *mut Loaded = loaded;
        let variables = Variables {
            locals: &loaded.locals,
            globals: &self.globals.values,
            global_slots: &loaded.global_slots,
            ..Variables::default()
        };
        for (probe, spot) in loaded.probes.iter_mut().zip(&staged.places) {
            probe.resume_code = match spot.first_text().map(|place| self.site(place.address)) {
                // The engine resumes nothing.
                None => 0,
                Some(Some(site)) => site.resume_code(),
                // New sites were staged in the order of the places.
                Some(None) => new_sites.next().map_or(0, |site| site.resume_code()),
            };
            probe.address = spot.address();
            probe.watchpoint = match spot {
                Spot::Watch(what) => Some(*what),
                Spot::Text(_) | Spot::Return { .. } | Spot::User(_) => None,
            };
            probe.returns = matches!(spot, Spot::Return { .. }).then(ReturnNumber::default);
            probe.in_file = matches!(spot, Spot::User(_));
            let addition = loaded
                .program
                .counting(probe.point)
                .and_then(|counting| counting.addition(&variables));
            // SAFETY: local variables live as long as the probe's program, which owns it, and global ones as long as the engine;
            // both are in boxes of their own that nobody replaces.
            probe.tally = addition.map(|addition| unsafe { Tally::new(addition) });
            probe.begin_anew();
            *probe.loaded.get_mut() = owner;
        }
    }
}

/// The probes of a program that are in text. What is to happen at a call's beginning happens before the call is followed: its handler may leave
/// something for its end.
fn in_order(loaded: &Loaded) -> impl Iterator<Item = &Probe> {
    let in_text = |probe: &&Probe| probe.is_in_text();
    let entries = loaded.probes.iter().filter(|probe| probe.returns.is_none());
    let returns = loaded.probes.iter().filter(|probe| probe.returns.is_some());
    entries.chain(returns).filter(in_text)
}

/// Links a probe in the place of one that is going, unless what is at the beginning of its calls is behind that.
fn put_in_place(site: &Site, probe: &Probe, going: &dyn Fn(&Probe) -> bool) {
    let ours = |there: &Probe| {
        there
            .loaded()
            .is_some_and(|loaded| probe.loaded().is_some_and(|own| ptr::eq(own, loaded)))
    };
    let gone = site.probes().find(|there| going(there) && there.is_like(probe));
    let behind = |gone: &Probe| site.probes().skip_while(|there| !ptr::eq(*there, gone)).any(ours);
    let too_early = probe.returns.is_some() && gone.is_some_and(behind);
    match gone.filter(|_| !too_early) {
        Some(gone) => site.replace(gone, probe),
        None => site.link(probe),
    }
}

/// The point whose handler has the byte of the code at `offset`.
pub(super) fn point_with(object: &Object<'_>, offset: u32) -> usize {
    let handler = |point: Point<'_>| point.code().contains(&offset);
    object.points().position(handler).unwrap_or(0)
}

/// The addresses, in ascending order, where probes of a program are to be in the place of others, that are going.
fn taken_places(control: &Control, loaded: &Loaded, going: &dyn Fn(&Probe) -> bool) -> Result<Vec<u64>, InsertError> {
    let mut places = Vec::new();
    let has_gone = |loaded: &Loaded| loaded.probes.first().is_some_and(going);
    if control.programs.iter().any(|loaded| has_gone(loaded)) {
        places = mem::vec(loaded.probes.len())?;
        places.extend(
            loaded
                .probes
                .iter()
                .filter(|probe| probe.is_in_text())
                .map(|probe| probe.address),
        );
        sort::by_key(&mut places, |address| *address);
    }
    Ok(places)
}

/// Are no two points of a program at the same place? One at the beginning of a function and one on its returns are; the second is told so.
///
/// Gives the points at the beginnings of functions on whose returns there are others, in ascending order.
fn check_distinct(places: &mut [Spot]) -> Result<Vec<usize>, InsertError> {
    let mut order: Vec<((u64, u8, u8), usize)> = mem::vec(places.len())?;
    order.extend(places.iter().enumerate().map(|(point, spot)| (spot.order(), point)));
    sort::by_key(&mut order, |entry| *entry);
    let mut entered = Vec::new();
    for pair in order.windows(2) {
        let [(first, before), (second, point)] = *pair else {
            continue;
        };
        if first == second {
            return Err(InsertError::Point {
                point,
                address: second.0,
                error: PointError::Twice,
            });
        }
        let is_return = second.1 == Spot::RETURNS && places.get(point).is_some_and(Spot::is_return);
        if first.0 != second.0 || first.1 != 0 || !is_return {
            continue;
        }
        mem::push(&mut entered, before)?;
        if let Some(Spot::Return { entry, .. }) = places.get_mut(point) {
            *entry = Some(before);
        }
    }
    sort::by_key(&mut entered, |point| *point);
    Ok(entered)
}

/// Are the handlers that use variables of a call those of points at which there is one?
fn check_calls(loaded: &Loaded, places: &[Spot], entered: &[usize]) -> Result<(), InsertError> {
    for (point, spot) in places.iter().enumerate() {
        let has_call = spot.is_return() || entered.binary_search(&point).is_ok();
        if loaded.program.keeps_for_calls(point) && !has_call {
            return Err(InsertError::Point {
                point,
                address: spot.address(),
                error: PointError::CallVariables,
            });
        }
    }
    Ok(())
}

/// A number that no program has in pools.
fn unused_owner(control: &Control) -> u32 {
    // One of so many and one more is free.
    let taken = |owner: &u32| control.programs.iter().any(|loaded| loaded.owner == *owner);
    (1..=control.programs.len() as u32 + 1)
        .find(|owner| !taken(owner))
        .unwrap_or(u32::MAX)
}

/// Says which point of a program a failed transaction is about.
fn refused(loaded: &Loaded, error: CommitError) -> InsertError {
    let (address, error) = match error {
        // The bytes were as expected a moment ago: somebody else has just patched them.
        CommitError::Changed { address } => (address, PointError::Prohibited(Prohibited::ForeignBreakpoint)),
        CommitError::Unreadable { address } => (address, PointError::Unreadable),
        CommitError::Unwritable { address } => (address, PointError::Unwritable),
        CommitError::NoMemory(_) => return InsertError::NoMemory,
    };
    let point = loaded
        .probes
        .iter()
        .position(|probe| probe.address == address)
        .unwrap_or(0);
    InsertError::Point { point, address, error }
}
