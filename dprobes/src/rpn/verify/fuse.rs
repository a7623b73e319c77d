//! Fourth step: superinstructions.
//!
//! Dispatching an instruction costs more than most instructions do. Here the effect of short sequences of stack instructions is worked
//! out; where all that a sequence does is `place = place op operand`, perhaps followed by a jump that looks at the result, its first
//! instruction is replaced by one that does it at once and goes on behind the sequence. The rest of the sequence stays where it is: jumps
//! into it find what they expect, and no target, origin or number of an instruction changes. An exception in the jump at the end is
//! raised with the jump's own index, so that nothing of this can be seen from outside.
//!
//! It is only done where words that were popped cannot be seen again, because what a sequence pushes for itself is never written.

use crate::rpn::program::{Alu, Insn};

/// The longest sequence that is looked at.
const LONGEST: usize = 4;

/// How many words that were on the stack before a sequence can touch, and how many it can push.
const WORDS: usize = 8;

/// Puts superinstructions into a handler.
pub(super) fn fuse(code: &mut [Insn]) {
    for start in 0..code.len() {
        let fused = code.get(start..).and_then(fused);
        if let (Some(fused), Some(first)) = (fused, code.get_mut(start)) {
            *first = fused;
        }
    }
}

/// What does the same as the longest sequence at the beginning of the code, if there is one.
fn fused(code: &[Insn]) -> Option<Insn> {
    let mut sequence = Sequence::new();
    let mut longest = None;
    for (insn, length) in code.iter().take(LONGEST).zip(1..) {
        let before = sequence.effect();
        if !sequence.add(insn) {
            return before.and_then(|effect| effect.with_jump(insn, length)).or(longest);
        }
        longest = sequence.effect().and_then(|effect| effect.alone(length)).or(longest);
    }
    longest
}

/// A word that was there before the sequence, or a constant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    /// At this distance from the end of the stack: 1 is the top word.
    Slot(u8),
    Local(u16),
    Word(u64),
    /// What the sequence has computed: it computes one value.
    Result,
}

/// What a sequence does as a whole: `place = place op operand`. The place is a [`Value::Slot`] or a [`Value::Local`].
struct Effect {
    place: Value,
    op: Alu,
    operand: Value,
    /// Words by which the stack shrinks.
    pops: usize,
}

impl Effect {
    /// One instruction for it, if there is one for a sequence of this length.
    fn alone(&self, length: usize) -> Option<Insn> {
        let op = self.op;
        Some(match (length, self.place, self.operand, self.pops) {
            (2, Value::Slot(1), Value::Word(word), 0) => Insn::TopWord { op, word },
            (2, Value::Slot(1), Value::Slot(below @ 2..), 0) => Insn::TopBelow { op, below },
            (2, Value::Slot(1), Value::Local(local), 0) => Insn::TopLv { op, local },
            (4, Value::Slot(below @ 2..), Value::Word(word), 0) => Insn::BelowWord { op, below, word },
            (4, Value::Slot(below @ 2..), Value::Slot(1), 0) => Insn::BelowTop { op, below },
            (4, Value::Local(local), Value::Word(word), 0) => Insn::LvWord { op, local, word },
            (4, Value::Local(local), Value::Slot(1), 0) => Insn::LvTop { op, local },
            (3, Value::Local(local), Value::Slot(1), 1) => Insn::LvPop { op, local },
            _ => return None,
        })
    }

    /// One instruction for it and the jump behind it, if there is one for a sequence of this length.
    fn with_jump(&self, jump: &Insn, length: usize) -> Option<Insn> {
        let (3, Value::Slot(1), Value::Word(word), 0) = (length, self.place, self.operand, self.pops) else {
            return None;
        };
        let word = i32::try_from(word.cast_signed()).ok()?;
        Some(match (self.op, *jump) {
            (Alu::Add, Insn::Jz(jump)) => Insn::AddJz { word, jump },
            (Alu::Add, Insn::Jnz(jump)) => Insn::AddJnz { word, jump },
            (Alu::Add, Insn::Jlt(jump)) => Insn::AddJlt { word, jump },
            (Alu::Add, Insn::Jle(jump)) => Insn::AddJle { word, jump },
            (Alu::Add, Insn::Jgt(jump)) => Insn::AddJgt { word, jump },
            (Alu::Add, Insn::Jge(jump)) => Insn::AddJge { word, jump },
            (Alu::And, Insn::Jz(jump)) => Insn::AndJz { word, jump },
            (Alu::And, Insn::Jnz(jump)) => Insn::AndJnz { word, jump },
            _ => return None,
        })
    }
}

