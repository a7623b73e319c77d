//! Functions with sites, compiled with and without hooks by `tests/dormant.rs`. Each `extern "C"` function is one shape.
#![crate_type = "lib"]
#![no_std]

use gkhi::{fire, hook};

hook! {
    pub static NONE: fn() = "none";
    pub static ONE: fn(a: u64) = "one";
    pub static TWO: fn(a: u64, b: u64) = "two";
    pub static FIVE: fn(a: u64, b: u64, c: u64, d: u64, e: u64) = "five";
    pub static EIGHT: fn(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) = "eight";
    pub static CHANGE: fn(a: &mut u64) = "change";
    pub static ASK: fn(a: u64) -> u64 = "ask";
    pub static ASK_TWO: fn(a: u64, b: u64) -> u64 = "ask_two";
}

type Other = extern "C" fn(u64) -> u64;

#[unsafe(no_mangle)]
pub extern "C" fn nothing() {
    fire!(NONE);
}

#[unsafe(no_mangle)]
pub extern "C" fn leaf(a: u64, b: u64) -> u64 {
    fire!(ONE, b);
    a.wrapping_mul(b) ^ (a >> 3)
}

#[unsafe(no_mangle)]
pub extern "C" fn leaf_two(a: u64, b: u64) -> u64 {
    fire!(TWO, a, b);
    a.wrapping_mul(b) ^ (a >> 3)
}

#[unsafe(no_mangle)]
pub extern "C" fn leaf_five(a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
    fire!(FIVE, a, b, c, d, e);
    a ^ b ^ c ^ d ^ e
}

#[unsafe(no_mangle)]
pub extern "C" fn between_calls(a: u64, other: Other) -> u64 {
    let b = other(a);
    fire!(ONE, b);
    other(b).wrapping_add(a)
}

#[unsafe(no_mangle)]
pub extern "C" fn two_between_calls(a: u64, other: Other) -> u64 {
    let b = other(a);
    fire!(TWO, b, a);
    other(b).wrapping_add(a)
}

#[unsafe(no_mangle)]
pub extern "C" fn eight_between_calls(a: u64, other: Other) -> u64 {
    let b = other(a);
    fire!(EIGHT, a, b, 1, 2, 3, 4, 5, 6);
    other(b).wrapping_add(a)
}

#[unsafe(no_mangle)]
pub extern "C" fn computed_for_the_hook(a: u64, other: Other) -> u64 {
    let b = other(a);
    fire!(ONE, (a ^ b).rotate_left(7).wrapping_mul(31));
    other(b).wrapping_add(a)
}

#[unsafe(no_mangle)]
pub extern "C" fn by_reference(a: u64, other: Other) -> u64 {
    let mut b = other(a);
    fire!(CHANGE, ref b);
    other(b)
}

#[unsafe(no_mangle)]
pub extern "C" fn by_reference_in_a_leaf(a: u64, mut b: u64) -> u64 {
    fire!(CHANGE, ref b);
    a ^ b
}

#[unsafe(no_mangle)]
pub extern "C" fn returning(a: u64, other: Other) -> u64 {
    fire!(return ASK, a);
    other(a)
}

#[unsafe(no_mangle)]
pub extern "C" fn returning_in_a_leaf(a: u64, b: u64) -> u64 {
    fire!(return ASK_TWO, a, b);
    a.wrapping_mul(b)
}

#[unsafe(no_mangle)]
pub extern "C" fn in_a_branch(a: u64, other: Other) -> u64 {
    if a & 1 == 0 {
        fire!(ONE, a);
        other(a)
    } else {
        other(a ^ 5) ^ 9
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn in_a_loop(n: u64, other: Other) -> u64 {
    let mut sum = 0;
    let mut i = 0;
    while i != n {
        fire!(TWO, i, sum);
        sum ^= other(i);
        i = i.wrapping_add(1);
    }
    sum
}

#[unsafe(no_mangle)]
pub extern "C" fn returning_between_calls(a: u64, other: Other) -> u64 {
    let b = other(a);
    fire!(return ASK, a);
    other(b ^ a).wrapping_add(a)
}
