//! Second step: how many words are on the stack before each instruction.
//!
//! An interval is followed along every path until nothing changes. Where paths that meet keep widening it (a loop that
//! pushes), it is widened to the whole stack, so that every instruction is visited a bounded number of times.

use alloc::vec::Vec;

use super::decode::{Step, goes_on};
use super::{Fault, Handler, Verifier, VerifyError};
use crate::rpn::limits::STACK_WORDS;
use crate::rpn::op::{Flow, Op, Words};

const FULL: u16 = STACK_WORDS as u16;

/// Visits after which an interval is widened.
const PATIENCE: u8 = 8;

/// What is known of the stack before an instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    /// Least and greatest number of words; none when control never comes here.
    range: Option<(u16, u16)>,
    changes: u8,
    queued: bool,
}

/// What an instruction needs of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Words that must be there.
    pub(super) pops: u16,
    /// Words by which the stack grows.
    pub(super) room: u16,
}

impl Step {
    /// What it needs, apart from counts it takes from the stack: for those it looks itself.
    pub(super) fn need(&self) -> Need {
        let fixed = |words| match words {
            Words::Fixed(n) => u16::from(n),
            // Decoding proved that it is no more than the stack has.
            Words::Operand => self.operand as u16,
            Words::Counted => 0,
        };
        let info = self.op.info();
        let pops = fixed(info.pops) + u16::from(info.pops == Words::Counted);
        Need {
            pops,
            room: fixed(info.pushes).saturating_sub(pops),
        }
    }

    /// Whether it takes a count from the stack, and then looks itself whether the stack suffices.
    pub(super) fn is_counted(&self) -> bool {
        let info = self.op.info();
        info.pops == Words::Counted || info.pushes == Words::Counted
    }

    /// The depth after it, from one that suffices.
    fn after(&self, (low, high): (u16, u16)) -> (u16, u16) {
        let pops = self.need().pops;
        let (low, high) = (low.saturating_sub(pops), high.saturating_sub(pops));
        let info = self.op.info();
        match (info.pops, info.pushes) {
            (Words::Counted, _) => (0, high),
            (_, Words::Counted) => (low, FULL),
            (_, Words::Fixed(n)) => (low + u16::from(n), (high + u16::from(n)).min(FULL)),
            (_, Words::Operand) => (low + self.operand as u16, (high + self.operand as u16).min(FULL)),
        }
    }
}

impl Depth {
    const UNKNOWN: Self = Self {
        range: None,
        changes: 0,
        queued: false,
    };

    /// Whether the stack always suffices, or control never comes here.
    pub(super) fn proves(&self, need: Need) -> bool {
        self.range
            .is_none_or(|(low, high)| low >= need.pops && high <= FULL - need.room)
    }

    /// Adds a way to come here; whether that is news.
    fn join(&mut self, (low, high): (u16, u16)) -> bool {
        let joined = match self.range {
            None => (low, high),
            Some((l, h)) if l <= low && h >= high => return false,
            Some(_) if self.changes >= PATIENCE => (0, FULL),
            Some((l, h)) => (l.min(low), h.max(high)),
        };
        self.changes = self.changes.saturating_add(1);
        self.range = Some(joined);
        true
    }
}

impl Verifier<'_, '_> {
    /// The depth before each step.
    ///
    /// # Errors
    /// When an instruction fails whenever control comes to it, unless the stack is a ring, where this cannot happen.
    pub(super) fn depths(&self, handler: Handler, steps: &[Step]) -> Result<Vec<Depth>, VerifyError> {
        let mut flow = DepthFlow {
            depths: Vec::new(),
            queue: Vec::new(),
        };
        self.reserve(&mut flow.depths, steps.len())?;
        self.reserve(&mut flow.queue, steps.len())?;
        flow.depths.resize(steps.len(), Depth::UNKNOWN);
        flow.reach(0, (0, 0));
        while let Some((index, (low, high))) = flow.next() {
            let Some(step) = steps.get(index) else { continue };
            let need = step.need();
            let most = FULL - need.room;
            let after = if high >= need.pops && low <= most {
                step.after((low.max(need.pops), high.min(most)))
            } else if handler.ring {
                (0, FULL)
            } else {
                // Refused below.
                continue;
            };
            match step.op.info().flow {
                Flow::Next => {}
                Flow::Branch | Flow::Jump | Flow::Call => flow.reach(step.target(), after),
                // An exception empties the stack if there is no room for its three words.
                Flow::Handler => flow.reach(step.target(), (3, FULL)),
                Flow::Return | Flow::Raise | Flow::End => {}
            }
            if goes_on(step.op) {
                // What a routine leaves on the stack is not followed.
                let after = if step.op == Op::Call { (0, FULL) } else { after };
                flow.reach(index + 1, after);
            }
        }
        if !handler.ring {
            for (step, depth) in steps.iter().zip(&flow.depths) {
                self.possible(step, depth)?;
            }
        }
        Ok(flow.depths)
    }

    /// Refuses an instruction that fails whenever control comes to it.
    fn possible(&self, step: &Step, depth: &Depth) -> Result<(), VerifyError> {
        let Need { pops, room } = step.need();
        let op = step.op;
        match depth.range {
            Some((_, high)) if high < pops => Err(self.error(
                step.offset,
                Fault::Underflow {
                    op,
                    needed: pops,
                    depth: high,
                },
            )),
            Some((low, _)) if low > FULL - room => Err(self.error(
                step.offset,
                Fault::Overflow {
                    op,
                    needed: room,
                    room: FULL - low,
                },
            )),
            _ => Ok(()),
        }
    }
}

struct DepthFlow {
    depths: Vec<Depth>,
    /// Steps whose depth has changed since they were looked at; each at most once, so that it never grows beyond its
    /// reserved length.
    queue: Vec<usize>,
}

impl DepthFlow {
    fn reach(&mut self, index: usize, range: (u16, u16)) {
        let Some(depth) = self.depths.get_mut(index) else {
            return;
        };
        if depth.join(range) && !depth.queued {
            depth.queued = true;
            self.queue.push(index);
        }
    }

    fn next(&mut self) -> Option<(usize, (u16, u16))> {
        loop {
            let index = self.queue.pop()?;
            let Some(depth) = self.depths.get_mut(index) else {
                continue;
            };
            depth.queued = false;
            if let Some(range) = depth.range {
                return Some((index, range));
            }
        }
    }
}
