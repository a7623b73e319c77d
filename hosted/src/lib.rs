//! DProbes in an ordinary Linux process: the engine puts probes on the process's own code, through SIGTRAP.
//!
//! Every trap path of the engine can so be tested, fuzzed and timed at native speed on a real CPU:
//!
//! - a breakpoint is a real `int3`, and arrives as SIGTRAP; a single step is a real TF, and arrives as SIGTRAP;
//! - a fault in a slot is a real fault, and arrives as SIGSEGV, SIGBUS, SIGFPE or SIGILL, which the process's own handler
//!   sees as if the original instruction had raised it;
//! - text is written while other threads run it, and they are synchronised with `membarrier`.
//!
//! ```
//! #[unsafe(no_mangle)]
//! #[inline(never)]
//! extern "C" fn doubled(n: u64) -> u64 { std::hint::black_box(n) * 2 }
//!
//! let engine = hosted::install(hosted::Process::new()?)?;
//! let text = format!("name = \"kernel\"\nmodtype = kernel\nmajor = 1\naddress = {:#x}\nminor = 1\n\
//!                     push r, rdi\n log 1\n exit\n", doubled as extern "C" fn(u64) -> u64 as usize);
//! let program = rpn_asm::assemble("doubled.rpn", &text, &rpn_asm::Options::default())?;
//! engine.insert(&program.object).unwrap();
//! assert_eq!(doubled(21), 42);
//! let records = engine.records();
//! assert_eq!(records[0].words(), [21]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What stands for what:
//!
//! | in the engine | here |
//! |---|---|
//! | a CPU | a number that a thread holds while it handles a trap |
//! | interrupts | signals: blocked in a trap handler, and during a single step |
//! | task | thread |
//! | kernel text | the functions of the executable, and [code made at run time](CodeBuffer) |
//! | entry code and the engine itself: excluded | functions of this crate, of the engine, and of Rust's libraries |
//!
//! # Limits
//!
//! - Linux, x86_64, a dynamically linked executable with a symbol table. Shared libraries cannot be probed: they are further than
//!   2 GiB from the slots.
//! - A thread must not block all signals for long: [`Process::handshake_signal`] has to reach it.
//! - While a signal handler of the process runs that has interrupted a slot, the slot must not be reused: such a
//!   handler should be short, or the program be removed after it has ended.
//! - After `fork` the child's probes are not controlled by anybody.
#![warn(missing_docs)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
compile_error!("the in-process host is for x86_64 Linux with glibc");

#[cfg(target_feature = "crt-static")]
compile_error!("libc must be a shared library: what the trap handler calls of it must not be in the executable");

mod code;
mod context;
mod image;
mod install;
mod memory;
mod process;
mod quiesce;
mod record;
mod signal;
mod stack;
mod thread;

pub use code::{CodeBuffer, CodeError};
pub use image::ImageError;
pub use install::{InstallError, Installed, install};
pub use process::{Clock, Process, ProcessError};
pub use record::Record;
pub use stack::AlternateStack;
