//! The test kernel's runtime.
//!
//! A program that uses it is a kernel: it boots on x86_64 under `qemu -kernel` (PVH), brings up serial console, memory, traps and up to
//! eight CPUs, and runs tests. `cargo test` at the root of the workspace runs each file of `tests/` this way.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! use bootimage::{println, smp, trap};
//!
//! bootimage::test_main! { tests: [breakpoint, everywhere] }
//!
//! fn breakpoint() {
//!     trap::set_handler(trap::BP, Some(|_, frame| {
//!         frame.rax = 42; // RIP is after the int3
//!         trap::Action::Resume
//!     }));
//!     let rax: u64;
//!     // SAFETY: the handler above takes the breakpoint, and says so of RAX.
//!     unsafe { core::arch::asm!("int3", out("rax") rax) };
//!     trap::set_handler(trap::BP, None);
//!     assert_eq!(rax, 42);
//! }
//!
//! fn everywhere() {
//!     smp::run_on_all(|cpu| println!("CPU {cpu}"));
//! }
//! ```
//!
//! What there is:
//!
//! - [`println!`], [`print!`]: the serial console. Lines of several CPUs do not mix; works in traps.
//! - `alloc`: the global allocator, usable everywhere but in traps. [`NoAlloc`] makes allocating on this CPU a failure while it lives;
//!   [`heap::usage`].
//! - [`trap`]: [`trap::set_handler`] for any vector, with the registers in [`trap::TrapFrame`] (the layout of Linux's `pt_regs`). Without a
//!   handler, or when it passes, a trap is fatal and prints the registers.
//! - [`fault`]: [`fault::probe_read`] and [`fault::probe_write`] at any address; [`fault::fix_up_of`].
//! - [`memory`]: [`memory::text`], [`memory::noinstr_text`], [`memory::writable_alias`] (how text is patched), [`memory::alloc_exec`] (slots),
//!   [`memory::map`], [`memory::protect`], [`memory::unmap`] (pages of a test's own), [`memory::translate`].
//! - [`smp`]: [`smp::cpu_count`], [`smp::run_on_all`], [`smp::run_on`] (ordinary context), [`smp::call_on`], [`smp::call_on_all`] (interrupt
//!   context), [`smp::sync_cores`], [`smp::quiesce`]. [`cpu_id`] is the current CPU.
//! - [`task`]: contexts that are preempted anywhere and go on on another CPU: [`task::spawn`], [`task::run`], [`task::preempt`].
//! - [`apic`]: [`apic::send_interrupt`], [`apic::send_nmi`], [`apic::start_timer`], [`apic::stop_timer`].
//! - [`hooks`]: the kernel's GKHI hooks, and their registry: [`hooks::BREAKPOINT`], [`hooks::DEBUG`], [`hooks::PAGE_FAULT`],
//!   [`hooks::FAULT`], [`hooks::MODULE_COMING`], [`hooks::MODULE_GOING`], [`hooks::EXEC`].
//! - [`module`]: bringing in and taking out the crate `loadable`, if it is linked: [`module::load`], [`module::get`], [`module::unload`].
//! - [`ring3`]: [`ring3::run`], code with user rights on pages mapped with [`memory::Rights::USER`].
//! - [`clock`]: the time-stamp counter and nanoseconds.
//! - [`symbols`]: [`symbols::function_at`], [`symbols::function_named`], from the kernel's own ELF file, which the runner passes as a boot module.
//! - [`sync::IrqMutex`]: a spin lock that interrupts cannot re-enter.
//! - [`info::boot_info`]: command line and memory map.
//! - [`exit::exit`]: the end. [`main!`] instead of [`test_main!`] for a kernel with a main function of its own.
//!
//! Code in sections `.noinstr.text*` is kept together and must not be probed: it runs while a trap is entered or left. Sections with names
//! that are C identifiers get `__start_` and `__stop_` symbols from the linker, as usual. A test that panics, or whose trap is not handled,
//! fails and ends the run. The words of the command line select tests by parts of their names.

#![no_std]
#![warn(missing_docs)]

extern crate alloc;

pub mod apic;
pub mod clock;
pub mod exit;
pub mod fault;
pub mod harness;
pub mod heap;
pub mod hooks;
pub mod info;
pub mod memory;
pub mod module;
pub mod ring3;
pub mod segments;
pub mod serial;
pub mod smp;
pub mod symbols;
pub mod sync;
pub mod task;
pub mod trap;

mod acpi;
mod boot;
mod cpu;
mod debug;
mod percpu;

pub use percpu::{MAX_CPUS, NoAlloc, cpu_id};
