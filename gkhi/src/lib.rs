//! GKHI: hooks compiled into a kernel that cost one NOP while nobody uses them.
//!
//! Hooked code marks a place with [`fire!`]. Independent modules register *exits* on the hook, by name, and *arm* them, one or many at
//! once. The crate is `no_std`, allocates nothing, and knows no kernel: what it needs comes through [`Host`].
//!
//! ```
//! use core::sync::atomic::{AtomicU64, Ordering};
//! use gkhi::{ExitWith, Flow, fire, hook};
//!
//! hook! {
//!     /// A file is about to be opened. Exits may change the flags.
//!     pub static FILE_OPEN: fn(inode: u64, flags: &mut u32) = "file_open";
//! }
//!
//! // In the hooked code:
//! fn open(inode: u64, mut flags: u32) {
//!     fire!(FILE_OPEN, inode, ref flags);
//!     // ...
//! }
//!
//! // In a module:
//! static COUNT: ExitWith<AtomicU64> = FILE_OPEN::exit(c"count", AtomicU64::new(0), |opens, _inode, flags| {
//!     opens.fetch_add(1, Ordering::Relaxed);
//!     *flags |= 1;
//!     Flow::Continue
//! });
//! // registry.register(&COUNT)?; registry.arm(&[&COUNT])?;
//! # open(1, 2);
//! ```
//!
//! # Principles
//!
//! 1. **A dormant site is one 5-byte NOP.** The arguments are evaluated, and the exits called, out of line, behind a jump that is not
//!    there. The call preserves all registers but a few that the compiler does not need, so that it saves nothing in the hot path.
//! 2. **A pass takes no lock**, waits for nothing and allocates nothing: it may be anywhere, in an NMI or with the registry's lock held.
//! 3. **A set is armed at one moment**, or not at all and the reason is returned: see [`Registry::arm`].
//! 4. **What is deregistered is not in use.** Passes count themselves in before they look, and out after they have returned.
//! 5. **Counts are exact.**
//!
//! # What a pass costs
//!
//! | | instructions |
//! |---|---|
//! | dormant | 1 |
//! | armed, one exit, over the exit's own body | 8, and at most one move for each argument |
//! | the same, conditional return | 9, the moves, and up to 3 when the function keeps a value in RAX, where the answer comes |
//! | in a function without a frame | 2 more, which align the stack |
//!
//! The eight: the jump, load the counter's place, count in, load the target, call, find the place to count out, count out, jump back. With
//! the feature `preserve-most` the exit is entered directly; without it a thunk saves the registers, which costs 20 more, so that it
//! works on stable compilers, and for exits that are ordinary C functions. Several exits go through a chain, which costs more, and saves
//! the registers once. Exits that are watched take a longer way, and so do the others of their hook.
//!
//! What holds for the hot path is proven by `tests/dormant.rs`, which compares functions with and without their sites:
//!
//! - *Release*: one NOP, and no register is saved or spilled for it. The compiler treats the site as the end of a block: it does not merge,
//!   unroll or vectorise across it, and may choose other registers, or copy one to another, where the out-of-line part needs one.
//! - A function that has no stack frame without the site, and in which the site is in a loop or before a jump to another function, gets
//!   one `push` and `pop` per call, which align the stack for the exit. Elsewhere they are in the out-of-line part.
//! - In a process, whose leaf functions may use the red zone below RSP, one with a site does not: it moves RSP if it has a frame.
//! - A local variable passed by reference (`ref`) has a place in the frame, which the hot path does not touch; if it is the only thing in
//!   the frame, there is a frame because of it.
//! - *Debug*: one NOP, followed by the compiler's `jmp` over the out-of-line part, since rustc lays blocks out in the order of the source;
//!   and because a block ends there, values that live on go through their places in the frame, as at every `if`. Nothing is computed or
//!   called for the hook.
//!
//! # Sets
//!
//! A pass *takes effect* at one moment between its beginning and its first exit. All passes of all hooks, and all transactions, are in one
//! order: a pass calls exactly the exits that the transactions before it have left armed. So a pass sees all of a set's exits on its
//! hook or none; and once a pass on any CPU has seen the set, every pass that begins later, on any hook, sees it.
//!
//! # The C side
//!
//! Everything shared with C is `repr(C)`, 64-bit little-endian; the sizes and offsets are asserted at compile time. C code zeroes
//! what is not named here.
//!
//! **Hook head**, [`Hook`], 320 bytes, aligned to 8, a static variable:
//!
//! | offset | field | |
//! |---|---|---|
//! | 0 | `unsigned long counter` | read by passes; zero |
//! | 8 | `struct gkhi_target *current` | read by passes; zero |
//! | 16 | `const char *name` | unique; [`Name::is_valid`] |
//! | 24 | `const char *signature` | prototype as text, or null for "not checked". Rust makes `fn(type,type,)->type in module::HOOK:line:column` |
//! | 32 | `unsigned kind` | [`kind`] |
//! | 36 | `unsigned arguments` | 0..=8 |
//! | 40 | `unsigned enabled` | a generic site tests it |
//! | 44.. | reserved | zero |
//!
//! **Exit record**, [`Exit`], 176 bytes, aligned to 8, owned by the caller:
//!
//! | offset | field | |
//! |---|---|---|
//! | 0 | `void (*entry)()` | preserving entry, or null: then a thunk is used |
//! | 8, 16 | | zero |
//! | 24 | `call` | `int call(struct gkhi_exit *, args..)` on a normal hook and one that returns no value; `struct gkhi_answer call(..)` on one that returns a value |
//! | 32 | `const char *name` | unique on its hook |
//! | 40 | `const char *hook` | the hook's name |
//! | 48 | `const char *signature` | as the hook's, or null |
//! | 56, 64 | `const char *const *requires; size_t` | names |
//! | 72, 80 | `const char *const *conflicts; size_t` | names |
//! | 88 | `void *data` | the exit's own |
//! | 96 | `unsigned long watch` | TSC cycles, or 0 |
//! | 104 | `unsigned options` | [`options`] |
//! | 108.. | reserved | zero |
//!
//! **Answer**, [`Answer`]: `struct gkhi_answer { long flow; unsigned long value; }` in RAX and RDX; the low 32 bits of `flow` are
//! [`CONTINUE`], [`TERMINATE`] or [`RETURN`].
//!
//! **Site record**, [`Site`], section `gkhi_sites` (`"aw"`, aligned to 8), 32 bytes: `.long site - .`, `.long outofline - .`,
//! `.quad hook - .`, `.quad 0, 0`. For a generic site the two `.long` are 0. The site is `0f 1f 44 00 00`.
//!
//! **Call record**, [`CallSite`], section `gkhi_calls` (`"aw"`, aligned to 8), 16 bytes: `.long after - 1 - .`, `.long 0`,
//! `.quad hook - .`, where `after` is the address behind the call of the entry: the record has the last byte of that. Without it a caller inside an exit is not recognised.
//!
//! **Image**, [`Image`], 56 bytes: name, begin and end of `gkhi_sites`, begin and end of `gkhi_calls`, and two reserved words. The linker defines
//! `__start_gkhi_sites` and so on in a program or a kernel. A relocatable link (`ld -r`) does not: a Linux module's linker
//! script does, or its loader finds the sections by name.
//!
//! **The armed pass**, out of line (AT&T; `hook` is the head; a CPU-shared counter takes `lock`):
//!
//! ```text
//!         mov   hook(%rip), %r10            # where to count in, relative to GS
//!         incq  %gs:(%r10)
//!         mov   hook+8(%rip), %rdi          # arguments are in %rsi %rdx %rcx %r8 %r9, then on the stack:
//!         call  *(%rdi)                     # three words below one of padding, RSP aligned to 16 at the call
//! after:  add   8(%rdi), %r10
//!         incq  %gs:(%r10)                  # returning: test %eax, %eax; negative: return %rdx
//! ```
//!
//! The entry preserves all general-purpose registers but R11 and, on a hook that returns, RAX and RDX. The pass clobbers RDI, R10, R11,
//! flags, and vector and x87 state. An entry in C is a function with `__attribute__((no_caller_saved_registers))`.
//!
//! **Functions.** The C ABI wraps [`Registry::register_raw`], [`deregister_raw`](Registry::deregister_raw), [`arm`](Registry::arm),
//! [`disarm`](Registry::disarm), [`switch`](Registry::switch), [`add_image_raw`](Registry::add_image_raw),
//! [`remove_image_raw`](Registry::remove_image_raw), the listing, and [`Shared::on_breakpoint`]; a host is a table of the functions of
//! [`Host`] and [`text::Text`]. An [`Error`] becomes its [`code`](Error::code).
//!
//! # Limits
//!
//! A hook's head, its sites and the counters' code are linked together or reached by a 32-bit displacement: a site refers to its head
//! RIP-relatively. A kernel's GS base must be the kernel's own at a site, so that there is none in entry code before `swapgs`. Waiting
//! for passes ([`Registry::deregister`], a transaction on a hook whose last one is not over for some pass) takes as long as the
//! exits take.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(feature = "preserve-most", feature(rust_cold_cc))]
#![warn(missing_docs)]
#![forbid(unsafe_op_in_unsafe_fn)]

mod counters;
mod dispatch;
mod entry;
mod error;
mod exit;
mod flow;
pub mod grace;
mod hook;
mod host;
mod macros;
mod name;
mod order;
mod registry;
mod site;
mod target;
pub mod text;
#[doc(hidden)]
pub mod word;

pub use counters::Counters;
#[doc(hidden)]
pub use entry::{Arity, Body};
pub use error::Error;
pub use exit::{Exit, ExitWith, State, options};
pub use flow::{Answer, CONTINUE, Flow, RETURN, TERMINATE, Verdict};
#[doc(hidden)]
pub use hook::HookType;
pub use hook::{ARGUMENTS_MAX, Hook, kind};
pub use host::Host;
pub use name::{NAME_MAX, Name, NameList};
pub use registry::{Added, ExitInfo, HookInfo, Registry, Shared};
pub use site::{CallSite, Image, NOP, Site};
pub use target::Target;
pub use word::Word;
