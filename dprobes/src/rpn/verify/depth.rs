//! Second step: how many words are on the stack before each instruction, and where SBP points into it.
//!
//! Intervals are followed along every path until nothing changes. Where paths that meet keep widening them (a loop that
//! pushes), they are widened to all there can be, so that every instruction is visited a bounded number of times.

use alloc::vec::Vec;

use super::decode::{Step, goes_on};
use super::{Fault, Handler, Verifier, VerifyError};
use crate::rpn::limits::STACK_WORDS;
use crate::rpn::op::{Flow, Op, Words};

const FULL: i32 = STACK_WORDS as i32;

/// Visits after which an interval is widened.
const PATIENCE: u8 = 8;

/// Least and greatest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    low: i32,
    high: i32,
}

impl Interval {
    /// Any depth, and any SBP.
    const ANY: Self = Self { low: 0, high: FULL };
    /// Any difference of the two.
    const ANY_DIFFERENCE: Self = Self { low: -FULL, high: FULL };

    const fn exactly(value: i32) -> Self {
        Self {
            low: value,
            high: value,
        }
    }

    fn hull(self, other: Self) -> Self {
        Self {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }

    /// Itself if it covers another, or else all there can be.
    fn widened(self, other: Self, all: Self) -> Self {
        if self.hull(other) == self { self } else { all }
    }

    /// All of it moved, as far as `within` goes.
    fn moved(self, by: i32, within: Self) -> Self {
        Self {
            low: (self.low + by).clamp(within.low, within.high),
            high: (self.high + by).clamp(within.low, within.high),
        }
    }
}

/// What is known of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// Words on it.
    depth: Interval,
    /// SBP.
    sbp: Interval,
    /// The depth less SBP.
    above: Interval,
}

impl Known {
    const NOTHING: Self = Self {
        depth: Interval::ANY,
        sbp: Interval::ANY,
        above: Interval::ANY_DIFFERENCE,
    };

    fn hull(self, other: Self) -> Self {
        Self {
            depth: self.depth.hull(other.depth),
            sbp: self.sbp.hull(other.sbp),
            above: self.above.hull(other.above),
        }
    }

    fn widened(self, other: Self) -> Self {
        Self {
            depth: self.depth.widened(other.depth, Interval::ANY),
            sbp: self.sbp.widened(other.sbp, Interval::ANY),
            above: self.above.widened(other.above, Interval::ANY_DIFFERENCE),
        }
    }

    /// The depth is something else now.
    fn with_depth(self, depth: Interval) -> Self {
        let above = Interval {
            low: depth.low - self.sbp.high,
            high: depth.high - self.sbp.low,
        };
        Self { depth, above, ..self }
    }
}

/// What is known of the stack before an instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    /// None when control never comes here.
    known: Option<Known>,
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
    /// What it needs, apart from what it takes from the stack and looks at itself: counts and positions.
    pub(super) fn need(&self) -> Need {
        Need {
            // A position below the top is a word that must be there. Decoding proved that there is none above it, unless the
            // stack is a ring, where that is as good as never enough.
            pops: match self.tsp_position() {
                Some(position) => u16::try_from(position).map_or(u16::MAX, |position| self.takes + position + 1),
                None => self.takes,
            },
            room: self.puts.saturating_sub(self.takes),
        }
    }

    /// Whether it takes a count or a position from the stack, and then looks itself whether the stack suffices.
    pub(super) fn looks_itself(&self) -> bool {
        let info = self.op.info();
        info.pops == Words::Counted
            || matches!(info.pushes, Words::Counted | Words::Any)
            || matches!(self.op, Op::PushSbpS | Op::PopSbpS | Op::CopySbpS)
            || matches!(self.op, Op::PushTspS | Op::PopTspS | Op::CopyTspS | Op::TracePv)
    }

    /// The position an instruction names below the top of the stack.
    pub(super) fn tsp_position(&self) -> Option<i32> {
        matches!(self.op, Op::PushTsp | Op::PopTsp | Op::CopyTsp).then_some(self.operand.cast_signed() as i32)
    }

    /// The position an instruction names in relation to SBP.
    pub(super) fn sbp_position(&self) -> Option<i16> {
        matches!(self.op, Op::PushSbp | Op::PopSbp | Op::CopySbp).then_some(self.operand.cast_signed() as i16)
    }

    /// What is known after it, from what suffices. `before` is the instruction from which alone control comes to it.
    fn after(&self, known: Known, before: Option<&Step>) -> Known {
        let takes = i32::from(self.takes);
        let left = known.depth.moved(-takes, Interval::ANY);
        let constant = before.filter(|step| step.op == Op::Push).map(|step| step.operand);
        let constant = constant
            .filter(|word| *word <= STACK_WORDS as u64)
            .map(|word| word as i32);
        let before = before.map(|step| step.op);
        let info = self.op.info();
        match (self.op, info.pops, info.pushes) {
            (Op::RestoreSbp, ..) => {
                let sbp = match (before, constant) {
                    // A frame begins: SBP is the depth, whatever that is.
                    (Some(Op::SaveTsp), _) => {
                        return Known {
                            depth: left,
                            sbp: left,
                            above: Interval::exactly(0),
                        };
                    }
                    (_, Some(word)) => Interval::exactly(word),
                    _ => Interval::ANY,
                };
                Known { sbp, ..known }.with_depth(left)
            }
            (Op::RestoreTsp, ..) => match (before, constant) {
                // A frame ends.
                (Some(Op::SaveSbp), _) => Known {
                    depth: known.sbp,
                    sbp: known.sbp,
                    above: Interval::exactly(0),
                },
                (_, Some(word)) => known.with_depth(Interval::exactly(word)),
                _ => known.with_depth(Interval::ANY),
            },
            (_, Words::Counted, _) => known.with_depth(Interval { low: 0, ..left }),
            (_, _, Words::Counted) => known.with_depth(Interval { high: FULL, ..left }),
            _ => {
                let puts = i32::from(self.puts);
                Known {
                    depth: left.moved(puts, Interval::ANY),
                    above: known.above.moved(puts - takes, Interval::ANY_DIFFERENCE),
                    ..known
                }
            }
        }
    }
}

