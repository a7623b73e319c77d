//! A program on the made-up machine: its probes, its variables, and one hit after another.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dprobes::record::header::{Header, RecordState};
use dprobes::rpn::Program;
use dprobes::rpn::interp::{self, End, Outcome, Variables, Workspace};
use dprobes::rpn::object::{Location, Object, ObjectError, Place};
use dprobes::rpn::reg::Reg;
use dprobes::rpn::variables::Pool;
use dprobes::rpn::verify::{VerifyError, verify_unfused};

use crate::changes::Changes;
use crate::machine::{Effects, Live, Machine};
use crate::maps::NamedMap;
use crate::place::TEXT;
use crate::trace::{Tracer, Watch};

/// Who allocates variables from the pools.
const OWNER: u32 = 1;

/// Why a program cannot be simulated.
#[derive(Debug)]
pub enum LoadError {
    /// The bytes are no object.
    Object(ObjectError),
    /// The program does not verify.
    Verify(VerifyError),
    /// There is no memory for the map of this name.
    Map(String),
}

/// A probe of the program.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Minor code.
    pub minor: u16,
    /// Where it is.
    pub address: u64,
    /// Index of its group.
    group: u16,
    pass_count: u64,
    max_hits: u64,
    arrivals: u64,
    processed: u64,
    removed: bool,
}

/// Why a program did not run although its probe was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// `pass_count` lets it pass.
    Passed {
        /// How many hits are still to pass.
        left: u64,
    },
    /// The probe has processed `max_hits`.
    Exhausted {
        /// Which is how many.
        max_hits: u64,
    },
    /// The program removed the probe in an earlier hit.
    Removed,
    /// The probe's group is suspended.
    Suspended {
        /// The group.
        group: u16,
    },
}

/// A record: its head and its elements.
pub type Record = (Header, Vec<u8>);

/// A hit that ran the program.
#[derive(Debug, Clone)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// Instructions executed.
    pub instructions: u64,
    /// The record, unless the program aborted.
    pub record: Option<Record>,
    /// The stack-trace record, if there is anything in it.
    pub trace: Option<Record>,
    /// What it changed.
    pub changes: Changes,
}

/// What became of a hit.
#[derive(Debug, Clone)]
pub enum Hit {
    /// The program ran.
    Ran(Box<Ran>),
    /// It did not.
    Skipped(Skipped),
}

/// A value that a hit added to a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The map.
    pub map: String,
    /// The keys.
    pub keys: Vec<u64>,
    /// The value; none for a map that counts.
    pub value: Option<u64>,
}

/// A group of probes that a hit suspended or resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switched {
    /// The group.
    pub group: u16,
    /// Whether it is suspended now.
    pub suspended: bool,
}

/// A verified program with its variables, as it is between hits.
#[derive(Debug)]
pub struct Simulation {
    program: Program,
    module: String,
    id: u32,
    major: u16,
    probes: Vec<Probe>,
    local_names: Vec<String>,
    global_names: Vec<String>,
    locals: Vec<AtomicU64>,
    globals: Vec<AtomicU64>,
    global_slots: Vec<u16>,
    local_pool: Box<Pool>,
    global_pool: Box<Pool>,
    maps: Vec<NamedMap>,
    /// For each group of the program, whether it is suspended.
    suspended: Vec<bool>,
    workspace: Box<Workspace>,
}

