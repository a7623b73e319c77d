//! Times probe programs beside the same programs in eBPF, run by rbpf's interpreter and compiled by its JIT.
//!
//! Every program is run once in each machine, and what it left behind is compared, before anything is timed. Then the machines take turns
//! many times over, so that whatever else the computer does meets all of them alike.

#![warn(missing_docs)]

mod ebpf;
mod ground;
mod measure;
mod programs;
mod report;
mod rpn;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::measure::Contender;
use crate::programs::{PROGRAMS, Program};
use crate::report::Row;

/// Time probe programs beside the same programs in eBPF
#[derive(Parser)]
struct Arguments {
    /// One JSON object a line
    #[arg(long)]
    json: bool,

    /// How many turns each machine takes
    #[arg(long, default_value_t = 201, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How long a turn lasts, in microseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    turn: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let turn = Duration::from_micros(arguments.turn);
    if !arguments.json {
        report::head();
    }
    for program in PROGRAMS {
        let rows = compare(program, arguments.rounds, turn)?;
        report::show(program, &rows, arguments.json);
    }
    Ok(())
}

/// Checks that a program does the same in all machines, then times it in each.
fn compare(program: &Program, rounds: u32, turn: Duration) -> Result<Vec<Row>> {
    let mut interpreter = rpn::Interpreter::new(program)?;
    let expected = interpreter.observe()?;
    (program.expect)(&expected)?;

    let code = ebpf::assemble(program.ebpf)?;
    let mut theirs = ebpf::Interpreter::new(&code, program)?;
    let mut compiled = ebpf::Compiled::new(&code, program)?;
    for (machine, observed) in [("interpreter", theirs.observe()?), ("JIT", compiled.observe()?)] {
        ensure!(
            observed == expected,
            "{} in rbpf's {machine} left {observed:?} behind, not {expected:?}",
            program.name
        );
    }

    let samples = measure::in_turns(
        &mut [&mut interpreter as &mut dyn Contender, &mut theirs, &mut compiled],
        rounds,
        turn,
    );
    let (ours, theirs) = (rpn::count(program)?, ebpf::count(program)?);
    let rows = [("rpn", ours), ("rbpf interpreter", theirs), ("rbpf JIT", theirs)];
    Ok(rows
        .into_iter()
        .zip(&samples)
        .map(|((machine, executes), own)| Row::new(machine, executes, own, &samples[0]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_does_the_same_in_all_machines() {
        for program in PROGRAMS {
            let rows = compare(program, 1, Duration::from_nanos(1)).unwrap();
            assert_eq!(rows.len(), 3, "{}", program.name);
        }
    }
}
