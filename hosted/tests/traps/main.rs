//! Probes on this process's own code: every way through the engine, on the real CPU.

mod emergency;
mod express;
mod faults;
mod insertion;
mod limits;
mod modules;
mod parts;
mod programs;
mod recursion;
mod resumption;
mod support;
mod threads;
mod values;
mod victims;