impl Simulation {
    /// Parses and verifies an object, with the code that the kernel uses. [`place`](crate::place()) has given it addresses.
    ///
    /// # Errors
    /// Why it cannot run.
    pub fn load(bytes: &[u8]) -> Result<Self, LoadError> {
        let object = Object::parse(bytes).map_err(LoadError::Object)?;
        let program = verify_unfused(&object).map_err(LoadError::Verify)?;
        let global_names: Vec<String> = object.globals().map(str::to_owned).collect();
        Ok(Self {
            module: object.name().to_owned(),
            id: object.id(),
            major: object.major(),
            probes: probes(&object, &program),
            local_names: object.locals().map(str::to_owned).collect(),
            locals: (0..program.locals()).map(|_| AtomicU64::new(0)).collect(),
            globals: global_names.iter().map(|_| AtomicU64::new(0)).collect(),
            global_slots: (0..).take(global_names.len()).collect(),
            global_names,
            local_pool: Box::default(),
            global_pool: Box::default(),
            maps: object
                .maps()
                .map(|map| NamedMap::new(&map).ok_or_else(|| LoadError::Map(map.name.to_owned())))
                .collect::<Result<_, _>>()?,
            suspended: program.groups().iter().map(|group| group.suspended).collect(),
            program,
            workspace: Box::default(),
        })
    }

    /// Its probes.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// The index of the probe with a minor code.
    #[must_use]
    pub fn probe(&self, minor: u16) -> Option<usize> {
        self.probes.iter().position(|probe| probe.minor == minor)
    }

    /// The names of the local variables, empty where they have none, and their values.
    pub fn locals(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        named(&self.local_names, &self.locals)
    }

    /// The names of the global variables and their values.
    pub fn globals(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        named(&self.global_names, &self.globals)
    }

    /// Its maps.
    #[must_use]
    pub fn maps(&self) -> &[NamedMap] {
        &self.maps
    }

    /// Sets a local variable, by its name or its index. Returns whether there is one.
    #[must_use]
    pub fn set_local(&mut self, name: &str, value: u64) -> bool {
        set(&self.local_names, &self.locals, name, value)
    }

    /// Sets a global variable, by its name or its index. Returns whether there is one.
    #[must_use]
    pub fn set_global(&mut self, name: &str, value: u64) -> bool {
        set(&self.global_names, &self.globals, name, value)
    }

    /// What the probe with this index does when it is hit on this machine. Memory stays as the program leaves it; registers are set
    /// again by whoever makes the next hit. `watch` sees each instruction.
    ///
    /// A probe that the program does not have aborts.
    pub fn hit(&mut self, index: usize, machine: &mut Machine, watch: Option<Watch<'_>>) -> Hit {
        let mut now = machine.clone();
        let (mut address, mut minor) = (0, 0);
        if let Some(probe) = self.probes.get_mut(index) {
            if let Err(skipped) = probe.arrive(&self.suspended, &self.program) {
                return Hit::Skipped(skipped);
            }
            (address, minor) = (probe.address, probe.minor);
        }
        // A hit finds rip where the probe is.
        now.regs.insert(Reg::Rip, Some(vec![address]));
        let before = now.clone();
        let variables_before = self.values();

        let mut tracer = Tracer::new(watch);
        let mut live = Live {
            machine: &mut now,
            effects: Log {
                maps: &self.maps,
                program: &self.program,
                suspended: &mut self.suspended,
                added: Vec::new(),
                switched: Vec::new(),
            },
        };
        let variables = Variables {
            locals: &self.locals,
            globals: &self.globals,
            global_slots: &self.global_slots,
            local_pool: Some(&self.local_pool),
            global_pool: Some(&self.global_pool),
            owner: OWNER,
        };
        let outcome = interp::run_observed(
            &self.program,
            index,
            &mut self.workspace,
            &mut live,
            &variables,
            &mut tracer,
        );
        let instructions = tracer.finish();
        let Log { added, switched, .. } = live.effects;
        if outcome.end == End::Remove
            && let Some(probe) = self.probes.get_mut(index)
        {
            probe.removed = true;
        }

        let codes = (outcome.major.unwrap_or(self.major), outcome.minor.unwrap_or(minor));
        let record = |codes, elements: &[u8]| {
            let header = Header::new(address, codes, now.cpu as usize, now.clock, &now.task, elements.len());
            let state = RecordState::Published as u32;
            (Header { state, ..header }, elements.to_vec())
        };
        let published = outcome.end != End::Abort;
        let facts = [address, self.id.into(), codes.0.into(), codes.1.into()];
        let main = published.then(|| record(codes, self.workspace.log()));
        let trace = (published && outcome.traced)
            .then(|| self.workspace.trace_record(self.module.as_bytes(), facts))
            .flatten()
            .map(|elements| record((0, 0), elements));
        let changes = Changes::new(&before, &now, &variables_before, &self.values(), added, switched);
        machine.memory = now.memory;
        Hit::Ran(Box::new(Ran {
            outcome,
            instructions,
            record: main,
            trace,
            changes,
        }))
    }

