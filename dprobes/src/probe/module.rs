//! Programs that go in and out with their module.
//!
//! Such a program is inserted whether its module is loaded or not, and stays: its counts and variables, its maps, and its object, by which its
//! probes are put in each time that the module is loaded. For one load as for an insertion, all of its probes go in or none does; nobody waits for
//! an answer then, so that the reason stays with the probe.

use alloc::boxed::Box;
use core::ops::Range;

use super::engine::{Control, Engine};
use super::error::{InsertError, PointError};
use super::insert::point_with;
use super::program::{Loaded, Probe};
use crate::host::{Host, SymbolError};
use crate::mem;
use crate::rpn::object::{self, Location, Object, Place, ResolveError};
use crate::wire::{State, label};

/// How a module calls what only the kernel itself has.
const KERNEL: &[u8] = b"kernel";

/// Which programs are to be put in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// All that are not.
    All,
    /// Those that nobody has tried since their module was loaded.
    Untried,
}

impl<H: Host> Engine<H> {
    /// The module called `name` is being loaded: its text, that of its initialisation too, is as it will be executed, and nobody has executed
    /// it. The probes of the programs for it are in when this returns, or say why not.
    pub fn module_coming(&self, name: &[u8]) {
        self.put_in(&mut self.lock(), name, Which::All);
    }

    /// The initialisation of the module called `name` has ended, and its text, in `init`, is about to be freed: takes the probes out that are
    /// there. Programs that were inserted while it ran go in now.
    pub fn module_live(&self, name: &[u8], init: Range<u64>) {
        let mut control = self.lock();
        self.take_out(&mut control, &init, State::CodeFreed);
        self.put_in(&mut control, name, Which::Untried);
    }

    /// The module whose text is in `range` is being unloaded: takes its probes out, and waits until nothing of them runs. What a program for
    /// this module watches goes too, wherever it is. To be called for each range of text that the module has, the one that
    /// [`Host::module_base`] is in last.
    pub fn module_going(&self, range: Range<u64>) {
        let mut control = self.lock();
        self.take_out_watchpoints(&mut control, &range);
        self.take_out(&mut control, &range, State::Waiting);
        for loaded in &mut control.programs {
            if loaded.object.is_some() && loaded.base.is_some_and(|base| range.contains(&base)) {
                loaded.base = None;
                loaded
                    .probes
                    .iter()
                    .for_each(|probe| probe.stay_or_come(State::Waiting));
            }
        }
    }

    /// Puts programs for a module in.
    fn put_in(&self, control: &mut Control, name: &[u8], which: Which) {
        let name = label(name);
        // Arming needs the rest of what the lock protects.
        let mut programs = core::mem::take(&mut control.programs);
        let wanted = |loaded: &&mut Box<Loaded>| {
            let untried = |probe: &Probe| !probe.is_nowhere() || probe.state_code() == State::Waiting as u32;
            loaded.module == name && loaded.is_out() && (which == Which::All || loaded.probes.iter().all(untried))
        };
        for loaded in programs.iter_mut().filter(wanted) {
            let Some(bytes) = loaded.object.take() else { continue };
            // Traps that may have found a probe of it before it was taken out have ended after this.
            self.host().sync_cores();
            let armed = Object::parse(&bytes)
                .map_err(InsertError::from)
                .and_then(|object| self.arm(control, loaded, &object, &bytes, None, &|_| false));
            loaded.object = Some(bytes);
            if let Err(error) = armed {
                loaded.refuse(&error);
            }
        }
        control.programs = programs;
    }

    /// Takes watchpoints of programs for the module that is in a range away.
    fn take_out_watchpoints(&self, control: &mut Control, range: &Range<u64>) {
        let of_module = |probe: &&Probe| {
            let module = probe.loaded().and_then(|loaded| loaded.base);
            probe.watchpoint.is_some() && module.is_some_and(|base| range.contains(&base))
        };
        let found = |control: &Control, visit: &dyn Fn(&Probe)| {
            let probes = control.programs.iter().flat_map(|loaded| &loaded.probes);
            probes.filter(of_module).for_each(visit);
        };
        found(control, &|probe| {
            probe.retire(probe.state_without_module(State::Waiting));
        });
        self.release_watchpoints(control, |_| false);
        found(control, &|probe| self.leave_watchpoint(probe));
    }

