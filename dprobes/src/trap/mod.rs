//! Traps: from the CPU's breakpoint, debug and fault exceptions to the engine and back.
//!
//! The handlers are methods of [`Engine`](crate::probe::Engine). A host that owns its trap entry, such as Linux through
//! its notifiers, calls them with its registers; for a kernel that has no such place, [`idt`] puts an [`entry`] of the
//! engine's own in front.

mod breakpoint;
pub mod debug_registers;
mod emulated;
pub mod entry;
mod environment;
mod facility;
mod fault;
pub mod idt;
mod registers;
mod returns;
mod shadow;
mod stack;
mod step;
mod system;
mod user;
mod watch;

pub use facility::EXIT_TO;

pub use crate::frame::{RFLAGS_IF, RFLAGS_TF, TrapFrame};

/// What a trap handler of the engine says to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is somebody else's: go on as if the engine were not there. The frame may have been corrected.
    NotOurs,
    /// The engine has dealt with the trap: return to the frame.
    Handled,
}
