//! The DProbes engine: automated breakpoints for x86_64.
#![no_std]
#![warn(missing_docs)]

pub mod insn;
pub mod rpn;
