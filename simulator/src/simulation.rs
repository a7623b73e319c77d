//! A program on the made-up machine: its probes, its variables, and one hit after another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dprobes::record::header::{Header, RecordState};
use dprobes::rpn::Program;
use dprobes::rpn::interp::{self, End, Outcome, Variables, Workspace};
use dprobes::rpn::limits::CALL_VARIABLES_MAX;
use dprobes::rpn::object::{Location, Object, ObjectError, Place, WatchKind};
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
    /// Whether it is hit behind an instruction, which may be any: it watches data or ports, or is on returns.
    anywhere: bool,
    /// Whether it is hit where a call has returned to.
    returns: bool,
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
    /// What is kept for the calls under way of each thread, the innermost last.
    calls: BTreeMap<u32, Vec<[u64; CALL_VARIABLES_MAX]>>,
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
            calls: BTreeMap::new(),
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
        let (mut address, mut minor, mut anywhere, mut returns) = (0, 0, false, false);
        if let Some(probe) = self.probes.get_mut(index) {
            if let Err(skipped) = probe.arrive(&self.suspended, &self.program) {
                return Hit::Skipped(skipped);
            }
            (address, minor, anywhere, returns) = (probe.address, probe.minor, probe.anywhere, probe.returns);
        }
        // A hit finds rip where the probe is, and that of a watchpoint where the machine is.
        if anywhere {
            address = now
                .reg_words(Reg::Rip)
                .and_then(|words| words.first().copied())
                .unwrap_or(0);
        } else {
            now.regs.insert(Reg::Rip, Some(vec![address]));
        }
        let before = now.clone();
        let variables_before = self.values();

        let now_tid = now.task.tid;
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
        // A probe on returns is hit by the innermost call of its thread; another one that keeps something for its call begins one.
        let calls = self.calls.entry(now_tid).or_default();
        *self.workspace.call_words() = returns.then(|| calls.pop()).flatten().unwrap_or_default();
        let outcome = interp::run_observed(
            &self.program,
            index,
            &mut self.workspace,
            &mut live,
            &variables,
            &mut tracer,
        );
        if !returns && self.program.keeps_for_calls(index) {
            calls.push(*self.workspace.call_words());
        }
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
                anywhere: point.returns() || point.watch().is_some_and(|watch| watch.kind() != WatchKind::Execute),
                returns: point.returns(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place;
    use crate::trace::{Dispatch, Raised};
    use dprobes::record::element::{Element, Elements};

    fn simulation(text: &str) -> Simulation {
        let head = "name = \"kernel\"; modtype = kernel; major = 1\n";
        let assembled = rpn_asm::assemble("t", &format!("{head}{text}"), &rpn_asm::Options::default());
        let mut bytes = assembled.unwrap_or_else(|e| panic!("{e}")).object;
        place(&mut bytes, |name| (name == "known").then_some(0x5000)).unwrap();
        Simulation::load(&bytes).unwrap()
    }

    fn words(hit: &Hit) -> Vec<u64> {
        let Hit::Ran(ran) = hit else { panic!("{hit:?}") };
        let (_, elements) = ran.record.as_ref().unwrap();
        match Elements::new(elements).next() {
            Some(Ok(Element::Words(words))) => words.iter().collect(),
            other => panic!("{other:?}"),
        }
    }

    fn skipped(hit: Hit) -> Option<Skipped> {
        match hit {
            Hit::Skipped(skipped) => Some(skipped),
            Hit::Ran(_) => None,
        }
    }

    #[test]
    fn hits_pass_are_processed_and_end() {
        let mut simulation = simulation("offset = f; minor = 1; pass_count = 2; max_hits = 2\nexit");
        let mut machine = Machine::default();
        let all: Vec<_> = (0..6).map(|_| skipped(simulation.hit(0, &mut machine, None))).collect();
        let (passed, over) = (
            |left| Some(Skipped::Passed { left }),
            Some(Skipped::Exhausted { max_hits: 2 }),
        );
        assert_eq!(all, [passed(1), passed(0), None, None, over, over]);
    }

    #[test]
    fn a_suspended_group_does_not_run_until_it_is_resumed() {
        let mut simulation = simulation(
            "offset = f; minor = 1; group = 3; suspended = yes\nexit\noffset = g; minor = 2\nresume 3\nexit\noffset = h; minor = 3\nsuspend 3\nremove",
        );
        let mut machine = Machine::default();
        let mut hit = |index| skipped(simulation.hit(index, &mut machine, None));
        assert_eq!(hit(0), Some(Skipped::Suspended { group: 3 }));
        assert_eq!((hit(1), hit(0), hit(2)), (None, None, None));
        assert_eq!(
            (hit(0), hit(2)),
            (Some(Skipped::Suspended { group: 3 }), Some(Skipped::Removed))
        );
    }

    #[test]
    fn variables_stay_memory_stays_registers_do_not() {
        let mut simulation = simulation(
            "vars = n; globals = g\noffset = f; minor = 1\ninc lv, n; inc gv, g\n\
             push 0x1000; push lv, n; pop mem, u8; push r, rax; push lv, n; pop r, rax; log 1; exit",
        );
        let mut machine = Machine::default();
        machine.memory.map(0x1000, vec![0], crate::Access::ReadWrite).unwrap();
        assert!(simulation.set_local("n", 4) && simulation.set_global("g", 8) && !simulation.set_local("m", 1));
        for n in 5..8 {
            assert_eq!(words(&simulation.hit(0, &mut machine, None)), [0]);
            let mut byte = [0];
            machine.memory.read(0x1000, &mut byte).unwrap();
            assert_eq!((byte[0], simulation.locals().next()), (n, Some(("n", n.into()))));
        }
        assert_eq!(simulation.globals().next(), Some(("g", 11)));
    }

    #[test]
    fn symbols_have_the_addresses_that_were_given_or_some_of_their_own() {
        let mut simulation = simulation(
            "offset = known + 2; minor = 1\npush known + 8; push r, rip; log 2; exit\noffset = a; minor = 2\nexit\noffset = b + 1; minor = 3\nexit",
        );
        assert_eq!(
            words(&simulation.hit(0, &mut Machine::default(), None)),
            [0x5002, 0x5008]
        );
        let addresses: Vec<u64> = simulation.probes().iter().map(|probe| probe.address).collect();
        assert_eq!(addresses, [0x5002, 0xffff_ffff_8100_0000, 0xffff_ffff_8100_1001]);
    }

    #[test]
    fn each_instruction_is_one_step_also_where_the_stack_is_checked() {
        // What is on the stack cannot be proven: the engine puts checks in front of the instructions.
        let mut simulation = simulation(
            "offset = f; minor = 1\nsx bad\npush r, rax\nagain: dup 2\nloop again\nsub\npop r, rbx\nros 3\nexit\nbad: log 3\nexit",
        );
        let mut machine = Machine::default();
        machine.regs.insert(Reg::Rax, Some(vec![2]));
        let mut steps = Vec::new();
        let hit = simulation.hit(0, &mut machine, Some(&mut |step| steps.push(step.clone())));
        let Hit::Ran(ran) = hit else { panic!() };
        assert_eq!(ran.instructions, steps.len() as u64);
        let depths: Vec<_> = steps.iter().map(|step| (step.before.depth, step.after.depth)).collect();
        assert_eq!(
            depths,
            [
                (0, 0),
                (0, 1),
                (1, 2),
                (2, 2),
                (2, 3),
                (3, 3),
                (3, 2),
                (2, 1),
                (1, 4),
                (4, 1),
                (1, 1)
            ]
        );
        let raised: Vec<_> = steps.iter().filter_map(|step| step.raised.as_ref()).collect();
        assert!(
            matches!(
                raised[..],
                [Raised {
                    to: Dispatch::Handler(_),
                    ..
                }]
            ),
            "{raised:?}"
        );
        assert_eq!(steps[8].after.top, [2, 2, 0, 0x2000]);
    }
}
