//! The DProbes engine: automated breakpoints for x86_64.
//!
//! A probe program, written in the RPN language, is put on any instruction of a running kernel. When the instruction is
//! about to be executed the program runs: it reads and writes registers and memory, decides, and logs. The engine knows no
//! kernel; what it needs of the one around it comes through [`host::Host`].
//!
//! The folders, from the bottom up (each uses only those above it in this list):
//!
//! - [`insn`]: decode, classify, relocate and emulate one x86-64 instruction;
//! - [`aggregate`]: counts, sums and histograms by key, written by hits and read at any time;
//! - [`rpn`]: programs: instructions, objects, the verifier, the interpreter;
//! - `frame`: the registers of interrupted code: [`trap::TrapFrame`];
//! - [`host`]: the seam to the surrounding kernel;
//! - [`record`]: what a probe leaves behind, and the rings that carry it;
//! - `text`: transactions that patch code, and slots for copies of instructions;
//! - [`wire`]: the forms that cross the boundary to user space;
//! - [`probe`]: programs and probepoints, inserted and removed: [`probe::Engine`];
//! - [`trap`]: the life of a hit.
#![no_std]
#![warn(missing_docs)]

extern crate alloc;

pub mod aggregate;
mod frame;
pub mod host;
pub mod insn;
mod mem;
pub mod probe;
pub mod record;
pub mod rpn;
mod sort;
mod sync;
mod text;
pub mod trap;
pub mod wire;

pub use mem::OutOfMemory;
