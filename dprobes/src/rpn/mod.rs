//! Probe programs: instructions, the object form, the verifier and the interpreter.
//!
//! A program reaches the engine as untrusted bytes. [`object::Object::parse`] checks their shape, [`verify::verify`]
//! proves what they do and decodes them into a [`Program`], and [`interp::run`] executes one handler of it for one hit.
//! Only the verifier can make a [`Program`], so what it proves the interpreter does not check again.
#![forbid(unsafe_code)]

mod bits;
mod buffer;
mod counting;
mod env;
pub mod exception;
mod frame;
mod heap;
mod hit;
pub mod interp;
pub mod limits;
mod log;
pub mod object;
mod observe;
pub mod op;
mod program;
mod rare;
pub mod reg;
mod system;
mod trace;
pub mod variables;
pub mod verify;
mod workspace;

pub use counting::{Addition, Counting};
pub use program::{Group, Program};

/// An address of the probed system could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress {
    /// The first byte that could not be.
    pub addr: u64,
}
