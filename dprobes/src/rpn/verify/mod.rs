//! The verifier: from a parsed object to a program that is safe to run.
//!
//! For each handler it proves that every byte belongs to an instruction, that operands are in range, that jumps stay
//! inside and meet instructions, and that control does not leave at the end. It follows the depth of the stack through
//! all paths; where it cannot prove that the stack suffices, it puts a check in front of
//! the instruction. It runs in time and memory proportional to the code, on bytes from user space.

mod decode;
mod depth;
mod emit;
mod error;

pub use error::{Fault, VerifyError};

use alloc::vec::Vec;

use super::exception::RPN_STACK_WRAP;
use super::object::Object;
use super::program::{Entry, Program};

/// Proves that a program is safe to run, and decodes it.
///
/// # Errors
/// The first reason found why it is not, with its place; or that there is no memory for it.
pub fn verify(object: &Object<'_>) -> Result<Program, VerifyError> {
    Verifier { object, point: 0 }.program()
}

/// A handler, and a point that has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Handler {
    start: u32,
    end: u32,
    /// `RPN_STACK_WRAP` is not raised: the stack is a ring.
    ring: bool,
    point: u32,
}

struct Verifier<'o, 'a> {
    object: &'o Object<'a>,
    /// The point whose handler is being looked at.
    point: u32,
}

impl Verifier<'_, '_> {
    fn program(&mut self) -> Result<Program, VerifyError> {
        let handlers = self.handlers()?;
        let mut program = Program {
            code: Vec::new(),
            origins: Vec::new(),
            entries: Vec::new(),
            locals: self.object.locals().len() as u16,
            logmax: self.object.logmax(),
            jmpmax: self.object.jmpmax(),
        };
        let placeholder = Entry {
            pc: 0,
            ex_mask: 0,
            whole_stack: false,
        };
        self.reserve(&mut program.entries, handlers.len())?;
        program.entries.resize(handlers.len(), placeholder);

        let mut before: Option<(Handler, Entry)> = None;
        for handler in handlers {
            self.point = handler.point;
            let shared = before.filter(|(other, _)| {
                Handler {
                    point: handler.point,
                    ..*other
                } == handler
            });
            let entry = match shared {
                Some((_, entry)) => entry,
                None => self.handler(handler, &mut program)?,
            };
            before = Some((handler, entry));
            let ex_mask = self.object.point(handler.point).map_or(0, |point| point.ex_mask());
            if let Some(slot) = program.entries.get_mut(handler.point as usize) {
                *slot = Entry { ex_mask, ..entry };
            }
        }
        Ok(program)
    }

    /// The handlers of all points, sorted, after checking that they are the same or apart, and the code no more than
    /// they.
    fn handlers(&mut self) -> Result<Vec<Handler>, VerifyError> {
        let mut handlers = Vec::new();
        self.reserve(&mut handlers, self.object.points().len())?;
        for (index, point) in (0..).zip(self.object.points()) {
            let code = point.code();
            let ring = point.ex_mask() & RPN_STACK_WRAP == 0;
            handlers.push(Handler {
                start: code.start,
                end: code.end,
                ring,
                point: index,
            });
        }
        handlers.sort_unstable();
        let (mut start, mut end, mut other) = (0, 0, 0);
        for handler in &handlers {
            if (handler.start, handler.end) != (start, end) {
                self.point = handler.point;
                if handler.start < end {
                    return Err(self.error(handler.start, Fault::Overlap { other }));
                }
                if handler.start > end {
                    return Err(self.error(end, Fault::Unused));
                }
                (start, end) = (handler.start, handler.end);
            }
            other = handler.point;
        }
        if (end as usize) < self.object.code().len() {
            return Err(self.error(end, Fault::Unused));
        }
        Ok(handlers)
    }

    /// Verifies one handler and adds it to the program.
    fn handler(&self, handler: Handler, program: &mut Program) -> Result<Entry, VerifyError> {
        let steps = self.decode(handler)?;
        let depths = self.depths(handler, &steps)?;
        self.emit(handler, &steps, &depths, program)
    }

    fn error(&self, offset: u32, fault: Fault) -> VerifyError {
        VerifyError {
            point: self.point,
            offset,
            line: self.object.line_at(offset),
            fault,
        }
    }

    /// Makes room for `more` elements.
    fn reserve<T>(&self, vec: &mut Vec<T>, more: usize) -> Result<(), VerifyError> {
        vec.try_reserve(more).map_err(|_| self.error(0, Fault::OutOfMemory))
    }
}