/// The state after a sequence, in terms of the state before it.
struct Sequence {
    /// The stack from the bottom: slots [`WORDS`] to 1 at first.
    stack: [Value; 2 * WORDS],
    len: usize,
    /// What [`Value::Result`] is.
    result: Option<(Alu, Value, Value)>,
    /// The local variable that the result was written to.
    written: Option<u16>,
}

impl Sequence {
    fn new() -> Self {
        Self {
            stack: core::array::from_fn(|index| Value::Slot(WORDS.saturating_sub(index) as u8)),
            len: WORDS,
            result: None,
            written: None,
        }
    }

    /// Adds an instruction, if it is one that can be in a sequence.
    fn add(&mut self, insn: &Insn) -> bool {
        self.try_add(insn).is_some()
    }

    fn try_add(&mut self, insn: &Insn) -> Option<()> {
        if self.written.is_some() {
            // Reading the variable would have to see what was written.
            return None;
        }
        match *insn {
            Insn::Nop => {}
            Insn::Push(word) => self.push(Value::Word(word))?,
            Insn::PushLv(local) => self.push(Value::Local(local))?,
            Insn::PopLv(local) => {
                if self.pop()? != Value::Result {
                    return None;
                }
                self.written = Some(local);
            }
            Insn::Ros(count) => {
                for _ in 0..count {
                    self.pop()?;
                }
            }
            Insn::Xchg => {
                let (b, a) = (self.pop()?, self.pop()?);
                self.push(b)?;
                self.push(a)?;
            }
            Insn::Dup(count @ 0..=2) => {
                let value = self.pop()?;
                for _ in 0..count {
                    self.push(value)?;
                }
            }
            Insn::PushTsp(position) => {
                let value = *self.at(position)?;
                self.push(value)?;
            }
            Insn::PopTsp(position) => {
                let value = self.pop()?;
                *self.at(position)? = value;
            }
            Insn::Add => self.compute(Alu::Add)?,
            Insn::Sub => self.compute(Alu::Sub)?,
            Insn::Mul => self.compute(Alu::Mul)?,
            Insn::And => self.compute(Alu::And)?,
            Insn::Or => self.compute(Alu::Or)?,
            Insn::Xor => self.compute(Alu::Xor)?,
            _ => return None,
        }
        Some(())
    }