    /// Takes the breakpoints in a range of text out, and waits until nothing of them runs. Armed probes of programs that follow their module
    /// are in this state then.
    fn take_out(&self, control: &mut Control, range: &Range<u64>, state: State) {
        let Control { programs, limbo, .. } = control;
        let inside = |probe: &&Probe| range.contains(&probe.address) && probe.site().is_some();
        let found = || programs.iter().flat_map(|loaded| &loaded.probes).filter(inside);
        if found().next().is_none() {
            return;
        }
        for probe in found() {
            probe.retire(probe.state_without_module(state));
        }
        // The text goes away in any case: a failure to write it changes nothing for anybody.
        let _ = self.rearm(programs.iter(), super::Site::is_wanted);
        for probe in found() {
            limbo.extend(self.detach(probe));
        }
        self.reclaim(control);
        for loaded in &mut control.programs {
            let out = |probe: &&mut Probe| probe.is_nowhere() && range.contains(&probe.address);
            loaded.probes.iter_mut().filter(out).for_each(Probe::leave);
        }
    }

    /// The bytes of an object with addresses in place of symbols; `None` if it has none, or does not [follow its module](Object::follows_module): the
    /// kernel's are resolved by whoever inserts it.
    pub(super) fn resolve(&self, object: &Object<'_>, bytes: &[u8]) -> Result<Option<Box<[u8]>>, InsertError> {
        let symbolic = |location| matches!(location, Location::Symbol { .. });
        let any = object.points().any(|point| symbolic(point.location())) || object.relocations().next().is_some();
        if !any || !object.follows_module() {
            return Ok(None);
        }
        let mut resolved = mem::bytes(bytes)?;
        let name = object.name().as_bytes();
        // Points of one function follow each other.
        let mut last = None;
        let done = object::resolve(
            &mut resolved,
            |index, location| {
                let Location::Symbol { name: symbol, addend } = location else {
                    return Err(PointError::Unresolved);
                };
                let known = last.as_ref().filter(|(known, _)| *known == symbol);
                let range = match known.map(|(_, range): &(_, Range<u64>)| range.clone()) {
                    Some(range) => range,
                    None => self.host().symbol(name, symbol).map_err(PointError::Symbol)?,
                };
                let watched = object.point(index).is_some_and(|point| point.watch().is_some());
                let size = range.end.saturating_sub(range.start);
                let inside = u64::try_from(addend).is_ok_and(|distance| distance < size || size == 0);
                if !inside && !watched {
                    return Err(PointError::OutsideSymbol { distance: addend, size });
                }
                let address = range.start.wrapping_add_signed(addend);
                // The names of `object`, which outlive the copy that is being changed.
                last = object.symbol_of(index).map(|symbol| (symbol, range));
                Ok(Place::Absolute(address))
            },
            |word| {
                let own = self.host().symbol(name, word.symbol);
                let found = match own {
                    // Modules use what the kernel has.
                    Err(SymbolError::Unknown) => self.host().symbol(KERNEL, word.symbol),
                    found => found,
                };
                found
                    .map(|range| range.start)
                    .map_err(|error| PointError::HandlerSymbol {
                        offset: word.offset,
                        error,
                    })
            },
        );
        let refused = |point, error| InsertError::Point {
            point,
            address: 0,
            error,
        };
        done.map_err(|error| match error {
            ResolveError::Object(error) => InsertError::Object(error),
            ResolveError::Location { point, error } => refused(point as usize, error),
            ResolveError::Symbol { offset, error } => refused(point_with(object, offset), error),
        })?;
        Ok(Some(resolved))
    }
}

impl Loaded {
    /// Does it follow its module, and is none of its probes on any place, while some may come?
    fn is_out(&self) -> bool {
        let out = |probe: &Probe| probe.site().is_none() && !probe.is_active();
        self.object.is_some() && self.probes.iter().all(out) && self.probes.iter().any(Probe::is_nowhere)
    }

    /// Its module is loaded, and its probes could not be put in.
    fn refuse(&mut self, error: &InsertError) {
        let reply = error.reply();
        for probe in &mut self.probes {
            // What is not about one of them is about all.
            let its = reply.point == u32::MAX || reply.point as usize == probe.point;
            probe.refusal = if its { reply } else { crate::wire::Reply::default() };
            probe.stay_or_come(if its { State::Refused } else { State::Withheld });
        }
    }
}

impl Probe {
    /// The state of an armed probe whose code goes away: the given one if its program follows its module.
    fn state_without_module(&self, state: State) -> State {
        match self.loaded() {
            Some(loaded) if loaded.object.is_some() => state,
            _ => State::ModuleGone,
        }
    }
}
