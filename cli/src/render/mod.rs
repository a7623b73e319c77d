//! Records and the state of probes, as text for people and as JSON for programs.

pub mod escape;
pub mod json;
#[cfg(test)]
mod samples;
pub mod status;
pub mod text;
mod words;
