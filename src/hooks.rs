//! The hook that exit facilities are exits on, for a kernel that has a GKHI registry.

use core::arch::global_asm;
use core::ffi::c_void;

use engine::trap::EXIT_TO;
use gkhi::{Image, Name};

// The record that makes the hook known. It is generic, and so has no site to be patched; and it is not in the section in which records are
// otherwise, whose ends a library cannot name that is linked into something larger.
global_asm!(
    ".pushsection .data.dprobes_hooks, \"aw\", @progbits",
    ".balign 8",
    ".globl __dprobes_hooks",
    ".hidden __dprobes_hooks",
    "__dprobes_hooks:",
    ".long 0, 0",
    ".quad {hook} - .",
    ".quad 0, 0",
    ".globl __dprobes_hooks_end",
    ".hidden __dprobes_hooks_end",
    "__dprobes_hooks_end:",
    ".popsection",
    hook = sym EXIT_TO,
);

unsafe extern "C" {
    static __dprobes_hooks: c_void;
    static __dprobes_hooks_end: c_void;
}

// SAFETY: the records between the two, which stay as long as this library, and which nobody else writes. Whoever changes what is on the hook
// cannot be inside it, which is passed in traps: no call has to be recognised.
static IMAGE: gkhi_image = unsafe {
    gkhi_image(Image::new(
        Name::new(c"dprobes"),
        &raw const __dprobes_hooks..&raw const __dprobes_hooks_end,
        core::ptr::null()..core::ptr::null(),
    ))
};

/// What `gkhi.h` has under this name.
#[repr(C)]
#[allow(non_camel_case_types, reason = "the name is the one that C code uses")]
pub struct gkhi_image(Image);

/// The library's hooks, for `gkhi_add_image`, before anybody may register on them: `dprobes_exit_to`, a generic hook that
/// returns no value, with the arguments `const struct dprobes_exit_to *` and `struct dprobes_trap_frame *`. A program that ends with
/// `exit_to` passes it. An exit that is the facility returns; if none does, the host's `exit_to` is asked. An exit in C leaves its
/// `signature` null.
///
/// The registry increments counters relative to GS, each CPU its own. The library is unloaded only after `gkhi_remove_image` has
/// returned 0. A program that finds its sites between `__start_gkhi_sites` and `__stop_gkhi_sites` has this hook among them, and
/// does not call this.
#[unsafe(no_mangle)]
pub extern "C" fn dprobes_hooks() -> *const gkhi_image {
    &raw const IMAGE
}
