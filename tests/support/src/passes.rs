//! What passes through the test's hooks see, and a hook that both the kernel and its module pass.

use gkhi::hook;

/// What the exits of one pass have done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    /// Exits of the set, by bit.
    pub set: u32,
    /// Calls of exits that are not in the set.
    pub lone: u32,
}

hook! {
    /// Has sites in the kernel and in its module.
    pub static SHARED: fn(seen: &mut Seen) = "shared";
}
