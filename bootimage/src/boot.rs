//! The way into the kernel: from the boot loader to the program's main function.

use crate::percpu::STACKS;
use crate::{apic, cpu, heap, hooks, info, memory, percpu, segments, serial, smp, trap};

core::arch::global_asm!(
    ".set bsp_stack_top, {stacks} + {top}",
    include_str!("asm/boot.s"),
    stacks = sym STACKS,
    top = const percpu::MAIN_STACK_TOP,
    options(att_syntax)
);

unsafe extern "Rust" {
    /// The program's main function, defined by [`crate::main!`].
    safe fn bootimage_main() -> !;
}

/// The first CPU, in 64-bit mode on the boot page tables.
#[unsafe(no_mangle)]
extern "C" fn bsp_main(start_info: u32) -> ! {
    percpu::init(0);
    serial::init();
    segments::init();
    trap::init();
    trap::load();
    cpu::init();
    info::init(u64::from(start_info));
    heap::init(memory::init());
    apic::mask_legacy_pics();
    apic::init();
    smp::start();
    x86_64::instructions::interrupts::enable();
    hooks::init();
    bootimage_main()
}
