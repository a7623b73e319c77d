//! The verbs, one file each.

pub mod build;
pub mod lint;
pub mod panic_check;
pub mod test;
