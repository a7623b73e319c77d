//! Shared by the tests of programs: objects from text, a machine to probe, and a second interpreter.
#![allow(dead_code, reason = "each test uses a part")]

pub mod build;
pub mod compare;
pub mod env;
pub mod machine;
pub mod naive;
pub mod random;
pub mod victim;
