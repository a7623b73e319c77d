//! Traces of the RPN machine, for the stack-trace record.

use super::env::Env;
use super::exception::{Exception, operand};
use super::hit::{Hit, Position};
use super::limits::STACK_WORDS;
use super::log::{global, local, range};
use super::rare::{Failure, Machine};
use super::workspace::{SHOWN, Shown, Workspace};
use crate::record::element::token;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TraceInsn {
    Append,
    Purge,
    Positions,
    Locals,
    Globals,
    PushLength,
    PopLength,
}

/// No such place in the code.
const NOWHERE: u64 = u64::MAX;

impl TraceInsn {
    pub(super) fn execute<E: Env>(self, m: &mut Machine<'_, '_, E>) -> Result<(), Failure> {
        match self {
            Self::Append => {
                m.charge(u32::from(m.hit.program.ex_logmax) / 8)?;
                let last = m.hit.last;
                m.hit.append_trace(m.ws, m.at, last, None);
            }
            Self::Purge => {
                m.ws.trace.len = 0;
                m.ws.traces_cut = 0;
            }
            Self::Positions => show(m, 0, operand::POSITION, STACK_WORDS)?,
            Self::Locals => show(m, 1, operand::LOCAL, m.hit.variables.locals.len())?,
            Self::Globals => show(m, 2, operand::GLOBAL, m.hit.variables.global_slots.len())?,
            Self::PushLength => m.push(m.ws.trace.len as u64),
            Self::PopLength => {
                let len = m.pop();
                m.charge(u32::from(m.hit.program.ex_logmax) / 8)?;
                if !m.ws.trace.cut(len) {
                    return Err(Failure::operand(operand::LENGTH, len));
                }
            }
        }
        Ok(())
    }
}

/// Pops `first count`, and sets what traces show of the current routine.
fn show<E: Env>(m: &mut Machine<'_, '_, E>, kind: usize, class: u64, all: usize) -> Result<(), Failure> {
    let count = m.pop();
    let first = m.pop();
    let all = all as u64;
    let Some(range) = range(first, count, all) else {
        return Err(Failure::operand(class, first.max(all)));
    };
    let (frame, shown) = (m.ws.frames.get_mut(m.hit.frame), m.ws.shown.get_mut(m.hit.frame));
    if let (Some(frame), Some(shown)) = (frame, shown) {
        if frame.shows == 0 {
            *shown = [Shown::default(); SHOWN];
            frame.shows = 1;
        }
        if let Some(shown) = shown.get_mut(kind) {
            *shown = Shown {
                first: range.start as u16,
                count: range.len() as u16,
            };
        }
    }
    Ok(())
}

impl Hit<'_> {
    /// Appends a trace of an exception if the program wants one by itself. `handler` is where it will go.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_exception(
        &mut self,
        ws: &mut Workspace,
        at: &mut Position,
        exception: Exception,
        handler: Option<usize>,
    ) {
        if self.program.auto_trace {
            at.budget -= i64::from(self.program.ex_logmax) / 8;
            self.append_trace(ws, *at, exception, handler);
        }
    }

    /// Appends a trace, as far as it fits.
    fn append_trace(&mut self, ws: &mut Workspace, at: Position, exception: Exception, handler: Option<usize>) {
        if self.write_trace(ws, at, exception, handler).is_none() {
            ws.traces_cut += 1;
        }
    }

    fn write_trace(
        &self,
        ws: &mut Workspace,
        at: Position,
        exception: Exception,
        handler: Option<usize>,
    ) -> Option<()> {
        let max = self.program.ex_logmax;
        let offset = |pc: usize| {
            self.program
                .origins
                .get(pc)
                .map_or(NOWHERE, |origin| u64::from(origin.offset))
        };
        let Exception { code, parm1, parm2 } = exception;
        let head = [code, parm1, parm2, offset(at.pc), handler.map_or(NOWHERE, offset)];
        ws.trace.put_words(max, token::TRACE, head.into_iter()).then_some(())?;
        for index in (0..=self.frame).rev() {
            let frame = *ws.frames.get(index)?;
            let back = if index == 0 {
                NOWHERE
            } else {
                offset(frame.back as usize)
            };
            let routine = [offset(frame.called as usize), back];
            ws.trace
                .put_words(max, token::FRAME, routine.into_iter())
                .then_some(())?;
            if frame.shows != 0 {
                let shown = *ws.shown.get(index)?;
                self.write_shown(ws, at.sp, shown)?;
            }
        }
        Some(())
    }

    /// Writes what a routine wants to have shown.
    fn write_shown(&self, ws: &mut Workspace, sp: usize, shown: [Shown; SHOWN]) -> Option<()> {
        let max = self.program.ex_logmax;
        let [positions, locals, globals] = shown.map(|shown| {
            let first = usize::from(shown.first);
            first..first + usize::from(shown.count)
        });
        if !positions.is_empty() {
            // Below the bottom there is something in a ring alone.
            let depth = if self.is_ring() { STACK_WORDS } else { sp };
            let there = positions.start.min(depth)..positions.end.min(depth);
            let (stack, trace) = (&ws.stack, &mut ws.trace);
            let words = there.map(|position| stack[sp.wrapping_sub(1).wrapping_sub(position) % STACK_WORDS]);
            trace.put_words(max, token::POSITIONS, words).then_some(())?;
        }
        if !locals.is_empty() {
            let words = locals.map(|index| local(self.variables, index));
            ws.trace.put_words(max, token::LOCALS, words).then_some(())?;
        }
        if !globals.is_empty() {
            let words = globals.map(|index| global(self.variables, index));
            ws.trace.put_words(max, token::GLOBALS, words).then_some(())?;
        }
        Some(())
    }
}
