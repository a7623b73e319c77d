//! Records and the state of probes, as text for people and as JSON for programs.

pub mod address;
pub mod columns;
pub mod ctf;
pub mod escape;
mod histogram;
pub mod json;
pub mod maps;
#[cfg(test)]
mod samples;
pub mod status;
pub mod text;
mod trace;
pub mod vars;
pub mod words;
