//! The test kernel's module: a hook and a site of its own, a site of one of the kernel's hooks, and code to probe.
//!
//! Everything here is linked to run at an address where nothing is until `bootimage::module::load` has put it there: whoever calls it
//! holds a `bootimage::module::ModuleRef`. So there is nothing generic or inline here, which would be compiled into the caller.

#![no_std]
#![warn(missing_docs)]

use core::arch::global_asm;

use gkhi::{fire, hook};
use test_support::passes::{SHARED, Seen};

hook! {
    /// The module's own hook: it comes and goes with the module.
    pub static OWN: fn(seen: &mut Seen) = "own";
}

/// Passes the module's own hook.
#[inline(never)]
pub fn pass_own(seen: &mut Seen) {
    fire!(OWN, seen);
}

/// Passes a hook of the kernel that has sites elsewhere, too.
#[inline(never)]
pub fn pass_shared(seen: &mut Seen) {
    fire!(SHARED, seen);
}

global_asm!(
    ".globl target_in_module",
    ".type target_in_module, @function",
    "target_in_module:",
    "    lea rax, [rdi + 1]",
    "    ret",
    ".size target_in_module, . - target_in_module",
);

unsafe extern "C" {
    /// Adds one.
    pub safe fn target_in_module(value: u64) -> u64;
}
