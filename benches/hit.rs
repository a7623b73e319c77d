//! What a hit costs on bare metal, in guest instructions and traps: the engine's own gate, one CPU.
//!
//! For each probe a line `@hit INSTRUCTIONS TRAPS NAME`, which `./x bench` reads.
//!
//! The machine counts instructions (`-icount`): its time-stamp counter moves by one for each, so that the figures are exact and the same
//! on every machine.
#![no_std]
#![no_main]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use bootimage::trap::{self, Action};
use bootimage::{clock, println, symbols};
use test_support::{engine_for, insert, instructions, remove, status};

bootimage::test_main! {
    requires: "cpus=1 icount=0 time_limit_s=120",
    tests: [hits],
}

global_asm!(
    ".globl target_plain",
    ".type target_plain, @function",
    "target_plain:",
    "    push rbx",
    "    mov rbx, rdi",
    "    lea rax, [rbx + 1]",
    "    call target_leaf",
    "    pop rbx",
    "    ret",
    ".size target_plain, . - target_plain",
    ".globl target_leaf",
    ".type target_leaf, @function",
    "target_leaf:",
    "    ret",
    ".size target_leaf, . - target_leaf",
);

unsafe extern "C" {
    fn target_plain(value: u64) -> u64;
}

const CALLS: u64 = 10_000;

/// Instructions for one call of the function, everything included.
fn per_call() -> u64 {
    let start = clock::tsc();
    for value in 0..CALLS {
        // SAFETY: a function of the calling convention.
        unsafe { target_plain(value) };
    }
    (clock::tsc() - start) / CALLS
}

static DEBUG_TRAPS: AtomicU64 = AtomicU64::new(0);

fn hits() {
    trap::set_handler(
        trap::DB,
        Some(|_, _| {
            DEBUG_TRAPS.fetch_add(1, Ordering::Relaxed);
            Action::Resume
        }),
    );
    // #DB stays with the handler above: a second trap would be seen.
    engine_for(&[trap::BP]);
    let places = instructions("target_plain");
    let function = symbols::function_named("target_plain").map_or(0, |function| function.code.start);
    assert_eq!(places[0], function);
    let bare = per_call();
    println!();
    for (what, place) in [
        ("entry, copied (push)", 0),
        ("middle, copied (lea)", 2),
        ("middle, emulated (call)", 3),
    ] {
        insert("entry", &[places[place]]).expect("a place that can be probed");
        let probed = per_call();
        let hit = status(2, 1);
        remove(2);
        assert_eq!(hit.hits, CALLS);
        // Each #BP was one hit.
        let traps = (hit.hits + DEBUG_TRAPS.swap(0, Ordering::Relaxed)) / CALLS;
        println!("@hit {} {traps} {what}", probed - bare);
    }
}
