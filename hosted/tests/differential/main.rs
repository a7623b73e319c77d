//! The CPU against itself: instructions run bare and then with a probe on each of them. Registers, flags, vector and x87
//! registers, segments, memory and signals must be the same. What cannot be is in [`exempt`].
//!
//! An ordinary run tries each kind of instruction that this CPU has, a slice of random blocks, and the cases in `cases/`. `./x fuzz
//! insn` runs the [`campaign`].

mod arena;
mod batch;
mod block;
mod case;
mod coverage;
mod cpu;
mod exempt;
mod generate;
mod minimise;
mod opcode;
mod random;
mod run;
mod state;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use iced_x86::Code;

use batch::{Bench, Case, Difference};
use block::Block;
use random::Random;
use state::Start;

/// Starts of each block.
const STARTS: u64 = 4;
/// Blocks in the slice of an ordinary run.
const SLICE: u64 = 3_000;
/// Blocks for each kind of instruction, in an ordinary run.
const BLOCKS_OF_KIND: u64 = 4;
/// How often kinds that have not completed are tried again, with more blocks each time.
const ROUNDS: u64 = 24;

/// Cases that a campaign writes, at most.
const WRITTEN: u64 = 20;

/// A process has one set of signal handlers: tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cases_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/cases")
}

fn random_case(seed: u64, at: usize, bench_start: &arena::Arena) -> Case {
    let mut random = Random::new(seed);
    let block = generate::block(&mut random, at);
    let starts = (0..STARTS).map(|_| Start::random(&mut random, bench_start)).collect();
    Case { block, starts }
}

/// Minimises a difference; none is left when the block reads where breakpoints are, which a trace of the whole block may not show: one
/// that changes TF is traced in part only.
fn least(bench: &mut Bench, found: &Difference) -> Option<(Difference, bool)> {
    let (least, reproduced) = minimise::minimise(bench, found);
    if bench.reads_code(&least.block, &least.start) {
        bench.tally.reads_code += 1;
        return None;
    }
    let last = least.block.instructions.last()?;
    if exempt::loses_a_step(&block::decode(last, 0)) {
        let [bare, probed] = bench.compare_one(&least.block, &least.start, &|_| true);
        if [bare, probed]
            .iter()
            .any(|run| run.0.state.flags & 1 << 8 != 0 || run.0.signal.is_some_and(is_step))
        {
            bench.tally.lost_steps += 1;
            return None;
        }
    }
    Some((least, reproduced))
}

fn is_step(signal: run::Signal) -> bool {
    signal.number == libc::SIGTRAP && signal.code == libc::TRAP_TRACE
}

/// Says all that is known of a difference.
fn explain(bench: &mut Bench, least: &Difference, reproduced: bool) -> String {
    let [bare, probed] = bench.compare_one(&least.block, &least.start, &|_| true);
    let culprits = minimise::culprits(bench, least);
    let differing = |what: &str, bare: &[u8], probed: &[u8]| {
        let at = bare.iter().zip(probed).position(|(bare, probed)| bare != probed);
        at.map_or(String::new(), |at| {
            format!("{what} at {at:#x}: bare {:02x}, probed {:02x}\n", bare[at], probed[at])
        })
    };
    format!(
        "{}bare   {:?}probed {:?}{}{}probes that matter, each alone: {culprits:x?}\n",
        if reproduced {
            ""
        } else {
            "seen once, in its batch only:\n"
        },
        bare.0,
        probed.0,
        differing("memory", &bare.1, &probed.1),
        differing("x87 and vector state", &bare.0.state.extended, &probed.0.state.extended),
    )
}

fn fail(bench: &mut Bench, differences: &[Difference]) {
    let mut shown = Vec::new();
    for found in differences {
        if let Some((least, reproduced)) = least(bench, found) {
            let case = case::format(&least.block, &least.start, &bench.arena);
            shown.push(format!("{}{case}", explain(bench, &least, reproduced)));
        }
    }
    let count = shown.len();
    shown.truncate(5);
    assert!(count == 0, "{count} differences\n{}", shown.join("\n"));
}

#[test]
fn cases_are_the_same() {
    let _turn = turn();
    let mut bench = Bench::new();
    let mut count = 0;
    for entry in fs::read_dir(cases_folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "case") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let (block, start) =
            case::parse(&text, &bench.arena).unwrap_or_else(|what| panic!("{}: {what}", path.display()));
        let difference = Difference { block, start };
        let [bare, probed] = bench.compare_one(&difference.block, &difference.start, &|_| true);
        assert!(
            bare == probed,
            "{}\n{}",
            path.display(),
            explain(&mut bench, &difference, true)
        );
        count += 1;
    }
    assert!(count > 0, "the cases are not where they should be");
}

#[test]
fn a_case_survives_a_file() {
    let _turn = turn();
    let bench = Bench::new();
    for seed in 0..200 {
        let Case { block, starts } = random_case(seed, 0x123, &bench.arena);
        let text = case::format(&block, &starts[0], &bench.arena);
        let (read, start) = case::parse(&text, &bench.arena).unwrap();
        assert!(read == block && start == starts[0], "{text}");
    }
}

