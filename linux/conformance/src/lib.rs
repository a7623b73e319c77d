//! The table of what each instruction does, as kernel code: dprobes_conformance.ko, which exists for tests alone.
#![no_std]
#![warn(missing_docs)]
#![deny(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc
)]

extern crate alloc;

use alloc::format;
use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

// What main.c has for us. None of these unwinds.
unsafe extern "C" {
    /// Memory of a size and an alignment, or null.
    fn conformance_alloc(size: usize, align: usize) -> *mut u8;
    /// Gives memory back that came from it; null is nothing.
    fn conformance_free(memory: *mut u8);
    /// Prints so many bytes of text.
    safe fn conformance_say(text: *const u8, len: usize);
    /// Stops this kernel.
    safe fn conformance_panic() -> !;
}

struct KernelMemory;

// SAFETY: the two functions do what `GlobalAlloc` asks for.
unsafe impl GlobalAlloc for KernelMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment will do.
        unsafe { conformance_alloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: `memory` came from `alloc`, by `GlobalAlloc::dealloc`.
        unsafe { conformance_free(memory) }
    }
}

#[global_allocator]
static MEMORY: KernelMemory = KernelMemory;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say(&format!("panic: {info}"));
    conformance_panic()
}

fn say(text: &str) {
    conformance_say(text.as_ptr(), text.len());
}

/// What became of the cases: `struct conformance_totals` of main.c.
#[repr(C)]
pub struct Totals {
    cases: u64,
    failed: u64,
    digest: u64,
}

/// Runs the table, in process context. What differs from it is printed.
#[unsafe(no_mangle)]
pub extern "C" fn conformance_run() -> Totals {
    let totals = conformance::run_all(|case, seen| {
        say(&format!("{}: expected {}, seen {seen}", case.program, case.expected));
    });
    Totals {
        cases: totals.cases,
        failed: totals.failed,
        digest: totals.digest,
    }
}
