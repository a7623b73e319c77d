//! The variables a run can reach.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use zerocopy::{FromZeros, KnownLayout};

use super::env::Env;
use super::exception::{self, operand};
use super::limits::{POOL_FIRST, POOL_VARIABLES};
use super::rare::{Failure, Machine};

/// The variables of a program: shared by all its runs, on all CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variables<'v> {
    /// Its local variables, as many as [`Program::locals`](super::Program::locals).
    pub locals: &'v [AtomicU64],
    /// The global variables of the system.
    pub globals: &'v [AtomicU64],
    /// For each global variable that the program names, in the order of its list, the index in `globals`.
    pub global_slots: &'v [u16],
    /// Where `alloc lv` takes variables from: there if [`Program::allocates_locals`](super::Program::allocates_locals).
    pub local_pool: Option<&'v Pool>,
    /// Where `alloc gv` takes variables from: one for the system.
    pub global_pool: Option<&'v Pool>,
    /// The program, to the [pools](Pool::alloc).
    pub owner: u32,
}

impl<'v> Variables<'v> {
    /// Local variables alone.
    pub const fn of_locals(locals: &'v [AtomicU64]) -> Self {
        Self {
            locals,
            globals: &[],
            global_slots: &[],
            local_pool: None,
            global_pool: None,
            owner: 1,
        }
    }

    /// A declared global variable.
    #[inline]
    pub(super) fn global(&self, index: usize) -> Option<&'v AtomicU64> {
        self.globals.get(usize::from(*self.global_slots.get(index)?))
    }

    /// A local variable, declared or allocated.
    #[inline]
    pub(super) fn any_local(&self, index: u64) -> Option<&'v AtomicU64> {
        match usize::try_from(index).ok().and_then(|index| self.locals.get(index)) {
            None => pooled(self.local_pool, index),
            declared => declared,
        }
    }

    /// A global variable, declared or allocated.
    pub(super) fn any_global(&self, index: u64) -> Option<&'v AtomicU64> {
        match usize::try_from(index).ok().and_then(|index| self.global(index)) {
            None => pooled(self.global_pool, index),
            declared => declared,
        }
    }
}

#[cold]
fn pooled(pool: Option<&Pool>, index: u64) -> Option<&AtomicU64> {
    pool?.variable(index)
}

/// Variables that programs allocate and free; all bytes zero is one with all of them free.
///
/// An index is [`POOL_FIRST`] and the number of the variable. Every operation is a few atomic steps: no lock, no waiting.
#[derive(Debug, FromZeros, KnownLayout)]
#[repr(C)]
pub struct Pool {
    values: [AtomicU64; POOL_VARIABLES],
    /// Who has allocated each; zero where it is free.
    owners: [AtomicU32; POOL_VARIABLES],
}

impl Pool {
    /// A pool.
    pub const fn new() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; POOL_VARIABLES],
            owners: [const { AtomicU32::new(0) }; POOL_VARIABLES],
        }
    }

    /// Allocates a variable for `owner`, and clears it. Returns its index, or none when all are taken. Owner 0 counts as 1.
    pub fn alloc(&self, owner: u32) -> Option<u64> {
        let owner = owner.max(1);
        for (number, (taken, value)) in (0..).zip(self.owners.iter().zip(&self.values)) {
            // What others allocate meanwhile is passed by; what they free behind this search is found by the next one.
            if taken.load(Relaxed) == 0 && taken.compare_exchange(0, owner, Relaxed, Relaxed).is_ok() {
                value.store(0, Relaxed);
                return Some(POOL_FIRST + number);
            }
        }
        None
    }

    /// Frees a variable, whoever allocated it; false when nobody has.
    pub fn free(&self, index: u64) -> bool {
        Self::number(index)
            .and_then(|number| self.owners.get(number))
            .is_some_and(|owner| owner.swap(0, Relaxed) != 0)
    }

    /// Frees all variables of an owner, which allocates no more.
    pub fn free_all(&self, owner: u32) {
        let owner = owner.max(1);
        for taken in &self.owners {
            let _ = taken.compare_exchange(owner, 0, Relaxed, Relaxed);
        }
    }

    /// An allocated variable.
    pub fn variable(&self, index: u64) -> Option<&AtomicU64> {
        let number = Self::number(index)?;
        if self.owners.get(number)?.load(Relaxed) == 0 {
            return None;
        }
        self.values.get(number)
    }

    fn number(index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(POOL_FIRST)?).ok()
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

/// Whose variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Local,
    Global,
}

/// What happens to a variable whose index is on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VariableOp {
    Push,
    Pop,
    Move,
    Inc,
    Dec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VariableInsn {
    Global(VariableOp),
    /// A variable of the call.
    PushCall(u8),
    PopCall(u8),
    Alloc(Scope),
    Free(Scope),
}

/// What looking for a free variable is charged.
const ALLOC_COST: u32 = POOL_VARIABLES as u32 / 8;

impl Scope {
    fn pool<'v>(self, variables: &Variables<'v>) -> Option<&'v Pool> {
        match self {
            Self::Local => variables.local_pool,
            Self::Global => variables.global_pool,
        }
    }
}

impl VariableInsn {
    pub(super) fn execute<E: Env>(self, m: &mut Machine<'_, '_, E>) -> Result<(), Failure> {
        match self {
            Self::Global(op) => {
                let value = if op == VariableOp::Pop { m.pop() } else { 0 };
                let index = m.pop();
                let global = m.hit.variables.any_global(index);
                let global = global.ok_or(Failure::operand(operand::GLOBAL, index))?;
                match op {
                    VariableOp::Push => m.push(global.load(Relaxed)),
                    VariableOp::Pop => global.store(value, Relaxed),
                    VariableOp::Move => global.store(m.top(), Relaxed),
                    VariableOp::Inc => _ = global.fetch_add(1, Relaxed),
                    VariableOp::Dec => _ = global.fetch_sub(1, Relaxed),
                }
            }
            // The verifier has checked the number.
            Self::PushCall(number) => {
                let value = m.ws.call.get(usize::from(number)).copied();
                m.push(value.unwrap_or(0));
            }
            Self::PopCall(number) => {
                let value = m.pop();
                if let Some(variable) = m.ws.call.get_mut(usize::from(number)) {
                    *variable = value;
                }
            }
            Self::Alloc(scope) => {
                m.charge(ALLOC_COST)?;
                let owner = m.hit.variables.owner;
                let index = scope.pool(m.hit.variables).and_then(|pool| pool.alloc(owner));
                m.push(index.ok_or(Failure::Exception {
                    code: exception::HEAP_NOMEM,
                    parm1: 1,
                    parm2: 0,
                })?);
            }
            Self::Free(scope) => {
                let index = m.pop();
                let class = match scope {
                    Scope::Local => operand::LOCAL,
                    Scope::Global => operand::GLOBAL,
                };
                if !scope.pool(m.hit.variables).is_some_and(|pool| pool.free(index)) {
                    return Err(Failure::operand(class, index));
                }
            }
        }
        Ok(())
    }
}
