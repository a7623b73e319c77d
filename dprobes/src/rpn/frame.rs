//! Frames on the stack: SBP, TSP, and the words at positions in relation to them that only the running program knows.

use super::env::Env;
use super::exception::{self, operand};
use super::limits::STACK_WORDS;
use super::rare::{Failure, Machine};

/// What a position counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The word that was on top when the stack had SBP words.
    Sbp,
    /// The word that is on top once the operands are taken.
    Tsp,
}

/// What happens to the word at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Push,
    Pop,
    Copy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameInsn {
    /// The position is on the stack, below the value.
    Indexed(Base, Access),
    SaveSbp,
    RestoreSbp,
    SaveTsp,
    RestoreTsp,
}

impl FrameInsn {
    pub(super) fn execute<E: Env>(self, m: &mut Machine<'_, '_, E>) -> Result<(), Failure> {
        match self {
            Self::Indexed(base, access) => indexed(m, base, access),
            Self::SaveSbp => {
                m.push(m.hit.sbp as u64);
                Ok(())
            }
            Self::RestoreSbp => {
                m.hit.sbp = words(m)?;
                Ok(())
            }
            Self::SaveTsp => {
                let sp = m.at.sp;
                m.push(if m.hit.is_ring() { sp % STACK_WORDS } else { sp } as u64);
                Ok(())
            }
            Self::RestoreTsp => {
                let words = words(m)?;
                if !m.hit.is_ring() {
                    m.charge(words.saturating_sub(m.at.sp) as u32)?;
                    for index in m.at.sp..words {
                        *m.slot(index) = 0;
                    }
                }
                m.at.sp = words;
                Ok(())
            }
        }
    }
}

/// Pops a number of words that a stack can have.
fn words<E: Env>(m: &mut Machine<'_, '_, E>) -> Result<usize, Failure> {
    let words = m.pop();
    if words > STACK_WORDS as u64 {
        return Err(Failure::operand(operand::POSITION, words));
    }
    Ok(words as usize)
}

fn indexed<E: Env>(m: &mut Machine<'_, '_, E>, base: Base, access: Access) -> Result<(), Failure> {
    let before = m.at.sp;
    let value = if access == Access::Push { 0 } else { m.pop() };
    let position = m.pop();
    let left = m.at.sp;
    let top = match base {
        Base::Sbp => m.hit.sbp,
        Base::Tsp => left,
    };
    let index = if m.hit.is_ring() {
        top.wrapping_sub(1).wrapping_sub(position as usize)
    } else {
        match place(top, i128::from(position.cast_signed()), left) {
            Ok(index) => index,
            Err(failure) => {
                m.at.sp = before;
                return Err(failure);
            }
        }
    };
    match access {
        Access::Push => {
            let word = *m.slot(index);
            m.push(word);
        }
        Access::Pop => *m.slot(index) = value,
        Access::Copy => {
            *m.slot(index) = value;
            m.push(value);
        }
    }
    Ok(())
}

/// The index of the word at a position below `top`, if the stack of `depth` words has it.
#[inline]
pub(super) fn place(top: usize, position: i128, depth: usize) -> Result<usize, Failure> {
    let index = top as i128 - 1 - position;
    let (parm1, parm2) = if index < 0 {
        (0, -index)
    } else if index >= depth as i128 {
        (STACK_WORDS as u64, index - depth as i128 + 1)
    } else {
        return Ok(index as usize);
    };
    Err(Failure::Exception {
        code: exception::RPN_STACK_WRAP,
        parm1,
        parm2: parm2 as u64,
    })
}
