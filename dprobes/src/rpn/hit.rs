//! The state of a run that is seldom touched, and what exceptions do to it.

use super::exception::{self, Exception};
use super::interp::End;
use super::limits::{GRACE_BUDGET, INSTRUCTION_BUDGET, STACK_WORDS};
use super::log::Logged;
use super::program::{Entry, Program};
use super::workspace::Workspace;

/// The part of the machine's state that an exception changes.
#[derive(Clone, Copy)]
pub(super) struct Position {
    /// Index of the instruction.
    pub(super) pc: usize,
    /// Words on the stack.
    pub(super) sp: usize,
    /// Instructions that may still be charged.
    pub(super) budget: i64,
}

/// Where an exception leads.
pub(super) enum Next {
    /// It is ignored.
    Ignored,
    /// To its handler.
    Handler(Position),
    /// To the end of the run.
    End(End),
}

/// The part of the machine's state that is seldom touched.
pub(super) struct Hit<'p> {
    pub(super) program: &'p Program,
    pub(super) entry: Entry,
    /// Index of the current routine's frame.
    pub(super) frame: usize,
    /// The budget was used up once.
    pub(super) grace: bool,
    /// The last exception of this hit.
    pub(super) last: Exception,
    pub(super) major: Option<u16>,
    pub(super) minor: Option<u16>,
    pub(super) log_overflow: bool,
}

impl Hit<'_> {
    #[cold]
    #[inline(never)]
    pub(super) fn raise(&mut self, ws: &mut Workspace, at: Position, code: u16, parm1: u64, parm2: u64) -> Next {
        let exception = Exception {
            code: u64::from(code),
            parm1,
            parm2,
        };
        if self.entry.ex_mask & code == 0 {
            if exception::NON_MASKABLE & code == 0 {
                return Next::Ignored;
            }
            return Next::End(self.end(at.pc, exception));
        }
        let mut sp = at.sp;
        if !self.entry.whole_stack && sp > STACK_WORDS - 3 {
            // No room for the three words: a handler that gets them is worth more than what is on the stack.
            sp = 0;
        }
        for word in [parm2, parm1, exception.code] {
            ws.stack[sp % STACK_WORDS] = word;
            sp = sp.wrapping_add(1);
        }
        self.dispatch(ws, Position { sp, ..at }, exception)
    }

    /// Finds the handler of an exception whose words are on the stack.
    #[cold]
    #[inline(never)]
    pub(super) fn dispatch(&mut self, ws: &mut Workspace, at: Position, exception: Exception) -> Next {
        self.last = exception;
        loop {
            let handler = ws
                .frames
                .get_mut(self.frame)
                .map_or(0, |frame| core::mem::take(&mut frame.handler));
            if handler != 0 {
                let pc = handler as usize - 1;
                let budget = at.budget - self.cost(at.pc, pc);
                if budget < 0 {
                    // Exceptions in a loop: there is no sense in one more.
                    return Next::End(self.end(at.pc, EXHAUSTED));
                }
                return Next::Handler(Position { pc, budget, ..at });
            }
            match self.frame.checked_sub(1) {
                Some(caller) => self.frame = caller,
                None => return Next::End(self.end(at.pc, exception)),
            }
        }
    }

    /// The budget is used up.
    #[cold]
    #[inline(never)]
    pub(super) fn exhausted(&mut self, ws: &mut Workspace, at: Position) -> Next {
        if self.grace {
            return Next::End(self.end(at.pc, EXHAUSTED));
        }
        self.grace = true;
        let at = Position {
            budget: i64::from(GRACE_BUDGET),
            ..at
        };
        self.raise(ws, at, exception::MAX_JMPS, EXHAUSTED.parm1, EXHAUSTED.parm2)
    }

    fn end(&self, pc: usize, exception: Exception) -> End {
        End::Exception {
            exception,
            offset: self.program.origins.get(pc).map_or(0, |origin| origin.offset),
        }
    }

    /// What moving from one instruction to another is charged.
    pub(super) fn cost(&self, from: usize, to: usize) -> i64 {
        let number = |pc: usize| {
            self.program
                .origins
                .get(pc)
                .map_or(0, |origin| i64::from(origin.number))
        };
        (number(from) - number(to) + 1).max(0)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn log_failed(&mut self, logged: Logged, logmax: u16) -> (u16, u64) {
        match logged {
            Logged::Fault { addr, overflow } => {
                self.log_overflow |= overflow;
                (exception::INVALID_ADDR, addr)
            }
            Logged::All | Logged::Overflow => {
                self.log_overflow = true;
                (exception::LOG_OVERFLOW, u64::from(logmax))
            }
        }
    }
}

const EXHAUSTED: Exception = Exception {
    code: exception::MAX_JMPS as u64,
    parm1: INSTRUCTION_BUDGET as u64,
    parm2: 0,
};
