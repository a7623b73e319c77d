//! Handlers that only count.
//!
//! The commonest handler adds to variables that it names, and ends without a record. It touches neither the stack nor the log, nothing in it
//! can fail, and it has no jumps to be charged: it needs a walk over its instructions, and nothing of the machine. The verifier marks
//! such handlers, and what it marks does here what it would do in the [interpreter](super::interp).

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::program::{Insn, Program};
use super::variables::Variables;

/// A handler that only adds one to declared variables or takes one from them, and then aborts.
#[derive(Clone, Copy, Debug)]
pub struct Counting<'p> {
    /// The handler, and what comes behind it.
    code: &'p [Insn],
}

/// Whether the handler at the beginning of this code is one.
pub(super) fn counts(code: &[Insn]) -> bool {
    let counts = |insn: &&Insn| matches!(insn, Insn::IncLv(_) | Insn::DecLv(_) | Insn::IncGv(_) | Insn::DecGv(_));
    let end = code.iter().find(|insn| !counts(insn));
    matches!(end, Some(Insn::Abort))
}

impl Program {
    /// The handler of a point, counted from zero, if it is one that only counts.
    #[inline]
    pub fn counting(&self, point: usize) -> Option<Counting<'_>> {
        let entry = self.entries.get(point).filter(|entry| entry.counting)?;
        let code = self.code.get(entry.pc as usize..)?;
        Some(Counting { code })
    }
}

/// A handler that consists of one addition.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'v> {
    /// What it adds to.
    pub variable: &'v AtomicU64,
    /// What it adds: one or minus one.
    pub step: u64,
}

impl Counting<'_> {
    /// The addition that it consists of, if it is a single one.
    pub fn addition<'v>(&self, variables: &Variables<'v>) -> Option<Addition<'v>> {
        let [only, Insn::Abort, ..] = self.code else {
            return None;
        };
        let local = |index: u16| variables.locals.get(usize::from(index));
        let global = |index: u16| variables.global(usize::from(index));
        let (variable, step) = match *only {
            Insn::IncLv(index) => (local(index), 1),
            Insn::DecLv(index) => (local(index), u64::MAX),
            Insn::IncGv(index) => (global(index), 1),
            Insn::DecGv(index) => (global(index), u64::MAX),
            _ => return None,
        };
        variable.map(|variable| Addition { variable, step })
    }

    /// Runs it. False when a variable is not there, which is an exception that ends it.
    #[inline]
    pub fn run(self, variables: &Variables<'_>) -> bool {
        for insn in self.code {
            match *insn {
                Insn::IncLv(local) => match variables.locals.get(usize::from(local)) {
                    Some(local) => _ = local.fetch_add(1, Relaxed),
                    None => return false,
                },
                Insn::DecLv(local) => match variables.locals.get(usize::from(local)) {
                    Some(local) => _ = local.fetch_sub(1, Relaxed),
                    None => return false,
                },
                Insn::IncGv(global) => match variables.global(usize::from(global)) {
                    Some(global) => _ = global.fetch_add(1, Relaxed),
                    None => return false,
                },
                Insn::DecGv(global) => match variables.global(usize::from(global)) {
                    Some(global) => _ = global.fetch_sub(1, Relaxed),
                    None => return false,
                },
                // Its end: nothing else is behind what `counts` has seen.
                _ => break,
            }
        }
        true
    }
}
