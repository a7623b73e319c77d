//! First step: bytes to instructions with good operands and good targets.

use alloc::vec::Vec;

use super::{Fault, Handler, Verifier, VerifyError};
use crate::rpn::limits::STACK_WORDS;
use crate::rpn::op::{Flow, Op, Operand};
use crate::rpn::reg::Reg;

/// An instruction of a handler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Its offset in the object's code.
    pub(super) offset: u32,
    pub(super) op: Op,
    /// Its operand, zero-extended. For a branch the index of the step it goes to.
    pub(super) operand: u64,
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
            self.check(op, operand).map_err(|fault| self.error(offset, fault))?;
            self.reserve(&mut steps, 1)?;
            steps.push(Step { offset, op, operand });
            offset += op.size() as u32;
            rest = after;
        }
        self.link(handler, &mut steps)?;
        Ok(steps)
    }

    /// Checks the operand of an instruction, except a branch's.
    fn check(&self, op: Op, operand: u64) -> Result<(), Fault> {
        let within = |min, max| {
            if (min..=max).contains(&operand) {
                Ok(())
            } else {
                Err(Fault::Operand {
                    op,
                    found: operand,
                    min,
                    max,
                })
            }
        };
        match op {
            Op::Rol | Op::Ror | Op::Shl | Op::Shr => within(0, 63),
            Op::Pbl | Op::Pbr | Op::Pzl | Op::Pzr => within(1, 64),
            Op::Log => within(0, STACK_WORDS as u64),
            // Major code 0 is reserved.
            Op::SetMaj => within(1, u64::from(u16::MAX)),
            _ => match op.info().operand {
                Operand::Reg => {
                    let number = operand as u16;
                    let reg = Reg::from_number(number).ok_or(Fault::Register { found: number })?;
                    if op == Op::PopR && !reg.is_writable() {
                        Err(Fault::ReadOnly { reg })
                    } else {
                        Ok(())
                    }
                }
                Operand::Local => {
                    let (found, count) = (operand as u16, self.object.locals().len() as u16);
                    if found < count {
                        Ok(())
                    } else {
                        Err(Fault::Local { found, count })
                    }
                }
                _ => Ok(()),
            },
        }
    }

    /// Turns the operands of branches into indices of steps, and checks that the last step is an end.
    fn link(&self, handler: Handler, steps: &mut [Step]) -> Result<(), VerifyError> {
        for index in 0..steps.len() {
            let Some(&Step { offset, op, operand }) = steps.get(index) else {
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
