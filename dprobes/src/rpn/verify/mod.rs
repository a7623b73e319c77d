//! The verifier: from a parsed object to a program that is safe to run.
//!
//! For each handler it proves that every byte belongs to an instruction, that operands are in range, that jumps stay
//! inside and meet instructions, and that control does not leave at the end. It follows the depth of the stack and SBP through
//! all paths; where it cannot prove that the stack suffices, or that a position is on it, it puts a check in front of
//! the instruction. It runs in time and memory proportional to the code, on bytes from user space.

mod decode;
mod depth;
mod emit;
mod error;
mod fuse;

pub use error::{Fault, VerifyError};

use alloc::vec::Vec;

use super::exception::RPN_STACK_WRAP;
use super::object::{Object, Point};
use super::op::Op;
use super::program::{Entry, Group, Program};
use crate::sort;

/// Proves that a program is safe to run, and decodes it. Frequent sequences of instructions are executed as one.
///
/// # Errors
/// The first reason found why it is not, with its place; or that there is no memory for it.
pub fn verify(object: &Object<'_>) -> Result<Program, VerifyError> {
    Verifier::new(object, true).program()
}

/// As [`verify`], but every instruction is executed on its own: for runs that somebody
/// [watches](super::interp::run_observed). Nothing else tells the two programs apart.
///
/// # Errors
/// As for [`verify`].
pub fn verify_unfused(object: &Object<'_>) -> Result<Program, VerifyError> {
    Verifier::new(object, false).program()
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
    /// The groups of all points, sorted.
    groups: Vec<Group>,
    /// Whether sequences become superinstructions.
    fuse: bool,
}

impl<'o, 'a> Verifier<'o, 'a> {
    fn new(object: &'o Object<'a>, fuse: bool) -> Self {
        Self {
            object,
            point: 0,
            groups: Vec::new(),
            fuse,
        }
    }
}

impl Verifier<'_, '_> {
    fn program(&mut self) -> Result<Program, VerifyError> {
        let handlers = self.handlers()?;
        self.groups = self.find_groups()?;
        let mut program = Program {
            code: Vec::new(),
            origins: Vec::new(),
            entries: Vec::new(),
            groups: Vec::new(),
            locals: self.object.locals().len() as u16,
            globals: self.object.globals().len() as u16,
            logmax: self.object.logmax(),
            ex_logmax: self.object.ex_logmax(),
            jmpmax: self.object.jmpmax(),
            auto_trace: self.object.auto_stack_trace(),
            allocates_locals: false,
        };
        let placeholder = Entry {
            pc: 0,
            ex_mask: 0,
            heap: 0,
            group: 0,
            whole_stack: false,
            counting: false,
            of_call: false,
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
            let point = self.object.point(handler.point);
            if let (Some(slot), Some(point)) = (program.entries.get_mut(handler.point as usize), point) {
                let group = self
                    .groups
                    .binary_search_by_key(&point.group(), |group| group.number)
                    .unwrap_or(0);
                *slot = Entry {
                    ex_mask: point.ex_mask(),
                    heap: point.heap(),
                    group: group as u16,
                    ..entry
                };
            }
        }
        program.groups = core::mem::take(&mut self.groups);
        Ok(program)
    }

    /// The groups of all points, sorted, after checking that the points of each agree.
    fn find_groups(&mut self) -> Result<Vec<Group>, VerifyError> {
        let mut groups = Vec::new();
        self.reserve(&mut groups, self.object.points().len())?;
        groups.extend(self.object.points().map(|point| Group {
            number: point.group(),
            suspended: point.suspended(),
        }));
        sort::by_key(&mut groups, |group| *group);
        groups.dedup();
        for pair in groups.windows(2) {
            if let [first, second] = pair
                && first.number == second.number
            {
                let disagrees = |point: Point<'_>| point.group() == first.number && point.suspended();
                let point = self.object.points().position(disagrees).unwrap_or(0);
                self.point = point as u32;
                let offset = self.object.point(self.point).map_or(0, |point| point.code().start);
                return Err(self.error(offset, Fault::GroupDisagrees { group: first.number }));
            }
        }
        // Not by shrinking, which is not told that there is no memory.
        let mut kept = Vec::new();
        kept.try_reserve_exact(groups.len())
            .map_err(|_| self.error(0, Fault::OutOfMemory))?;
        kept.append(&mut groups);
        Ok(kept)
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
        sort::by_key(&mut handlers, |handler| *handler);
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
        program.allocates_locals |= steps.iter().any(|step| step.op == Op::AllocLv);
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