impl Depth {
    const UNKNOWN: Self = Self {
        known: None,
        changes: 0,
        queued: false,
    };

    /// Whether the stack always suffices, or control never comes here.
    pub(super) fn proves(&self, need: Need) -> bool {
        self.known.is_none_or(|known| {
            known.depth.low >= i32::from(need.pops) && known.depth.high <= FULL - i32::from(need.room)
        })
    }

    /// Whether a position in relation to SBP is always on the stack, without the `takes` words on top.
    pub(super) fn proves_position(&self, position: i16, takes: u16) -> bool {
        let (position, takes) = (i32::from(position), i32::from(takes));
        self.known.is_none_or(|Known { depth, sbp, above }| {
            let below_top = above.low >= takes - position || sbp.high - 1 - position < depth.low - takes;
            sbp.low > position && below_top
        })
    }

    /// Whether such a position is never on the stack.
    fn refutes_position(&self, position: i16, takes: u16) -> bool {
        let (position, takes) = (i32::from(position), i32::from(takes));
        self.known
            .is_some_and(|Known { sbp, above, .. }| sbp.high <= position || above.high < takes - position)
    }

    /// Adds a way to come here; whether that is news.
    fn join(&mut self, new: Known) -> bool {
        let joined = match self.known {
            None => new,
            Some(old) if old.hull(new) == old => return false,
            Some(old) if self.changes >= PATIENCE => old.widened(new),
            Some(old) => old.hull(new),
        };
        self.changes = self.changes.saturating_add(1);
        self.known = Some(joined);
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
        let start = Known {
            depth: Interval::exactly(0),
            sbp: Interval::exactly(0),
            above: Interval::exactly(0),
        };
        // Where nothing moves SBP, it is zero everywhere.
        let frames = steps.iter().any(|step| step.op == Op::RestoreSbp);
        let any = if frames {
            Known::NOTHING
        } else {
            start.with_depth(Interval::ANY)
        };
        flow.reach(0, start);
        while let Some((index, known)) = flow.next() {
            let Some(step) = steps.get(index) else { continue };
            let need = step.need();
            let (least, most) = (i32::from(need.pops), FULL - i32::from(need.room));
            let Interval { low, high } = known.depth;
            let after = if high >= least && low <= most {
                let depth = Interval {
                    low: low.max(least),
                    high: high.min(most),
                };
                let before = index.checked_sub(1).filter(|_| !step.entered);
                step.after(Known { depth, ..known }, before.and_then(|before| steps.get(before)))
            } else if handler.ring {
                any
            } else {
                // Refused below.
                continue;
            };
            match step.op.info().flow {
                Flow::Next => {}
                Flow::Branch | Flow::Jump | Flow::Call => flow.reach(step.target(), after),
                // An exception empties the stack if there is no room for its three words.
                Flow::Handler => flow.reach(step.target(), any.with_depth(Interval { low: 3, high: FULL })),
                Flow::Return | Flow::Raise | Flow::End => {}
            }
            if goes_on(step.op) {
                // What a routine leaves on the stack is not followed; SBP is what it was.
                let after = if step.op == Op::Call {
                    after.with_depth(Interval::ANY)
                } else {
                    after
                };
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
        let Some(Known {
            depth: Interval { low, high },
            ..
        }) = depth.known
        else {
            return Ok(());
        };
        let Need { pops, room } = step.need();
        let op = step.op;
        let fault = if high < i32::from(pops) {
            Fault::Underflow {
                op,
                needed: pops,
                depth: high as u16,
            }
        } else if low > FULL - i32::from(room) {
            Fault::Overflow {
                op,
                needed: room,
                room: (FULL - low) as u16,
            }
        } else {
            match step.sbp_position() {
                Some(position) if depth.refutes_position(position, step.takes) => Fault::Position { op, position },
                _ => return Ok(()),
            }
        };
        Err(self.error(step.offset, fault))
    }
}

struct DepthFlow {
    depths: Vec<Depth>,
    /// Steps whose depth has changed since they were looked at; each at most once, so that it never grows beyond its
    /// reserved length.
    queue: Vec<usize>,
}

impl DepthFlow {
    fn reach(&mut self, index: usize, known: Known) {
        let Some(depth) = self.depths.get_mut(index) else {
            return;
        };
        if depth.join(known) && !depth.queued {
            depth.queued = true;
            self.queue.push(index);
        }
    }

    fn next(&mut self) -> Option<(usize, Known)> {
        loop {
            let index = self.queue.pop()?;
            let Some(depth) = self.depths.get_mut(index) else {
                continue;
            };
            depth.queued = false;
            if let Some(known) = depth.known {
                return Some((index, known));
            }
        }
    }
}
