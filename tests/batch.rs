//! Very many probes as one transaction, hit by four CPUs.
//!
//! On the command line `probes=50000` says how many; an ordinary run has fewer, because the debug build takes a minute for so many. Linux's test of this
//! name always has them.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::global_asm;

use bootimage::{heap, println, smp, symbols};
use engine::probe::{InsertError, PointError};
use engine::wire::ProbeStatus;
use test_support::{engine, instructions, option, program_at, remove};

bootimage::test_main! {
    requires: "cpus=4 memory_mib=512 time_limit_s=300",
    tests: [
        every_hit_is_counted,
        two_programs_share_them,
        one_that_is_refused_leaves_nothing,
    ],
}

/// How many probes are one batch in an ordinary run.
const PROBES: u64 = 10_000;

/// How many are one where what is tested does not depend on their number.
const FEWER: usize = 5_000;

/// How many functions there are to be probed, of 1002 instructions each.
const FUNCTIONS: usize = 50;

/// What each of them adds to its argument.
const ADDED: u64 = 1000;

// A hundred times ten instructions, which add ten. The branches are emulated, the others copied, one with an operand relative to RIP.
global_asm!(
    ".macro batch_function",
    ".balign 16",
    ".type target_batch_\\@, @function",
    "target_batch_\\@:",
    "    lea rax, [rdi]",
    "    .rept 100",
    "    add rax, 4",
    "    push rax",
    "    lea rcx, [rip + batch_word]",
    "    jmp 1f",
    "1:  cmp byte ptr [rcx], 0",
    "    pop rdx",
    "    test rdx, rdx",
    "    jz 2f",
    "    lea rax, [rdx + 6]",
    "2:  nop",
    "    .endr",
    "    ret",
    ".size target_batch_\\@, . - target_batch_\\@",
    ".endm",
    ".rept {functions}",
    "    batch_function",
    ".endr",
    ".globl batch_end",
    "batch_end:",
    ".pushsection .rodata.batch, \"a\"",
    "batch_word: .quad 0",
    ".popsection",
    functions = const FUNCTIONS,
);

unsafe extern "C" {
    /// Behind the functions. Nothing else here refers to their section, which the linker would otherwise leave out.
    safe static batch_end: u8;
}

/// The functions.
fn functions() -> Vec<&'static symbols::Function> {
    let end = &raw const batch_end as u64;
    let ours = |function: &&symbols::Function| function.name.starts_with("target_batch_") && function.code.end <= end;
    let functions = Vec::from_iter(symbols::functions().iter().filter(ours));
    assert_eq!(functions.len(), FUNCTIONS);
    functions
}

/// So many of their instructions. To be asked before there are probes in them.
fn addresses(probes: usize) -> Vec<u64> {
    let mut addresses = Vec::from_iter(functions().iter().flat_map(|function| instructions(function.name)));
    assert!(addresses.len() >= probes);
    addresses.truncate(probes);
    addresses
}

/// Runs each of the functions once.
fn pass(functions: &[&symbols::Function]) {
    for (argument, function) in (1..).zip(functions) {
        let start = core::ptr::with_exposed_provenance::<()>(function.code.start as usize);
        // SAFETY: a function of the assembly code above, which uses scratch registers and its stack.
        let function = unsafe { core::mem::transmute::<*const (), extern "C" fn(u64) -> u64>(start) };
        assert_eq!(function(argument), argument + ADDED);
    }
}

/// The state of every probe.
fn states() -> Vec<ProbeStatus> {
    let mut states = Vec::new();
    engine().query(&mut |status| states.push(*status));
    states
}

/// The program counts its hits in a variable, too.
fn variable() -> u64 {
    let mut value = [0];
    engine().locals(b"kernel", 1, &mut value).expect("the program is there");
    value[0]
}

fn every_hit_is_counted() {
    let probes = option("probes").unwrap_or(PROBES) as usize;
    let (addresses, functions) = (addresses(probes), functions());
    let (before, _) = heap::usage();
    engine().insert(&program_at("count", &addresses)).unwrap();
    let (after, _) = heap::usage();
    println!("{probes} probes: {} KiB of heap", (after - before) / 1024);
    smp::run_on_all(|_| pass(&functions));
    let expected = smp::cpu_count() as u64;
    assert_eq!(variable(), expected * probes as u64);
    let last = remove(1);
    assert_eq!(last.len(), probes);
    for (status, address) in last.iter().zip(&addresses) {
        assert_eq!((status.address, status.hits), (*address, expected), "{status:?}");
        assert_eq!((status.missed, status.faulted, status.late), (0, 0, 0), "{status:?}");
    }
    smp::run_on_all(|_| pass(&functions));
    assert!(states().is_empty());
}

fn two_programs_share_them() {
    let (addresses, functions) = (addresses(FEWER), functions());
    let cpus = smp::cpu_count() as u64;
    engine().insert(&program_at("count", &addresses)).unwrap();
    engine().insert(&program_at("every1", &addresses)).unwrap();
    smp::run_on_all(|_| pass(&functions));
    let first = remove(1);
    smp::run_on_all(|_| pass(&functions));
    let second = remove(100);
    assert_eq!((first.len(), second.len()), (FEWER, FEWER));
    assert!(first.iter().all(|status| status.hits == cpus));
    assert!(second.iter().all(|status| status.hits == 2 * cpus));
}

fn one_that_is_refused_leaves_nothing() {
    let mut addresses = addresses(FEWER);
    let object = program_at("count", &addresses);
    // Twice, so that all tables have the size that they need.
    for _ in 0..2 {
        engine().insert(&object).unwrap();
        remove(1);
    }
    let used = || heap::usage().0;
    let boundary = addresses[7];
    addresses.push(boundary + 1);
    let object = program_at("count", &addresses);
    let before = used();
    for _ in 0..3 {
        match engine().insert(&object) {
            Err(InsertError::Point {
                point: FEWER,
                error: PointError::NotBoundary { instruction, .. },
                ..
            }) => assert_eq!(instruction, boundary),
            other => panic!("{other:?}"),
        }
        assert!(states().is_empty());
        assert_eq!(used(), before);
    }
    smp::run_on_all(|_| pass(&functions()));
    // As many probes as before still have their slots.
    addresses.pop();
    engine().insert(&program_at("count", &addresses)).unwrap();
    assert_eq!(remove(1).len(), FEWER);
}
