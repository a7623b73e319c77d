//! `libdprobes.a`: the DProbes engine behind a C ABI, for kernels written in C.
//!
//! A kernel fills in a [`dprobes_host`], calls [`dprobes_init`], calls the trap functions from its breakpoint and debug
//! exceptions, and the control functions from whatever it offers to its users. There is one engine per program that this
//! library is linked into. No logic of its own lives here: everything is passed on to the engine, after every pointer and
//! length that C hands over has been checked as far as it can be.
//!
//! Results are 0 or a positive count on success and a negative errno on failure; no success collides with a failure.
//!
//! `include/dprobes.h` is generated from this crate: see `cbindgen.toml`.
#![no_std]
#![warn(missing_docs)]
#![deny(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc
)]

mod control;
mod errno;
mod gate;
mod hooks;
mod host;
mod instance;
mod maps;
mod memory;
mod panic;
mod records;
mod traps;
mod vars;

pub use control::{
    dprobes_check, dprobes_disarm, dprobes_exit, dprobes_halt, dprobes_init, dprobes_insert, dprobes_insert_as,
    dprobes_module_coming, dprobes_module_going, dprobes_module_live, dprobes_query, dprobes_reap, dprobes_remove,
    dprobes_remove_all,
};
pub use gate::{dprobes_install_gate, dprobes_restore_gate};
pub use hooks::{dprobes_hooks, gkhi_image};
pub use host::dprobes_host;
pub use maps::{dprobes_maps, dprobes_read_map};
pub use records::{
    dprobes_freeze, dprobes_has_provisional, dprobes_keep_newest, dprobes_read, dprobes_ring_memory,
    dprobes_rings_mode, dprobes_save, dprobes_settle, dprobes_thaw,
};
pub use traps::{
    dprobes_branches, dprobes_on_breakpoint, dprobes_on_debug, dprobes_on_fault, dprobes_on_user_hit,
    dprobes_on_user_return_lost, dprobes_on_watchpoint, dprobes_on_watchpoint_lost,
};
pub use vars::dprobes_vars;
