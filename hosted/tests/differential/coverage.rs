//! Which kinds of instructions were run, and how.

use std::collections::BTreeMap;
use std::fmt;

use iced_x86::Code;

use crate::cpu;
use crate::exempt;
use crate::generate;
use crate::opcode;

/// What has become of the instructions of one kind.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// Executions with a probe that completed.
    pub completed: u64,
    /// Executions with a probe that raised a signal other than SIGILL.
    pub raised: u64,
    /// Executions with a probe that raised SIGILL.
    pub undefined: u64,
    /// Instructions that the engine refuses.
    pub refused: u64,
}

/// What was run.
pub struct Coverage {
    seen: Vec<Seen>,
    /// Why instructions were refused.
    pub refusals: BTreeMap<String, u64>,
}

impl Coverage {
    pub fn new() -> Self {
        Coverage {
            seen: vec![Seen::default(); Code::values().len()],
            refusals: BTreeMap::new(),
        }
    }

    pub fn of(&mut self, code: Code) -> &mut Seen {
        &mut self.seen[code as usize]
    }

    /// The kinds of each sort.
    pub fn sort(&self) -> Sorts {
        let mut sorts = Sorts::default();
        for code in opcode::all() {
            let seen = self.seen[*code as usize];
            let place = if seen.completed > 0 {
                &mut sorts.completed
            } else if seen.raised > 0 && exempt::raises(*code).is_some() {
                &mut sorts.raised
            } else if seen.refused > 0 {
                &mut sorts.refused
            } else if seen.raised > 0 {
                &mut sorts.incomplete
            } else if let Some(reason) = generate::never_run().get(code) {
                match reason {
                    Some(reason) => {
                        sorts.never.push((*code, reason));
                        continue;
                    }
                    None => &mut sorts.not_found,
                }
            } else if exempt::undefined(*code).is_some() && seen.undefined > 0 {
                &mut sorts.undefined
            } else if cpu::has(*code) {
                &mut sorts.missed
            } else {
                &mut sorts.absent
            };
            place.push(*code);
        }
        sorts
    }
}

/// All kinds of instructions of 64-bit mode, each in one list.
#[derive(Default, Debug)]
pub struct Sorts {
    /// Has completed with a probe on it.
    pub completed: Vec<Code>,
    /// Raises a signal other than SIGILL, as it must in user mode.
    pub raised: Vec<Code>,
    /// Has raised signals only, although it could complete.
    pub incomplete: Vec<Code>,
    /// Raises SIGILL although the CPU has it, as it must.
    pub undefined: Vec<Code>,
    /// The engine refuses it.
    pub refused: Vec<Code>,
    /// Never run, for a reason.
    pub never: Vec<(Code, &'static str)>,
    /// This CPU does not have it.
    pub absent: Vec<Code>,
    /// This CPU has it, and it was not run, or only raised SIGILL.
    pub missed: Vec<Code>,
    /// No bytes were found for it.
    pub not_found: Vec<Code>,
}

impl fmt::Display for Sorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kinds of instructions of 64-bit mode: {}", opcode::all().len())?;
        writeln!(f, "  {:5} completed with a probe", self.completed.len())?;
        writeln!(
            f,
            "  {:5} raise a signal in user mode: {:?}",
            self.raised.len(),
            self.raised
        )?;
        writeln!(
            f,
            "  {:5} have only faulted: {:?}",
            self.incomplete.len(),
            self.incomplete
        )?;
        writeln!(
            f,
            "  {:5} are undefined in user mode: {:?}",
            self.undefined.len(),
            self.undefined
        )?;
        writeln!(f, "  {:5} are refused: {:?}", self.refused.len(), self.refused)?;
        writeln!(f, "  {:5} are never run:", self.never.len())?;
        let mut reasons: BTreeMap<&str, Vec<Code>> = BTreeMap::new();
        for (code, reason) in &self.never {
            reasons.entry(reason).or_default().push(*code);
        }
        for (reason, codes) in reasons {
            writeln!(f, "        {reason}: {codes:?}")?;
        }
        writeln!(f, "  {:5} this CPU does not have", self.absent.len())?;
        writeln!(f, "  {:5} were missed: {:?}", self.missed.len(), self.missed)?;
        writeln!(
            f,
            "  {:5} no bytes were found for: {:?}",
            self.not_found.len(),
            self.not_found
        )
    }
}
