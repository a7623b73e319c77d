//! The state of a run that is seldom touched, and what exceptions do to it.

use super::exception::{self, Exception};
use super::interp::End;
use super::limits::{GRACE_BUDGET, INSTRUCTION_BUDGET, STACK_WORDS};
use super::log::Logged;
use super::observe::Dispatch;
use super::program::{Entry, Program};
use super::rare::Failure;
use super::variables::Variables;
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
    Ignored(Exception),
    /// To its handler.
    Handler(Position),
    /// To the end of the run.
    End(End),
}

impl Next {
    /// What an observer is told: the exception, and where it leads.
    pub(super) fn told(&self, hit: &Hit<'_>) -> (Exception, Dispatch) {
        match self {
            Self::Ignored(exception) => (*exception, Dispatch::Ignored),
            Self::Handler(to) => (hit.last, Dispatch::Handler(hit.offset(to.pc))),
            Self::End(End::Exception { exception, .. }) => (*exception, Dispatch::End),
            Self::End(_) => (hit.last, Dispatch::End),
        }
    }
}

/// The part of the machine's state that is seldom touched.
pub(super) struct Hit<'p> {
    pub(super) program: &'p Program,
    pub(super) variables: &'p Variables<'p>,
    pub(super) entry: Entry,
    /// The stack base pointer.
    pub(super) sbp: usize,
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

/// The handler that an exception goes to.
struct Destination {
    /// Its frame.
    frame: usize,
    pc: usize,
    /// What moving there is charged.
    cost: i64,
}

impl<'p> Hit<'p> {
    pub(super) fn new(program: &'p Program, variables: &'p Variables<'p>, entry: Entry) -> Self {
        Self {
            program,
            variables,
            entry,
            sbp: 0,
            frame: 0,
            grace: false,
            last: Exception {
                code: 0,
                parm1: 0,
                parm2: 0,
            },
            major: None,
            minor: None,
            log_overflow: false,
        }
    }

    /// Whether the stack is a ring: wrapping is no exception.
    pub(super) fn is_ring(&self) -> bool {
        self.entry.ex_mask & exception::RPN_STACK_WRAP == 0
    }

    /// An instruction failed.
    #[cold]
    #[inline(never)]
    pub(super) fn fail(&mut self, ws: &mut Workspace, at: Position, failure: Failure) -> Next {
        match failure {
            Failure::Exception { code, parm1, parm2 } => self.raise(ws, at, code, parm1, parm2),
            Failure::Exhausted => self.exhausted(ws, at),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn raise(&mut self, ws: &mut Workspace, mut at: Position, code: u16, parm1: u64, parm2: u64) -> Next {
        let exception = Exception {
            code: u64::from(code),
            parm1,
            parm2,
        };
        if self.entry.ex_mask & code == 0 {
            if exception::NON_MASKABLE & code == 0 {
                return Next::Ignored(exception);
            }
            self.trace_exception(ws, &mut at, exception, None);
            return Next::End(self.end(at.pc, exception));
        }
        let to = self.destination(ws, at);
        // Before the stack changes, so that positions are those that the program knows.
        self.trace_exception(ws, &mut at, exception, to.as_ref().ok().map(|to| to.pc));
        if !self.entry.whole_stack && at.sp > STACK_WORDS - 3 {
            // No room for the three words: a handler that gets them is worth more than what is on the stack.
            at.sp = 0;
        }
        for word in [parm2, parm1, exception.code] {
            ws.stack[at.sp % STACK_WORDS] = word;
            at.sp = at.sp.wrapping_add(1);
        }
        self.go(ws, at, exception, to)
    }

    /// An exception whose words are on the stack: the `rx` instruction.
    #[cold]
    #[inline(never)]
    pub(super) fn dispatch(&mut self, ws: &mut Workspace, mut at: Position, exception: Exception) -> Next {
        let to = self.destination(ws, at);
        self.trace_exception(ws, &mut at, exception, to.as_ref().ok().map(|to| to.pc));
        self.go(ws, at, exception, to)
    }

    /// Which handler an exception goes to; or how the run ends, when there is none or the budget does not reach that far.
    fn destination(&self, ws: &Workspace, at: Position) -> Result<Destination, Option<Exception>> {
        let frames = ws.frames.iter().enumerate().take(self.frame + 1).rev();
        let (frame, handler) = frames
            .map(|(index, frame)| (index, frame.handler as usize))
            .find(|(_, handler)| *handler != 0)
            .ok_or(None)?;
        let pc = handler - 1;
        let cost = self.cost(at.pc, pc);
        if at.budget < cost {
            // Exceptions in a loop: there is no sense in one more.
            return Err(Some(EXHAUSTED));
        }
        Ok(Destination { frame, pc, cost })
    }

    /// Goes to the handler, out of the routines that have none.
    fn go(
        &mut self,
        ws: &mut Workspace,
        at: Position,
        exception: Exception,
        to: Result<Destination, Option<Exception>>,
    ) -> Next {
        self.last = exception;
        let to = match to {
            Ok(to) => to,
            Err(instead) => return Next::End(self.end(at.pc, instead.unwrap_or(exception))),
        };
        if let Some(left) = ws.frames.get(to.frame + 1).filter(|_| to.frame < self.frame) {
            self.sbp = usize::from(left.sbp);
        }
        self.frame = to.frame;
        if let Some(frame) = ws.frames.get_mut(to.frame) {
            // For one exception.
            frame.handler = 0;
        }
        Next::Handler(Position {
            pc: to.pc,
            budget: at.budget - to.cost,
            ..at
        })
    }

    /// The budget is used up.
    #[cold]
    #[inline(never)]
    pub(super) fn exhausted(&mut self, ws: &mut Workspace, mut at: Position) -> Next {
        if self.grace {
            self.trace_exception(ws, &mut at, EXHAUSTED, None);
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
            offset: self.offset(pc),
        }
    }

    /// The offset in the object's code of an instruction.
    pub(super) fn offset(&self, pc: usize) -> u32 {
        self.program.origins.get(pc).map_or(0, |origin| origin.offset)
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
