//! The variables of programs: shown, and set to zero, while probes fire.

use core::sync::atomic::{AtomicU64, Ordering};

use super::engine::{Control, Engine};
use super::program::Loaded;
use crate::host::Host;
use crate::wire::{VARS_GLOBAL, VARS_LOCAL, VarStatus, label};

/// Whose variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarScope<'a> {
    /// Those of all programs, and the global ones.
    All,
    /// Those of one program.
    Local {
        /// Its module.
        module: &'a [u8],
        /// Its major code.
        major: u16,
    },
    /// The global ones.
    Global,
}

/// Which variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VarRange<'a> {
    /// Whose.
    pub scope: VarScope<'a>,
    /// From which place on.
    pub first: usize,
    /// How many at most.
    pub number: usize,
}

/// Why variables were not shown, or not reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarError {
    /// There is no such program, or it does not have the first of them.
    NotFound,
    /// There are more than are permitted to be reset.
    TooMany {
        /// How many.
        count: usize,
    },
}

impl<H: Host> Engine<H> {
    /// Shows variables, in the order of insertion; the global ones last.
    ///
    /// # Errors
    /// [`VarError::NotFound`].
    pub fn vars(&self, range: VarRange<'_>, visit: &mut dyn FnMut(&VarStatus)) -> Result<(), VarError> {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        self.each(&self.lock(), range, &mut |status, value| {
            visit(&VarStatus {
                value: load(value),
                ..status
            });
        })
    }

    /// Sets variables to zero, and shows what they had: nothing that a probe adds is lost in between. There may be `most` of them.
    ///
    /// # Errors
    /// [`VarError`]. Nothing has changed then.
    pub fn reset_vars(
        &self,
        range: VarRange<'_>,
        most: usize,
        visit: &mut dyn FnMut(&VarStatus),
    ) -> Result<(), VarError> {
        let control = self.lock();
        let mut count = 0;
        self.each(&control, range, &mut |_, _| count += 1)?;
        if count > most {
            return Err(VarError::TooMany { count });
        }
        self.each(&control, range, &mut |status, value| {
            visit(&VarStatus {
                value: value.swap(0, Ordering::Relaxed),
                ..status
            });
        })
    }

    fn each(
        &self,
        control: &Control,
        range: VarRange<'_>,
        visit: &mut dyn FnMut(VarStatus, &AtomicU64),
    ) -> Result<(), VarError> {
        let VarRange { scope, first, number } = range;
        let mut found = scope == VarScope::All;
        let mut chosen =
            |of: &VarStatus, names: &mut dyn Iterator<Item = &str>, values: &mut dyn Iterator<Item = &AtomicU64>| {
                // A program may have no variables, which is not the same as being absent.
                found |= first == 0;
                for (index, (name, value)) in names.zip(values).enumerate().skip(first).take(number) {
                    found = true;
                    let status = VarStatus {
                        index: index as u32,
                        name: label(name.as_bytes()),
                        ..*of
                    };
                    visit(status, value);
                }
            };
        for loaded in control.programs.iter().filter(|loaded| !loaded.part) {
            let wanted = match scope {
                VarScope::All => true,
                VarScope::Local { module, major } => loaded.is(module, major),
                VarScope::Global => false,
            };
            if wanted {
                let of = VarStatus {
                    major: loaded.major,
                    scope: VARS_LOCAL,
                    module: loaded.module,
                    ..VarStatus::default()
                };
                chosen(&of, &mut loaded.local_names(), &mut loaded.locals.iter());
            }
        }
        if !matches!(scope, VarScope::Local { .. }) {
            let of = VarStatus {
                scope: VARS_GLOBAL,
                ..VarStatus::default()
            };
            chosen(&of, &mut control.globals.iter(), &mut self.globals.values.iter());
        }
        found.then_some(()).ok_or(VarError::NotFound)
    }
}

impl Loaded {
    /// What its local variables are called, in their order.
    pub(super) fn local_names(&self) -> impl Iterator<Item = &str> {
        self.names.split('\0')
    }
}
