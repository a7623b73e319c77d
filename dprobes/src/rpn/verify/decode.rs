//! First step: bytes to instructions with good operands and good targets.

use alloc::vec::Vec;

use super::{Fault, Handler, Verifier, VerifyError};
use crate::rpn::limits::{CALL_VARIABLES_MAX, HEAP_WORDS_MAX, STACK_WORDS};
use crate::rpn::object::Map;
use crate::rpn::op::{Flow, Op, Operand, Words, facility};
use crate::rpn::reg::Reg;

/// An instruction of a handler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Its offset in the object's code.
    pub(super) offset: u32,
    pub(super) op: Op,
    /// Its operand as a word. For a branch the index of the step it goes to, for a group its index.
    pub(super) operand: u64,
    /// Words it takes from the stack, apart from those that a count on the stack asks for.
    pub(super) takes: u16,
    /// Words it puts on the stack, apart from those that a count on the stack asks for.
    pub(super) puts: u16,
    /// A branch goes here.
    pub(super) entered: bool,
}

impl Step {
    /// The step a branch goes to.
    pub(super) fn target(&self) -> usize {
        self.operand as usize
    }
}

impl Verifier<'_, '_> {
    /// The instructions of a handler.
    pub(super) fn decode(&self, handler: Handler) -> Result<Vec<Step>, VerifyError> {
        let code = self.object.code();
        let mut rest = code.get(handler.start as usize..handler.end as usize).unwrap_or(&[]);
        let mut offset = handler.start;
        let mut steps = Vec::new();
        while let [byte, after @ ..] = rest {
            let op = Op::from_byte(*byte).ok_or_else(|| self.error(offset, Fault::Opcode { found: *byte }))?;
            let size = op.info().operand.size();
            let truncated = Fault::Truncated {
                op,
                needed: size,
                left: after.len(),
            };
            let (operand, after) = after
                .split_at_checked(size)
                .ok_or_else(|| self.error(offset, truncated))?;
            let operand = operand.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            let operand = self
                .check(handler, op, operand)
                .map_err(|fault| self.error(offset, fault))?;
            self.reserve(&mut steps, 1)?;
            let info = op.info();
            steps.push(Step {
                offset,
                op,
                operand,
                takes: self.words(info.pops, operand),
                puts: self.words(info.pushes, operand),
                entered: false,
            });
            offset += op.size() as u32;
            rest = after;
        }
        self.link(handler, &mut steps)?;
        Ok(steps)
    }

    /// Words that an instruction takes from the stack or puts there, as far as its operand says, which is good.
    fn words(&self, words: Words, operand: u64) -> u16 {
        match words {
            Words::Fixed(n) => u16::from(n),
            Words::Operand => operand as u16,
            Words::OperandPlus(n) => operand as u16 + u16::from(n),
            Words::Counted => 1,
            Words::Register => Reg::from_number(operand as u16).map_or(0, |reg| reg.words() as u16),
            Words::Map => self.map(operand as u16).map_or(0, |map| map.operands()),
            Words::Any => 0,
        }
    }

