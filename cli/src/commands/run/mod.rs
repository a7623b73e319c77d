//! `dprobes run`: a program on a machine that is made up.

pub mod args;
mod error;
mod json;
mod listing;
mod maps;
mod text;

use dprobes::rpn::interp::End;
use simulator::settings::{Content, Hit as HitSetting};
use simulator::{Hit, Machine, Simulation, Step};

pub use args::Run;
pub use error::RunError;
use listing::Listing;

use crate::error::Error;
use crate::output;
use crate::program::Program;
use crate::render::address::Addresses;
use crate::render::escape::Charset;
use args::Probes;

/// Nanoseconds from one hit to the next.
const BETWEEN_HITS: u64 = 1_000_000;

/// What a printer has to know of a program.
struct Context<'a> {
    program: &'a Program,
    listing: Listing,
    major: u16,
    charset: Charset,
    addresses: Addresses,
    /// See [`Run::names`].
    names: bool,
}

/// One hit, for a printer.
struct Occurrence<'a> {
    /// Counted from 1.
    number: u64,
    minor: u16,
    hit: &'a Hit,
}

/// How results are printed.
trait Printer {
    fn begin(&mut self, number: u64, probe: usize, minor: u16) -> String;
    fn step(&mut self, number: u64, step: &Step) -> String;
    fn hit(&mut self, occurrence: &Occurrence<'_>, simulation: &Simulation) -> String;
    fn end(&mut self, simulation: &Simulation) -> String;
}

/// Runs a program and prints what it does.
pub fn run(args: &Run) -> Result<(), Error> {
    let program = Program::load(&args.source, output::tell)?;
    let simulation = load(args, &program)?;
    let machine = machine(args)?;
    let hits = hits(args, &simulation)?;

    let context = Context {
        listing: Listing::new(&program),
        major: program.identity().1,
        names: args.names,
        program: &program,
        charset: Charset::from_env(),
        addresses: Addresses::choose(args.kallsyms.as_ref(), false)?,
    };
    if args.json {
        play(args, simulation, machine, &hits, json::Json::new(context))
    } else {
        play(args, simulation, machine, &hits, text::Text::new(context))
    }
}

/// The program with the addresses and the values of variables that were given.
fn load(args: &Run, program: &Program) -> Result<Simulation, Error> {
    let symbol = |name: &str| {
        let mut all = args.symbol.iter().flat_map(|named| &named.0);
        all.find(|(other, _)| other == name).map(|(_, address)| *address)
    };
    let mut simulation = program.simulation(symbol)?;
    let unknown = |name: &String, known: Vec<String>| {
        let name = name.clone();
        Error::Run(RunError::NoVariable { name, known })
    };
    for (name, value) in args.vars.iter().flat_map(|named| &named.0) {
        if !simulation.set_local(name, *value) {
            return Err(unknown(name, names(simulation.locals())));
        }
    }
    for (name, value) in args.globals.iter().flat_map(|named| &named.0) {
        if !simulation.set_global(name, *value) {
            return Err(unknown(name, names(simulation.globals())));
        }
    }
    Ok(simulation)
}

/// The names of variables that have one.
fn names<'a>(variables: impl Iterator<Item = (&'a str, u64)>) -> Vec<String> {
    let names = variables.map(|(name, _)| name.to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

fn play(
    args: &Run,
    mut simulation: Simulation,
    mut machine: Machine,
    hits: &[(usize, HitSetting)],
    mut printer: impl Printer,
) -> Result<(), Error> {
    let minors: Vec<u16> = simulation.probes().iter().map(|probe| probe.minor).collect();
    let all = (0..args.repeat).flat_map(|_| hits);
    for (number, (probe, setting)) in (1..).zip(all) {
        let minor = minors[*probe];
        output::print(&printer.begin(number, *probe, minor))?;
        let mut here = machine.clone();
        here.clock = machine.clock.saturating_add(BETWEEN_HITS.saturating_mul(number - 1));
        setting.regs.iter().for_each(|value| here.set(value));
        setting.facts.iter().for_each(|fact| here.establish(fact));
        let mut printed = Ok(());
        let mut watch = |step: &Step| {
            if printed.is_ok() {
                printed = output::print(&printer.step(number, step));
            }
        };
        let hit = simulation.hit(*probe, &mut here, args.step.then_some(&mut watch));
        printed?;
        machine.memory = here.memory;
        let occurrence = Occurrence {
            number,
            minor,
            hit: &hit,
        };
        output::print(&printer.hit(&occurrence, &simulation))?;
    }
    output::print(&printer.end(&simulation))
}

/// The machine that the options describe.
fn machine(args: &Run) -> Result<Machine, Error> {
    let mut machine = Machine::default();
    for value in args.regs.iter().flat_map(|regs| &regs.0) {
        machine.set(value);
    }
    for fact in args.task.iter().flat_map(|facts| &facts.0) {
        machine.establish(fact);
    }
    machine.cpu = args.cpu.unwrap_or(machine.cpu);
    for value in args.user.iter().flat_map(|regs| &regs.0) {
        match value.words.as_deref() {
            Some([word]) if value.reg.is_saved() => machine.set_user(value.reg, *word),
            _ => return Err(Error::Run(RunError::NotUser { reg: value.reg })),
        }
    }
    for (number, value) in args.msr.iter().flat_map(|numbered| &numbered.0) {
        machine
            .msrs
            .insert(limited("a model-specific register", *number)?, *value);
    }
    for (port, value) in args.port.iter().flat_map(|numbered| &numbered.0) {
        machine
            .ports
            .insert(limited("a port", *port)?, limited("what a port reads as", *value)?);
    }
    for ((leaf, subleaf), words) in args.cpuid.iter().flat_map(|cpuid| &cpuid.0) {
        machine.cpuid.insert((*leaf, *subleaf), *words);
    }
    machine.kernel_stack = args.kstack.iter().flat_map(|words| &words.0).copied().collect();
    machine.user_stack = args.ustack.iter().flat_map(|words| &words.0).copied().collect();
    for (mapping, access) in args.mappings() {
        let bytes = match &mapping.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::File(path) => std::fs::read(path).map_err(|error| Error::Read {
                path: path.clone(),
                error,
            })?,
        };
        machine
            .memory
            .map(mapping.start, bytes, access)
            .map_err(|error| Error::Run(RunError::Memory(error)))?;
    }
    Ok(machine)
}

/// A number that must be smaller.
fn limited<T: TryFrom<u64>>(what: &'static str, value: u64) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::Run(RunError::Range { what, value }))
}

/// Which probe is hit when, by its index.
fn hits(args: &Run, simulation: &Simulation) -> Result<Vec<(usize, HitSetting)>, Error> {
    let index = |minor: u16| {
        simulation.probe(minor).ok_or_else(|| {
            let known = simulation.probes().iter().map(|probe| probe.minor).collect();
            Error::Run(RunError::NoProbe { minor, known })
        })
    };
    if simulation.probes().is_empty() {
        return Err(Error::Run(RunError::NoProbes));
    }
    if !args.hit.is_empty() {
        return args
            .hit
            .iter()
            .map(|hit| Ok((hit.minor.map_or(Ok(0), index)?, hit.clone())))
            .collect();
    }
    let probes = match args.probe {
        None => 0..1,
        Some(Probes::All) => 0..simulation.probes().len(),
        Some(Probes::Minor(minor)) => {
            let index = index(minor)?;
            index..index + 1
        }
    };
    Ok(probes.map(|probe| (probe, HitSetting::default())).collect())
}

/// How a program ended, in the word of its instruction.
fn ending(end: End) -> &'static str {
    match end {
        End::Exit => "exit",
        End::ExitTo(_) => "exit_to",
        End::Abort => "abort",
        End::Remove => "remove",
        End::Exception { .. } => "exception",
    }
}
