//! The verbs, one file each.

pub mod bench;
pub mod build;
pub mod coverage;
pub mod demo;
pub mod fuzz;
pub mod headers;
pub mod kernel_run;
pub mod lint;
pub mod panic_check;
pub mod soak;
pub mod test;
