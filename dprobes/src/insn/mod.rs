//! Decode, classify, relocate and emulate one x86-64 instruction.
//!
//! A probepoint replaces the first byte of an instruction. What has to be known about the instruction is answered
//! here, from its bytes alone:
//!
//! - [`Insn::decode`]: where it ends, and which field is which. Only `decode` makes an [`Insn`], so having one is the
//!   proof that
//!   the bytes are an instruction.
//! - [`Insn::resume`]: how a CPU gets past it while its first byte is a breakpoint: by a copy in a slot, by
//!   emulation, by a single step,
//!   or not at all, with the [reason](Refusal).
//! - [`Insn::relocate`]: the bytes of the copy, for the address of the slot.
//! - [`Emulation::run`]: the effect of a branch or flag instruction on a [`Cpu`].
//! - [`is_boundary`]: whether an offset into a function is the start of an instruction.
//!
//! The rules are those of 64-bit mode, the only mode a 64-bit kernel's text runs in. Nothing here allocates, panics
//! or is unsafe: decoding is done when a probe is inserted, emulation when it is hit.
#![forbid(unsafe_code)]

mod boundary;
mod classify;
mod cpu;
mod decode;
mod emulate;
mod forms;
mod parts;
mod refusal;
mod relocate;
mod shadow;
mod table;
mod target;

pub use boundary::{BoundaryError, Instructions, is_boundary};
pub use classify::{Resume, StepKind};
pub use cpu::{Cpu, Gpr};
pub use decode::{Insn, MAX_LEN};
pub use emulate::{DirectCall, EmulateError, Emulation};
pub use parts::{DecodeError, Encoding, Field, Map, ModRm, Segment};
pub use refusal::Refusal;
pub use relocate::{RelocateError, Relocated, jump};
pub use shadow::{Shaded, Shadow};
