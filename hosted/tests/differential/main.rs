//! The CPU against itself: random instructions, run bare and then with a probe on each of them. Registers, flags, vector
//! registers, memory and signals must be the same.
//!
//! `DPROBES_DIFFERENTIAL_BLOCKS` and `DPROBES_DIFFERENTIAL_SEED` change how much is run and what; the seed of a failure is in
//! its message. `DPROBES_DIFFERENTIAL_SHOW=1` prints each block before it runs.

mod arena;
mod generate;
mod random;
mod run;

use std::env;

use dprobes::probe::{InsertError, PointError};
use hosted::{AlternateStack, Installed, Process};

use arena::Arena;
use generate::Block;
use random::Random;
use run::{Outcome, State};

/// Blocks in an ordinary test run.
const BLOCKS: u64 = 3_000;

fn setting(name: &str, default: u64) -> u64 {
    let parse = |text: String| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
    };
    env::var(name).map_or(default, parse)
}

#[test]
fn probed_instructions_do_what_bare_ones_do() {
    let first = setting("DPROBES_DIFFERENTIAL_SEED", 1);
    let count = setting("DPROBES_DIFFERENTIAL_BLOCKS", BLOCKS);
    let show = env::var_os("DPROBES_DIFFERENTIAL_SHOW").is_some();

    let _stack = AlternateStack::new().unwrap();
    let _handlers = run::Handlers::install();
    let mut arena = Arena::new();
    let engine = hosted::install(Process::new().unwrap().on_alternate_stack()).unwrap();
    engine.host().register_code("block", arena.code());
    let mut tally = Tally::default();
    for seed in first..first + count {
        let mut random = Random::new(seed);
        let block = Block::generate(&mut random, &arena);
        if show {
            eprintln!("seed {seed}\n{block}");
        }
        compare(&engine, &mut arena, &block, seed, &mut random, &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.completed > count / 20, "{tally:?}");
    assert!(tally.faulted > count / 20, "{tally:?}");
}

#[derive(Debug, Default)]
struct Tally {
    /// Blocks that ran to their end.
    completed: u64,
    /// Blocks that an instruction of theirs ended with a signal.
    faulted: u64,
    /// Blocks that set TF: the process single-steps itself.
    traced: u64,
    /// Instructions with a probe.
    probed: u64,
    /// Hits.
    hits: u64,
    /// Instructions that the engine refuses.
    refused: u64,
}

fn compare(engine: &Installed, arena: &mut Arena, block: &Block, seed: u64, random: &mut Random, tally: &mut Tally) {
    let state = State::random(random, arena);
    let memory = arena.random_memory(random);
    arena.write_code(&block.bytes);
    let mut once = || {
        arena.set_memory(&memory);
        let outcome = run::run(&state, arena.code().start);
        (outcome, arena.memory())
    };
    let bare = once();
    if let Outcome::Signal(signal) = &bare.0
        && signal.number == libc::SIGTRAP
    {
        tally.traced += 1;
        return;
    }
    if !probe_every_instruction(engine, block, tally) {
        return;
    }
    let probed = once();
    engine
        .remove(b"block", 1, &mut |probe| {
            tally.hits += probe.hits;
            assert_eq!(probe.missed, 0);
        })
        .unwrap();
    match bare.0 {
        Outcome::End(_) => tally.completed += 1,
        Outcome::Signal(_) => tally.faulted += 1,
    }
    let bytes: Vec<String> = block.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(
        bare.0 == probed.0,
        "seed {seed}\n{block}{}\nbefore {state:#x?}\nbare {:#x?}\nprobed {:#x?}",
        bytes.join(" "),
        bare.0,
        probed.0
    );
    if let Some(at) = bare.1.iter().zip(&probed.1).position(|(bare, probed)| bare != probed) {
        let (bare, probed) = (bare.1[at], probed.1[at]);
        panic!("seed {seed}\n{block}memory at {at:#x}: bare {bare:#x}, probed {probed:#x}\nbefore {state:#x?}");
    }
}

/// Inserts one program with a probe on each instruction but those that are refused for what they are; false when that is all of
/// them.
fn probe_every_instruction(engine: &Installed, block: &Block, tally: &mut Tally) -> bool {
    let mut offsets = block.offsets.clone();
    while !offsets.is_empty() {
        let point = |offset: &usize| format!("offset = {offset}\nminor = 1\ninc lv, a\nabort\n");
        let points: String = offsets.iter().map(point).collect();
        let text = format!("name = \"block\"\nmodtype = kmod\nmajor = 1\nvars = a\n{points}");
        let program = rpn_asm::assemble("block.rpn", &text, &rpn_asm::Options::default()).unwrap();
        match engine.insert(&program.object) {
            Ok(()) => {
                tally.probed += offsets.len() as u64;
                return true;
            }
            Err(InsertError::Point {
                point,
                error: PointError::Instruction { .. },
                ..
            }) => {
                tally.refused += 1;
                offsets.remove(point);
            }
            // `endbr64` at the start: its probe goes to the next instruction.
            Err(InsertError::Point {
                error: PointError::Twice,
                ..
            }) => {
                offsets.remove(0);
            }
            Err(error) => panic!("{error:?}\n{block}"),
        }
    }
    false
}
