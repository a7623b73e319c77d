//! What a hit changed.

use dprobes::rpn::interp::PortWidth;
use dprobes::rpn::reg::Reg;

use crate::machine::Machine;
use crate::memory;
use crate::simulation::{Added, Switched};

/// A value that is not what it was: what it is of, before, after.
pub type Change<K, V> = (K, V, V);

/// What a hit changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Registers.
    pub regs: Vec<Change<Reg, u64>>,
    /// Registers of user mode.
    pub user: Vec<Change<Reg, u64>>,
    /// Memory.
    pub memory: Vec<memory::Change>,
    /// Local variables, by index.
    pub locals: Vec<Change<usize, u64>>,
    /// Global variables, by index.
    pub globals: Vec<Change<usize, u64>>,
    /// What was written to ports: port, width, value.
    pub ports: Vec<(u16, PortWidth, u32)>,
    /// What was added to maps.
    pub added: Vec<Added>,
    /// Groups that were suspended and resumed.
    pub switched: Vec<Switched>,
}

impl Changes {
    pub(crate) fn new(
        before: &Machine,
        after: &Machine,
        variables_before: &[Vec<u64>; 2],
        variables_after: &[Vec<u64>; 2],
        added: Vec<Added>,
        switched: Vec<Switched>,
    ) -> Self {
        let variables = |which: usize| different(0.., &variables_before[which], &variables_after[which]);
        // Only registers of one word can be written.
        let word = |machine: &Machine, reg| machine.reg_words(reg).and_then(|words| words.first().copied());
        let user = |machine: &Machine, reg| machine.user.as_ref().map(|user| user.get(&reg).copied().unwrap_or(0));
        Self {
            regs: registers(|reg| Some((word(before, reg)?, word(after, reg)?))),
            user: registers(|reg| Some((user(before, reg)?, user(after, reg)?))),
            memory: after.memory.changes(&before.memory),
            locals: variables(0),
            globals: variables(1),
            ports: after.written.clone(),
            added,
            switched,
        }
    }
}

fn registers(values: impl Fn(Reg) -> Option<(u64, u64)>) -> Vec<Change<Reg, u64>> {
    let writable = Reg::ALL.iter().filter(|reg| reg.is_writable());
    writable
        .filter_map(|reg| {
            let (before, after) = values(*reg)?;
            (before != after).then_some((*reg, before, after))
        })
        .collect()
}

fn different(names: impl Iterator<Item = usize>, before: &[u64], after: &[u64]) -> Vec<Change<usize, u64>> {
    names
        .zip(before.iter().zip(after))
        .filter(|(_, (before, after))| before != after)
        .map(|(name, (before, after))| (name, *before, *after))
        .collect()
}