    /// Local and global variables as they are now.
    fn values(&self) -> [Vec<u64>; 2] {
        [&self.locals, &self.globals].map(|all| all.iter().map(|variable| variable.load(Relaxed)).collect())
    }
}

fn named<'a>(names: &'a [String], values: &'a [AtomicU64]) -> impl ExactSizeIterator<Item = (&'a str, u64)> {
    let values = values.iter().map(|value| value.load(Relaxed));
    names.iter().map(String::as_str).zip(values)
}

fn set(names: &[String], values: &[AtomicU64], name: &str, value: u64) -> bool {
    let index = match names.iter().position(|other| other == name) {
        Some(index) => Some(index),
        None => name.parse().ok(),
    };
    match index.and_then(|index: usize| values.get(index)) {
        Some(variable) => {
            variable.store(value, Relaxed);
            true
        }
        None => false,
    }
}

fn probes(object: &Object<'_>, program: &Program) -> Vec<Probe> {
    object
        .points()
        .enumerate()
        .map(|(index, point)| {
            let address = match point.location() {
                Location::Place(Place::Absolute(address)) => address,
                Location::Place(Place::ModuleOffset(offset)) => TEXT.wrapping_add(offset),
                Location::Symbol { .. } | Location::Source { .. } => TEXT,
            };
            Probe {
                minor: point.minor(),
                address,
                group: program.group_of(index).unwrap_or(0),
                pass_count: point.pass_count(),
                max_hits: point.max_hits(),
                arrivals: 0,
                processed: 0,
                removed: false,
            }
        })
        .collect()
}

impl Probe {
    /// Counts a hit; says why it is not processed.
    fn arrive(&mut self, suspended: &[bool], program: &Program) -> Result<(), Skipped> {
        if self.removed {
            return Err(Skipped::Removed);
        }
        let group = usize::from(self.group);
        if suspended.get(group).copied().unwrap_or(false) {
            let group = program.groups().get(group).map_or(0, |group| group.number);
            return Err(Skipped::Suspended { group });
        }
        self.arrivals += 1;
        if self.arrivals <= self.pass_count {
            let left = self.pass_count - self.arrivals;
            return Err(Skipped::Passed { left });
        }
        if self.max_hits != 0 && self.processed == self.max_hits {
            let max_hits = self.max_hits;
            return Err(Skipped::Exhausted { max_hits });
        }
        self.processed += 1;
        Ok(())
    }
}

/// What a hit does to the program's maps and groups.
struct Log<'a> {
    maps: &'a [NamedMap],
    program: &'a Program,
    suspended: &'a mut [bool],
    added: Vec<Added>,
    switched: Vec<Switched>,
}

impl Effects for Log<'_> {
    fn aggregate(&mut self, cpu: u32, map: u16, keys: &[u64], value: u64) {
        let Some(map) = self.maps.get(usize::from(map)) else {
            return;
        };
        map.add(cpu, keys, value);
        self.added.push(Added {
            map: map.name.clone(),
            keys: keys.to_vec(),
            value: map.map.spec().kind().has_value().then_some(value),
        });
    }

    fn suspend(&mut self, group: u16, suspended: bool) {
        let index = usize::from(group);
        if let (Some(state), Some(group)) = (self.suspended.get_mut(index), self.program.groups().get(index)) {
            *state = suspended;
            let group = group.number;
            self.switched.push(Switched { group, suspended });
        }
    }
}
