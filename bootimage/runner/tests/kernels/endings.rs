//! A kernel that ends in every way there is, as the command line says. The runner's tests boot it.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use core::arch::asm;
use core::hint::{black_box, spin_loop};

use bootimage::exit::{Verdict, exit};
use bootimage::harness::{Test, run_tests};
use bootimage::info::boot_info;
use bootimage::{NoAlloc, println, smp};
use x86_64::instructions::port::Port;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

bootimage::main!(main);

const TESTS: &[Test] = &[
    ("passes", || {}),
    ("fails", || assert_eq!(black_box(1) + 1, 3, "as it should")),
    ("fails_on_another_cpu", || smp::run_on(1, || panic!("not here"))),
    ("traps", invalid_opcode),
    ("overflows_the_stack", || assert_ne!(recurse(black_box(1)), 0)),
    ("allocates_where_forbidden", || {
        let _no_alloc = NoAlloc::new();
        black_box(Box::new(1_u64));
    }),
    ("hangs", hang),
    ("triple_faults", triple_fault),
];

fn main() -> ! {
    match boot_info().command_line() {
        "no_test_panics" => panic!("outside any test"),
        "no_test_traps" => invalid_opcode(),
        "no_test_runs" => println!("not a word about tests"),
        "no_test_says_anything" => {}
        "no_test_resets" => reset(),
        _ => run_tests(TESTS),
    }
    exit(Verdict::Passed)
}

fn invalid_opcode() {
    // SAFETY: nobody handles #UD, so this is the end.
    unsafe { asm!("ud2") };
}

fn recurse(depth: u64) -> u64 {
    if depth == 0 {
        return 0;
    }
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[0]
}

fn hang() {
    loop {
        spin_loop();
    }
}

fn triple_fault() {
    let empty = DescriptorTablePointer {
        limit: 0,
        base: x86_64::VirtAddr::zero(),
    };
    // SAFETY: no exception can be delivered any more: the next one, and then #DF, end in a shutdown. That is what is wanted.
    unsafe {
        lidt(&empty);
        asm!("ud2");
    }
}

fn reset() {
    // SAFETY: the reset control register of a PC's chip set: a hard reset.
    unsafe { Port::<u8>::new(0xcf9).write(0x06) };
    hang();
}
