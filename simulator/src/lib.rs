//! Executes probe programs on a workstation: with the engine's own verifier and interpreter, on a machine that is made up.
//!
//! A [`Machine`] has what a program can reach: registers, memory, ports, the task that runs. A [`Simulation`] is a program with its variables and
//! maps; [`Simulation::hit`] runs the handler of one of its probes as a hit on the machine would, tells each instruction to whoever
//! watches, and returns the record and everything that changed. Nothing is simulated twice: what is interpreted here is what a kernel would
//! interpret.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod changes;
mod machine;
mod maps;
mod memory;
mod place;
pub mod settings;
mod simulation;
mod trace;

pub use changes::{Change, Changes};
pub use machine::Machine;
pub use maps::NamedMap;
pub use memory::{Access, Change as MemoryChange, MapError, Memory};
pub use place::{PlaceError, place};
pub use simulation::{Added, Hit, LoadError, Probe, Ran, Record, Simulation, Skipped, Switched};
pub use trace::{Dispatch, Raised, SHOWN, Step, Watch, Words};
