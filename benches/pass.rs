//! What passing a hook costs in the test kernel, in guest instructions: counters relative to GS, exits entered directly.
//!
//! For each row a line `@pass INSTRUCTIONS NAME`, for a thousand passes, which `./x bench hooks` reads. As in `hit.rs` the machine counts instructions.
#![no_std]
#![no_main]

use bootimage::{clock, hooks, println};
use gkhi::{Exit, ExitWith, Flow, Verdict, fire, hook};

bootimage::test_main! {
    requires: "cpus=1 icount=0 time_limit_s=120",
    tests: [passes],
}

hook! {
    static NORMAL: fn(value: u64, sum: &mut u64) = "bench_normal";
    static EMPTY: fn() = "bench_empty";
    static RETURNING: fn(value: u64, sum: &mut u64) -> u64 = "bench_returning";
    static GENERIC: generic fn(value: u64, sum: &mut u64) = "bench_generic";
}

macro_rules! pass {
    (@) => {};
    (@ $($site:tt)+) => { fire!($($site)+) };
    (|$value:ident, $sum:ident| $($name:ident($($site:tt)*))*) => {$(
        #[inline(never)]
        #[unsafe(no_mangle)]
        fn $name($value: u64, $sum: &mut u64) -> u64 {
            *$sum += $value;
            pass!(@ $($site)*);
            $value ^ *$sum
        }
    )*};
}
pass! {
    |value, sum|
    pass_without()
    pass_normal(NORMAL, value, sum)
    pass_empty(EMPTY)
    pass_returning(return RETURNING, value, sum)
    pass_generic(generic GENERIC, value, sum)
}

/// An exit of which only the return is left.
macro_rules! exits {
    ($($name:ident = $text:literal;)*) => {$(
        static $name: ExitWith<()> = NORMAL::exit($text, (), |(), _, _| Flow::Continue);
    )*};
}
exits! {
    EXIT_1 = c"exit_1";
    EXIT_2 = c"exit_2";
    EXIT_3 = c"exit_3";
    EXIT_4 = c"exit_4";
    EXIT_5 = c"exit_5";
    EXIT_6 = c"exit_6";
    EXIT_7 = c"exit_7";
    EXIT_8 = c"exit_8";
}
static PLAIN: ExitWith<()> = EMPTY::exit(c"plain", (), |()| Flow::Continue);
static ANSWER: ExitWith<()> = RETURNING::exit(c"answer", (), |(), _, _| Verdict::Continue);
static FLAGGED: ExitWith<()> = GENERIC::exit(c"flagged", (), |(), _, _| Flow::Continue);

const PASSES: u64 = 1_000;

/// Instructions for so many calls of the function.
fn measure(function: fn(u64, &mut u64) -> u64) -> u64 {
    let mut sum = 0;
    let begun = clock::tsc();
    for value in 0..PASSES {
        core::hint::black_box(function(value, &mut sum));
    }
    clock::tsc() - begun
}

/// One row: with these exits armed, how much more than without a hook.
fn row(name: &str, function: fn(u64, &mut u64) -> u64, exits: &[&'static Exit]) {
    for exit in exits {
        hooks::registry().register(exit).expect("an exit that fits");
    }
    hooks::registry().arm(exits).expect("sites that can be patched");
    let more = measure(function) - measure(pass_without);
    hooks::registry().disarm(exits).expect("armed before");
    for exit in exits {
        let calls = hooks::registry().deregister(exit);
        assert_eq!(calls, Ok(PASSES));
    }
    println!("@pass {more} {name}");
}

fn passes() {
    let all: [&'static Exit; 8] = [&EXIT_1, &EXIT_2, &EXIT_3, &EXIT_4, &EXIT_5, &EXIT_6, &EXIT_7, &EXIT_8];
    println!();
    row("dormant", pass_normal, &[]);
    row("dormant, returning", pass_returning, &[]);
    row("dormant, generic", pass_generic, &[]);
    row("one exit, no arguments", pass_empty, &[&PLAIN]);
    row("one exit", pass_normal, &all[..1]);
    row("one exit, returning", pass_returning, &[&ANSWER]);
    row("one exit, generic", pass_generic, &[&FLAGGED]);
    row("two exits", pass_normal, &all[..2]);
    row("eight exits", pass_normal, &all);
}