    /// A map of the program.
    pub(super) fn map(&self, index: u16) -> Option<Map<'_>> {
        self.object.maps().nth(usize::from(index))
    }

    /// Checks the operand of an instruction, except a branch's, and makes a word of it.
    fn check(&self, handler: Handler, op: Op, operand: u64) -> Result<u64, Fault> {
        let half = operand as u16;
        let within = |min, max| {
            if (min..=max).contains(&operand) {
                Ok(operand)
            } else {
                Err(Fault::Operand {
                    op,
                    found: operand,
                    min,
                    max,
                })
            }
        };
        let indexed = |count: usize, fault: fn(u16, u16) -> Fault| {
            if usize::from(half) < count {
                Ok(operand)
            } else {
                Err(fault(half, count as u16))
            }
        };
        match op {
            Op::Rol | Op::Ror | Op::Shl | Op::Shr => within(0, 63),
            Op::Pbl | Op::Pbr | Op::Pzl | Op::Pzr => within(1, 64),
            Op::PushCv | Op::PopCv => within(0, CALL_VARIABLES_MAX as u64 - 1),
            Op::Log => within(0, STACK_WORDS as u64),
            // Major code 0 is reserved.
            Op::SetMaj => within(1, u64::from(u16::MAX)),
            Op::PushhU8 | Op::PushhU16 | Op::PushhU32 | Op::PushhU64 => within(1, HEAP_WORDS_MAX),
            Op::PophU8 | Op::PophU16 | Op::PophU32 | Op::PophU64 => within(1, HEAP_WORDS_MAX),
            _ => match op.info().operand {
                Operand::Reg => {
                    let reg = Reg::from_number(half).ok_or(Fault::Register { found: half })?;
                    match op {
                        Op::PushU if !reg.is_saved() => Err(Fault::NotUser { reg }),
                        Op::PopR | Op::PopU if !reg.is_writable() => Err(Fault::ReadOnly { reg }),
                        _ => Ok(operand),
                    }
                }
                Operand::Local => indexed(self.object.locals().len(), |found, count| Fault::Local { found, count }),
                Operand::Global => indexed(self.object.globals().len(), |found, count| Fault::Global {
                    found,
                    count,
                }),
                Operand::Map => indexed(self.object.maps().len(), |found, count| Fault::Map { found, count }),
                Operand::Group => match self.groups.binary_search_by_key(&half, |group| group.number) {
                    Ok(index) => Ok(index as u64),
                    Err(_) => Err(Fault::Group { found: half }),
                },
                Operand::Facility if !facility::is_valid(operand as u8) => {
                    Err(Fault::Facility { found: operand as u8 })
                }
                Operand::S16 => {
                    let position = half.cast_signed();
                    let below_top = matches!(op, Op::PushTsp | Op::PopTsp | Op::CopyTsp);
                    if below_top && position < 0 && !handler.ring {
                        return Err(Fault::Position { op, position });
                    }
                    Ok(i64::from(position).cast_unsigned())
                }
                Operand::Facility | Operand::None | Operand::U8 | Operand::U16 | Operand::Word | Operand::Branch => {
                    Ok(operand)
                }
            },
        }
    }

    /// Turns the operands of branches into indices of steps, and checks that the last step is an end.
    fn link(&self, handler: Handler, steps: &mut [Step]) -> Result<(), VerifyError> {
        for index in 0..steps.len() {
            let Some(&Step {
                offset, op, operand, ..
            }) = steps.get(index)
            else {
                break;
            };
            if op.info().operand != Operand::Branch {
                continue;
            }
            let distance = i64::from((operand as u32).cast_signed());
            let target = i64::from(offset) + op.size() as i64 + distance;
            if target < i64::from(handler.start) || target >= i64::from(handler.end) {
                return Err(self.error(offset, Fault::TargetOutside { op, target }));
            }
            let target = target as u32;
            let found = steps
                .binary_search_by_key(&target, |step| step.offset)
                .map_err(|_| self.error(offset, Fault::TargetInside { op, target }))?;
            if let Some(step) = steps.get_mut(index) {
                step.operand = found as u64;
            }
            if let Some(target) = steps.get_mut(found) {
                target.entered = true;
            }
        }
        match steps.last() {
            Some(step) if goes_on(step.op) => Err(self.error(step.offset, Fault::NoEnd { op: step.op })),
            _ => Ok(()),
        }
    }
}

/// Whether control can reach the instruction behind this one.
pub(super) fn goes_on(op: Op) -> bool {
    match op.info().flow {
        Flow::Next | Flow::Branch | Flow::Call | Flow::Handler => true,
        Flow::Jump | Flow::Return | Flow::Raise | Flow::End => false,
    }
}
