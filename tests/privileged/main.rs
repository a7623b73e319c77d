//! Random blocks of privileged instructions in ring 0, run bare and then with a probe on each instruction: registers, flags,
//! control, debug and segment registers, descriptor tables, MSRs, memory, and the exception with all that comes with it must be the same.
//!
//! A block is determined by its seed. One that was not the same is shown as bytes.
#![no_std]
#![no_main]

extern crate alloc;

mod generate;
mod run;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bootimage::trap;
use bootimage::{memory, println, symbols};
use engine::insn::Insn;
use engine::probe::{InsertError, PointError};
use test_support::{engine, engine_for, program, remove};

use generate::Block;
use run::{Outcome, Runner};

bootimage::test_main! {
    requires: "time_limit_s=240",
    tests: [privileged_instructions_do_what_they_do_bare],
}

/// Blocks of each test.
const BLOCKS: u64 = 700;
/// Runs of each block, with different registers.
const RUNS: u64 = 2;

/// All that a copied instruction may raise.
const VECTORS: &[u8] = &[0, 1, 3, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19];

#[derive(Default, Debug)]
struct Tally {
    completed: u64,
    /// Blocks that each exception ended.
    raised: [u64; 32],
    probes: u64,
    hits: u64,
    faulted: u64,
    /// Instructions that the engine refuses, by name.
    refused: Vec<(String, u64)>,
}

impl Tally {
    fn refuse(&mut self, why: String) {
        match self.refused.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            None => self.refused.push((why, 1)),
        }
    }
}

/// Where blocks run: a function that is there to be overwritten.
fn place() -> u64 {
    symbols::function_named("target_block")
        .expect("a function for blocks")
        .code
        .start
}

/// Probes on these addresses, but for those that are refused; false when none is left.
fn probe(mut places: Vec<u64>, tally: &mut Tally) -> bool {
    while !places.is_empty() {
        match engine().insert(&program(&format!("every{}", places.len()), &places)) {
            Ok(()) => {
                tally.probes += places.len() as u64;
                return true;
            }
            Err(InsertError::Point {
                point,
                error: PointError::Instruction { refusal, .. },
                ..
            }) => {
                tally.refuse(format!("{refusal:?}"));
                places.remove(point);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    false
}

fn compare(seed: u64, runner: &mut Runner, tally: &mut Tally) {
    let block = Block::generate(seed);
    let code = block.code(run::leave());
    // SAFETY: a function of this test's own, which nobody runs meanwhile.
    unsafe { memory::write_text([(place(), &code[..])].into_iter()) }.expect("text");
    let run_all =
        |runner: &mut Runner| -> Vec<Outcome> { (0..RUNS).map(|run| runner.run(seed, run, place())).collect() };
    let bare = run_all(runner);
    let mut places: Vec<u64> = Vec::new();
    for (at, bytes) in block.offsets().zip(&block.instructions) {
        match Insn::decode(bytes).map(|insn| insn.resume()) {
            // That of an `endbr64` at the start would go to the next one.
            Ok(Ok(_)) if at == 0 && bytes.starts_with(&[0xf3, 0x0f, 0x1e]) => {}
            Ok(Ok(_)) => places.push(place() + at as u64),
            Ok(Err(refusal)) => tally.refuse(format!("{refusal:?}")),
            Err(error) => panic!("{bytes:02x?}: {error}"),
        }
    }
    let is_probed = probe(places, tally);
    let probed = run_all(runner);
    if is_probed {
        for status in remove(100) {
            tally.hits += status.hits;
            tally.faulted += status.faulted;
            assert_eq!((status.missed, status.late), (0, 0), "{status:?}");
        }
    }
    for (run, (bare, probed)) in bare.iter().zip(&probed).enumerate() {
        match bare.exception {
            None => tally.completed += 1,
            Some(exception) => tally.raised[usize::from(exception.vector) % 32] += 1,
        }
        if bare == probed {
            continue;
        }
        println!("\nseed {seed}, run {run}: bare {bare:#x?}\nprobed {probed:#x?}");
        for (at, bytes) in block.offsets().zip(&block.instructions) {
            println!("{:#x} {bytes:02x?}", place() + at as u64);
        }
        panic!("not the same");
    }
}

fn campaign(first: u64) -> Tally {
    engine_for(VECTORS);
    let mut runner = Runner::new();
    let mut tally = Tally::default();
    for seed in first..first + BLOCKS {
        compare(seed, &mut runner, &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.completed > BLOCKS / 4, "few blocks complete");
    assert!(tally.hits > 4 * BLOCKS, "few instructions are hit");
    tally
}

fn privileged_instructions_do_what_they_do_bare() {
    let tally = campaign(1);
    // QEMU's translator has no #SS for an address that is not canonical, but #GP.
    for vector in [trap::DE, trap::DB, trap::UD, 7, trap::GP, trap::PF] {
        assert!(
            tally.raised[usize::from(vector)] > 0,
            "vector {vector} was never raised"
        );
    }
}