/// Blocks with one instruction of each kind, a few for each; then more for those that have not completed yet.
fn run_every_kind(bench: &mut Bench, seed: u64) -> Vec<Difference> {
    let mut random = Random::new(seed);
    let mut kinds = generate::runnable().to_vec();
    kinds.push(Code::Syscall);
    let mut differences = Vec::new();
    for round in 0..ROUNDS {
        let blocks = if round == 0 { BLOCKS_OF_KIND } else { round };
        let mut wanted = (0..blocks).flat_map(|_| kinds.iter().copied());
        loop {
            let cases = batch::pack(|at| {
                let block: Block = wanted.find_map(|code| generate::block_of(&mut random, at, code))?;
                let starts = (0..STARTS).map(|_| Start::random(&mut random, &bench.arena)).collect();
                Some(Case { block, starts })
            });
            if cases.is_empty() {
                break;
            }
            differences.extend(bench.compare(&cases));
        }
        let sorts = bench.coverage.sort();
        kinds = [sorts.missed, sorts.incomplete].concat();
    }
    differences
}

#[test]
fn every_kind_of_instruction_does_what_it_does_bare() {
    let _turn = turn();
    let mut bench = Bench::new();
    let differences = run_every_kind(&mut bench, 1);
    fail(&mut bench, &differences);
    let sorts = bench.coverage.sort();
    println!("{sorts}refused: {:?}\n{:?}", bench.coverage.refusals, bench.tally);
    assert!(sorts.missed.is_empty(), "{:?}", sorts.missed);
    assert!(sorts.incomplete.is_empty(), "{:?}", sorts.incomplete);
    assert!(sorts.not_found.is_empty(), "{:?}", sorts.not_found);
    // What every CPU has that runs these tests; far more with AVX-512.
    assert!(sorts.completed.len() > 1000, "{}", sorts.completed.len());
}

#[test]
fn random_blocks_do_what_they_do_bare() {
    let _turn = turn();
    let mut bench = Bench::new();
    let (mut seed, mut differences) = (1, Vec::new());
    while seed <= SLICE {
        let cases = batch::pack(|at| {
            seed += 1;
            (seed <= SLICE + 1).then(|| random_case(seed - 1, at, &bench.arena))
        });
        differences.extend(bench.compare(&cases));
    }
    println!("{:?}", bench.tally);
    fail(&mut bench, &differences);
    let tally = &bench.tally;
    assert!(tally.completed > SLICE / 4 && tally.raised > SLICE / 4, "{tally:?}");
    assert!(tally.executed() > 5 * SLICE, "{tally:?}");
}

fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

/// Runs until so many instructions have been executed with a probe, or so many seconds have passed. The blocks of a seed are the same
/// each time. The last block that was begun is in the file `DPROBES_INSN_LAST`, should the process not survive it.
#[test]
#[ignore = "long; `./x fuzz insn` runs it"]
fn campaign() {
    let _turn = turn();
    let count = setting("DPROBES_INSN_COUNT").unwrap_or(10_000_000);
    let seconds = setting("DPROBES_INSN_SECONDS").unwrap_or(u64::MAX);
    let first = setting("DPROBES_INSN_SEED").unwrap_or(1);
    let blocks = setting("DPROBES_INSN_BLOCKS").unwrap_or(u64::MAX);
    let folder = env::var_os("DPROBES_INSN_CASES").map_or_else(cases_folder, PathBuf::from);
    let last = env::var_os("DPROBES_INSN_LAST").map(PathBuf::from);
    let (mut bench, begun) = (Bench::new(), Instant::now());
    let mut seed = first;
    let mut differences = 0;
    let mut note = |bench: &mut Bench, found: Vec<Difference>, seed: u64| {
        for found in found {
            let Some((least, reproduced)) = least(bench, &found) else {
                continue;
            };
            differences += 1;
            if differences <= WRITTEN {
                let explained = explain(bench, &least, reproduced);
                let path = folder.join(format!("found-{seed}-{differences}.case"));
                let comment: String = explained.lines().map(|line| format!("# {line}\n")).collect();
                let case = case::format(&least.block, &least.start, &bench.arena);
                fs::write(&path, format!("{comment}{case}")).unwrap();
                println!("DIFFERENCE, written to {}\n{explained}{case}", path.display());
            }
        }
        differences
    };
    if blocks == u64::MAX {
        let found = run_every_kind(&mut bench, first);
        note(&mut bench, found, first);
    }
    let end = first.saturating_add(blocks);
    while seed < end && bench.tally.executed() < count && begun.elapsed() < Duration::from_secs(seconds) {
        let from = seed;
        let cases = batch::pack(|at| {
            (seed < end).then(|| {
                seed += 1;
                random_case(seed - 1, at, &bench.arena)
            })
        });
        if let Some(last) = &last {
            fs::write(last, format!("{from} {}\n", seed - from)).unwrap();
        }
        let found = bench.compare(&cases);
        let differences = note(&mut bench, found, from);
        let (executed, time) = (bench.tally.executed(), begun.elapsed().as_secs_f64());
        println!(
            "{executed} instructions, {:.0} a second, seed {seed}, {differences} differences",
            executed as f64 / time
        );
    }
    let differences = note(&mut bench, Vec::new(), seed);
    print!("{}", bench.coverage.sort());
    println!("refused: {:?}", bench.coverage.refusals);
    println!(
        "{:?}\n{} instructions in {:.1} s, {differences} differences, next seed {seed}",
        bench.tally,
        bench.tally.executed(),
        begun.elapsed().as_secs_f64()
    );
    assert!(differences == 0, "{differences} differences");
}