    fn push(&mut self, value: Value) -> Option<()> {
        *self.stack.get_mut(self.len)? = value;
        self.len += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<Value> {
        self.len = self.len.checked_sub(1)?;
        self.stack.get(self.len).copied()
    }

    /// The word at a position below the top one.
    fn at(&mut self, position: i16) -> Option<&mut Value> {
        let index = self.len.checked_sub(1)?.checked_sub(usize::try_from(position).ok()?)?;
        self.stack.get_mut(index)
    }

    fn compute(&mut self, op: Alu) -> Option<()> {
        let (b, a) = (self.pop()?, self.pop()?);
        if self.result.is_some() || a == Value::Result || b == Value::Result {
            return None;
        }
        self.result = Some((op, a, b));
        self.push(Value::Result)
    }

    /// The effect of the sequence, if it is one of the simple ones.
    fn effect(&self) -> Option<Effect> {
        let (op, a, b) = self.result?;
        let place = self.place()?;
        let operand = match op {
            _ if a == place => b,
            Alu::Sub => return None,
            _ if b == place => a,
            _ => return None,
        };
        let (op, operand) = match (op, operand) {
            (Alu::Sub, Value::Word(word)) => (Alu::Add, Value::Word(word.wrapping_neg())),
            same => same,
        };
        Some(Effect {
            place,
            op,
            operand,
            pops: WORDS.checked_sub(self.len)?,
        })
    }

    /// The only place that is not as it was.
    fn place(&self) -> Option<Value> {
        let mut place = self.written.map(Value::Local);
        for (value, slot) in self.stack.iter().take(self.len).zip((1..=WORDS as u8).rev()) {
            if *value != Value::Slot(slot) {
                if *value != Value::Result || place.is_some() {
                    return None;
                }
                place = Some(Value::Slot(slot));
            }
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpn::program::Jump;

    const TO: Jump = Jump { target: 9, cost: 5 };

    /// Sequences as people write them, and what becomes of them.
    #[test]
    fn what_is_fused() {
        use Alu::{Add, And, Mul, Sub, Xor};
        use Insn::{Dup, Jge, Jnz, Jz, Nop, PopLv, PopTsp, Push, PushLv, PushTsp, Xchg};
        let cases: &[(&[Insn], Insn)] = &[
            (&[Push(7), Insn::Add], Insn::TopWord { op: Add, word: 7 }),
            (
                &[Push(7), Insn::Sub],
                Insn::TopWord {
                    op: Add,
                    word: 7_u64.wrapping_neg(),
                },
            ),
            (&[Push(7), Insn::Mul, Insn::Exit], Insn::TopWord { op: Mul, word: 7 }),
            (&[Push(7), Insn::Sub, Jz(TO)], Insn::AddJz { word: -7, jump: TO }),
            (
                &[Push(u64::MAX), Insn::Add, Jge(TO)],
                Insn::AddJge { word: -1, jump: TO },
            ),
            (&[Push(8), Insn::And, Jnz(TO)], Insn::AndJnz { word: 8, jump: TO }),
            (
                &[Push(1 << 31), Insn::And, Jnz(TO)],
                Insn::TopWord { op: And, word: 1 << 31 },
            ),
            (&[Push(8), Insn::And, Jge(TO)], Insn::TopWord { op: And, word: 8 }),
            (&[PushTsp(2), Insn::Sub], Insn::TopBelow { op: Sub, below: 3 }),
            (&[PushLv(4), Insn::Sub], Insn::TopLv { op: Sub, local: 4 }),
            (
                &[Xchg, Push(3), Insn::Add, Xchg],
                Insn::BelowWord {
                    op: Add,
                    below: 2,
                    word: 3,
                },
            ),
            (
                &[PushTsp(2), Push(1), Insn::Xor, PopTsp(2)],
                Insn::BelowWord {
                    op: Xor,
                    below: 3,
                    word: 1,
                },
            ),
            (
                &[Xchg, PushTsp(1), Insn::Sub, Xchg],
                Insn::BelowTop { op: Sub, below: 2 },
            ),
            (
                &[Dup(2), PushTsp(2), Insn::Add, PopTsp(1)],
                Insn::BelowTop { op: Add, below: 2 },
            ),
            (
                &[PushLv(4), Push(3), Insn::Sub, PopLv(4)],
                Insn::LvWord {
                    op: Add,
                    local: 4,
                    word: 3_u64.wrapping_neg(),
                },
            ),
            (
                &[Dup(2), PushLv(4), Insn::Add, PopLv(4)],
                Insn::LvTop { op: Add, local: 4 },
            ),
            (&[PushLv(4), Insn::Add, PopLv(4)], Insn::LvPop { op: Add, local: 4 }),
            // Another length than there is an instruction for.
            (&[Nop, Push(7), Insn::Add], Nop),
            (&[Push(7), Nop, Insn::Add], Push(7)),
            // Constant minus top word, and top word combined with itself.
            (&[Push(7), Xchg, Insn::Sub], Push(7)),
            (&[Dup(2), Insn::Add], Dup(2)),
            // The jump looks at another word.
            (&[Push(7), Insn::Add, Xchg, Jz(TO)], Insn::TopWord { op: Add, word: 7 }),
            // Variable minus top word; another variable is written.
            (&[PushLv(4), Insn::Sub, PopLv(4)], Insn::TopLv { op: Sub, local: 4 }),
            (&[PushLv(4), Insn::Add, PopLv(5)], Insn::TopLv { op: Add, local: 4 }),
        ];
        for (sequence, expected) in cases {
            let mut code = [Insn::Exit; 8];
            code[..sequence.len()].copy_from_slice(sequence);
            fuse(&mut code);
            assert_eq!(code[0], *expected, "{sequence:?}");
        }
    }

    #[test]
    fn jumps_into_a_sequence_find_it() {
        let mut code = [
            Insn::Push(7),
            Insn::Push(8),
            Insn::Add,
            Insn::Sub,
            Insn::Jz(TO),
            Insn::Exit,
        ];
        let before = code;
        fuse(&mut code);
        assert_eq!(code[0], before[0]);
        assert_eq!(code[1], Insn::TopWord { op: Alu::Add, word: 8 });
        assert_eq!(code[2..], before[2..]);
    }
}
