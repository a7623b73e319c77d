//! Records: what a probe leaves behind, and the rings that carry it to a reader.
//!
//! A record is a [`Header`](header::Header) and typed [`element`]s, so that any reader can print it without the program.
//! Each CPU has one ring.

pub mod element;
pub mod header;
pub(crate) mod ring;

// Not in ring.rs, which tests/loom.rs compiles as well.
#[cfg(test)]
#[path = "ring/tests.rs"]
mod ring_tests;
