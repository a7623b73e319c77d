//! Instructions that are not executed in the interpreter's loop: it hands over the machine, with all words in memory.

use super::env::Env;
use super::exception;
use super::frame::FrameInsn;
use super::heap::HeapInsn;
use super::hit::{Hit, Position};
use super::limits::STACK_WORDS;
use super::log::LogInsn;
use super::system::SystemInsn;
use super::trace::TraceInsn;
use super::variables::VariableInsn;
use super::workspace::Workspace;

/// Such an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rare {
    Frame(FrameInsn),
    Variable(VariableInsn),
    Log(LogInsn),
    System(SystemInsn),
    Heap(HeapInsn),
    Trace(TraceInsn),
}

/// Why an instruction did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It raises an exception.
    Exception { code: u16, parm1: u64, parm2: u64 },
    /// The budget is used up.
    Exhausted,
}

impl Failure {
    /// `INVALID_OPERAND` for a word of a [class](exception::operand).
    pub(super) const fn operand(class: u64, word: u64) -> Self {
        Self::Exception {
            code: exception::INVALID_OPERAND,
            parm1: class,
            parm2: word,
        }
    }
}

/// The machine between two instructions of the loop. The verifier, or a check that it put there, has seen to it that the stack has
/// the words that the instruction pops and room for those it pushes; it is masked all the same.
pub(super) struct Machine<'m, 'p, E> {
    pub(super) hit: &'m mut Hit<'p>,
    pub(super) ws: &'m mut Workspace,
    pub(super) env: &'m mut E,
    pub(super) at: Position,
}

impl<E: Env> Machine<'_, '_, E> {
    /// Executes an instruction. One for which the budget does not suffice has done nothing.
    #[inline(never)]
    pub(super) fn execute(&mut self, rare: Rare) -> Result<(), Failure> {
        let sp = self.at.sp;
        let result = match rare {
            Rare::Frame(insn) => insn.execute(self),
            Rare::Variable(insn) => insn.execute(self),
            Rare::Log(insn) => insn.execute(self),
            Rare::System(insn) => insn.execute(self),
            Rare::Heap(insn) => insn.execute(self),
            Rare::Trace(insn) => insn.execute(self),
        };
        if result == Err(Failure::Exhausted) {
            // What was popped is still there.
            self.at.sp = sp;
        }
        result
    }

    /// A word of the stack, by its index from the bottom.
    pub(super) fn slot(&mut self, index: usize) -> &mut u64 {
        &mut self.ws.stack[index % STACK_WORDS]
    }

    pub(super) fn push(&mut self, word: u64) {
        *self.slot(self.at.sp) = word;
        self.at.sp = self.at.sp.wrapping_add(1);
    }

    pub(super) fn pop(&mut self) -> u64 {
        self.at.sp = self.at.sp.wrapping_sub(1);
        *self.slot(self.at.sp)
    }

    /// The top word.
    pub(super) fn top(&mut self) -> u64 {
        *self.slot(self.at.sp.wrapping_sub(1))
    }

    /// Charges what an instruction costs more than others, before it has done anything but pop.
    pub(super) fn charge(&mut self, cost: u32) -> Result<(), Failure> {
        self.at.budget -= i64::from(cost);
        if self.at.budget < 0 {
            Err(Failure::Exhausted)
        } else {
            Ok(())
        }
    }
}
