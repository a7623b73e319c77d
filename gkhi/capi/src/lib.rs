//! `libgkhi.a`: the registry of hooks behind a C ABI, for kernels written in C.
//!
//! A kernel fills in a [`gkhi_host`], calls [`gkhi_start`], names its sites with [`gkhi_add_image`], and calls
//! [`gkhi_on_breakpoint`] from its breakpoint exception. There is one registry per program that this library is linked into. No logic of
//! its own lives here: everything is passed on to the registry, after the pointers that C hands over have been checked as far as they
//! can be.
//!
//! Results are 0 on success and a negative [`gkhi_error`] on failure.
//!
//! `include/gkhi_abi.h` is generated from this crate; `include/gkhi.h`, which includes it, has the macros that hooked code uses.
#![no_std]
#![warn(missing_docs)]
#![deny(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc
)]
#![allow(non_camel_case_types, reason = "the names are those that C code uses")]
#![allow(
    clippy::result_large_err,
    reason = "a failure is a record of the caller's, on no path that is hot"
)]

mod control;
mod failure;
mod host;
mod instance;
mod list;
mod panic;

pub use control::{
    gkhi_add_image, gkhi_arm, gkhi_arm_names, gkhi_arm_set, gkhi_deregister, gkhi_disarm, gkhi_disarm_set,
    gkhi_exit_name, gkhi_on_breakpoint, gkhi_register, gkhi_remove_image, gkhi_start, gkhi_stop,
};
pub use failure::{gkhi_error, gkhi_failure};
pub use host::gkhi_host;
pub use list::{
    gkhi_exit_status, gkhi_find_exit, gkhi_hook_status, gkhi_site_status, gkhi_state, gkhi_visit, gkhi_visitor,
};

/// Answer of an exit: the next exit, or the hooked code when this was the last.
pub const GKHI_CONTINUE: i32 = 0;
/// Answer of an exit: the hooked code; exits after this one are not called.
pub const GKHI_TERMINATE: i32 = 1;
/// Answer of an exit on a returning hook: the hooked function returns.
pub const GKHI_RETURN: i32 = -1;

/// Option of an exit: before all others. A second such exit on a hook is refused.
pub const GKHI_PRIORITY_FIRST: u32 = 0x4;
/// Option of an exit: after all others. A second such exit on a hook is refused.
pub const GKHI_PRIORITY_LAST: u32 = 0x8;
/// Option of an exit: before those that are registered already, but for a first one. Without it: after them, but for a last one.
pub const GKHI_QUEUE_LIFO: u32 = 0x10;
/// Option of an exit: while it is armed no other exit of the hook is. Kind of a hook: it takes one exit only.
pub const GKHI_EXCLUSIVE: u32 = 0x2000_0000;

/// Kind of a hook: its sites are patched.
pub const GKHI_KIND_PATCHED: u32 = 0;
/// Kind of a hook: its exits may make the hooked function return.
pub const GKHI_KIND_RETURNING: u32 = 0x1;
/// Kind of a hook: its sites test a flag in memory.
pub const GKHI_KIND_GENERIC: u32 = 0x2;

/// The longest name of a hook or an exit, in bytes without the zero.
pub const GKHI_NAME_MAX: usize = 63;

// The header needs literals.
const _: () = {
    assert!(GKHI_CONTINUE == hooks::CONTINUE && GKHI_TERMINATE == hooks::TERMINATE && GKHI_RETURN == hooks::RETURN);
    assert!(
        GKHI_PRIORITY_FIRST == hooks::options::PRIORITY_FIRST && GKHI_PRIORITY_LAST == hooks::options::PRIORITY_LAST
    );
    assert!(GKHI_QUEUE_LIFO == hooks::options::QUEUE_LIFO);
    assert!(GKHI_EXCLUSIVE == hooks::options::EXCLUSIVE && GKHI_EXCLUSIVE == hooks::kind::EXCLUSIVE);
    assert!(GKHI_KIND_RETURNING == hooks::kind::RETURNING && GKHI_KIND_GENERIC == hooks::kind::GENERIC);
    assert!(GKHI_NAME_MAX == hooks::NAME_MAX);
    // `gkhi.h` asserts the same.
    assert!(size_of::<hooks::Hook>() == 320 && size_of::<hooks::Exit>() == 176 && size_of::<hooks::Image>() == 56);
    assert!(size_of::<hooks::Site>() == 32 && size_of::<hooks::Counters>() == 64);
    assert!(size_of::<hooks::text::Write>() == 32);
};
